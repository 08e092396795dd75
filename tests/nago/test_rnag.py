"""RNAG: a chain of three flat graphs."""

import networkx as nx
import pytest
import torch

from hotnas_torch.arch import Cell
from hotnas_torch.nago import RNAG, ErdosRenyi, FlatTheta, Theta, WattsStrogatz

THETA = FlatTheta(
    (WattsStrogatz(5, 2, 0.5), WattsStrogatz(32, 4, 0.75), WattsStrogatz(7, 4, 0.2)),
    channel_ratio=(4.0, 1.0, 4.0),
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_sample_is_three_flat_graphs_in_sequence() -> None:
    net = RNAG().sample(THETA, generator=generator())
    assert net.is_chain
    assert all(type(cell) is Cell for cell in net.cells)
    assert [cell.num_operations for cell in net.cells] == [5, 32, 7]
    assert net.channels == (16, 4, 16)
    assert net.downsampling == (1, 2, 4)
    for cell in net.cells:
        assert nx.is_weakly_connected(nx.DiGraph(cell.edges).subgraph(range(1, cell.num_nodes - 1)))


def test_a_seed_gives_one_network() -> None:
    first, second, other = (RNAG().sample(THETA, generator=generator(s)) for s in (0, 0, 1))
    assert first == second != other


def test_refuses() -> None:
    theta = Theta(THETA.stages[0], ErdosRenyi(1, 0.5), THETA.stages[0])
    with pytest.raises(TypeError, match="theta must be a FlatTheta; got Theta"):
        RNAG().sample(theta, generator=generator())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"generator must be given: randomness comes from"):
        RNAG().sample(THETA, generator=None)  # type: ignore[arg-type]
