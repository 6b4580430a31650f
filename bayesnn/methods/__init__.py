"""Methods that fit a distribution to the posterior and draw from it: baselines for the samplers, on the same problem and budget.

To the engine a fit is a warm-up, which stops, resumes and counts gradients like any other, and its draws are those of a kernel
whose every step has no history.
"""

from bayesnn.methods.approximation import Approximation
from bayesnn.methods.laplace import laplace
from bayesnn.methods.mc_dropout import mc_dropout
from bayesnn.methods.mean_field_vi import mean_field_vi
from bayesnn.methods.swag import swag
from bayesnn.methods.tempered_particles import tempered_particles

__all__ = ["Approximation", "laplace", "mc_dropout", "mean_field_vi", "swag", "tempered_particles"]
