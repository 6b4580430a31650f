"""Markov kernels, stochastic-gradient kernels and optimisers over any log density on a pytree."""

from samplers import processes
from samplers.adjusted_mclmc import adjusted_mclmc
from samplers.barker import barker
from samplers.chains import Chains
from samplers.checkpoint import CheckpointError, load_run, save_run
from samplers.control_variates import control_from_start, control_variates
from samplers.cross_chain_adaptation import cross_chain_adaptation
from samplers.cycles import skip_exploration
from samplers.dynamic_hmc import dynamic_hmc
from samplers.evidence import (
    Evidence,
    NestedEvidence,
    mean_evidence,
    mean_log_evidence,
    nested_evidence,
    stepping_stone,
    thermodynamic_integration,
)
from samplers.folds import BatchMeans, Moments, batch_means, moments
from samplers.ghmc import ghmc
from samplers.hmc import hmc
from samplers.ladder_adaptation import ladder_adaptation
from samplers.loop import KEEP_POSITION, SamplingError, sample, start
from samplers.mala import mala
from samplers.mclmc import mclmc
from samplers.mclmc_adaptation import mclmc_adaptation
from samplers.mesh import compiler_options, make_mesh, place_arrays, place_batch, read_batch
from samplers.minibatch import minibatch
from samplers.nested_sampling import NestedState, nested_sampling
from samplers.nuts import nuts
from samplers.optimise import optimise
from samplers.parallel_tempering import LadderState, parallel_tempering, rejection_rates, round_trips
from samplers.preconditioners import Preconditioner, rmsprop
from samplers.restrict import Restriction, restrict
from samplers.schedules import Schedule, constant, cyclical, polynomial
from samplers.sghmc import sghmc
from samplers.sgld import sgld
from samplers.sgnht import sgnht
from samplers.starts import pathfinder_starts
from samplers.targets import centred, from_logdensity, log_density, log_density_gradients, log_density_terms, pad_batch
from samplers.tempered_smc import ParticleState, tempered_smc
from samplers.types import (
    Batch,
    Fold,
    Health,
    Info,
    Kernel,
    PerChain,
    Proposal,
    Result,
    Run,
    Sampler,
    Save,
    Target,
    Tempering,
    num_params,
)
from samplers.warmup import WarmUp, finish, window_adaptation

__all__ = [
    "KEEP_POSITION",
    "Batch",
    "BatchMeans",
    "Chains",
    "CheckpointError",
    "Evidence",
    "Fold",
    "Health",
    "Info",
    "Kernel",
    "LadderState",
    "Moments",
    "NestedEvidence",
    "NestedState",
    "ParticleState",
    "PerChain",
    "Preconditioner",
    "Proposal",
    "Restriction",
    "Result",
    "Run",
    "Sampler",
    "SamplingError",
    "Save",
    "Schedule",
    "Target",
    "Tempering",
    "WarmUp",
    "adjusted_mclmc",
    "barker",
    "batch_means",
    "centred",
    "compiler_options",
    "constant",
    "control_from_start",
    "control_variates",
    "cross_chain_adaptation",
    "cyclical",
    "dynamic_hmc",
    "finish",
    "from_logdensity",
    "ghmc",
    "hmc",
    "ladder_adaptation",
    "load_run",
    "log_density",
    "log_density_gradients",
    "log_density_terms",
    "make_mesh",
    "mala",
    "mclmc",
    "mclmc_adaptation",
    "mean_evidence",
    "mean_log_evidence",
    "minibatch",
    "moments",
    "nested_evidence",
    "nested_sampling",
    "num_params",
    "nuts",
    "optimise",
    "pad_batch",
    "parallel_tempering",
    "pathfinder_starts",
    "place_arrays",
    "place_batch",
    "polynomial",
    "processes",
    "read_batch",
    "rejection_rates",
    "restrict",
    "rmsprop",
    "round_trips",
    "sample",
    "save_run",
    "sghmc",
    "sgld",
    "sgnht",
    "skip_exploration",
    "start",
    "stepping_stone",
    "tempered_smc",
    "thermodynamic_integration",
    "window_adaptation",
]
