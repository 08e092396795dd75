"""The tests of each method notice a model that has learned nothing."""

import importlib.util
import inspect
from pathlib import Path

import pytest
import torch

from hotnas_torch.search import BayesianSearch
from hotnas_torch.testing.strategy import StrategyContract

HERE = Path(__file__).parent


def contracts():
    """The contract of each method in this folder that has a model."""
    for path in sorted(HERE.glob("test_*.py")):
        if path == Path(__file__) or "StrategyContract" not in path.read_text(encoding="utf-8"):
            continue
        spec = importlib.util.spec_from_file_location(f"contracts_of_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, kind in vars(module).items():
            if (
                inspect.isclass(kind)
                and issubclass(kind, StrategyContract)
                and not inspect.isabstract(kind)
                and kind.least_rank_correlation is not None
            ):
                yield pytest.param(kind, id=f"{path.stem}::{name}")


CONTRACTS = list(contracts())


def test_every_method_with_a_model_has_a_contract():
    def methods(kind):
        return {kind} | {one for below in kind.__subclasses__() for one in methods(below)}

    named = {kind.name for kind in methods(BayesianSearch) if kind.__module__.startswith("hotnas")}
    tested = {param.values[0]().strategy().name for param in CONTRACTS}
    assert named - tested == {"bayesian", "random_pool"}  # the class itself, and no model


@pytest.mark.filterwarnings("ignore::hotnas_torch.errors.NoiseWarning")
@pytest.mark.parametrize("kind", CONTRACTS)
def test_a_model_fitted_to_shuffled_targets_is_noticed(kind, monkeypatch):
    fit = BayesianSearch._fit_explained

    def shuffled(self, fitted, X, Y, noise):
        order = torch.randperm(len(Y), generator=torch.Generator().manual_seed(len(Y)))
        return fit(self, fitted, X, Y[order], noise)

    monkeypatch.setattr(BayesianSearch, "_fit_explained", shuffled)
    with pytest.raises(AssertionError):
        kind().test_the_model_ranks_networks_that_it_has_not_seen()
