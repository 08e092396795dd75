import itertools
import warnings

import numpy as np
import ot as pot
import pytest
import torch
from torch import Tensor

import hotnas_torch as ht
from hotnas_torch.ot.graphs import feature_costs
from tests.generators.problems import F64, uniform

LOSSES = ("l1", "l2")


def circles(rng: torch.Generator, count: int, nodes: int) -> tuple[Tensor, Tensor]:
    """Noisy circles whose nodes are in any order: path lengths and one feature."""
    place = torch.arange(nodes, dtype=F64)
    apart = (place[:, None] - place).abs()
    structs, features = [], []
    for _ in range(count):
        length = torch.minimum(apart, nodes - apart)
        chord = torch.randint(nodes, (2,), generator=rng)
        via = length[:, chord[:1]] + 1 + length[chord[1:]]
        order = torch.randperm(nodes, generator=rng)
        structs.append(torch.minimum(length, torch.minimum(via, via.T))[order][:, order])
        level = (2 * torch.pi * place / nodes).sin() + 0.3 * uniform(rng, nodes)
        features.append(level[order, None])
    return torch.stack(structs), torch.stack(features)


def value_of(
    struct: Tensor, nodes: Tensor, plans: Tensor, group: tuple[Tensor, Tensor], loss: str
) -> Tensor:
    """What a graph costs with couplings, by the definition, in full; alpha is 0.3."""
    structs, features = group
    difference = struct[None, :, None, :, None] - structs[:, None, :, None, :]
    between = difference.abs() if loss == "l1" else difference.square()
    apart = nodes[None, :, None] - features[:, None]
    cost = (apart.abs() if loss == "l1" else apart.square()).sum(-1)
    quadratic = torch.einsum("sij,skl,sijkl->s", plans, plans, between)
    return 0.3 * quadratic + 0.7 * (plans * cost).sum((1, 2))


@pytest.mark.parametrize("loss", LOSSES)
def test_distances_are_those_of_the_definition(
    loss: str, rng: torch.Generator, backend: str
) -> None:
    structs, features = circles(rng, 4, 5)
    found = ht.ot.fgw_barycenter(
        structs, features, nodes=4, alpha=0.3, loss=loss, num_starts=2, backend=backend
    )
    expected = value_of(found.struct, found.features, found.plans, (structs, features), loss)
    assert torch.allclose(found.distances, expected, atol=1e-12)
    assert torch.allclose(found.objective, expected.mean(), atol=1e-12)
    assert torch.allclose(found.plans.sum(2), found.masses.expand(4, 4), atol=1e-12)
    assert bool(found.converged)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bare", [False, True])
def test_the_objective_is_not_above_that_of_pot(seed: int, bare: bool) -> None:
    structs, features = circles(torch.Generator().manual_seed(seed), 6, 8)
    lists = [list(x.numpy()) for x in (structs, features)]
    start = structs[0].numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if bare:
            theirs = pot.gromov.gromov_barycenters(8, lists[0], init_C=start)
            cost = torch.zeros(6, 8, 8, dtype=F64)
        else:
            nodes, theirs = pot.gromov.fgw_barycenters(
                8, lists[1], lists[0], alpha=0.5, init_C=start, init_X=features[0].numpy()
            )
            cost = feature_costs(torch.as_tensor(nodes), features, "l2")
    alpha = 1.0 if bare else 0.5
    # What theirs is worth, by the better of two solvers' couplings.
    values = [
        ht.ot.fgw(cost, torch.as_tensor(theirs), structs, alpha=alpha, loss="l2", **how).objective
        for how in ({"init": "product"}, {"num_starts": 3})
    ]
    worth = torch.minimum(*values).mean()
    found = ht.ot.fgw_barycenter(structs, None if bare else features, nodes=8, num_starts=6)
    assert float(found.objective) <= float(worth) * (1 + 1e-9)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("nodes", [None, 5])
def test_the_barycenter_of_copies_is_the_graph(
    loss: str, nodes: int | None, rng: torch.Generator, backend: str
) -> None:
    struct, features = uniform(rng, 5, 5), uniform(rng, 5, 2)
    orders = [torch.randperm(5, generator=rng) for _ in range(4)]
    found = ht.ot.fgw_barycenter(
        torch.stack([struct[order][:, order] for order in orders]),
        torch.stack([features[order] for order in orders]),
        nodes=nodes,
        loss=loss,
        backend=backend,
    )
    assert float(found.objective) < 1e-12
    again = ht.ot.fgw(
        feature_costs(found.features, features, loss), found.struct, struct, loss=loss, num_starts=3
    )
    assert float(again.objective) < 1e-12


