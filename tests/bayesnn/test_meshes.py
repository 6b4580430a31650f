"""Draws of networks on as many examples as users have: the same bits on every mesh, where sums are long enough to be split."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from bayesnn.build import build_problem
from bayesnn.config import MLP, Data, GaussianNoise, ResNet, RunConfig
from samplers import compiler_options, hmc, make_mesh, mala, mclmc, nuts, sample, sgld
from tests.bayesnn.experiments import SHORT

CHAINS = 4
PROBLEMS = {
    "classes": SHORT.model_copy(update={"data": Data(name="digits"), "model": MLP(widths=(50,))}),
    "targets": SHORT.model_copy(
        update={"data": Data(name="diabetes"), "model": MLP(widths=(20,)), "likelihood": GaussianNoise()}
    ),
    "images": SHORT.model_copy(update={"data": Data(name="digits_images"), "model": ResNet(depth=8, width=2)}),
}
KERNELS = {
    "hmc": lambda target: hmc(target, step_size=1e-3, trajectory_length=5e-3),
    "nuts": lambda target: nuts(target, step_size=1e-3),
    "mala": lambda target: mala(target, step_size=1e-3),
    "mclmc": lambda target: mclmc(target, step_size=0.05, decoherence_length=1.0),
    "sgld": lambda target: sgld(target, step_size=1e-6),
}


def draws(config: RunConfig, kernel: str, devices: int, to_share: int = 1, chains: int = CHAINS):
    problem = build_problem(config)
    mesh = make_mesh(chains, data=to_share, devices=jax.devices()[:devices])
    positions, save = problem.posterior.init(jax.random.key(1), chains), problem.posterior.save(5)
    return sample(
        jax.random.key(0), KERNELS[kernel](problem.target), positions, problem.batch, num_steps=3, mesh=mesh, save=save
    ).draws


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("problem", "kernel"),
    [
        ("classes", "hmc"),
        pytest.param("targets", "hmc", marks=pytest.mark.slow),
        *(pytest.param("classes", kernel, marks=pytest.mark.slow) for kernel in KERNELS if kernel != "hmc"),
        pytest.param("images", "sgld", marks=pytest.mark.slow),  # compiles in half the time of HMC, which has the gradient twice
    ],
)
def test_no_bit_depends_on_the_mesh(problem, kernel):
    """Two devices, and a chain alone on one of them; the chains of one device, too, where that compiles soon."""
    two, alone = draws(PROBLEMS[problem], kernel, 2), draws(PROBLEMS[problem], kernel, 1, chains=1)
    assert_same(alone, jax.tree.map(lambda x: x[:1], two))
    if problem != "images":
        assert_same(draws(PROBLEMS[problem], kernel, 1), two)


def test_no_bit_depends_on_who_shares_the_data():
    config = PROBLEMS["classes"].model_copy(update={"data_blocks": 4})
    one = draws(config, "hmc", 1)
    for layout in ((4, 2), (4, 4)):
        assert_same(draws(config, "hmc", *layout), one)


def test_this_xla_knows_how_sums_are_split():
    """Otherwise the tests above are all that tells whether meshes agree."""
    assert compiler_options()
