"""Distances between networks whose operations carry numbers."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from hotnas_torch.arch import Cell, NestedCell, Network, Operation, OperationTree
from hotnas_torch.distances import HOTNN, IFGW
from hotnas_torch.distances.edit_distance import EditDistance
from hotnas_torch.distances.network_distance import NetworkDistance
from hotnas_torch.distances.otmann import OTMANN
from hotnas_torch.distances.tree_wasserstein import TreeWasserstein
from hotnas_torch.distances.weisfeiler_lehman import WeisfeilerLehman
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import SearchSpace

KINDS = ("input", "output", "conv_3x3", "identity", "avg_pool_3x3")
LENGTHS = {"input": 1.0, "output": 1.3, "conv_3x3": 0.9, "identity": 0.7, "avg_pool_3x3": 1.1}
WEIGHTS = {"kernel": 0.5, "width": 0.3}
EXACT = {"tol": 1e-12, "max_iter": 500, "dtype": torch.float64}


def tree_of(weights: dict[str, float] | None = WEIGHTS) -> OperationTree:
    return OperationTree({"op": None, **dict.fromkeys(KINDS, "op")}, LENGTHS, weights)


def cell(*labels: str) -> Cell:
    """The labels in a row, and an edge from the input to the output."""
    size = len(labels) + 1
    edges = sorted({(i, i + 1) for i in range(size)} | {(0, size)})
    return Cell(("input", *labels, "output"), tuple(edges))


def conv(kernel: float, width: float) -> str:
    return str(Operation("conv_3x3", kernel=kernel, width=width))


def networks(unit: float = 1.0) -> list[Network]:
    """Chains of two cells; all widths are multiples of `unit`."""
    cells = [
        cell(conv(3, 64 * unit), "identity", conv(1, 128 * unit)),
        cell(conv(5, 96 * unit), f"conv_3x3[width={Operation('x', w=24 * unit).numbers['w']:g}]"),
        cell("avg_pool_3x3[kernel=3]", conv(3, 64 * unit)),
        cell("conv_3x3", "identity"),
        cell(conv(7, 64 * unit)),
    ]
    return [
        Network.chain([one, two], (16, 32), (1, 2))
        for one, two in zip(cells, [*cells[1:], cells[0]], strict=True)
    ]


def chain(nets: Sequence[Network]) -> list[Cell]:
    return [one for net in nets for one in net.cells]


class Listed(SearchSpace):
    """A few networks as a space."""

    name, operations, max_nodes, state_scale = "listed", ("conv_3x3",), 6, (1.0, 1.0)

    def __init__(self, nets: Sequence[Network], tree: OperationTree) -> None:
        self._nets = list(nets)
        flat = [one.flatten() if isinstance(one, NestedCell) else one for one in chain(nets)]
        labels = {label for one in flat for label in one.ops}
        super().__init__(tree, tree, sorted(labels), ["place"])

    def size(self) -> int:
        return len(self._nets)

    def contains(self, net: object) -> bool:
        return net in self._nets

    def _unused(self, *args: object) -> Iterator[object]:
        raise NotImplementedError(args)

    _codes = _parse = _format = _network = _make_cell = _draw = _mutate = _edits = _fault = _unused


def all_distances(nets: Sequence[Network], weights: dict[str, float]) -> dict[str, NetworkDistance]:
    space = Listed(nets, tree_of(weights))
    return {
        "hotnn": HOTNN(tree=space.tree, **EXACT),
        "edit": EditDistance(space),
        "bound": EditDistance(space, method="lower"),
        "otmann": OTMANN(space),
        "tree_wasserstein": TreeWasserstein(space),
        "bigrams": TreeWasserstein(space, grams=2),
        "weisfeiler_lehman": WeisfeilerLehman(space),
        "kinds": WeisfeilerLehman(space, numbers=False),
    }


UNITS = ("tree_wasserstein", "bigrams")
"""Operations without a number stand where it is 1."""
NAMES = list(all_distances(networks(), WEIGHTS))


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_distances_between_numbered_networks_are_distances(name: str) -> None:
    nets = networks()
    found = all_distances(nets, WEIGHTS)[name](nets)
    assert torch.equal(found, found.T)
    assert not bool(found.diagonal().any())
    apart = found[~torch.eye(len(nets), dtype=torch.bool)]
    assert bool((apart > 0.0).all())
    assert torch.equal(found[:2, 3:], all_distances(nets, WEIGHTS)[name](nets[:2], nets[3:]))


@pytest.mark.parametrize("name", NAMES)
def test_results_do_not_depend_on_batch_neighbours(name: str) -> None:
    nets = networks()
    metric = all_distances(nets, WEIGHTS)[name]
    assert torch.equal(metric(nets)[:2, :2], metric(nets[:2]))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNITS])
def test_the_unit_of_a_number_does_not_matter(name: str) -> None:
    found = all_distances(networks(), WEIGHTS)[name](networks())
    large = networks(4.0)
    close(all_distances(large, WEIGHTS)[name](large), found)


@pytest.mark.parametrize("name", ["hotnn", "edit", "bound", "tree_wasserstein", "bigrams"])
def test_weights_of_zero_leave_the_distance_between_the_kinds(name: str) -> None:
    nets = networks()
    without = [
        Network.chain(
            [Cell(tuple(op.partition("[")[0] for op in c.ops), c.edges) for c in net.cells],
            net.channels,
            net.downsampling,
        )
        for net in nets
    ]
    zero = all_distances(nets, dict.fromkeys(WEIGHTS, 0.0))[name](nets)
    plain = all_distances(without, {})[name](without)
    close(zero, plain)
    assert not torch.allclose(zero, all_distances(nets, WEIGHTS)[name](nets))


def test_a_chain_of_one_operation_costs_what_the_label_does() -> None:
    labels = [conv(3, 64), conv(7, 64), conv(3, 256), "avg_pool_3x3[kernel=2]"]
    cells = [cell(label) for label in labels]
    tree = tree_of()
    found = IFGW(tree=tree, lam=1.0, eps=1.0, **EXACT)(cells)
    close(found, tree.distance_matrix(labels, dtype=torch.float64) / 3.0)
    space = Listed([Network.chain([c], (1,), (1,)) for c in cells], tree)
    close(
        EditDistance(space).cell_distances(cells, cells),
        tree.distance_matrix(labels, dtype=torch.float64),
    )


def test_both_backends_agree() -> None:
    nets = networks()
    compiled, reference = (HOTNN(tree=tree_of(), backend=b, **EXACT) for b in ("auto", "torch"))
    torch.testing.assert_close(compiled(nets), reference(nets), rtol=1e-6, atol=1e-6)


@pytest.mark.ext
def test_hotnn_is_differentiable_in_lengths_and_weights() -> None:
    nets, tree = networks()[:4], tree_of()

    def distances(lengths: Tensor, weights: Tensor, eta: Tensor) -> Tensor:
        costs = tree.with_lengths(lengths).with_weights(weights)
        return HOTNN(tree=costs, eta=eta, **EXACT)(nets)

    given = (
        tree.lengths_tensor(dtype=torch.float64).requires_grad_(),
        tree.weights_tensor(dtype=torch.float64).requires_grad_(),
        torch.tensor(0.4, dtype=torch.float64, requires_grad=True),
    )
    assert gradcheck(distances, given, check_forward_ad=True)


@pytest.mark.parametrize("method", ["exact", "lower", "upper"])
def test_edit_distances_are_differentiable_in_weights(method: str) -> None:
    # Without ties: each operation has all numbers, or none of its kind has any.
    cells = [cell(conv(3, 64), "identity", conv(1, 128)), cell(conv(5, 96)), cell(conv(7, 50))]
    nets = [Network.chain([one], (1,), (1,)) for one in cells]
    space = Listed(nets, tree_of())
    weights = space.tree.weights_tensor(dtype=torch.float64).requires_grad_()

    def distances(weights: Tensor) -> Tensor:
        tree = space.tree.with_weights(weights)
        return EditDistance(space, tree=tree, node_cost=2.0, method=method)(nets)

    assert gradcheck(distances, (weights,))


def test_nested_cells_carry_numbers() -> None:
    inner = [cell(conv(kernel, 64), "identity") for kernel in (3, 5, 7)]
    edges = ((0, 1), (1, 2), (2, 3))
    cells = [NestedCell.from_nodes(["input", one, conv(3, 32), "output"], edges) for one in inner]
    metric = IFGW(tree=tree_of(), **EXACT)
    found = metric(cells)
    assert 0.0 < found[0, 1] < found[0, 2]
    torch.testing.assert_close(found[:2, :2], metric(cells[:2]), rtol=0.0, atol=0.0)
    nets = [Network.chain([one], (1,), (1,)) for one in cells]
    flat = [Network.chain([one.flatten()], (1,), (1,)) for one in cells]
    space = Listed([*nets, *flat], tree_of())
    for other in (TreeWasserstein(space), WeisfeilerLehman(space), OTMANN(space)):
        assert not bool(other(nets, flat).diagonal().any())
        assert bool(other(nets)[0, 1] > 0.0)


def test_a_number_without_a_weight_is_refused_before_work_starts() -> None:
    nets = [*networks(), Network.chain([cell("conv_3x3[stride=2]")], (1,), (1,))]
    message = r"nets_a\[5\].cells\[0\] has the operation 'conv_3x3\[stride=2\]' at node 1"
    with pytest.raises(ArchitectureError, match=message):
        HOTNN(tree=tree_of())(nets)
    with pytest.raises(ArchitectureError, match=r"cells_a\[0\].*written shortest"):
        IFGW(tree=tree_of())([cell("conv_3x3[width=064]")])
    with pytest.raises(ArchitectureError, match="to which this tree gives no weight"):
        Listed(nets, tree_of())


def test_the_price_of_a_node_covers_what_numbers_cost() -> None:
    space = Listed(networks(), tree_of({"kernel": 3.0, "width": 2.0}))
    assert EditDistance(space).node_cost == pytest.approx((1.3 + 1.1 + 5.0) / 2)
    with pytest.raises(ValueError, match="node_cost must be at least half"):
        EditDistance(space, node_cost=1.0)


def test_a_matrix_is_stored_with_its_weights(tmp_path) -> None:
    nets = networks()
    file = tmp_path / "gram.npz"
    first = HOTNN(tree=tree_of()).gram(nets, out=file, progress=False)
    assert torch.equal(HOTNN(tree=tree_of())(nets), first)
    with pytest.raises(ValueError, match="weights|another computation|tree"):
        HOTNN(tree=tree_of({"kernel": 0.6, "width": 0.3})).gram(nets, out=file, progress=False)
