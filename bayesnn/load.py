"""Read runs back: the draws as an ArviZ DataTree, and predictions on new inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesnn.config import Laplace, RunConfig
from bayesnn.draw_store import ARRAYS, DIGEST
from bayesnn.errors import UsageError
from bayesnn.run_folder import RunFolder
from bayesnn.shard import Commit, Shard

if TYPE_CHECKING:
    import xarray as xr

    from bayesnn.posteriors import Posterior


@dataclass(frozen=True)
class LoadedRun:
    """A run read back from its folder.

    Attributes:
        folder: Where it lies.
    """

    folder: RunFolder

    @property
    def config(self) -> RunConfig:
        """What was asked for."""
        return self.folder.config

    @functools.cached_property
    def tree(self) -> xr.DataTree:
        """The committed draws of all chains: groups posterior, functions, sample_stats, observed_data, constant_data."""
        return read_tree(self.folder)

    def predict(self, inputs: Any, *, accept_changed_code: bool = False) -> dict[str, np.ndarray]:
        """Predict on new inputs with all draws of all chains, streamed, in original units.

        Args:
            inputs: [point, feature], not standardised, in the units of the training data.
            accept_changed_code: Go on although the source of the run's own functions has changed.

        Returns:
            Classification: {"probability": [point, class]}. Regression: {"mean": [point], "scale": [point]}, mean and standard
            deviation of the mixture over draws, noise included.

        Raises:
            UsageError: Inputs of the wrong shape or not finite, a run without draws, one whose own code or data have changed, or
                one that predicts by the linearised network.
        """
        from bayesnn.predict import predict

        return self._predict(predict, inputs, accept_changed_code)

    def predict_draws(self, inputs: Any, *, accept_changed_code: bool = False) -> xr.Dataset:
        """Predict on new inputs with every draw on its own, all held in memory; arguments and errors as of `predict`.

        Returns:
            `probability` (chain, draw, point, class), or `mean` and `scale` (chain, draw, point) in original units.
        """
        from bayesnn.predict import predict_draws

        return self._predict(predict_draws, inputs, accept_changed_code)

    def _predict[T](self, by: Callable[[Posterior, xr.Dataset, Any], T], inputs: Any, accept_changed_code: bool) -> T:
        from bayesnn.build import build_posterior
        from bayesnn.precision import arithmetic

        if isinstance(self.config.sampler, Laplace) and self.config.sampler.linearised:
            raise UsageError(
                f"draws of {self.folder.path} predict by the network linearised at the MAP estimate, which is not kept: "
                "make the inputs test data of a run"
            )
        self.folder.check_sources(accept_changed_code=accept_changed_code)
        with arithmetic(self.config):
            posterior = build_posterior(self.config)
            if posterior.dataset.hash != self.tree.attrs["data_sha256"]:
                raise UsageError(
                    f"{self.config.data.name} has changed since this run began, and with it the units of inputs and targets: "
                    "restore it"
                )
            return by(posterior, self.tree["posterior"].to_dataset(), inputs)


def load_run(path: str | Path) -> LoadedRun:
    """Open a run folder.

    Raises:
        UsageError: Not a run folder, or a damaged one.
    """
    return LoadedRun(RunFolder.open(Path(path)))


def read_tree(folder: RunFolder) -> xr.DataTree:
    """Return the committed draws of all shards, by chain, with what the diagnostics need to know as attributes.

    Chains are read as far as all of them are; the attribute `left_out` says what that leaves out, empty where nothing.

    Raises:
        UsageError: No draws yet, or a damaged store.
    """
    import xarray as xr

    parts: list[tuple[Commit, xr.DataTree]] = []
    for shard in folder.shards():
        commit = shard.read_commit()
        if commit.draws:
            parts.append((commit, _read_shard(shard, commit)))
    if not parts:
        raise UsageError(f"{folder.path} has no committed draws yet; continue it with: bayesnn resume {folder.path}")
    num_draws = min(commit.draws for commit, _ in parts)
    trees = [tree.isel(draw=slice(num_draws), missing_dims="ignore") for _, tree in parts]
    groups: dict[str, xr.Dataset] = {}
    for name, node in trees[0].children.items():
        datasets = [tree[name].to_dataset() for tree in trees]
        is_by_chain = "chain" in datasets[0].dims
        groups[name] = xr.concat(datasets, dim="chain") if is_by_chain and len(datasets) > 1 else node.to_dataset()
    joined = xr.DataTree.from_dict(groups)
    joined.attrs = {
        **trees[0].attrs,
        "name": folder.path.name,
        "left_out": folder.left_out(),
        "gradients": sum(commit.gradients for commit, _ in parts),
        "seconds": sum(commit.seconds for commit, _ in parts),
        "num_nonfinite": [count for commit, _ in parts for count in commit.num_nonfinite],
        "num_divergent": [count for commit, _ in parts for count in commit.num_divergent],
    }
    return joined


def _read_shard(shard: Shard, commit: Commit) -> xr.DataTree:
    import xarray as xr

    shard.draws.check(commit.draws)
    try:
        tree = xr.open_datatree(shard.draws.path, engine="zarr", consolidated=False)
        layers = tree.attrs.get("layers")
        variables: dict[str, list[str]] = {}
        for array in tree.attrs[ARRAYS]:  # in the order of the model: xarray's is that of the file system, and sums depend on it
            group, _, variable = array.partition("/")
            variables.setdefault(group, []).append(variable)
        groups = {}
        for name, wanted in variables.items():
            dataset = tree[name].to_dataset()[wanted]
            if "draw" in dataset.dims:
                chains = np.arange(shard.first_chain, shard.first_chain + shard.num_chains)
                dataset = dataset.isel(draw=slice(commit.draws)).assign_coords(chain=chains, draw=np.arange(commit.draws))
            if layers is not None and "layer" in dataset.dims:
                dataset = dataset.assign_coords(layer=layers)
            groups[name] = dataset.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(
            f"the draw store {shard.draws.path} is damaged ({str(error).splitlines()[0]}); restore it from a copy, or run again"
        ) from error
    loaded = xr.DataTree.from_dict(groups)
    loaded.attrs = {name: value for name, value in tree.attrs.items() if name not in (ARRAYS, DIGEST)}
    return loaded
