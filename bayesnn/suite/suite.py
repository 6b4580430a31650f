"""What a suite is: hypotheses, each with the runs that it needs and the claims that judge them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from bayesnn.config import RunConfig

if TYPE_CHECKING:
    import xarray as xr

    from bayesnn.load import LoadedRun
    from bayesnn.report.pictures import Drawing
    from diagnostics.claims import Finding
    from diagnostics.estimates import Estimate


class Planned(NamedTuple):
    """A run, and what is measured on it when it is complete.

    Attributes:
        config: The run.
        measures: Settings of measures of `bayesnn measure` by name; their results join the run's tree as groups of that name.
        measure_seconds: What the measures are expected to take on two cores.
    """

    config: RunConfig
    measures: Mapping[str, Mapping[str, Any]] = {}
    measure_seconds: float = 0.0

    @property
    def digest(self) -> str:
        """What the draws depend on, in short: hypotheses whose runs are equal in it share them.

        Settings at their defaults do not count, so that one that is new leaves finished runs valid. Where a default itself has
        changed since, `SuiteFolder.begin` refuses the run.
        """
        return hashlib.sha256(json.dumps(_chosen(self.config), sort_keys=True).encode()).hexdigest()[:10]


class Exhibit(NamedTuple):
    """Numbers with intervals, one under the other, that show what a verdict rests on.

    Attributes:
        caption: What they are, and how to read them, in a sentence or two.
        unit: Of the axis.
        rows: By label.
        marks: Places on the axis that decide, such as zero and a margin.
        band: Stretch of the axis that is shaded, such as where the reference itself lies.
    """

    caption: str
    unit: str
    rows: Mapping[str, Estimate]
    marks: tuple[float, ...] = (0.0,)
    band: tuple[float, float] | None = None


class Picture(NamedTuple):
    """A figure for which networks are evaluated anew; what it shows is computed once and kept in the suite's folder.

    Attributes:
        title: What it answers.
        caption: What it shows, and how to read it.
        runs: Whose networks, by the hypothesis' own names of its runs.
        compute: From these runs, by name, to plain data.
        draw: From that data to what the page shows.
    """

    title: str
    caption: str
    runs: tuple[str, ...]
    compute: Callable[[Mapping[str, LoadedRun]], dict[str, Any]]
    draw: Callable[[dict[str, Any]], Drawing]


class Judgement(NamedTuple):
    """A verdict and what it rests on."""

    finding: Finding
    exhibits: tuple[Exhibit, ...] = ()


type Judge = Callable[[Mapping[str, xr.DataTree]], Judgement]


@dataclass(frozen=True)
class Hypothesis:
    """A statement of a paper, or of its critics, as something that can come out either way.

    Attributes:
        name: Short, such as C1.
        title: The statement, in a sentence.
        source: Who says it, and where.
        protocol: What is run, what is compared, and what decides; the docstring of its module.
        runs: By a name of its own; runs of equal configuration are shared with other hypotheses.
        claims: What judges them, by name: from trees by run name to a judgement.
        pictures: What is drawn beside the verdicts, by name.
    """

    name: str
    title: str
    source: str
    protocol: str
    runs: Mapping[str, Planned]
    claims: Mapping[str, Judge]
    pictures: Mapping[str, Picture] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Hypotheses at one scale.

    Attributes:
        name: Of the suite.
        scale: Of its networks, data and chains.
        description: A line about the scale.
        hypotheses: In the order of the report.
    """

    name: str
    scale: str
    description: str
    hypotheses: tuple[Hypothesis, ...]

    def planned(self) -> dict[str, Planned]:
        """Return every distinct run by the name of its folder, with all that any hypothesis measures on it.

        Raises:
            ValueError: Two hypotheses want the same measure of a run with different settings.
        """
        runs: dict[str, Planned] = {}
        named = [(name, one) for hypothesis in self.hypotheses for name, one in hypothesis.runs.items()]
        folders: dict[str, str] = {}
        for name, one in named:
            folder = folders.setdefault(one.digest, f"{name}-{one.digest}")
            known = runs.get(folder, Planned(one.config))
            for measure, settings in one.measures.items():
                if known.measures.get(measure, settings) != settings:
                    raise ValueError(f"the measure {measure} of {name} is asked for with two settings")
            is_new = bool(one.measures.keys() - known.measures.keys())
            seconds = known.measure_seconds + is_new * one.measure_seconds
            runs[folder] = Planned(one.config, {**known.measures, **one.measures}, seconds)
        return runs

    def folder_names(self, hypothesis: Hypothesis) -> dict[str, str]:
        """Return the name of the folder of each run of a hypothesis."""
        shared = {one.digest: folder for folder, one in self.planned().items()}
        return {name: shared[one.digest] for name, one in hypothesis.runs.items()}

    def description_json(self) -> str:
        """Return what the suite consists of as plain data: hypotheses, runs, measures."""
        return json.dumps(
            {
                "suite": self.name,
                "scale": self.scale,
                "description": self.description,
                "hypotheses": {
                    one.name: {
                        "title": one.title,
                        "source": one.source,
                        "runs": self.folder_names(one),
                        "claims": list(one.claims),
                    }
                    for one in self.hypotheses
                },
                "runs": {
                    folder: {"config": one.config.model_dump(mode="json"), "measures": one.measures}
                    for folder, one in self.planned().items()
                },
            },
            indent=1,
        )


def _chosen(config: BaseModel) -> dict[str, Any]:
    """Return what differs from its default, and every kind, as it says whose defaults they are."""
    fields, plain = type(config).model_fields, config.model_dump(mode="json")
    return {
        name: _chosen(value) if isinstance(value, BaseModel) else plain[name]
        for name, value in config
        if name == "kind" or value != fields[name].default
    }
