"""Markov kernels, stochastic-gradient kernels and optimisers over any log density on a pytree."""

from samplers.checkpoint import CheckpointError, load_run, save_run
from samplers.folds import Moments, moments
from samplers.hmc import hmc
from samplers.loop import KEEP_POSITION, SamplingError, sample, start
from samplers.mesh import lift, make_mesh
from samplers.minibatch import minibatch
from samplers.nuts import nuts
from samplers.optimise import optimise
from samplers.preconditioners import Preconditioner, rmsprop
from samplers.sgld import sgld
from samplers.targets import centred, from_logdensity, log_density, log_density_terms, pad_batch
from samplers.types import Batch, Fold, Health, Info, Kernel, PerChain, Result, Run, Sampler, Save, Target, Tempering, num_params
from samplers.warmup import WarmUp, finish, window_adaptation

__all__ = [
    "KEEP_POSITION",
    "Batch",
    "CheckpointError",
    "Fold",
    "Health",
    "Info",
    "Kernel",
    "Moments",
    "PerChain",
    "Preconditioner",
    "Result",
    "Run",
    "Sampler",
    "SamplingError",
    "Save",
    "Target",
    "Tempering",
    "WarmUp",
    "centred",
    "finish",
    "from_logdensity",
    "hmc",
    "lift",
    "load_run",
    "log_density",
    "log_density_terms",
    "make_mesh",
    "minibatch",
    "moments",
    "num_params",
    "nuts",
    "optimise",
    "pad_batch",
    "rmsprop",
    "sample",
    "save_run",
    "sgld",
    "start",
    "window_adaptation",
]
