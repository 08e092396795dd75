"""Names of the losses and pair sets of the quadratic term, and the codes that the ops take."""

from typing import Literal, get_args

__all__ = ["Loss", "Pairs", "Penalty", "loss_code", "pairs_code", "penalty_code"]

Loss = Literal["l1", "l2"]
Pairs = Literal["all", "directed", "ordered"]
Penalty = Literal["kl", "tv"]


def loss_code(loss: str) -> int:
    """Return the code of a loss, or raise ValueError naming the known ones."""
    return _code("loss", loss, get_args(Loss))


def pairs_code(pairs: str) -> int:
    """Return the code of a pair set, or raise ValueError naming the known ones."""
    return _code("pairs", pairs, get_args(Pairs))


def penalty_code(penalty: str) -> int:
    """Return the code of a penalty of marginals, or raise ValueError naming the known ones."""
    return _code("penalty", penalty, get_args(Penalty))


def _code(name: str, value: str, known: tuple[str, ...]) -> int:
    if value not in known:
        listed = ", ".join(f'"{one}"' for one in known)
        msg = f"{name} must be one of {listed}; got {value!r}"
        raise ValueError(msg)
    return known.index(value)
