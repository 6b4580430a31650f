"""The command line. Nothing here imports JAX before a command needs it: help and mistakes are answered at once."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import re
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro
from pydantic import ValidationError
from tyro.conf import arg
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from bayesnn import distributed
from bayesnn.arguments import Command, Measure, Plan, PlanSuite, Run
from bayesnn.config import UNIONS, Frozen, RunConfig, absolute_source, explain, parse
from bayesnn.errors import UsageError, did_you_mean
from bayesnn.interrupts import ending_at_once
from bayesnn.suite import SUITES

DESCRIPTION = "Sample Bayesian posteriors of neural networks, and audit the draws. With --debug, errors say where they come from."
SAMPLER = "Sample with this sampler of `bayesnn list`; --help after it shows its settings."
FLAGS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)
UNCHECKED = ConstructorRegistry()


@UNCHECKED.struct_rule
def _unchecked(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Let tyro only read the words; whether values make sense is judged once, by `bayesnn.config.parse`."""
    if not (isinstance(info.type, type) and issubclass(info.type, Frozen)):
        return None
    hints = get_type_hints(info.type, include_extras=True)
    fields = [
        StructFieldSpec(name, hints[name], getattr(info.default, name, field.default), field.description)
        for name, field in info.type.model_fields.items()
    ]
    model: type[Frozen] = info.type

    def construct(**values: Any) -> Frozen:
        return model.model_construct(**values)

    construct.__doc__ = model.__doc__  # shown above its flags
    return StructConstructorSpec(construct, tuple(fields))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Its exit status: 0 fine, 1 an audit that does not pass, 2 an error, told in one message (`--debug` adds where it comes
        from), 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        with ending_at_once():
            return _dispatch([word for word in words if word != "--debug"])
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        message = _message(error)
        if debug or message is None:
            traceback.print_exc()
        print(f"bayesnn: {message or 'this should not happen: please report it, with the lines above'}", file=sys.stderr)
        if distributed.is_joined():
            distributed.leave(2)
        return 2


def _dispatch(words: list[str]) -> int:
    if words == ["--version"]:
        print(f"bayesnn {metadata.version('bayesnn')}")
        return 0
    names = {_typed(command): command for command in Command.__value__.__args__}
    if words and not words[0].startswith("-") and words[0] not in names:
        raise UsageError(f"unknown command {words[0]!r}{did_you_mean(words[0], names)}")
    union: Any = Command.__value__
    prog, asked = "bayesnn", words or ["--help"]
    if words[:1] == ["plan"] and words[1:2] and words[1] in SUITES:
        union, prog, asked = PlanSuite, "bayesnn plan", words[1:]
    elif words[:1] in (["run"], ["plan"]) and words[1:2] not in (["-h"], ["--help"]):
        return _with_experiment(names[words[0]], words[1:])
    elif words[:1] == ["measure"] and not {"-h", "--help"} & set(words[1:3]):
        return _with_measure(words[1:])
    command = tyro.cli(union, args=asked, prog=prog, description=DESCRIPTION, config=FLAGS[1:])
    from bayesnn import commands

    return commands.HANDLERS[type(command).__name__](command)


def _typed(command: type) -> str:
    """Return a command as it is typed: AuditSuite is audit-suite."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", command.__name__).lower()


def _with_experiment(command: type[Run | Plan], words: list[str]) -> int:
    """Run or plan an experiment: options of the command's own, and every setting of this experiment."""
    name = command.__name__.lower()
    if not words or words[0].startswith("-"):
        raise UsageError(f"{name} needs an experiment as its first word: bayesnn {name} EXPERIMENT; `bayesnn list` shows them")
    from bayesnn import commands
    from bayesnn.experiments import load_experiment
    from bayesnn.launch import prepare

    if command is Run:
        _prepare_run(words)
    else:
        prepare()
    experiment = absolute_source(words[0])
    config = load_experiment(experiment)
    _refuse_other_parts(words[1:])
    if chosen := _chosen_sampler(words[1:]):
        config = config.model_copy(update={"sampler": chosen()})
    options = dataclasses.make_dataclass(
        f"{command.__name__}Options",
        [
            ("own", Annotated[command, arg(name="")], command(experiment)),
            ("sampler", Annotated[str, arg(help=SAMPLER)], config.sampler.kind),
            ("config", Annotated[RunConfig, arg(name="")], config),
        ],
        frozen=True,
    )
    parsed: Any = tyro.cli(
        options,
        args=[experiment, *words[1:]],
        prog=f"bayesnn {name} {words[0]}",
        description=command.__doc__,
        config=FLAGS,
        registry=UNCHECKED,
    )
    return commands.HANDLERS[command.__name__](parsed.own, parse(parsed.config.model_dump(), experiment))


