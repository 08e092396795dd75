"""`hotnas gram`: distances of many networks in a file or a store, with pictures."""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from hotnas_torch import spaces
from hotnas_torch.arch import Network
from hotnas_torch.cli.cluster import add_cluster_arguments, cluster
from hotnas_torch.cli.commands import Parser, add_command, add_existing, add_quiet
from hotnas_torch.cli.distance import add_distance_arguments, distance_of, space_of
from hotnas_torch.cli.messages import BadInput, check_output, seed
from hotnas_torch.cli.modules import networks_of_file
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.plot import plot_heat_map, plot_tree, save_figure

__all__ = ["add_gram"]

_GRAM_EXAMPLES = """\
examples:
  hotnas gram --space nasbench201 --sample 2000 --seed 0 --out gram.npz
  hotnas gram --space transnas_macro --file architectures.txt --out gram.npz --resume
  hotnas gram --space darts --sample 500 --preset paper --dtype float64 --out paper.npz
  hotnas gram --space nasbench101 --sample 20000 --device cuda --out gpu.npz
  hotnas gram --space nasbench101 --sample 100000 --ray auto --store gram.zarr --resume
  hotnas gram --space nasbench201 --sample 15000 --store half.zarr --stored-as float16
  hotnas gram --space nasbench201 --sample 500 --distance tree_wasserstein --out tw.npz
  hotnas gram --space nasbench201 --sample 500 --distance edit --setting edge_cost=2 --out e.npz
  hotnas gram --space darts --sample 500 --distance mine:Distance --out mine.npz
  hotnas gram --modules models.py --out models.npz
  hotnas gram --space darts --file all.txt --known some.npz --out all.npz

It writes gram.npz (distances, architecture strings, settings), gram-heatmap.png and gram-tree.png.
An interrupted run leaves gram.npz.partial, which --resume goes on from. With --store the distances
go to a folder tile by tile and never lie in memory as a whole; there are no pictures then. In
Python, hotnas_torch.load_gram("gram.npz") returns distances, names (networks) and settings (meta),
and hotnas_torch.matrices.GramStore("gram.zarr") reads a folder.

mine:Distance is the class Distance of mine.py, a hotnas_torch.distances.NetworkDistance. --modules
compares the models that the dict `models` of models.py lists by name, each a pair of a torch module
and example inputs, or a function that returns such a pair. --known takes from an earlier result
what it holds, and computes the distances of new networks alone; where it is --out itself, that file
grows.
"""


def add_gram(commands: Any) -> None:
    """Add `gram` to what `add_subparsers` returned."""
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
    source.add_argument(
        "--modules",
        type=Path,
        metavar="FILE.py",
        help="import the models of one's own that `models` in this file lists, in place of --space",
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
    gram.add_argument(
        "--stored-as",
        choices=("float16", "float32", "float64"),
        help="type that the distances of --store are rounded to (default: as they are computed)",
    )
    gram.add_argument(
        "--known",
        type=Path,
        metavar="PATH",
        help="file or folder of an earlier result, whose distances are not computed again",
    )
    add_existing(gram, "run")
    gram.add_argument("--no-pictures", action="store_true", help="write the distances only")
    add_quiet(gram)
    add_distance_arguments(gram)
    add_cluster_arguments(gram, "tile")


def _gram(parser: Parser, arguments: argparse.Namespace) -> None:
    if (arguments.modules is None) == (arguments.space is None):
        raise BadInput("--space or --modules must be given, and one of them only")
    space = space_of(arguments)
    distance = distance_of(arguments, space)
    pictures = {} if arguments.out is None else _outputs(arguments)
    if arguments.store is not None:
        _check_folder(arguments.store)
    elif arguments.stored_as is not None:
        raise BadInput("--stored-as goes with --store: a file keeps distances as they are computed")
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
                "known": arguments.known,
            }
            if arguments.out is None:
                stored_as = arguments.stored_as and getattr(torch, arguments.stored_as)
                distance.gram_store(networks, target, stored_as=stored_as, **options)
            else:
                matrix = distance.gram(networks, out=target, **options)
    except ImportError as error:
        raise BadInput(str(error)) from error
    except FileNotFoundError as error:
        raise BadInput(f"--known: there is nothing at {arguments.known}") from error
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(
            f"(what is finished is in {partial_result}; run it again with --resume)"
        ) from interruption
    seconds = time.perf_counter() - started
    what = f"{len(networks):,} networks of {space.name}"
    if arguments.modules is not None:
        what = f"{len(networks):,} models of {arguments.modules.name}"
    if pictures:
        names = [space.to_string(network) for network in networks]
        title = f"{type(distance).__name__} distances of {what}"
        save_figure(plot_heat_map(matrix, names, title=title), pictures["heat map"])
        save_figure(plot_tree(matrix, names, title=title), pictures["tree"])
    if not arguments.quiet:
        print(f"{what} in {seconds:.1f} s")
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
    grows = arguments.known is not None and out.exists() and out.samefile(arguments.known)
    for path in (out, *pictures.values()):
        check_output("--out", path)
        if path.exists() and not (arguments.resume or arguments.overwrite or grows):
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
    if arguments.modules is not None:
        return networks_of_file(arguments.modules)
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
