"""Built-in experiments: functions that return a RunConfig. Their first docstring line is what `bayesnn list` shows."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from bayesnn.config import (
    HMC,
    MLP,
    NUTS,
    SGHMC,
    SGLD,
    Data,
    GaussianPrior,
    Heteroscedastic,
    Optimise,
    ParallelTempering,
    RunConfig,
    WarmUp,
    parse,
)
from bayesnn.errors import UsageError, did_you_mean
from bayesnn.imports import call, is_import_path

DIGITS = RunConfig(data=Data(name="digits"), model=MLP(widths=(50,)), prior=GaussianPrior(scale=0.3))


def digits_hmc() -> RunConfig:
    """Digits, MLP 64-50-10, full-batch HMC: the demo's reference."""
    return DIGITS.model_copy(update={"sampler": HMC(step_size=0.01), "warmup": WarmUp(steps=100), "draws": 500})


def digits_nuts() -> RunConfig:
    """Digits, MLP 64-50-10, NUTS: finds its own trajectory length."""
    return DIGITS.model_copy(update={"sampler": NUTS(step_size=0.005), "warmup": WarmUp(steps=100, metric="diagonal")})


def digits_sgld() -> RunConfig:
    """Digits, MLP 64-50-10, SGLD on minibatches of 100: fast, and biased by its step size."""
    return DIGITS.model_copy(update={"sampler": SGLD(step_size=1e-4, batch_size=100), "warmup": WarmUp(steps=5000), "thin": 100})


def digits_csghmc() -> RunConfig:
    """Digits, MLP 64-50-10, cyclical SGHMC: a draw at the end of each of 150 cycles, warm again by then."""
    # Friction of 2 / prior scale, and cycles of 50 prior scales, where 46 are enough: docs/methods.md.
    sghmc = SGHMC(step_size=0.01, friction=6.7, batch_size=100, cycle_length=1500)
    return DIGITS.model_copy(update={"sampler": sghmc, "warmup": WarmUp(steps=1500), "draws": 150, "thin": 1500})


def digits_ensemble() -> RunConfig:
    """Digits, MLP 64-50-10, deep ensemble of 10 MAP estimates by Adam."""
    return DIGITS.model_copy(
        update={"sampler": Optimise(), "warmup": WarmUp(steps=0), "start": "model", "chains": 10, "draws": 1, "thin": 2000}
    )


def digits_map() -> RunConfig:
    """Digits, MLP 64-50-10, one MAP estimate by Adam."""
    return digits_ensemble().model_copy(update={"chains": 1})


def yacht_hmc() -> RunConfig:
    """UCI yacht, MLP 6-50-2, heteroscedastic, full-batch HMC (reads the UCI files)."""
    return RunConfig(
        data=Data(name="uci_yacht"),
        model=MLP(widths=(50,)),
        prior=GaussianPrior(scale=0.3),
        likelihood=Heteroscedastic(),
        sampler=HMC(step_size=0.003),
        warmup=WarmUp(steps=100),
    )


def diabetes_hmc() -> RunConfig:
    """Diabetes, MLP 10-20-2, heteroscedastic, full-batch HMC: small enough for seconds."""
    return yacht_hmc().model_copy(update={"data": Data(name="diabetes"), "model": MLP(widths=(20,))})


def diabetes_tanh() -> RunConfig:
    """Diabetes, MLP 10-8-2 of tanh, 106 weights, 10 chains of full-batch HMC: small enough to weigh its regions."""
    return RunConfig(
        data=Data(name="diabetes"),
        model=MLP(widths=(8,), activation="tanh"),
        prior=GaussianPrior(scale=1.0),
        likelihood=Heteroscedastic(),
        sampler=HMC(step_size=0.02, max_num_steps=300),
        warmup=WarmUp(steps=100),
        chains=10,
        draws=200,
    )


def diabetes_tempering() -> RunConfig:
    """Diabetes, MLP 10-8-2 of tanh, parallel tempering: ladders of 20 replicas that carry draws between modes."""
    tempering = ParallelTempering(rungs=20, step_size=0.02, max_num_steps=30)
    return diabetes_tanh().model_copy(update={"sampler": tempering, "warmup": WarmUp(steps=500), "chains": 4, "thin": 5})


EXPERIMENTS: dict[str, Callable[[], RunConfig]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        digits_hmc,
        digits_nuts,
        digits_sgld,
        digits_csghmc,
        digits_ensemble,
        digits_map,
        yacht_hmc,
        diabetes_hmc,
        diabetes_tanh,
        diabetes_tempering,
    )
}


def describe(function: Callable[..., object]) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(function) or "").partition("\n")[0]


def load_experiment(name: str) -> RunConfig:
    """Return the configuration of a built-in experiment, or of `path/to/file.py:function`.

    Raises:
        UsageError: An unknown name (the nearest is suggested), or a function that returns something else.
    """
    if is_import_path(name):
        config = call(name)
        if not isinstance(config, RunConfig):
            raise UsageError(f"{name} must return a RunConfig, it returned {type(config).__name__}")
        return parse(config.model_dump(warnings=False), name)
    if name.endswith(".py"):
        raise UsageError(f"name the function of {name} that returns the experiment: {name}:FUNCTION")
    if name not in EXPERIMENTS:
        raise UsageError(f"unknown experiment {name!r}{did_you_mean(name, EXPERIMENTS)}")
    return EXPERIMENTS[name]()
