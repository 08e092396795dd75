# Over 400 lines: one class, which alone knows what is better.
"""What a search is after: which numbers, which way, and within which bounds."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import finite, number, refuse_unknown
from hotnas_torch.search.fronts import (
    hypervolume,
    nondominated,
    nondominated_fronts,
    reference_point,
)
from hotnas_torch.search.goal_settings import (
    VALUE,
    VARIANCE,
    Constraint,
    Direction,
    read_constraints,
    read_known,
    read_objectives,
)

__all__ = ["GOAL", "VALUE", "Direction", "Goal"]

GOAL = ("direction", "objectives", "constraints", "known")
"""Settings of a goal, which every strategy takes."""

# What breaks a constraint is worse than all that keeps them, by how much it does.
_INFEASIBLE = 1e300


class Goal:
    """Which numbers of an evaluation are to be small or large, and which have bounds.

    Everything outside has the caller's numbers: what is told, observed, recorded and shown.
    Strategies compare losses, of which smaller is better; this class alone turns one into the
    other.

    Args:
        direction: `"minimize"` or `"maximize"`, or one per objective; None is not said, which
            counts as minimising until `toward` says otherwise.
        objectives: Names of the numbers, or a mapping of names to directions; `"value"` is the
            value of an evaluation, others are among its metrics. Several are compared by
            dominance.
        constraints: Texts such as `"latency <= 5"`, on objectives or other numbers of an
            evaluation.
        known: Numbers that need no evaluation and no model, by name: functions of a network, such
            as its parameters.

    Attributes:
        objectives: Names of the objectives.
        directions: One per objective.
        constraints: As `Constraint`.
        known: As given.
        names: All numbers that count: the objectives, then what has a bound besides.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: An unknown direction, a wrong number of them, a name that is not unique, a
            constraint that cannot be read, `known` for a number that does not count, or nothing to
            be evaluated; the message names it.

    Example:
        >>> goal = Goal(objectives={"accuracy": "maximize"}, constraints=["latency <= 5"])
        >>> goal.names
        ('accuracy', 'latency')
        >>> goal.feasible(torch.tensor([[0.9, 7.0], [0.8, 4.0]]))
        tensor([False,  True])
    """

    def __init__(
        self,
        *,
        direction: Direction | Sequence[Direction] | None = None,
        objectives: Sequence[str] | Mapping[str, Direction] | None = None,
        constraints: Sequence[str | Constraint] = (),
        known: Mapping[str, Callable[[Network], float]] | None = None,
    ) -> None:
        self.objectives, self.directions, self._said = read_objectives(objectives, direction)
        self.constraints = read_constraints(constraints)
        bounded = (constraint.name for constraint in self.constraints)
        self.names = tuple(dict.fromkeys((*self.objectives, *bounded)))
        self.known = read_known(known, self.names)
        self.measured = tuple(name for name in self.names if name not in self.known)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Build one from settings by name.

        Raises:
            TypeError: One of them is unknown; else as the class.
        """
        refuse_unknown("the goal of a search", settings, GOAL)
        return cls(**settings)

    # --- what kind it is --------------------------------------------------------------------------

    @property
    def direction(self) -> Direction:
        """Direction of the first objective."""
        return self.directions[0]

    @property
    def several(self) -> bool:
        """Whether there are several objectives."""
        return len(self.objectives) > 1

    @property
    def plain(self) -> bool:
        """Whether it is about the one value of an evaluation, without bounds."""
        return self.names == (VALUE,)

    def toward(self, direction: Direction | Sequence[Direction]) -> "Goal":
        """Return this goal with directions, where it does not say others.

        Args:
            direction: One, or one per objective.

        Raises:
            ValueError: One is unknown, their number is not that of the objectives, or the goal says
                others.
        """
        alone = isinstance(direction, str) and self.several
        found = Goal(
            direction=[direction] if alone else direction,  # type: ignore[list-item]
            objectives=self.objectives,
            constraints=self.constraints,
            known=self.known,
        )
        if self._said and found.directions != self.directions:
            raise ValueError(
                f"direction must be {', '.join(self.directions)}, as the strategy says; got "
                f"{', '.join(found.directions)} (say it once)"
            )
        return found

    def describe(self) -> dict[str, Any]:
        """Return all of it, ready for `json.dumps`; nothing where one value is minimised."""
        if self.plain and self.direction == "minimize":
            return {}
        described: dict[str, Any] = {
            "objectives": dict(zip(self.objectives, self.directions, strict=True))
        }
        if self.constraints:
            described["constraints"] = [str(constraint) for constraint in self.constraints]
        if self.known:
            described["known"] = sorted(self.known)
        return described

    @classmethod
    def read(cls, described: Mapping[str, Any] | None) -> Self:
        """Read what `describe` returned, for records: what was known is as good as measured."""
        if not described:
            return cls()
        return cls(objectives=described["objectives"], constraints=described.get("constraints", ()))

    # --- numbers of evaluations -------------------------------------------------------------------

    def row(self, name: str, net: Network, given: object) -> tuple[float, ...]:
        """Return the numbers of one network, in the order of `names`, from what a caller passed.

        Args:
            name: What messages call it.
            net: The network.
            given: A number where one counts; else a mapping, which may leave out what is known, or
                a sequence in the order of `names`.

        Returns:
            NaN in all places if the evaluation failed: if one of them is NaN.

        Raises:
            TypeError: It is no number, or neither mapping nor sequence.
            ValueError: One is infinite or missing, there are too few or too many, or what is known
                is different.
        """
        if self.plain:
            return (finite(name, given),)
        if callable(listed := getattr(given, "tolist", None)):
            given = listed()
        if isinstance(given, Mapping):
            if missing := [one for one in self.measured if one not in given]:
                raise ValueError(
                    f"{name} must have {', '.join(map(repr, self.measured))}; got no {missing[0]!r}"
                )
            found = {one: given[one] for one in self.names if one in given}
        elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
            if len(given) != len(self.names):
                raise ValueError(
                    f"{name} must hold {len(self.names)} numbers, {', '.join(self.names)}; got "
                    f"{len(given)}"
                )
            found = dict(zip(self.names, given, strict=True))
        elif len(self.measured) == 1 or (isinstance(given, float) and math.isnan(given)):
            found = dict.fromkeys(self.measured, given)
        else:
            raise TypeError(
                f"{name} must be a mapping or a sequence of {', '.join(self.names)}; got {given!r}"
            )
        numbers = {one: finite(f"{name}[{one!r}]", value) for one, value in found.items()}
        if any(map(math.isnan, numbers.values())):
            return (math.nan,) * len(self.names)
        numbers = self.completed(name, net, numbers)
        return tuple(numbers[one] for one in self.names)

    def variances(self, name: str, given: object) -> tuple[float, ...]:
        """Return the variances of the noise of one network's numbers, NaN where not known.

        Args:
            name: What messages call it.
            given: None; else a number where one counts, a mapping of names, which may leave some
                out, or a sequence in the order of `names`. That of what is known without
                evaluation counts for nothing.

        Raises:
            TypeError: It is no number, or neither mapping nor sequence.
            ValueError: One is negative or infinite, a name does not count, or there are too few or
                too many.
        """
        if callable(listed := getattr(given, "tolist", None)):
            given = listed()
        if given is None or (isinstance(given, float) and math.isnan(given)):
            found: dict[str, Any] = {}
        elif self.plain:
            found = {VALUE: given}
        elif isinstance(given, Mapping):
            for one in given:
                if one not in self.names:
                    raise ValueError(
                        f"{name} must be of {', '.join(map(repr, self.names))}; got {one!r}"
                    )
            found = dict(given)
        elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
            if len(given) != len(self.names):
                raise ValueError(
                    f"{name} must hold {len(self.names)} numbers, {', '.join(self.names)}; got "
                    f"{len(given)}"
                )
            found = dict(zip(self.names, given, strict=True))
        else:
            raise TypeError(
                f"{name} must be a mapping or a sequence of {', '.join(self.names)}; got {given!r}"
            )
        row = []
        for one in self.names:
            entry = found.get(one)
            called = name if self.plain else f"{name}[{one!r}]"
            variance = math.nan if entry is None else finite(called, entry)
            if variance < 0.0:
                raise ValueError(f"{called} must be >= 0, a square of its unit; got {variance:g}")
            row.append(math.nan if one in self.known else variance)
        return tuple(row)

    def recorded_variances(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return the variances that a recorded evaluation says, `<name>_variance`, else NaN."""
        found = [metrics.get(f"{name}{VARIANCE}") for name in self.names]
        return self.variances("metrics", found[0] if self.plain else found)

    def recorded(self, value: float, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return the numbers of a recorded evaluation in the order of `names`; NaN if it failed."""
        if self.plain:
            return (value,)
        if math.isnan(value):
            return (math.nan,) * len(self.names)
        return tuple(metrics.get(name, value if name == VALUE else math.nan) for name in self.names)

    def completed(self, name: str, net: Network, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return numbers by name with those that are known.

        Raises:
            ValueError: A function returned no finite number, or another one than was measured.
        """
        found = dict(numbers)
        for one, function in self.known.items():
            value = number(f"known[{one!r}]", function(net))
            if not math.isfinite(value):
                raise ValueError(f"known[{one!r}] must be finite; got {value} for {net.spec!r}")
            if one in found and not math.isclose(found[one], value, rel_tol=1e-9):
                raise ValueError(
                    f"{name}[{one!r}] must be what known[{one!r}] says, {value:g}; got "
                    f"{found[one]:g} for {net.spec!r} (leave out one of them)"
                )
            found[one] = value
        return found

    # --- comparing --------------------------------------------------------------------------------

    def signed(self, rows: Tensor) -> Tensor:
        """Return the objectives, smaller being better.

        Args:
            rows: Numbers in the order of `names`, (..., k).

        Returns:
            (..., m).
        """
        signs = [1.0 if direction == "minimize" else -1.0 for direction in self.directions]
        return rows[..., : len(signs)] * torch.tensor(signs, dtype=rows.dtype)

    def scores(self, rows: Tensor) -> Tensor:
        """Return the objectives of rows, (n, k), in their units, (n, m); NaN where infeasible."""
        return rows[:, : len(self.objectives)].masked_fill(~self.feasible(rows)[:, None], math.nan)

    def feasible(self, rows: Tensor) -> Tensor:
        """Return which rows, (..., k), keep all bounds; NaN does not."""
        kept = ~rows.isnan().any(dim=-1)
        for constraint in self.constraints:
            kept &= constraint.excess(rows[..., self.names.index(constraint.name)]) <= 0.0
        return kept

    def violation(self, rows: Tensor) -> Tensor:
        """Return by how much rows, (..., k), break their bounds, in units of these, summed."""
        total = torch.zeros(rows.shape[:-1], dtype=rows.dtype)
        for constraint in self.constraints:
            excess = constraint.excess(rows[..., self.names.index(constraint.name)])
            total = total + excess.clamp_min(0.0) / (abs(constraint.bound) or 1.0)
        return total

    def losses(self, rows: Tensor) -> Tensor:
        """Return one number per row to compare by, smaller being better; NaN for what failed.

        That is the signed value of one objective; of several the rank in the order of
        fronts, and of crowding within each (Deb et al., 2002). What breaks a constraint comes after
        all that keeps them, in the order of `violation`.

        Args:
            rows: Numbers in the order of `names`, (n, k).

        Returns:
            (n,) float64.
        """
        signed = self.signed(rows)
        kept = self.feasible(rows)
        if self.several:
            found = torch.full((len(rows),), math.nan, dtype=torch.float64)
            places = kept.nonzero().flatten()
            order = [place for front in nondominated_fronts(signed[places]) for place in front]
            found[places[order]] = torch.arange(len(order), dtype=torch.float64)
        else:
            found = signed[:, 0].clone()
        if self.constraints:
            violation = self.violation(rows)
            broken = ~kept & ~rows.isnan().any(dim=-1)
            share = violation[broken] / (1.0 + violation[broken])
            found[broken] = _INFEASIBLE * (1.0 + share.nan_to_num(nan=1.0))
        return found

    def best(self, rows: Tensor) -> int | None:
        """Return the place of the best feasible row, the earliest of equals; None without one.

        Raises:
            ValueError: There are several objectives, which have no best.
        """
        if self.several:
            raise ValueError(
                f"several objectives ({self._listed()}) have no best; front holds those that none "
                "other dominates"
            )
        losses = self.losses(rows).masked_fill(~self.feasible(rows), math.inf)
        if not len(losses) or bool(losses.isinf().all()):
            return None
        return int(losses.argmin())

    def best_so_far(self, rows: Tensor) -> Tensor:
        """Return the best feasible value up to each row, (n,) float64; NaN before the first.

        Raises:
            ValueError: There are several objectives, which have no best.
        """
        if self.several:
            self.best(rows)
        losses = self.losses(rows).masked_fill(~self.feasible(rows), math.inf)
        running = torch.cummin(losses, dim=0).values if len(losses) else losses
        return self.signed(running.masked_fill(running.isinf(), math.nan)[:, None])[:, 0]

    def leaders(self, rows: Tensor) -> list[int]:
        """Return the places of the front, or of the best of one objective."""
        if self.several:
            return self.front(rows)
        place = self.best(rows)
        return [] if place is None else [place]

    def front(self, rows: Tensor) -> list[int]:
        """Return the places of feasible rows that no other one dominates, in order."""
        places = self.feasible(rows).nonzero().flatten()
        if not len(places):
            return []
        return places[nondominated(self.signed(rows[places]))].tolist()

    def reference_point(self, rows: Tensor) -> Tensor:
        """Return a point that is somewhat worse than the front in all objectives, (m,).

        Raises:
            ValueError: No row keeps all bounds.
        """
        front = self.front(rows)
        if not front:
            raise ValueError(
                "there must be an evaluation that keeps all bounds for a reference point; got none"
                " (give one)"
            )
        return self.signed(reference_point(self.signed(rows[front])))

    def hypervolume(self, rows: Tensor, reference: Sequence[float] | Tensor | None = None) -> float:
        """Return the volume of what feasible rows dominate, up to a point.

        Args:
            rows: Numbers in the order of `names`, (n, k).
            reference: The point, one number per objective; None takes `reference_point(rows)`.

        Raises:
            TypeError, ValueError: `reference` is not one finite number per objective.
        """
        return float(self.hypervolume_so_far(rows, reference)[-1]) if len(rows) else 0.0

    def hypervolume_so_far(
        self, rows: Tensor, reference: Sequence[float] | Tensor | None = None
    ) -> Tensor:
        """Return the hypervolume of the first rows, up to each of them, (n,) float64."""
        found = torch.zeros(len(rows), dtype=torch.float64)
        given = None if reference is None else self._point(reference)
        if not bool(self.feasible(rows).any()):
            return found
        losses = self.signed(rows)
        point = self.signed(self.reference_point(rows) if given is None else given)
        front = losses[:0]
        for place, kept in enumerate(self.feasible(rows).tolist()):
            if kept:
                front = torch.cat([front, losses[place : place + 1]])
                front = front[nondominated(front)]
            found[place] = hypervolume(front, point)
        return found

    def _point(self, given: object) -> Tensor:
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise TypeError(f"reference must be one number per objective; got {given!r}")
        numbers = [number(f"reference[{place}]", one) for place, one in enumerate(given)]
        if len(numbers) != len(self.objectives) or not all(map(math.isfinite, numbers)):
            raise ValueError(
                f"reference must be {len(self.objectives)} finite numbers, for {self._listed()}; "
                f"got {numbers}"
            )
        return torch.tensor(numbers, dtype=torch.float64)

    def _listed(self) -> str:
        return ", ".join(self.objectives)

    def __repr__(self) -> str:
        described = self.describe()
        return f"Goal({', '.join(f'{name}={value!r}' for name, value in described.items())})"
