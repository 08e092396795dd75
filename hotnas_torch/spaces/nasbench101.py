"""NAS-Bench-101: one cell of at most seven vertices and nine edges, repeated nine times."""

import itertools
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from hotnas_torch.arch import Network, OperationTree
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces.base import Code, SearchSpace, draw_integers, first_row
from hotnas_torch.spaces.cell_graphs import CellGraphs
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

_GRAPHS = CellGraphs(OPERATIONS, MAX_VERTICES, MAX_EDGES)
_PAIRS = _GRAPHS.pairs
_ROWS, _COLUMNS = torch.tensor(_PAIRS).unbind(dim=1)
_ABSENT = _GRAPHS.absent

# Draws made at once when valid cells are found by rejection.
_MUTATION_BATCH = 32


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
    operation_columns = _GRAPHS.operation_columns

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
        return _count()

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
        return _GRAPHS.code_of_cell(self.shared_cell(code, _GRAPHS.cell_of_code).canonical())

    def all_codes(self) -> Iterator[Code]:
        return _GRAPHS.all_codes()

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
        return _GRAPHS.code(edges, [int(digit) for digit in digits])

    def _check_graph(self, text: str, place: Sequence[int], edges: set[tuple[int, int]]) -> None:
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
            (self.shared_cell(code, _GRAPHS.cell_of_code),) * (_NUM_STACKS * _CELLS_PER_STACK),
            self._channels,
            self._downsampling,
            input_channels=_STEM_CHANNELS,
            spec=self.format_code(code),
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
        for ops, edges in _GRAPHS.edited(self.shared_cell(code, _GRAPHS.cell_of_code)):
            if (cell := _GRAPHS.pruned(ops, edges)) is not None:
                yield _GRAPHS.code_of_cell(cell)

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


@cache
def _count() -> int:
    return _GRAPHS.count()
