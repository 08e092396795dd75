# Over 400 lines: one page, from top to bottom.
"""A search as one HTML file that shows what happened and needs nothing else."""

import base64
import html
import io
import json
import math
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hotnas_torch import spaces
from hotnas_torch.arch import Cell, Network
from hotnas_torch.distances import HOTNN
from hotnas_torch.errors import StorageError
from hotnas_torch.files import check_writable, write_bytes
from hotnas_torch.plot import (
    plot_heat_map,
    plot_map,
    plot_network,
    short_name,
)
from hotnas_torch.plot.results import draw_front, draw_progress
from hotnas_torch.search.fidelity import Fidelity
from hotnas_torch.search.goal import Goal
from hotnas_torch.search.goal_settings import VALUE
from hotnas_torch.search.running.storage import Storage
from hotnas_torch.search.running.trial import SearchResult, Trial
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.joint import network_space

__all__ = ["read_search", "write_report"]

# More networks than this make a map that shows nothing and takes long.
_MAX_MAPPED = 1500
_NUM_LISTED = 15
_SKELETON = {"channels", "num_stages", "cells_per_stage"}

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #333; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
img { max-width: 100%; }
code { font: 13px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
dl { display: flex; flex-wrap: wrap; gap: 0.5rem 2.5rem; margin: 1rem 0; }
dt { color: #777; font-size: 0.85rem; } dd { margin: 0; font-size: 1.15rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th { text-align: left; color: #777; font-weight: normal; }
th, td { padding: 0.25rem 0.8rem 0.25rem 0; border-bottom: 1px solid #eee; vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.failed { color: #a33; } .note { color: #777; }
pre { background: #f6f6f4; padding: 0.8rem; overflow-x: auto; font-size: 12px; }
""".strip()


def write_report(
    storage: str | PathLike[str],
    out: str | PathLike[str],
    *,
    space: SearchSpace | None = None,
) -> SearchResult:
    """Write a search as a self-contained HTML file, complete or not at all.

    It shows the best value over time, the best network with its metrics, a map of everything that
    was evaluated by HOTNN distance, the distances as a heat map, all trials, and the settings; of
    several objectives hypervolume and front. It loads nothing from anywhere. The search may still
    be running.

    Args:
        storage: File that `hotnas_torch.search.run` writes.
        out: HTML file to write.
        space: Space of the search; None rebuilds it, which works for spaces with their own default
            options and for subsets of them.

    Returns:
        The search as far as it has come.

    Raises:
        StorageError: The storage cannot be read, holds no finished trial, or is of a space with
            options of its own, for which `space` must be given.
        OSError: `out` cannot be written; what was there is then untouched.
    """
    check_writable(Path(out))
    identity, result = read_search(storage, space=space)
    page = _page(identity, result, Path(storage).name)
    # A name may hold what no text file can, which then stands there as an escape.
    write_bytes(Path(out), page.encode("utf-8", "backslashreplace"))
    return result


def read_search(
    storage: str | PathLike[str], *, space: SearchSpace | None = None
) -> tuple[dict[str, Any], SearchResult]:
    """Read the finished trials of a storage file.

    Args:
        storage: The file.
        space: As for `write_report`.

    Returns:
        The description of the search, and its trials.

    Raises:
        StorageError: As `write_report`.
    """
    with Storage(storage, read_only=True) as store:
        identity = store.identity
        if identity is None:
            raise StorageError(f"{storage} holds no search yet")
        if space is None:
            space = _rebuilt(identity["space"], storage, identity["strategy"].get("fidelity"))
        trials, earlier = store.trials(space), store.earlier(space)
    if not trials:
        raise StorageError(f"{storage} holds no finished trial yet (let the search go on first)")
    goal = Goal.read(identity["strategy"].get("goal"))
    return identity, SearchResult(space, trials, "", goal, earlier)


def _rebuilt(
    described: Mapping[str, str],
    storage: str | PathLike[str],
    fidelity: Mapping[str, Any] | None = None,
) -> SearchSpace:
    if fidelity is not None:
        networks = _rebuilt(json.loads(described["networks"]), storage)
        pairs = Fidelity(fidelity["levels"], fidelity["name"]).joined(networks)
        # Nothing else than levels beside the networks.
        if described["space"].endswith(repr(pairs).removeprefix(f"Joint({networks!r}")):
            return pairs
    try:
        space = spaces.get(described["name"])
    except ValueError as error:
        raise StorageError(f"{storage}: {error} (pass space=)") from error
    # A subset names the space that it is a part of.
    if repr(space) not in described["space"]:
        raise StorageError(
            f"{storage} is a search of {described['space']}, whose options are not the default "
            "ones (pass space=)"
        )
    return space


# --- the page -------------------------------------------------------------------------------------


def _page(identity: Mapping[str, Any], result: SearchResult, name: str) -> str:
    strategy = identity["strategy"]
    num_initial = strategy.get("num_initial", strategy.get("population", 0))
    goal = result.goal
    label = _label(identity["objective"], goal)
    title = f"{strategy['strategy']} on {identity['space']['name']}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        _summary(result),
        *_progress(result, num_initial, label),
        *_leading(result, identity["objective"]),
        *_maps(result, num_initial, label),
        *_tables(result),
        "<h2>Settings</h2>",
        f"<pre>{_text(json.dumps(identity, indent=2))}</pre>",
        f"<p class='note'>From {_text(name)}.</p>",
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            "<html lang='en'>",
            "<head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<title>{_text(title)}</title>",
            f"<style>{_STYLE}</style></head>",
            "<body>",
            *parts,
            "</body></html>",
            "",
        ]
    )


def _label(objective: Mapping[str, Any], goal: Goal) -> str:
    better = "smaller" if goal.direction == "minimize" else "larger"
    if goal.several:
        return "rank among the fronts (smaller is better)"
    if goal.objectives != (VALUE,):
        return f"{goal.objectives[0]} ({better} is better)"
    if objective.get("kind") == "training":
        unit = "validation error, %" if objective.get("value") == "error" else "validation loss"
        return f"{unit} ({better} is better)"
    column = objective.get("column", objective.get("run", objective.get("name", "value")))
    return f"value by {column} ({better} is better)"


def _progress(result: SearchResult, num_initial: int, label: str) -> Iterable[str]:
    goal = result.goal
    if goal.several:
        yield "<h2>Hypervolume</h2>"
        if result.front:
            ends = zip(goal.objectives, result.reference_point.tolist(), strict=True)
            point = ", ".join(f"{name} {number:.6g}" for name, number in ends)
            yield f"<p class='note'>Of what the front dominates, up to {_text(point)}.</p>"
        figure = draw_progress(result, num_initial=num_initial)
        yield _picture(figure, "hypervolume over time")
        return
    yield "<h2>Values</h2>"
    if goal.constraints:
        bounds = " and ".join(map(str, goal.constraints))
        yield f"<p class='note'>Hollow: networks that break {_text(bounds)}.</p>"
    figure = draw_progress(result, num_initial=num_initial, label=label)
    yield _picture(figure, "values over time")


def _summary(result: SearchResult) -> str:
    trials = result.trials
    num_failed = sum(trial.failed for trial in trials)
    if result.goal.several:
        found = {
            "on the front": f"{len(result.front):,}",
            "hypervolume": f"{result.hypervolume():.6g}",
        }
    else:
        best = result.best
        found = {
            "best value": "none" if best is None else f"{best.value:.6g}",
            "found as evaluation": _evaluation(best),
        }
    figures = {
        "evaluations": f"{len(trials):,}",
        **({"told before": f"{len(result.earlier):,}"} if result.earlier else {}),
        **found,
        "failed": f"{num_failed:,}",
        "time searching": _duration(max(trial.elapsed for trial in trials)),
        "time evaluating": _duration(sum(trial.outcome.cost for trial in trials)),
    }
    entries = (
        f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>" for name, value in figures.items()
    )
    return f"<dl>{''.join(entries)}</dl>"


def _evaluation(trial: Trial | None) -> str:
    if trial is None:
        return "-"
    return "told before" if trial.earlier else f"{trial.number + 1:,}"


def _leading(result: SearchResult, objective: Mapping[str, Any]) -> Iterable[str]:
    if not result.goal.several:
        yield from _best(result, objective)
        return
    front = result.front
    yield "<h2>Front</h2>"
    if not front:
        yield "<p>No evaluation succeeded and kept all bounds.</p>"
        return
    goal = result.goal
    if len(goal.objectives) == 2:
        figure = draw_front(result)
        yield _picture(figure, "the front")
    ordered = sorted(front, key=lambda trial: trial.value, reverse=goal.direction == "maximize")
    yield _table(ordered, goal)


def _best(result: SearchResult, objective: Mapping[str, Any]) -> Iterable[str]:
    best = result.best
    if best is None:
        missing = (
            "All evaluations failed."
            if all(trial.failed for trial in result.trials)
            else "No evaluation keeps all bounds."
        )
        yield f"<h2>Best network</h2><p>{missing}</p>"
        return
    yield "<h2>Best network</h2>"
    yield f"<p><code>{_text(best.network.spec)}</code></p>"
    figures = {VALUE: best.value, **best.outcome.metrics}
    if VALUE not in result.goal.names:
        del figures[VALUE]
    entries = (
        f"<div><dt>{_text(name)}</dt><dd>{number:.6g}</dd></div>"
        for name, number in figures.items()
    )
    yield f"<dl>{''.join(entries)}</dl>"
    kind = objective.get("kind")
    # Others' objectives may call themselves so.
    if kind == "training" and set(objective.get("skeleton", ())) >= _SKELETON:
        network = _as_trained(best.network, objective["skeleton"])
        yield "<p class='note'>As it was trained: with these channels, stages and cells.</p>"
    else:
        network = best.network
        if kind == "function":
            yield (
                "<p class='note'>As the search space describes it; what the function "
                f"{_text(str(objective.get('name', '')))} makes of it may have other channels and "
                "another number of cells.</p>"
            )
    yield _picture(plot_network(network), "the best network")


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


def _maps(result: SearchResult, num_initial: int, label: str) -> Iterable[str]:
    trials = list(result.trials)
    if len(trials) < 2:
        return
    note = ""
    if len(trials) > _MAX_MAPPED:
        places = np.linspace(0, len(trials) - 1, _MAX_MAPPED).round().astype(int).tolist()
        leaders = result.goal.leaders(result.values)[:_MAX_MAPPED]
        places = sorted({*places, *leaders})
        note = f" Shown are {len(places):,} of {len(trials):,} networks, evenly spaced."
        trials = [trials[place] for place in places]
    networks = [trial.network for trial in trials]
    goal = result.goal
    judged = result.goal.losses(result.values).tolist()
    loss = {one.number: value for one, value in zip(result.trials, judged, strict=True)}
    values = [loss[trial.number] if goal.several else trial.value for trial in trials]
    distances = HOTNN(space=network_space(result.space))(networks)
    num_initial = sum(trial.number < num_initial for trial in trials)
    yield "<h2>Map</h2>"
    yield (
        "<p class='note'>Networks that are alike (HOTNN distance) lie near each other. Squares: "
        f"initial networks. Numbers: the best.{note}</p>"
    )
    yield _picture(
        plot_map(
            distances,
            values,
            num_initial=num_initial,
            label=label,
            direction="minimize" if goal.several else goal.direction,
        ),
        "map of the networks",
    )
    yield "<h2>Distances</h2>"
    names = [short_name(net.spec, 32) for net in networks]
    yield _picture(plot_heat_map(distances, names, title=""), "distances of the networks")


def _tables(result: SearchResult) -> Iterable[str]:
    goal = result.goal
    losses = goal.losses(result.values).tolist()
    ranked = [
        trial
        for loss, trial in sorted(zip(losses, result.trials, strict=True), key=lambda pair: pair[0])
        if not trial.failed
    ]
    if ranked and not goal.several:
        yield f"<h2>Best {min(_NUM_LISTED, len(ranked))}</h2>"
        yield _table(ranked[:_NUM_LISTED], goal)
    yield f"<details><summary>All {len(result.trials):,} evaluations</summary>"
    yield _table(result.trials, goal)
    yield "</details>"


def _table(trials: Iterable[Trial], goal: Goal) -> str:
    heads = "".join(f"<th>{_text(name)}</th>" for name in goal.names)
    rows = [f"<tr><th>evaluation</th>{heads}<th>seconds</th><th>network</th></tr>"]
    for trial in trials:
        cells = (
            f"<td class='number' colspan='{len(goal.names)}'>"
            f"<span class='failed'>failed: {_text(trial.outcome.error)}</span></td>"
            if trial.failed
            else "".join(
                f"<td class='number'>{number:.6g}</td>"
                for number in goal.recorded(trial.value, trial.outcome.metrics)
            )
        )
        rows.append(
            f"<tr><td class='number'>{trial.number + 1}</td>{cells}"
            f"<td class='number'>{trial.outcome.cost:.3g}</td>"
            f"<td><code>{_text(trial.network.spec)}</code></td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _picture(figure: Figure, name: str) -> str:
    """Embed a figure. As an image of its own its names cannot meet those of another one."""
    buffer = io.BytesIO()
    # A fixed salt and no date: the same search gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "hotnas"}):
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{_text(name)}' src='data:image/svg+xml;base64,{data}'>"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds) or seconds < 60.0:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _text(text: str) -> str:
    return html.escape(text, quote=True)
