"""A Gaussian process on Weisfeiler-Lehman kernels of all levels of nested networks."""

import math
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

import torch
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.means import ZeroMean
from gpytorch.mlls import MarginalLogLikelihood
from torch import Tensor

from hotnas_torch.arch import Cell, NestedCell, Network
from hotnas_torch.arguments import integer, interval, takes
from hotnas_torch.distances.weisfeiler_lehman import (
    Aggregation,
    WeisfeilerLehman,
    level_similarities,
)
from hotnas_torch.gp.kernel_gp import KernelGP
from hotnas_torch.gp.landmarks import NetworkKernel
from hotnas_torch.gp.memory import NetworkMemory
from hotnas_torch.gp.settings import KERNEL_SETTINGS
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space

__all__ = [
    "HierarchicalWeisfeilerLehmanGP",
    "HierarchicalWeisfeilerLehmanKernel",
    "folded_network",
    "wiring",
]

_FOLD_LEVELS = (1, 2)
"""Levels of the coarsest fold and of the others, as in the public code."""
_MOST_STEPS = 200
_START_NOISE = 1e-3


@lru_cache(maxsize=2**14)
def wiring(graph: Cell) -> str:
    """Name a graph by its edges alone, the same for isomorphic ones."""
    blank = ("input", *("graph",) * (graph.num_nodes - 2), "output")
    return f"graph {Cell(blank, graph.edges).key}"


def folded_network(net: Network, depth: int, name: Callable[[Cell], str] = wiring) -> Network:
    """Return a network whose cells are unfolded to a depth, graphs below it being operations.

    Args:
        net: A network, of nested cells or not.
        depth: Levels of graphs that stay, >= 0; with 0, a cell is one operation.
        name: The operation that stands for a graph.

    Returns:
        A network of the same macro graph; where its cells have no more levels, the same one.
    """
    cells = tuple(
        cell.fold(depth, name)
        if depth and isinstance(cell, NestedCell)
        else cell
        if depth
        else Cell(("input", name(cell), "output"), ((0, 1), (1, 2)))
        for cell in net.cells
    )
    return Network(cells, net.channels, net.downsampling, net.edges)


