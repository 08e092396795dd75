import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.spaces.encodings import MemberEncoding, SlotEncoding, Slots, encoding_of
from hotnas_torch.spaces.encodings.grid import grid_points, num_arrangements, round_to_grid

FREE = [
    spaces.NASBench201(),
    spaces.NASBenchMacro(),
    spaces.DARTS(),
    spaces.DARTS(num_nodes=2, operations=("skip_connect", "sep_conv_3x3", "max_pool_3x3")),
    spaces.NASBench101(),
]


def by_name(space):
    return f"{space.name}-{len(space.operations)}"


def nets(space, num, seed=0):
    return space.sample(num, generator=torch.Generator().manual_seed(seed))


# --- encoding -------------------------------------------------------------------------------------


def test_the_encoding_of_a_nasbench201_string_counts_its_words():
    space = spaces.NASBench201()
    found = nets(space, 50)
    words = torch.tensor(
        [[net.spec.count(name) for name in space.operations] for net in found], dtype=torch.float64
    )
    assert torch.equal(SlotEncoding(space).encode(found), words / 6)


def test_the_encoding_of_a_darts_genotype_counts_both_cells():
    space = spaces.DARTS()
    found = nets(space, 20)
    for encoding in (SlotEncoding(space), SlotEncoding(space, cells="joint")):
        for net, point in zip(found, encoding.encode(found), strict=True):
            genotype = space.to_genotype(net)
            names = [name for name, _ in genotype.normal + genotype.reduce]
            expected = [names.count(name) / 16 for name in space.operations]
            assert point.tolist() == expected
    assert SlotEncoding(space).total == 8
    assert SlotEncoding(space, cells="joint").total == 16


def test_the_encoding_of_a_smaller_nasbench101_cell_counts_what_is_there():
    space = spaces.NASBench101()
    net = space.from_string("4,110011,02")
    assert SlotEncoding(space).encode([net]).tolist() == [[0.5, 0.0, 0.5]]
    empty = space.from_string("2,1,")
    assert SlotEncoding(space).encode([empty]).tolist() == [[1 / 3] * 3]


def test_rows_may_have_any_leading_shape_and_dtype():
    space = spaces.NASBench201()
    encoding = SlotEncoding(space)
    X = space.encode(nets(space, 12))
    points = encoding.of_rows(X.reshape(3, 4, 6).float())
    assert points.shape == (3, 4, 5)
    assert points.dtype == torch.float32
    assert torch.allclose(points.reshape(12, 5).double(), encoding.of_rows(X))


# --- decoding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", FREE[:-1], ids=by_name)
def test_decoding_gives_exactly_the_asked_counts(space, rng):
    encoding = SlotEncoding(space)
    counts = grid_points(encoding.total, encoding.num_operations)
    counts = counts[torch.randperm(len(counts), generator=rng)[:200]]
    points = counts.double() / encoding.total
    found = encoding.decode(points, generator=rng)
    assert all(space.contains(net) for net in found)
    assert torch.equal(encoding.encode(found), points)
    assert torch.equal(encoding.snap(points), points)


def test_the_wiring_of_a_nasbench101_cell_says_how_many_operations_are_placed(rng):
    space = spaces.NASBench101()
    encoding = SlotEncoding(space)
    points = encoding.draw(300, generator=rng)
    found = encoding.decode(points, generator=rng)
    sizes = set()
    for net, point in zip(found, points, strict=True):
        assert space.contains(net)
        inner = net.cells[0].ops[1:-1]
        counts = [inner.count(name) for name in space.operations]
        assert counts == round_to_grid(point, len(inner)).tolist()
        sizes.add(len(inner))
    assert sizes >= {1, 2, 3, 4}


def test_both_cells_of_a_darts_network_get_the_counts_and_wirings_of_their_own(rng):
    space = spaces.DARTS()
    encoding = SlotEncoding(space)
    point = torch.tensor([[1, 0, 3, 2, 0, 2, 0]], dtype=torch.float64) / 8
    genotypes = [
        space.to_genotype(net) for net in encoding.decode(point.expand(40, -1), generator=rng)
    ]
    for genotype in genotypes:
        for cell in (genotype.normal, genotype.reduce):
            names = [name for name, _ in cell]
            assert [names.count(name) for name in space.operations] == [1, 0, 3, 2, 0, 2, 0]
    wirings = {tuple(source for _, source in genotype.normal) for genotype in genotypes}
    assert len(wirings) > 10
    assert any(genotype.normal != genotype.reduce for genotype in genotypes)


def test_every_order_of_the_operations_is_equally_likely(rng):
    space = spaces.NASBench201()
    encoding = SlotEncoding(space)
    point = torch.tensor([[0, 4, 2, 0, 0]], dtype=torch.float64) / 6
    found = encoding.decode(point.expand(3000, -1), generator=rng)
    seen = torch.tensor([hash(net.spec) for net in found])
    _, counts = seen.unique(return_counts=True)
    assert len(counts) == num_arrangements(torch.tensor([[0, 4, 2, 0, 0]]))[0] == 15
    # 200 expected each, standard deviation 14.
    assert 140 < int(counts.min()) <= int(counts.max()) < 260


