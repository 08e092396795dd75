"""What a network computes: its operations, in the order they are made, with their counts."""

from dataclasses import dataclass, field
from functools import cached_property

from hotnas_torch.arch import Network
from hotnas_torch.arch.operation import Operation

__all__ = ["Computation", "Node"]


@dataclass(slots=True)
class Node:
    """One operation.

    Attributes:
        target: What was called, such as `"conv2d"` of ATen.
        kind: Its kind.
        numbers: Numbers of its kind, without width and positions.
        inputs: Places of the operations that it reads, -1 for the network's input.
        scope: Modules that it was called in, the outermost first.
        shape: Of its first result.
        width: Channels of its result.
        positions: Places per example of its result: pixels, or tokens.
        parameters: Elements of the parameters that it is the first to use.
        multiply_adds: Products that are summed, for the whole batch.
        weighted: Whether it uses a parameter.
    """

    target: str
    kind: str
    numbers: dict[str, float]
    inputs: tuple[int, ...]
    scope: tuple[str, ...]
    shape: tuple[int, ...]
    width: int
    positions: float
    parameters: int = 0
    multiply_adds: int = 0
    weighted: bool = False

    @property
    def operation(self) -> Operation:
        """Its kind and all its numbers."""
        positions = float(f"{self.positions:.6g}")
        return Operation(self.kind, **self.numbers, width=self.width, positions=positions)


@dataclass(frozen=True)
class Computation:
    """What a network computes, recorded without its weights.

    `trace` makes one; `network` cuts it into cells, as finely as asked.

    Attributes:
        nodes: Operations in the order they are made.
        outputs: Places of the operations whose results the network returns.
        batch: Examples in the input.
        input_width: Channels of the largest input, 1 where none are counted.
        input_positions: Places per example of the largest input.
        dimensions: In how many dimensions these lie: 2 for images.
        lost: What could not be recorded, a sentence each; empty where all was.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    batch: int = 1
    input_width: int = 1
    input_positions: float = 1.0
    dimensions: int = 1
    lost: tuple[str, ...] = field(default=())

    @cached_property
    def parameters(self) -> int:
        """Number of parameters that the output depends on, each counted once."""
        return sum(node.parameters for node in self.nodes)

    @cached_property
    def multiply_adds(self) -> int:
        """Products that convolutions, linear maps, attention and recurrences sum, for the batch."""
        return sum(node.multiply_adds for node in self.nodes)

    def network(
        self,
        *,
        granularity: int = 28,
        numbers: tuple[str, ...] | None = None,
    ) -> Network:
        """Return the network of cells.

        Args:
            granularity: Operations that a cell has at most, >= 1.
            numbers: Names of the numbers that labels carry; None is all.

        Raises:
            TypeError: An argument of the wrong kind.
            ValueError: A granularity below 1.

        Complexity: O(operations + edges), and the canonical form of each distinct cell.
        """
        from hotnas_torch.importing.cells import network_of

        return network_of(self, granularity=granularity, numbers=numbers)
