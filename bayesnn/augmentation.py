"""Copies of training images, for the likelihood that averages over them."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

type Images = Float[Array, "n height width channel"]
type Copies = Callable[[Images], Float[Array, "copy n height width channel"]]


def shifts(images: Images) -> Float[Array, "copy n height width channel"]:
    """Return images as they are and moved by one pixel up, down, left and right; what enters repeats the edge."""
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = images.shape[1:3]
    corners = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return jnp.stack([padded[:, row : row + height, column : column + width] for row, column in corners])


def flips(images: Images) -> Float[Array, "copy n height width channel"]:
    """Return images as they are and mirrored left to right."""
    return jnp.stack([images, images[:, :, ::-1]])


COPIES: dict[str, Copies] = {"shifts": shifts, "flips": flips}
