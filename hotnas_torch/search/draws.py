"""Networks that a search has not seen yet: drawn from the space, by mutation, or by encodings."""

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.encodings import MemberEncoding, SlotEncoding, encoding_of

__all__ = ["Draws", "EncodingDraws"]

# Draws in a row that meet seen networks before the space is enumerated.
_SPARE_DRAWS = 256
# Larger spaces are not enumerated: it would take hours, or never end.
_MOST_LISTED = 2**20
# Mutations of one network before the walk moves on to its last mutant, and moves before it ends.
_MUTATIONS = 16
_MOVES = 8
# Draws of a network that has not been seen from one encoding, and of encodings that have one.
_DECODINGS = 24
_ENCODINGS = 256


class Draws:
    """Draw networks that are not among given ones.

    Args:
        space: What they are networks of.
        generator: Source of all randomness.
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator) -> None:
        self.space = space
        self.generator = generator

    def permutation(self, num: int) -> list[int]:
        """Draw an order of 0..num-1."""
        order: list[int] = torch.randperm(
            num, generator=self.generator, device=self.generator.device
        ).tolist()
        return order

    def sample(self, num: int, taken: set[str]) -> list[Network]:
        """Draw networks whose keys are not in `taken`, and add their keys to it.

        One at a time, so that what is drawn does not depend on how many are asked for at once.
        Fewer only when the space has no more.
        """
        found: list[Network] = []
        misses = 0
        while len(found) < num and misses < _SPARE_DRAWS:
            net = self.space.sample_one(generator=self.generator)
            key = self.space.key(net)
            if key in taken:
                misses += 1
            else:
                taken.add(key)
                found.append(net)
                misses = 0
        if len(found) < num and self.space.size_bound() > _MOST_LISTED:
            # Some networks are drawn more often than others; there are more a few edits away.
            while len(found) < num:
                mutant = self.mutate(self.space.sample_one(generator=self.generator), taken)
                if mutant is None:
                    break
                found.append(mutant)
        elif len(found) < num:
            left: dict[str, Network] = {}
            for net in self.space:
                if (key := self.space.key(net)) not in taken:
                    left.setdefault(key, net)
            keys = list(left)
            for place in self.permutation(len(left))[: num - len(found)]:
                taken.add(keys[place])
                found.append(left[keys[place]])
        return found

    def mutate(self, parent: Network, taken: set[str]) -> Network | None:
        """Draw a mutant whose key is not in `taken`, and add its key to it.

        Where the neighbourhood is used up, the walk goes on from a mutant; None when that finds
        nothing, either.
        """
        if self.space.size_bound() == 1:
            return None
        for _ in range(_MOVES):
            mutant = parent
            for _ in range(_MUTATIONS):
                mutant = self.space.mutate(parent, generator=self.generator)
                if (key := self.space.key(mutant)) not in taken:
                    taken.add(key)
                    return mutant
            parent = mutant
        return None


class EncodingDraws(Draws):
    """Draw networks by their operation distributions: what is random is uniform over the simplex.

    A random network is one of a random encoding, drawn from the flat Dirichlet distribution,
    rounded and decoded. An encoding may be drawn several times, with another network each time.

    Args:
        space: What they are networks of.
        generator: Source of all randomness.
        encoding: The map between networks and encodings; None is the space's.

    Raises:
        ValueError: The space has no operation encoding, see `encoding_of`.
    """

    def __init__(
        self,
        space: SearchSpace,
        generator: torch.Generator,
        encoding: SlotEncoding | MemberEncoding | None = None,
    ) -> None:
        super().__init__(space, generator)
        self.encoding = encoding_of(space) if encoding is None else encoding

    def sample(self, num: int, taken: set[str]) -> list[Network]:
        """Draw networks of random encodings, see `Draws.sample`."""
        found: list[Network] = []
        for _ in range(_ENCODINGS):
            if len(found) == num:
                return found
            # One at a time, as for every strategy: the batch changes nothing.
            point = self.encoding.draw(1, generator=self.generator)
            found += self.decode(point, taken, draws=1)
        return found + super().sample(num - len(found), taken)

    def decode(self, points: Tensor, taken: set[str], *, draws: int = _DECODINGS) -> list[Network]:
        """Draw a network of each encoding whose key is not in `taken`, and add its key to it.

        Encodings of which no such network is found in so many draws are left out.

        Args:
            points: (n, k), on the simplex.
            taken: Keys of networks that are not wanted.
            draws: Networks drawn per encoding at most.
        """
        found: dict[int, Network] = {}
        left = list(range(len(points)))
        for _ in range(draws):
            if not left:
                break
            nets = self.encoding.decode(points[left], generator=self.generator)
            for place, net in zip(left, nets, strict=True):
                if (key := self.space.key(net)) not in taken:
                    taken.add(key)
                    found[place] = net
            left = [place for place in left if place not in found]
        return [found[place] for place in sorted(found)]
