"""Spaces of one's own: choices by name, and one function from what was chosen to a network."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import torch

from hotnas_torch.arch import Network, OperationTree
from hotnas_torch.errors import ArchitectureError, SizeError
from hotnas_torch.spaces.base import Code, SearchSpace
from hotnas_torch.spaces.declared.block import Block, Constraint
from hotnas_torch.spaces.declared.building import as_network, called, is_module, tree_of_models
from hotnas_torch.spaces.declared.probe import Probe, own_name

__all__ = ["Choices"]

# Networks that are built to see what there is; models take a second each to be read.
_MOST_PROBED = 256
_MOST_COVERED = 2048
_MOST_MODELS = 8
# Of these, so many are built twice to see whether they are the same, and stand for all in records.
_MOST_REPEATED = 8
_MOST_DESCRIBED = 8


class Choices(SearchSpace):
    """A search space that is declared: named choices, and a function that builds a network of them.

    The string of a network is `name=option` for every choice that is made, between commas. Samples
    draw every choice uniformly among its options, those that others depend on first; a neighbour
    differs in one choice, by the option next to it where they are ordered; a mutation changes each
    of n choices with probability 1 / n, and at least one. Every combination is an architecture of
    its own, also where two build the same graph.

    What the networks of the space have in common (labels of operations, sizes of cells, widths) is
    read from some of them: from all of a space with at most 256, otherwise from 256 random ones,
    from those with the first and with the last options everywhere, and from some with each option
    that is missing; from at most 16 in all where `build` returns models. Where another network may
    have more than these, say it: `operations`, `max_nodes`, `state_scale`. With these and `tree`
    said, nothing is left to read, and only a few networks are built.

    Args:
        choices: Options by the name of each choice: a list of plain values (int, float, bool, str,
            None), a `Choice` where they are made under conditions, or a `Block` or another space,
            one of whose members is chosen.
        build: Makes what the choices stand for from a dict of them: a `Network`, a `Cell`, or a
            `torch.nn.Module`, which `from_module` reads. Choices that are not made
            are not in the dict. Equal choices must give equal networks.
        constraint: Says of such a dict whether it is allowed.
        example_inputs: What a model is called with: a tensor or a tuple, on `meta` if need be.
        name: Of the space, for records and reports.
        operations: Labels that cells carry; default: those that were found.
        tree: Operation costs; default: all kinds that were found are 2 apart, or where `build`
            returns models, the tree of what they consist of.
        max_nodes: Most nodes of a cell; default: the most that were found.
        state_scale: Divisors of the state of cells, see `SearchSpace`; default: the largest found.

    Raises:
        TypeError: An argument of the wrong kind, or `build` returned something else.
        ValueError: What `Block` refuses, or the name of a space of the library.
        ArchitectureError: `build` raised, or built two different networks of the same choices; the
            message names them.

    Example:
        >>> from hotnas_torch import Cell
        >>> def build(choices):
        ...     cell = Cell(("input", choices["operation"], "output"), ((0, 1), (1, 2)))
        ...     num = choices["depth"]
        ...     return Network.chain((cell,) * num, (choices["width"],) * num, (1,) * num)
        >>> space = Choices(
        ...     {"operation": ["conv", "pool"], "depth": [1, 2, 3], "width": [16, 32, 64]}, build
        ... )
        >>> net = space.from_string("operation=pool,depth=1,width=16")
        >>> space.size(), space.neighbors(net)[1].spec
        (18, 'operation=pool,depth=2,width=16')
    """

    def __init__(
        self,
        choices: Mapping[str, Any],
        build: Callable[[dict[str, Any]], Any],
        *,
        constraint: Constraint | None = None,
        example_inputs: Any = None,
        name: str = "choices",
        operations: tuple[str, ...] | None = None,
        tree: OperationTree | None = None,
        max_nodes: int | None = None,
        state_scale: tuple[float, float] | None = None,
    ) -> None:
        if not callable(build):
            raise TypeError(f"build must be a function of a dict of choices; got {build!r}")
        self.name = own_name(name)
        self._block = Block(choices, constraint=constraint)
        self._build = build
        self._example_inputs = example_inputs
        text = self._block.format(self._block.some_code())
        is_model = is_module(
            called("build", build, self._block.chosen(self._block.some_code()), text)
        )
        said = None not in (operations, tree, max_nodes, state_scale)
        self._probed = self._some_networks(is_model, said=said)
        probe = Probe(
            list(self._probed.values()),
            operations=operations,
            tree=tree,
            default_tree=tree_of_models() if is_model else None,
            max_nodes=max_nodes,
            state_scale=state_scale,
        )
        self.operations = probe.operations
        self.max_nodes = probe.max_nodes
        self.state_scale = probe.state_scale
        self.nests_cells = probe.nests_cells
        self._probe = probe
        super().__init__(self._block.columns, probe.operations, tree=probe.tree)

    # --- choices ----------------------------------------------------------------------------------

    def from_choices(self, choices: Mapping[str, Any]) -> Network:
        """Build a network from what is chosen by name.

        Args:
            choices: An option for every choice that is made, and for no other; a dict for a block,
                a network or string for a space.

        Raises:
            TypeError: It is no mapping.
            ArchitectureError: A choice is missing or not made, or an option is unknown.
        """
        return self.network_of(self._block.from_plain(choices))

    def to_choices(self, net: Network) -> dict[str, Any]:
        """Return what was chosen by name, ready for `json.dumps`; the inverse of `from_choices`.

        Raises:
            ArchitectureError: `net` is not of this space.
        """
        return self._block.to_plain(self.code_of(net))

    # --- as every space ---------------------------------------------------------------------------

    def build_network(self, code: Code) -> Network:
        net = self._probed.get(code)
        if net is None:
            net = self._fresh(code)
            self._probe.check(net, net.spec)
        return net

    def _fresh(self, code: Code) -> Network:
        text = self._block.format(code)
        built = called("build", self._build, self._block.chosen(code), text)
        network = as_network("build", built, self._example_inputs, text)
        return dataclasses.replace(network, spec=text)

    def _some_networks(self, is_model: bool, *, said: bool) -> dict[Code, Network]:
        """Return networks that show what the space holds, by their codes."""
        block = self._block
        most, again = (_MOST_MODELS, 1) if is_model else (_MOST_PROBED, _MOST_REPEATED)
        if said:
            most = min(most, _MOST_DESCRIBED)
        codes = [block.some_code(), block.last_code()]
        if block.bound() <= most:
            codes += block.all_codes()
        else:
            generator = torch.Generator().manual_seed(0)
            codes += [block.draw_code(generator) for _ in range(most - len(codes))]
            if not said:
                covering = block.covering_codes(codes, generator)
                codes += itertools.islice(covering, most if is_model else _MOST_COVERED)
        found = {code: self._fresh(code) for code in dict.fromkeys(codes)}
        for code in itertools.islice(found, again):
            self._check_same(code, found[code])
        return found

    def _check_same(self, code: Code, known: Network) -> None:
        if self._fresh(code) != known:
            raise ArchitectureError(
                "build must give equal networks for equal choices; it gave two different ones for "
                f"{known.spec}"
            )

    def _find_code(self, net: Network) -> Code | None:
        code = super()._find_code(net)
        if code is None and net.spec in self._known_codes:
            # A network with a string of this space and other cells: somebody else's, or chance.
            known = self._known_codes[net.spec]
            self._check_same(known, self.network_of(known))
        return code

    def fault_of(self, code: Code) -> str | None:
        return self._block.fault_of(code)

    def all_codes(self) -> Iterator[Code]:
        return self._block.all_codes()

    def draw_codes(self, num: int, generator: torch.Generator) -> list[Code]:
        return [self._block.draw_code(generator) for _ in range(num)]

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        return self._block.neighbor_codes(code)

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        return self._block.mutate_code(code, generator)

    def format_code(self, code: Code) -> str:
        return self._block.format(code)

    def parse_code(self, text: str) -> Code:
        try:
            return self._block.parse(text)
        except ArchitectureError as error:
            raise ArchitectureError(f"{text!r} is no {self.name} string: {error}") from None

    def size(self) -> int:
        """Return the number of combinations.

        Raises:
            SizeError: A constraint leaves too many to look at, see `size_bound`.
        """
        if self._counted is None:
            self._counted = self._block.count()
        return self._counted

    def size_bound(self) -> int:
        try:
            return self.size()
        except SizeError:
            return self._block.bound()

    def description(self) -> dict[str, str]:
        """Return name, `repr`, and digests of the declaration and of some networks."""
        declared = json.dumps(self._block.declaration())
        shown = itertools.islice(self._probed.values(), _MOST_DESCRIBED)
        networks = json.dumps([[net.spec, net.key] for net in shown])
        return super().description() | {
            "choices": sha256(declared.encode()).hexdigest(),
            "networks": sha256(networks.encode()).hexdigest(),
        }

    def __repr__(self) -> str:
        return f"Choices({self.name!r}, {self._block.num_choices} choices)"
