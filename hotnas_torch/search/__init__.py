"""Search strategies that ask and are told, and running them."""

from hotnas_torch.search.ablations import MutationSearch, RandomPool
from hotnas_torch.search.acquisition import UCB, Acquisition, AcquisitionInputs, LogEI
from hotnas_torch.search.anasod_bo import ANASODBO
from hotnas_torch.search.anasod_local import ANASODLocalSearch
from hotnas_torch.search.anasod_random import ANASODRandomSearch
from hotnas_torch.search.bananas import BANANAS
from hotnas_torch.search.base import Observation, Strategy
from hotnas_torch.search.bayesian import BayesianSearch
from hotnas_torch.search.bo_edit import BOEdit
from hotnas_torch.search.bo_tw import BOTW
from hotnas_torch.search.bohb import BOHB
from hotnas_torch.search.box import BoxSpace, UnitBox
from hotnas_torch.search.distance_search import DistanceSearch
from hotnas_torch.search.encoded_bo import EncodedBO
from hotnas_torch.search.evolution import RegularizedEvolution
from hotnas_torch.search.hotnas import HOTNAS
from hotnas_torch.search.hyperband import Hyperband, Job, JobResult
from hotnas_torch.search.jobs import run_jobs
from hotnas_torch.search.kdpp import sample_kdpp
from hotnas_torch.search.local_search import LocalSearch
from hotnas_torch.search.mobo import MOBO, hypervolume
from hotnas_torch.search.nas_bowl import NASBOWL
from hotnas_torch.search.nasbot import NASBOT
from hotnas_torch.search.random_search import RandomSearch
from hotnas_torch.search.runner import run
from hotnas_torch.search.selection import HypervolumeImprovement, RandomChoice, UncertainPareto
from hotnas_torch.search.storage import Storage
from hotnas_torch.search.surrogates import BNNSurrogate, GPSurrogate
from hotnas_torch.search.tree_search import SamplerSearch, TreeSearch
from hotnas_torch.search.trial import Outcome, SearchResult, Trial
from hotnas_torch.search.trust_region import DirichletTrustRegion

__all__ = [
    "ANASODBO",
    "BANANAS",
    "BOHB",
    "BOTW",
    "HOTNAS",
    "MOBO",
    "NASBOT",
    "NASBOWL",
    "UCB",
    "ANASODLocalSearch",
    "ANASODRandomSearch",
    "Acquisition",
    "AcquisitionInputs",
    "BNNSurrogate",
    "BOEdit",
    "BayesianSearch",
    "BoxSpace",
    "DirichletTrustRegion",
    "DistanceSearch",
    "EncodedBO",
    "GPSurrogate",
    "Hyperband",
    "HypervolumeImprovement",
    "Job",
    "JobResult",
    "LocalSearch",
    "LogEI",
    "MutationSearch",
    "Observation",
    "Outcome",
    "RandomChoice",
    "RandomPool",
    "RandomSearch",
    "RegularizedEvolution",
    "SamplerSearch",
    "SearchResult",
    "Storage",
    "Strategy",
    "TreeSearch",
    "Trial",
    "UncertainPareto",
    "UnitBox",
    "hypervolume",
    "run",
    "run_jobs",
    "sample_kdpp",
]
