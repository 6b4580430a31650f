"""The command line. Nothing here imports JAX before a command needs it: help and mistakes are answered at once."""

from __future__ import annotations

import dataclasses
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")

from bayesnn.config import RunConfig, absolute_source
from bayesnn.errors import UsageError

FLAGS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)


@dataclasses.dataclass(frozen=True)
class List:
    """Show experiments, samplers, models, priors, likelihoods, data sets and claims, each with one line."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Sample an experiment into a new folder. `bayesnn run NAME --help` shows every setting of NAME."""

    experiment: Positional[str]
    """A name of `bayesnn list`, or path/to/file.py:function."""
    name: str = ""
    """Folder below --runs; by default the experiment's name."""
    runs: Path = Path("runs")
    """Where run folders live."""


@dataclasses.dataclass(frozen=True)
class Resume:
    """Continue a run from its last commit. Settings come from the folder alone."""

    folder: Positional[Path]
    """A run folder."""
    accept_changed_code: bool = False
    """Go on although the experiment's source has changed."""


@dataclasses.dataclass(frozen=True)
class Audit:
    """Judge a run. Exit status 0 when all required claims pass, 1 when one fails or is inconclusive, 2 when it could not run."""

    folder: Positional[Path]
    """A run folder."""
    claims: tuple[str, ...] = ()
    """Only these claims; all by default."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write report.html into the first folder, with the others beside it in the comparison."""

    folders: Positional[tuple[Path, ...]]
    """Run folders; the first is the subject."""


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare the predictions of runs with the first one, beside its own chain-to-chain noise floor."""

    folders: Positional[tuple[Path, ...]]
    """Two or more run folders on the same data."""


@dataclasses.dataclass(frozen=True)
class Predict:
    """Predict on new inputs with all draws of a run."""

    folder: Positional[Path]
    """A run folder."""
    inputs: Positional[Path]
    """An .npz with an array `x` [point, feature] in original units."""
    output: Path = Path("predictions.npz")
    """Where predictions are written, in original units."""


@dataclasses.dataclass(frozen=True)
class Demo:
    """Sample digits with HMC and SGLD, train an ensemble, audit, compare and report, in about three minutes."""

    runs: Path = Path("runs")
    """Where run folders live."""


type Command = List | Run | Resume | Audit | Report | Compare | Predict | Demo


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 fine, 1 an audit that does not pass, 2 an error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words)
    except (UsageError, OSError, RuntimeError) as error:
        message = _message(error)
        if debug or message is None:
            raise
        print(f"bayesnn: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["run"] and len(words) > 1 and not words[1].startswith("-"):
        return _run(words[1], words[2:])
    names = {command.__name__.lower(): command for command in Command.__value__.__args__}
    if words and not words[0].startswith("-") and words[0] not in names:
        from bayesnn.errors import did_you_mean

        raise UsageError(f"unknown command {words[0]!r}{did_you_mean(words[0], names)}")
    union: Any = Command.__value__
    command = tyro.cli(union, args=words or ["--help"], prog="bayesnn", description=__doc__.partition("\n")[0], config=FLAGS[1:])
    from bayesnn import commands

    return commands.HANDLERS[type(command).__name__](command)


def _run(experiment: str, words: list[str]) -> int:
    from bayesnn.experiments import load_experiment

    experiment = absolute_source(experiment)
    config = load_experiment(experiment)
    options = dataclasses.make_dataclass(
        "RunOptions",
        [
            ("name", Annotated[str, arg(help="Folder below --runs; by default the experiment's name.")], ""),
            ("runs", Annotated[Path, arg(help="Where run folders live.")], Path("runs")),
            ("config", Annotated[RunConfig, arg(name="")], config),
        ],
        frozen=True,
    )
    parsed: Any = tyro.cli(
        options, args=words, prog=f"bayesnn run {experiment}", description=f"Sample {experiment}.", config=FLAGS
    )
    from bayesnn import commands

    return commands.run(experiment, parsed.config, parsed.name, parsed.runs)


def _message(error: Exception) -> str | None:
    """Return what to tell the user, or None where only a traceback helps."""
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        where = f" ({error.filename})" if error.filename else ""
        return f"cannot write{where}: {os.strerror(error.errno)}; committed draws are intact: make room, then `bayesnn resume`"
    if type(error).__name__ in ("CheckpointError", "SamplingError"):
        return str(error)
    if "RESOURCE_EXHAUSTED" in str(error) or "No space left" in str(error):
        return f"{str(error).splitlines()[0][:200]}; committed draws are intact: make room, then `bayesnn resume`"
    return None


if __name__ == "__main__":
    sys.exit(main())