def _with_measure(words: list[str]) -> int:
    """Measure something on a run: options of the command's own, and every setting of this measure."""
    from bayesnn.measure import MEASURES

    if len(words) < 2 or any(word.startswith("-") for word in words[:2]):
        raise UsageError(f"measure needs a run folder and what to measure: bayesnn measure FOLDER {'|'.join(MEASURES)}")
    if words[1] not in MEASURES:
        raise UsageError(f"unknown measure {words[1]!r}{did_you_mean(words[1], MEASURES)}")
    settings_class = MEASURES[words[1]].settings_class()
    options = dataclasses.make_dataclass(
        "MeasureOptions",
        [
            ("own", Annotated[Measure, arg(name="")], Measure(Path(words[0]), words[1])),
            ("settings", Annotated[settings_class, arg(name="")], settings_class()),
        ],
        frozen=True,
    )
    parsed: Any = tyro.cli(
        options,
        args=words,
        prog=f"bayesnn measure {words[0]} {words[1]}",
        description=settings_class.__doc__,
        config=FLAGS,
        registry=UNCHECKED,
    )
    try:
        settings = settings_class.model_validate(parsed.settings.model_dump())
    except ValidationError as error:
        raise UsageError(explain(error)) from None
    from bayesnn import commands

    return commands.HANDLERS["Measure"](parsed.own, settings)


def _prepare_run(words: list[str]) -> None:
    """Set JAX up as the run to go on with had it, and join the other processes, before a user's own file sets JAX to work."""
    from bayesnn.launch import cpu_threads, prepare, run_path

    own, _ = tyro.cli(Run, args=words, prog=f"bayesnn run {words[0]}", return_unknown_args=True, add_help=False, config=FLAGS)
    goes_on = own.resume_if_exists or own.add_chains
    prepare(cpu_threads(run_path(own.experiment, own.name, own.runs)) if goes_on else None)
    own.processes.join()


def _chosen_sampler(words: list[str]) -> type[Frozen] | None:
    """Return the sampler that is to take the place of the experiment's, with settings, and so flags, of its own."""
    following = [word.removeprefix("--sampler=") for word in words if word.startswith("--sampler=")]
    following += [name for flag, name in itertools.pairwise(words) if flag == "--sampler"]
    samplers = {model.model_fields["kind"].default: model for model in UNIONS["sampler"]}
    for name in following:
        if name not in samplers:
            raise UsageError(f"unknown sampler {name!r}{did_you_mean(name, samplers)} (`bayesnn list` shows all)")
    return samplers[following[-1]] if following else None


def _refuse_other_parts(words: list[str]) -> None:
    """Say where another network, prior or likelihood is chosen: flags are settings of the experiment's own."""
    for part in UNIONS.keys() - {"sampler"}:
        if any(word.partition("=")[0] == f"--{part}" for word in words):
            raise UsageError(
                f"--{part} is no flag: those of the experiment's own {part} begin with --{part}. (--help shows them); another "
                f"{part} is chosen in a file of yours, as RunConfig({part}=...): bayesnn run path/to/file.py:function"
            )


def _message(error: Exception) -> str | None:
    """Return what to tell the user, or None where only a traceback helps."""
    from bayesnn.imports import own_error

    text = str(error)
    # tensorstore reports a full disk as a ValueError with the system's words.
    full = next((words for words in map(os.strerror, (errno.ENOSPC, errno.EDQUOT)) if words in text), None)
    if full is not None:
        return f"{full}; committed draws are intact: make room, then `bayesnn resume` the run"
    if "RESOURCE_EXHAUSTED" in text:
        return f"out of memory ({text.splitlines()[0]}); lower --microbatch, --chain-block or --test-points in a new run"
    if isinstance(error, UsageError):
        return text
    if isinstance(error, OSError) and error.filename is not None:
        return f"cannot read or write {error.filename}: {error.strerror}"
    return distributed.explain(error) or own_error(error)


if __name__ == "__main__":
    sys.exit(main())
