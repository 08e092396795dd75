import pytest
import torch

from hotnas_torch import Cell, Network, nn, spaces
from hotnas_torch.nn.supernets.mobile_supernets import MacroSupernet
from hotnas_torch.spaces.encodings import LayerCosts


@pytest.mark.parametrize(
    "name",
    ["nasbench101", "nasbench201", "nasbench_macro", "transnas_macro", "transnas_micro", "darts"],
)
def test_costs_are_finite_and_differ_between_networks(name):
    space = spaces.get(name)
    found = LayerCosts(space)(space.sample(8, generator=torch.Generator().manual_seed(0)))
    assert found.shape == (8, 2)
    assert bool(found.isfinite().all())
    assert len(found.unique(dim=0)) > 1


def test_they_rank_networks_as_counted_modules_do():
    supernet = MacroSupernet(normalization="running", generator=torch.Generator().manual_seed(0))
    nets = supernet.space.sample(40, generator=torch.Generator().manual_seed(0))
    found = LayerCosts(supernet.space)(nets)
    counted = nn.CostTable(supernet, image_size=32)(nets)
    for column, exact in enumerate((counted.parameters, counted.multiply_adds)):
        both = torch.stack([found[:, column], exact.double().log()])
        assert float(both.corrcoef()[0, 1]) > 0.95


def test_a_convolution_costs_its_weights():
    space = spaces.NASBench201()
    text = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|skip_connect~2|"
    net = space.from_string(text)
    parameters = LayerCosts(space)([net])[0, 0].exp()
    expected = max(net.channels) ** 2 + sum(
        width**2 * (9 * cell.ops.count("nor_conv_3x3") + cell.ops.count("nor_conv_1x1"))
        for width, cell in zip(net.channels, net.cells, strict=True)
    )
    assert float(parameters) == pytest.approx(expected)


def test_operations_that_tell_no_costs_are_refused():
    def build(choices):
        cell = Cell(("input", choices["operation"], "output"), ((0, 1), (1, 2)))
        return Network((cell,), (8,), (1,))

    space = spaces.Choices({"operation": ["conv3x3", "lstm"]}, build)
    with pytest.raises(ValueError, match="names say what they cost; 'lstm' of"):
        LayerCosts(space)
    with pytest.raises(TypeError, match="space must be a SearchSpace"):
        LayerCosts("darts")
