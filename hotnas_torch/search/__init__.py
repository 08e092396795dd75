"""Search strategies that ask and observe, and running them."""

from hotnas_torch.search.base import Observation, Strategy
from hotnas_torch.search.bayesian.acquisition import (
    UCB,
    Acquisition,
    AcquisitionInputs,
    LogEI,
    LogNEHVI,
    LogNParEGO,
    ThompsonSampling,
)
from hotnas_torch.search.bayesian.anasod_bo import ANASODBO
from hotnas_torch.search.bayesian.averaged import AveragedSurrogate
from hotnas_torch.search.bayesian.bananas import BANANAS
from hotnas_torch.search.bayesian.batches import (
    Batch,
    Believer,
    Determinantal,
    PendingAware,
    RandomChoice,
)
from hotnas_torch.search.bayesian.bo_edit import BOEdit
from hotnas_torch.search.bayesian.bo_tw import BOTW
from hotnas_torch.search.bayesian.choice import Choice
from hotnas_torch.search.bayesian.combined import CombinedBO, CombinedSurrogate
from hotnas_torch.search.bayesian.encoded_bo import EncodedBO
from hotnas_torch.search.bayesian.hotnas import HOTNAS
from hotnas_torch.search.bayesian.kdpp import sample_kdpp
from hotnas_torch.search.bayesian.multi_fidelity import MultiFidelityHOTNAS
from hotnas_torch.search.bayesian.nas_bowl import NASBOWL
from hotnas_torch.search.bayesian.nasbot import NASBOT
from hotnas_torch.search.bayesian.outcomes import OutcomeModels
from hotnas_torch.search.bayesian.pools import (
    BredPool,
    EncodingPool,
    MutantPool,
    Pool,
    ScreenedPool,
)
from hotnas_torch.search.bayesian.random_pool import RandomPool
from hotnas_torch.search.bayesian.recipe import SearchSettings
from hotnas_torch.search.bayesian.search import BayesianSearch
from hotnas_torch.search.bayesian.surrogates import (
    DistanceSurrogate,
    EnsembleSurrogate,
    FeatureSurrogate,
    HOTNNSurrogate,
    Surrogate,
    WeisfeilerLehmanSurrogate,
)
from hotnas_torch.search.bayesian.trust_region import DirichletTrustRegion
from hotnas_torch.search.direct.anasod_local import ANASODLocalSearch
from hotnas_torch.search.direct.anasod_random import ANASODRandomSearch
from hotnas_torch.search.direct.evolution import RegularizedEvolution
from hotnas_torch.search.direct.local_search import LocalSearch
from hotnas_torch.search.direct.mutation import MutationSearch
from hotnas_torch.search.direct.pareto_evolution import ParetoEvolution
from hotnas_torch.search.direct.random_search import RandomSearch
from hotnas_torch.search.direct.tree_search import SamplerSearch, TreeSearch
from hotnas_torch.search.fidelity import Fidelity, FullTrainings
from hotnas_torch.search.goal import Goal
from hotnas_torch.search.goal_settings import Constraint
from hotnas_torch.search.running.runner import run
from hotnas_torch.search.running.storage import Storage
from hotnas_torch.search.running.trial import Outcome, SearchResult, Trial

__all__ = [
    "ANASODBO",
    "BANANAS",
    "BOTW",
    "HOTNAS",
    "NASBOT",
    "NASBOWL",
    "UCB",
    "ANASODLocalSearch",
    "ANASODRandomSearch",
    "Acquisition",
    "AcquisitionInputs",
    "AveragedSurrogate",
    "BOEdit",
    "Batch",
    "BayesianSearch",
    "Believer",
    "BredPool",
    "Choice",
    "CombinedBO",
    "CombinedSurrogate",
    "Constraint",
    "Determinantal",
    "DirichletTrustRegion",
    "DistanceSurrogate",
    "EncodedBO",
    "EncodingPool",
    "EnsembleSurrogate",
    "FeatureSurrogate",
    "Fidelity",
    "FullTrainings",
    "Goal",
    "HOTNNSurrogate",
    "LocalSearch",
    "LogEI",
    "LogNEHVI",
    "LogNParEGO",
    "MultiFidelityHOTNAS",
    "MutantPool",
    "MutationSearch",
    "Observation",
    "Outcome",
    "OutcomeModels",
    "ParetoEvolution",
    "PendingAware",
    "Pool",
    "RandomChoice",
    "RandomPool",
    "RandomSearch",
    "RegularizedEvolution",
    "SamplerSearch",
    "ScreenedPool",
    "SearchResult",
    "SearchSettings",
    "Storage",
    "Strategy",
    "Surrogate",
    "ThompsonSampling",
    "TreeSearch",
    "Trial",
    "WeisfeilerLehmanSurrogate",
    "run",
    "sample_kdpp",
]