class HierarchicalWeisfeilerLehmanKernel(NetworkKernel):
    r"""A sum of Weisfeiler-Lehman kernels, one for each level of a hierarchy.

    .. math:: k = w_0 k_{WL}(x, x') + \sum_f w_f k_{WL}(F_f(x), F_f(x')), \quad \sum w = 1

    The fold F_f(x) is the network x unfolded to f levels: a graph below is one operation, named by
    how it is wired. Each kernel is normalised to k(x, x) = 1, so that their sum is.

    Args:
        space: Search space of the rows.
        folds: Depths of the folds, increasing, each >= 0; with 0, cells are operations.
        level: Largest Weisfeiler-Lehman level of the whole network, >= 0; may be set to another
            value up to `max_level`. The coarsest fold has level 1, the others 2.
        max_level: Largest level that is computed; None takes `level`.
        aggregation: How labels are compared, `"histogram"` (the paper's) or `"assignment"`.
        contract: Labels of layers that are replaced by direct edges; by default none.
        name: The operation that stands for a graph; by default its wiring.

    Attributes:
        folds: As passed.
        raw_weights: Parameter, (1 + number of folds,); the weights are its softmax, that of the
            whole network first.

    Raises:
        TypeError: `space` is no search space, or a setting is unknown or of the wrong kind.
        ValueError: An argument out of range.
        ArchitectureError: A row that encodes no network of the space, when called.

    Reference: Schrodi et al., Construction of Hierarchical Neural Architecture Search Spaces based
        on Context-free Grammars, NeurIPS 2023, Section 4.

    Example:
        >>> from hotnas_torch.spaces import hierarchical_nasbench201
        >>> space = hierarchical_nasbench201()
        >>> X = space.encode(space.sample(3, generator=torch.Generator().manual_seed(0)))
        >>> kernel = HierarchicalWeisfeilerLehmanKernel(space, folds=(1, 2, 3))
        >>> kernel(X).to_dense().shape, kernel.weights.tolist()
        (torch.Size([3, 3]), [0.25, 0.25, 0.25, 0.25])
    """

    has_lengthscale = False
    raw_weights: torch.nn.Parameter
    _level: Tensor

    @takes(*KERNEL_SETTINGS)
    def __init__(
        self,
        space: SearchSpace,
        folds: Sequence[int],
        *,
        level: int = 2,
        max_level: int | None = None,
        aggregation: Aggregation = "histogram",
        contract: Collection[str] = (),
        name: Callable[[Cell], str] = wiring,
        **kwargs: Any,
    ) -> None:
        check_space(space)
        self._check_folds(folds)
        if max_level is None:
            max_level = integer("level", level, least=0)
        largest = integer("max_level", max_level, least=0)
        super().__init__(space, **kwargs)
        self.max_level = largest
        self.folds = tuple(folds)
        self._name = name
        levels = (largest, *_FOLD_LEVELS[:1], *_FOLD_LEVELS[1:] * len(self.folds))
        self._distances = [
            WeisfeilerLehman(space=space, level=one, aggregation=aggregation, contract=contract)
            for one in levels[: 1 + len(self.folds)]
        ]
        self._memory: NetworkMemory[list[Tensor]] = NetworkMemory(space, self._labels)
        self.register_parameter(
            "raw_weights",
            torch.nn.Parameter(torch.zeros(1 + len(self.folds), dtype=torch.float64)),
        )
        self.register_buffer("_level", torch.tensor(0))
        self.level = level

    @staticmethod
    def _check_folds(folds: object) -> None:
        if isinstance(folds, str | bytes) or not isinstance(folds, Sequence):
            raise TypeError(f"folds must be a sequence of depths; got {folds!r}")
        least = 0
        for place, depth in enumerate(folds):
            least = integer(f"folds[{place}]", depth, least=least) + 1

    @property
    def level(self) -> int:
        """Largest level that counts of the whole network."""
        return int(self._level)

    @level.setter
    def level(self, value: int) -> None:
        self._level.fill_(integer("level", value, least=0, most=self.max_level))

    @property
    def weights(self) -> Tensor:
        """Weight of the whole network and of each fold, (1 + number of folds,), sum 1."""
        return self.raw_weights.softmax(0)

    def similarities(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel matrices of encoded rows (n, d).

        Returns:
            Of the whole networks for every level, (max_level + 1, n, n), and of the folds,
            (number of folds, n, n).
        """
        labels = self._memory(self._index(rows))
        whole = self._compared(0, labels, labels)
        folds = [self._compared(place, labels, labels)[-1:] for place in range(1, len(labels[0]))]
        return whole.to(rows), torch.cat([whole[:0], *folds]).to(rows)

    def _labels(self, nets: Sequence[Network]) -> list[list[Tensor]]:
        """Labels of the whole network and of the folds, per network."""
        whole, *others = self._distances
        found = [whole.labels(nets)]
        for depth, metric in zip(self.folds, others, strict=True):
            found.append(metric.labels([folded_network(net, depth, self._name) for net in nets]))
        return [list(of) for of in zip(*found, strict=True)]

    def _compared(self, place: int, a: list[list[Tensor]], b: list[list[Tensor]]) -> Tensor:
        of_a, of_b = ([labels[place] for labels in side] for side in (a, b))
        return level_similarities(of_a, of_b, self._distances[place].aggregation)

    def _similarity(self, rows: Tensor, cols: Tensor) -> Tensor:
        a, b = (self._memory(numbers) for numbers in (rows, cols))
        parts = [self._compared(0, a, b)[self.level]]
        parts += [self._compared(place, a, b)[-1] for place in range(1, 1 + len(self.folds))]
        return torch.einsum("f,fij->ij", self.weights, torch.stack(parts).to(self.weights))[None]


class HierarchicalWeisfeilerLehmanGP(KernelGP):
    """Gaussian process on architectures whose graphs consist of graphs.

    A `botorch.models.SingleTaskGP` of standardised targets with zero mean, unit variance and noise.
    `fit_gpytorch_mll` finds the level of the kernel of whole networks, the weights of the
    hierarchy's levels and the noise that maximise the marginal likelihood, by L-BFGS from equal
    weights on each level.

    Args:
        train_X: Rows, shape (n, d) with d = space.dim, float64 recommended.
        train_Y: Targets, shape (n, 1), finite and not all equal.
        space: Search space of the rows.
        folds: Depths at which networks are folded; None takes all at which a training network
            differs from itself unfolded: 1, 2, ..., and 0 where it has several cells.
        levels: Levels of whole networks to choose from, each >= 0.
        aggregation: How labels are compared, `"histogram"` or `"assignment"`.
        contract: Labels of layers that are replaced by direct edges; by default none.
        name: The operation that stands for a graph; None takes its wiring.
        noise_bounds: Smallest and largest variance of the noise of standardised targets.

    Raises:
        TypeError: `space` is no search space.
        ValueError: Targets of another shape, constant or not finite; no levels; a bound or a depth
            out of order.
        ArchitectureError: A row that encodes no network of the space; the message names it.

    Complexity: O(n^3) per level and step.

    Reference: Schrodi et al., Construction of Hierarchical Neural Architecture Search Spaces based
        on Context-free Grammars, NeurIPS 2023; levels and bounds are those of its public code.

    Example:
        >>> from botorch.fit import fit_gpytorch_mll
        >>> from gpytorch.mlls import ExactMarginalLogLikelihood
        >>> from hotnas_torch.spaces import hierarchical_nasbench201
        >>> space = hierarchical_nasbench201()
        >>> nets = space.sample(8, generator=torch.Generator().manual_seed(0))
        >>> X = space.encode(nets)
        >>> Y = torch.tensor([[float(net.spec.count("conv3x3"))] for net in nets]).double()
        >>> model = HierarchicalWeisfeilerLehmanGP(X, Y, space=space)
        >>> mll = fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        >>> model.posterior(X[:2]).mean.shape, model.covar_module.folds
        (torch.Size([2, 1]), (1, 2, 3))
    """

    _alone = True

    @takes()
    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        *,
        space: SearchSpace,
        folds: Sequence[int] | None = None,
        levels: Sequence[int] = (0, 1, 2, 3, 4),
        aggregation: Aggregation = "histogram",
        contract: Collection[str] = (),
        name: Callable[[Cell], str] | None = None,
        noise_bounds: tuple[float, float] = (1e-5, 0.5),
    ) -> None:
        low, high = interval("noise_bounds", noise_bounds)
        check_space(space)
        if isinstance(levels, str | bytes) or not isinstance(levels, Sequence) or not levels:
            raise ValueError(f"levels must hold at least one level; got {levels!r}")
        levels = tuple(
            integer(f"levels[{place}]", level, least=0) for place, level in enumerate(levels)
        )

        def covariance(rows: Tensor, batch_shape: torch.Size) -> Kernel:
            del batch_shape
            return HierarchicalWeisfeilerLehmanKernel(
                space,
                _folds_of(space.decode(rows)) if folds is None else folds,
                level=min(levels),
                max_level=max(levels),
                aggregation=aggregation,
                contract=contract,
                name=wiring if name is None else name,
            )

        super().__init__(
            train_X,
            train_Y,
            covariance=covariance,
            space=space,
            likelihood=GaussianLikelihood(noise_constraint=Interval(low, high)),
            mean_module=ZeroMean(),
        )
        self.levels = levels
        self.noise_bounds = low, high
        self.likelihood.noise = math.sqrt(low * high)

    def custom_fit(self, mll: MarginalLogLikelihood, **ignored: Any) -> MarginalLogLikelihood:
        """Choose level, weights and noise; `fit_gpytorch_mll` calls this.

        Args:
            mll: Marginal log likelihood of this model.
            **ignored: Other arguments of `fit_gpytorch_mll`, which concern iterations.

        Returns:
            `mll`, in evaluation mode.
        """
        del ignored
        kernel: HierarchicalWeisfeilerLehmanKernel = self.covar_module
        targets = self.train_targets.double()
        whole, folds = (part.double() for part in kernel.similarities(self.train_inputs[0]))
        least = math.inf
        for level in self.levels:
            loss, weights, noise = _fitted(
                torch.cat([whole[level : level + 1], folds]), targets, self.noise_bounds
            )
            if loss < least:
                least = loss
                kernel.level = level
                with torch.no_grad():
                    kernel.raw_weights.copy_(weights)
                self.likelihood.noise = noise
        return mll.eval()


def _folds_of(nets: Sequence[Network]) -> tuple[int, ...]:
    """Return the depths at which one of some networks differs from itself unfolded."""
    several = any(net.num_cells > 1 for net in nets)
    deepest = max(
        cell.depth if isinstance(cell, NestedCell) else 1 for net in nets for cell in net.cells
    )
    return tuple(range(0 if several else 1, deepest))


def _fitted(
    matrices: Tensor, targets: Tensor, bounds: tuple[float, float]
) -> tuple[float, Tensor, float]:
    """Return the least negative log likelihood, up to a constant, with raw weights and noise."""
    low, high = map(math.log, bounds)
    raw = torch.zeros(1 + len(matrices), dtype=torch.float64)
    share = (math.log(_START_NOISE) - low) / (high - low)
    raw[0] = math.log(share / (1.0 - share)) if 0.0 < share < 1.0 else 0.0
    raw.requires_grad_()
    identity = torch.eye(len(targets), dtype=torch.float64)
    best: tuple[float, Tensor, float] = (math.inf, raw[1:].detach().clone(), bounds[1])
    optimizer = torch.optim.LBFGS([raw], max_iter=_MOST_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        nonlocal best
        optimizer.zero_grad()
        noise = (low + (high - low) * raw[0].sigmoid()).exp()
        covariance = torch.einsum("f,fij->ij", raw[1:].softmax(0), matrices) + noise * identity
        factor = torch.linalg.cholesky(covariance)
        solved = torch.linalg.solve_triangular(factor, targets[:, None], upper=False)
        value: Tensor = 0.5 * solved.square().sum() + factor.diagonal().log().sum()
        value.backward()
        if float(value.detach()) < best[0]:
            best = float(value.detach()), raw[1:].detach().clone(), float(noise.detach())
        return value

    optimizer.step(loss)
    return best
