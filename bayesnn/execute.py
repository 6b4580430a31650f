"""Run what a run folder asks for, from wherever it stands, to its end or to an interrupt."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

import samplers
from bayesnn.alarms import alarm
from bayesnn.build import Method, describe_sampler
from bayesnn.config import RunConfig, Stop
from bayesnn.distributed import held_by_first, is_first, on_first
from bayesnn.draw_store import Block, Draws, block_length
from bayesnn.draws import by_name
from bayesnn.errors import UsageError
from bayesnn.interrupts import INTERRUPTED, Interrupts
from bayesnn.meter import Meter
from bayesnn.problem import Problem
from bayesnn.progress import Reporter
from bayesnn.run_folder import RunFolder
from bayesnn.shard import Shard
from bayesnn.stopping import BLOCKS, reason_to_stop
from samplers import Info, Result, Run, processes
from samplers.mesh import mesh_shape

# A commit costs about 0.1 s of writing and syncing; this keeps it at a few percent of a run.
COMMIT_SECONDS = 3.0
# Pieces into which a warm-up is cut, and between which it can be committed.
WARMUP_PIECES = 50


def begin(config: RunConfig, problem: Problem, method: Method, first_chain: int = 0) -> Run:
    """Return chains of a run, at step 0, whole in every process; waits for all of them.

    Args:
        config: The run.
        problem: What it samples.
        method: And how.
        first_chain: Index in the run of the first of `config.chains` chains; everything random depends on a chain's index.

    Raises:
        UsageError: A start file that does not fit, a start whose density is not finite, or a warm-up that needs all chains.
    """
    if first_chain and config.warmup.scheme == "cross-chain":
        raise UsageError(
            "chains that are added cannot learn with those of other jobs, as warmup.scheme cross-chain asks: "
            "start a run of its own (--name), or use warmup.scheme window"
        )
    start_key, key = jax.random.split(jax.random.key(config.seed))
    positions = _starts(config, problem, start_key, first_chain)
    mesh = run_mesh(config.chains, problem.target.data_blocks)
    run = samplers.start(
        key, method.first_kernel, positions, problem.batch, mesh=mesh, chain_block=config.chain_block, first_chain=first_chain
    )
    run = run._replace(state=jax.tree.map(lambda x: x if processes.is_local(x) else processes.whole(x), run.state))
    numbers = [np.asarray(x) for x in jax.tree.leaves(run.state) if jax.numpy.issubdtype(x.dtype, jax.numpy.floating)]
    is_finite = np.logical_and.reduce([np.isfinite(x).reshape(config.chains, -1).all(axis=1) for x in numbers])
    if not is_finite.all():
        chains = first_chain + np.flatnonzero(~is_finite)
        raise UsageError(
            f"the log density or its gradient is not finite at the start of chains {chains.tolist()}; "
            "start elsewhere (--start), or use a narrower prior"
        )
    return run


def _starts(config: RunConfig, problem: Problem, key: Any, first_chain: int) -> Any:
    """Return where chains begin, as the first process finds it: a fit might differ in last bits, or not go through elsewhere."""
    found = []
    on_first(lambda: found.append(problem.init(key, config.chains, config.start, first_chain)))
    return processes.from_first(
        found[0] if found else None,
        jax.tree.map(lambda x: jax.ShapeDtypeStruct((config.chains, *x.shape), x.dtype), problem.like),
    )


def run_mesh(num_chains: int, data_blocks: int) -> Mesh:
    """Return the mesh of a run: chains over all devices, of all processes; where those are more, data blocks over the rest.

    Raises:
        UsageError: Some process would have nothing to do.
    """
    devices = jax.devices()
    _, data = mesh_shape(num_chains, data_blocks, len(devices))
    try:
        return samplers.make_mesh(num_chains, data=data, devices=devices)
    except ValueError as error:
        raise UsageError(str(error)) from error


def execute(folder: RunFolder, shard: Shard, problem: Problem, method: Method, reporter: Reporter) -> str:
    """Bring the chains of a shard to their end, or to an interrupt.

    Args:
        folder: A run folder.
        shard: One of its shards, which no other job runs.
        problem: What its configuration samples.
        method: And how.
        reporter: Where progress goes.

    Returns:
        The state in which it ends: "complete" or "interrupted".

    Raises:
        UsageError: The folder is damaged.
    """

    def stop(signal_name: str) -> None:
        reporter.note(f"{signal_name}: stopping after this chunk, with a commit; Ctrl-C ends at once, without one.")

    def end_at_once() -> None:
        try:
            if is_first():
                folder.write_status(shard, "interrupted", shard.read_commit())
        finally:
            reporter.console.show_cursor()
            os._exit(INTERRUPTED)

    with held_by_first(shard.lock()), reporter, Interrupts(stop, end_at_once) as interrupts:
        execution = _Execution(folder, shard, problem, method, reporter)
        try:
            is_complete = execution.run_until(lambda run: interrupts.requested is not None)
        except BaseException:
            with contextlib.suppress(OSError, UsageError):
                execution.done = shard.read_commit()  # what is in memory may be ahead of it
                execution.write_status("failed")
            raise
        state = "complete" if is_complete else "interrupted"
        execution.write_status(state)
        if is_complete:
            execution.tell()
    if not is_complete:
        cause = interrupts.requested or "a signal to another process"
        reporter.note(f"stopped by {cause} with {execution.done.draws} draws committed.")
        reporter.note(f"continue with: bayesnn resume {folder.path}")
    return state


class _Execution:
    """One execution of one shard: its place in the run and its counters."""

    def __init__(self, folder: RunFolder, shard: Shard, problem: Problem, method: Method, reporter: Reporter):
        self.folder, self.problem, self.method, self.reporter = folder, problem, method, reporter
        self.config, self.shard = folder.config, shard
        self.mesh = run_mesh(shard.num_chains, problem.target.data_blocks)
        self.batch = samplers.place_batch(problem.batch, self.mesh)
        save = method.save(problem)
        # The data that a draw is evaluated on are the run's own: one copy of them on a device is enough.
        arrays = jax.tree.map(
            lambda x: self.batch if x is problem.batch else x, save.arrays, is_leaf=lambda x: x is problem.batch
        )
        self.save = save._replace(arrays=samplers.place_arrays(arrays, self.mesh))
        self.done = self.shard.read_commit()
        self.run = self._restore()
        self.committed_at = time.monotonic()
        self.draw_types = self._draw_types()
        self.block = block_length(shard.num_chains, self.config.draws, self.draw_types)
        if self.config.stop != Stop():
            self.block = min(self.block, -(-self.config.draws // BLOCKS))

    def run_until(self, stop: Callable[[Run], bool]) -> bool:
        """Bring the run to its end; False when stopped before."""
        self.stop = stop
        self.write_status("running")
        return self.warm_up() and self.draw()

    def write_status(self, state: str) -> None:
        """Say how far the chains are."""
        if is_first():
            self.folder.write_status(self.shard, state, self.done)

    def tell(self) -> None:
        """Say what the sampler's own statistics are at the last draw, and warn of draws that no audit would pass."""
        if not is_first():
            return
        statistics = self.method.statistics
        if statistics is not None:
            values = self._read_stats(jax.eval_shape(jax.vmap(statistics), self.run.state))
            ranges = (f"{name} {value[:, -1].min():.4g} to {value[:, -1].max():.4g}" for name, value in values.items())
            self.reporter.note(f"over chains, at the last draw: {', '.join(ranges)}")
        stats = self._read_stats(("diverging", "acceptance_rate"))
        sampler, has_warmup = self.config.sampler, self.method.warmup is not None
        warning = alarm(stats, self.done.num_nonfinite, self.shard.first_chain, sampler=sampler, has_warmup=has_warmup)
        if warning is not None:
            self.reporter.note(f"warning: {warning}")

    def _read_stats(self, names: Iterable[str]) -> Draws:
        return {name: self.shard.draws.read(f"sample_stats/{name}", self.done.draws) for name in names}

    def warm_up(self) -> bool:
        """Adapt, or burn in; False when interrupted."""
        if self.done.phase == 1:
            return True
        total = self.config.warmup.steps
        meter = Meter(self.reporter, self.run, "warm-up", total, self.done.step, per_step=1)
        piece = -(-total // WARMUP_PIECES)
        while self.done.step < total:
            self._sample(meter.show, steps=min(piece, total - self.done.step), thin=1, save=None, chunk_draws=piece)
            self._advance(meter, draws=0)
            is_last, is_stopped, is_due = self.done.step >= total, *self._decide()
            if is_due or is_stopped or is_last:
                self._commit()
            if is_stopped and not is_last:
                return False
        self.run = self.method.finish(self.run)
        self.done = self.done.model_copy(update={"phase": 1})
        self._start_store()
        return True

    def draw(self) -> bool:
        """Sample and keep; False when interrupted."""
        total, thin = self.config.draws, self.config.thin
        meter = Meter(self.reporter, self.run, "sampling", total * thin, self.done.draws * thin, per_step=thin)
        waiting = Block(self.block)

        def keep(result: Result) -> None:
            waiting.append(by_name(result))
            meter.show(result)

        while not self.done.is_complete:
            # Pieces end where blocks end, so that every block is written once and whole.
            length = min(self.block - self.done.draws % self.block, total - self.done.draws)
            self._sample(keep, steps=length * thin, thin=thin, save=self.save, chunk_draws=self.block)
            self._advance(meter, draws=self._write(waiting.take()))
            is_stopped, is_due = self._decide()  # once all draws that it may read are written
            has_enough = self.config.stop != Stop() and self._has_enough()
            is_last = self.done.draws >= total or has_enough
            self.done = self.done.model_copy(update={"is_complete": is_last})
            if is_due or is_stopped or is_last:
                self._commit()
            if is_stopped and not is_last:
                return False
        return True

    def _write(self, draws: Draws) -> int:
        """Write draws behind those that are done; return their number."""
        own_chains = processes.own(self.run.chain)
        if own_chains.size:
            self.shard.draws.write(self.done.draws, draws, int(own_chains[0]) - self.shard.first_chain)
        if self.config.stop != Stop():
            self.shard.draws.flush()  # the first process reads them, to decide
        return next(iter(draws.values())).shape[1]

    def _decide(self) -> tuple[bool, bool]:
        """Return whether to stop, and whether a commit is due: all processes alike, whichever of them got a signal."""
        is_due = time.monotonic() - self.committed_at >= COMMIT_SECONDS
        is_stopped, is_due = processes.gather([self.stop(self.run), is_due]).any(axis=0).tolist()
        return is_stopped, is_due

    def _has_enough(self) -> bool:
        """Return whether the first process finds a reason to stop before all draws are there."""
        reason = self._reason_to_stop() if is_first() else None
        if reason is not None:
            self.reporter.note(f"complete with {self.done.draws} of {self.config.draws} draws: {reason}")
        return bool(processes.gather(reason is not None)[0])

    def _reason_to_stop(self) -> str | None:
        if self.done.draws % self.block:  # the store has whole blocks
            return None
        done = self.done

        def read(name: str) -> np.ndarray:
            return self.shard.draws.read(name, done.draws)

        return reason_to_stop(self.config.stop, done, self.block, self.draw_types, read)

    def _sample(self, on_chunk: Callable[[Result], None], *, steps: int, thin: int, save: Any, chunk_draws: int) -> None:
        kernel = self.method.kernel if self.done.phase else self.method.first_kernel
        self.run = samplers.sample(
            self.run.key,
            kernel,
            self.run.state.position,
            self.batch,
            num_steps=steps,
            thin=thin,
            save=save,
            run=self.run,
            until=self.stop,
            on_chunk=on_chunk,
            mesh=self.mesh,
            chain_block=self.config.chain_block,
            chunk_draws=chunk_draws,
            throw=False,
        ).run

    def _advance(self, meter: Meter, draws: int) -> None:
        gradients, seconds = meter.take()
        spent = ("gradients", "seconds") if self.done.phase else ("warmup_gradients", "warmup_seconds")
        self.done = self.done.model_copy(
            update={
                "step": int(self.run.step),
                "draws": self.done.draws + draws,
                spent[0]: getattr(self.done, spent[0]) + gradients,
                spent[1]: getattr(self.done, spent[1]) + seconds,
            }
        )

    def _commit(self) -> None:
        self.done = self.shard.commit(self.done, self.run)
        self.write_status("running")
        if is_first():
            metrics = self.done.model_dump(exclude={"checkpoint", "digest"})
            self.folder.append_metrics(first_chain=self.shard.first_chain, **metrics)
        self.committed_at = time.monotonic()

    def _restore(self) -> Run:
        """Return the state of the last commit."""
        warmup, chains = self.method.warmup, self.shard.num_chains
        positions = jax.tree.map(lambda x: jax.ShapeDtypeStruct((chains, *x.shape), x.dtype), self.problem.like)
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.problem.batch)

        def start(positions: Any, batch: Any) -> Run:
            key, kernel = jax.random.key(self.config.seed), self.method.first_kernel
            run = samplers.start(key, kernel, positions, batch, chain_block=self.config.chain_block)
            return samplers.finish(warmup, run) if warmup and self.done.phase == 1 else run

        self.shard.draws.check(self.done.draws)
        return self.shard.load_run(self.done, jax.eval_shape(start, positions, batch))

    def _draw_types(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        state = self.run.state.inner if self.done.phase == 0 and self.method.warmup else self.run.state
        number = jax.numpy.result_type(float)
        info = Info._make([jax.ShapeDtypeStruct((), number)] * 5 + [jax.ShapeDtypeStruct((), np.bool_)] * 2)
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state)
        draws = jax.eval_shape(self.save.function, one, self.save.arrays)
        return {name: (x.shape, x.dtype) for name, x in by_name(Result(draws, info, self.run, False)).items()}

    def _start_store(self) -> None:
        own_chains = processes.own(self.run.chain)
        first_chains = processes.gather(int(own_chains[0]) - self.shard.first_chain if own_chains.size else 0)
        if is_first():
            self._create_store(first_chains.tolist())
        processes.gather(0)  # nobody writes before that

    def _create_store(self, first_chains: list[int]) -> None:
        store = self.shard.draws
        shutil.rmtree(store.path, ignore_errors=True)  # of an execution that was killed before its first commit of draws
        description = self.problem.description | describe_sampler(self.config.sampler)
        constants = {"constant_data/layer_size": (np.array(list(self.problem.layers.values())), ["layer"])}
        if self.problem.y_test is not None:
            constants["observed_data/y_test"] = (self.problem.y_test, ["point"])
        store.create(self.shard.num_chains, self.config.draws, self.block, self.draw_types, constants, description, first_chains)
