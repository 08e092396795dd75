import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hotnas_torch.nn import CostTable, MacroSupernet, MobileNetSupernet, PoolingSupernet

GENERATOR = torch.Generator().manual_seed(0)
MAKERS = {
    "pooling": (lambda **o: PoolingSupernet(generator=GENERATOR, **o), 32),
    "macro": (lambda **o: MacroSupernet(generator=GENERATOR, **o), 32),
    "mobile": (lambda **o: MobileNetSupernet(width=0.25, generator=GENERATOR, **o), (96, 64)),
}


def test_every_network_of_nas_bench_macro_costs_what_was_published(data_dir):
    text = (data_dir / "nas-bench-macro" / "nas-bench-macro_cifar10.json").read_text()
    published = json.loads(text)
    supernet = MacroSupernet(normalization="running", generator=GENERATOR)
    nets = list(supernet.space)
    costs = CostTable(supernet, image_size=32)(nets)
    assert len(nets) == len(published) == 6561
    assert costs.parameters.tolist() == [published[net.spec]["params"] for net in nets]
    assert costs.multiply_adds.tolist() == [published[net.spec]["flops"] for net in nets]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "mobile" else n for n in MAKERS]
)
def test_costs_are_those_of_the_network_alone(name, rng):
    make, size = MAKERS[name]
    supernet = make(normalization="running")
    nets = supernet.space.sample(3, generator=rng, distinct=True)
    costs = CostTable(supernet, image_size=size)(nets)
    height, width = (size, size) if isinstance(size, int) else size
    for place, net in enumerate(nets):
        alone = make(only=net).eval().to("meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            alone(torch.zeros(1, 3, height, width, device="meta"))
        assert 2 * costs.multiply_adds[place] == counter.get_total_flops()
        assert costs.parameters[place] == sum(p.numel() for p in alone.parameters())


def test_poolings_early_save_multiplications():
    supernet = PoolingSupernet(generator=GENERATOR)
    costs = CostTable(supernet, image_size=32)(
        [supernet.space.from_string(text) for text in ("[1,1,8]", "[4,3,3]", "[8,1,1]")]
    )
    assert bool((costs.multiply_adds[:-1] < costs.multiply_adds[1:]).all())
    assert len(set(costs.parameters.tolist())) == 1


def test_the_largest_space_has_networks_of_the_published_sizes():
    """MCT-NAS's are of 280 to 442 million multiply-adds; squeeze and excitation adds few."""
    supernet = MobileNetSupernet(normalization="running", generator=GENERATOR)
    texts = ("0" * 21, "1" * 21, "2" * 21, "a" * 21, "c" * 21)
    costs = CostTable(supernet, image_size=224)([supernet.space.from_string(t) for t in texts])
    none, small, squeezed, _, large = costs.multiply_adds.tolist()
    assert none < 280e6 < small < 442e6 < large
    assert small < squeezed < 1.01 * small
    assert bool((costs.parameters[:-1] < costs.parameters[1:]).all())


def test_arguments_are_checked(rng):
    supernet = PoolingSupernet(generator=rng)
    with pytest.raises(ValueError, match="image_size must be at least 1"):
        CostTable(supernet, image_size=0)
    net = supernet.space.from_string("[7,1,2]")
    with pytest.raises(ValueError, match=r"supernet must hold all networks .* '\[7,1,2\]' only"):
        CostTable(PoolingSupernet(only=net, generator=rng), image_size=8)
    assert CostTable(supernet, image_size=8)([]).parameters.shape == (0,)
