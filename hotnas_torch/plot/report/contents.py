"""What the page of a search says, section by section, as its template takes it."""

import base64
import io
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.image import imsave

from hotnas_torch import spaces
from hotnas_torch.arch import Cell, Network
from hotnas_torch.distances import HOTNN
from hotnas_torch.plot.architectures import plot_network
from hotnas_torch.plot.clustering import cluster
from hotnas_torch.plot.figure import FloatArray
from hotnas_torch.plot.report.charts import (
    Chart,
    front_chart,
    map_chart,
    trace_chart,
)
from hotnas_torch.search.goal import Goal
from hotnas_torch.search.goal_settings import VALUE
from hotnas_torch.search.running.trial import SearchResult, Trial
from hotnas_torch.spaces.joint import ConfiguredNetwork, network_space

__all__ = ["contents"]

# More networks than these make pictures that show nothing and take long.
_MAX_MAPPED = 400
_MAX_IN_HEAT_MAP = 160
_NUM_DRAWN = 4
_MAX_FRONTS = 3
# Characters of small pictures; those of the best come first.
_MOST_PICTURES = 1_500_000
_PLAIN = {"Software": ""}  # or matplotlib's version: the same search gives the same file
_SKELETON = {"channels", "num_stages", "cells_per_stage"}


@dataclass(frozen=True, slots=True)
class _Known:
    """All that is known of a search: what was told before it, and its trials.

    Attributes:
        result: The search.
        trials: What was told, then the trials.
        names: Of their rows in the table.
        rows: The numbers that count, (N, k), NaN for failed ones.
        losses: By which they are ranked, (N,), NaN for failed ones.
        kept: Which keep all bounds.
        leaders: Places of the best or of the front.
    """

    result: SearchResult
    trials: tuple[Trial, ...]
    names: list[str]
    rows: FloatArray
    losses: FloatArray
    kept: np.ndarray[Any, np.dtype[np.bool_]]
    leaders: list[int]

    @classmethod
    def of(cls, result: SearchResult) -> "_Known":
        trials = (*result.earlier, *result.trials)
        names = [f"{'told' if one.earlier else 'trial'}-{one.number}" for one in trials]
        goal = result.goal
        recorded = [goal.recorded(one.value, one.outcome.metrics) for one in trials]
        rows = torch.tensor(recorded, dtype=torch.float64)
        return cls(
            result,
            trials,
            names,
            rows.numpy(),
            goal.losses(rows).numpy(),
            goal.feasible(rows).numpy(),
            goal.leaders(rows),
        )

    @property
    def ranked(self) -> list[int]:
        """Places from the best to the worst, what failed last."""
        found: list[int] = np.argsort(self.losses, kind="stable").tolist()
        return found

    @property
    def own(self) -> slice:
        """Places of the trials."""
        return slice(len(self.result.earlier), None)


def contents(identity: Mapping[str, Any], result: SearchResult) -> dict[str, Any]:
    """Return what the page says.

    Args:
        identity: The description of the search.
        result: The search, at least one trial.
    """
    strategy, objective, goal = identity["strategy"], identity["objective"], result.goal
    num_initial = strategy.get("num_initial", strategy.get("population", 0))
    num_initial = num_initial if isinstance(num_initial, int) else 0
    known = _Known.of(result)
    label = _label(objective, goal)
    mapped = _mapped(known)
    distances = _distances(result, [known.trials[place] for place in mapped])
    return {
        "title": f"{strategy['strategy']} on {identity['space']['name']}",
        "summary": _summary(result),
        "trace": _trace(known, num_initial, label),
        "trace_title": "Hypervolume" if goal.several else "Values",
        "trace_note": _reference_note(result) if goal.several else "",
        "fronts": _fronts(known) if goal.several else [],
        "best": _best(known, objective),
        "best_title": "Networks of the front" if goal.several else "Best networks",
        "best_note": _missing(known) or _drawing_note(objective),
        "map": _map(known, mapped, distances, num_initial, label),
        "mapped": f"{len(mapped):,} of {len(known.trials):,}"
        if len(mapped) < len(known.trials)
        else "",
        "heat_map": _heat_map(known, mapped, distances),
        "bounds": _bounds(known),
        "failures": _failures(result),
        "table": _table(known),
        "pictures": _pictures(known, mapped),
        "settings": {part: _settings(entries) for part, entries in identity.items()},
        "identity": json.dumps(identity, indent=2),
    }


# --- numbers --------------------------------------------------------------------------------------


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


