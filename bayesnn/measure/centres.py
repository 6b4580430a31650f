"""Learning coefficients of a finished run: from its best draws down to minima of the loss, and chains around those."""

from __future__ import annotations

import dataclasses
import fnmatch
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PyTree
from rich.console import Console

import samplers
from bayesnn.errors import UsageError
from bayesnn.load import LoadedRun
from bayesnn.measure.descent import minimise_loss
from bayesnn.measure.learning import learning_coefficient
from bayesnn.measure.llc import LLC
from bayesnn.measure.problem import problem_of
from bayesnn.measure.resample import bootstrap_data
from bayesnn.measure.waic import run_fluctuation
from bayesnn.models import named, nest
from bayesnn.posteriors import Posterior
from diagnostics.claims import Finding
from samplers import Batch, Target


def measure_centres(run: LoadedRun, settings: LLC, console: Console) -> tuple[xr.DataTree, list[Finding]]:
    """Measure, see `bayesnn.measure.llc.measure`."""
    posterior = problem_of(run).posterior
    if posterior is None:
        raise UsageError(f"{run.folder.path} sampled a density without a likelihood, so there is no loss to measure")
    target, batch = _examples(posterior, settings.examples)
    mask = _mask(posterior, settings.parameters)
    groups, findings = [], []
    for index, draw in enumerate(_best_draws(run, posterior, settings.centres)):
        key = jax.random.fold_in(jax.random.key(settings.seed), index)
        try:
            tree, verdicts = _measure_at(key, target, batch, draw, settings, mask, console)
        except ValueError as error:
            raise UsageError(str(error)) from error
        groups.append(tree)
        name = "" if settings.centres == 1 else f"centre {index}: "
        findings += [dataclasses.replace(finding, claim=name + finding.claim) for finding in verdicts]
    tree = xr.DataTree(children={f"centre_{index}": group for index, group in enumerate(groups)})
    tree.attrs = {"examples": settings.examples, "parameters": settings.parameters}
    spread, left_out = run_fluctuation(posterior, run.tree["posterior"].to_dataset())
    if spread is not None:
        tree["fluctuation"] = xr.DataTree(xr.Dataset(spread._asdict(), attrs={"chains_left_out": left_out}))
        nu, deviation = spread.singular_fluctuation, spread.singular_fluctuation_error
        console.print(
            f"the run's own draws: singular fluctuation {nu:.4g} +- {deviation:.2g}, WAIC {spread.waic:.5g} nats an example"
            + (f"; chains left out, being not finite: {left_out}" if left_out else "")
        )
    return tree, findings


def _measure_at(
    key: Any, target: Target, batch: Batch, draw: PyTree, settings: LLC, mask: PyTree | None, console: Console
) -> tuple[xr.DataTree, list[Finding]]:
    chain_key, data_key = jax.random.split(key)
    minimum = minimise_loss(target, batch, draw, num_steps=settings.descent_steps)
    console.print(f"{minimum.num_steps} steps down to a loss {minimum.decrease:.4g} nats an example below the draw's")
    found = learning_coefficient(chain_key, target, batch, minimum.position, settings, mask=mask)
    tree, findings = found.tree, found.findings
    tree.attrs |= {"decrease": minimum.decrease, "descent_steps": minimum.num_steps}
    tree["centre"] = xr.DataTree(
        xr.Dataset({name: ([f"{name}_{axis}" for axis in range(x.ndim)], x) for name, x in _arrays(minimum.position).items()})
    )
    if settings.resamples:
        forms = bootstrap_data(
            data_key,
            target,
            batch,
            minimum.position,
            settings,
            num_resamples=settings.resamples,
            descent_steps=settings.descent_steps,
            mask=mask,
        )
        tree["resamples"] = xr.DataTree(xr.Dataset({name: ("resample", values) for name, values in forms.items()}))
        note = f"{findings[0].note} {_errors_over_data(forms, settings.resamples)}"
        findings = [dataclasses.replace(findings[0], note=note), *findings[1:]]
    return tree, findings


def _errors_over_data(forms: dict[str, np.ndarray], num_resamples: int) -> str:
    """Say how estimates differ between data sets drawn again, and how many of these gave none."""
    found = {name: values[np.isfinite(values)] for name, values in forms.items()}
    num_lost = num_resamples - min(map(len, found.values()), default=0)
    lost = f" On {num_lost} of them all chains were lost, and these do not count." if num_lost else ""
    if num_resamples - num_lost < 2:
        return f"There is no error over data.{lost.replace('them', f'{num_resamples} data sets drawn again')}"
    words = ", ".join(f"{name.replace('_', '-')} {values.std(ddof=1):.2g}" for name, values in found.items())
    return f"Errors over {num_resamples} data sets drawn again: {words}.{lost}"


def _best_draws(run: LoadedRun, posterior: Posterior, count: int) -> list[PyTree]:
    """Return the draw of the largest likelihood of each chain, the best first."""
    weights, values = run.tree["posterior"].to_dataset(), run.tree["sample_stats"].to_dataset()["log_likelihood"].values
    best = np.where(np.isfinite(values), values, -np.inf)
    chains = np.argsort(-best.max(1))
    if count > len(chains):
        raise UsageError(f"--centres {count}: the run has {len(chains)} chains, and so as many best draws")
    if not np.isfinite(best[chains[:count]].max(1)).all():
        raise UsageError("a chain has no draw of finite likelihood to set out from; take fewer --centres, or audit the run")
    places = [{"chain": chain, "draw": best[chain].argmax()} for chain in chains[:count]]
    return [posterior.unflatten({str(name): weights[name].isel(place).values for name in weights.data_vars}) for place in places]


def _examples(posterior: Posterior, which: str) -> tuple[Target, Batch]:
    """Return target and data of the loss that is measured."""
    target, dataset = posterior.target, posterior.dataset
    if which == "train":
        return target, posterior.batch
    y = jnp.asarray(dataset.y_test, jnp.int32 if dataset.task == "classification" else float)
    batch = Batch((jnp.asarray(dataset.x_test, float), y), jnp.ones(len(dataset.y_test)), posterior.batch.constants)
    padded = samplers.pad_batch(batch, target.data_blocks * (target.microbatch or 1))
    return target._replace(num_data=len(dataset.y_test)), padded


def _mask(posterior: Posterior, pattern: str) -> PyTree | None:
    """Return which scalars move; None for all."""
    names = {name: fnmatch.fnmatchcase(name, pattern) for name in named(posterior.like)}
    if not any(names.values()):
        raise UsageError(f"--parameters {pattern}: no such parameters; there are {', '.join(names)}")
    if all(names.values()):
        return None
    return nest({name: np.full(leaf.shape, names[name]) for name, leaf in named(posterior.like).items()})


def _arrays(position: PyTree) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in named(position).items()}
