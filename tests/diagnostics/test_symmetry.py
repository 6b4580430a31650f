"""Symmetries: declared and checked by numbers, alignment that undoes what was planted and nothing else, canonical forms."""

import itertools
import time

import numpy as np
import pytest
import xarray as xr

import diagnostics
from diagnostics.aligned import _removed_share
from diagnostics.estimates import few_systems_factor
from diagnostics.trees import make_tree
from diagnostics.units import copy_units, group_sizes

# Relative; sums of at most 64 terms of order 1 in another order, three layers: below 3 * 64 * 1.1e-16 = 2e-14.
ROUNDING = 1e-13
X = np.random.default_rng(7).normal(size=(11, 5))
ATTRS = {"kind": "mcmc", "task": "regression"}


def layers(count):
    return [f"layer_{index}" for index in range(count)]


def network(rng, widths):
    """One fully connected network, biases included, outputs of order 1."""
    weights = {}
    for layer, (inputs, units) in zip(layers(len(widths) - 1), itertools.pairwise(widths), strict=True):
        weights[f"{layer}.kernel"] = rng.normal(size=(inputs, units)) / np.sqrt(inputs)
        weights[f"{layer}.bias"] = 0.3 * rng.normal(size=units)
    return weights


def forward(weights, activation="tanh", x=X):
    """Outputs at x of networks with any leading axes, as bayesnn.models.mlp computes them."""
    function = {"tanh": np.tanh, "relu": lambda h: np.maximum(h, 0)}[activation]
    count = len(weights) // 2
    for index in range(count):
        x = x @ weights[f"layer_{index}.kernel"] + weights[f"layer_{index}.bias"][..., None, :]
        x = function(x) if index < count - 1 else x
    return x


def log_normal(weights):
    return -0.5 * sum(np.square(array).sum() for array in weights.values())


def random_copies(rng, draws, architecture, shape):
    """Move draws (chain, draw, ...) to random copies, one for each element of shape; also return the moves."""
    moves = []
    sizes = group_sizes(architecture, {name: array.shape[2:] for name, array in draws.items()})
    full = next(iter(draws.values())).shape[:2]
    for group, size in zip(architecture, sizes, strict=True):
        permutation = np.broadcast_to(np.argsort(rng.random((*shape, size)), -1), (*full, size))
        signs = rng.choice(np.array([-1, 1], np.int8), (*shape, len(group.flips), size))
        signs = np.broadcast_to(signs, (*full, *signs.shape[2:]))
        draws = copy_units(draws, group, permutation, signs)
        moves.append((permutation, signs))
    return draws, moves


def noisy(rng, base, shape, noise):
    return {name: array + noise * rng.normal(size=(*shape, *array.shape)) for name, array in base.items()}


def relative(change, of):
    return np.abs(change).max() / np.abs(of).max()


CASES = [([5, 6, 3], "tanh"), ([5, 6, 3], "relu"), ([5, 8, 7, 3], "tanh"), ([5, 8, 7, 3], "relu"), ([5, 1, 2], "tanh")]


@pytest.mark.parametrize(("widths", "activation"), CASES)
def test_alignment_undoes_exactly_what_was_planted(widths, activation):
    rng = np.random.default_rng(0)
    architecture = diagnostics.mlp_symmetries(layers(len(widths) - 1), activation)
    base = network(rng, widths)
    original = noisy(rng, base, (2, 30), 0.03)
    planted, moves = random_copies(rng, original, architecture, (2, 30))
    result = diagnostics.align(planted, architecture, base)
    for group, (permutation, signs) in zip(architecture, moves, strict=True):
        inverse = np.argsort(permutation, -1)
        np.testing.assert_array_equal(result.permutation[group.name], inverse)
        np.testing.assert_array_equal(result.sign[group.name], np.take_along_axis(signs, inverse[:, :, None], -1))
    for name, array in original.items():
        np.testing.assert_array_equal(result.weights[name], array)
    assert relative(forward(result.weights, activation) - forward(planted, activation), forward(planted, activation)) < ROUNDING


