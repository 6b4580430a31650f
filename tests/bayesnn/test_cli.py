"""The command line: help and mistakes at once, flags that reach the configuration, exit statuses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from bayesnn import cli as module
from bayesnn import commands
from bayesnn import config as c
from bayesnn.arguments import Command
from bayesnn.config import read
from bayesnn.experiments import EXPERIMENTS
from bayesnn.load import read_tree
from bayesnn.report.verdict import headline
from bayesnn.run_folder import RunFolder
from diagnostics.standard import audit
from tests.bayesnn.experiments import SHORT

ROOT = Path(__file__).parents[2]
HEAVY = {
    "jax",
    "flax",
    "numpyro",
    "arviz",
    "arviz_base",
    "arviz_stats",
    "sklearn",
    "tensorstore",
    "orbax",
    "matplotlib",
    "xarray",
}
COMMANDS = [module._typed(command) for command in Command.__value__.__args__]


def words_of(value):
    """Name a case by its command line."""
    return " ".join(value) if isinstance(value, list) else None


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["run", "digits-hmc", "--help"], 0),
        (["resume", "--help"], 0),
        (["run", "digits-hcm"], 2),
        (["run", "digits-hmc", "--draws", "0"], 2),
        (["resume", "nowhere"], 2),
    ],
    ids=words_of,
)
def test_help_and_mistakes_import_nothing_heavy(words, status):
    code = (
        "import sys; from bayesnn.cli import main\n"
        f"try: status = main({words!r})\n"
        "except SystemExit as end: status = end.code\n"
        f"print(status, sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stderr.splitlines()[-1] == f"{status} []"


def test_help_names_every_command(cli):
    status, out, _ = cli("--help")
    assert status == 0
    assert {"run", "audit-suite"} < set(COMMANDS)
    assert [name for name in COMMANDS if f" {name} " not in out] == []
    assert cli() == cli("--help")


def test_help_of_an_experiment_shows_every_setting_and_its_own_defaults(cli):
    status, out, _ = cli("run", "digits-sgld", "--help")
    assert status == 0
    parts = {"data": c.Data, "model": c.MLP, "prior": c.GaussianPrior, "sampler": c.SGLD, "warmup": c.WarmUp}
    settings = [f"--{part}.{name}" for part, owner in parts.items() for name in owner.model_fields if name != "kind"]
    settings += [f"--{name}" for name in c.RunConfig.model_fields if name not in {*c.SECTIONS, *c.UNIONS}]
    missing = [flag for flag in settings if flag.replace("_", "-") not in out]
    assert not missing
    assert "--sampler.kind" not in out
    assert "(default: 0.0001)" in out
    assert all((owner.__doc__ or "").partition(":")[0] in out for owner in parts.values())
    assert "Creates a new instance" not in out  # of pydantic's constructor


@pytest.mark.slow
def test_another_sampler_takes_the_place_of_the_experiments(cli, refused, tmp_path):
    for words in (["--sampler", "mala"], ["--sampler=mala"]):
        _, out, _ = cli("run", "digits-sgld", *words, "--help")
        assert c.MALA.__doc__.partition(":")[0] in out
        assert "--sampler.batch-size" not in out
    words = ["run", "diabetes-hmc", "--runs", tmp_path, "--draws", "2", "--warmup.steps", "3"]
    assert cli(*words, "--sampler", "ghmc", "--sampler.refreshment", "0.5").status == 0
    assert read(tmp_path / "diabetes-hmc/config.json").sampler == c.GHMC(refreshment=0.5)
    assert "unknown sampler 'mall'; did you mean 'mala'?" in refused(*words, "--sampler", "mall")


def test_list_shows_everything_that_has_a_name(cli):
    status, out, err = cli("list")
    assert (status, err) == (0, "")
    assert all(name in out for name in [*EXPERIMENTS, "hmc", "nuts", "sgld", "optimise", "mlp", "wine", "uci_yacht", "finite"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu", "digits-hmc"], "unknown command 'rnu'; did you mean 'run'?"),
        (["run"], "run needs an experiment as its first word"),
        (["run", "--draws", "3"], "run needs an experiment as its first word"),
        (["run", "digits-hcm"], "unknown experiment 'digits-hcm'; did you mean 'digits-hmc'?"),
        (["run", "digits-hmc", "--sampler.step-size", "-1"], "sampler.step_size: Input should be greater than 0 (got -1.0)"),
        (["run", "digits-hmc", "--sampler.step-size", "nan"], "sampler.step_size: Input should be a finite number (got nan)"),
        (["run", "digits-hmc", "--chains", "0"], "chains: Input should be greater than 0 (got 0)"),
        (["run", "digits-hmc", "--temperature", "0"], "temperature: Input should be greater than 0 (got 0.0)"),
        (["run", "digits-map", "--draws", "2"], "use draws=1 and thin=steps"),
        (["run", "digits-hmc", "--model", "resnet"], "another model is chosen in a file of yours, as RunConfig(model=...)"),
        (["plan", "digits-hmc", "--likelihood=poisson"], "--likelihood is no flag: those of the experiment's own likelihood"),
        (["compare"], "compare needs two or more run folders, got 0"),
        (["report"], "report needs a run folder"),
        (["audit", "nowhere"], "no folder nowhere"),
    ],
    ids=words_of,
)
def test_a_mistake_is_one_message(words, message, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["run", "digits-hmc", "--sampler.stepsize", "1"], "--sampler.step-size"),
        (["run", "digits-hmc", "--draws", "many"], "--draws"),
        (["resume", "here", "--accept-changed-cod"], "--accept-changed-code"),
        (["resume"], "FOLDER"),
    ],
    ids=words_of,
)
def test_a_flag_that_does_not_parse_is_told_with_the_nearest_one(words, hint, cli):
    status, _, err = cli(*words)
    assert status == 2
    assert hint in err
    assert "Traceback" not in err


def test_flags_reach_the_configuration(cli, own, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(commands, "run", lambda *arguments, **options: asked.append(arguments) or 0)
    flags = ["--draws", "3", "--chains", "1", "--warmup.steps", "0", "--sampler.step-size", "0.01", "--model.widths", "3", "2"]
    flags += ["--prior.layer-scales", "layer_0", "0.5", "--name", "mine", "--runs", tmp_path]
    assert cli("run", own("wine"), *flags).status == 0
    experiment, config, name, runs = asked[0]
    assert (experiment, name, runs) == (own("wine"), "mine", tmp_path)
    model, prior = c.MLP(widths=(3, 2)), c.GaussianPrior(layer_scales={"layer_0": 0.5})
    update = {"draws": 3, "chains": 1, "warmup": c.WarmUp(steps=0), "model": model, "prior": prior, "sampler": c.HMC()}
    assert config == SHORT.model_copy(update=update)


def test_another_sampler_comes_with_settings_of_its_own(cli, refused, own, monkeypatch):
    asked = []
    monkeypatch.setattr(commands, "run", lambda experiment, config, *rest, **options: asked.append(config) or 0)
    assert cli("run", own("wine"), "--sampler", "sgld", "--sampler.batch-size", "7").status == 0
    assert asked[0].sampler == c.SGLD(batch_size=7)
    assert "--sampler.max-num-doublings" in cli("run", own("wine"), "--sampler", "nuts", "--help").out
    assert "unknown sampler 'nust'; did you mean 'nuts'?" in refused("run", own("wine"), "--sampler", "nust")


def test_the_version_is_that_of_the_package(cli):
    assert cli("--version").out == f"bayesnn {metadata.version('bayesnn')}\n"


@pytest.mark.slow
def test_a_complete_run_says_what_to_do_next(cli, own, tmp_path):
    out = cli("run", own("wine"), "--runs", tmp_path, "--draws", "2", "--warmup.steps", "2").out
    assert out.endswith(f"{tmp_path}/wine is complete; judge it with: bayesnn audit {tmp_path}/wine\n")


def test_an_audit_says_of_a_run_that_it_is_not_complete(cli, halfway_copy, finished, tmp_path):
    title = " ".join(cli("audit", halfway_copy).out.split())  # however it was wrapped
    assert re.search(r"wine: not complete, \d+ of 40 draws a chain", title)
    assert "not complete" not in cli("audit", shutil.copytree(finished, tmp_path / "whole")).out


def test_an_audit_ends_with_what_all_claims_add_up_to(cli, finished_copy):
    sentence = headline(audit(read_tree(RunFolder.open(finished_copy))), "mcmc").sentence
    assert " ".join(cli("audit", finished_copy).out.split()).endswith(sentence)
    assert sentence not in " ".join(cli("audit", finished_copy, "--claims", "finite").out.split())


def test_the_traceback_of_a_mistake_is_for_those_who_ask(cli):
    assert "Traceback" in cli("run", "digits-hcm", "--debug").err
    assert "Traceback" not in cli("run", "digits-hcm").err


def test_what_should_not_happen_comes_with_a_traceback(cli, monkeypatch):
    monkeypatch.setitem(commands.HANDLERS, "List", int)
    status, _, err = cli("list")
    assert status == 2
    assert "TypeError: int() argument" in err
    assert "please report it" in err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("tensorstore: No space left on device [OS error 28]"), "No space left on device; committed draws are intact"),
        (OSError(28, "No space left on device", "x"), "No space left on device; committed draws are intact"),
        (PermissionError(13, "Permission denied", "runs/a"), "cannot read or write runs/a: Permission denied"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.\nmore"), "lower --microbatch"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_the_machine_lacks_is_told_in_one_message(error, message, refused, monkeypatch):
    def fail(words):
        raise error

    monkeypatch.setattr(module, "_dispatch", fail)
    assert message in refused("list")
