"""`hotnas compare`: two networks side by side, with the coupling between them."""

import argparse
from pathlib import Path
from typing import Any

import torch

from hotnas_torch.cli.commands import Parser, add_command
from hotnas_torch.cli.distance import add_distance_arguments, distance_of, space_of
from hotnas_torch.cli.messages import BadInput, check_output
from hotnas_torch.cli.modules import MODEL, network_named
from hotnas_torch.distances import HOTNN, CellMatching, NetworkMatching
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.plot import plot_network_matching, save_figure, short_name

__all__ = ["add_compare"]

_COMPARE_EXAMPLES = """\
examples:
  hotnas compare 64-1234-basic 64-41414-basic --space transnas_macro --out compare.png
  hotnas compare 64-1234-basic 64-41414-basic --space transnas_macro --distance otmann
  hotnas compare --space nasbench201 --out compare.png \\
    '|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|' \\
    '|avg_pool_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|'
  hotnas compare models.py:small models.py:large

The last example compares two models of one's own: in models.py, `small` and `large` are keys of the
dict `models` that `hotnas gram --modules` reads, or names of the file: pairs of a torch module and
example inputs, or functions that return such pairs.
"""


def add_compare(commands: Any) -> None:
    """Add `compare` to what `add_subparsers` returned."""
    compare = add_command(
        commands,
        "compare",
        _compare,
        summary="two networks side by side, with the coupling between them",
        description="The distance of two networks, what it is made of, and a picture of both.",
        examples=_COMPARE_EXAMPLES,
    )
    compare.add_argument(
        "a",
        metavar="A",
        help=f"architecture string of the first network, or without --space {MODEL}",
    )
    compare.add_argument("b", metavar="B", help="the second network, likewise")
    compare.add_argument("--out", type=Path, metavar="FILE", help="picture (png, pdf or svg)")
    compare.add_argument("--overwrite", action="store_true", help="replace an existing picture")
    add_distance_arguments(compare)


def _compare(_: Parser, arguments: argparse.Namespace) -> None:
    space = space_of(arguments)
    distance = distance_of(arguments, space)
    networks = []
    for name, text in (("A", arguments.a), ("B", arguments.b)):
        try:
            if arguments.space is None:
                networks.append(network_named(name, text))
            else:
                networks.append(space.from_string(text))
        except ArchitectureError as error:
            raise BadInput(f"{name}: {error}") from error
    if arguments.out is not None:
        if arguments.out.is_dir():
            check_output("--out", arguments.out)
        if arguments.out.exists() and not arguments.overwrite:
            raise BadInput(f"--out: {arguments.out} exists (add --overwrite to replace it)")
        if arguments.out.suffix.lower() not in (".png", ".pdf", ".svg"):
            raise BadInput(f"--out: {arguments.out} must end in .png, .pdf or .svg")
        check_output("--out", arguments.out)
    if not isinstance(distance, HOTNN):
        if arguments.out is not None:
            raise BadInput("--out: there is a picture of a coupling of HOTNN only (leave it out)")
        (x, y), parts = networks, distance.part_distances(networks[:1], networks[1:])
        named = dict(zip(distance.parts, parts.flatten().tolist(), strict=True))
        _print_parts(type(distance).__name__, float(distance([x], [y])), named)
        return
    matching = distance.matching(networks[0], networks[1])
    cells = _costliest_cells(distance, matching)
    _print_parts("HOTNN", matching.distance, matching.parts)
    for s, t, cell_matching in cells:
        print()
        _print_parts(
            f"iFGW of cell {s + 1} of A and cell {t + 1} of B",
            cell_matching.distance,
            cell_matching.parts,
        )
    if arguments.out is not None:
        titles = (short_name(arguments.a, 40), short_name(arguments.b, 40))
        save_figure(plot_network_matching(matching, cells, titles=titles), arguments.out)
        print(f"\npicture  {arguments.out}")


def _costliest_cells(
    metric: HOTNN, matching: NetworkMatching, most: int = 2
) -> list[tuple[int, int, CellMatching]]:
    """Return the pairs of different cells that add most to the distance, at least one."""
    cost = matching.plan * matching.cell_distances
    totals: dict[tuple[str, str], float] = {}
    first: dict[tuple[str, str], tuple[int, int]] = {}
    for s, t in torch.nonzero(matching.plan > 0).tolist():
        pair = matching.network_a.cells[s].key, matching.network_b.cells[t].key
        totals[pair] = totals.get(pair, 0.0) + float(cost[s, t])
        first.setdefault(pair, (s, t))
    ranked = sorted(totals, key=lambda pair: -totals[pair])
    chosen = [pair for pair in ranked if totals[pair] > 0.0][:most] or ranked[:1]
    return [
        (s, t, metric.ifgw.matching(matching.network_a.cells[s], matching.network_b.cells[t]))
        for s, t in (first[pair] for pair in chosen)
    ]


def _print_parts(name: str, distance: float, parts: dict[str, float]) -> None:
    print(f"{name} = {distance:.6f}")
    for part, value in parts.items():
        print(f"  {part:<10}  {value:.6f}")
