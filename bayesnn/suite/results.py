"""What a suite's folder holds: run folders, which runs failed and why, and the trees that claims are judged on.

suites/<name>/  suite.json  failures.json  runs/<run>-<digest>/  findings.json  exhibits.json  pictures.json
                report.html
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesnn.config import Data
from bayesnn.errors import UsageError
from bayesnn.run_folder import RunFolder
from bayesnn.shard import refuse_object_store, write_atomically
from bayesnn.suite.suite import Hypothesis, Planned, Suite

if TYPE_CHECKING:
    import xarray as xr

    from bayesnn.load import LoadedRun

SUITE, FAILURES, PICTURES, RUNS = "suite.json", "failures.json", "pictures.json", "runs"


# How the failure of a run begins whose data are not at hand: its claims do not apply here.
NO_DATA = "its data are not at hand: "


class MissingRunError(KeyError):
    """A run that a claim needs is not there; the message says why."""

    def __str__(self) -> str:
        return str(self.args[0])


def data_hash(data: Data) -> str:
    """Return the hash of data as they are now; empty where they cannot be read, which is told where they are needed."""
    from bayesnn.data import load

    try:
        return load(**data.model_dump()).hash
    except ValueError:
        return ""


class SuiteFolder:
    """Reads and writes a suite's folder; everything is found again by the digest of what was asked for.

    Args:
        path: Where it is, or will be.

    Raises:
        UsageError: That is in an object store.
    """

    def __init__(self, path: Path):
        refuse_object_store(path)
        self.path = path

    def begin(self, suite: Suite) -> None:
        """Write down what the suite consists of.

        Raises:
            UsageError: A run that is there, and would be taken, was made with other defaults than today's, or on other data than
                are there under its name now.
        """
        hash_now = functools.cache(data_hash)
        for name, planned in suite.planned().items():
            path = self.run_path(name)
            if not path.exists():
                continue
            known = RunFolder.open(path)
            if known.config != planned.config:
                changed = [part for part, value in planned.config if getattr(known.config, part) != value]
                raise UsageError(
                    f"{path} was run when defaults of {', '.join(changed)} were others; remove it, and it will be run anew"
                )
            then = known.manifest["problem"].get("data_sha256")  # a density has no data
            if then and (now := hash_now(planned.config.data)) and now != then:
                raise UsageError(
                    f"{path} was run on other data than {planned.config.data.name} is now; restore them, or remove the run, and "
                    "it will be run anew"
                )
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / SUITE, suite.description_json())

    def run_path(self, name: str) -> Path:
        """Return where a run lies, under whatever name another choice of hypotheses gave it: its digest tells."""
        known = (self.path / RUNS).glob(f"*-{name.rpartition('-')[2]}")
        return next(known, self.path / RUNS / name)

    def is_complete(self, name: str, planned: Planned) -> bool:
        """Tell whether a run has all its draws and everything is measured that is asked for."""
        return self.has_draws(name) and not self.missing_measures(name, planned)

    def has_draws(self, name: str) -> bool:
        """Tell whether a run has all its draws."""
        return self.run_path(name).exists() and not RunFolder.open(self.run_path(name)).unfinished()

    def missing_measures(self, name: str, planned: Planned) -> dict[str, Mapping[str, object]]:
        """Return the measures of a run that are not there, or were made with other settings, and their settings."""
        from bayesnn.measure import MEASURES
        from bayesnn.measure.store import read_measure

        folder = RunFolder.open(self.run_path(name))
        missing = {}
        for measure, settings in planned.measures.items():
            found = read_measure(folder, measure)
            asked = MEASURES[measure].settings_class().model_validate(dict(settings)).model_dump(mode="json")
            if found is None or found.settings != asked:
                missing[measure] = settings
        return missing

    @property
    def failures(self) -> dict[str, str]:
        """Why runs failed, by name."""
        path = self.path / FAILURES
        return json.loads(path.read_text()) if path.exists() else {}

    def record_failure(self, name: str, reason: str | None) -> None:
        """Write down why a run failed; None takes it back."""
        known = {other: why for other, why in self.failures.items() if other != name}
        write_atomically(self.path / FAILURES, json.dumps(known | ({name: reason} if reason else {}), indent=1))

    @property
    def pictures(self) -> dict[str, dict[str, Any]]:
        """What pictures show, by hypothesis/picture: `runs`, the names of their folders, and `data`."""
        path = self.path / PICTURES
        return json.loads(path.read_text()) if path.exists() else {}

    def record_picture(self, name: str, runs: Sequence[str], data: Mapping[str, Any]) -> None:
        """Write down what a picture of some runs shows, in the place of what it showed before."""
        write_atomically(self.path / PICTURES, json.dumps(self.pictures | {name: {"runs": list(runs), "data": data}}))


class Trees(Mapping[str, "xr.DataTree"]):
    """The runs of a hypothesis by its own names for them, read when they are first asked for.

    What is measured on a run joins its tree as a group of that name, with what was found as its attribute `findings`. What its
    audit found is the attribute `audit` of the tree, if there is one of all draws.
    """

    def __init__(self, folder: SuiteFolder, suite: Suite, hypothesis: Hypothesis):
        self._folder, self._planned = folder, suite.planned()
        self._names = suite.folder_names(hypothesis)
        self._failures = folder.failures

    def __getitem__(self, name: str) -> xr.DataTree:
        return _read(self._complete(name), tuple(self._planned[self._names[name]].measures))

    def run(self, name: str) -> LoadedRun:
        """Open a run.

        Raises:
            MissingRunError: It failed, or is not complete.
        """
        from bayesnn.load import LoadedRun

        return LoadedRun(RunFolder.open(self._complete(name)))

    def _complete(self, name: str) -> Path:
        """Return where a run lies that has all its draws."""
        folder_name = self._names[name]
        if folder_name in self._failures:
            reason = self._failures[folder_name]
            raise MissingRunError(f"the run {name} {'has not begun' if reason.startswith(NO_DATA) else 'failed'}: {reason}")
        if not self._folder.has_draws(folder_name):
            begun = self._folder.run_path(folder_name).exists()
            raise MissingRunError(f"the run {name} {'is not complete' if begun else 'has not begun'}")
        return self._folder.run_path(folder_name)

    def missing_measures(self) -> str:
        """Say which measures there are not, and why; empty if all are there."""
        missing = []
        for name in self:
            folder_name = self._names[name]
            for measure in self._folder.missing_measures(folder_name, self._planned[folder_name]):
                reason = self._failures.get(f"{folder_name}/{measure}")
                missing.append(f"the measure {measure} of the run {name} {f'failed: {reason}' if reason else 'is not made yet'}")
        return "; ".join(missing)

    def __contains__(self, name: object) -> bool:
        return name in self._names and self._names[str(name)] not in self._failures

    def __iter__(self) -> Iterator[str]:
        return iter(name for name in self._names if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@functools.lru_cache(maxsize=8)  # neighbouring hypotheses share runs; a tree holds all draws
def _read(path: Path, measures: tuple[str, ...]) -> xr.DataTree:
    from bayesnn.load import read_tree
    from bayesnn.measure.store import read_measure
    from bayesnn.report.page import is_written, read_findings

    folder = RunFolder.open(path)
    tree = read_tree(folder)
    if is_written(folder):
        tree.attrs["audit"] = [finding.to_dict() for finding in read_findings(folder)]
    for name in measures:
        if (measure := read_measure(folder, name)) is not None:
            measure.tree.attrs["findings"] = [finding.to_dict() for finding in measure.findings]
            tree[name] = measure.tree
    return tree
