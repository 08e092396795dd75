"""Labels of operations are read and written in one way."""

import copy
import pickle

import numpy as np
import pytest
import torch

from hotnas_torch import Operation
from hotnas_torch.errors import ArchitectureError


@pytest.mark.parametrize(
    ("operation", "label"),
    [
        (Operation("relu"), "relu"),
        (Operation("conv", width=64, kernel=3), "conv[kernel=3,width=64]"),
        (Operation("conv", width=64.0), "conv[width=64]"),
        (Operation("scale", by=0.1), "scale[by=0.1]"),
        (Operation("scale", by=1e-300, to=1e300), "scale[by=1e-300,to=1e+300]"),
        (Operation("a b=c,d", kind=2), "a b=c,d[kind=2]"),
        (Operation("conv", B=1, a=2), "conv[B=1,a=2]"),
        (Operation("linear", width=np.int64(768)), "linear[width=768]"),
        (Operation("linear", width=torch.tensor(768)), "linear[width=768]"),
    ],
)
def test_a_label_is_written_shortest_and_read_back(operation: Operation, label: str) -> None:
    assert str(operation) == label
    assert Operation.parse(label) == operation
    assert str(Operation.parse(label)) == label


def test_random_numbers_come_back_to_the_bit(rng: torch.Generator) -> None:
    values = torch.randn(500, generator=rng, dtype=torch.float64).mul(200).exp2().tolist()
    for value in values:
        assert Operation.parse(str(Operation("op", x=value))).numbers == {"x": value}


def test_equal_operations_are_one_key_and_numbers_cannot_be_written_to() -> None:
    first, second = Operation("conv", kernel=3, width=8), Operation("conv", width=8.0, kernel=3)
    assert first == second
    assert len({first, second, Operation("conv", kernel=3)}) == 2
    assert copy.deepcopy(first) == first
    assert pickle.loads(pickle.dumps(first)) == first
    assert repr(first) == "Operation('conv', kernel=3, width=8)"
    with pytest.raises(TypeError, match="item assignment"):
        first.numbers["kernel"] = 5.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("", "kind must be a non-empty text"),
        ("[width=3]", "kind must be a non-empty text"),
        ("conv]", r"without '\[' and '\]'"),
        ("conv[kernel=3", "kind, or kind"),
        ("conv[kernel=3]x", "kind, or kind"),
        ("conv[]", "has ''"),
        ("conv[kernel]", "has 'kernel'"),
        ("conv[kernel=three]", "has 'kernel=three'"),
        ("conv[kernel=3,kernel=5]", "repeats 'kernel=5'"),
        ("conv[=3]", "names of numbers"),
        ("conv[ü=3]", "names of numbers"),
        ("conv[kernel=0]", "positive finite number; got 0"),
        ("conv[kernel=-1]", "positive finite number; got -1"),
        ("conv[kernel=nan]", "positive finite number; got nan"),
        ("conv[kernel=inf]", "positive finite number; got inf"),
        ("conv[width=64,kernel=3]", r"shortest, 'conv\[kernel=3,width=64\]'; got"),
        ("conv[kernel=3.0]", r"shortest, 'conv\[kernel=3\]'; got"),
        ("conv[kernel=1_0]", r"shortest, 'conv\[kernel=10\]'; got"),
        ("conv[kernel= 3]", r"shortest, 'conv\[kernel=3\]'; got"),
    ],
)
def test_a_bad_label_is_refused_in_words(label: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        Operation.parse(label)


def test_a_bad_number_is_refused_in_words() -> None:
    with pytest.raises(ArchitectureError, match="kernel of 'conv' must be a positive finite"):
        Operation("conv", kernel=0)
    with pytest.raises(TypeError, match="kernel of 'conv' must be a number"):
        Operation("conv", kernel="3")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="kernel of 'conv' must be a number"):
        Operation("conv", kernel=True)
    with pytest.raises(ArchitectureError, match=r"Operation\.parse reads a label"):
        Operation("conv[kernel=3]")
    with pytest.raises(TypeError, match="kind must be a str"):
        Operation(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="label must be a str"):
        Operation.parse(3)  # type: ignore[arg-type]
