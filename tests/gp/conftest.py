import pytest
import torch

from hotnas_torch import spaces


@pytest.fixture(scope="package")
def space():
    """A space of three small cells, on which the reference implementation of the solvers is fast
    enough."""
    return spaces.NASBenchMacro()


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
    from hotnas_torch.distances._tables import cell_tables

    calls = []

    def counted(name, solver):
        def call(*arguments, **options):
            calls.append(name)
            return solver(*arguments, **options)

        return call

    for name in ("cell_distances", "fgw"):
        monkeypatch.setattr(cell_tables, name, counted(name, getattr(cell_tables, name)))
    return calls
