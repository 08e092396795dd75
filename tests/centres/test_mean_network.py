import pytest
import torch

import hotnas_torch as ht
from hotnas_torch.centres import mean_network
from hotnas_torch.distances import WeisfeilerLehman
from hotnas_torch.errors import ArchitectureError
from tests.generators.problems import F64


class _Lengths(ht.distances.NetworkDistance):
    """Chains are as far apart as they differ in length."""

    name = "lengths"

    def config(self):
        return super().config()

    def _tables(self, nets):
        return torch.tensor([float(net.num_cells) for net in nets], dtype=F64)

    def _values(self, tables, i, j):
        return (tables[i] - tables[j]).abs()[None]


def _chain(chosen):
    cell = ht.Cell(("input", "conv", "output"), ((0, 1), (1, 2)))
    size = chosen["depth"]
    return ht.Network.chain((cell,) * size, (1,) * size, (1,) * size)


DEPTHS = ht.spaces.Choices({"depth": list(range(1, 41))}, _chain)
LENGTHS = _Lengths(DEPTHS)
SPACE = ht.spaces.NASBench201()


def chains(*lengths: int) -> list[ht.Network]:
    return [net for size in lengths for net in DEPTHS if net.num_cells == size]


def best(nets, metric, weights, power):
    """The least objective of the whole space."""
    shares = torch.tensor(weights, dtype=F64) / sum(weights)
    return float((metric(list(metric.space), nets).double() ** power @ shares).min())


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [3, 1, 0, 1]])
def test_the_mean_of_numbers_is_their_mean_and_the_median_their_median(power, weights):
    nets = chains(3, 10, 11, 30)
    found = mean_network(nets, metric=LENGTHS, weights=weights, power=power)
    assert found.objective == pytest.approx(best(nets, LENGTHS, weights, power))
    if power == 2 and len(set(weights)) == 1:
        assert found.network.num_cells in (13, 14)
    assert torch.equal(found.distances, LENGTHS([found.network], nets)[0])


@pytest.mark.parametrize("power", [1, 2])
def test_no_network_of_a_macro_space_is_better(power):
    space = ht.spaces.NASBenchMacro()
    metric = ht.HOTNN(space=space)
    nets = space.sample(5, generator=torch.Generator().manual_seed(power))
    found = mean_network(nets, metric=metric, power=power)
    least = best(nets, metric, [1] * 5, power)
    assert least - 1e-7 <= found.objective <= 1.05 * least
    own = metric(nets).double() ** power
    assert found.objective < float(own.mean(1).min())


@pytest.mark.slow
def test_almost_no_network_of_nasbench201_is_better():
    metric = ht.HOTNN(space=SPACE)
    for seed in range(3):
        nets = SPACE.sample(6, generator=torch.Generator().manual_seed(seed))
        found = mean_network(nets, metric=metric)
        values = metric(list(SPACE), nets).double().square().mean(1)
        assert int((values < found.objective - 1e-7).sum()) <= 15  # in a thousand


@pytest.mark.parametrize("distance", [ht.HOTNN(space=SPACE), WeisfeilerLehman(SPACE)])
def test_no_neighbour_is_better_and_the_medoid_not_either(distance):
    nets = SPACE.sample(5, generator=torch.Generator().manual_seed(1))
    found = mean_network(nets, metric=distance)
    own = distance(nets).double().square().mean(1)
    around = distance(SPACE.neighbors(found.network), nets).double().square().mean(1)
    assert found.objective <= float(around.min()) * (1 + 1e-12)
    assert found.medoid == int(own.argmin())
    assert found.objective <= float(own.min()) * (1 + 1e-12)
    given = mean_network(nets, metric=distance, within="given")
    assert given.network is nets[found.medoid]
    assert given.objective == pytest.approx(float(own.min()))


def test_the_relaxation_and_the_barycenter_find_networks_of_their_own():
    from hotnas_torch.centres.mean_network import _near_barycenter, _rounded, _Search

    nets = SPACE.sample(6, generator=torch.Generator().manual_seed(2))
    search = _Search(ht.HOTNN(space=SPACE), nets, torch.full((6,), 1 / 6, dtype=F64), 2)
    medoid = float(search.values(nets).min())
    for propose in (_near_barycenter, _rounded):
        assert float(search.values(propose(search)).min()) < 0.9 * medoid


def test_the_mean_of_one_network_and_of_equal_ones_is_that_network():
    (net,) = SPACE.sample(1, generator=torch.Generator().manual_seed(0))
    for nets in ([net], [net] * 3):
        found = mean_network(nets, metric=ht.HOTNN(space=SPACE))
        assert found.objective == 0.0
        assert found.network is net


def test_networks_of_no_space_have_a_medoid():
    nets = SPACE.sample(4, generator=torch.Generator().manual_seed(0))
    metric = ht.HOTNN(tree=SPACE.tree, state_scale=SPACE.state_scale)
    own = metric(nets).double().square().mean(1)
    found = mean_network(nets, metric=metric, within="given")
    assert found.network is nets[int(own.argmin())]
    with pytest.raises(ValueError, match=r"metric must have a space .*within='given'"):
        mean_network(nets, metric=metric)
    anywhere = ht.HOTNN(space=ht.spaces.AnyNetwork(SPACE.tree))
    with pytest.raises(ValueError, match=r"the space of metric cannot be searched.*within='given'"):
        mean_network(nets, metric=anywhere)
    assert mean_network(nets, metric=anywhere, within="given").network in nets


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"nets": []}, ValueError, "nets must hold at least one Network"),
        ({"nets": [1]}, TypeError, r"nets\[0\] must be a Network"),
        ({"nets": SPACE.sample(1, generator=torch.Generator())}, ArchitectureError, r"nets\[0\]"),
        ({"metric": torch.cdist}, TypeError, "metric must be a NetworkDistance"),
        ({"power": 3}, ValueError, "power must be one of"),
        ({"within": "table"}, ValueError, "within must be one of"),
        ({"weights": [1, 2]}, ValueError, "weights must hold one number per item, 3"),
        ({"max_steps": 0}, ValueError, "max_steps must be at least 1"),
        ({"num_starts": 0}, ValueError, "num_starts must be at least 1"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(change, error, message):
    call = {"nets": chains(1, 2, 3), "metric": LENGTHS} | change
    with pytest.raises(error, match=message):
        mean_network(call.pop("nets"), **call)
