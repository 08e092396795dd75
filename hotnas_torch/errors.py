"""The library's own exceptions; each also derives from the built-in a caller would catch."""

__all__ = [
    "ArchitectureError",
    "ClusterError",
    "ConvergenceWarning",
    "GramFileError",
    "HotnasError",
    "NoiseWarning",
    "NonFiniteValueError",
    "SizeError",
    "SolverError",
    "StopSearch",
    "StorageError",
    "TableError",
    "TracingError",
]


class HotnasError(Exception):
    """Base of every error that this library defines."""


class ArchitectureError(HotnasError, ValueError):
    """A cell, network, string or encoded row that describes no valid architecture."""


class GramFileError(HotnasError, ValueError):
    """A result file that is truncated, foreign, or belongs to another computation."""


class TableError(HotnasError, ValueError):
    """A benchmark table that cannot be read, or that lacks what was asked of it."""


class TracingError(HotnasError, ValueError):
    """A module whose computation cannot be recorded, or inputs that do not fit it."""


class NonFiniteValueError(HotnasError, ArithmeticError, ValueError):
    """A value of an objective that is infinite; in a search, a failed evaluation."""


class SizeError(HotnasError, ValueError):
    """A search space that is too large for its size to be counted."""


class StopSearch(HotnasError):
    """Raise it in an objective or in what is told of progress: the search ends with its result."""


class StorageError(HotnasError, ValueError):
    """A file of a search that is foreign, newer, damaged, in use, or belongs to another search."""


class ClusterError(HotnasError, RuntimeError):
    """A cluster that cannot be reached, has no room, or loses the same work again and again."""


class SolverError(HotnasError, RuntimeError):
    """A solver item ended without a usable result and the caller asked to be told."""


class ConvergenceWarning(UserWarning):
    """A solver stopped at its iteration limit; the result is feasible but not certified."""


class NoiseWarning(UserWarning):
    """Values of a search differ by noise more than by what its model can tell of networks."""
