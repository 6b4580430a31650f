"""Markov kernels, stochastic-gradient kernels and optimisers over any log density on a pytree."""

from samplers.hmc import hmc
from samplers.loop import SamplingError, keep_position, sample
from samplers.mesh import lift, make_mesh
from samplers.targets import centred, from_logdensity, log_density, log_density_terms, pad_batch
from samplers.types import Batch, Fold, Health, Info, Kernel, PerChain, Result, Run, Sampler, Save, Target, Tempering

__all__ = [
    "Batch",
    "Fold",
    "Health",
    "Info",
    "Kernel",
    "PerChain",
    "Result",
    "Run",
    "Sampler",
    "SamplingError",
    "Save",
    "Target",
    "Tempering",
    "centred",
    "from_logdensity",
    "hmc",
    "keep_position",
    "lift",
    "log_density",
    "log_density_terms",
    "make_mesh",
    "pad_batch",
    "sample",
]
