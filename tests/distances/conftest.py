"""Small architectures, so that the torch text of the solvers is fast enough for every test."""

import pytest

from hotnas_torch.arch import Cell, Network, OperationTree


@pytest.fixture(scope="package")
def tree() -> OperationTree:
    parents = {
        "op": None,
        "input": "op",
        "output": "op",
        "conv": "op",
        "conv1": "conv",
        "conv3": "conv",
        "pool": "op",
    }
    lengths = {
        "input": 1.0,
        "output": 1.0,
        "conv": 0.95,
        "conv1": 0.05,
        "conv3": 0.05,
        "pool": 1.0,
    }
    return OperationTree(parents, lengths)


@pytest.fixture(scope="package")
def cells() -> list[Cell]:
    """Cells of two to five nodes: disconnected, chains, a branch with a skip, a diamond."""
    return [
        Cell(("input", "output"), ()),
        Cell(("input", "conv1", "output"), ((0, 1), (1, 2))),
        Cell(("input", "conv3", "output"), ((0, 1), (0, 2), (1, 2))),
        Cell(("input", "conv3", "pool", "output"), ((0, 1), (1, 2), (2, 3))),
        Cell(("input", "pool", "conv1", "output"), ((0, 1), (0, 2), (1, 3), (2, 3))),
        Cell(
            ("input", "conv1", "conv3", "pool", "output"),
            ((0, 1), (0, 2), (1, 3), (2, 3), (2, 4), (3, 4)),
        ),
    ]


@pytest.fixture(scope="package")
def networks(cells: list[Cell]) -> list[Network]:
    """Chains of two to four cells with different widths and resolutions."""
    layouts = [
        ((1, 1), (8, 8), (1, 1)),
        ((1, 2), (8, 16), (1, 2)),
        ((2, 1), (8, 16), (1, 2)),
        ((3, 4, 3), (8, 16, 16), (1, 2, 2)),
        ((4, 4, 5), (8, 8, 16), (1, 2, 4)),
        ((1, 3, 5, 0), (8, 16, 16, 32), (1, 2, 2, 4)),
        ((5, 3, 1, 2), (8, 16, 32, 32), (1, 1, 2, 4)),
    ]
    return [
        Network.chain([cells[c] for c in layout], channels, downsampling, input_channels=8)
        for layout, channels, downsampling in layouts
    ]