def test_of_one_graph_with_fewer_nodes_it_is_the_quotient() -> None:
    halves = torch.tensor([[0.0, 0.0, 2.0, 2.0]] * 2 + [[2.0, 2.0, 0.0, 0.0]] * 2, dtype=F64)
    found = ht.ot.fgw_barycenter(
        halves[None], torch.tensor([[[1.0], [1.0], [3.0], [3.0]]], dtype=F64), nodes=2
    )
    assert float(found.objective) == pytest.approx(0.0, abs=1e-15)
    assert sorted(found.features.flatten().tolist()) == [1.0, 3.0]
    assert found.struct.tolist() == [[0.0, 2.0], [2.0, 0.0]]


@pytest.mark.parametrize("loss", LOSSES)
def test_no_other_graph_is_better_for_the_couplings(loss: str, rng: torch.Generator) -> None:
    """Closed forms: no step in any direction lowers the objective at fixed couplings."""
    structs, features = circles(rng, 5, 6)
    group = structs, features
    found = ht.ot.fgw_barycenter(*group, nodes=4, alpha=0.3, loss=loss, tol=0.0)
    best = value_of(found.struct, found.features, found.plans, group, loss).mean()
    for _ in range(40):
        step = 10 ** (-3 * float(torch.rand((), generator=rng)))
        struct = found.struct + step * (uniform(rng, 4, 4) - 0.5)
        nodes = found.features + step * (uniform(rng, 4, 1) - 0.5)
        assert value_of(struct, nodes, found.plans, group, loss).mean() >= best - 1e-12


@pytest.mark.parametrize("loss", LOSSES)
def test_no_numbering_changes_the_objective(loss: str, rng: torch.Generator) -> None:
    structs, features = circles(rng, 5, 6)
    structs = structs + 0.1 * uniform(rng, 5, 6, 6)  # without ties, which nothing decides
    plain = ht.ot.fgw_barycenter(structs, features, nodes=6, loss=loss, num_starts=5)
    order = torch.randperm(5, generator=rng)
    nodes = torch.stack([torch.randperm(6, generator=rng) for _ in range(5)])
    moved = structs[order].take_along_dim(nodes[:, :, None], 1).take_along_dim(nodes[:, None], 2)
    other = ht.ot.fgw_barycenter(
        moved, features[order].take_along_dim(nodes[..., None], 1), nodes=6, loss=loss, num_starts=5
    )
    assert torch.allclose(plain.objective, other.objective, rtol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("pairs", ["all", "directed", "ordered"])
def test_a_group_alone_is_the_group_in_its_batch(
    loss: str, pairs: str, rng: torch.Generator
) -> None:
    groups = [circles(rng, 4, 5) for _ in range(6)]
    structs, features = (
        torch.stack(parts).reshape(2, 3, 4, 5, -1) for parts in zip(*groups, strict=True)
    )
    options = {"nodes": 4, "loss": loss, "pairs": pairs, "num_starts": 2}
    together = ht.ot.fgw_barycenter(structs, features, **options)
    assert together.struct.shape == (2, 3, 4, 4)
    assert together.plans.shape == (2, 3, 4, 4, 5)
    for row in range(2):
        for column in range(3):
            alone = ht.ot.fgw_barycenter(structs[row, column], features[row, column], **options)
            assert torch.allclose(alone.objective, together.objective[row, column], rtol=1e-12)
            assert torch.allclose(alone.struct, together.struct[row, column], atol=1e-12)
            assert int(alone.iterations) == int(together.iterations[row, column])


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_absent_changes_nothing(loss: str, rng: torch.Generator) -> None:
    structs, features = circles(rng, 3, 5)
    plain = ht.ot.fgw_barycenter(structs, features, nodes=4, loss=loss, num_starts=3)
    padded = torch.full((4, 7, 7), torch.nan, dtype=F64)
    nodes = torch.full((4, 7, 1), torch.inf, dtype=F64)
    padded[:3, :5, :5], nodes[:3, :5] = structs, features
    masses = torch.zeros(4, 7, dtype=F64)
    masses[:3, :5] = 0.2
    weights = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0], dtype=F64)
    other = ht.ot.fgw_barycenter(
        padded, nodes, masses, nodes=4, weights=weights, loss=loss, num_starts=3
    )
    assert torch.allclose(plain.objective, other.objective, rtol=1e-9)
    # as a graph: of starts that are equally good, rounding decides, and each numbers the nodes
    orders = [torch.tensor(order) for order in itertools.permutations(range(4))]
    assert any(
        torch.allclose(plain.struct, other.struct[order][:, order], atol=1e-9) for order in orders
    )
    listed = ht.ot.fgw_barycenter(list(structs), list(features), nodes=4, loss=loss, num_starts=3)
    assert torch.equal(plain.objective, listed.objective)


