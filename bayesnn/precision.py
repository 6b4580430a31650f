"""How a run computes: in single or in double precision, and how exactly an accelerator multiplies matrices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

from bayesnn.config import RunConfig


def set_arithmetic(config: RunConfig) -> None:
    """Let all that this process traces from now on compute as a run does."""
    jax.config.update("jax_enable_x64", config.precision == "float64")
    jax.config.update("jax_default_matmul_precision", config.matmul_precision)


@contextlib.contextmanager
def arithmetic(config: RunConfig) -> Iterator[None]:
    """Let what is traced inside compute as a run does."""
    with jax.enable_x64(config.precision == "float64"), jax.default_matmul_precision(config.matmul_precision):
        yield


@contextlib.contextmanager
def full_products() -> Iterator[None]:
    """Let products of float32 matrices that are traced inside be float32 products, unless JAX was told otherwise.

    By itself it makes them of TF32 on GPUs and of bfloat16 on TPUs, which an accept step sees as an error of the energy.
    """
    with jax.default_matmul_precision(jax.config.jax_default_matmul_precision or RunConfig().matmul_precision):
        yield
