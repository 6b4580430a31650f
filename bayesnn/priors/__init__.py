"""Priors over the weights of a network: normalised, and resolved to one distribution a parameter by dotted-name patterns.

A prior is written before the network's parameters are known: everything it computes takes them, or arrays of their shapes, as an
argument. Its numbers (scales, degrees of freedom) are constants of the batch, so that another scale recompiles nothing.
"""

from bayesnn.priors.distribution import from_distribution, from_name
from bayesnn.priors.empirical_covariance import empirical_covariance
from bayesnn.priors.family import FAMILIES, family
from bayesnn.priors.gaussian import LOG_SQRT_2PI, gaussian
from bayesnn.priors.prior import Prior, check_prior

__all__ = [
    "FAMILIES",
    "LOG_SQRT_2PI",
    "Prior",
    "check_prior",
    "empirical_covariance",
    "family",
    "from_distribution",
    "from_name",
    "gaussian",
]
