"""Operations that are written as several: attention, norms, activations become one each."""

from collections.abc import Sequence
from dataclasses import replace

from hotnas_torch.importing.computation import Node

__all__ = ["fused"]

_POINTWISE = {
    *("elementwise", "sum", "product", "maximum", "relu", "relu6", "hardsigmoid", "sigmoid"),
    *("tanh", "softplus", "shift", "scale", "reduction"),
}
_BETWEEN_SCORES = {"shift", "scale", "sum", "elementwise", "choose", "tanh"}


def fused(nodes: Sequence[Node], outputs: set[int]) -> tuple[list[Node], set[int]]:
    """Return the operations that the outputs need, with each written-out pattern as one.

    Args:
        nodes: Operations in the order they are made.
        outputs: Places of those whose results are returned, -1 for the input.

    Returns:
        Operations, and the outputs among them.

    Complexity: O(operations + edges) and the size of each pattern.
    """
    graph = _Graph(nodes, outputs)
    for place in list(graph.nodes):
        if place in graph.nodes and graph.nodes[place].kind == "softmax":
            graph.fuse_attention(place)
    for place in list(graph.nodes):
        if place in graph.nodes and graph.nodes[place].kind in ("product", "sum"):
            graph.fuse_pointwise(place)
    graph.drop_unneeded()
    order = sorted(graph.nodes)
    new = {old: place for place, old in enumerate(order)} | {-1: -1}
    kept = [
        replace(graph.nodes[old], inputs=tuple(sorted({new[i] for i in graph.nodes[old].inputs})))
        for old in order
    ]
    return kept, {new[old] for old in graph.outputs}


class _Graph:
    """Operations by place, with who reads them."""

    def __init__(self, nodes: Sequence[Node], outputs: set[int]) -> None:
        self.nodes = dict(enumerate(nodes))
        self.outputs = set(outputs)
        self.drop_unneeded()

    def drop_unneeded(self) -> None:
        """Drop what no output needs, and see who reads the rest."""
        needed = set(self.outputs)
        for place in sorted(self.nodes, reverse=True):
            if place in needed:
                needed.update(self.nodes[place].inputs)
        self.nodes = {place: node for place, node in self.nodes.items() if place in needed}
        self.readers: dict[int, set[int]] = {place: set() for place in (-1, *self.nodes)}
        for place, node in self.nodes.items():
            for source in node.inputs:
                self.readers[source].add(place)

    def only_reader(self, place: int) -> int | None:
        """Return the one operation that reads another, None if there are others or outputs."""
        readers = self.readers[place]
        return next(iter(readers)) if len(readers) == 1 and place not in self.outputs else None

    def merge(self, places: Sequence[int], into: int, **changes: object) -> None:
        """Make one operation of several, at the last one's place."""
        gone = set(places) | {into}
        members = [self.nodes[place] for place in sorted(gone)]
        inputs = tuple(sorted({s for node in members for s in node.inputs if s not in gone}))
        merged = replace(
            self.nodes[into],
            inputs=inputs,
            parameters=sum(node.parameters for node in members),
            multiply_adds=sum(node.multiply_adds for node in members),
            weighted=any(node.weighted for node in members),
            **changes,  # type: ignore[arg-type]
        )
        for place in gone:
            for source in self.nodes[place].inputs:
                self.readers[source].discard(place)
        for place in gone - {into}:
            del self.nodes[place], self.readers[place]
        self.nodes[into] = merged
        for source in inputs:
            self.readers[source].add(into)

    def fuse_attention(self, softmax: int) -> None:
        """Make softmax(Q K^T + bias) V one attention."""
        chain = [softmax]
        place = softmax
        while True:
            node = self.nodes[place]
            before = [
                source
                for source in node.inputs
                if source >= 0
                and self.only_reader(source) == place
                and self.nodes[source].kind in _BETWEEN_SCORES | {"matmul"}
            ]
            scores = [s for s in before if self.nodes[s].kind == "matmul"] or before
            if len(scores) != 1:
                return
            place = scores[0]
            chain.append(place)
            if self.nodes[place].kind == "matmul":
                break
        after = self.only_reader(softmax)
        while after is not None and self.nodes[after].kind == "scale":
            chain.append(after)
            after = self.only_reader(after)
        if after is None or self.nodes[after].kind != "matmul":
            return
        shape = self.nodes[place].shape
        values = self.nodes[after]
        batch = round(_elements(values.shape) / (values.width * values.positions)) or 1
        heads = shape[-3] if len(shape) > 3 else max(1, shape[0] // batch) if len(shape) > 2 else 1
        width = max(1, heads * values.shape[-1])
        self.merge(
            chain,
            after,
            kind="attention",
            target="attention",
            numbers={"heads": float(heads)},
            width=width,
            positions=max(1.0, _elements(values.shape) / (width * batch)),
        )

    def fuse_pointwise(self, place: int) -> None:
        """Make what is computed of one value, element by element, one activation or norm."""
        node = self.nodes[place]
        if len(node.inputs) != 2 or node.weighted:
            return
        source = min(node.inputs)
        inside, stack = {place}, [place]
        while stack:
            for earlier in self.nodes[stack.pop()].inputs:
                if earlier == source or earlier in inside:
                    continue
                if earlier < source or self.nodes[earlier].kind not in _POINTWISE:
                    return
                if self.nodes[earlier].weighted or len(inside) > 16:
                    return
                inside.add(earlier)
                stack.append(earlier)
        if any(
            member != place and (member in self.outputs or not self.readers[member] <= inside)
            for member in inside
        ):
            return
        kind = _kind_of([self.nodes[member] for member in inside])
        if kind is None:
            return
        chain = sorted(inside)
        if kind.endswith("_norm"):
            # A norm's own gain and offset belong to it.
            reader = self.only_reader(place)
            for wanted in ("scale", "shift"):
                if reader is not None and self.nodes[reader].kind == wanted:
                    chain.append(reader)
                    place = reader
                    reader = self.only_reader(place)
        self.merge(chain, place, kind=kind, target=kind, numbers={}, width=node.width)


def _elements(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _kind_of(members: Sequence[Node]) -> str | None:
    """Return what elementwise operations on one value amount to; None keeps them as they are."""
    kinds = {node.kind for node in members}
    targets = {node.target for node in members}
    if "reduction" in kinds:
        if not targets & {"rsqrt", "sqrt", "pow", "linalg_vector_norm", "norm", "div"}:
            return None
        if targets & {"var", "std", "var_mean", "sub"}:
            return "layer_norm"
        return "vector_norm" if targets & {"linalg_vector_norm", "norm", "sum"} else "rms_norm"
    for found, kind in (
        ({"softplus", "tanh"}, "mish"),
        ({"erf"}, "gelu"),
        ({"tanh"}, "gelu"),
        ({"sigmoid"}, "silu"),
        ({"relu6"}, "hardswish"),
        ({"hardtanh"}, "hardswish"),
        ({"clamp"}, "hardswish"),
        ({"hardsigmoid"}, "hardswish"),
    ):
        if found <= targets:
            return kind
    return None if kinds <= {"sum", "product", "maximum"} else "elementwise"
