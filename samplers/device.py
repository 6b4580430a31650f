"""What one device does with its chains: it starts them, and moves them for a chunk."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PyTree

from samplers.chains import Chains
from samplers.types import Batch, Info, Kernel, PerChain, Position, Run, Sampler, State, Tuning


def moves_all(sampler: Sampler | Kernel) -> bool:
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
        own, shared = _split(tuning)
        return chains.map(lambda key, x, own: init(key, x, batch, shared if own is None else own), keys, positions, own)

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
        def save(state: State) -> PyTree:
            return save_fn(state, save_arrays) if save_fn else ()

        def fold(carry: PyTree, state: State, info: Info) -> PyTree:
            return fold_fn(carry, state, info, fold_arrays) if fold_fn else carry

        def all_chains(moved: Any, keys: Any, tuning: Tuning) -> Any:
            def step(state: State, number: Int[Array, ""]) -> tuple[State, Info]:
                return step_fn(chains, jax.vmap(jax.random.fold_in, (0, None))(keys, number), state, batch, tuning, number)

            return draws(moved, step, functools.partial(chains.map, fold), functools.partial(chains.map, save), axis=1)

        def one_chain(moved: Any, key: Any, own: Tuning | None) -> Any:
            def step(state: State, number: Int[Array, ""]) -> tuple[State, Info]:
                tuning = shared if own is None else own
                return _apart(lambda k, s: step_fn(k, s, batch, tuning, number), jax.random.fold_in(key, number), state)

            return draws(moved, step, functools.partial(_apart, fold), functools.partial(_apart, save), axis=0)

        def draws(moved: Any, step: Any, fold: Any, save: Any, axis: int) -> Any:
            def one_step(number: Any, carry: Any) -> Any:
                state, summary, health, before = carry
                state, info = step(state, number)
                return state, fold(summary, state, info), health.update(info, number), _add(before, info)

            def one_draw(draw: Any, carry: Any) -> Any:
                *moved, kept, infos = carry
                first = run.step + draw * thin
                *moved, info = jax.lax.fori_loop(first, first + thin, one_step, (*moved, none))
                info = info._replace(
                    acceptance_rate=info.acceptance_rate / thin, kinetic_temperature=info.kinetic_temperature / thin
                )
                put = functools.partial(jax.tree.map, lambda all_, x: jax.lax.dynamic_update_index_in_dim(all_, x, draw, axis))
                return *moved, put(kept, save(moved[0])), put(infos, info)

            info_type = jax.eval_shape(lambda: step(moved[0], run.step))[1]
            none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), info_type)
            none = none._replace(is_finite=~none.is_finite)
            kept_type = jax.eval_shape(save, moved[0])
            buffers = jax.tree.map(
                lambda x: jnp.zeros((*x.shape[:axis], capacity, *x.shape[axis:]), x.dtype), (kept_type, info_type)
            )
            *moved, kept, infos = jax.lax.fori_loop(0, num_draws, one_draw, (*moved, *buffers))
            return tuple(moved), (kept, infos)

        moved = (run.state, run.fold, run.health)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(run.key, run.chain)
        per_chain, shared = _split(run.tuning)
        if together:
            moved, (kept, infos) = all_chains(moved, keys, run.tuning)
        else:
            moved, (kept, infos) = chains.map(one_chain, moved, keys, per_chain)
        state, summary, health = moved
        return run._replace(step=run.step + num_draws * thin, state=state, fold=summary, health=health), kept, infos

    return on_chains


def _split(tuning: Tuning) -> tuple[Tuning | None, Tuning | None]:
    """Return what of a tuning each chain has for itself, and what all share."""
    return (tuning.tuning, None) if isinstance(tuning, PerChain) else (None, tuning)


def _apart(function: Callable[..., Any], *arrays: PyTree) -> Any:
    """Apply a function behind barriers, lest XLA fuse it with what is around it, which then decides about its bits."""
    return jax.lax.optimization_barrier(function(*jax.lax.optimization_barrier(arrays)))


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
