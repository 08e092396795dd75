import json
import subprocess
import sys

import numpy as np
import ot as pot
import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.arch import Cell, Network
from hotnas_torch.distances import HOTNN, IFGW
from hotnas_torch.distances._tables import cell_tables
from hotnas_torch.matrices import load_gram

OPTIONS = {"eta": 0.3, "zeta": 0.4, "state_scale": (2.0, 2.0)}


@pytest.fixture(scope="module")
def distances(networks, tree):
    return HOTNN(tree=tree, **OPTIONS)(networks)


def test_a_matrix_is_symmetric_to_the_bit_and_zero_on_the_diagonal(distances, networks):
    assert distances.shape == (len(networks), len(networks))
    assert torch.equal(distances, distances.T)
    assert (distances.diagonal() == 0.0).all()
    assert (distances[~torch.eye(len(networks), dtype=torch.bool)] > 0.0).all()


def test_distances_follow_their_definition(distances, networks, tree):
    ifgw = IFGW(tree=tree)
    for p, a in enumerate(networks):
        for q, b in enumerate(networks):
            inside = ifgw(a.cells, b.cells).double().numpy()

            def state(network):
                return np.log2([network.channels, network.downsampling]) - [[3.0], [0.0]]

            apart = np.abs(state(a)[:, :, None] - state(b)[:, None]).mean(0) / 2.0
            place = np.abs(np.subtract.outer(a.positions(), b.positions()))
            cost = 0.7 * (0.6 * inside + 0.4 * apart) + 0.3 * place
            expected = pot.emd2(np.array(a.masses()), np.array(b.masses()), cost)
            assert float(distances[p, q]) == pytest.approx(expected, abs=1e-6)


def test_a_rectangle_holds_the_same_bits(distances, networks, tree):
    metric = HOTNN(tree=tree, **OPTIONS)
    assert torch.equal(metric(networks[:3], networks[1:]), distances[:3, 1:])
    assert torch.equal(metric(networks[4:], networks[:2]), distances[4:, :2])
    assert torch.equal(metric([networks[6]], [networks[0]]), distances[6:, :1])


@pytest.mark.parametrize("budget", [1, 100, 4000])
def test_the_memory_budget_does_not_change_a_bit(distances, networks, tree, budget):
    metric = HOTNN(tree=tree, memory_budget=budget, **OPTIONS)
    assert torch.equal(metric(networks), distances)
    assert torch.equal(metric(networks[:3], networks[1:]), distances[:3, 1:])


def test_repeated_networks_repeat_their_distances(distances, networks, tree):
    order = [3, 0, 3, 3, 6, 0]
    result = HOTNN(tree=tree, **OPTIONS)([networks[index] for index in order])
    assert torch.equal(result, distances[order][:, order])


def test_renumbered_networks_are_exactly_0_apart(cells, tree):
    parallel = ((0, 1), (0, 2), (1, 3), (2, 3))
    first = Network((cells[1], cells[3]), (8, 16), (1, 1), parallel, input_channels=8)
    second = Network((cells[3], cells[1]), (16, 8), (1, 1), parallel, input_channels=8)
    other = Network((cells[3], cells[2]), (16, 8), (1, 1), parallel, input_channels=8)
    result = HOTNN(tree=tree, **OPTIONS)([first, second, other])
    assert result[0, 1] == 0.0
    assert result[0, 2] > 0.0


def test_each_distinct_pair_of_cells_is_solved_once(networks, tree, monkeypatch):
    solved = []

    def recorded(*arguments, **options):
        solved.append(len(arguments[9]))
        return original(*arguments, **options)

    original = cell_tables.cell_distances
    monkeypatch.setattr(cell_tables, "cell_distances", recorded)
    HOTNN(tree=tree, **OPTIONS)(networks)
    assert sum(solved) == 6 * 5 // 2


def test_a_network_of_two_kinds_of_cells_costs_four_cell_distances_per_pair(tree, monkeypatch):
    def chain(*ops):
        return Cell(("input", *ops, "output"), tuple((i, i + 1) for i in range(len(ops) + 1)))

    labels = ("conv1", "conv3", "pool")
    kinds = [chain(*ops) for ops in ([x, y] for x in labels for y in labels)][:8]
    networks = [
        Network.chain([kinds[2 * k], kinds[2 * k + 1]] * 10, [8] * 20, [1] * 20) for k in range(4)
    ]
    solved = []

    def recorded(*arguments, **options):
        solved.append(len(arguments[9]))
        return original(*arguments, **options)

    original = cell_tables.cell_distances
    monkeypatch.setattr(cell_tables, "cell_distances", recorded)
    # Too little memory for the table of all cells: every tile computes what it needs.
    HOTNN(tree=tree, memory_budget=1)(networks)
    pairs_of_networks = 4 * 3 // 2
    assert sum(solved) <= 4 * pairs_of_networks + 4


