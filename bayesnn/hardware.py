"""Devices for which runs are planned: what they multiply in a second, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bayesnn.config import RunConfig


class Peak(NamedTuple):
    """Dense throughput of one device.

    Attributes:
        flops: Floating-point operations of matrix products, FLOP/s.
        products: In what they are made, in words.
    """

    flops: float
    products: str


class Device(NamedTuple):
    """One device.

    Attributes:
        peaks: By `RunConfig.matmul_precision`, and of "bfloat16" operands.
        memory: Bytes.
    """

    peaks: Mapping[str, Peak]
    memory: float

    def peak(self, config: RunConfig) -> Peak:
        """Return the peak at which a run's products are made."""
        return self.peaks[getattr(config.model, "compute_dtype", None) or config.matmul_precision]


def _gpu(float32: float, tf32: float, bfloat16: float, memory: float) -> Device:
    reduced = Peak(tf32, "TF32")  # `jax.lax.Precision`: HIGH and DEFAULT are one on a GPU
    peaks = {"highest": Peak(float32, "float32"), "high": reduced, "default": reduced, "bfloat16": Peak(bfloat16, "bfloat16")}
    return Device(peaks, memory)


def _tpu(bfloat16: float, memory: float) -> Device:
    one = Peak(bfloat16, "bfloat16")
    # Passes of bfloat16 for a float32 product: `jax.lax.Precision`.
    peaks = {"highest": Peak(bfloat16 / 6, "six-pass bfloat16"), "high": Peak(bfloat16 / 3, "three-pass bfloat16")}
    return Device({**peaks, "default": one, "bfloat16": one}, memory)


# Of the vendors' data sheets, without sparsity. A chip each; TPU v3 and v4 are named by chip, not by core.
HARDWARE = {
    "a100": _gpu(19.5e12, 156e12, 312e12, memory=80e9),
    "h100": _gpu(67e12, 494e12, 989e12, memory=80e9),
    "h200": _gpu(67e12, 494e12, 989e12, memory=141e9),
    "tpu-v3": _tpu(123e12, memory=32e9),
    "tpu-v4": _tpu(275e12, memory=32e9),
    "tpu-v5e": _tpu(197e12, memory=16e9),
    "tpu-v5p": _tpu(459e12, memory=95e9),
}
