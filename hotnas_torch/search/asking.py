"""What all searches share that ask and observe: one source of randomness, and a state as JSON."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arguments import random_generator
from hotnas_torch.search.randomness import decode_state, describe_state

__all__ = ["AskTell", "read_state", "refuse_difference"]

_STATE_VERSION = 1


class AskTell(ABC):
    """A search that proposes and observes; everything random comes from one generator.

    A question that ends with an error was not asked: the generator is put back. A state holds all
    that a continuation needs, and is refused by a search of another kind, with other settings or in
    another space.

    Args:
        generator: Source of all randomness.

    Raises:
        TypeError: `generator` is no generator.
        ValueError: It is missing.
    """

    name: str
    """What the search is called in records and on the command line."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self._generator = random_generator(generator)
        self._seed = self._generator.initial_seed()

    # --- what a search defines --------------------------------------------------------------------

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the search's own settings, ready for `json.dumps`."""

    @abstractmethod
    def _space_description(self) -> dict[str, Any]:
        """Return what tells the space from others, ready for `json.dumps`."""

    @abstractmethod
    def _memory(self) -> dict[str, Any]:
        """Return what was asked and observed, ready for `json.dumps`."""

    @abstractmethod
    def _remembered(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes that hold what `_memory` wrote; change nothing."""

    # --- asking -----------------------------------------------------------------------------------

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Put the generator back when the question fails: the next must not depend on it."""
        before = self._generator.get_state()
        try:
            # Models are fitted by gradients, whatever the caller is in the middle of.
            with torch.inference_mode(False), torch.enable_grad():
                yield
        except BaseException:
            self._generator.set_state(before)
            raise

    def diverge(self, stream: int) -> None:
        """Draw from another stream, so that processes at one search do not all ask the same.

        Args:
            stream: 0 is the stream of the seed itself.
        """
        if stream:
            text = f"{self._seed} {stream}".encode()
            digest = hashlib.blake2b(text, digest_size=8).digest()
            self._generator.manual_seed(int.from_bytes(digest, "big") >> 1)

    # --- state ------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Return what proposals depend on besides what is observed, ready for `json.dumps`."""
        return {"strategy": self.name, "seed": self._seed, **self.settings()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a continuation needs, ready for `json.dumps`.

        `json` writes a float so that it reads the same bits back; NaN is written as null.
        """
        return {
            "version": _STATE_VERSION,
            "config": self.config(),
            "space": self._space_description(),
            "generator": describe_state(self._generator),
            **self._memory(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken: the proposals from there on are the same.

        The seed is taken over from the state. Nothing changes when an error is raised.

        Args:
            state: What `state_dict` of an equally configured search returned.

        Raises:
            TypeError: `state` is not a mapping.
            ValueError: It is incomplete, of a newer version, of another search, of other settings
                or of another space; the message names the difference.
        """
        seed, generator_state = read_state(
            state,
            newest=_STATE_VERSION,
            config=self.config(),
            space=self._space_description(),
            generator=self._generator,
        )
        try:
            remembered = self._remembered(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"state must be one that state_dict returned; got a damaged one: {error!r}"
            ) from error
        self._generator.set_state(generator_state)
        self._seed = seed
        for attribute, value in remembered.items():
            setattr(self, attribute, value)


def read_state(
    state: Mapping[str, Any],
    *,
    newest: int,
    config: Mapping[str, Any],
    space: dict[str, Any],
    generator: torch.Generator,
) -> tuple[int, Tensor]:
    """Read what the states of all searches have in common, and refuse those of others.

    Args:
        state: With the entries `version`, `config`, `space` and `generator`.
        newest: Version that the caller writes.
        config: Of the search that reads; its `seed` may differ.
        space: Description of its space.
        generator: Its generator, which is left as it is.

    Returns:
        The seed of the state, and what to give to `generator.set_state`.

    Raises:
        TypeError: `state` is not a mapping.
        ValueError: It is incomplete, of a newer version, of another strategy, of other settings or
            of another space; the message names the difference.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping; got {type(state).__name__}")
    version = state.get("version")
    if type(version) is not int or not 1 <= version <= newest:
        raise ValueError(
            f"state must be of version {newest} or older; got version {version!r} "
            "(it comes from a newer hotnas_torch, or is no strategy's state)"
        )
    try:
        found = dict(state["config"])
        seed = int(found.pop("seed"))
        described = dict(state["space"])
        randomness = dict(state["generator"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"state must be one that state_dict returned; got a damaged one: {error!r}"
        ) from error
    own = {name: value for name, value in config.items() if name != "seed"}
    refuse_difference("state", found, own, "strategy")
    refuse_difference("state", described, space, "space")
    return seed, decode_state(randomness, generator)


def refuse_difference(what: str, found: dict[str, Any], expected: dict[str, Any], of: str) -> None:
    """Raise a ValueError that names the first entry in which two descriptions differ."""
    # Through JSON, as one of them came from there.
    expected = json.loads(json.dumps(expected))
    found = json.loads(json.dumps(found))
    for name in [*expected, *found]:
        # Compared as texts: NaN is equal to itself there.
        here, there = (json.dumps(part.get(name), sort_keys=True) for part in (expected, found))
        if name not in found or name not in expected or here != there:
            raise ValueError(
                f"{what} belongs to another {of}: its {name!r} is {found.get(name)!r}, here it is "
                f"{expected.get(name)!r}"
            )
