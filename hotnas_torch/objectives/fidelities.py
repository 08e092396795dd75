"""One objective per level of fidelity: what a network is worth after so many epochs."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from hotnas_torch.arch import Network
from hotnas_torch.arguments import number
from hotnas_torch.callables import describe_callable
from hotnas_torch.spaces import ConfiguredNetwork

__all__ = ["Fidelities"]


class Fidelities:
    """Evaluates pairs of a network and a level by the objective of the level.

    For searches with a `search.Fidelity`, where each level has a column of a table or a training of
    its own. Whoever goes on with a training, or evaluates hyperparameters as well, writes a
    function of the pair instead.

    Args:
        objectives: By level, what is called with the network.
        name: What is cut short, as pairs have it.

    Raises:
        TypeError: `objectives` is no mapping of numbers to callables, or `name` no str.
        ValueError: There is none, or a level is not positive and finite.

    Example:
        >>> import hotnas_torch as ht
        >>> from hotnas_torch.search import Fidelity
        >>> space = ht.spaces.Pooling()
        >>> pairs = Fidelity([1, 9]).joined(space)
        >>> objective = Fidelities({1: lambda net: 8.0, 9: lambda net: 5.0})
        >>> objective(pairs.configure(space.from_string("[7,1,2]"), {"epochs": 9}))
        5.0
    """

    def __init__(
        self, objectives: Mapping[float, Callable[[Network], Any]], name: str = "epochs"
    ) -> None:
        if not isinstance(objectives, Mapping):
            raise TypeError(f"objectives must be a mapping from levels; got {objectives!r}")
        if not objectives:
            raise ValueError("objectives must hold one for each level; got none")
        if not isinstance(name, str):
            raise TypeError(f"name must be a str; got {name!r}")
        found = {}
        for level, objective in objectives.items():
            if not 0.0 < number("levels", level) < math.inf:
                raise ValueError(f"levels must be positive and finite; got {level}")
            if not callable(objective):
                raise TypeError(f"objectives[{level}] must be callable; got {objective!r}")
            found[float(level)] = objective
        self.objectives = found
        self.name = name

    def __call__(self, net: Network) -> Any:
        """Evaluate a pair.

        Raises:
            TypeError: It is no pair of a network and this level alone.
            ValueError: There is no objective of its level.
        """
        if not isinstance(net, ConfiguredNetwork) or set(net.values) != {self.name}:
            raise TypeError(
                f"net must be a pair of a network and {self.name!r}, and nothing else; got {net!r}"
            )
        level = number(self.name, net.values[self.name])
        if level not in self.objectives:
            known = ", ".join(f"{one:g}" for one in self.objectives)
            raise ValueError(f"{self.name} must be one of {known}; got {level:g}")
        return self.objectives[level](net.network)

    def describe(self) -> dict[str, Any]:
        """Return what the values depend on: the objectives by level."""
        described = {}
        for level, one in self.objectives.items():
            own = getattr(one, "describe", None)
            described[f"{level:g}"] = own() if callable(own) else describe_callable(one)
        return {"kind": "fidelities", "name": self.name, "objectives": described}

    def __repr__(self) -> str:
        levels = ", ".join(f"{level:g}: {one!r}" for level, one in self.objectives.items())
        return f"Fidelities({{{levels}}}, name={self.name!r})"
