"""Runs held against a reference: ranked by closeness, beside the reference's own floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bayesnn.comparison import CLOSENESS, Measure
from bayesnn.errors import UsageError
from bayesnn.load import LoadedRun, load_run
from bayesnn.notation import interval, number
from bayesnn.reference.bundle import Bundle, differences, load_bundle, posterior_facts
from bayesnn.reference.published import PUBLISHED, published
from diagnostics.floor import LARGER_IS_CLOSER, Fidelity, Floor, Prefixes, fidelity_to, prefixes

MEASURES = CLOSENESS | {
    "wasserstein_1": Measure("Wasserstein distance of order 1, units of the target"),
    "wasserstein_2": Measure("Wasserstein distance of order 2, units of the target"),
}
RANKED_BY = {"classification": "total_variation", "regression": "wasserstein_1", "counts": "wasserstein_1"}


def open_reference(name: str) -> Bundle:
    """Open a reference: a file of `bayesnn reference save`, or a published one by its name.

    Raises:
        UsageError: Neither, or a damaged one.
    """
    if name in PUBLISHED:
        return published(name)
    if not name.endswith(".npz"):
        raise UsageError(f"{name} is no reference: give an .npz of `bayesnn reference save`, or one of {', '.join(PUBLISHED)}")
    return load_bundle(Path(name))


def open_runs(folders: Sequence[str]) -> dict[str, LoadedRun]:
    """Open runs by the names of their folders.

    Raises:
        UsageError: Two folders of one name, or no run folder.
    """
    runs = {Path(folder).name: load_run(folder) for folder in folders}
    if len(runs) < len(folders):
        raise UsageError(f"two of {', '.join(folders)} have the same name; rename one, or compare them one by one")
    return runs


def hold_against(runs: Mapping[str, LoadedRun], bundle: Bundle, *, accept_differences: bool = False) -> dict[str, Fidelity]:
    """Measure how close runs are to a reference, the closest first.

    Args:
        runs: By name.
        bundle: The reference.
        accept_differences: Compare although a run is of another posterior.

    Raises:
        UsageError: A run of another posterior, with all that differs, or tested on other points.
    """
    measured = {}
    for name, run in runs.items():
        found = differences(posterior_facts(run), bundle.posterior)
        if found and not accept_differences:
            raise UsageError(
                f"{name} and the reference {bundle.name} are of different posteriors, so a distance says nothing about sampling "
                f"({'; '.join(found)}); compare all the same with --accept-differences"
            )
        ours, reference = _on_common_points(name, run, bundle)
        measured[name] = fidelity_to(ours, reference)
    return dict(sorted(measured.items(), key=lambda entry: entry[1].measured[RANKED_BY[bundle.task]].value))


def print_fidelity(console: Console, found: Mapping[str, Fidelity], bundle: Bundle) -> None:
    """Print runs by closeness, with the floor of the reference below each."""
    for rank, (name, fidelity) in enumerate(found.items(), start=1):
        ess = f", {number(fidelity.ess)} effective" if np.isfinite(fidelity.ess) else ""
        console.print(Text(f"{rank}. {name}: {fidelity.num_draws:,} draws{ess}", "bold"))
        console.print(_table(fidelity))
        console.print()
    if bundle.prefixes.num_chains < 3:
        console.print(
            f"{bundle.name} has fewer than three chains apart, so how far its own chains are from each other is not known."
        )


def _table(fidelity: Fidelity) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column()
    table.add_column("run", justify="right")
    floors = [("draws", fidelity.equal_draws), ("effective draws", fidelity.equal_ess)]
    for words, floor in floors:
        if floor is not None:
            table.add_column(f"reference, as many {words} ({floor.num_draws:,} a chain)", justify="right")
    for key, estimate in fidelity.measured.items():
        value, ends = interval(estimate, MEASURES[key].unit)
        cells = [_against(fidelity, floor, key) for _, floor in floors if floor is not None]
        table.add_row(Text(MEASURES[key].label), Text.assemble(value, (f"\n{ends}", "dim")), *cells)
    return table


def _against(fidelity: Fidelity, floor: Floor, key: str) -> Text:
    value, ends = interval(floor.bands[key], MEASURES[key].unit)
    is_inside = fidelity.is_inside(floor, key)
    beyond = "less alike" if key in LARGER_IS_CLOSER else "farther"
    return Text.assemble(value, (f"\n{ends}\n", "dim"), ("inside" if is_inside else beyond, "green" if is_inside else "red"))


def _on_common_points(name: str, run: LoadedRun, bundle: Bundle) -> tuple[Prefixes, Prefixes]:
    """Return both predictions on the first points that both have, since runs keep the first of their test points."""
    tree = run.tree
    if tree.attrs["task"] != bundle.task or "observed_data" not in tree.children:
        raise UsageError(f"{name} is for {tree.attrs['task']} and {bundle.name} for {bundle.task}; they cannot be compared")
    ours, theirs = tree["observed_data"].to_dataset()["y_test"].values, bundle.y_test
    num_points = min(len(ours), len(theirs))
    # Targets in original units have gone through float32 once.
    if not np.allclose(ours[:num_points], theirs[:num_points], rtol=1e-5, atol=0):
        raise UsageError(f"{name} and {bundle.name} were tested on different points; compare runs on the same test set")
    return _first(prefixes(tree), num_points), _first(bundle.prefixes, num_points)


def _first(whole: Prefixes, num_points: int) -> Prefixes:
    return whole._replace(parts=tuple(part[:, :, :num_points] for part in whole.parts))
