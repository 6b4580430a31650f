"""What can be typed: every command, with its options. Imports no JAX, so that help comes at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg, subcommand

from bayesnn import distributed
from bayesnn.errors import UsageError

Folder = Annotated[Positional[Path], arg(metavar="FOLDER")]
Folders = Annotated[Positional[tuple[Path, ...]], arg(metavar="[FOLDER ...]")]


@dataclasses.dataclass(frozen=True)
class List:
    """Show experiments, samplers, models, priors, likelihoods, data sets and claims, each with one line."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """Processes that run one command together."""

    distributed: bool = False
    """Be one of several processes that run this same command on the devices of all; detected under Slurm, Open MPI, TPU, GKE."""
    coordinator: str | None = None
    """HOST:PORT at which the first of them listens, where they are not detected."""
    num_processes: int | None = None
    """Their number, likewise."""
    process_id: int | None = None
    """Which of them this is, from 0, likewise."""

    def join(self) -> None:
        """Join the other processes, if there are any."""
        explicit = (self.coordinator, self.num_processes, self.process_id)
        if not self.distributed:
            if explicit != (None, None, None):
                raise UsageError("--coordinator, --num-processes and --process-id need --distributed")
            return
        distributed.join(*explicit)


@dataclasses.dataclass(frozen=True)
class Run:
    """Sample an experiment into a new folder. `bayesnn run NAME --help` shows every setting of NAME."""

    experiment: Annotated[Positional[str], arg(metavar="EXPERIMENT")]
    """A name of `bayesnn list`, or path/to/file.py:function."""
    name: str = ""
    """Folder below --runs; by default the experiment's name."""
    runs: Path = Path("runs")
    """Where run folders live."""
    resume_if_exists: bool = False
    """Continue the run if its folder exists: the same command then serves a job that may be restarted."""
    add_chains: bool = False
    """Add --chains more chains to the run if its folder exists; several jobs may do so at the same time."""
    processes: Annotated[Processes, arg(name="")] = Processes()


@dataclasses.dataclass(frozen=True)
class Plan:
    """Say what a run would cost, before anything runs. `bayesnn plan NAME --help` shows every setting of NAME."""

    experiment: Positional[str]
    """A name of `bayesnn list`, or path/to/file.py:function."""
    hardware: str = "here"
    """Named hardware, such as h200, or `here`: draws are timed for a second on this machine."""
    devices: int = 1
    """Number of devices of the named hardware."""
    efficiency: float = 0.3
    """Share of their peak throughput that gradients reach: an assumption; small networks reach far less."""


@dataclasses.dataclass(frozen=True)
class Resume:
    """Continue a run from its last commit. Settings come from the folder alone."""

    folder: Folder
    """A run folder."""
    accept_changed_code: bool = False
    """Go on although the experiment's source has changed."""
    processes: Annotated[Processes, arg(name="")] = Processes()


@dataclasses.dataclass(frozen=True)
class Audit:
    """Judge a run. Exit status 0 when all required claims pass, 1 when one fails or is inconclusive, 2 when it could not run."""

    folder: Folder
    """A run folder."""
    claims: tuple[str, ...] = ()
    """Only these claims; all by default."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write report.html into the first folder, with the others beside it in the comparison."""

    folders: Folders
    """Run folders; the first is the subject."""


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare the predictions of runs with the first one, beside its own chain-to-chain noise floor."""

    folders: Folders
    """Two or more run folders on the same data."""


@dataclasses.dataclass(frozen=True)
class Predict:
    """Predict on new inputs with all draws of a run."""

    folder: Folder
    """A run folder."""
    inputs: Annotated[Positional[Path], arg(metavar="INPUTS")]
    """An .npz with an array `x` [point, feature] in original units."""
    output: Path = Path("predictions.npz")
    """Where predictions are written, in original units."""
    accept_changed_code: bool = False
    """Go on although the experiment's source has changed."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """Sample on from a finished run for what its draws do not tell. `bayesnn measure FOLDER NAME --help` shows all settings."""

    folder: Folder
    """A run folder."""
    measure: Annotated[Positional[str], arg(metavar="NAME")]
    """What to measure: a name of `bayesnn list`."""
    accept_changed_code: bool = False
    """Go on although the experiment's source has changed."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Download a data set into BAYESNN_DATA, checked against its published hash: bayesnn data fetch NAME."""

    action: Annotated[Positional[Literal["fetch"]], arg(metavar="fetch")]
    """The one thing to do."""
    name: Annotated[Positional[str], arg(metavar="NAME")]
    """A data set of `bayesnn list` that is made of files, or notmnist."""


@dataclasses.dataclass(frozen=True)
class SaveReference:
    """Save what a run predicts, and of which posterior, as a reference in one file."""

    folder: Folder
    """A run folder."""
    output: Annotated[Positional[Path], arg(metavar="OUT")]
    """A new .npz file."""


@dataclasses.dataclass(frozen=True)
class CompareReference:
    """Rank runs by closeness to a reference, beside how close its own chains are to each other."""

    paths: Annotated[Positional[tuple[str, ...]], arg(metavar="FOLDER [FOLDER ...] REFERENCE")]
    """Run folders, then an .npz of `bayesnn reference save`, bdl-cifar10 or bdl-imdb."""
    accept_differences: bool = False
    """Go on although a run is of another posterior."""


@dataclasses.dataclass(frozen=True)
class ShowReference:
    """Print what is known of a reference."""

    reference: Annotated[Positional[str], arg(metavar="REFERENCE")]
    """An .npz of `bayesnn reference save`, bdl-cifar10 or bdl-imdb."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """Save, show and compare with posterior references."""

    action: Annotated[
        Annotated[SaveReference, subcommand("save", prefix_name=False)]
        | Annotated[CompareReference, subcommand("compare", prefix_name=False)]
        | Annotated[ShowReference, subcommand("show", prefix_name=False)],
        arg(name=""),
    ]


@dataclasses.dataclass(frozen=True)
class AuditSuite:
    """Rerun a paper's experiments and answer each of its claims; the same command continues. Exit status 1 if a run failed."""

    suite: Annotated[Positional[str], arg(metavar="SUITE")]
    """izmailov2021."""
    scale: str = "laptop"
    """laptop (half an hour on two cores), laptop-full, gpu, or paper: sizes change, never the protocol."""
    only: tuple[str, ...] = ()
    """Some of the hypotheses, such as C1 F2; all by default."""
    plan: bool = False
    """Show what it would cost, and stop."""
    rehearse: bool = False
    """Build every run and take its first steps on a few examples, and stop; nothing is kept."""
    suites: Path = Path("suites")
    """Where suite folders live."""


@dataclasses.dataclass(frozen=True)
class PlanSuite:
    """Say what a suite would cost, run by run, before anything runs."""

    suite: Annotated[Positional[str], arg(metavar="SUITE")]
    """izmailov2021."""
    scale: str = "laptop"
    """laptop, laptop-full, gpu or paper."""
    hardware: str = "here"
    """Named hardware, such as h200, or `here`: gradients are timed on this machine."""
    devices: int = 1
    """Number of devices of the named hardware."""
    efficiency: float = 0.3
    """Share of their peak throughput that gradients reach: an assumption; small networks reach far less."""


@dataclasses.dataclass(frozen=True)
class Demo:
    """Sample digits with HMC and SGLD, train an ensemble, audit, compare and report: 80 s on two cores."""

    runs: Path = Path("runs")
    """Where run folders live."""


type Command = List | Run | Plan | Resume | Audit | Measure | Report | Compare | Reference | Predict | Data | AuditSuite | Demo
