import pytest
import torch

from hotnas_torch import spaces


@pytest.fixture(scope="package")
def space():
    return spaces.NASBench201()


@pytest.fixture(scope="package")
def nets(space):
    """Distinct networks, six of them."""
    return space.sample(6, generator=torch.Generator().manual_seed(0), distinct=True)


@pytest.fixture(scope="package")
def X(space, nets):
    return space.encode(nets)


@pytest.fixture
def solver_calls(monkeypatch):
    """Names of the solvers between cells that were called, in order."""
    from hotnas_torch.metrics import cell_tables

    calls = []
    for name in ("cell_distances", "fgw"):

        def counted(*arguments, _name=name, _solver=getattr(cell_tables, name), **options):
            calls.append(_name)
            return _solver(*arguments, **options)

        monkeypatch.setattr(cell_tables, name, counted)
    return calls
