"""What ran, on what, with which versions, and how to run it again."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from bayesnn.config import HMC, NUTS, AdjustedMCLMC, DynamicHMC, RunConfig
from bayesnn.manifest import Launch, Manifest
from bayesnn.notation import number, share
from bayesnn.progress import duration
from bayesnn.run_folder import RunFolder

# Settings that decide which distribution is sampled, as opposed to how.
POSTERIOR = ("data", "model", "prior", "likelihood", "density", "temperature", "likelihood_temperature")

TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Facts:
    """What a run folder knows besides its draws.

    Attributes:
        name: Of the folder.
        config: What was asked for.
        manifest: What ran, on what, with which versions.
        status: How far it is.
    """

    name: str
    config: RunConfig
    manifest: Manifest
    status: Mapping[str, Any]

    @classmethod
    def of(cls, folder: RunFolder) -> Facts:
        """Read the facts of a run folder."""
        return cls(folder.path.resolve().name, folder.config, folder.manifest, folder.status)

    def unfinished(self) -> str:
        """Say how far a run is that has not come to its end; nothing of one that has."""
        if self.status.get("state") == "complete":
            return ""
        return f"This run is {self.status.get('state', 'not complete')}: {self.progress()}. The page is about these draws alone."

    def progress(self) -> str:
        """Say how many draws are there."""
        return f"{self.status.get('draws', 0):,} of {self.status.get('draws_asked', self.config.draws):,} draws a chain"


type Rows = list[tuple[str, str]]


class Provenance(NamedTuple):
    """The section on provenance.

    Attributes:
        run: What was sampled, and how far.
        sampler: What the sampler spent and ran into.
        settings: Every setting by its dotted name.
        commands: What to type, by purpose.
        launches: Time, command, code and what differed from the launch before.
        versions: Of the last launch.
        machine: Of the last launch.
    """

    run: Rows
    sampler: Rows
    settings: Rows
    commands: Rows
    launches: list[Rows]
    versions: Rows
    machine: Rows


def provenance(tree: xr.DataTree, facts: Facts | None) -> Provenance:
    """Return what is known of a run: from its folder, or from its tree alone."""
    if facts is None:
        return Provenance(_described(tree), _costs(tree) + _divergences(tree), [], [], [], [], [])
    launches = facts.manifest["launches"]
    return Provenance(
        run=[("experiment", facts.manifest["experiment"]), *_described(tree), *_progress(facts)],
        sampler=_costs(tree) + _warmup(facts) + _trajectories(tree, facts.config) + _divergences(tree),
        settings=list(flattened(facts.config.model_dump(mode="json")).items()),
        commands=_commands(facts),
        launches=[_launch(launch) for launch in launches],
        versions=list(launches[-1]["versions"].items()),
        machine=_machine(launches[-1]),
    )


def other_posteriors(facts: Mapping[str, Facts]) -> list[str]:
    """Say in which settings other runs sample another posterior than the first: their predictions then differ by right."""
    if not facts:
        return []
    described = {name: flattened(one.config.model_dump(mode="json", include=set(POSTERIOR))) for name, one in facts.items()}
    (_, base), *others = described.items()
    sentences = []
    for name, settings in others:
        keys = [key for key in {**base, **settings} if base.get(key) != settings.get(key)]
        changes = [f"{key} is {settings.get(key, 'not set')} instead of {base.get(key, 'not set')}" for key in keys]
        if changes:
            sentences.append(f"{name} samples another posterior: {', '.join(changes)}.")
    return sentences


def size(tree: xr.DataTree) -> str:
    """Say how many draws a run has."""
    counts = tree["posterior"].sizes
    chains = _counted(counts["chain"], "member" if tree.attrs["kind"] == "ensemble" else "chain")
    return chains if tree.attrs["kind"] == "ensemble" else f"{chains} {TIMES} {_counted(counts['draw'], 'draw')}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"


def _described(tree: xr.DataTree) -> Rows:
    attrs = tree.attrs
    rows = [
        ("sampler", f"{attrs.get('sampler', attrs['kind'])} ({attrs['kind']})"),
        ("draws", size(tree)),
        ("scalars", f"{attrs['num_params']:,}" if attrs.get("num_params") else ""),
        ("data", f"{attrs.get('data', attrs['task'])}, {attrs.get('num_data', 0):,} training examples"),
        ("data SHA-256", str(attrs.get("data_sha256", ""))),
        ("temperature", f"{attrs.get('temperature', 1.0):g} (likelihood alone: {attrs.get('likelihood_temperature', 1.0):g})"),
    ]
    return [row for row in rows if row[1]]


def _progress(facts: Facts) -> Rows:
    return [
        ("state", f"{facts.status.get('state', 'unknown')}, {facts.progress()}"),
        ("seed", str(facts.config.seed)),
        ("configuration SHA-256", facts.manifest["config_sha256"]),
    ]


def _costs(tree: xr.DataTree) -> Rows:
    gradients, seconds = tree.attrs.get("gradients"), tree.attrs.get("seconds")
    if not gradients or not seconds:
        return []
    rate = number(gradients / seconds)
    return [("sampling", f"{gradients:,.0f} full-data gradients in {duration(seconds)}, compilation included ({rate} a second)")]


def _warmup(facts: Facts) -> Rows:
    gradients, seconds = (facts.status.get(f"warmup_{cost}", 0) for cost in ("gradients", "seconds"))
    return [("warm-up", f"{gradients:,.0f} full-data gradients in {duration(seconds)}")] if gradients else []


def _divergences(tree: xr.DataTree) -> Rows:
    rows = []
    stats = tree["sample_stats"].to_dataset() if "sample_stats" in tree.children else xr.Dataset()
    if "diverging" in stats:
        by_chain = stats["diverging"].values.sum(1)
        rows.append(("divergences among the draws", f"{by_chain.sum():,} (by chain: {_listed(by_chain)})"))
    if counts := tree.attrs.get("num_divergent"):
        rows.append(("divergences in all steps", f"{sum(counts):,}, warm-up included (by chain: {_listed(counts)})"))
    if counts := tree.attrs.get("num_nonfinite"):
        rows.append(("non-finite states in all steps", f"{sum(counts):,} (by chain: {_listed(counts)})"))
    return rows


def _trajectories(tree: xr.DataTree, config: RunConfig) -> Rows:
    """Say how many gradients trajectories took, and how many of them the upper bound cut short."""
    match config.sampler:
        case HMC(max_num_steps=cap) | DynamicHMC(max_num_steps=cap):
            setting = "max-num-steps"
        case AdjustedMCLMC(max_num_steps=max_num_steps):
            from samplers.isokinetic import GRADIENTS_A_STEP  # with JAX, which other reports do without

            cap, setting = GRADIENTS_A_STEP * max_num_steps, "max-num-steps"
        case NUTS(max_num_doublings=doublings):
            cap, setting = 2**doublings - 1, "max-num-doublings"
        case _:
            return []
    stats = tree["sample_stats"].to_dataset()
    gradients = stats["num_gradients"].values / config.thin
    means = f" (means of the {config.thin} of a draw)" if config.thin > 1 else ""
    words = (
        f"{gradients.min():,.0f} to {gradients.max():,.0f} gradients{means}, {gradients.mean():,.0f} on average, {cap:,} allowed"
    )
    which = ""
    if isinstance(config.sampler, HMC) and config.sampler.delayed_rejection:
        from samplers.delayed_rejection import FAILED

        words += " a trajectory, of which there are up to three where one failed"
        which, gradients = " of those that did not fail", gradients[stats["energy_error"].values <= FAILED]
    if is_cut := float(np.mean(gradients >= cap)) if gradients.size else 0.0:
        words += f"; {share(is_cut)}{which} are at that bound, and as a rule shorter than asked for: raise sampler.{setting}"
    elif config.thin == 1 and gradients.size:  # a mean below the bound does not say that no trajectory was at it
        words += "; none is cut short"
    return [("trajectories", words)]


def _listed(counts: Any) -> str:
    most = 16
    return ", ".join(f"{count:,}" for count in counts[:most]) + (" ..." if len(counts) > most else "")


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return settings by dotted name, as text."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat[f"{prefix}{key}"] = " ".join(map(str, value))
        else:
            flat[f"{prefix}{key}"] = "none" if value is None or value == {} else str(value)
    return flat


def _commands(facts: Facts) -> Rows:
    folder, first = shlex.quote(facts.name), facts.manifest["launches"][0]["command"]
    if first[1:2] == ["run"]:  # its folder is not overwritten
        first = [*first, "--name", f"{facts.name}-again"]
    return [
        ("run again", shlex.join(first)),
        ("resume", f"bayesnn resume {folder}"),
        ("audit", f"bayesnn audit {folder}"),
        ("this page", f"bayesnn report {folder}"),
    ]


def _launch(launch: Launch) -> Rows:
    rows = [
        ("time", launch["time"]),
        ("command", shlex.join(launch["command"])),
        ("code", f"{launch['code']['commit']} (SHA-256 {launch['code']['sha256']})"),
        ("changed since the launch before", "; ".join(launch["differences"])),
    ]
    return [row for row in rows if row[1]]


def _machine(launch: Launch) -> Rows:
    return [
        ("devices", ", ".join(f"{count} {TIMES} {device}" for device, count in Counter(launch["devices"]).items())),
        ("cores", str(launch["cores"])),
        ("CPU threads of XLA", str(launch["cpu_threads"])),
        ("platform", launch["platform"]),
    ]
