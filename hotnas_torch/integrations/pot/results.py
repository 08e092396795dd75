"""`ot.utils.OTResult`: what the solvers of POT's newer interface return."""

from dataclasses import dataclass
from typing import Any

__all__ = ["OTResult"]


@dataclass(frozen=True, kw_only=True)
class OTResult:
    """A solution under POT's names; what a solver does not have is None.

    Attributes:
        plan: The plan.
        value: The objective, entropy included.
        value_linear: Its linear part.
        value_quad: Its quadratic part.
        potentials: Duals of rows and columns.
        status: "Converged", or what happened.
        log: Anything else by name.
    """

    plan: Any = None
    value: Any = None
    value_linear: Any = None
    value_quad: Any = None
    potentials: tuple[Any, Any] | None = None
    status: str | None = None
    log: dict[str, Any] | None = None

    @property
    def potential_a(self) -> Any:
        """Duals of the rows."""
        return None if self.potentials is None else self.potentials[0]

    @property
    def potential_b(self) -> Any:
        """Duals of the columns."""
        return None if self.potentials is None else self.potentials[1]

    @property
    def sparse_plan(self) -> Any:
        """The plan, which is dense."""
        return self.plan

    @property
    def marginal_a(self) -> Any:
        """Masses of the rows of the plan."""
        return self.plan.sum(1)

    @property
    def marginal_b(self) -> Any:
        """Masses of the columns of the plan."""
        return self.plan.sum(0)

    @property
    def marginals(self) -> tuple[Any, Any]:
        """Both."""
        return self.marginal_a, self.marginal_b
