"""Spaces of ConfigSpace as hyperparameters beside an architecture."""

import math
from typing import Any

from hotnas_torch.arguments import kind, shown
from hotnas_torch.spaces import (
    Categorical,
    Float,
    Hyperparameter,
    Integer,
    Joint,
    Log,
    Ordered,
    SearchSpace,
)

__all__ = ["hyperparameters", "joint"]


def hyperparameters(space: Any) -> dict[str, Hyperparameter]:
    """Return the hyperparameters of a `ConfigSpace.ConfigurationSpace` by name.

    Uniform floats become `Float` or `Log`, uniform integers `Integer`, ordinal ones `Ordered`, and
    categorical ones `Categorical`. Defaults play no part.

    Args:
        space: The configuration space.

    Raises:
        ImportError: ConfigSpace is not installed.
        TypeError: `space` is no ConfigurationSpace.
        ValueError: It has conditions or forbidden clauses, or a hyperparameter with a prior, with
            weights, with one value only or of another kind; the message names it.

    Example:
        >>> from ConfigSpace import ConfigurationSpace
        >>> hyperparameters(ConfigurationSpace({"optimizer": ["sgd", "adam"]}))
        {'optimizer': Categorical(options=('sgd', 'adam'))}
    """
    try:
        import ConfigSpace
    except ImportError as error:
        raise ImportError(
            "reading a ConfigurationSpace needs ConfigSpace (pip install "
            f"'hotnas-torch[configspace]'): {error}"
        ) from error
    kind("space", space, ConfigSpace.ConfigurationSpace)
    for what, found in (("conditions", space.conditions), ("forbidden", space.forbidden_clauses)):
        if found:
            raise ValueError(
                f"space must have no {'forbidden clauses' if what == 'forbidden' else what}; got "
                f"{found[0]} (leave such hyperparameters out, and choose them in the objective)"
            )
    return {name: _converted(ConfigSpace, name, space[name]) for name in space}


def joint(networks: SearchSpace, space: Any) -> Joint:
    """Return the pairs of networks and configurations.

    Args:
        networks: Space of the networks.
        space: A `ConfigSpace.ConfigurationSpace`.

    Raises:
        ImportError, TypeError, ValueError: As `hyperparameters` and `spaces.Joint`.
    """
    return Joint(networks, hyperparameters(space))


def _converted(ConfigSpace: Any, name: str, one: Any) -> Hyperparameter:
    match type(one):
        case ConfigSpace.UniformFloatHyperparameter:
            return (Log if one.log else Float)(float(one.lower), float(one.upper))
        case ConfigSpace.UniformIntegerHyperparameter:
            return Integer(int(one.lower), int(one.upper), log=bool(one.log))
        case ConfigSpace.OrdinalHyperparameter:
            return Ordered(tuple(one.sequence))
        case ConfigSpace.CategoricalHyperparameter:
            weights = [1.0] if one.weights is None else [float(each) for each in one.weights]
            if not math.isclose(min(weights), max(weights)):
                raise ValueError(
                    f"space[{name!r}] must have equal weights, as all options are equally likely "
                    f"here; got {weights} (leave the weights out)"
                )
            return Categorical(tuple(one.choices))
        case ConfigSpace.Constant:
            raise ValueError(
                f"space[{name!r}] must have more than one value; got the constant "
                f"{shown(one.value)} (leave it out, and use it in the objective)"
            )
    raise ValueError(
        f"space[{name!r}] must be uniform, ordinal or categorical; got {type(one).__name__} (a "
        "prior would be ignored: use a uniform range)"
    )
