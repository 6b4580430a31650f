"""Symmetries that built-in networks declare: kept by their outputs and priors, undone by alignment, counted on a real run."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnn
import diagnostics
from bayesnn import data, likelihoods, models, priors
from diagnostics.units import copy_units, from_json, group_sizes, to_json

RNG = np.random.default_rng(0)
NETWORKS = {
    "resnet": (models.resnet(3, depth=8, width=3), RNG.normal(size=(5, 8, 8, 2))),
    "lenet": (models.lenet(3, channels=(3, 4), widths=(6,), activation="tanh"), RNG.normal(size=(5, 8, 8, 2))),
    "lenet-relu": (models.lenet(3, channels=(4,), widths=(5,)), RNG.normal(size=(5, 8, 8, 1))),
    "cnn_lstm": (models.cnn_lstm(2, vocabulary=20, embedding=3, filters=4, units=5), RNG.integers(0, 20, (5, 14))),
    "mlp": (models.mlp([4, 5], 3, "tanh"), RNG.normal(size=(5, 3))),
}
KINDS = {
    "resnet": {"permutation", "sign flip"},
    "lenet": {"permutation", "sign flip"},
    "lenet-relu": {"permutation", "rescaling"},
    "cnn_lstm": {"permutation", "sign flip", "rescaling"},
    "mlp": {"permutation", "sign flip"},
}


@functools.cache
def made(name):
    """Return symmetries, outputs as a function of weights by name, and one set of weights without zeros."""
    model, x = NETWORKS[name]
    x = jnp.asarray(x, jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    weights = {key: rng.normal(size=leaf.shape).astype(np.float32) for key, leaf in models.named(shapes).items()}
    apply = jax.jit(model.apply)
    return model.symmetries(shapes), lambda w: np.asarray(jax.nn.softmax(apply(models.nest(w), x))), weights


def log_prior_of(prior, weights):
    params = models.nest({name: jnp.asarray(array) for name, array in weights.items()})
    constants = prior.constants(params)
    log_prob = jax.jit(prior.log_prob)
    return lambda w: np.asarray(log_prob(models.nest(w), constants))


def kept(table):
    columns = table["keeps_outputs"].values, table["keeps_log_prior"].values
    return dict(zip(table["transformation"].values.tolist(), zip(*(c.tolist() for c in columns), strict=True), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_declared_symmetries_keep_outputs_and_log_prior(name):
    architecture, outputs, weights = made(name)
    last = [key.removesuffix(".kernel") for key in weights if key.endswith(".kernel")]
    last = "head" if "head" in last else last[-1]
    shift = diagnostics.shift_of_logits(f"{last}.kernel", f"{last}.bias")
    table = kept(
        diagnostics.check_symmetries(
            architecture, weights, outputs, log_prior_of(priors.gaussian(), weights), others={"shift of logits": shift}
        )
    )
    assert table.pop("shift of logits") == (True, False)  # a direction of the likelihood alone
    assert {kind.split(": ")[1] for kind in table} == KINDS[name]
    for kind, found in table.items():
        assert found == (True, "rescaling" not in kind), kind


def test_what_is_not_a_symmetry_of_these_networks_is_caught():
    architecture, outputs, weights = made("lenet")
    [first, *_] = architecture
    log_prior = log_prior_of(priors.gaussian(), weights)
    wrong = (first._replace(flips=(first.owned,)),)  # a maximum over a window does not turn its sign
    assert not kept(diagnostics.check_symmetries(wrong, weights, outputs, log_prior))["convs.0: sign flip"][0]
    architecture, outputs, weights = made("resnet")
    stream = next(group for group in architecture if group.name == "stream_1")
    log_prior = log_prior_of(priors.gaussian(), weights)
    without_scale = (stream._replace(flips=(stream.flips[0][1:],)),)
    assert not kept(diagnostics.check_symmetries(without_scale, weights, outputs, log_prior))["stream_1: sign flip"][0]
    lacks_a_reader = (stream._replace(outgoing=stream.outgoing[:-1]),)
    assert not kept(diagnostics.check_symmetries(lacks_a_reader, weights, outputs, log_prior))["stream_1: permutation"][0]


PRIORS = {
    **{name: priors.family(name, 0.5) for name in priors.FAMILIES},
    "off-centre": priors.gaussian(0.5, location=0.3),
    "empirical": priors.empirical_covariance(RNG.normal(size=(50, 3)) @ RNG.normal(size=(3, 3)), priors.gaussian()),
}


@pytest.mark.parametrize("name", PRIORS)
def test_priors_tell_neither_units_nor_signs_apart_unless_they_are_off_centre(name):
    architecture, outputs, weights = made("mlp")
    found = kept(diagnostics.check_symmetries(architecture, weights, outputs, log_prior_of(PRIORS[name], weights)))
    for kind, (_, is_kept) in found.items():
        assert is_kept == (name != "off-centre" or "permutation" in kind), kind


def random_copies(rng, draws, architecture):
    """Move each chain to a copy of its own."""
    sizes = group_sizes(architecture, {name: array.shape[2:] for name, array in draws.items()})
    shape = next(iter(draws.values())).shape[:2]
    for group, size in zip(architecture, sizes, strict=True):
        permutation = np.argsort(rng.random((shape[0], 1, size)), -1)
        signs = rng.choice(np.array([-1, 1], np.int8), (shape[0], 1, len(group.flips), size))
        draws = copy_units(
            draws, group, np.broadcast_to(permutation, (*shape, size)), np.broadcast_to(signs, (*shape, *signs.shape[2:]))
        )
    return draws


def around(rng, centres, num_draws):
    """Chains of white noise around networks."""
    return {
        name: (np.stack([centre[name] for centre in centres])[:, None])
        + 0.05 * rng.normal(size=(len(centres), num_draws, *centres[0][name].shape))
        for name in centres[0]
    }


SLOW_RESNET = [pytest.param(name, marks=pytest.mark.slow) if name == "resnet" else name for name in NETWORKS]


@pytest.mark.parametrize("name", SLOW_RESNET)
def test_a_chain_and_its_copies_agree_once_they_are_aligned(name):
    rng = np.random.default_rng(2)
    architecture, _, weights = made(name)
    original = around(rng, [weights] * 4, 150)
    planted = random_copies(rng, original, architecture)
    attrs = {"kind": "mcmc", "task": "classification", "architecture": to_json(architecture)}
    tables = [
        diagnostics.aligned_summary(diagnostics.make_tree(attrs=attrs, posterior=draws)).sel(layer=diagnostics.TOTAL)
        for draws in (original, planted)
    ]
    assert tables[1]["rhat_median"].sel(alignment="raw") > 1.5
    found, expected = (float(table["rhat_median"].sel(alignment="aligned")) for table in tables[::-1])
    assert found == pytest.approx(expected, abs=1e-3)
    # The means of 150 draws of white noise with sd 0.05 differ by 0.05 / sqrt(150) = 0.004, the planted copies by 1.
    assert tables[1]["removed"] > 0.999
    aligned = diagnostics.align(planted, architecture, {key: array.mean((0, 1)) for key, array in original.items()})
    assert all((count == 0).all() for counts in (aligned.transpositions, aligned.flips) for count in counts.values())
    few = ({key: array[:, :5] for key, array in draws.items()} for draws in (original, planted))
    forms = [diagnostics.canonical(draws, architecture) for draws in few]
    for key, array in forms[0].items():
        np.testing.assert_array_equal(forms[1][key], array)


@pytest.mark.parametrize("name", [SLOW_RESNET[0], "cnn_lstm"])
def test_chains_of_different_functions_still_disagree(name):
    rng = np.random.default_rng(3)
    architecture, _, weights = made(name)
    centres = [{key: rng.normal(size=array.shape) for key, array in weights.items()} for _ in range(4)]
    tree = diagnostics.make_tree(attrs={"kind": "mcmc", "task": "classification"}, posterior=around(rng, centres, 100))
    table = diagnostics.aligned_summary(tree, architecture).sel(layer=diagnostics.TOTAL)
    assert table["rhat_median"].sel(alignment="aligned") > 1.5
    # 4 unrelated networks: over seeds both shares have a standard deviation of at most 0.05, as for the MLPs of the other tests.
    assert abs(table["removed"] - table["removed_by_chance"]) < 3 * 0.07


def test_declarations_survive_writing_and_reading():
    for name in NETWORKS:
        architecture = made(name)[0]
        assert from_json(to_json(architecture)) == architecture


@pytest.mark.slow
def test_a_run_carries_its_symmetries_and_a_right_sampler_passes_the_census():
    x = np.linspace(-2, 2, 6)[:, None]
    curve = data.from_arrays(x, np.sin(x[:, 0]), x, np.sin(x[:, 0]), name="curve")
    posterior = bayesnn.posterior(models.mlp([1], 1, "tanh"), priors.gaussian(), likelihoods.gaussian(2.0), curve)
    sampler = bayesnn.HMC(step_size=0.2)
    tree = bayesnn.sample(jax.random.key(0), posterior, sampler, draws=600, warmup=200).tree
    assert diagnostics.architecture_of(tree) == diagnostics.mlp_symmetries(["layer_0", "layer_1"], "tanh")
    finding = diagnostics.census(tree)
    assert finding.verdict == "pass", finding.note
    # The same draws with every second visit to the copy of a negative bias turned back.
    is_turned = (tree["posterior/layer_0.bias"].values < 0) & (np.arange(600) % 2 == 0)[None, :, None]
    weights = {str(name): variable.values.copy() for name, variable in tree["posterior"].data_vars.items()}
    for name in ("layer_0.kernel", "layer_0.bias", "layer_1.kernel"):
        weights[name] *= np.where(is_turned, -1, 1).reshape(4, 600, *[1] * (weights[name].ndim - 2))
    assert diagnostics.census(weights, diagnostics.architecture_of(tree)).verdict == "fail"
    with pytest.raises(ValueError, match=r"does not say what symmetries.*Model\.symmetries"):
        diagnostics.architecture_of(diagnostics.make_tree(attrs={"kind": "mcmc", "task": "regression"}, posterior=weights))
