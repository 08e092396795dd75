"""The command `hotnas`: distances and pictures without writing a program."""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hotnas_torch import distances, spaces
from hotnas_torch._version import __version__
from hotnas_torch.arch import Network
from hotnas_torch.cli.bench import add_bench
from hotnas_torch.cli.cluster import add_cluster_arguments, cluster
from hotnas_torch.cli.commands import Parser, add_command, add_existing, add_quiet
from hotnas_torch.cli.messages import BadInput, check_output, in_terms_of_options, seed
from hotnas_torch.cli.report import add_report
from hotnas_torch.cli.search import add_search
from hotnas_torch.distances import HOTNN, CellMatching, NetworkDistance, NetworkMatching
from hotnas_torch.errors import (
    ArchitectureError,
    GramFileError,
    HotnasError,
    StorageError,
    TableError,
)
from hotnas_torch.plot import (
    plot_heat_map,
    plot_network_matching,
    plot_tree,
    save_figure,
    short_name,
)

__all__ = ["main"]

_BAD_INPUT = 2
_FAILED = 1
_INTERRUPTED = 130

_HOTNN_ARGUMENTS = (
    "lam",
    "eps",
    "eta",
    "zeta",
    "mass",
    "pairs",
    "linear_term",
    "normalize",
    "num_starts",
    "tol",
    "max_iter",
    "preset",
    "dtype",
    "backend",
    "device",
)
"""Options that are passed on to HOTNN where the user gives them."""

_GRAM_EXAMPLES = """\
examples:
  hotnas gram --space nasbench201 --sample 2000 --seed 0 --out gram.npz
  hotnas gram --space transnas_macro --file architectures.txt --out gram.npz --resume
  hotnas gram --space darts --sample 500 --preset paper --dtype float64 --out paper.npz
  hotnas gram --space nasbench101 --sample 20000 --device cuda --out gpu.npz
  hotnas gram --space nasbench101 --sample 100000 --ray auto --store gram.zarr --resume
  hotnas gram --space nasbench201 --sample 500 --distance tree_wasserstein --out tw.npz
  hotnas gram --space nasbench201 --sample 500 --distance edit --setting edge_cost=2 --out e.npz
  hotnas gram --space darts --sample 500 --distance mine:Distance --out mine.npz

It writes gram.npz (distances, architecture strings, settings), gram-heatmap.png and gram-tree.png.
An interrupted run leaves gram.npz.partial, which --resume goes on from. With --store the distances
go to a folder tile by tile and never lie in memory as a whole; there are no pictures then.

The last example computes the class Distance of mine.py, a hotnas_torch.distances.NetworkDistance.
"""

