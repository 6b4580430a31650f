"""What a run is, as plain data: checked by pydantic, written to config.json, and turned into flags.

This module imports neither JAX nor anything that does, so that help and errors come at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from bayesnn.errors import UsageError, did_you_mean
from bayesnn.imported_config import Imported, absolute_source
from bayesnn.model_config import (
    CNNLSTM,
    LIKELIHOODS,
    MLP,
    MODELS,
    PRIORS,
    Augmented,
    Bernoulli,
    Categorical,
    DistributionPrior,
    EmpiricalCovariancePrior,
    FamilyPrior,
    GaussianNoise,
    GaussianPrior,
    Heteroscedastic,
    LeNet,
    Poisson,
    ResNet,
)
from bayesnn.sampler_config import (
    APPROXIMATIONS,
    GHMC,
    HMC,
    MALA,
    MCLMC,
    NUTS,
    SAMPLERS,
    SGHMC,
    SGLD,
    SGNHT,
    SWAG,
    AdjustedMCLMC,
    Approximation,
    Barker,
    DynamicHMC,
    Frozen,
    Laplace,
    MCDropout,
    MeanFieldVI,
    Optimise,
    ParallelTempering,
    Sampler,
    TemperedSMC,
)

# What a random stream of JAX or NumPy tells apart: JAX takes larger seeds modulo 2^32.
type Seed = Annotated[int, Field(ge=0, lt=2**32)]

__all__ = [
    "APPROXIMATIONS",
    "CNNLSTM",
    "GHMC",
    "HMC",
    "MALA",
    "MCLMC",
    "MLP",
    "NETWORK",
    "NUTS",
    "SAMPLERS",
    "SECTIONS",
    "SGHMC",
    "SGLD",
    "SGNHT",
    "STARTS",
    "SWAG",
    "UNIONS",
    "AdjustedMCLMC",
    "Approximation",
    "Augmented",
    "Barker",
    "Bernoulli",
    "Categorical",
    "Data",
    "DistributionPrior",
    "DynamicHMC",
    "EmpiricalCovariancePrior",
    "FamilyPrior",
    "Frozen",
    "GaussianNoise",
    "GaussianPrior",
    "Heteroscedastic",
    "Imported",
    "Laplace",
    "LeNet",
    "Likelihood",
    "MCDropout",
    "MeanFieldVI",
    "Model",
    "Optimise",
    "ParallelTempering",
    "Poisson",
    "Prior",
    "ResNet",
    "RunConfig",
    "Sampler",
    "Stop",
    "TemperedSMC",
    "WarmUp",
    "absolute_source",
    "explain",
    "parse",
    "read",
]


class Data(Frozen):
    """Which data set, and which of its splits."""

    name: str = "digits"
    """A data set of `bayesnn list`, an .npz file (x_train, y_train, x_test, y_test), or file.py:function returning a Dataset."""
    split: Seed = 0
    """Number of the published train/test split, for sets that have several; else the seed of the split or subset."""
    gap: bool = False
    """Test on the middle third along feature number `split` and train on the rest, for tables."""
    num_train: PositiveInt | None = None
    """Training examples to keep, chosen by the seed `split`; all by default."""
    size: PositiveInt | None = None
    """Height and width that images are brought to; their own by default."""
    task: Literal["classification", "regression", "counts"] | None = None
    """What the targets of an .npz file are; by default classes if they are integers, else real numbers."""

    @field_validator("name")
    @classmethod
    def _absolute(cls, name: str) -> str:
        if ":" not in name and Path(name).suffix not in ("", ".npz"):
            raise ValueError("a file is an .npz with x_train, y_train, x_test, y_test; any other is read by file.py:function")
        return str(Path(name).resolve()) if name.endswith(".npz") else absolute_source(name)


class WarmUp(Frozen):
    """Steps before the first draw."""

    steps: NonNegativeInt = 200
    """Adapts step size and metric where the sampler has them; otherwise burn-in."""
    scheme: Literal["window", "cross-chain"] = "window"
    """Each chain on its own; or all chains of a job together, and then their trajectory length too (hmc and dynamic-hmc)."""
    target_acceptance_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Acceptance that the step size is adapted to; by default what suits the sampler (HMC and NUTS 0.8, across
    chains 0.651, MALA 0.574)."""
    metric: Literal["identity", "layer", "diagonal"] = "identity"
    """Adapt one variance a weight (diagonal) or one for each array of weights (layer), or keep the one that the prior gives."""


