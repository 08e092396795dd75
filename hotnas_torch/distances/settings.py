"""Settings of iFGW and HOTNN in small objects: the terms of the cost, and how it is minimised."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self, TypeVar

import torch

from hotnas_torch.arguments import (
    choice,
    divisors,
    integer,
    kind,
    refuse_unknown,
    usable_device,
    working_dtype,
)
from hotnas_torch.matrices.pairwise import MEMORY_BUDGET
from hotnas_torch.ot.scalars import Scalar, constant, not_negative

__all__ = ["PRESETS", "SOLVER_FIELDS", "TERM_FIELDS", "Solver", "Terms", "settings_from"]

Settings = TypeVar("Settings", "Terms", "Solver")

_NUM_STRATEGIES = 3
_MOST_ITERATIONS = torch.iinfo(torch.int32).max
"""What the solvers count to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the cost between two cells is made of; None leaves it to the preset or the space.

    Args:
        pairs: `"directed"`: all ordered pairs i != k, j != l, independent of the numbering.
            `"ordered"`: i < k and j < l in the canonical numbering, the sum of Eq. 9; a coupling
            that reverses the order pays nothing there, so lam = 0 is refused.
        linear_term: `"separable"`: the node costs as they are. `"literal"`: times
            (n-1-i)(m-1-j), which is what Eq. 9 prints.
        normalize: Divide path lengths by the cell's longest path, which bounds H by 1.
        unreachable: Pair cost where no information flows, finite and >= 0, float or 0-d tensor;
            None takes eps * max D + (1 - eps) * (1 if normalised, else max_nodes - 1), the least
            number that no finite cost exceeds.
        max_nodes: Nodes of the largest cell that will ever be compared, which bounds raw path
            lengths; None takes the space's. Needed with `normalize=False` only.
        partial: Share of the nodes of the smaller cell that are matched, in (0, 1]. Every node of
            both cells has the same mass then, and what is left of either costs nothing. None
            matches all of both.
        state_scale: Divisors of the two state coordinates of a cell in its network, both > 0; None
            takes the space's, else the tree's. Of `HOTNN` only.

    Raises:
        TypeError, ValueError: A field of the wrong kind or out of range; the message names it.
    """

    pairs: Literal["directed", "ordered"] | None = None
    linear_term: Literal["separable", "literal"] | None = None
    normalize: bool | None = None
    unreachable: Scalar | None = None
    max_nodes: int | None = None
    partial: float | None = None
    state_scale: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.pairs is not None:
            choice("pairs", self.pairs, ("directed", "ordered"))
        if self.linear_term is not None:
            choice("linear_term", self.linear_term, ("separable", "literal"))
        if self.normalize is not None and not isinstance(self.normalize, bool):
            raise TypeError(f"normalize must be a bool; got {type(self.normalize).__name__}")
        if self.unreachable is not None:
            _set(self, "unreachable", not_negative("unreachable", self.unreachable))
        if self.max_nodes is not None:
            integer("max_nodes", self.max_nodes, least=1)
        if self.partial is not None:
            _set(self, "partial", _positive_share(self.partial))
        if self.state_scale is not None:
            _set(self, "state_scale", divisors("state_scale", self.state_scale))

    def completed(self, defaults: Self) -> Self:
        """Return these terms with those of `defaults` where a field is None."""
        return replace(
            defaults,
            **{
                field.name: value
                for field in fields(self)
                if (value := getattr(self, field.name)) is not None
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """How the cost is minimised, with which numbers, and where.

    Args:
        num_starts: Starts per pair of cells (signature plan, pointwise plan, order-preserving), 1
            to 3; the best objective is kept.
        tol: Relative duality gap at which a pair is finished, >= 0.
        max_iter: Most transports per start; reaching it gives a `ConvergenceWarning`.
        backend: `"auto"` (compiled where possible), `"ext"` or `"torch"`.
        dtype: float32 or float64; None takes torch's default at this moment.
        device: Where the tables live and the solvers run; results are on it too. None is the CPU.
        memory_budget: Bytes that may be held beside the result. The table of cell distances is
            kept if it fits; otherwise each tile of network pairs computes the part that it needs.

    Raises:
        TypeError, ValueError: A field of the wrong kind or out of range; the message names it.
    """

    num_starts: int = 3
    tol: float = 1e-3
    max_iter: int = 200
    backend: Literal["auto", "ext", "torch"] = "auto"
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None
    memory_budget: int = MEMORY_BUDGET

    def __post_init__(self) -> None:
        integer("num_starts", self.num_starts, least=1, most=_NUM_STRATEGIES)
        _set(self, "tol", float(not_negative("tol", self.tol)))
        integer("max_iter", self.max_iter, least=1, most=_MOST_ITERATIONS)
        choice("backend", self.backend, ("auto", "ext", "torch"))
        _set(self, "dtype", working_dtype(self.dtype))
        _set(self, "device", usable_device(self.device))
        integer("memory_budget", self.memory_budget, least=1)


TERM_FIELDS = tuple(field.name for field in fields(Terms))
SOLVER_FIELDS = tuple(field.name for field in fields(Solver))

PRESETS: dict[str, Terms] = {
    "default": Terms(pairs="directed", linear_term="separable", normalize=True),
    "paper": Terms(pairs="ordered", linear_term="literal", normalize=False),
}
"""Terms where the caller passes none."""


def settings_from(
    owner: str,
    terms: Terms | None,
    solver: Solver | None,
    given: dict[str, Any],
    known: Iterable[str],
) -> tuple[Terms, Solver]:
    """Return the two objects, with the fields that were passed by their names.

    Args:
        owner: What takes them, for the message.
        terms: Passed as an object, or None.
        solver: Passed as an object, or None.
        given: Fields by name; they win over those of the objects.
        known: All settings of `owner`, which the message lists.

    Raises:
        TypeError: A name that is not known, or an object of another class.
        ValueError: A field out of range.
    """
    refuse_unknown(owner, given, known)
    kind("terms", terms, Terms, optional=True)
    kind("solver", solver, Solver, optional=True)
    return (
        _with(terms or Terms(), {k: v for k, v in given.items() if k in TERM_FIELDS}),
        _with(solver or Solver(), {k: v for k, v in given.items() if k in SOLVER_FIELDS}),
    )


def _with(settings: Settings, changes: dict[str, Any]) -> Settings:
    return replace(settings, **changes) if changes else settings


def _set(settings: Terms | Solver, name: str, value: object) -> None:
    object.__setattr__(settings, name, value)


def _positive_share(value: object) -> float:
    share = constant("partial", value)
    if not 0.0 < share <= 1.0:
        raise ValueError(f"partial must be in (0, 1], or None for all of both cells; got {share}")
    return share
