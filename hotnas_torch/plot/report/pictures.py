"""Networks of a search drawn, mapped and compared, for its page."""

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.image import imsave

from hotnas_torch import spaces
from hotnas_torch.arch import Cell, Network
from hotnas_torch.distances import HOTNN
from hotnas_torch.plot.architectures import plot_network
from hotnas_torch.plot.clustering import cluster
from hotnas_torch.plot.figure import FloatArray
from hotnas_torch.plot.report.charts import Chart, map_chart
from hotnas_torch.plot.report.known import Known
from hotnas_torch.search.running.trial import SearchResult, Trial
from hotnas_torch.spaces.joint import network_space

__all__ = [
    "distances_between",
    "draw_heat_map",
    "draw_map",
    "draw_network",
    "drawing_note",
    "mapped_places",
    "small_pictures",
]

# More networks than these make pictures that show nothing and take long.
_MAX_MAPPED = 400
_MAX_IN_HEAT_MAP = 160
# Characters of small pictures; those of the best come first.
_MOST_PICTURES = 1_500_000
_PLAIN = {"Software": ""}  # or matplotlib's version: the same search gives the same file
_SKELETON = {"channels", "num_stages", "cells_per_stage"}


def _is_trained(objective: Mapping[str, Any]) -> bool:
    """Whether it is `objectives.Training`; others' may call themselves so."""
    is_named_so = objective.get("kind") == "training"
    return is_named_so and set(objective.get("skeleton", ())) >= _SKELETON


def drawing_note(objective: Mapping[str, Any]) -> str:
    """Say how what is drawn and what was evaluated may differ."""
    if _is_trained(objective):
        return "As they were trained: with these channels, stages and cells."
    if objective.get("kind") == "function":
        return (
            f"As the search space describes them; what the function {objective.get('name', '')} "
            "makes of one may have other channels and another number of cells."
        )
    return ""


def _as_evaluated(network: Network, objective: Mapping[str, Any]) -> Network:
    return _as_trained(network, objective["skeleton"]) if _is_trained(objective) else network


def draw_network(network: Network, objective: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return a picture of a network as it was evaluated: a URL, width and height in pixels."""
    return _drawn(_as_evaluated(network, objective))


def _as_trained(net: Network, skeleton: Mapping[str, int]) -> Network:
    """Return the network that `objectives.Training` builds around a NAS-Bench-201 cell."""
    whole = spaces.NASBench201(reduction_cells=True).from_string(net.spec)
    cell, roles = net.cells[0], list(whole.downsampling)
    reduction = whole.cells[roles.index(2)]
    cells: list[Cell] = []
    stages: list[int] = []
    for stage in range(skeleton["num_stages"]):
        part = [reduction] * (stage > 0) + [cell] * skeleton["cells_per_stage"]
        cells += part
        stages += [stage] * len(part)
    return Network(
        tuple(cells),
        tuple(skeleton["channels"] * 2**stage for stage in stages),
        tuple(2**stage for stage in stages),
        input_channels=skeleton["channels"],
        spec=net.spec,
    )


@lru_cache(maxsize=16)  # a page that is written again and again has mostly the same best ones
def _drawn(network: Network) -> tuple[str, int, int]:
    """Return a picture as a URL with its width and height in pixels.

    As an image of its own its names cannot meet those of another.
    """
    buffer = io.BytesIO()
    figure = plot_network(network)
    # A fixed salt and no date: the same search gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "hotnas"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return f"data:image/svg+xml;base64,{_base64(buffer)}", width, height


def _base64(buffer: io.BytesIO) -> str:
    return base64.b64encode(buffer.getvalue()).decode()


def mapped_places(known: Known) -> list[int]:
    """Return places of what is mapped: all, or the leaders and evenly spaced others."""
    num = len(known.trials)
    if num <= _MAX_MAPPED:
        return list(range(num))
    leaders = known.ranked[: _MAX_MAPPED // 4]
    spaced = np.linspace(0, num - 1, _MAX_MAPPED - len(leaders)).round().astype(int).tolist()
    return sorted({*leaders, *spaced})


def distances_between(result: SearchResult, trials: Sequence[Trial]) -> FloatArray:
    """Return the HOTNN distances between the networks of trials, (N, N) float64."""
    if len(trials) < 2:
        return np.zeros((len(trials), len(trials)))
    metric = HOTNN(space=network_space(result.space))
    found: FloatArray = metric([trial.network for trial in trials]).detach().cpu().double().numpy()
    return found


def draw_map(
    known: Known, mapped: list[int], distances: FloatArray, num_initial: int, label: str
) -> Chart | None:
    """Draw the map of the networks in some places; None of fewer than two."""
    if len(mapped) < 2:
        return None
    num_earlier = len(known.result.earlier)
    several = known.result.goal.several
    losses = known.losses[mapped]
    texts = [
        f"{loss:.4g}" if several else f"{known.rows[place, 0]:.4g}"
        for place, loss in zip(mapped, losses.tolist(), strict=True)
    ]
    return map_chart(
        [known.names[place] for place in mapped],
        distances,
        losses,
        texts,
        kept=known.kept[mapped],
        num_initial=sum(place < num_earlier + num_initial for place in mapped),
        label=label,
    )


def draw_heat_map(known: Known, mapped: list[int], distances: FloatArray) -> dict[str, Any] | None:
    """Draw the distances, rows and columns in the order of an average-linkage tree."""
    if len(mapped) < 2:
        return None
    clustering = cluster(distances, _MAX_IN_HEAT_MAP)
    shown = clustering.items[clustering.order]
    ordered = distances[np.ix_(shown, shown)]
    between = ordered[~np.eye(len(shown), dtype=bool)]
    low, high = (float(end) for end in np.percentile(between, (1, 99)))
    if high <= low:
        low, high = 0.0, max(high, 1e-12)
    buffer = io.BytesIO()
    imsave(buffer, ordered, vmin=low, vmax=high, cmap="viridis", format="png", metadata=_PLAIN)
    return {
        "picture": f"data:image/png;base64,{_base64(buffer)}",
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "shown": f"{len(shown):,}",
        # What is pointed at: the rows of the table, and the distances below the diagonal.
        "rows": [known.names[mapped[item]] for item in shown],
        "distances": [[float(f"{ordered[i, j]:.4g}") for j in range(i)] for i in range(len(shown))],
    }


def small_pictures(known: Known, mapped: list[int]) -> dict[str, Any]:
    """Draw small pictures of networks by row: the distinct cells of each, every cell once."""
    cells: dict[str, str] = {}
    rows: dict[str, list[str]] = {}
    room = _MOST_PICTURES
    wanted = set(mapped)
    for place in (place for place in known.ranked if place in wanted):
        network = known.trials[place].network
        distinct = {cell.key: cell for cell in network.cells}
        drawn = {key: cell._repr_html_() for key, cell in distinct.items() if key not in cells}
        room -= sum(map(len, drawn.values()))
        if room < 0:
            break
        cells |= drawn
        rows[known.names[place]] = list(distinct)
    numbers = {key: number for number, key in enumerate(cells)}
    return {
        "cells": list(cells.values()),
        "rows": {row: [numbers[key] for key in keys] for row, keys in rows.items()},
    }
