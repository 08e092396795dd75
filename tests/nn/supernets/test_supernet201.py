import pytest
import torch

from hotnas_torch.nn import NASBench201Supernet, Skeleton, build
from hotnas_torch.nn.nasbench201 import CellModule
from hotnas_torch.nn.supernets.mixed import MixedOperation
from hotnas_torch.nn.supernets.supernet201 import _MixedCell

SKELETON = Skeleton(channels=4, num_stages=2, cells_per_stage=1, input_channels=1)
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def supernet(operations=OPERATIONS, seed=0):
    return NASBench201Supernet(
        SKELETON, generator=torch.Generator().manual_seed(seed), operations=operations
    )


def test_a_mixture_is_the_weighted_sum(rng):
    first, second = (
        torch.nn.Conv2d(3, 3, 1, device="meta").to_empty(device="cpu") for _ in range(2)
    )
    for layer in (first, second):
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, generator=rng)
    mixed = MixedOperation([None, first, second])
    x = torch.randn(2, 3, 4, 4, generator=rng)
    weights = torch.tensor([0.5, 0.2, 0.3])
    assert torch.allclose(mixed(x, weights), 0.2 * first(x) + 0.3 * second(x), atol=1e-6)
    with pytest.raises(ValueError, match="at least one module"):
        MixedOperation([None])


@pytest.mark.parametrize("seed", range(4))
def test_with_one_operation_per_edge_it_is_that_cell(seed):
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(5, (6,), generator=generator).tolist()
    mixed = supernet().stages[0]
    assert isinstance(mixed, _MixedCell)
    names = tuple(OPERATIONS[place] for place in chosen)
    cell = build(lambda: CellModule(names, 4), generator=generator)
    for edge, place in enumerate(chosen):
        if OPERATIONS[place].startswith("nor_conv"):
            # Of a mixture without "none", places shift by one.
            source = mixed.edges[edge].operations[place - 1][1].weight
            cell.operations[edge][1].load_state_dict({"weight": source})
    x = torch.randn(3, 4, 5, 5, generator=generator)
    weights = torch.nn.functional.one_hot(torch.tensor(chosen), 5).float()
    assert torch.allclose(mixed(x, weights), cell(x), atol=1e-5)


def test_every_weight_and_parameter_has_a_gradient(rng):
    net = supernet()
    weights = torch.full((1, 6, 5), 0.2, requires_grad=True)
    net(torch.randn(4, 1, 8, 8, generator=rng), weights).square().sum().backward()
    assert weights.grad is not None
    assert bool((weights.grad[..., 1:] != 0).all())
    assert bool((weights.grad[..., 0] == 0).all())
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_network_of_the_largest_weights():
    net = supernet(("nor_conv_3x3", "skip_connect", "none"))
    weights = torch.tensor([[[9, 1, 0], [0, 2, 1], [0, 1, 2], [3, 2, 1], [0, 1, 0], [0, 0, 1.0]]])
    expected = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|nor_conv_3x3~0|skip_connect~1|none~2|"
    assert net.discretize(weights).spec == expected


def test_equal_seeds_build_equal_supernets():
    first, second, other = (supernet(seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_operations_are_checked():
    for operations, message in (
        (("conv",), "operations must be among"),
        (("none",), "not 'none' alone"),
        (("skip_connect", "skip_connect"), "must be distinct"),
    ):
        with pytest.raises(ValueError, match=message):
            supernet(operations)
