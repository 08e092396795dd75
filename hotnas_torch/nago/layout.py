"""What HNAG and RNAG share: nodes, operations and merges, stages, and what distances need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hotnas_torch.arch import Cell, NestedCell, OperationTree
from hotnas_torch.nago.random_graphs import GraphModel
from hotnas_torch.nago.theta import MERGES, OPERATIONS
from hotnas_torch.spaces.families import family_tree

__all__ = [
    "MERGE_LABELS",
    "STATE_SCALE",
    "CellSampler",
    "operation_tree",
    "stage_widths",
]

MERGE_LABELS = {"attention": "merge_attention", "concat": "merge_concat"}
"""Labels of nodes that merge what enters them; without one, tensors are summed."""

STATE_SCALE = (2.0, 2.0)
"""log2 of the largest ratio of widths, and of the resolution of the last stage."""

_STEM_WIDTH = 16
_POOLS = tuple(name for name in OPERATIONS if "pool" in name)


@dataclass(frozen=True, slots=True)
class CellSampler:
    """Draws the graphs inside a network, each independently of the others.

    Args:
        merge_weights: Weight of each of `MERGES`.
        operation_weights: Weight of each of `OPERATIONS`.
        generator: Source of randomness, on the CPU.
    """

    merge_weights: tuple[float, ...]
    operation_weights: tuple[float, ...]
    generator: torch.Generator

    def operations(self, model: GraphModel, num_inputs: int) -> Cell:
        """Draw a graph of operations into which `num_inputs` tensors enter."""
        graph = model.sample(generator=self.generator)
        edges = graph.between_ends()
        operations = self._draw(OPERATIONS, self.operation_weights, graph.num_nodes)
        for node in graph.sinks():
            if operations[node] in _POOLS:
                operations[node] = self._draw(OPERATIONS, self._unpooled(), 1)[0]
        labels, edges = _with_merges(
            ["input", *operations, "output"],
            edges,
            {
                0: self._merge(num_inputs),
                **{
                    node: self._merge(_num_entering(node, edges))
                    for node in range(1, graph.num_nodes + 1)
                },
            },
        )
        return Cell(tuple(labels), edges)

    def cells(self, model: GraphModel, below: GraphModel, num_inputs: int) -> NestedCell:
        """Draw a graph of graphs of operations into which `num_inputs` tensors enter."""
        edges = model.sample(generator=self.generator).between_ends()
        merge = self._merge(num_inputs)
        graphs = [
            self.operations(below, _num_entering(node, edges))
            for node in range(1, model.num_nodes + 1)
        ]
        nodes, edges = _with_merges(["input", *graphs, "output"], edges, {0: merge})
        return NestedCell.from_nodes(nodes, edges)

    def _merge(self, num_inputs: int) -> str | None:
        """Draw how tensors are merged: a label, or None for their sum or where there is one."""
        if num_inputs < 2:
            return None
        return MERGE_LABELS.get(self._draw(MERGES, self.merge_weights, 1)[0])

    def _unpooled(self) -> list[float]:
        return [
            0.0 if name in _POOLS else weight
            for name, weight in zip(OPERATIONS, self.operation_weights, strict=True)
        ]

    def _draw(self, names: Sequence[str], weights: Sequence[float], num: int) -> list[str]:
        if sum(weight > 0.0 for weight in weights) == 1:
            return [names[weights.index(max(weights))]] * num
        probabilities = torch.tensor(weights, dtype=torch.float64)
        drawn = torch.multinomial(probabilities, num, replacement=True, generator=self.generator)
        return [names[place] for place in drawn.tolist()]


def stage_widths(channel_ratio: Sequence[float]) -> list[int]:
    """Return the channels of each stage for a first one of 16, rounded, at least 1.

    Only their ratio matters, to distances and to `hotnas_torch.nago.fit_channels` alike.
    """
    return [max(1, round(_STEM_WIDTH * ratio / channel_ratio[0])) for ratio in channel_ratio]


def operation_tree() -> OperationTree:
    """Build the operation costs of sampled networks: 0.1 inside a family, 2 between families.

    The families are the convolutions, the poolings and the merges.
    """
    return family_tree(
        {
            "input": None,
            "conv": {name: None for name in OPERATIONS if name not in _POOLS},
            "pool": dict.fromkeys(_POOLS),
            "merge": dict.fromkeys(MERGE_LABELS.values()),
            "output": None,
        }
    )


def _num_entering(node: int, edges: Sequence[tuple[int, int]]) -> int:
    return sum(j == node for _, j in edges)


def _with_merges(
    nodes: Sequence[str | Cell], edges: Sequence[tuple[int, int]], merges: Mapping[int, str | None]
) -> tuple[list[Any], tuple[tuple[int, int], ...]]:
    """Put a merge before each node that has one; that of node 0, the input, comes after it."""
    listed: list[str | Cell] = []
    entry: list[int] = []
    leaving: list[int] = []
    inner: list[tuple[int, int]] = []
    for node, content in enumerate(nodes):
        merge = merges.get(node)
        pair = [content] if merge is None else [merge, content]
        entry.append(len(listed))
        leaving.append(len(listed) + len(pair) - 1)
        listed += pair if node else pair[::-1]
        if len(pair) == 2:
            inner.append((entry[-1], leaving[-1]))
    outer = [(leaving[i], entry[j]) for i, j in edges]
    return listed, tuple(sorted(inner + outer))
