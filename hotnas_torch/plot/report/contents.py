"""What the page of a search says, section by section, as its template takes it."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hotnas_torch.plot.report.charts import Chart, front_chart, trace_chart
from hotnas_torch.plot.report.known import Known
from hotnas_torch.plot.report.pictures import (
    distances_between,
    draw_heat_map,
    draw_map,
    draw_network,
    drawing_note,
    mapped_places,
    small_pictures,
)
from hotnas_torch.search.goal import Goal
from hotnas_torch.search.goal_settings import VALUE
from hotnas_torch.search.running.trial import SearchResult, Trial
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.joint import ConfiguredNetwork, network_space

__all__ = ["contents"]

_NUM_DRAWN = 4
_MAX_FRONTS = 3


def contents(identity: Mapping[str, Any], result: SearchResult) -> dict[str, Any]:
    """Return what the page says.

    Args:
        identity: The description of the search.
        result: The search, at least one trial.
    """
    strategy, objective, goal = identity["strategy"], identity["objective"], result.goal
    num_initial = strategy.get("num_initial", strategy.get("population", 0))
    num_initial = num_initial if isinstance(num_initial, int) else 0
    known = Known.of(result)
    label = _label(objective, goal)
    mapped = mapped_places(known)
    distances = distances_between(result, [known.trials[place] for place in mapped])
    best = _best(known, objective)
    notes = (_drawn_of_front(known, len(best)), _missing(known) or drawing_note(objective))
    return {
        "title": f"{strategy['strategy']} on {_searched(result.space)}",
        "summary": _summary(result),
        "trace": _trace(known, num_initial, label),
        "trace_title": "Hypervolume" if goal.several else "Values",
        "trace_note": _reference_note(result) if goal.several else "",
        "fronts": _fronts(known) if goal.several else [],
        "best": best,
        "best_title": "Networks of the front" if goal.several else "Best networks",
        "best_note": " ".join(filter(None, notes)),
        "map": draw_map(known, mapped, distances, num_initial, label),
        "mapped": f"{len(mapped):,} of {len(known.trials):,}"
        if len(mapped) < len(known.trials)
        else "",
        "heat_map": draw_heat_map(known, mapped, distances),
        "bounds": _bounds(known),
        "failures": _failures(result),
        "table": _table(known),
        "pictures": small_pictures(known, mapped),
        "settings": {part: _settings(entries) for part, entries in identity.items()},
        "identity": json.dumps(identity, indent=2),
    }


# --- numbers --------------------------------------------------------------------------------------


def _searched(space: SearchSpace) -> str:
    """Name a space, one of pairs by what is paired."""
    beside = ", ".join(space.hyperparameters)
    return f"{network_space(space).name} with {beside}" if beside else space.name


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
        **({"known before": f"{len(result.earlier):,}"} if result.earlier else {}),
        **found,
        "failed": f"{sum(trial.failed for trial in trials):,}",
        "time searching": _duration(max(trial.elapsed for trial in trials)),
        "time evaluating": _duration(sum(trial.outcome.cost for trial in trials)),
    }


def _evaluation(trial: Trial) -> str:
    return "known before" if trial.earlier else f"{trial.number + 1}"


def _reference_note(result: SearchResult) -> str:
    if not result.front:
        return "No evaluation succeeded and kept all bounds."
    ends = zip(result.goal.objectives, result.reference_point.tolist(), strict=True)
    point = ", ".join(f"{name} {number:.6g}" for name, number in ends)
    return f"Of what the front dominates, up to {point}."


def _trace(known: Known, num_initial: int, label: str) -> Chart:
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


def _fronts(known: Known) -> list[Chart]:
    """Draw pairs of objectives, not all of them where there are many."""
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


def _bounds(known: Known) -> list[tuple[str, str, str]]:
    """Say of each bound how many evaluations keep it, and the range of what was measured."""
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
    """List reasons, the most frequent first, how often, and the first row that has it."""
    reasons: dict[str, list[Trial]] = {}
    for trial in result.trials:
        if trial.failed:
            reasons.setdefault(trial.outcome.error or "no reason was given", []).append(trial)
    ordered = sorted(reasons.items(), key=lambda pair: -len(pair[1]))
    return [(why, len(trials), f"trial-{trials[0].number}") for why, trials in ordered]


def _missing(known: Known) -> str:
    if known.leaders:
        return ""
    if all(trial.failed for trial in known.trials):
        return "All evaluations failed."
    return "No evaluation keeps all bounds."


def _drawn_of_front(known: Known, num: int) -> str:
    """Say where a front has more networks than are drawn."""
    front = len(known.leaders)
    if not known.result.goal.several or num == front:
        return ""
    return f"{num} of the {front:,} on the front, from one end to the other."


# --- tables ---------------------------------------------------------------------------------------


def _table(known: Known) -> dict[str, Any]:
    """Return heads and rows: numbers, hyperparameters, seconds, name."""
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


def _best(known: Known, objective: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the best networks, of a front some from one end to the other, drawn as they are."""
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
                "picture": draw_network(trial.network, objective),
            }
        )
    return found