def test_a_free_size_is_that_of_the_best_start(rng: torch.Generator) -> None:
    small, large = circles(rng, 1, 4), circles(rng, 1, 6)
    structs = [small[0][0], *[large[0][0]] * 3]
    features = [small[1][0], *[large[1][0]] * 3]
    found = ht.ot.fgw_barycenter(structs, features, num_starts=4)
    assert int((found.masses > 0).sum()) == 6
    assert torch.allclose(found.masses[found.masses > 0], torch.full((6,), 1 / 6, dtype=F64))


def test_what_is_fixed_stays(rng: torch.Generator) -> None:
    structs, features = circles(rng, 4, 5)
    held = uniform(rng, 4, 4)
    found = ht.ot.fgw_barycenter(structs, features, fixed="struct", init_struct=held)
    assert torch.equal(found.struct, held)
    level = uniform(rng, 3, 1)
    found = ht.ot.fgw_barycenter(structs, features, fixed="features", init_features=level)
    assert torch.equal(found.features, level)
    free = ht.ot.fgw_barycenter(structs, features, init_features=level)
    assert float(free.objective) <= float(found.objective) + 1e-12


@pytest.mark.parametrize("unit", [2.0**-40, 2.0**30])
@pytest.mark.parametrize("loss", LOSSES)
def test_no_unit_changes_a_plan(unit: float, loss: str, rng: torch.Generator) -> None:
    structs, features = circles(rng, 4, 5)
    plain = ht.ot.fgw_barycenter(structs, features, nodes=4, loss=loss)
    other = ht.ot.fgw_barycenter(unit * structs, unit * features, nodes=4, loss=loss)
    assert torch.equal(plain.plans, other.plans)
    assert torch.equal(unit * plain.struct, other.struct)
    power = 1 if loss == "l1" else 2
    assert torch.equal(unit**power * plain.objective, other.objective)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_objective_has_the_gradient_of_finite_differences(
    loss: str, rng: torch.Generator
) -> None:
    structs, features = circles(rng, 3, 4)
    structs = structs + 0.1 * uniform(rng, 3, 4, 4)
    start = structs[0].clone(), features[0].clone()
    masses = torch.softmax(uniform(rng, 3, 4), 1)
    weights = torch.softmax(uniform(rng, 3), 0)
    alpha = torch.tensor(0.4, dtype=F64)

    def objective(
        structs: Tensor, features: Tensor, logits: Tensor, alpha: Tensor, shares: Tensor
    ) -> Tensor:
        return ht.ot.fgw_barycenter(
            structs,
            features,
            logits / logits.sum(1, keepdim=True),
            weights=shares / shares.sum(),
            alpha=alpha,
            loss=loss,
            init_struct=start[0],
            init_features=start[1],
            tol=0.0,
            validate=False,
        ).objective

    inputs = [x.clone().requires_grad_() for x in (structs, features, masses, alpha, weights)]
    assert torch.autograd.gradcheck(objective, inputs, eps=1e-7, atol=1e-5)


