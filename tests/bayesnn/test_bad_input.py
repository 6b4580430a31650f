"""Everything that a user can get wrong before the first step: one message, exit status 2, and nothing left on the disk."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.bayesnn.experiments import SHORT

WINE = np.random.default_rng(0)
X, Y = WINE.normal(size=(30, 13)), np.arange(30) % 3


@pytest.fixture
def refused_run(refused, tmp_path):
    """Run an experiment that must be refused before it has a folder; return the message."""

    def run(experiment, *flags):
        message = refused("run", experiment, "--runs", tmp_path / "runs", *flags)
        assert not list(tmp_path.glob("runs/*"))
        return message

    return run


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def experiment(:\n    pass", "line 1: invalid syntax: def experiment(:"),
        ("import nothing_like_it", "line 1: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("x = 1\nraise RuntimeError('no luck')", "line 2: RuntimeError: no luck"),
        ("def experiments(): pass", "has no function 'experiment'; did you mean 'experiments'?"),
        ("experiment = 3", "has no function 'experiment'; known are none"),
        ("def experiment():\n    return 3", "must return a RunConfig, it returned int"),
        ("def experiment():\n    return 1 / 0", "line 2: ZeroDivisionError: division by zero"),
        ("def experiment(size): pass", "cannot be called with no arguments: missing a required argument: 'size'"),
        (
            "from bayesnn.config import *\ndef experiment():\n    return RunConfig(sampler=HMC(step_size=-1))",
            "line 3: step_size: Input should be greater than 0 (got -1)",
        ),
        (
            "from bayesnn.config import *\ndef experiment():\n    return RunConfig(drawz=3)",
            "line 3: unknown key drawz; did you mean 'draws'?",
        ),
        (
            "from bayesnn.config import *\ndef experiment():\n    return RunConfig().model_copy(update={'chains': 0})",
            "chains: Input should be greater than 0 (got 0)",
        ),
    ],
)
def test_a_file_of_ones_own_that_does_not_work_is_told_by_line(source, message, refused_run, tmp_path):
    (tmp_path / "mine.py").write_text(source)
    told = refused_run(f"{tmp_path}/mine.py:experiment")
    assert message in told
    assert str(tmp_path / "mine.py") in told


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ("nowhere.py:experiment", "nowhere.py; something of your own is path/to/file.py:function"),
        ("nowhere.py", "nowhere.py that returns the experiment: "),
        (
            "no_such_module:experiment",
            "no module 'no_such_module'; a file is named by its path, such as ./no_such_module.py:function",
        ),
        ("json:experiment", "json has no function 'experiment'"),
    ],
)
def test_an_experiment_that_is_nowhere(experiment, message, refused_run):
    assert message in refused_run(experiment)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.where(X > 2, np.nan, X)}, "values that are NaN or infinite, in columns"),
        ({"x_test": np.where(X[0, 0] == X, np.inf, X)}, "x_test has 1 values that are NaN or infinite, in columns 0, rows 0"),
        ({"y_train": Y - 1}, "labels must be from 0 to num_classes - 1"),
        ({"y_test": Y + 0.5}, "labels must be integers"),
        ({"y_train": Y[:-1]}, "x_train has 30 examples and y_train has 29 targets; they must be as many"),
        ({"x_test": X[:, :4]}, "both splits need the same features"),
        ({"y_test": None}, "lacks y_test; it has x_test, x_train, y_train"),
        ({"y_train": 1.5 * Y, "y_test": 1.5 * Y}, "a categorical likelihood needs class labels, mine is for regression"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_data_that_are_no_data(changes, message, refused_run, tmp_path, own):
    arrays = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y} | changes
    np.savez(tmp_path / "mine.npz", **{name: value for name, value in arrays.items() if value is not None})
    assert message in refused_run(own("wine"), "--data.name", tmp_path / "mine.npz")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.name", "whine"], "unknown data set 'whine'; did you mean 'wine'?"),
        (["--data.name", "nowhere.npz"], "no file"),
        (["--data.name", "OWN:wrong_type"], "OWN:wrong_type must return a Dataset, it returned dict"),
        (["--data.split", "99999999999"], "data.split: Input should be less than 4294967296 (got 99999999999)"),
        (["--test-points", "1000"], "test_points must be from 1 to"),
        (["--prior.layer-scales", "layer_9", "1"], "layer_9"),
        (["--start", "nowhere.npz"], "use prior, model, map, pathfinder, a file of weights"),
        (["--data.name", "mine.csv"], "any other is read by file.py:function (got 'mine.csv')"),
        (["--sampler", "sgld", "--data-blocks", "2"], "so data_blocks 2 would have no effect: leave it out"),
        (["--sampler", "swag", "--data-blocks", "2"], "so data_blocks 2 would have no effect: leave it out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_settings_that_do_not_fit_the_problem(flags, message, refused_run, own):
    path = own("").removesuffix(":")
    told = refused_run(own("wine"), *[flag.replace("OWN", path) for flag in flags])
    assert message.replace("OWN", path) in told


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("too_few_inputs", "the model cannot be applied to inputs of shape (4, 13): "),
        ("too_narrow", "have shape (142, 2), but the likelihood (categorical) needs (142, 3)"),
        ("batch_norm", "switch to evaluation mode"),
        ("dropout", "switch to evaluation mode"),
        ("wrong_type", "cannot sample a dict; expected"),
        ("raising", "RuntimeError: no luck today"),
        ("refusing", ": ValueError: no, thanks"),
        ("nnx_network", "cannot be called with no arguments: missing a required argument: 'width'"),
        ("nothing", "has no function 'nothing'"),
    ],
)
def test_a_model_that_defines_no_posterior(model, message, refused_run, own, tmp_path):
    assert message in refused_run(experiment_with(tmp_path, model=own(model)))


@pytest.mark.parametrize("part", ["prior", "likelihood"])
def test_a_part_of_the_wrong_type(part, refused_run, own, tmp_path):
    message = refused_run(experiment_with(tmp_path, **{part: own("wrong_type")}))
    assert f"{own('wrong_type')} must return a {part.capitalize()}, it returned dict" in message


@pytest.mark.parametrize(
    ("density", "message"),
    [
        ("nowhere_finite", "the log density or its gradient is not finite at the start of chains [0, 1]"),
        ("wrong_type", "must return (log density, start) or (NumPyro model, tuple of its arguments)"),
        ("unsummed", "the log density gives (3,) at the start, expected a scalar: sum over all terms"),
        ("raising", "RuntimeError: no luck today"),
    ],
)
def test_a_density_that_is_none(density, message, refused_run, own, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from tests.bayesnn.experiments import gaussian, Imported\n"
        f"def experiment(): return gaussian().model_copy(update={{'density': Imported(source={own(density)!r})}})\n"
    )
    assert message in refused_run(f"{path}:experiment")


def experiment_with(folder, **sources):
    """Write an experiment as SHORT but for imported parts; return its name."""
    parts = ", ".join(f"{part!r}: Imported(source={source!r})" for part, source in sources.items())
    (folder / "mine.py").write_text(
        f"from tests.bayesnn.experiments import SHORT, Imported\ndef experiment(): return SHORT.model_copy(update={{{parts}}})\n"
    )
    return f"{folder}/mine.py:experiment"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sampler.batch-size", "100"], "batch_size"),
        (["--microbatch", "3"], "sampler.batch_size 16 must be a multiple of microbatch 3"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_minibatches_that_cannot_be_drawn(flags, message, refused_run, own):
    assert message in refused_run(own("regression"), *flags)


def test_hmc_of_a_density_needs_a_trajectory_length(refused_run, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from tests.bayesnn.experiments import gaussian, HMC\n"
        "def experiment(): return gaussian().model_copy(update={'sampler': HMC()})\n"
    )
    assert "set sampler.trajectory_length" in refused_run(f"{tmp_path}/mine.py:experiment")


def test_uci_data_without_a_data_directory(refused_run, monkeypatch, tmp_path):
    monkeypatch.setenv("BAYESNN_DATA", str(tmp_path / "nothing"))
    message = refused_run("yacht-hmc")
    assert "set BAYESNN_DATA to a directory with uci/<name>.npz" in message
    (tmp_path / "nothing").mkdir()
    assert "yacht.npz" in refused_run("yacht-hmc")


WEIGHTS = {
    "layer_0.kernel": np.zeros((13, 4)),
    "layer_0.bias": np.zeros(4),
    "layer_1.kernel": np.zeros((4, 3)),
    "layer_1.bias": np.zeros(3),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layer_0.bias": None},
            "does not fit the model: missing ['layer_0.bias'], unknown []; keys are paths like layer_0.bias",
        ),
        ({"layer_2.bias": np.zeros(3)}, "missing [], unknown ['layer_2.bias']"),
        ({"layer_0.bias": np.zeros(5)}, "has shape (5,), the model has (4,)"),
        ({"layer_0.bias": np.zeros((3, 4))}, "has shape (3, 4), the model has (4,)"),
        ({"layer_1.bias": np.array([0, 0, np.nan])}, "start.npz is not finite"),
        ({"layer_1.bias": np.array(["a", "b", "c"])}, "has dtype <U1, expected real numbers"),
        ({"layer_0.kernel": np.full((13, 4), 1e30)}, "not finite at the start of chains [0, 1]"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_weights_to_start_from_that_do_not_fit(changes, message, refused_run, own, tmp_path):
    weights = {name: value for name, value in (WEIGHTS | changes).items() if value is not None}
    np.savez(tmp_path / "start.npz", **weights)
    assert message in refused_run(own("wine"), "--start", tmp_path / "start.npz")


@pytest.mark.parametrize(("name", "content"), [("start.npz", "weights"), ("start.npz", ""), ("start", "weights")])
def test_a_start_that_is_no_file_of_weights(name, content, refused_run, own, tmp_path):
    (tmp_path / name).write_text(content)
    assert "cannot be read as" in refused_run(own("wine"), "--start", tmp_path / name)


def test_an_existing_folder_is_refused_and_left_alone(refused, own, tmp_path):
    (tmp_path / "wine").mkdir()
    (tmp_path / "wine" / "thesis.tex").write_text("ten years")
    message = refused("run", own("wine"), "--runs", tmp_path)
    assert "a run folder is never overwritten" in message
    assert [path.name for path in tmp_path.rglob("*")] == ["wine", "thesis.tex"]


@pytest.mark.slow
def test_the_weights_of_the_tests_fit(own, cli, tmp_path):
    """What the refused ones are held against."""
    np.savez(tmp_path / "start.npz", **WEIGHTS)
    words = ["--start", tmp_path / "start.npz", "--draws", "2", "--warmup.steps", "0"]
    assert cli("run", own("wine"), "--runs", tmp_path, *words).status == 0
    assert SHORT.draws != 2


@pytest.mark.parametrize(
    ("density", "flags", "message"),
    [
        ("gaussian", ["--sampler", "sgld"], "no examples to take minibatches of: set sampler.batch_size to None"),
        ("gaussian", ["--sampler", "mean-field-vi"], "no examples to take minibatches of: set sampler.batch_size to None"),
        ("school", ["--temperature", "0.5"], "sets the temperature itself, so temperature 0.5 would have no effect"),
    ],
)
def test_settings_that_do_not_fit_a_density(density, flags, message, refused_run, own):
    assert message in refused_run(own(density), *flags)


@pytest.mark.parametrize(
    "words",
    [
        ("run", "digits-hmc", "--name", "r", "--runs", "gs://b"),
        ("run", "digits-hmc", "--name", "r", "--runs", "gs://b", "--resume-if-exists"),
        ("demo", "--runs", "gs://b"),
        ("resume", "gs://b/r"),
        ("audit", "gs://b/r"),
        ("audit-suite", "izmailov2021", "--suites", "gs://b", "--plan"),
        ("reference", "save", "{finished}", "gs://b/r.npz"),
    ],
    ids=lambda words: words[0],
)
def test_object_stores_are_refused(words, refused, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(*(word.format(finished=finished) for word in words))
    assert re.match(r"gs://b/\S+ is in an object store, which has no atomic rename", message)
    assert not list(tmp_path.iterdir())
