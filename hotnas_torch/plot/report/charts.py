"""Charts of the report as places in per cent, which its template turns into SVG.

In per cent, because a chart is then as wide as its page while its text keeps its size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator

from hotnas_torch.plot.embedding import embed
from hotnas_torch.plot.figure import FloatArray

__all__ = ["Axis", "Chart", "Mark", "colours", "front_chart", "map_chart", "trace_chart"]

# As in `plot_trace`: values further above the median than this many times its distance from the
# best are drawn at the edge.
_REACH = 3.0
_NUM_NUMBERED = 5
_MARGIN = 0.06
# Beyond these, differences and steps between ticks overflow or vanish.
_HUGE, _TINY = 1e150, 1e-150
_LEFT_OUT = {"hollow": "breaks a bound", "failed": "failed"}

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Mark:
    """One evaluation in a chart.

    Attributes:
        trial: Name of its row in the table.
        x: Per cent from the left.
        y: Per cent from the top.
        kind: Class of its style: `dot`, `hollow`, `failed`, `lead`, `beyond`, `square`.
        fill: A colour of its own, else empty.
    """

    trial: str
    x: float
    y: float
    kind: str = "dot"
    fill: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: its label, and ticks as places in per cent of its length with their texts."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...] = ()

    @classmethod
    def over(cls, label: str, low: float, high: float, *, whole: bool = False) -> "Axis":
        """Return an axis from `low` to `high`, with round ticks."""
        size = max(abs(low), abs(high))
        if not low < high or size > _HUGE or high - low < _TINY:
            ends = (low, high) if low < high else (low,)
            middle = 0.0 if low < high else 0.5
            places = (middle, 1.0)
            named = [(100 * at, f"{end:.4g}") for at, end in zip(places, ends, strict=False)]
            return cls(label, low, high, tuple(named))
        found = MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=whole).tick_values(low, high)
        step = float(found[1] - found[0]) if len(found) > 1 else 1.0
        inside = [float(tick) for tick in found if low <= tick <= high]
        axis = cls(label, low, high)
        ticks = [(float(axis.places([tick])[0]), _tick(tick, step)) for tick in inside]
        return cls(label, low, high, tuple(ticks))

    def places(self, values: Sequence[float] | FloatArray) -> FloatArray:
        """Return where values lie, in per cent; those beyond the ends lie at them."""
        numbers = np.asarray(values, dtype=np.float64)
        if not self.low < self.high:
            return np.full(numbers.shape, 50.0)
        # Divided first, as differences of the largest numbers are infinite.
        scale = max(abs(self.low), abs(self.high))
        low, high = self.low / scale, self.high / scale
        found: FloatArray = 100.0 * np.clip((numbers / scale - low) / (high - low), 0.0, 1.0)
        return found


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart.

    Attributes:
        title: What it shows, for those who cannot see it.
        marks: Evaluations, those in front last.
        x: Horizontal axis, or None.
        y: Vertical axis, or None.
        line: Corners of a line in per cent.
        note: What is said beside it.
        numbers: Texts at places: x, y, text.
        scale: Colours of a scale with what they stand for, from left to right.
        initial: Where the evaluations at the start end, in per cent; 0: nowhere.
        ratio: Width by height; 0 leaves the height to the page.
        measure: Length of a bar in per cent and its text.
    """

    title: str
    marks: Sequence[Mark]
    x: Axis | None = None
    y: Axis | None = None
    line: Sequence[tuple[float, float]] = ()
    note: str = ""
    numbers: Sequence[tuple[float, float, str]] = ()
    scale: Sequence[tuple[str, str]] = ()
    initial: float = 0.0
    ratio: float = 0.0
    measure: tuple[float, str] | None = None
    legend: Sequence[tuple[str, str]] = field(default_factory=tuple)


