"""The types of the package: a density to sample, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

type Position = PyTree[Float[Array, "..."]]
type Draw = Callable[[Key[Array, ""], int], Position]

NUM_PROPOSALS = 2**14  # of prior draws tested at a time
ROUNDING = 1e-4  # by which float32 may leave a total of 0 positive
MAX_PROPOSALS = 2**25  # half a minute's worth; who needs more had better draw in another way


class Regions(NamedTuple):
    """A partition of parameter space, and what is known of each part.

    Attributes:
        names: One a region.
        classify: (position) -> index into `names`; traces under `jit` and `vmap`.
        log_evidence: Log of the integral of prior x likelihood over each region, nats; minus infinity for an empty one, NaN for
            one whose integral is not known.
        standard_error: Of `masses`; 0 where they are exact, NaN where they are not known.
        excess_loss: `Oracle.excess_loss` of the posterior restricted to each region; None if it is not known.
        llc: Learning coefficient of each region; None or NaN if it is not known.
        multiplicity: Of each region; None or 0 if it is not known.
    """

    names: tuple[str, ...]
    classify: Callable[[Position], Int[Array, ""]]
    log_evidence: Float[np.ndarray, " region"]
    standard_error: Float[np.ndarray, " region"]
    excess_loss: Float[np.ndarray, " region"] | None = None
    llc: Float[np.ndarray, " region"] | None = None
    multiplicity: Int[np.ndarray, " region"] | None = None

    @property
    def masses(self) -> Float[np.ndarray, " region"]:
        """Posterior probabilities, which add up to 1; NaN if the integral over any region is not known."""
        relative = np.exp(self.log_evidence - self.log_evidence.max())
        return relative / relative.sum()


@dataclass(frozen=True, eq=False)
class Oracle:
    """A posterior and its known answers; None stands for an answer that is not known.

    Plain functions over JAX arrays, for a sampler of any library. `samplers.Target` takes them as
    `Target(lambda w, _: oracle.log_prior(w), lambda w, data, _: oracle.log_likelihood(w, data), num_data)` with `oracle.data`.

    Attributes:
        log_prior: (position) -> log prior density, normalised, nats; minus infinity outside of its support.
        log_likelihood: (position, data) -> log likelihood of each example, [n], nats. A potential K that stands for n examples
            is a single one, of log likelihood -n K.
        data: Pytree of arrays with a leading axis of examples.
        draw_prior: (key, n) -> n independent draws of the prior, with a leading axis.
        exactness: How exact the answers are, and what they rest on.
        draw: (key, n) -> n independent draws of the posterior, with a leading axis.
        mean: [d] posterior mean, in the order of `ravel_pytree`.
        covariance: [d, d] posterior covariance.
        log_evidence: Log of the integral of prior x likelihood, nats.
        reference: Position to which `excess_loss` refers: the truth, or the posterior mean.
        excess_loss: Posterior mean of log likelihood at `reference` minus log likelihood, nats: n (E L - L(reference)), the
            quantity that tends to `llc`.
        llc: Learning coefficient, the lambda in free energy = n L + lambda log n - (multiplicity - 1) log log n + O(1).
        multiplicity: Its multiplicity.
        regions: A partition whose parts are known too.
    """

    log_prior: Callable[[Position], Float[Array, ""]]
    log_likelihood: Callable[[Position, PyTree], Float[Array, " n"]]
    data: PyTree
    draw_prior: Draw
    exactness: str
    draw: Draw | None = None
    mean: Float[np.ndarray, " d"] | None = None
    covariance: Float[np.ndarray, "d d"] | None = None
    log_evidence: float | None = None
    reference: Position | None = None
    excess_loss: float | None = None
    llc: float | None = None
    multiplicity: int | None = None
    regions: Regions | None = None

    def log_density(self, position: Position) -> Float[Array, ""]:
        """Return the log of prior x likelihood of all data, nats: the posterior without its constant."""
        return self.log_prior(position) + jnp.sum(self.log_likelihood(position, self.data))


def rejection_sampler(draw_prior: Draw, log_likelihood: Callable[[Position, PyTree], Float[Array, " n"]], data: PyTree) -> Draw:
    """Return a function that draws from a posterior by rejection: prior draws, each kept with a probability of its likelihood.

    Args:
        draw_prior: As in `Oracle`.
        log_likelihood: As in `Oracle`; its total must nowhere be positive.
        data: As in `Oracle`.

    Returns:
        (key, n) -> n independent draws. It raises a ValueError where the total is positive, and a RuntimeError if next to no
        proposal is accepted.
    """

    @jax.jit
    def propose(key: Key[Array, ""]) -> tuple[Position, Bool[Array, " draw"], Float[Array, ""]]:
        key_position, key_accept = jax.random.split(key)
        positions = draw_prior(key_position, NUM_PROPOSALS)
        total = jax.vmap(lambda position: jnp.sum(log_likelihood(position, data)))(positions)
        return positions, -jax.random.exponential(key_accept, (NUM_PROPOSALS,)) <= total, jnp.max(total)

    def draw(key: Key[Array, ""], num_draws: int) -> Position:
        accepted: list[Position] = []
        found = 0
        for attempt in range(MAX_PROPOSALS // NUM_PROPOSALS):
            positions, keep, highest = jax.device_get(propose(jax.random.fold_in(key, attempt)))
            if highest > ROUNDING:
                raise ValueError(f"rejection needs a total log likelihood of at most 0, got {highest}; subtract its maximum")
            accepted.append(jax.tree.map(lambda leaf, keep=keep: leaf[keep], positions))
            found += int(keep.sum())
            if found >= num_draws:
                return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:num_draws], *accepted)
        raise RuntimeError(
            f"of {MAX_PROPOSALS} prior draws {found} were accepted, {num_draws} are wanted: the likelihood is too narrow for "
            "rejection; ask for fewer draws or fewer data"
        )

    return draw


def box(half_widths: Float[np.ndarray, " d"], centre: float = 0.0) -> tuple[Callable[[Position], Float[Array, ""]], Draw]:
    """Return log density and draws of the uniform distribution on a box around a centre.

    Args:
        half_widths: Of the sides; > 0.
        centre: Of every side.
    """
    log_volume = float(np.log(2 * half_widths).sum())

    def log_prior(position: Position) -> Float[Array, ""]:
        return jnp.where(jnp.all(jnp.abs(position - centre) <= half_widths), -log_volume, -jnp.inf)

    def draw_prior(key: Key[Array, ""], num_draws: int) -> Position:
        return centre + half_widths * jax.random.uniform(key, (num_draws, len(half_widths)), minval=-1.0)

    return log_prior, draw_prior


def check_positive(**values: float) -> None:
    """Check that numbers are positive and finite.

    Raises:
        ValueError: One is not.
    """
    for name, value in values.items():
        if not 0 < value < np.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