class Stop(Frozen):
    """What ends a run before it has all its draws: targets that are all reached, or a budget that is spent."""

    ess: PositiveFloat | None = None
    """Bulk effective sample size, all chains of a job together, that 95 % of the function values reach."""
    rhat: Annotated[float, Field(gt=1)] | None = None
    """R-hat that 95 % of the function values stay below."""
    functions: tuple[str, ...] = ()
    """What `ess` and `rhat` judge: recorded functions (probability, mean, scale, log_likelihood), layers or weights (layer_0,
    layer_0.kernel). By default all predictions, or all weights where there are none."""
    gradients: PositiveFloat | None = None
    """Full-data gradients spent in sampling, all chains of a job."""
    seconds: PositiveFloat | None = None
    """Wall time spent in sampling."""

    @model_validator(mode="after")
    def _check(self) -> Stop:
        if self.functions and self.ess is None and self.rhat is None:
            raise ValueError("functions would have no effect: they are what ess and rhat judge, and neither is given")
        return self


type Model = Annotated[MLP | LeNet | ResNet | CNNLSTM | Imported, Field(discriminator="kind")]
type Prior = Annotated[
    GaussianPrior | FamilyPrior | EmpiricalCovariancePrior | DistributionPrior | Imported, Field(discriminator="kind")
]
type Likelihood = Annotated[
    Categorical | Bernoulli | Augmented | GaussianNoise | Heteroscedastic | Poisson | Imported, Field(discriminator="kind")
]


STARTS = ("prior", "model", "map", "pathfinder")
# Settings that a density of the user's own has no use for.
NETWORK = ("data", "model", "prior", "likelihood", "likelihood_temperature", "start", "microbatch", "data_blocks", "test_points")


class RunConfig(Frozen):
    """Everything that decides the draws of a run. Devices, mesh and processes are facts of its execution, never settings."""

    data: Data = Data()
    model: Model = MLP()
    prior: Prior = GaussianPrior()
    likelihood: Likelihood = Categorical()
    density: Imported | None = None
    """Instead of data, model, prior and likelihood: a function returning (log density, start) or (NumPyro model, args)."""
    sampler: Sampler = HMC()
    warmup: WarmUp = WarmUp()
    stop: Stop = Stop()
    temperature: PositiveFloat = 1.0
    """Of (likelihood x prior)^(1/temperature)."""
    likelihood_temperature: PositiveFloat = 1.0
    """Tempers the likelihood alone."""
    start: str = "prior"
    """Where chains begin: `prior`, `model` (its own initialisation), `map` (1000 steps up from the prior), `pathfinder` (a draw
    near the best point of L-BFGS from the prior; small networks), a file of weights (npz or orbax), or a run folder."""
    chains: PositiveInt = 4
    """Chains; four or more let R-hat see disagreement."""
    draws: PositiveInt = 200
    """Draws kept of each chain; fewer where `stop` ends the run."""
    thin: PositiveInt = 1
    """Steps for each draw kept."""
    seed: Seed = 0
    """Of everything random."""
    precision: Literal["float32", "float64"] = "float32"
    """Of weights, data and arithmetic."""
    matmul_precision: Literal["highest", "high", "default"] = "highest"
    """Of products of float32 matrices: `highest` is float32; on GPUs both others are TF32, on TPUs three passes of bfloat16 and
    one; CPUs have float32 alone."""
    microbatch: PositiveInt | None = None
    """Examples whose gradient, and test points whose predictions, are computed at a time; bounds memory."""
    data_blocks: PositiveInt = 1
    """Blocks, a power of two, into which a gradient of all data cuts them; as many devices can share the data of a chain."""
    chain_block: PositiveInt | None = None
    """Chains that move in one vmap: 1 on a CPU by default, all chains of a device elsewhere."""
    test_points: PositiveInt | None = None
    """Test points whose predictions are kept with each draw; all by default."""

    @field_validator("start")
    @classmethod
    def _absolute(cls, start: str) -> str:
        return start if start in STARTS else str(Path(start).expanduser().resolve())

    @model_validator(mode="after")
    def _check(self) -> RunConfig:
        idle = [name for name in NETWORK if getattr(self, name) != type(self).model_fields[name].default]
        if self.density is not None and idle:
            raise ValueError(f"a density has neither network nor data, so {', '.join(idle)} would have no effect: leave them out")
        if isinstance(self.sampler, APPROXIMATIONS) and not self.warmup.steps:
            raise ValueError(
                f"{self.sampler.kind} is fitted in the warm-up: warmup.steps, the steps of the fit, must be at least 1"
            )
        if self.warmup.scheme == "cross-chain":
            if not isinstance(self.sampler, HMC | DynamicHMC):
                raise ValueError(
                    f"warmup.scheme cross-chain finds trajectory lengths, and {self.sampler.kind} has none to find: "
                    "use hmc or dynamic-hmc, or the scheme window"
                )
            if self.chains < 2 or not self.warmup.steps:
                raise ValueError(
                    "warmup.scheme cross-chain learns from differences of chains: it needs 2 or more, better ten, and "
                    f"warmup.steps; got {self.chains} chains and {self.warmup.steps} steps"
                )
        if isinstance(self.sampler, Optimise) and self.draws != 1:
            raise ValueError(
                f"an optimiser has one draw a chain, its end point; got draws={self.draws}: use draws=1 and thin=steps"
            )
        return self


