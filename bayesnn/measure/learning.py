"""Local learning coefficients of any target, without a run folder: localised, tempered chains around a centre."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Key, PyTree

import samplers
from bayesnn.full_batch_kernels import ACCEPTANCE
from bayesnn.measure.llc import LocalSampling
from bayesnn.measure.localised import localise, save_loss
from bayesnn.measure.spectrum import Spectra, largest_curvature, loss_spectra
from diagnostics.claims import Finding
from diagnostics.learning import Coefficient, LossDraws, Sampling, estimate_all, judge, predict_bias, step_size_for
from samplers import Batch, Kernel, PerChain, Result, Run, Sampler, Target

# Second inverse temperature over the first, unless others are given: near enough for the coefficient to be the same at both, far
# enough for the difference of the losses to be a third of them.
SECOND_TEMPERATURE = 1.5
# Share that SGLD's default step may add to the estimate: less than half of what its verdict lets pass.
STEP_BIAS = 0.02
# Step times precision at the ends of pilot chains above which the default step is lowered, and to what: it then adds at most 5 %
# along any direction. Chains meet stiffer directions than the centre's where the loss is flatter than quadratic there.
PILOT_LIMIT, PILOT_AIM, PILOTS = 0.2, 0.1, 5
# What a random start leaves in doubt of a largest curvature, and the centre's own directions may have.
PILOT_SLACK = 1.5
# At the ends of so many chains of each temperature curvatures are looked up: the extremes of eight tell where chains are.
LOOKED_AT = 8
# Of leapfrog steps in units of the stiffest direction; the warm-up of exact samplers adapts it.
FIRST_STEP = 0.5
# A quarter period of directions whose scale the metric has made 1.
TRAJECTORY = math.pi / 2


@dataclass(frozen=True, eq=False)
class LearningCoefficient:
    """A local learning coefficient and all that is known of it.

    Attributes:
        draws: Losses of all chains.
        estimates: Every form by name, see `diagnostics.learning.estimate_all`; empty when all chains are lost.
        findings: Verdicts, see `diagnostics.learning.judge`; the first holds the mean form.
        sampling: How the chains went, and the biases to expect of them.
        spectra: At the centre.
        attrs: Settings and named quantities, plain data.
    """

    draws: LossDraws
    estimates: dict[str, Coefficient]
    findings: list[Finding]
    sampling: Sampling
    spectra: Spectra
    attrs: dict[str, Any]

    @property
    def tree(self) -> xr.DataTree:
        """All of it as a tree: draws, estimates, predicted biases and spectrum."""
        dims, forms = ("temperature", "chain", "draw"), np.array([*self.estimates.values()]).reshape(-1, 2)
        draws = {"loss": (dims, self.draws.losses), "squared_distance": (dims, self.draws.squared_distances)}
        groups = {
            "draws": xr.Dataset(draws, {"temperature": list(self.draws.inverse_temperatures)}),
            "estimates": xr.Dataset(
                {"value": ("form", forms[:, 0]), "standard_error": ("form", forms[:, 1])}, {"form": list(self.estimates)}
            ),
            "spectrum": xr.Dataset({name: ("node", getattr(self.spectra.hessian, name)) for name in ("nodes", "weights")}),
        }
        if self.sampling.bias is not None:
            groups["predicted"] = xr.Dataset(self.sampling.bias._asdict())
        tree = xr.DataTree.from_dict(groups)
        tree.attrs = self.attrs
        return tree


class _Around(NamedTuple):
    """A localised target, and what is known of it before chains run."""

    target: Target
    batch: Batch
    centre: PyTree
    baseline: float
    localisation: float
    betas: tuple[float, ...]
    spectra: Spectra


def learning_coefficient(
    key: Key[Array, ""],
    target: Target,
    batch: Batch,
    centre: PyTree,
    how: LocalSampling | None = None,
    *,
    mask: PyTree[Bool[np.ndarray, "..."]] | None = None,
) -> LearningCoefficient:
    r"""Estimate the local learning coefficient at a minimum of the loss, with its error, the biases to expect, and verdicts.

    .. math:: \hat\lambda = n\beta\, E[L_n(w) - L_n(w^*)], \quad
        w \sim \exp(-n\beta L_n(w) - \tfrac{\gamma}{2} |w - w^*|^2)

    L_n is minus the mean log likelihood of the target, whose prior does not count. Every loss is of all examples, and differences
    to that of the centre are taken example by example. All chains of all temperatures run in one program, set out from the
    centre, and count only after the burn-in. For the coefficient on another distribution of data pass that batch and its target
    (`target._replace(num_data=...)`).

    Args:
        key: Of everything random.
        target: Prior and likelihood; its num_data is n.
        batch: Its data.
        centre: w*, of one chain: a minimum of the loss (`minimise_loss`).
        how: Sampler, temperatures, localiser and lengths of the chains.
        mask: Booleans, shaped as the centre: only these scalars move.

    Raises:
        ValueError: A target without data, settings that do not fit it, or a centre where the loss is not finite.

    Example:
        >>> import jax, jax.numpy as jnp, samplers
        >>> def log_likelihood(w, x, constants):
        ...     return -0.5 * (x @ w) ** 2
        >>> target = samplers.Target(lambda w, constants: 0.0, log_likelihood, num_data=1000)
        >>> batch = samplers.Batch(jax.random.normal(jax.random.key(0), (1000, 3)), jnp.ones(1000))
        >>> found = learning_coefficient(jax.random.key(1), target, batch, jnp.zeros(3))  # three directions: 3 / 2
        >>> bool(abs(found.estimates["mean"].value - 1.5) < 0.15), found.findings[0].verdict
        (True, 'pass')

    References:
        Lau, Furman, Wang, Murfet & Wei 2025, arXiv 2308.12108. With a mask or on other data, the refined coefficients of Wang et
        al. 2024, arXiv 2410.02984.
    """
    how = how or LocalSampling()
    spectrum_key, chain_key, end_key = jax.random.split(key, 3)
    around = _prepare(spectrum_key, target, batch, centre, how, mask)
    result, num_divergent = _sample(chain_key, around, how)
    shape = (len(around.betas), how.chains, how.draws)
    draws = LossDraws(
        np.asarray(result.draws["loss"], np.float64).reshape(shape) + around.baseline,
        np.asarray(result.draws["squared_distance"], np.float64).reshape(shape),
        target.num_data,
        around.betas,
        how.localisation,
        around.baseline,
    )
    sampling = _describe(end_key, around, how, result.run)._replace(
        num_divergent=num_divergent, num_steps=draws.losses.size * how.thin
    )
    return LearningCoefficient(
        draws=draws,
        estimates=estimate_all(draws, sampling) if draws.kept.any() else {},
        findings=judge(draws, sampling),
        sampling=sampling,
        spectra=around.spectra,
        attrs={
            **how.model_dump(mode="json", exclude_none=True),
            "num_data": target.num_data,
            "inverse_temperatures": list(around.betas),
            "n_beta": draws.n_beta.tolist(),
            "batch_size": how.batch_size or target.num_data,
            "num_params": samplers.num_params(around.centre),
            "baseline": around.baseline,
        }
        | ({} if sampling.step_size is None else {"step_size": sampling.step_size}),
    )


def _prepare(
    key: Key[Array, ""], target: Target, batch: Batch, centre: PyTree, how: LocalSampling, mask: PyTree | None
) -> _Around:
    if target.num_data == 0:
        raise ValueError("a target without data has no loss; give prior and likelihood apart (samplers.Target)")
    if not how.inverse_temperatures and target.num_data < 3:
        raise ValueError(f"1 / log n is no inverse temperature for n = {target.num_data}; give inverse_temperatures")
    betas = how.inverse_temperatures or tuple(scale / math.log(target.num_data) for scale in (1.0, SECOND_TEMPERATURE))
    centre = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), centre)
    baseline = -float(samplers.log_density_terms(target, centre, batch)[1]) / target.num_data
    if not math.isfinite(baseline):
        raise ValueError(f"the loss of the centre is {baseline}; choose another centre")
    if mask is not None:
        restricted = samplers.restrict(target, batch, centre, mask)
        target, batch, centre = restricted.target, restricted.batch, restricted.take(centre)
    target, batch = localise(target, batch, centre, how.localisation)
    resolution = how.localisation / (target.num_data * max(betas))
    spectra = loss_spectra(key, target, batch, centre, resolution=resolution, batch_size=how.batch_size)
    return _Around(target, batch, centre, baseline, how.localisation, betas, spectra)


def _sample(key: Key[Array, ""], around: _Around, how: LocalSampling) -> tuple[Result, int]:
    """Run burn-in and chains; return them, and the divergences of the second."""
    kernel, tuning = _kernel(around, how)
    num_chains = len(around.betas) * how.chains
    positions = jax.tree.map(lambda x: jnp.repeat(x[None], num_chains, axis=0), around.centre)
    if how.sampler == "sgld":
        run = _burn_in(key, kernel, tuning, positions, around, how)
    else:
        warmup = samplers.window_adaptation(
            kernel, num_steps=how.burn_in, target_acceptance_rate=ACCEPTANCE[how.sampler], metric="diagonal"
        )
        run = _move(key, warmup.kernel, tuning, positions, around.batch, how.burn_in)
        run = samplers.finish(warmup, run)
    before = int(np.sum(run.health.num_divergent))
    result = samplers.sample(
        key,
        kernel,
        positions,
        around.batch,
        num_steps=how.draws * how.thin,
        thin=how.thin,
        save=save_loss(around.target, around.batch),
        run=run,
        throw=False,
    )
    return result, int(np.sum(result.run.health.num_divergent)) - before


def _kernel(around: _Around, how: LocalSampling) -> tuple[Kernel, PerChain]:
    """Return the kernel, and a tuning for each chain: its temperature, and steps that fit the stiffest direction there."""
    temperatures = jnp.repeat(1 / jnp.asarray(around.betas), how.chains)
    precisions = np.array([_precision(around, beta, around.spectra.hessian.largest) for beta in around.betas])
    match how.sampler:
        case "sgld":
            first = how.step_size or _default_step(around)
            kernel = samplers.sgld(around.target, step_size=first, batch_size=how.batch_size, replacement=True)
            own: dict[str, Any] = {"step_size": np.array([first * around.betas[0] / beta for beta in around.betas])}
        case "mala":
            kernel, own = samplers.mala(around.target, step_size=FIRST_STEP), {"inverse_mass_matrix": 1 / precisions}
        case "hmc":
            kernel = samplers.hmc(around.target, step_size=FIRST_STEP, trajectory_length=TRAJECTORY)
            own = {"inverse_mass_matrix": 1 / precisions}
        case "nuts":
            kernel, own = samplers.nuts(around.target, step_size=FIRST_STEP), {"inverse_mass_matrix": 1 / precisions}
    shared = kernel.initial_tuning
    tuning = jax.tree.map(lambda x: jnp.repeat(x[None], len(temperatures), axis=0), shared)
    tuning = tuning._replace(
        tempering=tuning.tempering._replace(likelihood_temperature=temperatures.astype(jnp.float32)),
        **{name: jnp.repeat(jnp.asarray(values, jnp.float32), how.chains) for name, values in own.items()},
    )
    return kernel, PerChain(tuning)


def _default_step(around: _Around) -> float:
    return step_size_for(
        around.spectra.hessian,
        n_beta=around.target.num_data * around.betas[0],
        localisation=around.localisation,
        relative_bias=STEP_BIAS,
    )


def _burn_in(
    key: Key[Array, ""], kernel: Kernel, tuning: PerChain, positions: PyTree, around: _Around, how: LocalSampling
) -> Run:
    """Move SGLD through its burn-in; where its step is ours to choose, again from the start with a lower one while it is hot."""
    for pilot in range(PILOTS):
        run = _move(key, kernel, tuning, positions, around.batch, how.burn_in)
        if how.step_size is not None or how.burn_in == 0:
            break
        steps = np.asarray(tuning.tuning.step_size, np.float64)
        at_centre = steps[0] * _precision(around, around.betas[0], around.spectra.hessian.largest)
        products = steps[:: how.chains, None] * _end_precisions(jax.random.fold_in(key, pilot), around, how, run)
        if (products <= max(PILOT_LIMIT, PILOT_SLACK * at_centre)).all():
            break
        # A chain that is lost, or on its way out, tells no curvature.
        worst = np.where(np.isfinite(products), products, 10 * PILOT_AIM).max()
        tuning = PerChain(tuning.tuning._replace(step_size=jnp.asarray(steps * PILOT_AIM / worst, jnp.float32)))
    return run


def _move(
    key: Key[Array, ""], kernel: Kernel | Sampler, tuning: PerChain, positions: PyTree, batch: Batch, num_steps: int
) -> Run:
    if num_steps == 0:
        return samplers.start(key, kernel, positions, batch, tuning=tuning)
    return samplers.sample(key, kernel, positions, batch, num_steps=num_steps, tuning=tuning, save=None, throw=False).run


def _describe(key: Key[Array, ""], around: _Around, how: LocalSampling, run: Run) -> Sampling:
    """Return the biases to expect at the first temperature, and how steps and curvatures stand at the ends of the chains."""
    is_exact = how.sampler != "sgld"
    step_size = None if is_exact else float(run.tuning.tuning.step_size[0])
    bias = predict_bias(
        around.spectra.hessian,
        n_beta=around.target.num_data * around.betas[0],
        localisation=how.localisation,
        step_size=step_size or 0.0,
        burn_in=how.burn_in,
        num_draws=how.draws,
        thin=how.thin,
        batch_noise=around.spectra.batch_noise,
        gradient=around.spectra.gradient,
    )
    precisions = None if is_exact else _end_precisions(key, around, how, run)[0]
    return Sampling(bias=bias, step_size=step_size, precisions=precisions)


def _end_precisions(key: Key[Array, ""], around: _Around, how: LocalSampling, run: Run) -> Float[np.ndarray, "temperature chain"]:
    """Return the largest curvature of the tempered density where the first chains are; NaN for a lost one."""
    looked_at = min(how.chains, LOOKED_AT)

    def curvature(chain: int) -> float:
        end = jax.tree.map(lambda x: x[chain], run.state.position)
        return largest_curvature(key, around.target, around.batch, end)

    return np.array(
        [
            [_precision(around, beta, curvature(index * how.chains + chain)) for chain in range(looked_at)]
            for index, beta in enumerate(around.betas)
        ]
    )


def _precision(around: _Around, beta: float, curvature: float) -> float:
    return around.target.num_data * beta * curvature + around.localisation
