"""What every space promises, checked on all of them."""

import itertools
import time

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.arch import OperationTree
from hotnas_torch.errors import ArchitectureError


def _subset():
    space = spaces.TransNASMacro()
    generator = torch.Generator().manual_seed(1)
    return spaces.Subset(space, space.sample(40, generator=generator))


FACTORIES = {
    "nasbench101": spaces.NASBench101,
    "nasbench201": spaces.NASBench201,
    "nasbench201-contracted": lambda: spaces.NASBench201(contract_skip=True),
    "transnas_macro": spaces.TransNASMacro,
    "darts": spaces.DARTS,
    "darts-contracted": lambda: spaces.DARTS(contract_skip=True),
    "nasbench_macro": spaces.NASBenchMacro,
    "pooling": spaces.Pooling,
    "mobilenet_v2": spaces.MobileNetV2,
    "transnas_micro": spaces.TransNASMicro,
    "enas_macro": spaces.ENASMacro,
    "enas_macro-longer": lambda: spaces.ENASMacro(num_layers=12),
    "subset": _subset,
}
NAMES = [name for name in FACTORIES if "-" not in name and name != "subset"]


@pytest.fixture(params=FACTORIES)
def space(request):
    return FACTORIES[request.param]()


@pytest.fixture
def nets(space, rng):
    return space.sample(50, generator=rng)


def test_cells_fit_the_tree_and_the_stated_bounds(space, nets):
    widest = finest = 0.0
    for net in nets:
        assert net.is_chain
        for cell, channels, downsampling in zip(
            net.cells, net.channels, net.downsampling, strict=True
        ):
            assert cell.num_nodes <= space.max_nodes
            assert [space.tree.index(label) for label in cell.ops]
            width = torch.tensor(channels / net.input_channels).log2().item()
            resolution = torch.tensor(float(downsampling)).log2().item()
            widest = max(widest, width / space.state_scale[0])
            finest = max(finest, resolution / space.state_scale[1])
            assert width >= 0
    # The divisors are tight: some network attains both.
    assert widest == pytest.approx(1.0)
    assert finest == pytest.approx(1.0)


def test_one_cell_spaces_say_so(space, nets):
    states = {(net.channels, net.downsampling) for net in nets}
    searched = max(len(set(net.cells)) for net in nets)
    constant = set.intersection(*(set(net.cells) for net in nets))
    assert space.repeats_one_cell == (len(states) == 1 and searched - len(constant) <= 1)


def test_unreachable_is_no_smaller_than_any_finite_pair_cost(space):
    longest = space.tree.distance_matrix(dtype=torch.float64).max().item()
    assert longest == pytest.approx(2.0)
    assert space.unreachable_cost(0.8) == pytest.approx(0.8 * 2 + 0.2)
    raw = space.unreachable_cost(0.8, normalize=False)
    assert raw == pytest.approx(0.8 * 2 + 0.2 * (space.max_nodes - 1))
    eps = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    space.unreachable_cost(eps).backward()
    assert eps.grad.item() == pytest.approx(2.0 - 1.0)
    with pytest.raises(ValueError, match="eps must be in"):
        space.unreachable_cost(1.5)


def test_operation_costs_are_a_metric(space):
    costs = space.tree.distance_matrix(dtype=torch.float64)
    detour = (costs[:, :, None] + costs[None, :, :]).amin(dim=1)
    assert (detour - costs).min() >= -1e-12
    assert (costs + torch.eye(len(costs)) > 0).all()


def test_every_truncated_or_extended_string_is_refused(space, nets):
    text = nets[0].spec
    for end in range(len(text)):
        # The depth of a DARTS string may be left out.
        if not (isinstance(space, spaces.DARTS) and _is_darts(space, text[:end])):
            with pytest.raises(ArchitectureError):
                space.from_string(text[:end])
    for suffix in ("0", "|", ",", "x"):
        with pytest.raises(ArchitectureError):
            space.from_string(text + suffix)


def _is_darts(space, text):
    parts = text.split(",")
    complete = len(parts) >= 2 and len(parts[1].split()) == 8 and parts[1][-2:-1] == ":"
    depth = parts[2] if len(parts) == 3 else "20"
    return complete and depth.isdecimal() and 5 <= int(depth) <= 20


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(NAMES, 2)))
def test_no_space_takes_another_spaces_networks(first, second, rng):
    net = spaces.get(first).sample_one(generator=rng)
    assert not spaces.get(second).contains(net)


@pytest.mark.parametrize("name", NAMES)
def test_ten_thousand_networks_take_seconds(name, rng):
    # About half a second each on an idle core; the bound leaves room for a busy machine.
    space = spaces.get(name)
    start = time.process_time()
    nets = space.sample(10_000, generator=rng)
    sampled = time.process_time()
    rows = space.encode(nets)
    space.decode(rows)
    assert sampled - start < 4
    assert time.process_time() - sampled < 8


def test_the_table_of_shared_cells_is_bounded(monkeypatch, rng):
    monkeypatch.setattr("hotnas_torch.spaces.base._MAX_SHARED_CELLS", 8)
    space = spaces.NASBench201()
    nets = space.sample(50, generator=rng)
    assert len(space._cells) <= 8
    assert all(map(space.contains, nets))


@pytest.mark.parametrize("name", NAMES)
def test_trees_are_the_users_to_choose(name):
    default = spaces.get(name).tree
    labels = default.labels
    matrix = 1 - torch.eye(len(labels), dtype=torch.float64)
    assert spaces.get(name, tree=OperationTree.from_matrix(labels, matrix)).unreachable_cost(
        1.0
    ) == pytest.approx(1.0)
    lacking = [label for label in labels if label != "output"]
    smaller = OperationTree.from_matrix(lacking, matrix[1:, 1:])
    with pytest.raises(ArchitectureError, match="'output' is not an operation of this tree"):
        spaces.get(name, tree=smaller)
    with pytest.raises(TypeError, match="tree must be an OperationTree"):
        spaces.get(name, tree=matrix)


@pytest.mark.parametrize("name", NAMES)
def test_spaces_are_found_by_name(name):
    space = spaces.get(name)
    assert space.name == name
    assert repr(space).startswith(type(space).__name__ + "(")


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ValueError, match=r"name must be one of 'nasbench101', .*got 'nasbench'"):
        spaces.get("nasbench")
    with pytest.raises(TypeError, match="depth"):
        spaces.get("pooling", depth=3)
    assert spaces.get("nasbench201", contract_skip=True).contract_skip
