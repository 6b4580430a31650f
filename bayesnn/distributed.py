"""One run in several processes: joining them, and what the first of them does for all."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bayesnn.errors import UsageError

# What the first process tells the others has a whole number of so many bytes: every length is a program to compile.
MESSAGE_BYTES = 8192
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def join(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Make this process one of several that run the same command; JAX then sees the devices of all of them.

    Args:
        coordinator: HOST:PORT at which the first process listens. With none of the arguments, JAX detects them: under Slurm,
            Open MPI, Cloud TPU and GKE.
        num_processes: Their number.
        process_id: Which of them this is, from 0.

    Raises:
        UsageError: Nothing was detected, some of the arguments are missing, or the others were not found.
    """
    explicit = {"--coordinator": coordinator, "--num-processes": num_processes, "--process-id": process_id}
    missing = [name for name, value in explicit.items() if value is None]
    if missing and len(missing) < len(explicit):
        raise UsageError(f"{' and '.join(missing)} must be given too: all of {', '.join(explicit)}, or none to detect them")
    import jax

    bind = None
    if coordinator is not None:
        host, colon, _ = coordinator.rpartition(":")
        if not colon:
            raise UsageError(f"--coordinator must be HOST:PORT, got {coordinator}")
        bind = coordinator if host in LOOPBACK else None  # by default it listens on all interfaces
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            cluster_detection_method=None if missing else "deactivate",
            coordinator_bind_address=bind,
        )
    except (ValueError, RuntimeError, KeyError) as error:
        hint = "" if not missing else f"; outside Slurm, Open MPI, Cloud TPU and GKE say {', '.join(explicit)}"
        raise UsageError(f"--distributed: the processes did not find each other ({error}){hint}") from error


def is_joined() -> bool:
    """Return whether this process is one of several; imports nothing."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def is_first() -> bool:
    """Return whether this process speaks and writes for all; imports nothing."""
    return not is_joined() or sys.modules["jax"].process_index() == 0


def on_first[T](action: Callable[[], T]) -> T:
    """Do something in the first process, and return its result, or raise its error, in all of them.

    Args:
        action: Returns plain data that JSON can hold.

    Raises:
        UsageError: It did.
    """
    if not is_joined():
        return action()
    from samplers import processes

    said, own_error = b"", None
    if is_first():
        try:
            said = json.dumps({"result": action()}).encode()
        except UsageError as error:
            own_error = error
            said = json.dumps({"error": str(error), "kind": type(error).__name__}).encode()
    length = -(-int(processes.gather(len(said))[0]) // MESSAGE_BYTES) * MESSAGE_BYTES
    heard = processes.gather(np.frombuffer(said.ljust(length), np.uint8))[0]
    if own_error is not None:
        raise own_error
    answer: Any = json.loads(heard.tobytes())
    if "error" in answer:
        own_kind = [kind for kind in UsageError.__subclasses__() if kind.__name__ == answer["kind"]]
        raise (own_kind or [UsageError])[0](answer["error"])
    return answer["result"]


@contextlib.contextmanager
def held_by_first(lock: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    """Let the first process hold a lock for all."""
    with contextlib.ExitStack() as stack:
        on_first(lambda: stack.enter_context(lock))
        yield


def leave(status: int) -> None:
    """End this process of several after an error at once: JAX would wait for the others, and they would wait for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def explain(error: Exception) -> str | None:
    """Return what an error of JAX means when another process has ended, or None."""
    # On a CPU JAX raises ValueErrors with the words of Gloo, which carries messages between processes.
    if not is_joined() or not (isinstance(error, sys.modules["jax"].errors.JaxRuntimeError) or "Gloo" in str(error)):
        return None
    first_line = str(error).splitlines()[0][:300]
    return (
        f"another process of this run ended or cannot be reached ({first_line}); committed draws are intact: "
        "start all processes again with `bayesnn resume`"
    )
