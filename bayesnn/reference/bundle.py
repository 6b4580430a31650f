"""A posterior reference in one file: what its chains predict, of which posterior, from how many draws.

The file is an .npz of plain arrays and one JSON text, `facts`, so it is read anywhere and can be put beside a paper. It holds no
weights: predictions of each chain after 1, 2, 4, ... all of its draws are enough to hold another run against it at equal draws.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesnn.errors import UsageError
from bayesnn.notation import interval, number
from bayesnn.shard import refuse_object_store

if TYPE_CHECKING:
    from bayesnn.config import RunConfig
    from bayesnn.load import LoadedRun
    from diagnostics.floor import Prefixes

FORMAT = 1
# What makes a posterior, and so what two runs must have in common to be compared.
POSTERIOR = ("data_sha256", "num_data", "num_params", "model", "prior", "likelihood", "temperature", "likelihood_temperature")
SAME = 1e-3  # relative difference of two settings that are written with three digits
DIGITS = 4  # in which two settings are written that are further apart: they then differ in writing, too
MOMENTS = ("mean", "scale", "quantile")
PARTS = {"classification": ("probability",), "regression": MOMENTS, "counts": MOMENTS}


@dataclass(frozen=True)
class Bundle:
    """A reference.

    Attributes:
        name: What to call it.
        task: "classification", "regression" or "counts".
        posterior: What it is the posterior of, see `POSTERIOR`; None where that is not known.
        facts: What else is known: data, sampler, chains, draws, versions, scores, convergence, notes.
        prefixes: What its chains predict.
        y_test: [point] labels, or targets in original units, of the first test points.
    """

    name: str
    task: str
    posterior: dict[str, Any]
    facts: dict[str, Any]
    prefixes: Prefixes
    y_test: np.ndarray

    def save(self, path: Path) -> None:
        """Write the bundle to a new file; it appears under its name when it is whole.

        Raises:
            UsageError: There is something at the path, it does not end in .npz, or it is in an object store.
        """
        refuse_object_store(path)
        if path.suffix != ".npz":
            raise UsageError(f"a reference is one .npz file, got {path}")
        if path.exists():
            raise UsageError(f"{path} exists; references are never overwritten: choose another name, or remove it")
        described = {"format": FORMAT, "name": self.name, "task": self.task, "posterior": self.posterior, **self.facts}
        described |= {"counts": self.prefixes.counts, "ess": self.prefixes.ess, "ess_chain": self.prefixes.ess_chain}
        arrays = dict(zip(PARTS[self.task], (part.astype(np.float32) for part in self.prefixes.parts), strict=True))
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with draft.open("wb") as file:
                text = np.array(json.dumps(described, indent=1))
                np.savez_compressed(file, facts=text, y_test=self.y_test, **arrays)  # type: ignore[arg-type]  # numpy's stub
            draft.rename(path)
        finally:
            draft.unlink(missing_ok=True)


def load_bundle(path: Path) -> Bundle:
    """Read a bundle.

    Raises:
        UsageError: No such file, a damaged one, or one of a later format.
    """
    from diagnostics.floor import Prefixes

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        facts = json.loads(str(arrays["facts"]))
        found, name, task, posterior = (facts.pop(key) for key in ("format", "name", "task", "posterior"))
        if found != FORMAT:
            raise UsageError(f"{path} has format {found}, this version reads {FORMAT}: update bayesnn")
        counts, ess, ess_chain = (facts.pop(key) for key in ("counts", "ess", "ess_chain"))
        parts = tuple(arrays[part].astype(np.float64) for part in PARTS[task])
    except FileNotFoundError:
        raise UsageError(f"no file {path}") from None
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is no reference, or damaged: {error}; `bayesnn reference save` makes one") from None
    return Bundle(name, task, posterior, facts, Prefixes(tuple(counts), parts, ess, ess_chain), arrays["y_test"])


def bundle_of(run: LoadedRun) -> Bundle:
    """Make a bundle of a run, from its folder alone.

    Raises:
        UsageError: A run without predictions or without draws.
    """
    from diagnostics.floor import prefixes
    from diagnostics.predictive import predictive_scores
    from diagnostics.trees import KINDS

    tree, manifest, config = run.tree, run.folder.manifest, run.config
    if "functions" not in tree.children or "observed_data" not in tree.children:
        raise UsageError(f"{run.folder.path} predicts nothing, so it can be no reference for predictions")
    found = prefixes(tree)
    scores = {name: list(estimate) for name, estimate in predictive_scores(tree).items()}
    facts = {
        "data": {**config.data.model_dump(), "name": tree.attrs.get("data", config.data.name)},
        "sampler": config.sampler.model_dump(),
        "kind": f"{tree.attrs['kind']}: {KINDS[tree.attrs['kind']]}",
        "chains": found.num_chains,
        "draws": found.counts[-1],
        "gradients": tree.attrs["gradients"],
        "seconds": tree.attrs["seconds"],
        "seed": config.seed,
        "versions": manifest["launches"][-1]["versions"],
        "code": manifest["launches"][-1]["code"],
        "scores": scores,
        "functions_rhat": rhat_shares(run),
        "notes": [tree.attrs["left_out"]] if tree.attrs["left_out"] else [],
    }
    y_test = tree["observed_data"].to_dataset()["y_test"].values
    return Bundle(run.folder.path.name, tree.attrs["task"], posterior_facts(run), facts, found, y_test)


def posterior_facts(run: LoadedRun) -> dict[str, Any]:
    """Return what makes the posterior of a run, free of the paths of this machine."""
    config, described = run.config, run.folder.manifest["problem"]
    parts = {name: _portable(config, name, run.folder.manifest["sources"]) for name in ("model", "prior", "likelihood")}
    # Temperatures as they were asked for: those of the problem have been through float32.
    temperatures = {name: getattr(config, name) for name in ("temperature", "likelihood_temperature")}
    return {name: described.get(name) for name in POSTERIOR} | parts | temperatures


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return in words where two posteriors differ.

    What one of them does not say is no difference, nor are numbers that are equal to a thousandth, as a rounded square root is.
    """
    found = []
    for name in POSTERIOR:
        one, other = ours.get(name), theirs.get(name)
        if isinstance(one, dict) and isinstance(other, dict) and one.get("kind") == other.get("kind"):
            keys = sorted(one.keys() | other.keys())
            unequal = (key for key in keys if not _equal(one.get(key), other.get(key)))
            found += [f"{name}.{key}: {_short(one.get(key))} and {_short(other.get(key))}" for key in unequal]
        elif one is not None and other is not None and not _equal(one, other):
            found.append(f"{name}: {_short(one)} and {_short(other)}")
    return found


