"""What one device does with its chains: it starts them, and moves them for a chunk."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PyTree

from samplers.blocks import each_row, over_blocks
from samplers.chains import Chains
from samplers.types import Batch, Info, Kernel, PerChain, Position, Run, Sampler, State, Tuning


def move_together(sampler: Sampler | Kernel) -> bool:
    """Return whether chains move together, as those of a sampler do, or each on its own, as those of a kernel.

    Raises:
        TypeError: It is neither.
    """
    if not isinstance(sampler, Sampler | Kernel):
        raise TypeError(f"expected a sampler or a kernel, got {type(sampler).__name__}; of a warm-up pass its .kernel")
    return isinstance(sampler, Sampler)


def start_chains(init: Callable[..., State], together: bool, chains: Chains) -> Callable[..., State]:
    """Return (keys, positions, batch, tuning) -> states of all chains of a device, from the `init` of a sampler or a kernel."""
    if together:
        return functools.partial(init, chains)

    def on_chains(keys: Key[Array, " chain"], positions: Position, batch: Batch, tuning: Tuning) -> State:
        per_chain, shared = _split(tuning)

        def one(key: Key[Array, ""], position: Position, own: Tuning | None) -> State:
            return init(key, position, batch, shared if own is None else own)

        return chains.map(one, keys, positions, per_chain)

    return on_chains


def move_chains(
    step_fn: Callable[..., tuple[State, Info]],
    together: bool,
    save_fn: Callable[..., PyTree] | None,
    fold_fn: Callable[..., PyTree] | None,
    chains: Chains,
    thin: int,
    capacity: int,
) -> Callable[..., tuple[Run, PyTree, Info]]:
    """Return (run, number of draws, batch, arrays of Save, of Fold) -> (run, what was kept, Info of the draws).

    A block of a kernel's chains takes all steps of the chunk before the next block sets out: its state stays where it is. Chains
    of a sampler take every step together. What is kept, [chain, capacity, ...], is filled from the front.
    """

    def on_chains(
        run: Run, num_draws: Int[Array, ""], batch: Batch, save_arrays: PyTree, fold_arrays: PyTree
    ) -> tuple[Run, PyTree, Info]:
        per_chain, shared = _split(run.tuning)

        def chunk(each: Callable[..., Any], step: Callable[..., Any], carry: Any, keys: Any, own: Tuning | None) -> Any:
            """Move some chains, all in step; `each` applies a function of one to all of them."""

            def step_fold(number: Int[Array, ""], carry: Any) -> tuple[Any, Info]:
                state, fold, health = carry
                state, info = step(jax.vmap(jax.random.fold_in, (0, None))(keys, number), state, own, number)
                if fold_fn:
                    fold = each(lambda f, s, i: fold_fn(f, s, i, fold_arrays), fold, state, info)
                return (state, fold, health.update(info, number)), info

            def save(carry: Any) -> PyTree:
                return each(lambda state: save_fn(state, save_arrays), carry[0]) if save_fn else ()

            return _draws(step_fold, save, carry, run.step, num_draws, thin, capacity)

        def step_all(keys: Any, state: State, _: None, number: Int[Array, ""]) -> tuple[State, Info]:
            return step_fn(chains, keys, state, batch, run.tuning, number)

        def step_each(keys: Any, state: State, own: Tuning | None, number: Int[Array, ""]) -> tuple[State, Info]:
            def one(key: Key[Array, ""], state: State, own: Tuning | None) -> tuple[State, Info]:
                return step_fn(key, state, batch, shared if own is None else own, number)

            return _each_apart(one, keys, state, own)

        carry = (run.state, run.fold, run.health)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(run.key, run.chain)
        if together:
            carry, kept, infos = chunk(chains.map, step_all, carry, keys, None)
        else:
            block = functools.partial(chunk, _each_apart, step_each)
            carry, kept, infos = over_blocks(block, chains.block, carry, keys, per_chain)
        state, fold, health = carry
        return run._replace(step=run.step + num_draws * thin, state=state, fold=fold, health=health), kept, infos

    return on_chains


def _draws(
    step: Callable[[Int[Array, ""], Any], tuple[Any, Info]],
    save: Callable[[Any], PyTree],
    carry: Any,
    first: Int[Array, ""],
    num_draws: Int[Array, ""],
    thin: int,
    capacity: int,
) -> tuple[Any, PyTree, Info]:
    """Take `thin` steps for each draw, the first of them number `first`, and keep what `save` returns of each, and its Info."""

    def one_step(number: Int[Array, ""], moving: Any) -> Any:
        carry, before = moving
        carry, info = step(number, carry)
        return carry, _add(before, info)

    def one_draw(draw: Int[Array, ""], moving: Any) -> Any:
        carry, *kept = moving
        number = first + draw * thin
        carry, info = jax.lax.fori_loop(number, number + thin, one_step, (carry, nothing))
        info = info._replace(acceptance_rate=info.acceptance_rate / thin, kinetic_temperature=info.kinetic_temperature / thin)
        put = functools.partial(jax.tree.map, lambda all_, x: jax.lax.dynamic_update_index_in_dim(all_, x, draw, 1))
        return carry, *put(kept, [save(carry), info])

    types = jax.eval_shape(lambda: [save(carry), step(first, carry)[1]])
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), types[1])
    nothing = nothing._replace(is_finite=~nothing.is_finite)
    buffers = jax.tree.map(lambda x: jnp.zeros((x.shape[0], capacity, *x.shape[1:]), x.dtype), types)
    carry, kept, infos = jax.lax.fori_loop(0, num_draws, one_draw, (carry, *buffers))
    return carry, kept, infos


def _add(before: Info, info: Info) -> Info:
    """Let the Info of several steps add up to that of one draw."""
    larger = jnp.abs(before.energy_error) > jnp.abs(info.energy_error)
    return Info(
        num_gradients=before.num_gradients + info.num_gradients,
        acceptance_rate=before.acceptance_rate + info.acceptance_rate,
        energy=info.energy,
        energy_error=jnp.where(larger, before.energy_error, info.energy_error),
        kinetic_temperature=before.kinetic_temperature + info.kinetic_temperature,
        is_divergent=before.is_divergent | info.is_divergent,
        is_finite=before.is_finite & info.is_finite,
    )


def _split(tuning: Tuning) -> tuple[Tuning | None, Tuning | None]:
    """Return what of a tuning each chain has for itself, and what all share."""
    return (tuning.tuning, None) if isinstance(tuning, PerChain) else (None, tuning)


def _each_apart(function: Callable[..., Any], *rows: PyTree) -> Any:
    """Apply a function to each chain of a block, behind barriers, lest XLA fuse it with what decides about its bits."""
    return jax.lax.optimization_barrier(each_row(function, *jax.lax.optimization_barrier(rows)))
