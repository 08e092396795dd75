"""What every space promises, checked on all of them."""

import copy
import itertools
import json
import pickle
import time

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.arch import Cell, Network, OperationTree
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


def test_samples_lie_in_the_space_and_vary(space, nets):
    assert len(nets) == 50
    assert all(space.contains(net) and net in space for net in nets)
    assert len({space.key(net) for net in nets}) >= 15


def test_sampling_is_decided_by_the_generator_alone(space):
    first, again, other = (
        space.sample(20, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other
    assert space.sample_one(generator=torch.Generator().manual_seed(5)) in space


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_distinct_samples_are_distinct(space, share, rng):
    num = min(200, int(share * space.size()))
    nets = space.sample(num, generator=rng, distinct=True)
    assert len({space.key(net) for net in nets}) == num


def test_rows_give_the_networks_back(space, nets):
    rows = space.encode(nets)
    assert rows.shape == (50, space.dim)
    assert rows.dtype == torch.float64
    assert len(space.columns) == space.dim
    assert space.decode(rows) == nets
    assert space.decode(rows.float()) == nets
    assert space.decode(rows.long()) == nets
    assert FACTORIES["darts"]().encode([]).shape == (0, 33)
    assert space.decode(rows[:0]) == []


def test_strings_give_the_networks_back(space, nets):
    for net in nets:
        text = space.to_string(net)
        assert space.from_string(text) == net
        assert text == net.spec


def test_json_and_copies_stay_in_the_space(space, nets):
    for net in nets[:5]:
        assert space.contains(Network.from_json(json.loads(json.dumps(net.to_json()))))
        assert space.contains(copy.deepcopy(net))
    twin = copy.deepcopy(space)
    assert twin.decode(space.encode(nets)) == nets
    assert pickle.loads(pickle.dumps(space)).contains(nets[0])


def test_copying_a_model_does_not_copy_its_space(space):
    assert copy.deepcopy({"space": space})["space"] is space


def test_cells_are_shared_between_networks(space, nets):
    again = space.decode(space.encode(nets))
    assert all(
        a is b
        for x, y in zip(nets, again, strict=True)
        for a, b in zip(x.cells, y.cells, strict=True)
    )
    cells = [cell for net in nets for cell in net.cells]
    assert len({id(cell) for cell in cells}) == len(set(cells))


def test_mutants_are_other_networks_of_the_space(space, nets, rng):
    for net in nets:
        mutant = space.mutate(net, generator=rng)
        assert space.contains(mutant)
        assert mutant.key != net.key


def test_mutation_reaches_several_networks(space, nets, rng):
    assert len({space.mutate(nets[0], generator=rng) for _ in range(40)}) >= 2


def test_neighbors_are_distinct_others_of_the_space(space, nets):
    for net in nets[:10]:
        neighbors = space.neighbors(net)
        keys = [space.key(other) for other in neighbors]
        assert len(keys) == len(set(keys)) > 0
        assert space.key(net) not in keys
        assert all(map(space.contains, neighbors))
        assert space.neighbors(net) == neighbors


def test_canonical_is_idempotent_and_keys_follow_it(space, nets):
    for net in nets[:20]:
        canonical = space.canonical(net)
        assert space.canonical(canonical) == canonical
        assert space.key(canonical) == space.key(net)
        assert canonical.key == net.key


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_rows_must_be_finite(space, nets, value):
    rows = space.encode(nets)
    rows[7, 1] = value
    with pytest.raises(ArchitectureError, match=r"X\[7, 1\].*must be finite") as error:
        space.decode(rows)
    assert space.columns[1] in str(error.value)


def test_rows_must_be_whole(space, nets):
    rows = space.encode(nets)
    rows[3, 0] += 0.25
    with pytest.raises(ArchitectureError, match=r"X\[3, 0\].*must be a whole number"):
        space.decode(rows)


@pytest.mark.parametrize("value", [-1.0, 99.0, 1e300])
def test_rows_must_be_in_range(space, nets, value):
    rows = space.encode(nets)
    rows[4, 0] = value
    with pytest.raises(ArchitectureError, match=r"X\[4\] = .*describes no network of"):
        space.decode(rows)


def test_rows_must_have_the_width_of_the_space(space, nets):
    rows = space.encode(nets)
    with pytest.raises(ValueError, match=rf"X must have shape \(N, {space.dim}\)"):
        space.decode(rows[:, :-1])
    with pytest.raises(ValueError, match="X must have shape"):
        space.decode(rows[0])
    with pytest.raises(TypeError, match="X must be a torch Tensor"):
        space.decode(rows.tolist())


@pytest.mark.parametrize("text", ["", "|", "nonsense", "64-11-basic", "3,1,", "[1,2]"])
def test_malformed_strings_are_named(space, text):
    with pytest.raises(ArchitectureError) as error:
        space.from_string(text)
    assert repr(text) in str(error.value)


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


def test_strings_must_be_strings(space):
    with pytest.raises(TypeError, match="text must be a str; got 5"):
        space.from_string(5)


def test_foreign_networks_are_refused(space, nets, rng):
    cell = Cell(("input", "output"), ((0, 1),))
    unknown = Network.chain((cell,), (1,), (1,), spec="nonsense")
    # The right string on the wrong cells.
    forged = Network.chain((cell,), (1,), (1,), spec=nets[0].spec)
    for foreign in (unknown, forged):
        assert not space.contains(foreign)
        for call in (
            space.neighbors,
            space.to_string,
            space.key,
            space.canonical,
            lambda net: space.mutate(net, generator=rng),
        ):
            with pytest.raises(ArchitectureError, match="is not a network of"):
                call(foreign)
        with pytest.raises(ArchitectureError, match=r"nets\[2\] with spec"):
            space.encode([*nets[:2], foreign])
    assert not space.contains(nets[0].spec)
    with pytest.raises(TypeError, match="net must be a Network; got '"):
        space.to_string(nets[0].spec)
    with pytest.raises(TypeError, match="pass \\[net\\]"):
        space.encode(nets[0])


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(NAMES, 2)))
def test_no_space_takes_another_spaces_networks(first, second, rng):
    net = spaces.get(first).sample_one(generator=rng)
    assert not spaces.get(second).contains(net)


def test_randomness_needs_a_generator(space, nets):
    with pytest.raises(ValueError, match="generator must be given"):
        space.sample(3)
    with pytest.raises(ValueError, match=r"torch.Generator\(\).manual_seed\(0\)"):
        space.mutate(nets[0])
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator; got 0"):
        space.sample(3, generator=0)


def test_counts_are_checked(space, rng):
    assert space.sample(0, generator=rng) == []
    with pytest.raises(ValueError, match="num must be at least 0; got -1"):
        space.sample(-1, generator=rng)
    with pytest.raises(TypeError, match=r"num must be an integer >= 0; got 2\.0"):
        space.sample(2.0, generator=rng)
    if space.size() < 10**6:
        with pytest.raises(ValueError, match=f"num must be at most {space.size()} when distinct"):
            space.sample(space.size() + 1, generator=rng, distinct=True)


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
