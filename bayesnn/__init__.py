"""Sample Bayesian posteriors of neural networks, and audit the draws. Names are imported when they are first used."""

# ruff: noqa: F401  (the imports below are for type checkers; at run time the table serves)

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesnn.config import HMC, NUTS, SGLD, Imported, Optimise, RunConfig, Stop, WarmUp
    from bayesnn.errors import UsageError
    from bayesnn.inference import Sampled, sample
    from bayesnn.load import LoadedRun, load_run
    from bayesnn.posteriors import Posterior, posterior
    from bayesnn.problem import Problem, density_problem, numpyro_problem

_HOME = {
    "HMC": "config",
    "Imported": "config",
    "LoadedRun": "load",
    "NUTS": "config",
    "Optimise": "config",
    "Posterior": "posteriors",
    "Problem": "problem",
    "RunConfig": "config",
    "SGLD": "config",
    "Sampled": "inference",
    "Stop": "config",
    "UsageError": "errors",
    "WarmUp": "config",
    "density_problem": "problem",
    "load_run": "load",
    "numpyro_problem": "problem",
    "posterior": "posteriors",
    "sample": "inference",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
