# Over 400 lines: one space, its strings and its pruning.
"""NAS-Bench-101: one cell of at most seven vertices and nine edges, repeated nine times."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces.base import Code, SearchSpace, draw_integers, first_row
from hotnas_torch.spaces.families import family_tree

__all__ = ["NASBench101"]

INPUT = "input"
OUTPUT = "output"
OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")

MAX_VERTICES = 7
MAX_EDGES = 9
_MAX_INNER = MAX_VERTICES - 2
_LAST = MAX_VERTICES - 1

_STEM_CHANNELS = 128
_NUM_STACKS = 3
_CELLS_PER_STACK = 3

# A code describes the cell in a frame of seven vertices: k inner vertices at 1..k, the output
# at 6. It holds the frame's upper triangle row by row, then an operation per inner vertex.
_PAIRS = tuple(itertools.combinations(range(MAX_VERTICES), 2))
_ROWS, _COLUMNS = torch.tensor(_PAIRS).unbind(dim=1)
_ABSENT = len(OPERATIONS)

# Draws made at once when valid cells are found by rejection.
_MUTATION_BATCH = 32

Edge = tuple[int, int]


class NASBench101(SearchSpace):
    """The cell space of NAS-Bench-101, 423,624 cells.

    A cell is a directed acyclic graph of 2 to 7 vertices and at most 9 edges; inner vertices carry
    one of three operations. Vertices that are on no path from input to output are dropped, as the
    benchmark does, and isomorphic cells count as one. The network has a 128-channel stem and three
    stacks of three cells with 128, 256 and 512 channels; between stacks a max-pooling, which is no
    cell, halves the resolution. Resolution counts from the stem's output.

    The string is `<vertices>,<adjacency>,<operations>`: the number of vertices, the upper
    triangle of the adjacency matrix row by row, and one digit per inner vertex (0
    `conv3x3-bn-relu`, 1 `conv1x1-bn-relu`, 2 `maxpool3x3`); vertex 0 is the input, the last
    one the output. It keeps the numbering of the vertices, so isomorphic cells may have different
    strings and the same `key`.

    Args:
        tree: Operation costs; default: convolutions 0.1 apart, all else 2.

    Reference: Ying et al., NAS-Bench-101: Towards Reproducible Neural Architecture Search, ICML
        2019.

    Example:
        >>> space = NASBench101()
        >>> net = space.from_string("4,110011,02")
        >>> net.cells[0].ops
        ('input', 'conv3x3-bn-relu', 'maxpool3x3', 'output')
        >>> space.key(net) == space.key(space.from_string("4,110011,20"))
        True
    """

    name = "nasbench101"
    operations = OPERATIONS
    max_nodes = MAX_VERTICES
    state_scale = (2.0, 2.0)
    repeats_one_cell = True

    def __init__(self, *, tree: OperationTree | None = None) -> None:
        convolutions = dict.fromkeys(OPERATIONS[:2])
        vertices = range(1, _LAST)
        super().__init__(
            {f"edge {i}->{j}": 2 for i, j in _PAIRS}
            | {f"operation of vertex {vertex}": len(OPERATIONS) + 1 for vertex in vertices},
            (INPUT, *OPERATIONS, OUTPUT),
            tree=tree,
            default_tree=family_tree(
                {INPUT: None, "conv": convolutions, OPERATIONS[2]: None, OUTPUT: None}
            ),
        )
        stacks = [stack for stack in range(_NUM_STACKS) for _ in range(_CELLS_PER_STACK)]
        self._channels = tuple(_STEM_CHANNELS * 2**stack for stack in stacks)
        self._downsampling = tuple(2**stack for stack in stacks)

    def size(self) -> int:
        """Return the number of cells up to isomorphism, counted from the definition.

        Complexity: a fraction of a second, once per process.

        Reference: Burnside's lemma over the automorphisms of each graph of inner vertices.
        """
        return _count_cells()

    def from_matrix(
        self, adjacency: Tensor | Sequence[Sequence[int]], ops: Sequence[str]
    ) -> Network:
        """Build the network of a NAS-Bench-101 model specification.

        Args:
            adjacency: (v, v) matrix of 0 and 1, upper triangular, 2 <= v <= 7: nested sequences, a
                tensor, or anything that `torch.as_tensor` takes.
            ops: v labels: `"input"`, the operations of the inner vertices, `"output"`.

        Returns:
            The network of the pruned cell: vertices on no path from input to output are dropped.

        Raises:
            ArchitectureError: Wrong shape or values, input and output not connected, or more than 9
                edges after pruning.
        """
        matrix = torch.as_tensor(adjacency)
        names = tuple(ops)
        size = len(names)
        if matrix.shape != (size, size) or not 2 <= size <= MAX_VERTICES:
            raise ArchitectureError(
                f"adjacency must be (v, v), one row per label in ops, 2 <= v <= {MAX_VERTICES}; "
                f"got shape {tuple(matrix.shape)} and {size} labels"
            )
        for vertex, label in enumerate(names):
            allowed = {0: (INPUT,), size - 1: (OUTPUT,)}.get(vertex, OPERATIONS)
            if label not in allowed:
                raise ArchitectureError(
                    f"ops[{vertex}] must be {' or '.join(map(repr, allowed))}; got {label!r}"
                )
        wrong = ((matrix != 0) & (matrix != 1)) | ((matrix != 0) & ~_upper(matrix))
        if wrong.any():
            i, j = wrong.nonzero()[0].tolist()
            raise ArchitectureError(
                f"adjacency[{i}][{j}] must be {'0 or 1' if i < j else '0 (upper triangular)'}; got "
                f"{matrix[i, j].item()}"
            )
        inner = [OPERATIONS.index(label) for label in names[1:-1]]
        frame = torch.zeros(1, MAX_VERTICES, MAX_VERTICES, dtype=torch.bool)
        place = torch.tensor([*range(size - 1), _LAST])
        frame[0, place[:, None], place[None, :]] = matrix.bool().cpu()
        operations = torch.tensor([[*inner, *[0] * (_MAX_INNER - len(inner))]])
        rows, valid = _prune(frame, operations)
        if not valid.item():
            num_edges = int(rows[0, : len(_PAIRS)].sum().item())
            fault = (
                f"has {num_edges} edges after pruning, at most {MAX_EDGES} are allowed"
                if num_edges
                else "has no path from input to output"
            )
            raise ArchitectureError(f"adjacency {matrix.int().tolist()} {fault}")
        return self.network_of(tuple(rows[0].tolist()))

    def to_matrix(self, net: Network) -> tuple[Tensor, tuple[str, ...]]:
        """Return the adjacency matrix, (v, v) int64, and the v labels of the pruned cell.

        Raises:
            ArchitectureError: `net` is not of this space.
        """
        self.code_of(net)
        cell = net.cells[0]
        return cell.adjacency().long(), cell.ops

    def canonical_code(self, code: Code) -> Code:
        """Return the code whose cell is the canonical form of this one's."""
        return _code_of_cell(self.shared_cell(code, self._make_cell).canonical())

    def all_codes(self) -> Iterator[Code]:
        return _all_codes()

    def parse_code(self, text: str) -> Code:
        first = text.find(",")
        second = text.find(",", first + 1)
        if first < 0 or second < 0:
            raise self.malformed(text, len(text), "'<vertices>,<adjacency>,<operations>'")
        if text[:first] not in map(str, range(2, MAX_VERTICES + 1)):
            raise self.malformed(text, 0, f"a number of vertices in 2..{MAX_VERTICES}")
        size = int(text[:first])
        bits, digits = text[first + 1 : second], text[second + 1 :]
        parts = (
            (first + 1, bits, "01", size * (size - 1) // 2, "adjacency entry 0 or 1"),
            (second + 1, digits, "012", size - 2, "operation 0, 1 or 2"),
        )
        for start, part, allowed, length, what in parts:
            for position, digit in enumerate(part):
                if digit not in allowed or position >= length:
                    raise self.malformed(text, start + position, f"{length} times an {what}")
            if len(part) < length:
                raise self.malformed(text, start + len(part), f"{length} times an {what}")
        place = [*range(size - 1), _LAST]
        pairs = itertools.combinations(place, 2)
        edges = {pair for pair, bit in zip(pairs, bits, strict=True) if bit == "1"}
        self._check_graph(text, place, edges)
        return _code(edges, [int(digit) for digit in digits])

    def _check_graph(self, text: str, place: Sequence[int], edges: set[Edge]) -> None:
        forward = {0}
        for vertex in place:
            if any((other, vertex) in edges for other in forward):
                forward.add(vertex)
        backward = {_LAST}
        for vertex in reversed(place):
            if any((vertex, other) in edges for other in backward):
                backward.add(vertex)
        for number, vertex in enumerate(place):
            if vertex not in forward or vertex not in backward:
                raise ArchitectureError(
                    f"{text!r} is no {self.name} string: vertex {number} is on no path from input "
                    "to output (from_matrix drops such vertices)"
                )
        if len(edges) > MAX_EDGES:
            raise ArchitectureError(
                f"{text!r} is no {self.name} string: it has {len(edges)} edges, at most "
                f"{MAX_EDGES} are allowed"
            )

    def format_code(self, code: Code) -> str:
        inner = [operation for operation in code[len(_PAIRS) :] if operation != _ABSENT]
        absent = range(len(inner) + 1, _LAST)
        bits = "".join(
            str(bit)
            for (i, j), bit in zip(_PAIRS, code[: len(_PAIRS)], strict=True)
            if i not in absent and j not in absent
        )
        return f"{len(inner) + 2},{bits},{''.join(map(str, inner))}"

    def build_network(self, code: Code) -> Network:
        return Network(
            (self.shared_cell(code, self._make_cell),) * (_NUM_STACKS * _CELLS_PER_STACK),
            self._channels,
            self._downsampling,
            input_channels=_STEM_CHANNELS,
            spec=self.format_code(code),
        )

    def _make_cell(self, key: Any) -> Cell:
        inner = [OPERATIONS[operation] for operation in key[len(_PAIRS) :] if operation != _ABSENT]
        output = len(inner) + 1
        return Cell(
            (INPUT, *inner, OUTPUT),
            tuple(
                (i, output if j == _LAST else j)
                for (i, j), bit in zip(_PAIRS, key[: len(_PAIRS)], strict=True)
                if bit
            ),
        )

    def draw_codes(self, num: int, generator: torch.Generator) -> list[Code]:
        # As the benchmark does: a random upper triangle with random operations, pruned, until it
        # is valid. That is uniform over matrices, not over isomorphism classes.
        found: list[list[int]] = []
        while len(found) < num:
            batch = 4 * (num - len(found)) + 16
            bits = draw_integers(2, (batch, len(_PAIRS)), generator).bool()
            operations = draw_integers(len(OPERATIONS), (batch, _MAX_INNER), generator)
            rows, valid = _prune(_frames(bits), operations)
            found += rows[valid].tolist()
        return [tuple(row) for row in found[:num]]

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        # NAS-BOWL's operator on seven vertices: every edge flips with probability 1/7, every
        # operation is drawn anew with probability 1/5. A smaller cell gets unconnected vertices
        # first, anywhere in the order, so that it can grow.
        batch = _MUTATION_BATCH
        bits = torch.tensor([code[: len(_PAIRS)]]).bool().expand(batch, -1)
        inner = torch.tensor([code[len(_PAIRS) :]]).expand(batch, -1)
        order = _spread(inner != _ABSENT, generator)
        frames = _frames(bits)[
            torch.arange(batch)[:, None, None], order[:, :, None], order[:, None]
        ]
        operations = inner.gather(1, order[:, 1:-1] - 1)
        while True:
            flips = draw_integers(MAX_VERTICES, (batch, len(_PAIRS)), generator) == 0
            fresh = draw_integers(len(OPERATIONS), (batch, _MAX_INNER), generator)
            renewed = draw_integers(_MAX_INNER, (batch, _MAX_INNER), generator) == 0
            changed = torch.where(renewed | (operations == _ABSENT), fresh, operations)
            rows, valid = _prune(frames ^ _frames(flips), changed)
            if valid.any():
                return tuple(rows[valid][0].tolist())

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        """Yield the cells one edit away, whatever the numbering.

        An edit removes an edge, adds one that closes no cycle, changes an operation, or inserts a
        vertex with one edge in and one out. The last is a single flip, too, in the benchmark's
        unpruned matrices, where the vertex may hang on one end unseen.
        """
        cell = self.shared_cell(code, self._make_cell)
        ops, edges, last = list(cell.ops), set(cell.edges), cell.num_nodes - 1
        reachable = {(node, node) for node in range(last + 1)}
        for i, j in reversed(cell.edges):
            reachable |= {(i, target) for source, target in reachable if source == j}
        addable = [
            (i, j)
            for i, j in itertools.product(range(last), range(1, last + 1))
            if (j, i) not in reachable
        ]
        edited: list[tuple[list[str], set[Edge]]] = [(ops, edges - {edge}) for edge in cell.edges]
        edited += [(ops, edges | {edge}) for edge in addable if edge not in edges]
        for node, operation in itertools.product(range(1, last), OPERATIONS):
            if operation != ops[node]:
                edited.append(([*ops[:node], operation, *ops[node + 1 :]], edges))
        if len(ops) < MAX_VERTICES:
            # The new vertex takes the output's number; the output moves up by one.
            moved = {(i, j + (j == last)) for i, j in edges}
            for (i, j), operation in itertools.product(addable, OPERATIONS):
                inserted = {(i, last), (last, j + (j == last))}
                edited.append(([*ops[:last], operation, OUTPUT], moved | inserted))
        for labels, pairs in edited:
            result = Cell.from_edges(labels, pairs, prune=True)
            if 0 < len(result.edges) <= MAX_EDGES:
                yield _code_of_cell(result)

    def find_fault(self, rows: Tensor) -> tuple[int, str] | None:
        if fault := super().find_fault(rows):
            return fault
        bits, operations = rows[:, : len(_PAIRS)].bool(), rows[:, len(_PAIRS) :]
        present = operations != _ABSENT
        frames = _frames(bits)
        touched = (frames.any(dim=1) | frames.any(dim=2))[:, 1:-1]
        pruned, _ = _prune(frames, operations)
        return (
            first_row(
                (present[:, 1:] > present[:, :-1]).any(dim=1),
                f"a vertex follows an absent one (operation {_ABSENT}); absent vertices come last",
            )
            or first_row(
                (touched & ~present).any(dim=1), "a vertex without an operation has an edge"
            )
            or first_row((pruned != rows).any(dim=1), "a vertex is on no path from input to output")
            or first_row(bits.sum(dim=1) == 0, "input and output are not connected")
            or first_row(bits.sum(dim=1) > MAX_EDGES, f"more than {MAX_EDGES} edges")
        )


def _upper(matrix: Tensor) -> Tensor:
    return torch.ones(matrix.shape, dtype=torch.bool, device=matrix.device).triu(1)


def _frames(bits: Tensor) -> Tensor:
    """Turn upper triangles (B, 21) bool into adjacency matrices (B, 7, 7) bool."""
    frames = torch.zeros(len(bits), MAX_VERTICES, MAX_VERTICES, dtype=torch.bool)
    frames[:, _ROWS, _COLUMNS] = bits
    return frames


def _prune(frames: Tensor, operations: Tensor) -> tuple[Tensor, Tensor]:
    """Drop vertices on no path from input to output and move the others together.

    Args:
        frames: (B, 7, 7) bool, upper triangular.
        operations: (B, 5) int64 of the inner vertices.

    Returns:
        Codes (B, 26) int64, without any edge where input and output are not connected, and which of
        them are cells of the space (B,) bool.
    """
    forward = torch.zeros(len(frames), MAX_VERTICES, dtype=torch.bool)
    backward = forward.clone()
    forward[:, 0] = True
    backward[:, _LAST] = True
    for vertex in range(1, MAX_VERTICES):
        forward[:, vertex] = (forward & frames[:, :, vertex]).any(dim=1)
        backward[:, _LAST - vertex] = (backward & frames[:, _LAST - vertex]).any(dim=1)
    kept = forward & backward
    edges = frames & kept[:, :, None] & kept[:, None, :]
    inner = (~kept[:, 1:-1]).to(torch.uint8).argsort(dim=1, stable=True) + 1
    ends = inner.new_tensor((0, _LAST)).expand(len(frames), -1)
    order = torch.cat((ends[:, :1], inner, ends[:, 1:]), dim=1)
    edges = edges.gather(1, order[:, :, None].expand_as(edges))
    edges = edges.gather(2, order[:, None, :].expand_as(edges))
    names = operations.masked_fill(~kept[:, 1:-1], _ABSENT).gather(1, inner - 1)
    bits = edges[:, _ROWS, _COLUMNS].long()
    num_edges = bits.sum(dim=1)
    return torch.cat((bits, names), dim=1), (num_edges > 0) & (num_edges <= MAX_EDGES)


def _spread(present: Tensor, generator: torch.Generator) -> Tensor:
    """Draw, per row, where in the frame the present inner vertices go, their order kept.

    `present` is (B, 5) bool, True before False. The result, (B, 7) int64, is the vertex of the
    code that stands at each place of the new frame.
    """
    keys = torch.rand(present.shape, generator=generator, device=generator.device).cpu()
    taken = torch.zeros_like(present)
    # The places with the k smallest keys are taken, k = number of present vertices.
    taken.scatter_(1, keys.argsort(dim=1), present)
    ranks = torch.where(
        taken, taken.cumsum(dim=1), present.sum(dim=1, keepdim=True) + (~taken).cumsum(dim=1)
    )
    ends = ranks.new_tensor((0, _LAST)).expand(len(present), -1)
    return torch.cat((ends[:, :1], ranks, ends[:, 1:]), dim=1)


def _code(edges: set[Edge], operations: Sequence[int]) -> Code:
    absent = (_ABSENT,) * (_MAX_INNER - len(operations))
    return (*(int(pair in edges) for pair in _PAIRS), *operations, *absent)


def _code_of_cell(cell: Cell) -> Code:
    last = cell.num_nodes - 1
    edges = {(i, _LAST if j == last else j) for i, j in cell.edges}
    return _code(edges, [OPERATIONS.index(label) for label in cell.ops[1:-1]])


@dataclass(frozen=True, slots=True)
class _InnerGraph:
    """An acyclic graph on the inner vertices of a cell, up to isomorphism.

    A cell is such a graph with, per vertex, an operation, whether the input leads to it and whether
    it leads to the output, and perhaps an edge from input to output. It is valid exactly when the
    input leads to every source and every sink leads to the output.
    """

    num_vertices: int
    edges: tuple[Edge, ...]
    automorphisms: tuple[tuple[int, ...], ...]

    def ends(self, vertex: int) -> tuple[bool, bool]:
        """Whether the vertex is a source and whether it is a sink."""
        return (
            all(j != vertex for _, j in self.edges),
            all(i != vertex for i, _ in self.edges),
        )


@cache
def _inner_graphs() -> tuple[_InnerGraph, ...]:
    """List all acyclic graphs on at most 5 vertices once, fewer vertices first."""
    graphs = []
    for size in range(_MAX_INNER + 1):
        pairs = list(itertools.combinations(range(size), 2))
        permutations = list(itertools.permutations(range(size)))
        seen: set[frozenset[Edge]] = set()
        for present in itertools.product((False, True), repeat=len(pairs)):
            edges = frozenset(itertools.compress(pairs, present))
            if edges in seen:
                continue
            automorphisms = []
            for renumbering in permutations:
                image = frozenset((renumbering[i], renumbering[j]) for i, j in edges)
                seen.add(image)
                if image == edges:
                    automorphisms.append(renumbering)
            graphs.append(_InnerGraph(size, tuple(sorted(edges)), tuple(automorphisms)))
    return tuple(graphs)


@cache
def _count_cells() -> int:
    total = 0
    for graph in _inner_graphs():
        if graph.num_vertices == 0:
            total += 1  # input -> output
            continue
        fixed: Counter[int] = Counter()  # colourings that a symmetry fixes, by number of edges
        for symmetry in graph.automorphisms:
            counts = Counter({len(graph.edges): 1, len(graph.edges) + 1: 1})
            for vertex, length in _cycles(symmetry):
                # All vertices of a cycle carry the same operation and the same outer edges.
                optional = sum(not end for end in graph.ends(vertex))
                forced = 2 - optional
                step = {
                    length * (forced + extra): len(OPERATIONS) * ways
                    for extra, ways in enumerate(((1,), (1, 1), (1, 2, 1))[optional])
                }
                product: Counter[int] = Counter()
                for (edges, ways), (more, choices) in itertools.product(
                    counts.items(), step.items()
                ):
                    product[edges + more] += ways * choices
                counts = product
            fixed += counts
        orbits = sum(ways for edges, ways in fixed.items() if edges <= MAX_EDGES)
        total += orbits // len(graph.automorphisms)
    return total


def _cycles(permutation: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the smallest element and the length of each cycle."""
    left = set(range(len(permutation)))
    while left:
        start = vertex = min(left)
        length = 0
        while vertex in left:
            left.remove(vertex)
            vertex = permutation[vertex]
            length += 1
        yield start, length


def _all_codes() -> Iterator[Code]:
    """Yield one code per isomorphism class, fewer vertices first."""
    for graph in _inner_graphs():
        size = graph.num_vertices
        edges = {(i + 1, j + 1) for i, j in graph.edges}
        outer_choices = [
            [
                (from_input, to_output)
                for from_input, to_output in itertools.product((0, 1), repeat=2)
                if from_input >= source and to_output >= sink
            ]
            for source, sink in map(graph.ends, range(size))
        ]
        symmetries = [
            symmetry for symmetry in graph.automorphisms if symmetry != tuple(range(size))
        ]
        directs = (0, 1) if size else (1,)
        for direct, outer in itertools.product(directs, itertools.product(*outer_choices)):
            if len(edges) + direct + sum(map(sum, outer)) > MAX_EDGES:
                continue
            chosen = edges | {(0, v + 1) for v in range(size) if outer[v][0]}
            chosen |= {(v + 1, _LAST) for v in range(size) if outer[v][1]}
            if direct:
                chosen.add((0, _LAST))
            for operations in itertools.product(range(len(OPERATIONS)), repeat=size):
                colours = [(*outer[v], operations[v]) for v in range(size)]
                # The smallest colouring of an orbit stands for it.
                if all(colours <= [colours[v] for v in symmetry] for symmetry in symmetries):
                    yield _code(chosen, operations)
