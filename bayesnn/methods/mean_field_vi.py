"""Mean-field variational inference: the Gaussian with independent weights that is nearest to the posterior."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from blackjax.vi import meanfield_vi
from jaxtyping import Array, Float, Int, Key

from bayesnn.methods.approximation import Approximation, FitState, approximation, training_info
from samplers import Batch, Info, Kernel, Target, Tempering, log_density, minibatch
from samplers.types import Position


class VariationalTuning(NamedTuple):
    """What may change without recompiling.

    Attributes:
        initial_scale: Standard deviation of every weight at the start.
        tempering: Temperatures of the target.
    """

    initial_scale: Float[Array, ""]
    tempering: Tempering


class MeanFieldTuning(NamedTuple):
    """The fitted Gaussian: means and logarithms of standard deviations, each shaped as a position."""

    mean: Position
    log_scale: Position


class VariationalState(NamedTuple):
    """State of the fit: means, logarithms of standard deviations, and the optimiser's state, as BlackJAX keeps them."""

    fit: meanfield_vi.MFVIState

    @property
    def position(self) -> Position:
        """The means."""
        return self.fit.mu


def mean_field_vi(
    target: Target,
    transformation: optax.GradientTransformation,
    like: Position,
    *,
    num_samples: int = 1,
    initial_scale: float = 0.05,
    batch_size: int | None = None,
    tempering: Tempering | None = None,
) -> Approximation:
    r"""Maximise the evidence lower bound over independent Gaussians, by reparametrised gradients.

    .. math:: \mathrm{ELBO} = \mathbb E_q[\log p(D, \theta)] + H(q), \quad \theta = \mu + \sigma z

    A baseline: it finds one mode, and where weights are correlated its spread is too small (of a Gaussian with precision matrix
    P the optimum has variances :math:`1 / P_{ii}`). The gradient is BlackJAX's `meanfield_vi`, without the score term
    ("sticking the landing"), so that it has no noise at the optimum of a Gaussian with independent weights.

    Args:
        target: The distribution.
        transformation: Such as `optax.adam(1e-2)`; the loss is the negative ELBO itself, not divided by the examples.
        like: Shapes and types of a position.
        num_samples: Draws of q for each gradient, each on the same minibatch.
        initial_scale: Standard deviation of every weight at the start; means start at the position.
        batch_size: Examples in a minibatch, without replacement by epoch; None takes all data at every step.
        tempering: Temperatures; default the posterior itself.

    Raises:
        ValueError: A setting outside its range.

    References:
        Blundell et al. 2015, arXiv 1505.05424; Roeder et al. 2017, arXiv 1703.09194 (the gradient).
    """
    if num_samples < 1:
        raise ValueError(f"a gradient needs at least one sample, got num_samples={num_samples}")
    if not 0 < initial_scale < math.inf:
        raise ValueError(f"initial_scale must be positive and finite, got {initial_scale}")
    tuning = VariationalTuning(jnp.float32(initial_scale), Tempering.at() if tempering is None else tempering)
    trainer = Kernel(*_functions(target, transformation, num_samples), tuning)
    if batch_size is not None:
        trainer = minibatch(trainer, target.num_data, batch_size)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    tuning_of = _of_whole_data if batch_size is None else _of_minibatches
    return approximation(trainer, tuning_of, _draw, MeanFieldTuning(zeros, zeros))


@functools.lru_cache(maxsize=64)  # the same functions for the same target, so that nothing recompiles
def _functions(target: Target, transformation: optax.GradientTransformation, num_samples: int) -> tuple[Any, Any]:
    def init(key: Key[Array, ""], position: Position, batch: Batch, tuning: VariationalTuning) -> VariationalState:
        log_scale = jax.tree.map(lambda x: jnp.full_like(x, jnp.log(tuning.initial_scale)), position)
        return VariationalState(meanfield_vi.MFVIState(position, log_scale, transformation.init((position, log_scale))))

    def step(
        key: Key[Array, ""], state: VariationalState, batch: Batch, tuning: VariationalTuning, step: Int[Array, ""]
    ) -> tuple[VariationalState, Info]:
        density = log_density(target, batch, tuning.tempering)
        fit, _ = meanfield_vi.step(key, state.fit, density, transformation, num_samples)
        return VariationalState(fit), training_info((fit.mu, fit.rho), num_samples)

    return init, step


def _of_whole_data(state: FitState, tuning: VariationalTuning) -> MeanFieldTuning:
    return MeanFieldTuning(state.trainer.fit.mu, state.trainer.fit.rho)


def _of_minibatches(state: FitState, tuning: VariationalTuning) -> MeanFieldTuning:
    return _of_whole_data(state._replace(trainer=state.trainer.inner), tuning)


def _draw(key: Key[Array, ""], position: Position, tuning: MeanFieldTuning) -> Position:
    fitted = meanfield_vi.MFVIState(tuning.mean, tuning.log_scale, None)
    return jax.tree.map(lambda x: x[0], meanfield_vi.sample(key, fitted, 1))