def _summary(result: SearchResult) -> dict[str, str]:
    trials = result.trials
    if result.goal.several:
        found = {
            "on the front": f"{len(result.front):,}",
            "hypervolume": f"{result.hypervolume():.6g}",
        }
    else:
        best = result.best
        found = {
            "best value": "none" if best is None else f"{best.value:.6g}",
            "found as evaluation": "-" if best is None else _evaluation(best),
        }
    return {
        "evaluations": f"{len(trials):,}",
        **({"told before": f"{len(result.earlier):,}"} if result.earlier else {}),
        **found,
        "failed": f"{sum(trial.failed for trial in trials):,}",
        "time searching": _duration(max(trial.elapsed for trial in trials)),
        "time evaluating": _duration(sum(trial.outcome.cost for trial in trials)),
    }


def _evaluation(trial: Trial) -> str:
    return "told before" if trial.earlier else f"{trial.number + 1}"


def _reference_note(result: SearchResult) -> str:
    if not result.front:
        return "No evaluation succeeded and kept all bounds."
    ends = zip(result.goal.objectives, result.reference_point.tolist(), strict=True)
    point = ", ".join(f"{name} {number:.6g}" for name, number in ends)
    return f"Of what the front dominates, up to {point}."


def _trace(known: _Known, num_initial: int, label: str) -> Chart:
    result, goal = known.result, known.result.goal
    failed = np.array([trial.failed for trial in result.trials])
    several = goal.several
    reached = (result.hypervolume_so_far() if several else result.best_so_far).numpy()
    return trace_chart(
        known.names[known.own],
        reached if several else known.rows[known.own, 0],
        reached,
        sign=1.0 if not several and goal.direction == "minimize" else -1.0,
        label="hypervolume (larger is better)" if several else label,
        kept=np.ones(len(failed), dtype=np.bool_) if several else known.kept[known.own],
        failed=failed,
        num_initial=num_initial,
        clipped=not several,
    )


def _fronts(known: _Known) -> list[Chart]:
    """Pairs of objectives, not all of them where there are many."""
    goal = known.result.goal
    num = len(goal.objectives)
    front = np.zeros(len(known.trials), dtype=np.bool_)
    front[known.leaders] = True
    signs = [1.0 if direction == "minimize" else -1.0 for direction in goal.directions]
    better = ["smaller" if sign > 0 else "larger" for sign in signs]
    pairs = [(i, j) for i in range(num) for j in range(i + 1, num)][:_MAX_FRONTS]
    return [
        front_chart(
            known.names,
            known.rows[:, [i, j]],
            labels=(
                f"{goal.objectives[i]} ({better[i]} is better)",
                f"{goal.objectives[j]} ({better[j]} is better)",
            ),
            signs=(signs[i], signs[j]),
            kept=known.kept,
            front=front,
        )
        for i, j in pairs
    ]


def _bounds(known: _Known) -> list[tuple[str, str, str]]:
    """Per bound: how many evaluations keep it, and the range of what was measured."""
    goal = known.result.goal
    found = []
    for constraint in goal.constraints:
        column = known.rows[:, goal.names.index(constraint.name)]
        measured = column[np.isfinite(column)]
        ends = f"{measured.min():.6g} to {measured.max():.6g}" if len(measured) else "nothing"
        keeping = int((constraint.excess(torch.from_numpy(measured)) <= 0.0).sum())
        found.append((str(constraint), f"{keeping:,} of {len(measured):,}", ends))
    return found


def _failures(result: SearchResult) -> list[tuple[str, int, str]]:
    """Reasons, the most frequent first, how often, and the first row that has it."""
    reasons: dict[str, list[Trial]] = {}
    for trial in result.trials:
        if trial.failed:
            reasons.setdefault(trial.outcome.error or "no reason was given", []).append(trial)
    ordered = sorted(reasons.items(), key=lambda pair: -len(pair[1]))
    return [(why, len(trials), f"trial-{trials[0].number}") for why, trials in ordered]


def _missing(known: _Known) -> str:
    if known.leaders:
        return ""
    if all(trial.failed for trial in known.trials):
        return "All evaluations failed."
    return "No evaluation keeps all bounds."


# --- tables ---------------------------------------------------------------------------------------


