"""The predicted rates of GPUs: every one follows from its counts and its slowest resource."""

import pytest

from benchmarks.gpu_model import COUNTS, GPUS, Gpu, predict
from benchmarks.gpu_occupancy import read_table, tile_for

RESOURCES = ("issue", "latency", "cache", "memory")


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
@pytest.mark.parametrize(("operator", "nodes"), COUNTS)
def test_the_slowest_resource_binds(gpu: Gpu, operator: str, nodes: int) -> None:
    found = predict(gpu, operator, nodes)
    rates = {name: float(found[name]) for name in RESOURCES}
    assert found["pairs_per_second"] == min(rates.values()) > 0
    assert found["bound"] == min(rates, key=lambda name: rates[name])


def test_larger_problems_take_longer() -> None:
    for operator in {operator for operator, _ in COUNTS}:
        rates = [predict(GPUS["H100"], operator, n)["pairs_per_second"] for n in (8, 11, 20)]
        assert rates == sorted(rates, reverse=True)


def test_five_million_problems_of_eight_nodes_on_an_h100() -> None:
    assert float(predict(GPUS["H100"], "Fgw", 8)["pairs_per_second"]) >= 5e6


def test_every_prediction_has_its_kernel() -> None:
    table = {(row["operator"], row["nodes"]) for row in read_table()[1]}
    assert {(operator, str(tile_for(nodes))) for operator, nodes in COUNTS} <= table
