"""Networks: validation, positions and masses, identity, JSON."""

import copy
import json
from typing import Any

import networkx as nx
import pytest

from hotnas_torch.arch import Cell, Network
from hotnas_torch.errors import ArchitectureError

A = Cell(("input", "a", "output"), ((0, 1), (1, 2)))
B = Cell(("input", "b", "c", "output"), ((0, 1), (0, 2), (1, 3), (2, 3)))
B_SWAPPED = Cell(("input", "c", "b", "output"), B.edges)
# input -> 1 -> 2 -> 4 -> output with the short cuts input -> 3 -> output and 1 -> 4.
BRANCHED = ((0, 1), (0, 3), (1, 2), (1, 4), (2, 4), (3, 5), (4, 5))


def branched(**changes: Any) -> Network:
    fields: dict[str, Any] = {
        "cells": (A, B, A, B),
        "channels": (16, 16, 32, 64),
        "downsampling": (1, 1, 2, 4),
        "edges": BRANCHED,
        "input_channels": 16,
        "spec": "",
    }
    return Network(**(fields | changes))


def test_the_default_macro_graph_is_the_chain() -> None:
    chain = Network.chain([A, B], [4, 12], [1, 2])
    assert chain.edges == ((0, 1), (1, 2), (2, 3))
    assert chain.is_chain
    assert chain == Network((A, B), (4, 12), (1, 2), chain.edges)
    assert chain.num_cells == 2
    assert not branched().is_chain


def test_positions_in_a_chain() -> None:
    assert Network.chain([A] * 3, [1] * 3, [1] * 3).positions() == (0.25, 0.5, 0.75)


def test_positions_are_longest_paths_of_the_macro_graph() -> None:
    graph = nx.DiGraph(BRANCHED)

    def longest(node: int) -> int:
        return max(len(path) - 1 for path in nx.all_simple_paths(graph, 0, node))

    expected = tuple(longest(s) / longest(5) for s in (1, 2, 3, 4))
    assert branched().positions() == expected
    assert expected == (0.25, 0.5, 0.25, 0.75)


def test_masses() -> None:
    assert branched().masses() == (0.125, 0.125, 0.25, 0.5)
    assert branched().masses("uniform") == (0.25,) * 4
    with pytest.raises(ValueError, match="mode must be one of 'channels', 'uniform'; got 'flops'"):
        branched().masses("flops")  # type: ignore[arg-type]


def test_equality_and_hash_are_by_value() -> None:
    assert branched() == branched()
    assert hash(branched()) == hash(branched())
    for changes in (
        {"channels": (16, 16, 32, 65)},
        {"downsampling": (1, 1, 2, 2)},
        {"edges": ()},
        {"input_channels": 8},
        {"spec": "0|1"},
        {"cells": (A, B_SWAPPED, A, B)},
    ):
        assert branched(**changes) != branched()


def test_key_ignores_numbering_and_spec_and_nothing_else() -> None:
    reference = branched().key
    assert branched(spec="0|1").key == reference
    assert branched(cells=(A, B_SWAPPED, A, B)).key == reference
    for changes in (
        {"channels": (16, 16, 32, 65)},
        {"downsampling": (1, 1, 2, 2)},
        {"edges": ()},
        {"input_channels": 8},
        {"cells": (A, A, A, B)},
    ):
        assert branched(**changes).key != reference


