"""A pytree as one vector: the order of `ravel_pytree`, its derivative, and no loop that joins leaves scalar by scalar.

Normal deviates by blocks: as many as asked for, independent, and the same bits one by one and at once.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from samplers.vectors import BLOCK, normals, ravel, shifted, value_and_gradient

TREE = {"bias": jnp.arange(3.0), "kernel": jnp.arange(3.0, 403.0).reshape(20, 20), "scale": jnp.float32(403.0)}


def density(tree):
    return jnp.sum(tree["bias"] ** 2) + jnp.sum(jnp.sin(tree["kernel"])) + tree["scale"] ** 3


def gradient(join):
    """The gradient of the density with respect to the vector that `join` makes."""
    return lambda tree: jax.grad(lambda vector: density(join(tree)[1](vector)))(join(tree)[0])


def has_fused_concatenation(function):
    """Whether a loop that XLA made of several operations joins arrays."""
    computations = jax.jit(function).lower(TREE).compile().as_text().split("\n\n")
    return any(" concatenate(" in text for text in computations if text.lstrip().startswith("%fused"))


def test_order_and_way_back():
    vector, unravel = ravel(TREE)
    np.testing.assert_array_equal(vector, ravel_pytree(TREE)[0])
    jax.tree.map(np.testing.assert_array_equal, unravel(vector), TREE)


def test_derivative():
    """Every entry is computed by the same operations from the same numbers: equal, not close."""
    np.testing.assert_array_equal(gradient(ravel)(TREE), ravel_pytree(jax.grad(density)(TREE))[0])


def test_shifts_and_gradients_are_those_of_the_vector():
    """Entry by entry the same operations on the same numbers: equal, not close."""
    vector, unravel = ravel_pytree(TREE)
    by = jnp.sin(vector)
    jax.tree.map(np.testing.assert_array_equal, shifted(TREE, by), unravel(vector + by))
    value, slope = value_and_gradient(density, TREE)
    assert value == density(TREE)
    np.testing.assert_array_equal(slope, ravel_pytree(jax.grad(density)(TREE))[0])


def test_under_vmap():
    trees = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), TREE)
    alone = gradient(ravel)(jax.tree.map(lambda x: 2 * x, TREE))
    # Another loop may round a cosine in another way, by a unit in the last place of numbers up to 1.
    np.testing.assert_allclose(jax.vmap(gradient(ravel))(trees)[1], alone, rtol=1e-6, atol=2e-7)


def test_leaves_of_several_types():
    with jax.enable_x64(True):
        tree = {"single": jnp.ones(2, jnp.float32), "double": jnp.ones(3, jnp.float64)}
        vector, unravel = ravel(tree)
        assert vector.dtype == jnp.float64
        back = unravel(vector)
    assert {name: leaf.dtype for name, leaf in back.items()} == {name: leaf.dtype for name, leaf in tree.items()}


def test_leaves_are_joined_by_copies():
    """The control is `ravel_pytree`, whose reshaping XLA draws into the loop."""
    assert has_fused_concatenation(lambda tree: ravel_pytree(tree)[0])
    assert has_fused_concatenation(gradient(ravel_pytree))
    assert not has_fused_concatenation(lambda tree: 2 * ravel(tree)[0])
    assert not has_fused_concatenation(gradient(ravel))


def deviates(num, seed=0, dtype=jnp.float32):
    return jax.jit(lambda key: normals(key, jnp.zeros(num, dtype)))(jax.random.key(seed))


@pytest.mark.parametrize("num", [1, BLOCK, BLOCK + 1, 5 * BLOCK + 3])
def test_normals_have_the_same_bits_on_every_platform(monkeypatch, num):
    one_by_one = deviates(num)
    assert one_by_one.shape == (num,)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *, cpu, default: default())
    np.testing.assert_array_equal(deviates(num), one_by_one)
    if num <= BLOCK:
        np.testing.assert_array_equal(jax.random.normal(jax.random.key(0), (num,)), one_by_one)


def test_normals_of_two_precisions():
    with jax.enable_x64(True):
        assert all(deviates(2 * BLOCK, dtype=dtype).dtype == dtype for dtype in (jnp.float32, jnp.float64))


def test_blocks_are_independent_normal_deviates():
    """A block drawn twice would have a correlation of 1; 5 standard errors of each statistic."""
    blocks = 6
    drawn, other = (np.asarray(deviates(blocks * BLOCK, seed), np.float64) for seed in (0, 1))
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
        assert abs((drawn**power).mean() - moment) < 5 * np.sqrt(variance / drawn.size)
    correlations = np.corrcoef(np.concatenate([drawn.reshape(blocks, -1), other.reshape(blocks, -1)]))
    assert np.abs(correlations - np.eye(2 * blocks)).max() < 5 / np.sqrt(BLOCK)
