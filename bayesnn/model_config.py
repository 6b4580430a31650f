"""Settings of each built-in network, prior and likelihood."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from tyro.conf import Suppress

from bayesnn.sampler_config import Frozen

type Activation = Literal["tanh", "relu", "silu", "gelu"]
type ComputeType = Literal["bfloat16"] | None


class MLP(Frozen):
    """A fully connected network."""

    kind: Annotated[Literal["mlp"], Suppress] = "mlp"
    widths: tuple[PositiveInt, ...] = (50,)
    """Units of each hidden layer; none at all is a linear model."""
    activation: Activation = "silu"
    """Non-linearity. ReLU's kinks cost HMC acceptance."""
    compute_dtype: ComputeType = None
    """Type in which products are computed; None is that of the weights."""


class LeNet(Frozen):
    """Convolutions and pooling, then fully connected layers, for images."""

    kind: Annotated[Literal["lenet"], Suppress] = "lenet"
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (6, 16, 120)
    """Of each convolution of 5 x 5; 4 and 8 are for a laptop."""
    widths: tuple[PositiveInt, ...] = (84,)
    """Units of each fully connected hidden layer."""
    activation: Activation = "relu"
    """Non-linearity. ReLU's kinks cost HMC acceptance."""
    compute_dtype: ComputeType = None
    """Type in which products are computed; None is that of the weights."""


class ResNet(Frozen):
    """A residual network with filter response normalisation, for images."""

    kind: Annotated[Literal["resnet"], Suppress] = "resnet"
    depth: PositiveInt = 20
    """Layers along the network, 6 k + 2; 8 is for a laptop."""
    width: PositiveInt = 16
    """Channels of the first third; 4 are for a laptop."""
    activation: Activation = "silu"
    """Non-linearity."""
    compute_dtype: ComputeType = None
    """Type in which products are computed; None is that of the weights."""


class CNNLSTM(Frozen):
    """Embedding, convolution and LSTM, for token ids."""

    kind: Annotated[Literal["cnn-lstm"], Suppress] = "cnn-lstm"
    vocabulary: PositiveInt = 20_000
    """Number of tokens; larger ids count as the last. 1000 is for a laptop."""
    embedding: PositiveInt = 128
    """Numbers that stand for a token; 8 are for a laptop."""
    filters: PositiveInt = 64
    """Channels of the convolution; 8 are for a laptop."""
    units: PositiveInt = 128
    """Of the LSTM; 8 are for a laptop."""
    activation: Activation = "relu"
    """Non-linearity. ReLU's kinks cost HMC acceptance."""
    compute_dtype: ComputeType = None
    """Type in which products are computed; None is that of the weights."""


class GaussianPrior(Frozen):
    """Independent Gaussians around zero."""

    kind: Annotated[Literal["gaussian"], Suppress] = "gaussian"
    scale: PositiveFloat = 1.0
    """Standard deviation of every weight that `layer_scales` does not name."""
    layer_scales: dict[str, PositiveFloat] = {}
    """Standard deviation by layer or by pattern, such as layer_0=0.3."""
    fan_in: bool = False
    """Divide a kernel's standard deviation by the square root of its number of inputs."""


class FamilyPrior(Frozen):
    """One family of distributions for every weight, all of zero mean and at the same standard deviation."""

    kind: Annotated[Literal["family"], Suppress] = "family"
    name: Literal["gaussian", "logistic", "laplace", "student-t", "mixture"] = "logistic"
    """Shape of the density; the mixture is of a narrow and a wide Gaussian."""
    scale: PositiveFloat = 1.0
    """Standard deviation of every weight that `layer_scales` does not name, whatever the family."""
    layer_scales: dict[str, PositiveFloat] = {}
    """Standard deviation by layer or by pattern, such as layer_0=0.3."""
    fan_in: bool = False
    """Divide a kernel's standard deviation by the square root of its number of inputs."""
    df: Annotated[float, Field(gt=2)] | None = None
    """Degrees of freedom of student-t, above 2; 4 by default."""
    ratio: Annotated[float, Field(ge=1)] | None = None
    """Standard deviation of the mixture's wide part over that of the narrow one; 4 by default."""

    @model_validator(mode="after")
    def _check(self) -> FamilyPrior:
        for key, owner in (("df", "student-t"), ("ratio", "mixture")):
            if getattr(self, key) is not None and self.name != owner:
                raise ValueError(f"{key} is a setting of the family {owner}, it has no effect on {self.name}: leave it out")
        return self


class EmpiricalCovariancePrior(Frozen):
    """A first layer with the covariance of the inputs (EmpCov); independent Gaussians for all other weights."""

    kind: Annotated[Literal["empirical-covariance"], Suppress] = "empirical-covariance"
    scale: PositiveFloat = 1.0
    """Standard deviation of all weights; the first layer's kernel responds to the inputs as strongly as with independent ones."""
    diagonal: PositiveFloat = 0.01
    """Variance added in all directions, as a share of the mean variance of the inputs."""
    layer: str | None = None
    """Dotted path of the first layer; known for the built-in networks."""


class DistributionPrior(Frozen):
    """The same distribution for every weight, by its name in numpyro.distributions."""

    kind: Annotated[Literal["distribution"], Suppress] = "distribution"
    name: str = "StudentT"
    """A class of numpyro.distributions with the real line as its support."""
    arguments: dict[str, float] = {}
    """Its parameters, such as df=4 scale=0.3."""


class Categorical(Frozen):
    """Class probabilities from logits."""

    kind: Annotated[Literal["categorical"], Suppress] = "categorical"


class Bernoulli(Frozen):
    """Probability of the second of two classes from one logit."""

    kind: Annotated[Literal["bernoulli"], Suppress] = "bernoulli"


class Augmented(Frozen):
    """Class probabilities from logits, the log likelihood averaged over changed copies of each image."""

    kind: Annotated[Literal["augmented"], Suppress] = "augmented"
    augmentation: Literal["shifts", "flips"] = "shifts"
    """Copies moved by a pixel, or mirrored."""


class GaussianNoise(Frozen):
    """Gaussian noise of one scale."""

    kind: Annotated[Literal["gaussian"], Suppress] = "gaussian"
    noise: PositiveFloat | Literal["learned"] = "learned"
    """Standard deviation in units of the standardised targets, or learned with the weights."""


class Heteroscedastic(Frozen):
    """Gaussian noise whose scale is the network's second output."""

    kind: Annotated[Literal["heteroscedastic"], Suppress] = "heteroscedastic"


class Poisson(Frozen):
    """Counts, the logarithm of whose rate is the network's output."""

    kind: Annotated[Literal["poisson"], Suppress] = "poisson"


MODELS = (MLP, LeNet, ResNet, CNNLSTM)
PRIORS = (GaussianPrior, FamilyPrior, EmpiricalCovariancePrior, DistributionPrior)
LIKELIHOODS = (Categorical, Bernoulli, Augmented, GaussianNoise, Heteroscedastic, Poisson)
