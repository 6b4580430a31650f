"""References: saved, shared, shown and compared with; another posterior is refused with what differs."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import bayesnn
from bayesnn import data, likelihoods, models, priors
from bayesnn.errors import UsageError
from bayesnn.load import load_run
from bayesnn.reference import PUBLISHED, bundle_of, differences, hold_against, load_bundle, open_reference, posterior_facts
from bayesnn.reference.bundle import PARTS
from bayesnn.reference.comparison import RANKED_BY
from diagnostics.floor import fidelity_to, prefixes

ROOT = Path(__file__).resolve().parents[2]
opened = functools.cache(open_reference)


@pytest.fixture(name="real")
def _real(monkeypatch):
    directory = Path(os.environ.get("BAYESNN_DATA", ROOT.parent / "shared" / "data"))
    if not (directory / "hmc_reference").is_dir():
        pytest.skip(f"no published predictions in {directory}; set BAYESNN_DATA to a directory that has hmc_reference/")
    monkeypatch.setenv("BAYESNN_DATA", str(directory))


@pytest.fixture(name="saved", scope="module")
def _saved(finished, tmp_path_factory):
    path = tmp_path_factory.mktemp("references") / "wine.npz"
    bundle_of(load_run(finished)).save(path)
    return path


def test_a_saved_reference_says_what_it_is_and_predicts_what_the_run_did(saved, finished):
    run, bundle = load_run(finished), load_bundle(saved)
    assert bundle.posterior == posterior_facts(run)
    assert bundle.posterior["data_sha256"] == data.load("wine").hash
    assert bundle.posterior["prior"]["scale"] == 1.0
    assert bundle.posterior["temperature"] == 1.0
    assert bundle.prefixes.counts == (1, 2, 5, 10, 20, 40)
    # The file holds float32.
    np.testing.assert_allclose(bundle.prefixes.parts[0], prefixes(run.tree).parts[0], atol=1e-7)
    np.testing.assert_array_equal(bundle.y_test, run.tree["observed_data"]["y_test"].values)
    assert bundle.facts["scores"]["accuracy"][0] == pytest.approx(
        np.mean(run.tree["functions"]["probability"].values.mean((0, 1)).argmax(-1) == bundle.y_test)
    )
    assert bundle.facts["versions"]["jax"] == jax.__version__
    with np.load(saved, allow_pickle=False) as file:  # readable by anyone, with no place of this machine in it
        assert str(finished.parent) not in str(file["facts"])


def test_a_run_is_at_no_distance_from_its_own_reference(saved, finished):
    found = hold_against({"wine": load_run(finished)}, load_bundle(saved))["wine"]
    assert found.measured["agreement"].value == 1
    # Rounding of probabilities to float32.
    assert found.measured["total_variation"].value < 1e-6


def changed(bundle, **posterior):
    return bundle.__class__(**{**vars(bundle), "posterior": {**bundle.posterior, **posterior}})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("data_sha256", "0" * 64, r"data_sha256: \w{12}\.\.\. and 000000000000\.\.\."),
        ("temperature", 0.5, "temperature: 1 and 0.5"),
        ("num_data", 7, "num_data: 142 and 7"),
        ("prior", {"kind": "gaussian", "scale": 0.5, "layer_scales": {}, "fan_in": False}, r"prior.scale: 1 and 0.5"),
        ("prior", {"kind": "distribution", "name": "Laplace"}, "prior: kind gaussian, .* and kind distribution, name Laplace"),
    ],
)
def test_another_posterior_is_refused_with_what_differs(saved, finished, name, value, words):
    other = changed(load_bundle(saved), **{name: value})
    with pytest.raises(UsageError, match=rf"of different posteriors, .*{words}.*--accept-differences"):
        hold_against({"wine": load_run(finished)}, other)
    assert hold_against({"wine": load_run(finished)}, other, accept_differences=True)["wine"].measured["agreement"].value == 1


def test_what_is_unknown_or_equal_to_three_digits_is_no_difference():
    ours = {"temperature": 1.0, "prior": {"kind": "gaussian", "scale": 0.447}}
    assert differences(ours, {"temperature": None, "prior": {"kind": "gaussian", "scale": 0.2**0.5}}) == []
    assert differences(ours, {"temperature": 1.0, "prior": {"kind": "gaussian", "scale": 5**0.5}}) == [
        "prior.scale: 0.447 and 2.236"
    ]


@pytest.mark.parametrize("scale", [0.1, 0.3162277660168379, 0.9999, 1.0, 4.4721359549995, 31415.92])
def test_what_differs_is_written_short_and_differently(scale):
    """Just beyond a thousandth apart, the least that counts."""
    one, other = ({"prior": {"kind": "gaussian", "scale": value}} for value in (scale, 1.0011 * scale))
    [found] = differences(one, other)
    left, right = found.removeprefix("prior.scale: ").split(" and ")
    assert left != right
    assert max(len(left), len(right)) <= len("0.xxxx")


def test_counts_have_thousands_apart():
    kinds = ({"model": {"kind": "cnn-lstm", "vocabulary": size}} for size in (1000, 20_000))
    assert differences(*kinds) == ["model.vocabulary: 1,000 and 20,000"]


def test_other_test_points_are_refused_and_fewer_are_not(saved, finished):
    run, bundle = load_run(finished), load_bundle(saved)
    fewer = bundle.prefixes._replace(parts=(bundle.prefixes.parts[0][:, :, :10],))
    short = bundle.__class__(**{**vars(bundle), "prefixes": fewer, "y_test": bundle.y_test[:10]})
    assert hold_against({"wine": run}, short)["wine"].measured["agreement"].value == 1
    shuffled = bundle.__class__(**{**vars(bundle), "y_test": bundle.y_test[::-1]})
    with pytest.raises(UsageError, match="tested on different points"):
        hold_against({"wine": run}, shuffled)


def test_from_the_command_line(cli, refused, finished_copy, saved, tmp_path):
    out = tmp_path / "reference.npz"
    done = cli("reference", "save", finished_copy, out)
    assert (done.status, done.err) == (0, "")
    assert "2 chains of 40 draws, 36 test points" in done.out
    assert "never overwritten" in refused("reference", "save", finished_copy, out)
    assert "one .npz file" in refused("reference", "save", finished_copy, tmp_path / "reference")
    shown = cli("reference", "show", out).out
    for words in ("prior", "scale 1", "data_sha256", "accuracy", "142"):
        assert words in shown
    compared = cli("reference", "compare", finished_copy, out)
    assert compared.status == 0
    assert "total variation distance" in compared.out
    assert "fewer than three chains" in compared.out
    assert "two of" in refused("reference", "compare", finished_copy, finished_copy, out)
    assert "one or more run folders and then a reference" in refused("reference", "compare", out)
    assert "bdl-cifar10, bdl-imdb" in refused("reference", "show", "nothing")


def test_runs_are_ranked_by_closeness(saved, finished):
    """A run, and the same with its predictions sharpened: the closer one comes first, whatever the order."""
    bundle = load_bundle(saved)
    sharp, run = load_run(finished), load_run(finished)
    probability = sharp.tree["functions"]["probability"] ** 3
    sharp.tree["functions"] = sharp.tree["functions"].to_dataset().assign(probability=probability / probability.sum("class"))
    for runs in ({"sharp": sharp, "same": run}, {"same": run, "sharp": sharp}):
        found = hold_against(runs, bundle)
        assert list(found) == ["same", "sharp"]
        assert found["sharp"].measured["total_variation"].lower > found["same"].measured["total_variation"].upper


def test_densities_predict_nothing(cli, refused, own, tmp_path):
    assert (
        cli("run", own("gaussian"), "--name", "gaussian", "--runs", tmp_path, "--draws", "4", "--warmup.steps", "2").status == 0
    )
    assert "predicts nothing" in refused("reference", "save", tmp_path / "gaussian", tmp_path / "out.npz")


def test_parts_of_the_users_own_are_known_by_name_and_hash(own):
    config = bayesnn.RunConfig(model=bayesnn.Imported(source=own("nnx_network"), arguments={"width": 3}))
    manifest = {"problem": {"num_data": 5}, "sources": {own("nnx_network"): "f" * 64}}
    facts = posterior_facts(SimpleNamespace(config=config, folder=SimpleNamespace(manifest=manifest)))
    assert facts["model"] == {
        "kind": "imported",
        "source": "experiments.py:nnx_network",
        "sha256": "f" * 64,
        "arguments": {"width": 3},
    }


@pytest.mark.parametrize("content", [b"", b"PK damaged", None])
def test_damaged_files(tmp_path, content):
    path = tmp_path / "reference.npz"
    if content is None:
        np.savez(path, facts=np.array("{}"))
    else:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="is no reference, or damaged"):
        load_bundle(path)
    with pytest.raises(UsageError, match="no file"):
        load_bundle(tmp_path / "none.npz")


def test_a_later_format_is_refused(saved, tmp_path):
    with np.load(saved) as file:
        arrays = dict(file)
    facts = json.loads(str(arrays.pop("facts"))) | {"format": 2}
    np.savez(tmp_path / "later.npz", facts=np.array(json.dumps(facts)), **arrays)
    with pytest.raises(UsageError, match="has format 2, this version reads 1"):
        load_bundle(tmp_path / "later.npz")


@pytest.mark.parametrize(
    ("name", "accuracy", "log_likelihood", "prior_variance"),
    [("bdl-cifar10", 0.9144, 0.2773, 1 / 5), ("bdl-imdb", 0.8756, 0.2950, 1 / 40)],
)
def test_published_predictions(real, name, accuracy, log_likelihood, prior_variance):
    """Values computed independently when the files were collected, to four decimals."""
    bundle = opened(name)
    scores = bundle.facts["scores"]
    assert scores["accuracy"][0] == pytest.approx(accuracy, abs=5.1e-5)
    assert scores["negative_log_likelihood"][0] == pytest.approx(log_likelihood, abs=5.1e-5)
    assert bundle.posterior["prior"]["scale"] ** 2 == pytest.approx(prior_variance)
    assert any("notebooks" in note for note in bundle.facts["notes"])
    assert bundle.posterior["data_sha256"] is None


def test_published_predictions_without_their_file(monkeypatch, tmp_path):
    monkeypatch.setenv("BAYESNN_DATA", str(tmp_path))
    for name in PUBLISHED:
        with pytest.raises(UsageError, match=r"no file .*bdl2021_hmc_probs.npz: put there"):
            open_reference(name)


def test_a_run_of_another_posterior_is_refused_by_a_published_one(real, finished):
    with pytest.raises(UsageError, match=r"different posteriors, .*model: kind mlp.* and kind cnn-lstm"):
        hold_against({"wine": load_run(finished)}, opened("bdl-imdb"))


@pytest.mark.slow
def test_a_held_out_hmc_chain_is_inside_the_floor_and_a_cold_one_outside():
    def chains(seed, number, temperature=1.0):
        posterior = bayesnn.posterior(
            models.mlp([4], 3), priors.gaussian(1.0), likelihoods.categorical(), data.load("wine"), temperature=temperature
        )
        hmc = bayesnn.HMC(step_size=0.08)
        return prefixes(bayesnn.sample(jax.random.key(seed), posterior, hmc, chains=number, draws=500).tree)

    reference = chains(0, 6)
    held_out, cold = fidelity_to(chains(10, 1), reference), fidelity_to(chains(20, 1, temperature=0.5), reference)
    for floor in (held_out.equal_draws, held_out.equal_ess):
        assert held_out.is_inside(floor, "total_variation")
        assert held_out.is_inside(floor, "agreement")
    for floor in (cold.equal_draws, cold.equal_ess):
        assert not cold.is_inside(floor, "total_variation")


@pytest.mark.parametrize("task", ["classification", "regression", "counts"])
def test_every_task_with_functions_has_its_parts_and_its_rank(task):
    assert PARTS[task]
    assert RANKED_BY[task]