def describe(bundle: Bundle) -> list[tuple[str, str]]:
    """Return what is known of a bundle as lines to read, (what, value)."""
    prefixes = bundle.prefixes
    lines = [("reference", bundle.name), ("task", bundle.task), ("test points", f"{len(bundle.y_test):,}")]
    lines += [(name, _short(value) if value is not None else "not known") for name, value in bundle.posterior.items()]
    lines += [("chains kept apart", str(prefixes.num_chains)), ("draws of each", f"{prefixes.counts[-1]:,}")]
    known = {key: value for key, value in bundle.facts.items() if key not in ("scores", "notes", "chains", "draws")}
    lines += [(name.replace("_", " "), _short(value)) for name, value in known.items()]
    from diagnostics.estimates import Estimate

    for name, values in bundle.facts.get("scores", {}).items():
        value, ends = interval(Estimate(*values))
        lines.append((name.replace("_", " "), f"{value} ({ends})"))
    return lines + [("note", note) for note in bundle.facts.get("notes", ())]


def rhat_shares(run: LoadedRun) -> dict[str, float]:
    """Return the shares of the predicted function values whose R-hat is above 1.01 and above 1.1, and their number."""
    from diagnostics.convergence import rhat
    from diagnostics.floor import some_values

    values = rhat(some_values(run.tree))
    known = values[np.isfinite(values)]
    above = {f"above_{bound}": float((known > bound).mean()) if known.size else float("nan") for bound in (1.01, 1.1)}
    return above | {"values": int(known.size)}


def _portable(config: RunConfig, part: str, sources: dict[str, str]) -> dict[str, Any]:
    """Return a part of the configuration, a file of the user's own by its name and hash instead of its place."""
    settings = getattr(config, part).model_dump(mode="json")
    if settings["kind"] == "imported":
        file, _, function = settings["source"].rpartition(":")
        settings |= {"source": f"{Path(file).name}:{function}", "sha256": sources.get(settings["source"])}
    return settings


def _equal(one: Any, other: Any) -> bool:
    return one == other or (isinstance(one, float) and isinstance(other, float) and math.isclose(one, other, rel_tol=SAME))


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(part)}" for name, part in value.items() if part not in (None, {}, []))
    if isinstance(value, float):
        return number(value, DIGITS)
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return f"{text[:12]}..." if len(text) == 64 else text