def parse(data: Any, where: str) -> RunConfig:
    """Check plain data as a RunConfig.

    Raises:
        UsageError: Names every wrong entry, what was got and what was expected, with the nearest key for an unknown one.
    """
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"{where}: {explain(error)}") from None


def read(path: Path) -> RunConfig:
    """Read and check a config.json."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"{path.parent} is no run folder: it has no config.json") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is damaged: {error}; restore it from the copy in manifest.json") from None
    try:
        return parse(data, str(path))
    except UsageError as error:
        raise UsageError(f"{error} (if another version of bayesnn wrote it, use that one: manifest.json says which)") from None


UNIONS: dict[str, tuple[type[Frozen], ...]] = {
    "model": (*MODELS, Imported),
    "prior": (*PRIORS, Imported),
    "likelihood": (*LIKELIHOODS, Imported),
    "sampler": SAMPLERS,
}
SECTIONS: dict[str, type[Frozen]] = {"data": Data, "warmup": WarmUp, "stop": Stop, "density": Imported}


def explain(error: ValidationError) -> str:
    """Return every wrong entry of a configuration, or of a part of one: what was expected, and what was got."""
    parts: list[type[Frozen]] = [RunConfig, *SECTIONS.values(), *(model for models in UNIONS.values() for model in models)]
    owner = next((model for model in parts if model.__name__ == error.title), RunConfig)
    return "; ".join(_explain_entry(owner, entry) for entry in error.errors())


def _explain_entry(owner: type[BaseModel], error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    if owner is RunConfig and len(location) > 1 and location[0] in UNIONS:
        kind = location.pop(1)
        owner = next(model for model in UNIONS[location[0]] if model.model_fields["kind"].default == kind)
    elif owner is RunConfig and location and location[0] in SECTIONS:
        owner = SECTIONS[location[0]]
    name = ".".join(location)
    if error["type"] == "extra_forbidden":
        return f"unknown key {name}{did_you_mean(location[-1], owner.model_fields.keys() - {'kind'})}"
    message = error["msg"].removeprefix("Value error, ")
    got = f" (got {error['input']!r})" if not isinstance(error["input"], dict | BaseModel) else ""
    return f"{name}: {message}{got}" if name else message
