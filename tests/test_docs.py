"""The words of the documentation against the code: every command, flag, name and file that it mentions is there."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import diagnostics
import samplers
from bayesnn import cli, commands, config, distributed

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [page for page in PAGES if "_build" not in page.parts]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
SAMPLERS = [model.model_fields["kind"].default for model in config.UNIONS["sampler"]]
# Words that stand for something that the reader chooses.
PLACEHOLDERS = {"EXPERIMENT": "digits-hmc", "NAME": "digits-hmc", "FOLDER": "runs/a"}
# Experiments of the pages' readers, and of their cells.
OWN = re.compile(r"\S+\.py:\w+")
SMALL = ["--chains", "2", "--draws", "12", "--warmup.steps", "6", "--test-points", "20"]

EXPERIMENT = """
from bayesnn import HMC, RunConfig, WarmUp
from bayesnn.config import Data
def my_experiment():
    return RunConfig(data=Data(name="wine"), sampler=HMC(max_num_steps=10), warmup=WarmUp(steps=6))
"""


def blocks(text: str, *languages: str) -> list[str]:
    """Return the fenced blocks of a page in these languages."""
    found = re.findall(r"^(`{3,})\{?([\w-]+)\}?[^\n]*\n(.*?)^\1$", text, re.MULTILINE | re.DOTALL)
    return [body for _, language, body in found if language in languages]


def commands_in(text: str) -> list[str]:
    """Return the `bayesnn` commands of a page: of its console blocks, its cells, and its sentences."""
    lines = [line.removeprefix("$ ") for block in blocks(text, "console") for line in block.splitlines() if line.startswith("$ ")]
    cells = "\n".join(blocks(text, "code-cell")).replace("\\\n", " ").splitlines()
    lines += [line.strip().removeprefix("!") for line in cells if line.strip().startswith("!bayesnn")]
    lines += re.findall(
        r"`(bayesnn \w[^`]*)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL).replace("\n", " ")
    )
    words = (re.split(r"\s#|[|;>]|\s\d>", line)[0].strip() for line in lines)
    return [command for command in words if command.startswith("bayesnn ")]


def dotted_names(text: str) -> list[str]:
    """Return what a page calls by a dotted name of the three packages."""
    return sorted(set(re.findall(r"`((?:samplers|diagnostics|bayesnn)(?:\.[A-Za-z_]\w*)+)(?:\([^`]*\))?`", text)))


def resolve(name: str) -> object:
    """Import what a dotted name stands for."""
    parts = name.split(".")
    found: object = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], start=2):
        found = getattr(found, part) if hasattr(found, part) else importlib.import_module(".".join(parts[:i]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_exist_with_their_flags(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    ran: list[object] = []

    def record(*arguments: object, **settings: object) -> int:
        ran.append(arguments)
        return 0

    monkeypatch.setattr(commands, "HANDLERS", dict.fromkeys([*commands.HANDLERS, "List"], record))
    monkeypatch.setattr(commands, "run", record)
    monkeypatch.setattr(distributed, "join", lambda *address: None)
    for command in commands_in(page.read_text()):
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)[1:]]
        for own in filter(OWN.fullmatch, words):
            file, function = own.split(":")
            Path(file).write_text(EXPERIMENT.replace("my_experiment", function))
        if len(words) == 1:  # spoken of, not to be typed
            assert words[0].capitalize() in {"Run", *commands.HANDLERS}, command
        elif "--help" in words:
            with pytest.raises(SystemExit) as left:
                cli.main(words)
            assert left.value.code == 0, command
        else:
            before = len(ran)
            assert cli.main(words) == 0, command
            assert len(ran) == before + 1, command


def test_a_flag_that_does_not_exist_would_be_noticed(monkeypatch):
    monkeypatch.setattr(commands, "run", lambda *arguments: 0)
    with pytest.raises(SystemExit) as left:
        cli.main(["run", "digits-hmc", "--sampler.stepsize", "1"])
    assert left.value.code != 0


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_names_files_and_targets_exist(page):
    text = page.read_text()
    for name in dotted_names(text):
        resolve(name)
    for file in re.findall(r"`((?:samplers|diagnostics|bayesnn|tests|docs|benchmarks|notebooks)/[\w/.-]+\.(?:py|md))`", text):
        if "metropolis" not in file and "NAME" not in file:  # of the recipes
            assert (ROOT / file).exists(), file
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:`|\$ )make ([\w-]+)", text):
        assert target in targets, target
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link


def test_a_name_that_does_not_exist_would_be_noticed():
    assert dotted_names("see `samplers.no_such_name(1)`") == ["samplers.no_such_name"]
    with pytest.raises(ImportError):
        resolve("samplers.no_such_name")


@pytest.mark.parametrize("kind", SAMPLERS)
def test_every_sampler_has_its_section(kind):
    text = (ROOT / "docs" / "samplers" / f"{kind}.md").read_text()
    assert all(part in text for part in ("**Use it**", "**Exact or biased.**", "**Cost.**", "## How it fails", "**References.**"))
    assert f"(samplers/{kind}.md)" in (ROOT / "docs" / "choose.md").read_text()


def test_settings_of_samplers_are_called_by_their_names():
    for model in config.UNIONS["sampler"]:
        text = (ROOT / "docs" / "samplers" / f"{model.model_fields['kind'].default}.md").read_text()
        rows = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
        for name in re.findall(r"`([\w.]+)`", " ".join(rows)):
            section, _, field = name.rpartition(".")
            owner = config.SECTIONS[section] if section else model
            assert field in owner.model_fields or field in config.RunConfig.model_fields, name


def test_every_public_name_of_bayesnn_is_in_the_reference():
    import bayesnn

    text = (ROOT / "docs" / "api.md").read_text()
    assert [name for name in bayesnn.__all__ if not re.search(rf":: {name}$", text, re.MULTILINE)] == []
    # Sphinx writes the functions and classes of these by itself, and leaves out what has no docstring.
    for package in (samplers, diagnostics):
        constants = [name for name in package.__all__ if not callable(getattr(package, name))]
        assert [name for name in constants if f"`{package.__name__}.{name}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_code_blocks_that_are_not_cells_parse(page):
    for block in blocks(page.read_text(), "python"):
        ast.parse(block)


@pytest.mark.slow
def test_python_of_the_readme_runs(tmp_path):
    for block in blocks((ROOT / "README.md").read_text(), "python"):
        done = subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"


@pytest.mark.slow
def test_shell_of_the_readme_runs(tmp_path):
    (tmp_path / "my_file.py").write_text(EXPERIMENT)
    np.savez(tmp_path / "inputs.npz", x=np.zeros((2, 64)))
    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    np.savez(tmp_path / "mine.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])

    def bayesnn(*words: str) -> subprocess.CompletedProcess[str]:
        small = SMALL if words[:2] == ("run", "digits-hmc") else SMALL[2:] if words[0] == "run" else []
        if small is SMALL and "--sampler" not in words:
            small = [*SMALL, "--sampler.max-num-steps", "10"]
        small = {"measure": ["--draws", "20"], "audit-suite": ["--plan"]}.get(words[0], small)
        command = [str(Path(sys.executable).with_name("bayesnn")), *words, *small]
        return subprocess.run(command, cwd=tmp_path, env=quick_to_compile, capture_output=True, text=True, timeout=300)

    quick_to_compile = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    for block in blocks((ROOT / "README.md").read_text(), "console"):
        for command in commands_in(f"```console\n{block}```"):
            words = shlex.split(command)[1:]
            done = bayesnn(*words)
            # So few draws must not pass an audit.
            expected = 1 if words[0] == "audit" else 0
            assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"
