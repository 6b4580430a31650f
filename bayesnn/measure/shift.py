"""How a run predicts when its test inputs are corrupted: scores by corruption and intensity, point by point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bayesnn.errors import UsageError
from bayesnn.sampler_config import Frozen

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from rich.console import Console

    from bayesnn.load import LoadedRun
    from bayesnn.posteriors import Posterior
    from diagnostics.claims import Finding

CLEAN = "clean"
# Draws whose predictions are computed in one call.
DRAW_BLOCK = 32


class Shift(Frozen):
    """Scores on corrupted test inputs, by corruption and intensity."""

    corruptions: tuple[str, ...] = ()
    """Names of corruptions; by default all that suit the inputs."""
    intensities: tuple[int, ...] = (1, 2, 3, 4, 5)
    """From 1, mild, to 5."""


def measure(run: LoadedRun, settings: Shift, console: Console) -> tuple[xr.DataTree, Sequence[Finding]]:
    """Score the predictions of a run on corrupted test inputs.

    Returns:
        A tree with one data set over corruption (`clean`, then the others), intensity and point: `log_score`, the log density
        of the label under the mixture of all draws, nats, and `accuracy`; and the same by chain as `chain_log_score` and
        `chain_accuracy`. `clean` has the same values at every intensity. No findings: scores alone are neither good nor bad.

    Raises:
        UsageError: Inputs that no corruption suits, or a regression.
    """
    import numpy as np
    import xarray as xr

    from bayesnn.build import build_posterior
    from bayesnn.data import corrupt, corruptions_of
    from bayesnn.precision import arithmetic

    with arithmetic(run.config):
        posterior = build_posterior(run.config)
        dataset = posterior.dataset
        names = settings.corruptions or corruptions_of(dataset)
        if dataset.task != "classification" or not names:
            raise UsageError(f"no corruption suits {dataset.inputs} of {dataset.name}; tables have gap splits (data.gap)")
        y = dataset.y_test[: run.config.test_points]
        clean = _scores(posterior, run.tree, dataset.x_test[: len(y)], y)
        found = {CLEAN: [clean] * len(settings.intensities)}
        for name in names:
            shifted = (corrupt(dataset, name, intensity)[: len(y)] for intensity in settings.intensities)
            found[name] = [_scores(posterior, run.tree, x, y) for x in shifted]
            console.print(f"  {name}: accuracy {found[name][-1]['accuracy'].mean():.3f}, clean {clean['accuracy'].mean():.3f}")
    stacked = {key: np.stack([np.stack([one[key] for one in by_intensity]) for by_intensity in found.values()]) for key in clean}
    dims = {key: ("corruption", "intensity", *(["chain"] if key.startswith("chain") else []), "point") for key in clean}
    table = xr.Dataset(
        {key: (dims[key], values) for key, values in stacked.items()},
        {"corruption": list(found), "intensity": list(settings.intensities)},
    )
    return xr.DataTree(table), ()


def _scores(posterior: Posterior, tree: xr.DataTree, x: Any, y: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of the mixture of all draws, and of those of each chain, at every point."""
    import numpy as np

    by_chain = _chain_probabilities(posterior, tree["posterior"].to_dataset(), x)
    rows, scores = np.arange(len(y)), {}
    for prefix, probability in (("", by_chain.mean(0)), ("chain_", by_chain)):
        scores[f"{prefix}log_score"] = np.log(np.maximum(probability[..., rows, y], np.finfo(np.float64).tiny))
        scores[f"{prefix}accuracy"] = (probability.argmax(-1) == y).astype(float)
    return scores


def _chain_probabilities(posterior: Posterior, weights: xr.Dataset, x: Any) -> np.ndarray:
    """Return the predictive probability of each chain, [chain, point, class]."""
    import jax
    import numpy as np

    evaluate = jax.jit(lambda positions, x: jax.vmap(lambda p: posterior.functions(p, x)["probability"])(positions).sum(0))
    chains = []
    for chain in range(weights.sizes["chain"]):
        total: Any = 0.0
        for first in range(0, weights.sizes["draw"], DRAW_BLOCK):
            block = weights.isel(chain=chain, draw=slice(first, first + DRAW_BLOCK))
            positions = posterior.unflatten({str(name): block[name].values for name in block.data_vars})
            total = total + np.asarray(evaluate(positions, x), np.float64)
        chains.append(total / weights.sizes["draw"])
    return np.stack(chains)
