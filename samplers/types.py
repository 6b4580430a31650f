"""The nouns of the package: a target to sample, kernels that move chains, and what a run is made of.

A *kernel* moves one chain; a *sampler* moves an ensemble, its state carrying a leading chain axis: a method in which chains learn
from each other. Both are pairs of pure functions, and `sample` takes either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from samplers.chains import Chains

type Position = PyTree[Float[Array, "..."]]
type State = PyTree
type Tuning = PyTree


class Batch(NamedTuple):
    """All arrays that a density needs: arguments of the compiled program, never closed over.

    Attributes:
        data: Pytree of arrays with a leading axis of n examples.
        weight: [n]; 1 for a real example, 0 for padding. Pad with copies of real rows, so that no row is ever invalid.
        constants: Arrays without an axis of examples (centres, masks, hyper-parameters).
    """

    data: PyTree
    weight: Float[Array, " n"]
    constants: PyTree = ()


class Target(NamedTuple):
    """The distribution to sample, prior and likelihood apart.

    Functions and integers only, hence hashable; all arrays are in `Batch`. Apart, because minibatch scaling,
    tempering, evidence and learning coefficients each need one of them alone.

    Attributes:
        log_prior: (position, constants) -> log prior density, scalar, nats.
        log_likelihood: (position, data, constants) -> log likelihood of each example, [n], nats; never summed here.
        num_data: n, the number of real examples (0 for a density without data).
        microbatch: Examples whose gradient is computed at a time; bounds the memory of a full-batch gradient. None: a block.
        data_blocks: Number of blocks, a power of two, into which the data are cut; their sums are added in a fixed binary
            tree, so that the result has the same bits on every mesh whose `data` axis divides it.
    """

    log_prior: Callable[[Position, PyTree], Float[Array, ""]]
    log_likelihood: Callable[[Position, PyTree, PyTree], Float[Array, " n"]]
    num_data: int
    microbatch: int | None = None
    data_blocks: int = 1


class Tempering(NamedTuple):
    """One definition of temperature for all samplers.

    log density = (log prior + log likelihood / likelihood_temperature) / temperature

    Attributes:
        temperature: Of (likelihood x prior)^(1/temperature); 1 is the posterior, below 1 a cold posterior.
        likelihood_temperature: Tempers the likelihood alone; infinity samples the prior.
    """

    temperature: Float[Array, ""]
    likelihood_temperature: Float[Array, ""]

    @classmethod
    def at(cls, temperature: float = 1.0, likelihood_temperature: float = 1.0) -> Tempering:
        """Return the tempering at these temperatures, checked to be positive."""
        for name, value in (("temperature", temperature), ("likelihood_temperature", likelihood_temperature)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}; 1 is the posterior itself")
        return cls(jnp.float32(temperature), jnp.float32(likelihood_temperature))

    def combine(self, prior: Array, likelihood: Array) -> Array:
        """Return the tempered log density of its two terms, or its gradient of theirs.

        By products with the inverse temperatures: where each chain of a block has its own, XLA makes a division into such a
        product in a program for one device and not in one for several.
        """
        dtype = jnp.result_type(prior)
        inverse, of_likelihood = 1 / self.temperature.astype(dtype), 1 / self.likelihood_temperature.astype(dtype)
        return inverse * (prior + of_likelihood * likelihood)


class Info(NamedTuple):
    """What one step reports; scalars only, so that it costs nothing to keep. A field that does not apply is NaN.

    Attributes:
        num_gradients: Cost in full-data gradients: 1 a leapfrog step, batch_size / num_data a minibatch step.
        acceptance_rate: Metropolis acceptance probability (NUTS: its average over the trajectory; delayed rejection: that of the
            first trajectory).
        energy: Hamiltonian after the step, nats, in units of the tempered density.
        energy_error: Proposed minus initial Hamiltonian, nats (delayed rejection: of the first trajectory).
        kinetic_temperature: p . M^-1 p / d of the momentum with which the step ends; 1 in expectation for an exact kernel.
        is_divergent: The energy error passed the divergence threshold, or the step produced a non-finite proposal (delayed
            rejection: of the second trajectory, where there was one).
        is_finite: The state after the step is finite.
    """

    num_gradients: Float[Array, ""]
    acceptance_rate: Float[Array, ""]
    energy: Float[Array, ""]
    energy_error: Float[Array, ""]
    kinetic_temperature: Float[Array, ""]
    is_divergent: Bool[Array, ""]
    is_finite: Bool[Array, ""]


class Proposal(NamedTuple):
    """The end of a trajectory, whether it was accepted or not.

    Attributes:
        position: [d] in the order of `ravel_pytree`.
        momentum: [d] there, in the direction of travel.
        time: Integration time that led there.
    """

    position: Float[Array, " d"]
    momentum: Float[Array, " d"]
    time: Float[Array, ""]


class Kernel(NamedTuple):
    """A Markov kernel, stochastic-gradient kernel or optimiser that moves one chain.

    Attributes:
        init: (key, position, batch, tuning) -> State. A State has `.position`; it may cache densities, which belong to the tuning
            and the batch that made them: whatever changes the density calls `init` again.
        step: (key, state, batch, tuning, step) -> (State, Info). `step` counts from 0 over the whole run.
        initial_tuning: NamedTuple of arrays (step size, metric, temperature ...); an argument of the compiled program, so that a
            changed value recompiles nothing.
        propose: Like `step`, with the end of the trajectory as a third result, for a warm-up that learns from trajectories; None
            for a kernel that has none.
    """

    init: Callable[[Key[Array, ""], Position, Batch, Tuning], State]
    step: Callable[[Key[Array, ""], State, Batch, Tuning, Int[Array, ""]], tuple[State, Info]]
    initial_tuning: Tuning
    propose: Callable[[Key[Array, ""], State, Batch, Tuning, Int[Array, ""]], tuple[State, Info, Proposal]] | None = None


class Sampler(NamedTuple):
    """Like `Kernel`, for all chains at once: keys, State and Info have a leading chain axis, of the chains on one device.

    Its functions get `Chains` first, by which chains are mapped over, and hear of those on other devices.
    """

    init: Callable[[Chains, Key[Array, " chain"], Position, Batch, Tuning], State]
    step: Callable[[Chains, Key[Array, " chain"], State, Batch, Tuning, Int[Array, ""]], tuple[State, Info]]
    initial_tuning: Tuning


class PerChain(NamedTuple):
    """A tuning whose every leaf has a leading chain axis: each chain has its own."""

    tuning: Tuning


class Health(NamedTuple):
    """Counts kept for each chain while it runs. A dead chain never enters an average silently.

    Attributes:
        num_divergent: Divergent steps.
        num_nonfinite: Steps that left a non-finite state.
        first_divergent: Step of the first divergence, -1 if none.
        first_nonfinite: Step of the first non-finite state, -1 if none.
    """

    num_divergent: Int[Array, " chain"]
    num_nonfinite: Int[Array, " chain"]
    first_divergent: Int[Array, " chain"]
    first_nonfinite: Int[Array, " chain"]

    @classmethod
    def zeros(cls, num_chains: int) -> Health:
        """Return the health of chains that have not moved yet."""
        zero, never = jnp.zeros(num_chains, jnp.int32), jnp.full(num_chains, -1, jnp.int32)
        return cls(zero, zero, never, never)

    def update(self, info: Info, step: Int[Array, ""]) -> Health:
        """Count one step."""

        def first(previous: Array, happened: Array) -> Array:
            return jnp.where((previous < 0) & happened, step.astype(jnp.int32), previous)

        return Health(
            self.num_divergent + info.is_divergent,
            self.num_nonfinite + ~info.is_finite,
            first(self.first_divergent, info.is_divergent),
            first(self.first_nonfinite, ~info.is_finite),
        )


class Fold(NamedTuple):
    """A streaming summary, carried through the loop so that draws need not be kept.

    Attributes:
        init: (position, arrays) -> carry of one chain.
        update: (carry, state, info, arrays) -> carry, once a step.
        arrays: Arrays that `update` needs (test inputs, say), see `Save`.
    """

    init: Callable[[Position, PyTree], PyTree]
    update: Callable[[PyTree, State, Info, PyTree], PyTree]
    arrays: PyTree = ()


class Save(NamedTuple):
    """What to keep of a draw: a function of one chain's state and of arrays (test inputs, say).

    A `Batch` among the arrays is shared out over devices like the data of the run, and densities on it are summed over them; all
    else is whole on every device.
    """

    function: Callable[[State, PyTree], PyTree]
    arrays: PyTree = ()


class Run(NamedTuple):
    """Everything that a checkpoint holds.

    Attributes:
        key: Key of the run. The key of a step is fold_in(fold_in(key, chain), step); that of `init` has 2^32 - 1 for a step.
        chain: [chain] global index of each chain.
        phase: 0 for the first call of `sample`, 1 for the one after (warm-up, then sampling).
        step: Steps taken since the start; never restarts.
        state: State of the sampler.
        tuning: Its tuning.
        fold: Carry of the fold, or ().
        health: Counts by chain.
    """

    key: Key[Array, ""]
    chain: Int[Array, " chain"]
    phase: Int[Array, ""]
    step: Int[Array, ""]
    state: State
    tuning: Tuning
    fold: PyTree
    health: Health


class Result(NamedTuple):
    """What `sample` returns.

    Attributes:
        draws: What `save` kept, every leaf [chain, draw, ...] (NumPy, host memory); None when `on_chunk` took them.
        info: Info of each draw, [chain, draw]: of the `thin` steps that led to it the sum of gradients, mean acceptance and
            kinetic temperature, the last energy, the largest energy error, and whether any diverged; None likewise.
        run: State at the end, from which `sample(run=...)` continues bit for bit.
        is_complete: False when `until` ended the run early.
    """

    draws: Any
    info: Info | None
    run: Run
    is_complete: bool


def num_params(position: Position) -> int:
    """Return d, the number of scalars in a position (of one chain)."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(position))