def test_the_graph_has_the_gradient_of_finite_differences(rng: torch.Generator) -> None:
    structs, features = circles(rng, 3, 4)

    def graph(structs: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        found = ht.ot.fgw_barycenter(structs, features, nodes=4, tol=0.0)
        return found.struct, found.features

    inputs = [x.clone().requires_grad_() for x in (structs, features)]
    assert torch.autograd.gradcheck(graph, inputs, eps=1e-7, atol=1e-6)


def test_both_backends_find_the_same(rng: torch.Generator, dtype: torch.dtype) -> None:
    structs, features = (x.to(dtype) for x in circles(rng, 4, 5))
    values = [
        ht.ot.fgw_barycenter(structs, features, nodes=5, num_starts=4, backend=backend).objective
        for backend in ("auto", "torch")
    ]
    assert torch.allclose(*values, rtol=1e-4)
    assert values[0].dtype == dtype


def test_few_rounds_are_said(rng: torch.Generator) -> None:
    structs, features = circles(rng, 6, 8)
    with pytest.warns(ht.errors.ConvergenceWarning, match="fgw_barycenter"):
        found = ht.ot.fgw_barycenter(structs, features, nodes=5, max_iter=1)
    assert int(found.iterations) == 1
    with pytest.raises(ht.errors.SolverError, match="max_iter"):
        found.raise_if_failed()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"structs": np.zeros((2, 3, 3))}, "structs must be a tensor, or a list"),
        ({"structs": []}, "structs must hold at least one graph"),
        ({"structs": torch.zeros(3, 3, dtype=F64)}, "the graphs of a group before the nodes"),
        ({"structs": torch.zeros(2, 3, 4, dtype=F64)}, r"shape \(\*batch, n, n\)"),
        ({"structs": torch.zeros(2, 3, 3, dtype=torch.int64)}, "float32 or float64"),
        ({"structs": torch.full((2, 3, 3), torch.nan, dtype=F64)}, "structs must be finite"),
        ({"features": torch.zeros(2, 4, 1, dtype=F64)}, r"features must have shape \(\*batch, 3"),
        ({"features": torch.zeros(2, 3, 1)}, "features must have the dtype of structs"),
        ({"features": [torch.zeros(3, 1, dtype=F64)] * 2}, "features must be a torch.Tensor"),
        ({"masses": torch.full((2, 3), 0.5, dtype=F64)}, "masses must be non-negative and sum"),
        ({"masses": torch.tensor([0.5, 0.7, -0.2], dtype=F64)}, "masses must be non-negative"),
        ({"weights": torch.ones(2, dtype=F64)}, "weights must be non-negative and sum to 1"),
        ({"weights": torch.ones(3, dtype=F64) / 3}, "the batch dimensions must agree"),
        ({"weights": torch.ones(2)}, "weights must have the dtype of structs"),
        ({"a": torch.ones(2, dtype=F64)}, "a must be non-negative and sum to 1"),
        ({"a": torch.ones(2, dtype=F64) / 2, "nodes": 3}, "a must be of 3 nodes"),
        ({"nodes": 0}, "nodes must be at least 1"),
        ({"nodes": 2.0}, "nodes must be an integer"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\]"),
        ({"alpha": "half"}, "alpha must be a number"),
        ({"features": None, "alpha": 0.5}, "alpha must be 1 without features"),
        ({"loss": "kl"}, "loss must be one of"),
        ({"feature_loss": "kl"}, "feature_loss must be"),
        ({"pairs": "some"}, "pairs must be one of"),
        ({"fixed": "both"}, "fixed must be"),
        ({"fixed": "struct"}, "init_struct must be given"),
        ({"num_starts": 3}, "num_starts must be at most S = 2"),
        ({"tol": -1.0}, "tol must be finite"),
        ({"max_iter": 0}, "max_iter must be at least 1"),
        ({"init_struct": torch.zeros(2, 3, dtype=F64)}, r"init_struct must have shape"),
        ({"init_features": torch.zeros(2, 2, dtype=F64)}, r"init_features must have shape"),
    ],
)
def test_wrong_calls_say_what_is_wrong(change: dict[str, object], message: str) -> None:
    call: dict[str, object] = {
        "structs": torch.zeros(2, 3, 3, dtype=F64),
        "features": torch.zeros(2, 3, 1, dtype=F64),
    }
    call |= change
    if not isinstance(call["structs"], torch.Tensor) or call["structs"].dim() == 2:
        call["features"] = None
    with pytest.raises((TypeError, ValueError), match=message):
        ht.ot.fgw_barycenter(**call)


def test_transforms_are_refused_in_our_words(rng: torch.Generator) -> None:
    structs = uniform(rng, 2, 3, 4, 4)
    with pytest.raises(RuntimeError, match="call it outside"):
        torch.vmap(lambda group: ht.ot.fgw_barycenter(group).objective)(structs)


def test_autocast_changes_nothing(rng: torch.Generator) -> None:
    structs, features = uniform(rng, 3, 5, 5).float(), uniform(rng, 3, 5, 2).float()
    found = ht.ot.fgw_barycenter(structs, features, nodes=4, validate=False)
    with torch.autocast("cpu", torch.bfloat16):
        again = ht.ot.fgw_barycenter(structs, features, nodes=4, validate=False)
    assert torch.equal(found.struct, again.struct)
    assert torch.equal(found.objective, again.objective)


@pytest.mark.parametrize("pairs", ["all", "directed", "ordered"])
def test_padding_changes_no_start(pairs: str, rng: torch.Generator) -> None:
    structs, features = uniform(rng, 3, 4, 5, 5), uniform(rng, 3, 4, 5, 2)
    structs = structs + structs.mT
    masses = torch.full((3, 4, 5), 0.2, dtype=F64)

    def objective(before: int, after: int) -> Tensor:
        pad = torch.nn.functional.pad
        found = ht.ot.fgw_barycenter(
            pad(structs, (before, after, before, after)),
            pad(features, (0, 0, before, after)),
            pad(masses, (before, after)),
            nodes=5,
            pairs=pairs,
        )
        return found.objective

    for before, after in ((0, 1), (0, 3), (2, 0)):
        assert torch.allclose(objective(before, after), objective(0, 0), rtol=1e-9)