def test_key_ignores_the_order_of_cells_in_the_macro_graph() -> None:
    # The same network with cells 2 and 3 exchanged.
    exchanged = Network(
        (A, A, B, B),
        (16, 32, 16, 64),
        (1, 2, 1, 4),
        ((0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (3, 4), (4, 5)),
        16,
    )
    assert exchanged != branched()
    assert exchanged.key == branched().key
    assert Network.chain([A, B], [1, 1], [1, 1]).key != Network.chain([B, A], [1, 1], [1, 1]).key


def test_key_does_not_change_between_releases_and_runs() -> None:
    # Written into users' files; a change needs a new file format.
    assert branched().key == "df3285117d0853f710343488c442871a"


def test_copies_equal_the_original_even_after_caches_are_filled() -> None:
    net = branched()
    key, value = net.key, hash(net)
    twin = copy.deepcopy(net)
    assert twin == net
    assert (twin.key, hash(twin)) == (key, value)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"cells": [A]}, TypeError, "cells must be a tuple of Cell; got list"),
        ({"cells": (A, "B")}, TypeError, r"cells\[1\] must be a Cell; got 'B'"),
        ({"cells": ()}, ArchitectureError, "at least one Cell"),
        ({"channels": [1, 1, 1, 1]}, TypeError, "channels must be a tuple of int; got list"),
        (
            {"channels": (1, 1)},
            ArchitectureError,
            "channels must have one entry per cell, 4; got 2",
        ),
        ({"channels": (1, 1, 0, 1)}, ArchitectureError, r"channels\[2\] must be positive; got 0"),
        ({"channels": (1, 1, 2.0, 1)}, TypeError, r"channels\[2\] must be an integer; got 2.0"),
        ({"channels": (True, 1, 1, 1)}, TypeError, r"channels\[0\] must be an integer; got True"),
        ({"downsampling": (1, -2, 1, 1)}, ArchitectureError, r"downsampling\[1\] must be positive"),
        ({"downsampling": (1,)}, ArchitectureError, "downsampling must have one entry per cell"),
        ({"input_channels": 0}, ArchitectureError, "input_channels must be positive; got 0"),
        ({"input_channels": None}, TypeError, "input_channels must be an integer; got None"),
        ({"spec": None}, TypeError, "spec must be a str; got None"),
        ({"edges": ((0, 1), (1, 2))}, ArchitectureError, r"node 1 \(cells\[0\]\) leads nowhere"),
        (
            {"edges": ((0, 9),)},
            ArchitectureError,
            r"edges\[0\] = \(0, 9\) names a node outside 0\.\.5",
        ),
        ({"edges": [(0, 1)]}, TypeError, "edges must be a tuple"),
    ],
)
def test_refuses(changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        branched(**changes)


@pytest.mark.parametrize(
    "net", [branched(spec="x"), Network.chain([A, B, A], [1, 2, 3], [1, 2, 4])]
)
def test_json_round_trip(net: Network) -> None:
    back = Network.from_json(json.loads(json.dumps(net.to_json())))
    assert back == net
    assert back.key == net.key


def test_json_writes_a_repeated_cell_once_and_shares_it_again() -> None:
    data = branched().to_json()
    assert len(data["cells"]) == 2
    cells = Network.from_json(data).cells
    assert cells[0] is cells[2]
    assert cells[1] is cells[3]


def test_json_defaults() -> None:
    data = {
        "cells": [A.to_json()],
        "layout": [0, 0],
        "channels": [4, 4],
        "downsampling": [1, 2],
    }
    assert Network.from_json(data) == Network.chain([A, A], [4, 4], [1, 2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": [0, 1, 0, 2]}, r"layout\[3\] must be the place of a cell in 'cells', 0\.\.1"),
        ({"layout": [0, 1, 0, -1]}, r"layout\[3\]"),
        ({"channels": [16, 16, 32]}, "channels must have one entry per cell"),
        ({"channels": [16, 16, 32, "64"]}, r"channels\[3\] must be an integer; got '64'"),
        ({"spec": 3}, "spec must be a string; got 3"),
        ({"edges": [[0]]}, r"edges\[0\] must be a pair"),
        ({"cells": [A.to_json(), {"ops": []}]}, r"cells\[1\]: .*'edges' is missing"),
        ({"cells": [A.to_json(), None]}, r"cells\[1\] must be an object; got None"),
        ({"depth": 4}, "'depth' is unknown"),
    ],
)
def test_from_json_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        Network.from_json(branched().to_json() | changes)


def test_from_json_refuses_text() -> None:
    with pytest.raises(TypeError, match="mapping that describes a network; got str"):
        Network.from_json("{}")  # type: ignore[arg-type]
