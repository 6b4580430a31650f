"""`bayesnn measure FOLDER directions`: R-hat along leading directions, and prior draws where data say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from bayesnn.config import Frozen, GaussianPrior
from bayesnn.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from rich.console import Console

    from bayesnn.load import LoadedRun
    from diagnostics.claims import Finding

# Patches taken at a time: of 3 x 3 x 3 inputs, 14 MB an image block of 32 x 32.
IMAGE_BLOCK = 64


class Directions(Frozen):
    """R-hat along leading directions of each layer, and the spread along input directions that the data leave to the prior."""

    directions: PositiveInt = 10
    """Leading directions of each layer."""
    kernel: str = "layer_0.kernel"
    """The kernel that multiplies the inputs: dense [feature, unit], or of a convolution [height, width, channel, unit]."""


def measure(run: LoadedRun, settings: Directions, console: Console) -> tuple[xr.DataTree, Sequence[Finding]]:
    """Summarise a run along directions.

    Returns:
        Groups `leading`, the table of `diagnostics.along_leading`; and, for a run of a network, `null`: the table of draws along
        null directions, with their `spread`. The finding is about the latter.

    Raises:
        UsageError: One chain, too few draws, or no such kernel.
    """
    import xarray as xr

    from diagnostics.directions import along_leading

    try:
        groups = {"leading": along_leading(run.tree, settings.directions)}
    except ValueError as error:
        raise UsageError(str(error)) from error
    findings = []
    if run.config.density is None:
        groups["null"], finding = _null(run, settings.kernel)
        findings.append(finding)
    return xr.DataTree.from_dict(groups), findings


def _null(run: LoadedRun, name: str) -> tuple[xr.Dataset, Finding]:
    import numpy as np
    import xarray as xr

    from bayesnn.measure.problem import problem_of
    from bayesnn.models.parameters import named
    from diagnostics.directions import null_directions, null_finding, null_spread
    from diagnostics.summary import summarise_variables

    kernels = run.tree["posterior"].to_dataset()
    if name not in kernels:
        raise UsageError(f"the network has no {name!r}{did_you_mean(name, list(map(str, kernels)))}: set --kernel")
    posterior = problem_of(run).posterior
    assert posterior is not None
    draws = kernels[name].values
    directions = null_directions(_triangle(posterior.dataset.x_train, draws.shape[2:-1]))
    if len(directions) != np.prod(draws.shape[2:-1]):
        raise UsageError(f"{name} takes {draws.shape[2:-1]} inputs and the data have {len(directions)}: set --kernel")
    scales = posterior.prior_scales()
    scale = np.asarray(named(scales)[name]) if scales is not None else np.full(1, np.nan)
    is_isotropic = isinstance(run.config.prior, GaussianPrior) and np.ptp(scale) == 0
    described = None if is_isotropic else run.config.prior.kind
    null = null_spread(draws, directions, float(np.sqrt(np.mean(np.square(scale)))))
    finding = null_finding(null, described, run.config.temperature)
    spread = dict(zip(("spread", "spread_lower", "spread_upper"), null.spread, strict=True))
    table = xr.Dataset(spread, attrs={"kernel": name, "num_directions": null.num_directions})
    if null.num_directions:
        projections = xr.Dataset({name: (("chain", "draw", "direction", "unit"), null.projections)})
        table = summarise_variables(projections)[1].drop_dims("chain").assign(spread).assign_attrs(table.attrs)
    return table, finding


def _triangle(inputs: Any, size: Sequence[int]) -> np.ndarray:
    """Return the triangular factor of all that multiplies the kernel: it has the null directions and sizes of the whole."""
    import numpy as np

    from diagnostics.directions import image_patches

    if len(size) == 1:
        return np.linalg.qr(np.asarray(inputs, float).reshape(len(inputs), -1), "r")
    if len(size) != 3 or np.ndim(inputs) != 4:
        raise UsageError(
            f"no patches of {tuple(size)} in inputs of shape {np.shape(inputs)}: set --kernel to a dense or 2-D first layer"
        )
    factor = np.zeros((0, int(np.prod(size))))
    for start in range(0, len(inputs), IMAGE_BLOCK):
        patches = image_patches(inputs[start : start + IMAGE_BLOCK], (size[0], size[1]))
        factor = np.linalg.qr(np.concatenate((factor, patches)), "r")
    return factor
