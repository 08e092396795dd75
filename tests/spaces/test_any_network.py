"""All networks over a tree, as what distances and models ask of a space."""

import pickle

import pytest
import torch

from hotnas_torch.arch import Cell, NestedCell, Network, OperationTree
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import AnyNetwork

KINDS = ("input", "output", "conv")


@pytest.fixture
def space() -> AnyNetwork:
    parents = {"op": None, **dict.fromkeys(KINDS, "op")}
    return AnyNetwork(OperationTree(parents, dict.fromkeys(KINDS, 1.0), {"kernel": 0.5}))


def network(*labels: str) -> Network:
    pairs = tuple((i, i + 1) for i in range(len(labels) + 1))
    return Network.chain([Cell(("input", *labels, "output"), pairs)], (8,), (1,))


def test_rows_are_numbers_of_networks(space: AnyNetwork) -> None:
    nets = [network("conv"), network("conv[kernel=3]"), network("conv")]
    rows = space.encode(nets)
    assert rows.tolist() == [[0.0], [1.0], [0.0]]
    assert space.decode(rows) == nets
    assert space.encode([network("conv", "conv"), nets[1]]).tolist() == [[2.0], [1.0]]
    assert pickle.loads(pickle.dumps(space)).decode(rows) == nets
    with pytest.raises(ArchitectureError, match=r"X\[0\].*it has encoded 3 networks"):
        space.decode(torch.tensor([[3.0]]))
    with pytest.raises(ArchitectureError, match="must be a whole number"):
        space.decode(torch.tensor([[0.5]]))


def test_it_holds_the_networks_whose_operations_the_tree_knows(space: AnyNetwork) -> None:
    inner = network("conv[kernel=3]").cells[0]
    nested = NestedCell.from_nodes(["input", inner, "output"], ((0, 1), (1, 2)))
    assert Network.chain([nested], (8,), (1,)) in space
    assert network("conv[kernel=5]") in space
    assert network("conv[width=5]") not in space
    assert "conv" not in space
    with pytest.raises(ArchitectureError, match=r"nets\[1\]: label 'pool' is not an operation"):
        space.encode([network("conv"), network("pool")])
    with pytest.raises(TypeError, match=r"nets\[0\] must be a Network"):
        space.encode([3])  # type: ignore[list-item]


def test_it_is_nothing_to_search_in(space: AnyNetwork) -> None:
    generator = torch.Generator()
    for ask in (
        space.size,
        lambda: space.sample(1, generator=generator),
        lambda: space.mutate(network("conv"), generator=generator),
        lambda: space.neighbors(network("conv")),
        lambda: space.from_string("conv"),
        lambda: list(space),
    ):
        with pytest.raises(ValueError, match="cannot be drawn, listed, edited or read"):
            ask()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"state_scale": (1.0, 0.0)}, ValueError, "state_scale must be two numbers > 0"),
        ({"state_scale": 1.0}, TypeError, "state_scale must be"),
        ({"max_nodes": 1}, ValueError, "max_nodes must be"),
        ({"tree": "tree"}, TypeError, "tree must be an OperationTree"),
    ],
)
def test_bad_arguments_are_refused_in_words(space, settings, error, message) -> None:
    with pytest.raises(error, match=message):
        AnyNetwork(**{"tree": space.tree, **settings})