@pytest.mark.parametrize(
    "options",
    [{}, {"zeta": 0.0}, {"mass": "uniform", "eta": 0.9}],
    ids=["default", "paper", "place"],
)
def test_a_matching_explains_its_distance(networks, tree, options):
    metric = HOTNN(tree=tree, dtype=torch.float64, **(OPTIONS | options))
    matching = metric.matching(networks[3], networks[6])
    assert matching.distance == pytest.approx(float(metric(networks[3:4], networks[6:])), abs=1e-9)
    assert sum(matching.parts.values()) == pytest.approx(matching.distance)
    np.testing.assert_allclose(matching.plan.sum(1), networks[3].masses(metric.mass), atol=1e-12)
    np.testing.assert_allclose(matching.plan.sum(0), networks[6].masses(metric.mass), atol=1e-12)
    expected = metric.ifgw(networks[3].cells, networks[6].cells)
    assert torch.equal(matching.cell_distances, expected)


def test_defaults_depend_on_the_space():
    def defaults(name, **options):
        metric = HOTNN(space=spaces.get(name), **options)
        return metric.eta, metric.zeta, metric.mass

    assert defaults("nasbench201") == (0.5, 0.5, "channels")
    assert defaults("transnas_macro") == (0.3, 0.6, "channels")
    assert defaults("nasbench_macro") == (0.95, 0.0, "uniform")
    assert defaults("nasbench_macro", preset="paper") == (0.5, 0.0, "channels")
    assert defaults("nasbench_macro", eta=0.1, zeta=0.2, mass="channels") == (0.1, 0.2, "channels")


def test_without_a_space_the_state_has_no_weight(tree):
    assert HOTNN(tree=tree).zeta == 0.0


def test_the_paper_preset_sets_what_it_prints(tree):
    metric = HOTNN(tree=tree, preset="paper", max_nodes=5)
    ifgw = metric.ifgw
    assert (ifgw.pairs, ifgw.linear_term, ifgw.normalize) == ("ordered", "literal", False)
    assert (metric.zeta, metric.mass) == (0.0, "channels")


def test_the_paper_preset_has_the_operation_costs_of_the_poster():
    space = spaces.get("transnas_macro")
    labels = ["conv3x3", "conv1x1", "conv3x3_both"]

    def costs(made):
        return made.ifgw.tree.distance_matrix(labels)[0].tolist()

    assert costs(HOTNN(space=space)) == [0.0, 2.0, 2.0]
    printed = HOTNN(space=space, preset="paper")
    assert costs(printed) == pytest.approx([0.0, 0.1, 0.1])
    # So do spaces that stand for this one.
    nets = space.sample(4, generator=torch.Generator().manual_seed(0))
    for other in (spaces.Subset(space, nets), spaces.TransNASMacro(variant_cost="paper")):
        assert costs(HOTNN(space=other, preset="paper")) == pytest.approx([0.0, 0.1, 0.1])
    # A tree that is passed wins, to the distance or to the space.
    own = space.published_tree.with_lengths(3.0 * space.published_tree.lengths_tensor())
    for made in (
        HOTNN(space=space, preset="paper", tree=own),
        HOTNN(space=spaces.TransNASMacro(tree=own), preset="paper"),
    ):
        assert costs(made) == pytest.approx([0.0, 0.3, 0.3])


def test_the_paper_preset_changes_distances_on_transnas_by_the_poster():
    space = spaces.get("transnas_macro")
    nets = space.sample(6, generator=torch.Generator().manual_seed(1))
    printed = HOTNN(space=space, preset="paper")(nets)
    assert not torch.equal(printed, HOTNN(space=space, preset="paper", tree=space.tree)(nets))
    assert torch.equal(printed, HOTNN(space=space, preset="paper", tree=space.published_tree)(nets))


def test_one_network_gives_one_zero(networks, tree):
    assert HOTNN(tree=tree)(networks[:1]).tolist() == [[0.0]]


