"""What numbers of operations add to the costs of a tree: a metric of ratios, with gradients."""

import json
import math

import pytest
import torch
from torch.autograd import gradcheck

from hotnas_torch.arch import OperationTree
from hotnas_torch.arch.number_costs import number_difference
from hotnas_torch.errors import ArchitectureError

PARENTS = {"op": None, "conv": "op", "linear": "op", "relu": "op"}
LENGTHS = {"conv": 1.0, "linear": 0.75, "relu": 0.5}
WEIGHTS = {"kernel": 0.5, "width": 0.25}
LABELS = [
    "conv[kernel=3,width=64]",
    "conv[kernel=7,width=64]",
    "conv[kernel=3]",
    "linear[width=1000]",
    "linear",
    "relu",
    "conv[kernel=0.001,width=1e+300]",
]


@pytest.fixture
def tree() -> OperationTree:
    return OperationTree(PARENTS, LENGTHS, WEIGHTS)


def test_costs_are_what_the_definition_says(tree: OperationTree) -> None:
    def between(a: dict[str, float], b: dict[str, float]) -> float:
        total = 0.0
        for name, weight in WEIGHTS.items():
            if name in a and name in b:
                total += weight * (1.0 - 2.0 ** (-abs(math.log2(a[name] / b[name])) / 2.0))
            elif name in a or name in b:
                total += weight / 2.0
        return total

    kinds = tree.distance_matrix(dtype=torch.float64)
    read = [
        (0, {"kernel": 3.0, "width": 64.0}),
        (0, {"kernel": 7.0, "width": 64.0}),
        (0, {"kernel": 3.0}),
        (1, {"width": 1000.0}),
        (1, {}),
        (2, {}),
        (0, {"kernel": 0.001, "width": 1e300}),
    ]
    wanted = [[float(kinds[k, m]) + between(a, b) for m, b in read] for k, a in read]
    found = tree.distance_matrix(LABELS, dtype=torch.float64)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_costs_are_a_metric(tree: OperationTree, rng: torch.Generator) -> None:
    values = torch.randn(60, 2, generator=rng, dtype=torch.float64).mul(4).exp2().tolist()
    labels = [f"conv[kernel={k!r},width={w!r}]" for k, w in values]
    labels += [f"linear[width={w!r}]" for _, w in values[:10]]
    costs = tree.distance_matrix([*labels, *tree.kinds], dtype=torch.float64)
    assert torch.equal(costs, costs.T)
    assert torch.equal(costs.diagonal(), torch.zeros(len(costs), dtype=torch.float64))
    assert bool((costs[:, None] <= costs[:, :, None] + costs[None].mT + 1e-12).all())
    assert costs.max() <= tree.largest_cost()


def test_without_numbers_the_costs_are_the_trees(tree: OperationTree) -> None:
    plain = OperationTree(PARENTS, LENGTHS)
    assert torch.equal(plain.distance_matrix(), tree.distance_matrix())
    names = ["relu", "conv"]
    assert torch.equal(plain.distance_matrix(names), tree.distance_matrix(names))
    same = ["conv[kernel=3]", "linear[kernel=3]"]
    assert float(tree.distance_matrix(same)[0, 1]) == 1.75


def test_only_ratios_matter(tree: OperationTree) -> None:
    small = ["conv[width=24]", "conv[width=36]", "conv[width=100]"]
    large = ["conv[width=96]", "conv[width=144]", "conv[width=400]"]
    assert torch.equal(tree.distance_matrix(small), tree.distance_matrix(large))


def test_a_cost_depends_on_its_two_labels_alone(tree: OperationTree) -> None:
    alone = tree.distance_matrix(LABELS[:2], dtype=torch.float32)
    assert torch.equal(tree.distance_matrix(LABELS, dtype=torch.float32)[:2, :2], alone)
    many = [*LABELS, *(f"linear[width={width}]" for width in range(1, 1500))]
    assert torch.equal(tree.distance_matrix(many, dtype=torch.float32)[:2, :2], alone)
    rows = tree.with_labels(["relu", *LABELS[:2]])
    assert torch.equal(rows.distance_matrix(dtype=torch.float32)[1:, 1:], alone)


def test_the_difference_of_numbers_knows_absence() -> None:
    nothing = torch.nan
    x = torch.tensor([1.0, 1.0, nothing, nothing, 1e308, 2.0], dtype=torch.float64)
    y = torch.tensor([4.0, nothing, 3.0, nothing, 1e-308, 2.0], dtype=torch.float64)
    assert number_difference(x, y).tolist() == [0.5, 0.5, 0.5, 0.0, 1.0, 0.0]


