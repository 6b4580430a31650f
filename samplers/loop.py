"""The one verb: `sample` moves chains, keeps what is asked for, and can stop and continue anywhere."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key, PyTree

from samplers import device, processes
from samplers import mesh as meshes
from samplers.mesh import Layout
from samplers.pace import Pace
from samplers.types import (
    Batch,
    Fold,
    Health,
    Info,
    Kernel,
    Position,
    Result,
    Run,
    Sampler,
    Save,
    State,
    Tuning,
)

# Draws of one chunk wait on the device; this bounds them.
CHUNK_BYTES = 64 * 2**20
MAX_CHUNK_DRAWS = 128
# Stands for the step in the key of `init`. The chain's own key will not do: splitting it gives the keys of steps 0 and 1.
NO_STEP = 2**32 - 1


class SamplingError(RuntimeError):
    """A chain left the finite numbers."""


def keep_position(state: State, arrays: PyTree) -> Position:
    """Save the position: the default of `sample`."""
    return state.position


KEEP_POSITION = Save(keep_position)


def sample(
    key: Key[Array, ""],
    sampler: Sampler | Kernel,
    positions: Position,
    batch: Batch,
    *,
    num_steps: int,
    thin: int = 1,
    tuning: Tuning | None = None,
    save: Save | None = KEEP_POSITION,
    fold: Fold | None = None,
    until: Callable[[Run], bool] | None = None,
    on_chunk: Callable[[Result], None] | None = None,
    run: Run | None = None,
    mesh: Mesh | None = None,
    chain_block: int | None = None,
    first_chain: int = 0,
    chunk_seconds: float = 1.0,
    chunk_draws: int | None = None,
    throw: bool = True,
) -> Result:
    """Run all chains for a number of steps.

    Steps run inside one compiled program, in chunks of about `chunk_seconds`; between chunks the host collects draws, looks at
    health, and may stop. The draws of a chain depend on `key`, its global index, its start and the tuning alone: not on the mesh,
    the chunks, or (for kernels with their own tuning) the chains beside it.

    Args:
        key: Key of the run; the key of a step is fold_in(fold_in(key, chain), step). Ignored when `run` is given.
        sampler: A sampler, or a kernel, which moves chains in blocks of `chain_block`, each through a whole chunk.
        positions: Starting positions, every leaf with a leading chain axis. Ignored when `run` is given.
        batch: The data, whole; stochastic-gradient kernels draw their minibatches from it.
        num_steps: Steps to take in this call, > 0, a multiple of `thin`.
        thin: Steps for each draw kept.
        tuning: Of a new run; defaults to the sampler's initial tuning. `PerChain(...)` gives each chain its own.
        save: What to keep of a draw; None keeps nothing (warm-up).
        fold: Streaming summary, updated at every step; begins with the first call that asks for it.
        until: Looked at between chunks; True, in any process, ends the run early.
        on_chunk: Receives the draws of each chunk instead of the result: the memory of a run does not grow with its draws.
        run: Continue from here, bit for bit.
        mesh: Defaults to all local devices on the chain axis (`make_mesh`). Over the devices of several processes, all of which
            call this function alike, each process gets the draws of its own chains (`processes.own(run.chain)`).
        chain_block: Chains that move together in one vmap. Defaults to 1 on a CPU and to all chains of a device elsewhere.
        first_chain: Global index of the first chain, so that several jobs can add chains to one study.
        chunk_seconds: Aim for the wall time between two looks of the host.
        chunk_draws: At most so many draws a chunk, >= 1; by default what fits into 64 MiB, up to 128. Compiled in: calls that
            share it, and differ in `num_steps`, share one program.
        throw: Raise when a chain leaves the finite numbers; otherwise only count it in `run.health`.

    Returns:
        Draws, their Info, and the Run from which to continue.

    Raises:
        ValueError: A malformed argument, or a start whose density is not finite.
        TypeError: `sampler` is something else.
        SamplingError: A chain became non-finite and `throw` is set; names chains, step and remedy.
    """
    together = device.move_together(sampler)
    if thin < 1 or num_steps < 1 or num_steps % thin:
        raise ValueError(f"num_steps must be a positive multiple of thin; got num_steps={num_steps}, thin={thin}")
    if chunk_draws is not None and chunk_draws < 1:
        raise ValueError(f"a chunk needs one draw or more, got chunk_draws={chunk_draws}")
    layout = Layout.of(_num_chains(positions) if run is None else len(run.chain), mesh, chain_block)
    batch = meshes.place_batch(batch, layout.mesh)
    if run is None:
        run = start(
            key,
            sampler,
            positions,
            batch,
            tuning=tuning,
            fold=fold,
            mesh=layout.mesh,
            chain_block=layout.chain_block,
            first_chain=first_chain,
        )
        _check_start(run)
    elif tuning is not None:
        raise ValueError("a continued run has its own tuning: change run.tuning, with a new state if that changes the density")
    elif not jax.tree.leaves(run.fold):
        run = run._replace(fold=_start_fold(fold, run.state.position))
    tuning_spec, step = meshes.tuning_spec(run.tuning), run.step
    # As the program will return it; otherwise its second call would compile once more.
    run = layout.place(run, meshes.run_spec(tuning_spec))
    arrays = (save.arrays if save else (), fold.arrays if fold else ())
    arrays = meshes.place_arrays(arrays, layout.mesh)

    capacity = chunk_draws or _capacity(save, run.state)
    program, pace = _chunk_program(
        sampler.step,
        together,
        save.function if save else None,
        fold.update if fold else None,
        layout,
        tuning_spec,
        thin,
        capacity,
    )
    collected: list[Result] = []
    collect = collected.append if on_chunk is None else on_chunk
    remaining, is_complete = num_steps // thin, True
    while remaining:
        length = pace.length(step, chunk_seconds, min(remaining, capacity))
        began = time.perf_counter()
        run, draws, info = program(run, np.int32(length), batch, *arrays)
        draws, info = _to_host((draws, info), length)
        seconds, step = time.perf_counter() - began, run.step
        remaining -= length
        collect(Result(draws if save else None, info, run, False))
        del draws, info  # lest they lie in memory beside those of the next chunk
        if throw:
            _raise_if_dead(run)
        is_ended = remaining > 0 and until is not None and until(run)
        seconds, is_ended = processes.gather([seconds, is_ended]).max(axis=0)  # one decision, whoever asked for it
        pace.note(step, length, seconds)
        if is_ended:
            is_complete = False
            break
    if on_chunk is not None:
        return Result(None, None, run, is_complete)
    draws, info = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *[(c.draws, c.info) for c in collected])
    return Result(draws, info, run, is_complete)


def start(
    key: Key[Array, ""],
    sampler: Sampler | Kernel,
    positions: Position,
    batch: Batch,
    *,
    tuning: Tuning | None = None,
    fold: Fold | None = None,
    mesh: Mesh | None = None,
    chain_block: int | None = None,
    first_chain: int = 0,
) -> Run:
    """Return the run at step 0 from which `sample` sets out; see there for the arguments.

    Under `jax.eval_shape` it tells what a checkpoint must look like.
    """
    together, num_chains = device.move_together(sampler), _num_chains(positions)
    layout = Layout.of(num_chains, mesh, chain_block)
    tuning = sampler.initial_tuning if tuning is None else tuning
    chain = jnp.arange(first_chain, first_chain + num_chains, dtype=jnp.int32)
    program = _start_program(sampler.init, together, layout, meshes.tuning_spec(tuning))
    if isinstance(chain, jax.core.Tracer):
        program = program.__wrapped__  # within a program that has options of its own
    arguments = (key, chain, positions, batch, tuning)
    specs = (meshes.EVERYWHERE, meshes.BY_CHAIN, meshes.BY_CHAIN, meshes.batch_spec(), meshes.tuning_spec(tuning))
    state = program(*(arguments if layout.is_local else layout.place(arguments, specs)))
    return Run(key, chain, jnp.int32(0), jnp.int32(0), state, tuning, _start_fold(fold, positions), Health.zeros(num_chains))


def _start_fold(fold: Fold | None, positions: Position) -> PyTree:
    return jax.vmap(fold.init, (0, None))(positions, fold.arrays) if fold else ()


@functools.lru_cache(maxsize=32)
def _start_program(init: Any, together: bool, layout: Layout, tuning_spec: Any) -> Any:
    """Compile the start: states from positions."""
    by_chain = meshes.BY_CHAIN
    on_chains = device.start_chains(init, together, layout.chains)
    on_mesh = meshes.over_mesh(on_chains, layout.mesh, (by_chain, by_chain, meshes.batch_spec(), tuning_spec), by_chain)

    @functools.partial(jax.jit, compiler_options=meshes.compiler_options())
    def program(key: Any, chain: Any, positions: Any, batch: Batch, tuning: Any) -> State:
        keys = jax.vmap(lambda c: jax.random.fold_in(jax.random.fold_in(key, c), NO_STEP))(chain)
        own = layout.pad(tuning) if tuning_spec == by_chain else tuning
        return layout.cut(on_mesh(layout.pad(keys), layout.pad(positions), batch, own))

    return program


@functools.lru_cache(maxsize=32)
def _chunk_program(
    step_fn: Any, together: bool, save_fn: Any, fold_fn: Any, layout: Layout, tuning_spec: Any, thin: int, capacity: int
) -> tuple[Callable[..., tuple[Run, PyTree, Info]], Pace]:
    """Compile one chunk of up to `capacity` draws; their number is an argument, so that nothing recompiles.

    Returns:
        The program, and the pace of whoever runs it.
    """
    local = device.move_chains(step_fn, together, save_fn, fold_fn, layout.chains, thin, capacity)
    by_chain, run_spec = meshes.BY_CHAIN, meshes.run_spec(tuning_spec)
    # Each process takes the draws of its own chains; one alone takes them all, wherever they lie.
    of_draws = None if layout.is_local else layout.sharding(by_chain)

    results = (jax.tree.map(layout.sharding, run_spec), of_draws, of_draws)

    @functools.partial(jax.jit, out_shardings=results, compiler_options=meshes.compiler_options())
    def chunk(run: Run, num_draws: Any, batch: Batch, save_arrays: Any, fold_arrays: Any) -> tuple[Run, PyTree, Info]:
        def on_chains(resize: Callable[[PyTree], PyTree], run: Run) -> Run:
            own = resize(run.tuning) if tuning_spec == by_chain else run.tuning
            return run._replace(
                chain=resize(run.chain),
                state=resize(run.state),
                tuning=own,
                fold=resize(run.fold),
                health=resize(run.health),
            )

        arguments = (num_draws, batch, save_arrays, fold_arrays)
        specs = ((run_spec, *meshes.arrays_spec(arguments)), (run_spec, by_chain, by_chain))
        run, kept, infos = meshes.over_mesh(local, layout.mesh, *specs)(on_chains(layout.pad, run), *arguments)
        return on_chains(layout.cut, run), layout.cut(kept), layout.cut(infos)

    return chunk, Pace()


def _to_host(tree: PyTree, length: int) -> PyTree:
    """Copy the first `length` draws of every buffer."""
    return jax.tree.map(lambda x: np.concatenate([part[:, :length] for part in processes.own_parts(x)]), tree)


def _num_chains(tree: PyTree) -> int:
    sizes = {int(np.shape(leaf)[0]) if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(tree)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"every leaf of positions needs the same leading axis of at least one chain; got sizes {sorted(sizes)}")
    return sizes.pop()


def _check_start(run: Run) -> None:
    chain, floats = processes.whole(run.chain), [x for x in jax.tree.leaves(run.state) if jnp.issubdtype(x.dtype, jnp.floating)]
    finite = np.logical_and.reduce([np.isfinite(processes.whole(x)).reshape(len(chain), -1).all(axis=1) for x in floats])
    if not finite.all():
        raise ValueError(
            f"the log density or its gradient is not finite at the start of chains {chain[~finite].tolist()}; "
            "start closer to zero, check the data for NaN, or use a smoother likelihood"
        )


def _raise_if_dead(run: Run) -> None:
    dead = np.flatnonzero(processes.whole(run.health.num_nonfinite))
    if dead.size:
        chain, first = processes.whole(run.chain), processes.whole(run.health.first_nonfinite)
        where = ", ".join(f"chain {chain[i]} at step {first[i]}" for i in dead)
        raise SamplingError(
            f"left the finite numbers: {where}. Lower the step size, or start from a MAP estimate (throw=False goes on)"
        )


def _capacity(save: Save | None, state: State) -> int:
    """Return a number that does not depend on the length of the run, lest every length compile anew."""
    if save is None:
        return MAX_CHUNK_DRAWS
    kept = jax.eval_shape(jax.vmap(save.function, (0, None)), state, save.arrays)
    draw_bytes = sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(kept))
    return int(np.clip(CHUNK_BYTES // max(draw_bytes, 1), 1, MAX_CHUNK_DRAWS))