def _table(known: _Known) -> dict[str, Any]:
    """Heads and rows: numbers that count, other measurements, hyperparameters, seconds, name."""
    goal, trials = known.result.goal, known.trials
    others = sorted({name for one in trials for name in one.outcome.metrics}.difference(goal.names))
    values = list(
        dict.fromkeys(
            name
            for trial in trials
            if isinstance(trial.network, ConfiguredNetwork)
            for name in trial.network.values
        )
    )
    rank = {place: rank for rank, place in enumerate(known.ranked)}
    leaders = set(known.leaders)
    rows = []
    for place, trial in enumerate(trials):
        net = trial.network
        joint = net if isinstance(net, ConfiguredNetwork) else None
        rows.append(
            {
                "name": known.names[place],
                "evaluation": _evaluation(trial),
                "rank": "" if trial.failed else rank[place] + 1,
                "numbers": [
                    *(_number(number) for number in known.rows[place].tolist()),
                    *(_number(trial.outcome.metrics.get(name, math.nan)) for name in others),
                ],
                "values": [_value(joint.values.get(name)) if joint else "" for name in values],
                "seconds": f"{trial.outcome.cost:.3g}",
                "network": joint.network_spec if joint else net.spec,
                "error": trial.outcome.error if trial.failed else "",
                "class": "lost"
                if trial.failed
                else "lead"
                if place in leaders
                else ""
                if known.kept[place]
                else "broken",
            }
        )
    return {"numbers": [*goal.names, *others], "values": values, "rows": rows}


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _value(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)


def _settings(entries: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False))
        for name, entry in entries.items()
    ]


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds) or seconds < 60.0:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


# --- pictures -------------------------------------------------------------------------------------


def _best(known: _Known, objective: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The best networks, of a front some from one end to the other, drawn as they are."""
    goal = known.result.goal
    if goal.several:
        ordered = sorted(known.leaders, key=lambda place: known.losses[place])
        ordered = sorted(ordered, key=lambda place: known.rows[place, 0])
        spread = np.linspace(0, len(ordered) - 1, min(_NUM_DRAWN, len(ordered)))
        places = [ordered[round(one)] for one in spread]
    else:
        places = [place for place in known.ranked if known.kept[place]][:_NUM_DRAWN]
    found = []
    for place in places:
        trial = known.trials[place]
        figures = {VALUE: trial.value, **trial.outcome.metrics}
        if VALUE not in goal.names:
            del figures[VALUE]
        found.append(
            {
                "row": known.names[place],
                "evaluation": _evaluation(trial),
                "spec": trial.network.spec,
                "figures": {name: f"{number:.6g}" for name, number in figures.items()},
                "picture": _drawn(_as_evaluated(trial.network, objective)),
            }
        )
    return found


def _is_trained(objective: Mapping[str, Any]) -> bool:
    """Whether it is `objectives.Training`; others' may call themselves so."""
    is_named_so = objective.get("kind") == "training"
    return is_named_so and set(objective.get("skeleton", ())) >= _SKELETON


def _drawing_note(objective: Mapping[str, Any]) -> str:
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
def _drawn(network: Network) -> str:
    """Return a picture as a URL. As an image of its own its names cannot meet those of another."""
    buffer = io.BytesIO()
    figure = plot_network(network)
    # A fixed salt and no date: the same search gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "hotnas"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _mapped(known: _Known) -> list[int]:
    """Places of what is mapped: all, or the leaders and evenly spaced others."""
    num = len(known.trials)
    if num <= _MAX_MAPPED:
        return list(range(num))
    leaders = known.ranked[: _MAX_MAPPED // 4]
    spaced = np.linspace(0, num - 1, _MAX_MAPPED - len(leaders)).round().astype(int).tolist()
    return sorted({*leaders, *spaced})


def _distances(result: SearchResult, trials: Sequence[Trial]) -> FloatArray:
    if len(trials) < 2:
        return np.zeros((len(trials), len(trials)))
    metric = HOTNN(space=network_space(result.space))
    found: FloatArray = metric([trial.network for trial in trials]).detach().cpu().double().numpy()
    return found


def _map(
    known: _Known, mapped: list[int], distances: FloatArray, num_initial: int, label: str
) -> Chart | None:
    if len(mapped) < 2:
        return None
    num_told = len(known.result.earlier)
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
        num_initial=sum(place < num_told + num_initial for place in mapped),
        label=label,
    )


def _heat_map(known: _Known, mapped: list[int], distances: FloatArray) -> dict[str, Any] | None:
    """The distances as a picture, rows and columns in the order of an average-linkage tree."""
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
        "picture": f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}",
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "shown": f"{len(shown):,}",
        # What is pointed at: the rows of the table, and the distances below the diagonal.
        "rows": [known.names[mapped[item]] for item in shown],
        "distances": [[float(f"{ordered[i, j]:.4g}") for j in range(i)] for i in range(len(shown))],
    }


def _pictures(known: _Known, mapped: list[int]) -> dict[str, Any]:
    """Small pictures of networks by row: the distinct cells of each, every cell once."""
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