def test_costs_are_differentiable_in_lengths_and_weights(tree: OperationTree) -> None:
    lengths = tree.lengths_tensor(dtype=torch.float64).requires_grad_()
    weights = tree.weights_tensor(dtype=torch.float64).requires_grad_()

    def costs(lengths: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return tree.with_lengths(lengths).with_weights(weights).distance_matrix(LABELS)

    assert gradcheck(costs, (lengths, weights))
    own = OperationTree(PARENTS, LENGTHS, {"kernel": torch.tensor(0.5, requires_grad=True)})
    assert own.distance_matrix(["conv[kernel=1]", "conv[kernel=4]"]).requires_grad


def test_rows_are_those_asked_for(tree: OperationTree) -> None:
    rows = tree.with_labels(LABELS)
    assert rows.labels == tuple(LABELS)
    assert rows.kinds == tree.labels
    assert rows.index(LABELS[3]) == 3
    assert torch.equal(rows.distance_matrix(), tree.distance_matrix(LABELS))
    doubled = rows.with_weights(2 * rows.weights_tensor())
    assert doubled.labels == tuple(LABELS)
    assert OperationTree.from_json(rows.to_json()).labels == tree.labels
    with pytest.raises(ArchitectureError, match=r"labels\[1\] = 'relu' is repeated"):
        tree.with_labels(["relu", "relu"])
    with pytest.raises(ArchitectureError, match="has no row of its own"):
        tree.index(LABELS[0])


def test_json_carries_the_weights(tree: OperationTree) -> None:
    matrix = OperationTree.from_matrix(["conv", "relu"], [[0.0, 1.0], [1.0, 0.0]], WEIGHTS)
    for costs in (tree, matrix):
        data = json.loads(json.dumps(costs.to_json()))
        assert data["weights"] == WEIGHTS
        again = OperationTree.from_json(data)
        assert again.weights == WEIGHTS
        labels = ["conv[kernel=5]", "relu"]
        assert torch.equal(again.distance_matrix(labels), costs.distance_matrix(labels))
    assert "weights" not in OperationTree(PARENTS, LENGTHS).to_json()
    assert "weights kernel=0.5, width=0.25" in repr(tree)
    with pytest.raises(ArchitectureError, match=r"weights\['kernel'\] must be a number"):
        OperationTree.from_json({**tree.to_json(), "weights": {"kernel": "much"}})


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("conv[stride=2]", "carries the number 'stride', to which this tree gives no weight"),
        ("pool[kernel=2]", r"is not an operation of this tree \(its kind is 'pool'\)"),
        ("pool", "'pool' is not an operation of this tree; known labels: 'conv'"),
        ("conv[kernel=3.0]", "written shortest"),
        ("conv[kernel=3", "must be a kind"),
        ("op[kernel=3]", "its kind is 'op'"),
    ],
)
def test_a_label_without_a_cost_is_refused_in_words(
    tree: OperationTree, label: str, message: str
) -> None:
    for ask in (tree.check, tree.index, lambda name: tree.distance_matrix([name])):
        with pytest.raises(ArchitectureError, match=message):
            ask(label)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({"kernel": -1.0}, ArchitectureError, r"weights\['kernel'\] must be finite and >= 0"),
        ({"kernel": math.nan}, ArchitectureError, r"weights\['kernel'\] must be finite"),
        ({"kernel": "1"}, TypeError, r"weights\['kernel'\] must be a number"),
        ({"kernel size": 1.0}, ArchitectureError, "letters, digits and underscores"),
        ({3: 1.0}, TypeError, "names that are texts"),
        ([0.5], TypeError, "weights must be a mapping"),
    ],
)
def test_bad_weights_are_refused_in_words(
    weights: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        OperationTree(PARENTS, LENGTHS, weights)  # type: ignore[arg-type]


def test_names_with_brackets_are_labels_as_they_stand_where_there_are_no_weights() -> None:
    parents, lengths = {"op": None, "conv[3]": "op", "relu": "op"}, {"conv[3]": 1.0, "relu": 1.0}
    assert OperationTree(parents, lengths).distance_matrix(["conv[3]", "relu"])[0, 1] == 2.0
    with pytest.raises(ArchitectureError, match="without '\\[' and '\\]' where weights are given"):
        OperationTree(parents, lengths, {"kernel": 1.0})


def test_other_weights_must_fit(tree: OperationTree) -> None:
    with pytest.raises(ArchitectureError, match=r"weights must have shape \(2,\)"):
        tree.with_weights(torch.ones(3))
    with pytest.raises(TypeError, match="weights must be a floating tensor"):
        tree.with_weights([0.5, 0.5])  # type: ignore[arg-type]
