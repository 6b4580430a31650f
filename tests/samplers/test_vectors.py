"""A pytree as one vector: the order of `ravel_pytree`, its derivative, and no loop that joins leaves scalar by scalar."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from samplers.vectors import ravel

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