def test_without_a_reference_all_draws_come_to_one_copy():
    rng = np.random.default_rng(1)
    architecture = diagnostics.mlp_symmetries(layers(3), "tanh")
    planted, _ = random_copies(rng, noisy(rng, network(rng, [5, 8, 7, 3]), (3, 40), 0.03), architecture, (3, 40))
    result = diagnostics.align(planted, architecture)
    owned = [name for name in planted if name != "layer_2.bias"]
    size = sum(planted[name][0, 0].size for name in owned)
    # Squared distances to the mean are 0.03**2 times chi-square variables; 6 standard deviations.
    assert result.distance[-1].max() < 0.03**2 * (size + 6 * np.sqrt(2 * size))
    for name in owned:
        np.testing.assert_allclose(result.reference[name], result.weights[name].mean((0, 1)), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(result.weights["layer_2.bias"], planted["layer_2.bias"])


def test_one_hidden_layer_is_matched_optimally():
    rng = np.random.default_rng(2)
    architecture = diagnostics.mlp_symmetries(layers(2), "tanh")
    draws, reference = noisy(rng, network(rng, [5, 3, 2]), (1, 20), 1.0), network(rng, [5, 3, 2])
    result = diagnostics.align(draws, architecture, reference)
    distances = []
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product([-1, 1], repeat=3)):
        moves = np.broadcast_to(order, (1, 20, 3)), np.broadcast_to(signs, (1, 20, 1, 3))
        copy = copy_units(draws, architecture[0], *moves)
        distances.append(sum(np.square(copy[name] - reference[name]).reshape(1, 20, -1).sum(-1) for name in result.reference))
    np.testing.assert_allclose(result.distance[-1], np.min(distances, 0), rtol=1e-12)
    assert (result.distance[-1] < result.distance[0]).all()