_COMPARE_EXAMPLES = """\
examples:
  hotnas compare 64-1234-basic 64-41414-basic --space transnas_macro --out compare.png
  hotnas compare 64-1234-basic 64-41414-basic --space transnas_macro --distance otmann
  hotnas compare --space nasbench201 --out compare.png \\
    '|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|' \\
    '|avg_pool_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|'
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        0 on success, 2 for bad input, 1 for a failure while working, 130 when interrupted.
    """
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
    except BadInput as error:
        return _refuse("hotnas", error, argparse.Namespace())
    name = f"hotnas {arguments.command}"
    try:
        with _plain_warnings(name):
            arguments.run(arguments)
    except (BadInput, ArchitectureError, GramFileError, StorageError, TableError) as error:
        return _refuse(name, error, arguments)
    except (HotnasError, OSError) as error:
        print(f"{name}: failed: {_one_line(error, arguments)}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt as interruption:
        print(f"{name}: interrupted {interruption}".rstrip(), file=sys.stderr)
        return _INTERRUPTED
    return 0


def _refuse(name: str, error: Exception, arguments: argparse.Namespace) -> int:
    print(f"{name}: error: {_one_line(error, arguments)}", file=sys.stderr)
    return _BAD_INPUT


def _one_line(error: Exception, arguments: argparse.Namespace) -> str:
    return in_terms_of_options(" ".join(str(error).split()), arguments)


@contextmanager
def _plain_warnings(name: str) -> Iterator[None]:
    """Show warnings as one line each, without the source line that Python adds."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"{name}: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


# --- arguments ------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="hotnas",
        description="Optimal-transport distances between neural architectures.",
        epilog="Each command has its own --help with examples.",
    )
    parser.add_argument("--version", action="version", version=f"hotnas_torch {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    gram = add_command(
        commands,
        "gram",
        _gram,
        summary="distances of many networks to a file, with a heat map and a tree picture",
        description="Distances between all pairs of many networks, a heat map and a tree picture.",
        examples=_GRAM_EXAMPLES,
    )
    source = gram.add_mutually_exclusive_group(required=True)
    source.add_argument("--sample", type=int, metavar="N", help="draw N different networks")
    source.add_argument(
        "--file",
        type=Path,
        metavar="FILE",
        help="read one architecture string per line; empty lines and lines with # are skipped",
    )
    gram.add_argument("--seed", type=seed, default=0, help="seed of --sample (default 0)")
    result = gram.add_mutually_exclusive_group(required=True)
    result.add_argument("--out", type=Path, metavar="FILE", help="file to write")
    result.add_argument(
        "--store",
        type=Path,
        metavar="FOLDER",
        help="folder to write instead, a Zarr group of tiles",
    )
    add_existing(gram, "run")
    gram.add_argument("--no-pictures", action="store_true", help="write the distances only")
    add_quiet(gram)
    _add_distance_arguments(gram)
    add_cluster_arguments(gram, "tile")

    compare = add_command(
        commands,
        "compare",
        _compare,
        summary="two networks side by side, with the coupling between them",
        description="The distance of two networks, what it is made of, and a picture of both.",
        examples=_COMPARE_EXAMPLES,
    )
    compare.add_argument("a", metavar="A", help="architecture string of the first network")
    compare.add_argument("b", metavar="B", help="architecture string of the second network")
    compare.add_argument("--out", type=Path, metavar="FILE", help="picture (png, pdf or svg)")
    compare.add_argument("--overwrite", action="store_true", help="replace an existing picture")
    _add_distance_arguments(compare)
    for add in (add_search, add_report, add_bench):
        add(commands)
    return parser


def _add_distance_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--space", required=True, metavar="NAME", help=f"one of {', '.join(spaces.NAMES)}"
    )
    distance = parser.add_argument_group("distance")
    distance.add_argument(
        "--distance",
        default=HOTNN.name,
        metavar="NAME",
        help=f"one of {', '.join(distances.NAMES)}, or MODULE:CLASS of one's own; default hotnn",
    )
    distance.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the distance, value in JSON or text; may be repeated",
    )
    metric = parser.add_argument_group("HOTNN")
    metric.add_argument("--preset", choices=("default", "paper"))
    metric.add_argument("--lam", type=float, help="weight of the node term, default 0.5")
    metric.add_argument("--eps", type=float, help="share of operations, default 0.8")
    metric.add_argument("--eta", type=float, help="share of a cell's position, default by space")
    metric.add_argument("--zeta", type=float, help="share of a cell's state, default by space")
    metric.add_argument("--mass", choices=("channels", "uniform"), help="masses of cells")
    metric.add_argument("--pairs", choices=("directed", "ordered"), help="pairs of nodes")
    metric.add_argument("--linear-term", choices=("separable", "literal"))
    metric.add_argument(
        "--raw-lengths",
        dest="normalize",
        action="store_const",
        const=False,
        help="path lengths in hops, not relative to the longest path",
    )
    solver = parser.add_argument_group("solver of HOTNN")
    solver.add_argument("--num-starts", type=int, help="starts per pair of cells")
    solver.add_argument("--tol", type=float, help="relative duality gap at which to stop")
    solver.add_argument("--max-iter", type=int, help="most transports per start")
    solver.add_argument("--dtype", choices=("float32", "float64"), help="default float32")
    solver.add_argument("--backend", choices=("auto", "ext", "torch"), help="default auto")
    solver.add_argument("--device", help="cpu (default), cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, metavar="N", help="threads, default all")


def _space(arguments: argparse.Namespace) -> spaces.SearchSpace:
    try:
        return spaces.get(arguments.space)
    except ValueError as error:
        raise BadInput(f"--space: {error}") from error


def _distance(arguments: argparse.Namespace, space: spaces.SearchSpace) -> NetworkDistance:
    """The distance that the options ask for, HOTNN unless another one is named."""
    if arguments.threads is not None:
        if arguments.threads < 1:
            raise BadInput(f"--threads must be at least 1; got {arguments.threads}")
        torch.set_num_threads(arguments.threads)
    given = {name: getattr(arguments, name) for name in _HOTNN_ARGUMENTS}
    given = {name: value for name, value in given.items() if value is not None}
    settings = dict(map(_setting, arguments.setting))
    if arguments.distance == HOTNN.name:
        given["dtype"] = getattr(torch, given.get("dtype", "float32"))
    elif given or getattr(arguments, "task_gpus", None):
        option = (
            next(iter(given), "task_gpus").replace("_", "-").replace("normalize", "raw-lengths")
        )
        raise BadInput(
            f"--{option} is an option of HOTNN (pass what {arguments.distance} takes as --setting"
            " NAME=VALUE)"
        )
    # As `python -m` does: modules of the folder in which the command is called.
    sys.path.insert(0, os.getcwd())
    try:
        return distances.get(arguments.distance, space=space, **given | settings)
    except (TypeError, ValueError) as error:
        message = str(error)
        unknown = message.startswith(("name must be", "cannot find"))
        raise BadInput(f"--distance: {message}" if unknown else message) from error
    finally:
        sys.path.remove(os.getcwd())


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise BadInput(f"--setting must be NAME=VALUE; got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


# --- gram -----------------------------------------------------------------------------------------


def _gram(parser: Parser, arguments: argparse.Namespace) -> None:
    space = _space(arguments)
    distance = _distance(arguments, space)
    pictures = {} if arguments.out is None else _outputs(arguments)
    if arguments.store is not None:
        _check_folder(arguments.store)
    target: Path = arguments.store if arguments.out is None else arguments.out
    partial_result = target if arguments.out is None else f"{target}.partial"
    networks = _networks(arguments, space)
    started = time.perf_counter()
    try:
        with cluster(parser, arguments, device="cuda") as executor:
            options = {
                "progress": not arguments.quiet,
                "resume": arguments.resume,
                "overwrite": arguments.overwrite,
                "take_over": arguments.take_over,
                "executor": executor,
            }
            if arguments.out is None:
                distance.gram_store(networks, target, **options)
            else:
                matrix = distance.gram(networks, out=target, **options)
    except ImportError as error:
        raise BadInput(str(error)) from error
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(
            f"(what is finished is in {partial_result}; run it again with --resume)"
        ) from interruption
    seconds = time.perf_counter() - started
    if pictures:
        names = [space.to_string(network) for network in networks]
        title = f"{type(distance).__name__} distances of {len(networks):,} {space.name} networks"
        save_figure(plot_heat_map(matrix, names, title=title), pictures["heat map"])
        save_figure(plot_tree(matrix, names, title=title), pictures["tree"])
    if not arguments.quiet:
        print(f"{len(networks):,} networks of {space.name} in {seconds:.1f} s")
        for name, path in {"distances": target, **pictures}.items():
            print(f"  {name:<10} {path}")


def _outputs(arguments: argparse.Namespace) -> dict[str, Path]:
    """Names the pictures, and checks that these and the file can be written."""
    out: Path = arguments.out
    check_output("--out", out)
    pictures = {
        "heat map": out.with_name(f"{out.stem}-heatmap.png"),
        "tree": out.with_name(f"{out.stem}-tree.png"),
    }
    if arguments.no_pictures:
        pictures = {}
    for path in (out, *pictures.values()):
        check_output("--out", path)
        if path.exists() and not (arguments.resume or arguments.overwrite):
            raise BadInput(
                f"--out: {path} exists (add --resume to go on with the same computation, or"
                " --overwrite to replace it)"
            )
    return pictures


def _check_folder(folder: Path) -> None:
    """Refuse a folder that can neither be written nor made."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise BadInput(f"--store: cannot make the folder {folder}: {place} is no folder")
    check_output("--store", place / ".hotnas")


def _networks(arguments: argparse.Namespace, space: spaces.SearchSpace) -> list[Network]:
    if arguments.file is not None:
        return _read_networks(arguments.file, space)
    if arguments.sample < 2:
        raise BadInput(f"--sample must be at least 2; got {arguments.sample}")
    generator = torch.Generator().manual_seed(arguments.seed)
    try:
        return space.sample(arguments.sample, generator=generator, distinct=True)
    except ValueError as error:
        raise BadInput(f"--sample: {error}") from error


def _read_networks(path: Path, space: spaces.SearchSpace) -> list[Network]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadInput(f"--file: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"--file: {path} is not UTF-8 text: {error.reason}") from error
    networks = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            networks.append(space.from_string(text))
        except ArchitectureError as error:
            raise BadInput(f"--file: {path}, line {number}: {error}") from error
    if len(networks) < 2:
        raise BadInput(f"--file: {path} holds {len(networks)} architecture(s); at least 2 needed")
    return networks


# --- compare --------------------------------------------------------------------------------------


def _compare(_: Parser, arguments: argparse.Namespace) -> None:
    space = _space(arguments)
    distance = _distance(arguments, space)
    networks = []
    for name, text in (("A", arguments.a), ("B", arguments.b)):
        try:
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


if __name__ == "__main__":
    sys.exit(main())
