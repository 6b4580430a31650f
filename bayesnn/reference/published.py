"""References that others have published: HMC predictions of Izmailov et al. 2021, released for the NeurIPS 2021 competition."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bayesnn.config import Categorical, Frozen, GaussianPrior
from bayesnn.data import data_directory, images, text
from bayesnn.errors import UsageError
from bayesnn.model_config import CNNLSTM, ResNet
from bayesnn.reference.bundle import Bundle

FILE = Path("hmc_reference", "bdl2021_hmc_probs.npz")
KIT = "izmailovpavel/neurips_bdl_starter_kit, data/{cifar10,imdb}/probs.csv"
PAPER = "Izmailov et al. 2021, arXiv 2104.14421, table 3"


class Published(NamedTuple):
    """What is known of a published reference.

    Attributes:
        array: Of the file, [point, class].
        labels: (data directory) -> test labels in the order of the array's rows.
        posterior: Settings as of a run; what is not known is left out.
        sampling: Chains, draws of each and step size.
        note: What is in doubt.
    """

    array: str
    labels: Callable[[Path], np.ndarray]
    posterior: dict[str, Any]
    sampling: dict[str, Any]
    note: str


def _posterior(model: Frozen, prior_variance: float, num_data: int) -> dict[str, Any]:
    prior = GaussianPrior(scale=math.sqrt(prior_variance))
    parts = {"model": model, "prior": prior, "likelihood": Categorical()}
    plain = {name: part.model_dump(mode="json") for name, part in parts.items()}
    return plain | {
        "num_data": num_data,
        "temperature": 1.0,
        "likelihood_temperature": 1.0,
        "data_sha256": None,
        "num_params": None,
    }


PUBLISHED = {
    "bdl-cifar10": Published(
        "cifar10_test_probs",
        lambda directory: images.cifar(directory / "cifar10", "test", 10).y,
        _posterior(ResNet(), 1 / 5, 40_960),
        {"chains": 3, "draws": 240, "burn_in": 50, "step_size": 1e-5},
        f"The prior variance is 1/5 in {PAPER}; the competition's notebooks say 5, its inverse. The paper's is taken.",
    ),
    "bdl-imdb": Published(
        "imdb_test_probs",
        lambda directory: text.imdb(directory / "imdb")[1].y,
        _posterior(CNNLSTM(), 1 / 40, 20_000),
        {"chains": 3, "draws": 400, "burn_in": 50, "step_size": 1e-5},
        f"The prior variance is 1/40 in {PAPER}; the competition's notebooks say 1. The paper's is taken.",
    ),
}


def published(name: str) -> Bundle:
    """Load a published reference from the data directory.

    Its chains are pooled, so it has no floor of its own: whether a run is as close as another HMC run would be cannot be told.

    Args:
        name: A key of `PUBLISHED`.

    Raises:
        UsageError: The predictions or the labels are missing or damaged; says what to put where.
    """
    from diagnostics.floor import Prefixes

    known = PUBLISHED[name]
    try:
        directory = data_directory()
        with np.load(directory / FILE, allow_pickle=False) as file:
            probability = file[known.array].astype(np.float64)
        labels = known.labels(directory)
    except FileNotFoundError:
        raise UsageError(f"no file {directory / FILE}: put there {known.array} [point, class] of {KIT}") from None
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"the reference {name} cannot be read: {error}") from None
    if probability.shape[0] != len(labels):
        raise UsageError(
            f"{name} has {len(probability)} predictions and the test split {len(labels)} labels: the files do not match"
        )
    draws = known.sampling["chains"] * known.sampling["draws"]
    facts = {
        "sampler": {"kind": "hmc", **known.sampling},
        "source": KIT,
        "scores": _scores(probability, labels),
        "notes": [known.note, "Its chains are pooled."],
    }
    prefixes = Prefixes((draws,), (probability[None, None],), math.nan, math.nan)
    return Bundle(name, "classification", known.posterior, facts, prefixes, labels)


def _scores(probability: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    from diagnostics.predictive import predictive_scores
    from diagnostics.trees import make_tree

    tree = make_tree(
        attrs={"kind": "mcmc", "task": "classification"},
        posterior={"not_published": np.zeros((1, 1))},
        functions={
            "probability": probability[None, None],
            "log_likelihood": np.log(probability[np.arange(len(labels)), labels])[None, None],
        },
        observed_data={"y_test": labels},
    )
    return {name: list(estimate) for name, estimate in predictive_scores(tree).items()}
