import math

import pytest
import torch

import hotnas_torch as ht
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import MobileNetV2

SPACE = MobileNetV2()


def test_there_are_thirteen_operations_in_each_of_21_layers():
    assert SPACE.size() == 13**21
    assert SPACE.dim == 21
    blocks = {
        f"mb{expansion}_k{kernel}{squeeze}"
        for expansion in (3, 6)
        for kernel in (3, 5, 7)
        for squeeze in ("", "_se")
    }
    assert set(SPACE.operations) == blocks | {"identity"}


def test_shapes_are_those_of_the_macro_structure():
    net = SPACE.from_string("1" * 21)
    assert net.channels == (32,) * 4 + (40,) * 4 + (80,) * 4 + (96,) * 4 + (192,) * 4 + (320,)
    assert net.downsampling == (2,) * 4 + (4,) * 4 + (8,) * 8 + (16,) * 5
    assert net.input_channels == 16
    width, resolution = SPACE.state_scale
    assert math.isclose(16 * 2**width, 320)
    assert 2**resolution == 16


def test_an_identity_that_changes_shape_is_a_convolution():
    net = SPACE.from_string("0" * 21)
    projected = [layer for layer, cell in enumerate(net.cells) if cell.ops[1] == "conv_1x1"]
    assert projected == [0, 4, 8, 12, 16, 20]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1" * 20 + "d", "expected one of 0123456789abc at position 20; got 'd'"),
        ("1" * 20, "21 symbols in all, one per layer, at position 20; got the end"),
        ("1" * 22, "at position 21; got '1'"),
    ],
)
def test_malformed_strings_are_refused(text, message):
    with pytest.raises(ArchitectureError, match=message):
        SPACE.from_string(text)


def test_similar_blocks_are_near(rng):
    nets = [SPACE.from_string(text + "1" * 20) for text in ("1", "2", "5", "0")]
    first = ht.HOTNN(space=SPACE)(nets)[0]
    assert bool((first[:-1] < first[1:]).all())
    assert ht.spaces.get("mobilenet_v2").name == SPACE.name
    mutant = SPACE.mutate(nets[0], generator=rng)
    assert SPACE.contains(mutant)
    assert torch.equal(SPACE.encode(SPACE.decode(SPACE.encode([mutant]))), SPACE.encode([mutant]))