def test_the_distance_never_increases_and_is_what_it_says():
    rng = np.random.default_rng(3)
    architecture = diagnostics.mlp_symmetries(layers(4), "tanh")
    draws, reference = noisy(rng, network(rng, [5, 6, 6, 6, 2]), (2, 50), 0.5), network(rng, [5, 6, 6, 6, 2])
    result = diagnostics.align(draws, architecture, reference)
    assert len(result.distance) > 3  # unrelated networks need several sweeps
    assert (np.diff(result.distance, axis=0) <= 0).all()
    for sweep, weights in ((0, draws), (-1, result.weights)):
        squares = [np.square(weights[name] - target).reshape(2, 50, -1).sum(-1) for name, target in result.reference.items()]
        np.testing.assert_allclose(result.distance[sweep], np.sum(squares, 0), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("noise", [0.05, 1.0])  # draws that belong together, and draws that are unrelated
def test_alignment_is_idempotent(noise, dtype):
    rng = np.random.default_rng(4)
    architecture = diagnostics.mlp_symmetries(layers(3), "tanh")
    draws = {name: array.astype(dtype) for name, array in noisy(rng, network(rng, [5, 8, 7, 3]), (2, 40), noise).items()}
    draws, _ = random_copies(rng, draws, architecture, (2, 40))
    once = diagnostics.align(draws, architecture)
    twice = diagnostics.align(once.weights, architecture, once.reference)
    for name, array in once.weights.items():
        assert array.dtype == dtype
        np.testing.assert_array_equal(twice.weights[name], array)
    assert all((count == 0).all() for counts in (twice.transpositions, twice.flips) for count in counts.values())


def test_moves_between_copies_are_counted():
    rng = np.random.default_rng(5)
    [group] = architecture = diagnostics.mlp_symmetries(layers(2), "tanh")
    base = network(rng, [5, 5, 2])
    orders = [[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [1, 0, 2, 3, 4], [2, 1, 0, 3, 4], [2, 1, 0, 4, 3], [0, 1, 2, 3, 4]]
    signs = np.ones((1, 6, 5), np.int8)
    signs[0, 4:, :3] = -1
    draws = {name: np.broadcast_to(array, (1, 6, *array.shape)) for name, array in base.items()}
    result = diagnostics.align(copy_units(draws, group, np.array([orders]), signs[:, :, None]), architecture, base)
    # Relative to the previous draw: none; (0 1); none; a cycle of three; (3 4); (0 2) and (3 4).
    assert result.transpositions["layer_0"].tolist() == [[0, 1, 0, 2, 1, 2]]
    assert result.flips["layer_0"].tolist() == [[0, 0, 0, 0, 3, 0]]


def test_chains_in_other_copies_agree_once_they_are_aligned():
    rng = np.random.default_rng(6)
    architecture = diagnostics.mlp_symmetries(layers(3), "tanh")
    draws = noisy(rng, network(rng, [20, 8, 8, 3]), (4, 250), 0.05)
    planted, _ = random_copies(rng, draws, architecture, (4, 1))  # a chain stays in its copy
    table = diagnostics.aligned_summary(make_tree(attrs=ATTRS, posterior=planted), architecture).sel(layer=diagnostics.TOTAL)
    raw, aligned = table.sel(alignment="raw"), table.sel(alignment="aligned")
    assert raw["rhat_median"] > 1.5
    assert aligned["rhat_median"] < 1.02
    assert (aligned["share"] <= aligned["share_largest"]).all()
    assert not (raw["share"] <= raw["share_largest"]).any()
    # What remains between chains is noise: about 3 * 0.05**2 / 250 a weight, against weights of variance 1 / 20 or more.
    assert table["removed_lower"] > 0.99
    assert table["removed_by_chance"] < 0.7


@pytest.mark.parametrize(("widths", "activation"), [([20, 8, 8, 3], "tanh"), ([20, 8, 8, 3], "relu"), ([64, 30, 3], "tanh")])
def test_chains_in_unrelated_minima_still_disagree_once_they_are_aligned(widths, activation):
    rng = np.random.default_rng(7)
    architecture = diagnostics.mlp_symmetries(layers(len(widths) - 1), activation)
    minima = [noisy(rng, network(rng, widths), (1, 250), 0.05) for _ in range(4)]
    draws = {name: np.concatenate([minimum[name] for minimum in minima]) for name in minima[0]}
    table = diagnostics.aligned_summary(make_tree(attrs=ATTRS, posterior=draws), architecture).sel(layer=diagnostics.TOTAL)
    aligned = table.sel(alignment="aligned")
    assert aligned["rhat_median"] > 1.5
    assert not (aligned["share"] <= aligned["share_largest"]).any()
    # Any two networks come nearer, these no more than by chance. Over seeds and networks like these both shares have a standard
    # deviation of at most 0.05, so that their difference has one of at most 0.07.
    assert abs(table["removed"] - table["removed_by_chance"]) < 3 * 0.07
    assert table["removed"] < 0.7


def test_a_summary_at_hand_saves_its_half_and_moves_are_counted():
    rng = np.random.default_rng(9)
    architecture = diagnostics.mlp_symmetries(layers(2), "tanh")
    draws, _ = random_copies(rng, noisy(rng, network(rng, [5, 6, 3]), (2, 30), 0.05), architecture, (2, 30))
    tree = make_tree(attrs=ATTRS, posterior=draws)
    alone = diagnostics.aligned_summary(tree, architecture)
    helped = diagnostics.aligned_summary(tree, architecture, summary=diagnostics.summarise(tree))
    xr.testing.assert_identical(alone, helped)
    aligned = diagnostics.align(tree, architecture)
    for name in ("transpositions", "flips"):
        mean = getattr(aligned, name)["layer_0"][:, 1:].mean()
        assert float(alone[name].sel(group="layer_0")) == pytest.approx(mean)
        assert mean > 1  # each draw is in a copy of its own


def test_the_removed_share_is_that_of_the_variance_between_chain_means():
    rng = np.random.default_rng(8)
    architecture = diagnostics.mlp_symmetries(layers(2), "tanh")
    draws, _ = random_copies(rng, noisy(rng, network(rng, [5, 6, 3]), (4, 20), 0.4), architecture, (4, 1))
    aligned = diagnostics.align(draws, architecture).weights
    for num_chains in (1, 3, 4):
        some = make_tree(attrs=ATTRS, posterior={name: array[:num_chains] for name, array in draws.items()})
        table = diagnostics.aligned_summary(some, architecture)
        removed = table["removed"].sel(layer=diagnostics.TOTAL)
        assert np.isnan(table["removed_lower"]).all() == (num_chains < 4)
        assert np.isnan(removed) == (num_chains == 1)
    between = [
        sum(array.mean(1).var(0, ddof=1).sum() for name, array in weights.items() if name.startswith("layer_0"))
        for weights in (draws, aligned)
    ]
    row = table.sel(layer="layer_0")
    assert float(row["removed"]) == pytest.approx(1 - between[1] / between[0], rel=1e-12)
    assert row["removed_lower"] < row["removed"] < row["removed_upper"]


@pytest.mark.parametrize(("num_chains", "narrow"), [(4, 0.88), (8, 0.91)])
def test_intervals_of_the_removed_share_hold_it(num_chains, narrow):
    """Chain means of 40 weights of known variances, raw and aligned, in 400 repeats; without Student's allowance fewer hold."""
    rng, shrunk = np.random.default_rng(17), 0.2
    held = held_without = 0
    for _ in range(400):
        means = rng.normal(size=(2, num_chains, 1, 40)) * 0.8 ** np.arange(40) * np.array([1, shrunk])[:, None, None, None]
        raw, aligned = (xr.Dataset({"layer_0.kernel": (("chain", "draw", "weight"), one)}) for one in means)
        value, lower, upper = (part[-1] for part in _removed_share(raw, aligned, ["layer_0", diagnostics.TOTAL], rng))
        held += lower <= 1 - shrunk**2 <= upper
        ends = value + (np.array([lower, upper]) - value) / few_systems_factor(num_chains)
        held_without += ends[0] <= 1 - shrunk**2 <= ends[1]
    # Three binomial standard errors of 1.1 % below 95 %, and of 1.6 % above what was measured without.
    assert held / 400 > 0.95 - 3 * 0.011
    assert held_without / 400 < narrow + 3 * 0.016 < 0.96


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("widths", "activation"), CASES)
def test_all_copies_have_one_canonical_form(widths, activation, dtype):
    rng = np.random.default_rng(9)
    architecture = diagnostics.mlp_symmetries(layers(len(widths) - 1), activation)
    draws = {name: array.astype(dtype) for name, array in noisy(rng, network(rng, widths), (2, 30), 1.0).items()}
    copies, _ = random_copies(rng, draws, architecture, (2, 30))
    forms = [diagnostics.canonical(weights, architecture) for weights in (draws, copies)]
    again = diagnostics.canonical(forms[0], architecture)
    for name, array in forms[0].items():
        assert array.dtype == dtype
        np.testing.assert_array_equal(forms[1][name], array)
        np.testing.assert_array_equal(again[name], array)
    if activation == "tanh":
        assert (forms[0]["layer_0.bias"] >= 0).all()
    exact, form = (forward({name: array.astype(float) for name, array in one.items()}, activation) for one in (draws, forms[0]))
    assert relative(form - exact, exact) < ROUNDING


def test_ties_and_zero_biases_have_one_canonical_form():
    rng = np.random.default_rng(10)
    architecture = diagnostics.mlp_symmetries(layers(3), "tanh")
    shapes = {name: array.shape for name, array in network(rng, [5, 6, 4, 2]).items()}
    draws = {name: rng.choice([-1.0, 1.0], (2, 50, *shape)) for name, shape in shapes.items()}  # all norms tie
    draws["layer_0.bias"][:] = 0
    for index in range(6):  # units that are fed the same are beyond what the form promises
        draws["layer_0.kernel"][..., 0, index] *= 1 + index
    draws["layer_1.bias"] *= 1 + np.arange(4)
    copies, _ = random_copies(rng, draws, architecture, (2, 50))
    forms = [diagnostics.canonical(weights, architecture) for weights in (draws, copies)]
    for name, array in forms[0].items():
        np.testing.assert_array_equal(forms[1][name], array)


def check(architecture, weights, activation="tanh", log_prior=log_normal, **settings):
    table = diagnostics.check_symmetries(architecture, weights, lambda w: forward(w, activation), log_prior, **settings)
    return {
        name: (bool(table["keeps_outputs"].values[i]), bool(table["keeps_log_prior"].values[i]))
        for i, name in enumerate(table["transformation"].values)
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_declared_symmetries_are_told_from_directions_of_the_likelihood(dtype):
    weights = {name: array.astype(dtype) for name, array in network(np.random.default_rng(11), [5, 8, 7, 3]).items()}
    odd = diagnostics.mlp_symmetries(layers(3), "tanh")
    kinds = ("permutation", "sign flip")
    assert check(odd, weights) == {f"layer_{i}: {kind}": (True, True) for i in (0, 1) for kind in kinds}
    # ReLU is not odd, and rescaling its units is seen by the prior.
    assert check(odd, weights, "relu")["layer_1: sign flip"] == (False, True)
    table = check(diagnostics.mlp_symmetries(layers(3), "relu"), weights, "relu")
    assert table["layer_0: permutation"] == (True, True)
    assert table["layer_0: rescaling"] == table["layer_1: rescaling"] == (True, False)


def test_what_is_not_a_symmetry_is_caught():
    weights = network(np.random.default_rng(12), [5, 8, 3])
    [group] = architecture = diagnostics.mlp_symmetries(layers(2), "tanh")
    kernels = (("layer_0.kernel", 1),), group.outgoing
    no_bias = (group._replace(incoming=kernels[0], flips=(kernels[0] + kernels[1],)),)
    assert check(no_bias, weights) == {"layer_0: permutation": (False, True), "layer_0: sign flip": (False, True)}

    def scales_by_unit(w):
        return log_normal(w | {"layer_0.bias": w["layer_0.bias"] / (1 + np.arange(8))})

    def off_centre(w):
        return log_normal(w | {"layer_0.bias": w["layer_0.bias"] - 1})

    kept = check(architecture, weights, log_prior=scales_by_unit)
    assert kept == {"layer_0: permutation": (True, False), "layer_0: sign flip": (True, True)}
    kept = check(architecture, weights, log_prior=off_centre)
    assert kept == {"layer_0: permutation": (True, True), "layer_0: sign flip": (True, False)}
    assert check(architecture, weights, log_prior=lambda w: np.nan)["layer_0: permutation"] == (True, False)


def test_other_transformations_are_checked_too():
    weights = network(np.random.default_rng(13), [5, 8, 3])

    def shift(w, rng):
        return w | {"layer_1.bias": w["layer_1.bias"] + rng.normal()}

    def probabilities(w):
        return np.exp(forward(w)) / np.exp(forward(w)).sum(-1, keepdims=True)

    architecture = diagnostics.mlp_symmetries(layers(2), "tanh")
    table = diagnostics.check_symmetries(architecture, weights, probabilities, log_normal, others={"shift of logits": shift})
    row = table.sel(transformation="shift of logits")
    assert row["keeps_outputs"]
    assert not row["keeps_log_prior"]


def residual(weights):
    """A stream of 6 units that a block of 4 hidden units writes to."""
    stream = X @ weights["embed"]
    stream = stream + np.tanh(stream @ weights["block.in"] + weights["block.bias"][..., None, :]) @ weights["block.out"]
    return stream @ weights["head"]


def convolution(weights):
    """Two convolutions of width 2 over 5 places, three and four channels, and a mean over places."""
    hidden = X[..., None]  # (point, place, channel)
    for layer in ("conv_0", "conv_1"):
        kernel = weights[f"{layer}.kernel"]
        hidden = np.tanh(hidden[:, :-1] @ kernel[0] + hidden[:, 1:] @ kernel[1] + weights[f"{layer}.bias"])
    return hidden.mean(1) @ weights["head"]


def odd(name, incoming, outgoing):
    return diagnostics.hidden_layer(name, incoming, outgoing, "tanh")


STREAM = odd("stream", (("embed", 1), ("block.out", 1)), (("block.in", 0), ("head", 0)))
BLOCK = odd("block", (("block.bias", 0), ("block.in", 1)), (("block.out", 0),))
CONV = [
    odd("conv_0", (("conv_0.bias", 0), ("conv_0.kernel", 2)), (("conv_1.kernel", 1),)),
    odd("conv_1", (("conv_1.bias", 0), ("conv_1.kernel", 2)), (("head", 0),)),
]
SHAPES = {
    residual: {"embed": (5, 6), "block.in": (6, 4), "block.bias": (4,), "block.out": (4, 6), "head": (6, 3)},
    convolution: {
        "conv_0.kernel": (2, 1, 3),
        "conv_0.bias": (3,),
        "conv_1.kernel": (2, 3, 4),
        "conv_1.bias": (4,),
        "head": (4, 3),
    },
}


@pytest.mark.parametrize(("outputs", "architecture"), [(residual, (STREAM, BLOCK)), (convolution, tuple(CONV))])
def test_residual_and_convolutional_networks_by_hand(outputs, architecture):
    rng = np.random.default_rng(14)
    base = {name: rng.normal(size=shape) for name, shape in SHAPES[outputs].items()}
    table = diagnostics.check_symmetries(architecture, base, outputs, log_normal)
    assert (table["keeps_outputs"] & table["keeps_log_prior"]).all()
    original = noisy(rng, base, (2, 20), 0.03)
    planted, _ = random_copies(rng, original, architecture, (2, 20))
    aligned = diagnostics.align(planted, architecture, base).weights
    forms = [diagnostics.canonical(weights, architecture) for weights in (original, planted)]
    for name, array in original.items():
        np.testing.assert_array_equal(aligned[name], array)
        np.testing.assert_array_equal(forms[0][name], forms[1][name])


def test_wrong_use_is_explained():
    rng = np.random.default_rng(15)
    architecture = diagnostics.mlp_symmetries(layers(2), "tanh")
    draws = noisy(rng, network(rng, [5, 6, 3]), (2, 5), 0.1)
    with pytest.raises(ValueError, match="did you mean tanh"):
        diagnostics.mlp_symmetries(layers(2), "tanhh")
    with pytest.raises(ValueError, match="two or more layers"):
        diagnostics.mlp_symmetries(["layer_0"], "tanh")
    with pytest.raises(ValueError, match=r"layer_00\.bias, which is not there; did you mean layer_0\.bias"):
        diagnostics.align(draws, diagnostics.mlp_symmetries(["layer_00", "layer_1"], "tanh"))
    with pytest.raises(ValueError, match=r"layer_0\.kernel has 5, layer_1\.kernel has 6"):
        diagnostics.canonical(draws, (diagnostics.UnitGroup("h", (("layer_0.kernel", 0),), (("layer_1.kernel", 0),)),))
    with pytest.raises(ValueError, match=r"axis 1 of layer_0\.bias, which has shape \(6,\)"):
        diagnostics.align(draws, (diagnostics.UnitGroup("h", (("layer_0.bias", 1),), ()),))
    with pytest.raises(ValueError, match=r"axis 0 of layer_0\.kernel has 5, axis 1 of layer_0\.kernel has 6"):
        diagnostics.align(draws, (diagnostics.UnitGroup("h", (("layer_0.kernel", 0),), (("layer_0.kernel", 1),)),))
    with pytest.raises(ValueError, match="no groups"):
        diagnostics.align(draws, ())
    with pytest.raises(ValueError, match="each name belongs to one group of units, got 'layer_0' twice"):
        diagnostics.align(draws, architecture * 2)
    with pytest.raises(ValueError, match=r"each array axis belongs to one group of units, got \('layer_0\.bias', 0\) twice"):
        diagnostics.align(draws, (*architecture, architecture[0]._replace(name="other")))
    with pytest.raises(ValueError, match=r"lacks layer_0\.bias"):
        diagnostics.align(draws, architecture, {name: array[0, 0] for name, array in draws.items() if "bias" not in name})
    with pytest.raises(ValueError, match=r"needs finite layer_0\.bias of shape \(6,\), got \(5, 6\)"):
        diagnostics.align(draws, architecture, {name: array[0] for name, array in draws.items()})
    with pytest.raises(ValueError, match="same chains and draws"):
        diagnostics.align({"a": np.zeros((2, 5, 3)), "b": np.zeros((2, 4, 3))}, architecture)
    draws["layer_0.kernel"][1, 3, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"chains \[1\] are not all finite"):
        diagnostics.align(draws, architecture)


def test_a_network_of_3760_weights_aligns_fast():
    rng = np.random.default_rng(16)
    architecture = diagnostics.mlp_symmetries(layers(2), "tanh")
    draws = {name: array.astype(np.float32) for name, array in noisy(rng, network(rng, [64, 50, 10]), (4, 500), 0.1).items()}
    draws, _ = random_copies(rng, draws, architecture, (4, 500))
    began = time.process_time()
    diagnostics.align(draws, architecture)
    assert time.process_time() - began < 30  # measured: 0.6 s