def trace_chart(
    trials: Sequence[str],
    values: FloatArray,
    best: FloatArray,
    *,
    sign: float,
    label: str,
    kept: Bools,
    failed: Bools,
    num_initial: int,
    clipped: bool = True,
) -> Chart:
    """Draw values in the order of evaluation, and the best so far as a stepped line.

    Args:
        trials: Names of the rows.
        values: One per evaluation, NaN for a failed one.
        best: The best up to each, NaN before the first.
        sign: 1.0 where smaller is better, else -1.0.
        label: Of the vertical axis.
        kept: Which keep all bounds.
        failed: Which failed.
        num_initial: Evaluations at the start that are set apart.
        clipped: Whether values far worse than the others are drawn at the edge, and counted.
    """
    shown = np.isfinite(values)
    across = Axis.over("evaluations", 0.5, len(values) + 0.5, whole=True)
    reached = sign * best[np.isfinite(best)]
    low, high, beyond = _visible(sign * values[shown], reached, everything=not clipped)
    ends = (low, high) if sign > 0 else (-high, -low)
    up = Axis.over(label, *ends)
    xs = across.places(np.arange(1.0, len(values) + 1.0)).tolist()
    ys = (100.0 - up.places(np.where(shown, values, ends[0]))).tolist()
    outside = shown & (sign * np.where(shown, values, 0.0) > high)
    marks = []
    for place, name in enumerate(trials):
        if failed[place] or not shown[place]:
            marks.append(Mark(name, xs[place], 98.0, "failed"))
        else:
            kind = "beyond" if outside[place] else "dot" if kept[place] else "hollow"
            marks.append(Mark(name, xs[place], ys[place], kind))
    begun = np.isfinite(best)
    heights = 100.0 - up.places(np.where(begun, best, ends[0]))
    line = _stepped(
        [(xs[place], float(heights[place])) for place in np.flatnonzero(begun).tolist()]
    )
    if begun.any():
        lead = int(np.argmin(np.where(begun, sign * best, np.inf)))
        # Else it was known before the search.
        if values[lead] == best[lead] and not failed[lead]:
            marks.append(Mark(trials[lead], xs[lead], ys[lead], "lead"))
    note = ""
    if beyond:
        worst = sign * float((sign * values[shown]).max())
        side = "above" if sign > 0 else "below"
        note = f"{beyond:,} value{'s' if beyond > 1 else ''} {side}, as far as {worst:.4g}"
    legend = [("best", "best so far")] if line else []
    kinds = {mark.kind for mark in marks}
    legend += [(kind, text) for kind, text in _LEFT_OUT.items() if kind in kinds]
    divided = 0 < num_initial < len(values)
    initial = float(across.places([num_initial + 0.5])[0]) if divided else 0.0
    title = f"{label} of {len(values):,} evaluations in their order"
    return Chart(title, marks, across, up, line, note=note, initial=initial, legend=tuple(legend))


def front_chart(
    trials: Sequence[str],
    points: FloatArray,
    *,
    labels: tuple[str, str],
    signs: tuple[float, float],
    kept: Bools,
    front: Bools,
) -> Chart:
    """Draw evaluations by two of their objectives, those of the front set apart.

    Args:
        trials: Names of the rows.
        points: (N, 2), NaN for failed ones; the first objective goes upwards.
        labels: Of the objectives.
        signs: 1.0 where smaller is better.
        kept: Which keep all bounds.
        front: Which are on the front of all objectives.
    """
    shown = np.isfinite(points).all(axis=1)
    ends = []
    for column in range(2):
        low, high, _ = _visible(signs[column] * points[shown, column], everything=True)
        ends.append((low, high) if signs[column] > 0 else (-high, -low))
    up, across = (Axis.over(label, *end) for label, end in zip(labels, ends, strict=True))
    xs = across.places(np.where(shown, points[:, 1], across.low))
    ys = 100.0 - up.places(np.where(shown, points[:, 0], up.low))
    order = sorted(np.flatnonzero(shown).tolist(), key=lambda place: bool(front[place]))
    marks = [
        Mark(
            trials[place],
            float(xs[place]),
            float(ys[place]),
            "lead" if front[place] else "dot" if kept[place] else "hollow",
        )
        for place in order
    ]
    legend = [("lead", "on the front")]
    if (~kept & shown).any():
        legend.append(("hollow", _LEFT_OUT["hollow"]))
    title = f"{labels[0]} by {labels[1]} of {int(shown.sum()):,} evaluations"
    return Chart(
        title,
        marks,
        across,
        up,
        _steps(points[front & shown], across, up, signs),
        legend=tuple(legend),
    )


