"""Configurations: checked once, written to config.json and read back the same, every setting documented."""

from __future__ import annotations

import json

import pydantic
import pytest

from bayesnn import config as c
from bayesnn.errors import UsageError
from bayesnn.experiments import EXPERIMENTS
from tests.bayesnn import experiments as own

PARTS = [c.RunConfig, *c.SECTIONS.values(), *(part for parts in c.UNIONS.values() for part in parts)]
BUILT_IN = [function() for function in EXPERIMENTS.values()]
OWN = [own.wine(), own.gaussian(), own.school(), own.regression(), own.own_parts()]


@pytest.mark.parametrize("config", BUILT_IN + OWN, ids=lambda config: config.data.name.rpartition("/")[2])
def test_a_configuration_is_read_back_as_it_was_written(config, tmp_path):
    (tmp_path / "config.json").write_text(config.model_dump_json(indent=1))
    assert c.read(tmp_path / "config.json") == config


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_setting_has_a_help_text(part):
    assert part.__doc__
    undocumented = [name for name, field in part.model_fields.items() if name != "kind" and not field.description]
    # Sections and choices are documented by their classes.
    assert set(undocumented) <= {*c.SECTIONS, *c.UNIONS}


def test_unions_name_every_choice():
    for name, choices in c.UNIONS.items():
        annotation = c.RunConfig.model_fields[name].annotation.__value__
        assert set(annotation.__args__[0].__args__) == set(choices)


def test_a_configuration_never_changes():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        own.SHORT.draws = 3


def changed(**entries):
    """Return a plain configuration with other entries, `sampler__step_size` inside `sampler`."""
    data = json.loads(own.SHORT.model_dump_json())
    for path, value in entries.items():
        section, _, name = path.rpartition("__")
        (data[section] if section else data)[name] = value
    return data


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"drawz": 3}, "unknown key drawz; did you mean 'draws'?"),
        ({"sampler__stepsize": 3}, "unknown key sampler.stepsize; did you mean 'step_size'?"),
        ({"data__nmae": "wine"}, "unknown key data.nmae; did you mean 'name'?"),
        ({"sampler__step_size": -1.0}, "sampler.step_size: Input should be greater than 0 (got -1.0)"),
        ({"sampler__step_size": 0.0}, "sampler.step_size: Input should be greater than 0 (got 0.0)"),
        ({"sampler__step_size": float("inf")}, "sampler.step_size: Input should be a finite number (got inf)"),
        ({"sampler__step_size": float("nan")}, "sampler.step_size: Input should be a finite number (got nan)"),
        ({"sampler__jitter": 1.0}, "sampler.jitter: Input should be less than 1 (got 1.0)"),
        ({"chains": 0}, "chains: Input should be greater than 0 (got 0)"),
        ({"draws": 0}, "draws: Input should be greater than 0 (got 0)"),
        ({"thin": 0}, "thin: Input should be greater than 0 (got 0)"),
        ({"temperature": 0.0}, "temperature: Input should be greater than 0 (got 0.0)"),
        ({"likelihood_temperature": -1.0}, "likelihood_temperature: Input should be greater than 0 (got -1.0)"),
        ({"model__widths": [4, 0]}, "model.widths.1: Input should be greater than 0 (got 0)"),
        (
            {"prior__scale": "wide"},
            "prior.scale: Input should be a valid number, unable to parse string as a number (got 'wide')",
        ),
        ({"precision": "float16"}, "precision: Input should be 'float32' or 'float64' (got 'float16')"),
        ({"warmup__steps": -1}, "warmup.steps: Input should be greater than or equal to 0 (got -1)"),
        ({"sampler": {"kind": "optimise"}}, "an optimiser has one draw a chain, its end point; got draws=40: use draws=1"),
        ({"density": {"source": "a.b:c"}}, "so data, model would have no effect: leave them out"),
        ({"density": {"source": "nothing"}}, "density.source: it must say file and function"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_a_wrong_entry_is_named_with_what_was_got_and_expected(entries, message):
    with pytest.raises(UsageError) as error:
        c.parse(changed(**entries), "here")
    assert str(error.value).startswith("here: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_all_wrong_entries_are_named_at_once():
    with pytest.raises(UsageError, match=r"chains: .*; draws: "):
        c.parse(changed(chains=0, draws=-1), "here")


def test_parts_of_ones_own_are_named_by_absolute_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert c.Imported(source="mine.py:model").source == f"{tmp_path / 'mine.py'}:model"
    assert c.Data(name="mine.npz").name == str(tmp_path / "mine.npz")
    assert c.RunConfig(start="w.npz").start == str(tmp_path / "w.npz")
    assert c.Imported(source="package.module:model").source == "package.module:model"


def test_only_what_a_resumed_run_can_import_again_becomes_a_part():
    def local():
        pass

    with pytest.raises(ValueError, match="must be defined at the top level of a file"):
        c.Imported.of(local)
    with pytest.raises(pydantic.ValidationError, match="must be numbers, strings, lists and dicts"):
        c.Imported.of(own.nnx_network, width=object())
    with pytest.raises(pydantic.ValidationError, match="must be numbers, strings, lists and dicts"):
        c.Imported.of(own.nnx_network, width=float("nan"))
