"""Barycenters of cells under iFGW, and the cells that are nearest to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hotnas_torch import ot
from hotnas_torch.arch import ArchitectureBatch, Cell, NestedCell, OperationTree
from hotnas_torch.arguments import integer, items, kind, number
from hotnas_torch.distances import IFGW
from hotnas_torch.distances._tables.cell_tables import pair_costs, unique_cells
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.ot._operators.tracing import interpreted
from hotnas_torch.ot.graphs import Graphs, feature_costs
from hotnas_torch.ot.scalars import value_of

__all__ = ["CellBarycenter", "cell_barycenter", "checked_weights"]

_SLACK = 1e-9
"""Rounding of costs, in parts of them."""

_REMEDY = "has no medians (hotnas_torch.centres.mean_network needs none)"


@interpreted
@dataclass(frozen=True, slots=True)
class CellBarycenter:
    """The graph whose weighted sum of iFGW distances to some cells is small.

    Its nodes are no operations: their features are weighted medians of path lengths and of places
    in the operation tree, and its structure holds weighted medians of costs between nodes.
    `nearest` decodes it to a cell.

    Attributes:
        graph: Structure (N, N), features (N, F), masses (N,), couplings with the cells (S, N, n),
            distances to them (S,), their weighted sum, and a status.
        metric: The distance.
    """

    graph: ot.BarycenterResult
    metric: IFGW

    def distances(self, cells: Sequence[Cell]) -> Tensor:
        """Return the distances from the barycenter to cells.

        Args:
            cells: X >= 1 cells.

        Returns:
            Shape (X,), in the dtype and on the device of the metric. From the graph of a cell
            these are its iFGW distances.

        Raises:
            TypeError, ValueError: As `cell_barycenter` raises them.

        Complexity: one problem of fused Gromov-Wasserstein per distinct cell.
        """
        distinct, places = unique_cells(_checked(self.metric, cells))
        graphs = _graphs(self.metric, distinct)
        assert self.graph.features is not None
        assert graphs.features is not None
        solver = self.metric.solver
        found = ot.fgw(
            feature_costs(self.graph.features, graphs.features, "l1"),
            self.graph.struct,
            graphs.struct,
            self.graph.masses,
            graphs.masses,
            alpha=1.0 - value_of(self.metric.lam),
            loss="l1",
            pairs="directed",
            num_starts=solver.num_starts,
            tol=solver.tol,
            max_iter=solver.max_iter,
            backend=solver.backend,
            validate=False,
        )
        found.raise_if_failed()
        return found.objective.clamp_min(0.0)[torch.tensor(places, device=found.objective.device)]

    def nearest(self, cells: Sequence[Cell]) -> int:
        """Return which of some cells is nearest to the barycenter, the first of equally near ones.

        Arguments, errors and cost are those of `distances`.
        """
        return int(self.distances(cells).argmin())


def cell_barycenter(
    cells: Sequence[Cell],
    *,
    metric: IFGW,
    weights: Tensor | Sequence[float] | None = None,
    nodes: int | None = None,
    num_starts: int = 1,
    max_iter: int = 100,
) -> CellBarycenter:
    r"""Compute the graph in the middle of some cells.

    .. math:: \min_G \; \sum_s w_s \, \mathrm{iFGW}(G, c_s)

    Operation costs along a tree are L1 distances between vectors of edges, path lengths are
    compared in L1, and costs between nodes by absolute differences: iFGW is a fused
    Gromov-Wasserstein problem of absolute losses, whose barycenter `hotnas_torch.ot.fgw_barycenter`
    finds. It is a local optimum.

    Args:
        cells: S >= 1 cells; isomorphic ones count as often as they stand there.
        metric: The distance, with directed pairs and the separable linear term, which do not depend
            on how nodes are numbered.
        weights: S weights >= 0, not all of them 0; they are divided by their sum. None for equal
            ones.
        nodes: Nodes of the barycenter; None starts from cells as they are.
        num_starts: How many of the distinct cells to start from; more than there are mean all.
        max_iter: Most rounds.

    Raises:
        TypeError: An argument of the wrong kind; the message names the index.
        ValueError: No cells, an operation that the tree does not know, operation costs that are no
            distances along a tree (a matrix, or operations that differ in a number), nested cells,
            a metric that depends on the numbering, or wrong weights.

    Complexity: one problem of fused Gromov-Wasserstein per distinct cell, start and round.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> nets = space.sample(5, generator=torch.Generator().manual_seed(0))
        >>> cells = [net.cells[0] for net in nets]
        >>> middle = ht.centres.cell_barycenter(cells, metric=ht.IFGW(space=space))
        >>> float(middle.graph.objective) <= float(ht.IFGW(space=space)(cells).mean(0).min()) + 1e-6
        True
    """
    kind("metric", metric, IFGW)
    num_starts = integer("num_starts", num_starts, least=1)
    max_iter = integer("max_iter", max_iter, least=1)
    nodes = None if nodes is None else integer("nodes", nodes, least=1)
    checked = _checked(metric, cells)
    shares = checked_weights(weights, len(checked))
    distinct, places = unique_cells(checked)
    graphs = _graphs(metric, distinct)
    index = torch.tensor(places)
    summed = torch.zeros(len(distinct), dtype=torch.float64).index_add(0, index, shares)
    found = ot.fgw_barycenter(
        graphs.struct,
        graphs.features,
        graphs.masses,
        nodes=nodes,
        weights=summed.to(graphs.masses),
        alpha=1.0 - value_of(metric.lam),
        loss="l1",
        pairs="directed",
        num_starts=min(num_starts, len(distinct)),
        max_iter=max_iter,
        backend=metric.solver.backend,
    )
    index = index.to(found.distances.device)
    of_each = replace(found, plans=found.plans[index], distances=found.distances[index])
    return CellBarycenter(of_each, metric)


def checked_weights(weights: Tensor | Sequence[float] | None, size: int) -> Tensor:
    """Return weights of items that sum to 1, float64 on the CPU.

    Args:
        weights: Numbers >= 0, not all of them 0; None for equal ones.
        size: How many items there are.

    Raises:
        TypeError: No list or tensor of numbers.
        ValueError: Another number of weights, or one that is negative or not finite.
    """
    if weights is None:
        return torch.full((size,), 1 / size, dtype=torch.float64)
    if isinstance(weights, Tensor):
        if weights.dim() != 1:
            raise ValueError(f"weights must have shape ({size},); got {tuple(weights.shape)}")
        weights = weights.tolist()
    kind("weights", weights, Sequence, hint="pass a list or a tensor of numbers")
    if len(weights) != size:
        raise ValueError(f"weights must hold one number per item, {size}; got {len(weights)}")
    values = [number(f"weights[{place}]", value, least=0.0) for place, value in enumerate(weights)]
    total = torch.tensor(values, dtype=torch.float64)
    if not values or not bool(total.any()):
        raise ValueError("weights must not all be 0 (an item of weight 0 is left out)")
    # By the largest first: sums of huge numbers overflow.
    total = total / total.max()
    return total / total.sum()


def _checked(metric: IFGW, cells: Sequence[Cell]) -> list[Cell]:
    if metric.pairs != "directed" or metric.linear_term != "separable":
        raise ValueError(
            "metric must have pairs='directed' and linear_term='separable', as the nodes of a"
            f" barycenter have no order; got pairs={metric.pairs!r} and"
            f" linear_term={metric.linear_term!r}"
        )
    if metric.partial is not None:
        raise ValueError(
            f"metric must match all nodes of both cells; got partial={metric.partial} (a barycenter"
            " of parts is none of the cells: pass partial=None)"
        )
    checked = items("cells", cells, Cell)
    known = set(metric.tree.labels)
    for place, cell in enumerate(checked):
        if isinstance(cell, NestedCell):
            raise ValueError(
                f"cells[{place}] must not be nested: nodes that are graphs have no mean"
            )
        metric.check(f"cells[{place}]", cell, known)
    return checked


def _graphs(metric: IFGW, cells: Sequence[Cell]) -> Graphs:
    """Return what iFGW reads of distinct cells, as graphs with L1 features."""
    like = {"dtype": metric.dtype, "device": metric.device}
    labels = list(dict.fromkeys(label for cell in cells for label in cell.ops))
    tree = metric.tree.with_labels(labels)
    max_nodes = None if metric.normalize else metric.max_nodes
    eps = value_of(metric.eps)
    with torch.no_grad():
        batch = ArchitectureBatch.from_cells(cells, tree, max_nodes=max_nodes, **like)  # type: ignore[arg-type]
        lengths = batch.path_lengths(normalize=metric.normalize)
        struct = pair_costs(
            batch.labels,
            lengths,
            batch.reachability(),
            eps * tree.distance_matrix(**like),  # type: ignore[arg-type]
            eps,
            value_of(metric.unreachable),
        )
        vectors = _operation_vectors(tree, labels).to(struct)[batch.labels]
    features = torch.cat([eps * vectors, (1 - eps) / lengths.shape[-1] * lengths], dim=-1)
    return Graphs(struct, features, batch.weights)


def _operation_vectors(tree: OperationTree, labels: Sequence[str]) -> Tensor:
    """Return vectors (L, E + F) whose L1 distances are costs: edges above labels, and numbers.

    Raises:
        ValueError: There are none, as costs are a matrix or operations differ in a number.
    """
    try:
        parents = tree.parents
    except ArchitectureError:
        raise ValueError(
            f"metric must have operation costs along a tree: a matrix of them {_REMEDY}"
        ) from None
    edges = {edge: place for place, edge in enumerate(tree.edges)}
    length = tree.lengths_tensor(dtype=torch.float64, device="cpu").detach()
    places, numbers = tree.kinds_and_numbers(labels)
    vectors = torch.zeros(len(labels), len(edges), dtype=torch.float64)
    for row, place in enumerate(places.tolist()):
        node = tree.kinds[place]
        while (above := parents[node]) is not None:
            vectors[row, edges[node]] = length[edges[node]]
            node = above
    # An operation with a number and one without are half of its weight apart.
    weights = tree.weights_tensor(dtype=torch.float64, device="cpu").detach()
    vectors = torch.cat([vectors, weights / 2 * ~numbers.isnan()], dim=1)
    apart = torch.cdist(vectors, vectors, p=1.0)
    costs = tree.distance_matrix(labels, dtype=torch.float64, device="cpu").detach()
    wrong = (apart - costs).abs() > _SLACK * (1 + costs)
    if bool(wrong.any()):
        one, other = (labels[place] for place in wrong.nonzero()[0].tolist())
        raise ValueError(
            f"cells must hold operations that differ in no number: the cost of {one!r} and"
            f" {other!r} {_REMEDY}"
        )
    return vectors
