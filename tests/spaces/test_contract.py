"""Every space of the library keeps what every search space has to keep."""

import pytest
import torch

from hotnas_torch import Cell, Network, spaces
from hotnas_torch.spaces import Block, Cells, Choice, Choices, Finite, SearchSpace
from hotnas_torch.testing import SearchSpaceContract


class TestNASBench101(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return spaces.NASBench101()


class TestNASBench201(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return spaces.NASBench201()


class TestContractedNASBench201(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return spaces.NASBench201(contract_skip=True)


class TestTransNASMacro(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return spaces.TransNASMacro()


class TestDARTS(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return spaces.DARTS()


class TestContractedDARTS(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return spaces.DARTS(contract_skip=True)


class TestNASBenchMacro(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return spaces.NASBenchMacro()


class TestPooling(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return spaces.Pooling()


class TestMobileNetV2(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return spaces.MobileNetV2()


class TestTransNASMicro(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return spaces.TransNASMicro()


class TestENASMacro(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return spaces.ENASMacro()


class TestSubset(SearchSpaceContract):
    def make(self) -> SearchSpace:
        space = spaces.TransNASMacro()
        return spaces.Subset(space, space.sample(40, generator=torch.Generator().manual_seed(1)))


def chain(choices: dict) -> Network:
    """A chain of cells with one operation, wider from stage to stage."""
    cells, channels, divisors = [], [], []
    for stage in range(2):
        label = f"mb{choices[f'expansion{stage}']}_k{choices[f'kernel{stage}']}"
        num = choices[f"depth{stage}"]
        cells += [Cell(("input", label, "output"), ((0, 1), (1, 2)))] * num
        channels += [choices[f"width{stage}"]] * num
        divisors += [2**stage] * num
    return Network.chain(cells, channels, divisors, input_channels=16)


OPTIONS = {"kernel": [3, 5, 7], "expansion": [3, 6], "width": [16, 32], "depth": [1, 2, 3]}
CHAIN = {f"{name}{stage}": options for stage in range(2) for name, options in OPTIONS.items()}


class TestChoices(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return Choices(CHAIN, chain)


def few(choices: dict) -> bool:
    return choices["depth0"] + choices["depth1"] == 4


class TestConstrainedChoices(SearchSpaceContract):
    """No edit of one depth is allowed, so neighbours may differ in two choices."""

    def make(self) -> SearchSpace:
        return Choices(CHAIN, chain, constraint=few)


def tree(choices: dict) -> Network:
    ops, edges = ["input"], []
    for block in (choices["first"], choices.get("second")):
        if block is not None:
            ops.append("-".join(str(value) for value in block.values()))
            edges.append((len(ops) - 2, len(ops) - 1))
    cell = Cell((*ops, "output"), (*edges, (len(ops) - 1, len(ops))))
    return Network.chain((cell,), (choices["width"],), (1,))


BLOCK = Block(
    {
        "operation": ["conv", "pool, of any (kind)", True, None, 0.5],
        "kernel": Choice([1, 3, 5], when={"operation": "conv"}),
        "dilation": Choice([1, 2], when={"operation": "conv", "kernel": lambda kernel: kernel > 1}),
    }
)


class TestConditionalBlocks(SearchSpaceContract):
    def make(self) -> SearchSpace:
        two = Choice(BLOCK, when={"depth": 2})
        choices = {"second": two, "first": BLOCK, "depth": [1, 2], "width": [8, 16, 32]}
        return Choices(choices, tree)


class Word(SearchSpace):
    """As little as a space of one's own can say."""

    name, operations, max_nodes, state_scale = "word", ("a", "b", "c"), 5, (1.0, 1.0)

    def __init__(self) -> None:
        super().__init__({"first": 3, "second": 3, "third": range(-1, 3)}, ("a", "b", "c"))

    def fault_of(self, code: tuple[int, ...]) -> str | None:
        return "two letters in a row must differ" if code[0] == code[1] else None

    def build_network(self, code: tuple[int, ...]) -> Network:
        letters = ["abc"[number] for number in code if number >= 0]
        edges = tuple((place, place + 1) for place in range(len(letters) + 1))
        return Network((Cell(("input", *letters, "output"), edges),), (1,), (1,))


class TestSubclass(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return Word()


class TestCells(SearchSpaceContract):
    def make(self) -> SearchSpace:
        return Cells(["conv", "pool"], max_nodes=5, max_in_degree=2, skeleton=[(2, 16), (1, 32)])


class TestLargeCells(SearchSpaceContract):
    """Too many to count; every operation is seldom, and so are reductions."""

    def make(self) -> SearchSpace:
        limits = {"max_edges": 14, "max_in_degree": 2, "max_out_degree": 3}
        labels = [f"operation {number}" for number in range(12)]
        return Cells(labels, max_nodes=10, min_nodes=4, skeleton=reduced, **limits)


def reduced(cell: Cell) -> Network:
    reduction = Cell(("input", "reduce", "output"), ((0, 1), (1, 2)))
    return Network((cell, reduction, cell), (16, 32, 32), (1, 2, 2))


class TestBlocksOfCells(SearchSpaceContract):
    """A hierarchy: cells within blocks within choices."""

    def make(self) -> SearchSpace:
        cells = Cells(["conv", "pool"], max_nodes=4)
        stage = Block({"cell": cells, "repeats": [1, 2]})
        choices = {"first": stage, "second": stage, "more": [False, True]}
        choices["third"] = Choice(stage, when={"more": True})
        return Choices(choices, stacked)


def stacked(choices: dict) -> Network:
    stages = [choices[name] for name in ("first", "second", "third") if name in choices]
    cells = [stage["cell"] for stage in stages for _ in range(stage["repeats"])]
    return Network.chain(cells, (8,) * len(cells), (1,) * len(cells))


class TestFinite(SearchSpaceContract):
    def make(self) -> SearchSpace:
        nets = spaces.Pooling().sample(
            30, generator=torch.Generator().manual_seed(1), distinct=True
        )
        return Finite({f"model (no. {place}), {net.spec}": net for place, net in enumerate(nets)})


class TestSubsetOfChoices(SearchSpaceContract):
    def make(self) -> SearchSpace:
        space = Choices(CHAIN, chain)
        return spaces.Subset(space, space.sample(40, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("wrong", [[], {}, {"a": 0}, {"a": range(0, 4, 2)}, {"a": 1.5}])
def test_columns_need_values(wrong: object) -> None:
    class Wrong(Word):
        def __init__(self) -> None:
            SearchSpace.__init__(self, wrong, ("a",))  # type: ignore[arg-type]

    with pytest.raises((TypeError, ValueError), match="columns"):
        Wrong()