def test_progress_names_both_stages(networks, tree):
    seen = []
    HOTNN(tree=tree, **OPTIONS)(networks[:4], progress=lambda *call: seen.append(call))
    assert [stage for stage, done, total in seen if done == total] == ["cells", "networks"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"eta": -0.5}, ValueError, r"eta must be in \[0, 1\]"),
        ({"zeta": 0.5}, ValueError, "zeta > 0 needs the scale of the cell state"),
        ({"zeta": "much"}, TypeError, "zeta must be a number"),
        ({"mass": "params"}, ValueError, "mass must be one of 'channels', 'uniform'"),
        ({"state_scale": (1.0, 0.0)}, ValueError, "state_scale must be two numbers > 0"),
        ({"state_scale": (1.0,)}, ValueError, "state_scale must be two numbers > 0"),
        ({"lam": 2.0}, ValueError, "lam must be in"),
    ],
)
def test_a_wrong_argument_is_named(tree, arguments, error, message):
    with pytest.raises(error, match=message):
        HOTNN(tree=tree, **arguments)


def test_a_wrong_list_is_named(networks, cells, tree):
    metric = HOTNN(tree=tree)
    with pytest.raises(ValueError, match="nets_a must hold at least one Network"):
        metric([])
    with pytest.raises(TypeError, match=r"nets_b\[0\] must be a Network; got Cell"):
        metric(networks, [cells[0]])
    strange = Cell(("input", "attention", "output"), ((0, 1), (1, 2)))
    odd = Network.chain([cells[0], strange], (8, 8), (1, 1))
    with pytest.raises(ValueError, match=r"nets_a\[2\]\.cells\[1\] has the operation 'attention'"):
        metric([*networks[:2], odd])


def test_gram_writes_what_the_call_returns(distances, networks, tree, tmp_path):
    metric = HOTNN(tree=tree, **OPTIONS)
    path = tmp_path / "gram.npz"
    result = metric.gram(networks, out=path, progress=False)
    assert torch.equal(result, distances)
    stored = load_gram(path)
    assert torch.equal(stored.distances, distances)
    assert [Network.from_json(json.loads(text)) for text in stored.networks] == networks
    assert stored.meta["settings"]["eta"] == 0.3
    assert [file.name for file in tmp_path.iterdir()] == ["gram.npz"]


def test_a_space_names_the_networks_of_a_gram(tmp_path, rng):
    space = spaces.get("transnas_macro")
    networks = space.sample(3, generator=rng)
    path = tmp_path / "gram.npz"
    HOTNN(space=space).gram(networks, out=path, progress=False)
    assert load_gram(path).networks == [space.to_string(network) for network in networks]


@pytest.mark.slow
@pytest.mark.ext
def test_ten_thousand_networks_need_little_more_memory_than_their_result():
    script = """
import resource, sys, torch
from hotnas_torch import spaces
from hotnas_torch.distances import HOTNN

torch.set_num_threads(1)
space = spaces.get("transnas_macro")
networks = space.sample(10_000, generator=torch.Generator().manual_seed(0))
result = HOTNN(space=space)(networks)
assert result.shape == (10_000, 10_000)
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(peak - result.numel() * result.element_size())
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 2**30


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("space", "settings"),
    [
        ("nasbench201", {}),
        ("nasbench101", {"lam": 0.9}),
        ("darts", {"preset": "paper"}),
        ("nasbench201", {"lam": 0.0}),  # where bounds say nothing
        ("nasbench201", {"partial": 1.0}),  # and where there are none
    ],
)
def test_neighbours_found_by_bounds_are_those_of_the_matrix(space, settings, dtype) -> None:
    space = spaces.get(space)
    nets = space.sample(60, generator=torch.Generator().manual_seed(0), distinct=True)
    nets += nets[7:9]
    metric = HOTNN(space=space, dtype=dtype, **settings)
    expected, places = metric(nets).fill_diagonal_(torch.inf).sort(dim=1, stable=True)
    for k in (1, 5, 61):
        found = metric.neighbors(nets, k)
        assert torch.equal(found.distances, expected[:, :k])
        assert torch.equal(found.indices, places[:, :k])


def test_few_pairs_of_cells_are_solved_for_neighbours(monkeypatch) -> None:
    space = spaces.NASBench201()
    nets = space.sample(500, generator=torch.Generator().manual_seed(0), distinct=True)
    solved = []
    solve = cell_tables.CellTables.solve
    monkeypatch.setattr(
        cell_tables.CellTables,
        "solve",
        lambda *given: solved.append(len(given[1])) or solve(*given),
    )
    HOTNN(space=space).neighbors(nets, 5)
    assert 0 < sum(solved) < 0.1 * 500 * 499 / 2
