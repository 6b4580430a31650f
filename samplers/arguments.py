"""Checks of arguments that many samplers share."""

from typing import Any

import numpy as np

# Settings by which kernels without an accept step are known: `sghmc` and `sgnht` by the first, `mclmc` by the second.
OF_UNADJUSTED = ("friction", "decoherence_length")


def require_positive(**arguments: float) -> None:
    """Raise ValueError, naming the argument, for a number that is not positive and finite."""
    for name, value in arguments.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def require_share(**arguments: float) -> None:
    """Raise ValueError, naming the argument, for a number outside (0, 1]."""
    for name, value in arguments.items():
        if not 0 < value <= 1:
            raise ValueError(f"{name} must be above 0 and at most 1, got {value}")


def require_accept_step(tuning: Any) -> None:
    """Raise ValueError for the tuning of a kernel without an accept step: it has no rate to adapt to, nor the target's law."""
    for name in OF_UNADJUSTED:
        if hasattr(tuning, name):
            raise ValueError(
                f"a kernel with {name} has no accept step, and one is needed here: use an exact kernel (the warm-up of mclmc is "
                "mclmc_adaptation)"
            )


def require_one_step_size(tuning: Any) -> None:
    """Raise ValueError for the tuning of a ladder, whose every leaf has an axis of rungs."""
    shape = np.shape(tuning.step_size)
    if shape:
        raise ValueError(
            f"a kernel with one step size is needed, got step_size of shape {shape}, as a ladder of parallel_tempering has: warm "
            "a ladder up with ladder_adaptation, or give the kernel of its rungs"
        )
