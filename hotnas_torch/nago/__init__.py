"""Generators of networks (NAGO): their boxes, searches in them, models of what they make."""

from hotnas_torch.nago.batches import fitted_batch
from hotnas_torch.nago.bnn import BNN, NoisyEnsemblePosterior, Sampling
from hotnas_torch.nago.bohb import BOHB
from hotnas_torch.nago.box import Box, UnitBox
from hotnas_torch.nago.hnag import HNAG
from hotnas_torch.nago.hyperband import Hyperband, Job, JobResult
from hotnas_torch.nago.jobs import run_jobs
from hotnas_torch.nago.kernel import (
    GeneratorGP,
    GeneratorKernel,
    GeneratorSamples,
    generator_metric,
)
from hotnas_torch.nago.mobo import MOBO, hypervolume
from hotnas_torch.nago.modules import (
    GeneratedModule,
    GeneratedSkeleton,
    count_parameters,
    fit_channels,
    memory_per_sample,
)
from hotnas_torch.nago.network_box import NetworkBox
from hotnas_torch.nago.random_graphs import ErdosRenyi, RandomGraph, WattsStrogatz
from hotnas_torch.nago.rnag import RNAG
from hotnas_torch.nago.selection import HypervolumeImprovement, RandomChoice, UncertainPareto
from hotnas_torch.nago.sghmc import sample_sghmc
from hotnas_torch.nago.surrogates import BNNSurrogate, GPSurrogate
from hotnas_torch.nago.theta import (
    FlatTheta,
    FlatThetaSpace,
    Theta,
    ThetaSpace,
)
from hotnas_torch.nago.training import GeneratorTraining, NetworkGenerator

__all__ = [
    "BNN",
    "BOHB",
    "HNAG",
    "MOBO",
    "RNAG",
    "BNNSurrogate",
    "Box",
    "ErdosRenyi",
    "FlatTheta",
    "FlatThetaSpace",
    "GPSurrogate",
    "GeneratedModule",
    "GeneratedSkeleton",
    "GeneratorGP",
    "GeneratorKernel",
    "GeneratorSamples",
    "GeneratorTraining",
    "Hyperband",
    "HypervolumeImprovement",
    "Job",
    "JobResult",
    "NetworkBox",
    "NetworkGenerator",
    "NoisyEnsemblePosterior",
    "RandomChoice",
    "RandomGraph",
    "Sampling",
    "Theta",
    "ThetaSpace",
    "UncertainPareto",
    "UnitBox",
    "WattsStrogatz",
    "count_parameters",
    "fit_channels",
    "fitted_batch",
    "generator_metric",
    "hypervolume",
    "memory_per_sample",
    "run_jobs",
    "sample_sghmc",
]