@pytest.mark.parametrize("space", FREE, ids=by_name)
def test_stochastic_decoding_has_the_point_as_its_mean(space, rng):
    encoding = SlotEncoding(space)
    point = encoding.draw(1, generator=rng)
    found = encoding.sample(point.expand(800, -1), generator=rng)
    assert all(space.contains(net) for net in found[:20])
    realised = encoding.encode([net for net in found if len(net.cells[0].ops) > 2])
    assert torch.allclose(realised.mean(dim=0), point[0], atol=0.04)
    # Operations are drawn one by one, so the counts scatter.
    assert len({encoding.key(row) for row in realised}) > 10


def test_stochastic_decoding_draws_each_place_independently(rng):
    space = spaces.NASBench201()
    encoding = SlotEncoding(space)
    point = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0]], dtype=torch.float64)
    rows = space.encode(encoding.sample(point.expand(4000, -1), generator=rng))
    for operation, share in enumerate(point[0].tolist()):
        drawn = (rows == operation).double()
        assert torch.allclose(drawn.mean(dim=0), torch.full((6,), share).double(), atol=0.03)
    assert abs(torch.corrcoef((rows == 3).double().T)[0, 1].item()) < 0.06


def test_decoding_depends_on_the_generator_alone():
    encoding = SlotEncoding(spaces.DARTS())
    points = encoding.draw(5, generator=torch.Generator().manual_seed(0))
    first, second, other = (
        encoding.decode(points, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first == second != other


def test_nothing_decodes_to_nothing(rng):
    encoding = SlotEncoding(spaces.NASBench201())
    empty = torch.empty(0, 5, dtype=torch.float64)
    assert encoding.decode(empty, generator=rng) == []
    assert encoding.sample(empty, generator=rng) == []


# --- members --------------------------------------------------------------------------------------


def test_the_members_of_a_subset_are_found_by_their_encoding(rng):
    space = spaces.NASBench201()
    members = nets(space, 60)
    encoding = encoding_of(spaces.Subset(space, members))
    assert isinstance(encoding, MemberEncoding)
    points = encoding.encode(members)
    assert torch.equal(points, SlotEncoding(space).encode(members))
    assert torch.equal(encoding.snap(points), points)
    found = encoding.decode(points, generator=rng)
    assert torch.equal(encoding.encode(found), points)
    held = {encoding.key(point) for point in points}
    assert encoding.num_encodings() == len(held)
    anywhere = encoding.draw(200, generator=rng)
    nearest = torch.cdist(anywhere, points, p=1.0).min(dim=1).values
    snapped = encoding.snap(anywhere)
    assert torch.allclose((snapped - anywhere).abs().sum(dim=1), nearest)
    assert {encoding.key(point) for point in snapped} <= held


def test_neighbours_among_members_are_the_nearest_other_encodings():
    space = spaces.NASBench201()
    encoding = MemberEncoding(spaces.Subset(space, nets(space, 40)))
    point = encoding.encode(nets(space, 1))[0]
    near = encoding.neighbors(point)
    assert len(near) == 20
    distances = (near - point).abs().sum(dim=1)
    assert float(distances.min()) > 0
    assert torch.equal(distances, distances.sort().values)


def test_all_members_of_an_encoding_are_drawn(rng):
    space = spaces.NASBench201()
    encoding = SlotEncoding(space)
    point = torch.tensor([[0, 5, 1, 0, 0]], dtype=torch.float64) / 6
    alike = {
        net.spec: net for net in encoding.decode(point.expand(100, -1), generator=rng)
    }.values()
    members = MemberEncoding(spaces.Subset(space, [*alike, *nets(space, 20)]))
    drawn = members.decode(point.expand(200, -1), generator=rng)
    assert {net.spec for net in drawn} >= {net.spec for net in alike}


def test_a_space_without_operations_has_one_encoding(rng):
    encoding = encoding_of(spaces.Pooling())
    assert encoding.num_encodings() == encoding.num_operations == 1
    assert len(encoding.neighbors(torch.ones(1, dtype=torch.float64))) == 0
    drawn = encoding.decode(torch.ones(300, 1, dtype=torch.float64), generator=rng)
    assert len({net.spec for net in drawn}) > 30


def test_a_constrained_space_decodes_to_its_own_networks(rng):
    space = spaces.TransNASMacro()
    encoding = encoding_of(space)
    found = encoding.decode(encoding.draw(50, generator=rng), generator=rng)
    assert all(space.contains(net) for net in found)


# --- faults ---------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match="space must be a SearchSpace"):
        SlotEncoding("nasbench201")
    with pytest.raises(TypeError, match="space must be a SearchSpace"):
        MemberEncoding("nasbench201")
    with pytest.raises(ValueError, match="one of 'shared', 'joint'"):
        SlotEncoding(spaces.DARTS(), cells="both")
    with pytest.raises(ValueError, match="no places that any operation may fill"):
        SlotEncoding(spaces.TransNASMacro())
    with pytest.raises(ValueError, match="at most 131,072"):
        MemberEncoding(spaces.DARTS())
    with pytest.raises(ValueError, match="sum to 1"):
        SlotEncoding(spaces.NASBench201()).decode(
            torch.ones(1, 5), generator=torch.Generator().manual_seed(0)
        )


def test_slots_may_be_given_for_a_part_of_the_places(rng):
    space = spaces.NASBenchMacro()
    encoding = SlotEncoding(space, slots=Slots((tuple(range(2, 8)),), space.operations))
    point = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    for net in encoding.decode(point.expand(20, -1), generator=rng):
        assert net.spec[2:].count("0") == net.spec[2:].count("1") == 3