def map_chart(
    trials: Sequence[str],
    distances: FloatArray,
    losses: FloatArray,
    texts: Sequence[str],
    *,
    kept: Bools,
    num_initial: int,
    label: str,
) -> Chart:
    """Draw networks as points, near each other where they are alike, the best dark.

    Args:
        trials: Names of the rows.
        distances: Between the networks, (N, N), N >= 2.
        losses: Smaller is better, NaN for failed ones.
        texts: The value of each as the scale of colours says it.
        kept: Which keep all bounds; the others are hollow.
        num_initial: The first ones, drawn as squares.
        label: What the colours stand for.
    """
    points = embed(distances)
    width, height = (float(np.ptp(points[:, axis])) for axis in (0, 1))
    extent = max(width, height) or 1.0
    # As wide as the points are, within what a page can show.
    ratio = min(max(width / height if height > 0.0 else 2.0, 1.0), 2.0)
    unit = 90.0 / max(width, ratio * height, extent * 1e-9)
    xs = 50.0 + unit * (points[:, 0] - (points[:, 0].max() + points[:, 0].min()) / 2)
    ys = 50.0 - unit * ratio * (points[:, 1] - (points[:, 1].max() + points[:, 1].min()) / 2)
    finite = np.isfinite(losses) & kept
    ranked = np.argsort(np.where(finite, losses, np.inf), kind="stable")
    num = int(finite.sum())
    fills = colours(num)
    marks: dict[int, Mark] = {}
    for rank, place in reversed(list(enumerate(ranked.tolist()))):
        kind = "square" if place < num_initial else "dot"
        if rank >= num:
            kind = "hollow" if np.isfinite(losses[place]) else "failed"
        fill = fills[rank] if rank < num else ""
        marks[place] = Mark(trials[place], float(xs[place]), float(ys[place]), kind, fill)
    numbers = [
        (float(xs[place]), float(ys[place]), str(rank + 1))
        for rank, place in enumerate(ranked[: min(_NUM_NUMBERED, num)].tolist())
    ]
    shares = np.linspace(0, num - 1, min(num, 5)).round().astype(int).tolist()
    scale = [(fills[rank], texts[ranked[rank]]) for rank in shares]
    measure = None
    if width > 0.0:
        length = float(f"{width / 5:.1g}")
        measure = (unit * length, f"distance {length:g}")
    legend = []
    if 0 < num_initial < len(trials):
        legend.append(("square", "initial"))
    kinds = {mark.kind for mark in marks.values()}
    legend += [(kind, text) for kind, text in _LEFT_OUT.items() if kind in kinds]
    return Chart(
        f"{len(trials):,} networks, near each other where they are alike; coloured by {label}",
        list(marks.values()),
        numbers=numbers,
        scale=scale,
        ratio=ratio,
        measure=measure,
        legend=tuple(legend),
        note=label,
    )


def colours(number: int) -> list[str]:
    """Return colours in equal steps, the best dark."""
    palette = matplotlib.colormaps["viridis"]
    return [to_hex(palette(step)) for step in np.linspace(0.0, 1.0, number)]


def _visible(
    losses: FloatArray, reached: FloatArray | None = None, *, everything: bool = False
) -> tuple[float, float, int]:
    """Return the ends of an axis, and how many values lie beyond its worse one."""
    known = losses if reached is None else np.concatenate([losses, reached])
    if not len(known):
        return 0.0, 1.0, 0
    low, high, beyond = float(known.min()), float(known.max()), 0
    if len(losses) and not everything:
        median = float(np.median(losses / 2)) * 2  # the sum of the two largest may be infinite
        far = losses > median + _REACH * (median - low)
        if median > low and math.isfinite(median - low):
            high, beyond = float(losses[~far].max()), int(far.sum())
    room = _MARGIN * (high - low) or _MARGIN * max(abs(low), 1.0)
    if not (math.isfinite(low - room) and math.isfinite(high + room)):
        return low, high, beyond
    return low - room, high + room, beyond


def _stepped(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of a line that goes across before it goes up or down."""
    corners: list[tuple[float, float]] = []
    for x, y in points:
        if not corners:
            corners.append((x, y))
        elif y != corners[-1][1]:
            corners += [(x, corners[-1][1]), (x, y)]
    return [*corners, (points[-1][0], corners[-1][1])] if corners else []


def _steps(
    front: FloatArray, across: Axis, up: Axis, signs: tuple[float, float]
) -> list[tuple[float, float]]:
    """Return the corners of the line below which nothing was found, of the pair's own front."""
    losses = front * np.asarray(signs)
    ordered = front[np.lexsort((losses[:, 0], losses[:, 1]))]
    least = math.inf
    reached = []
    for first, second in ordered.tolist():
        if signs[0] * first < least:
            least = signs[0] * first
            reached.append(
                (float(across.places([second])[0]), 100.0 - float(up.places([first])[0]))
            )
    return _stepped(reached)


def _tick(value: float, step: float) -> str:
    size = max(abs(value), step)
    if not 1e-4 <= size < 1e6:
        return f"{value:.4g}"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
