"""Acquisition by gradient: HOTNN and HOTNNGP on relaxed architectures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.model import Model
from botorch.optim.optimize import optimize_acqf
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import ScaleKernel
from gpytorch.means import ConstantMean, ZeroMean
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor

from hotnas_torch import ot
from hotnas_torch.arch import ArchitectureBatch, Network
from hotnas_torch.distances import HOTNN
from hotnas_torch.distances._tables.cell_tables import pair_costs, unique_cells
from hotnas_torch.distances._tables.network_tables import network_state
from hotnas_torch.gp.kernel import HOTNNKernel
from hotnas_torch.gp.model import HOTNNGP
from hotnas_torch.gp.psd import landmark_features, whitener
from hotnas_torch.gp.relaxation import Relaxation, RelaxedCells, WiringTable, relaxation_of
from hotnas_torch.gp.settings import check_kind, takes, whole

__all__ = ["RelaxedHOTNNGP", "RelaxedOptimum", "optimize_relaxed", "relaxed_distances"]

_CHUNK_ELEMENTS = 2**22
"""Costs between cells that exist at one time."""


@dataclass(frozen=True, slots=True)
class _Landmarks:
    """R networks of up to M cells, of which U of up to m nodes are distinct; padded."""

    labels: Tensor  # (U, m)
    lengths: Tensor  # (U, m, 6)
    struct: Tensor  # (U, m, m)
    weights: Tensor  # (U, m)
    cells: Tensor  # (R, M)
    mass: Tensor  # (R, M)
    places: Tensor  # (R, M, 3)


class RelaxedDistances:
    """HOTNN distances between relaxed architectures and networks.

    Args:
        metric: HOTNN with directed pairs and the separable linear term, which do not depend on how
            nodes are numbered. Its parameters are held: gradients go to the architectures.
        networks: R networks of the relaxation's space.
        relaxation: What the rows hold; None takes that of the metric's space.

    Raises:
        ValueError: A metric that depends on the numbering of nodes, or that has no space.
        TypeError: A space without a relaxation.
    """

    def __init__(
        self,
        metric: HOTNN,
        networks: Sequence[Network],
        relaxation: Relaxation | None = None,
    ) -> None:
        ifgw = metric.ifgw
        if ifgw.pairs != "directed" or ifgw.linear_term != "separable":
            raise ValueError(
                "relaxed distances need pairs='directed' and linear_term='separable', as the nodes"
                f" of a relaxed cell have no order; got pairs={ifgw.pairs!r} and"
                f" linear_term={ifgw.linear_term!r}"
            )
        if relaxation is None:
            if metric.space is None:
                raise ValueError("the metric must know its space (pass space= to HOTNN)")
            relaxation = relaxation_of(metric.space)
        self.relaxation = relaxation
        self._metric = metric
        self._like = torch.empty((), dtype=metric.dtype, device=metric.device)
        with torch.no_grad():
            # [shares of cells, state, position], eps and lam as plain numbers.
            self._shares = metric.shares()
            self._eps, self._lam = self._plain(ifgw.eps), self._plain(ifgw.lam)
            self._unreachable = self._plain(ifgw.unreachable)
            self._label_cost = self._eps * ifgw.tree.distance_matrix(
                dtype=metric.dtype, device=metric.device
            )
            self._max_nodes = None if ifgw.normalize else ifgw.max_nodes
            wirings = relaxation.wirings()
            self._table = WiringTable.of(
                wirings,
                relaxation.space.max_nodes,
                max_nodes=self._max_nodes,
                dtype=metric.dtype,
                device=metric.device,
            )
            self._landmarks, distinct = self._tables(networks)
            self._skeletons = relaxation.skeletons()
            fixed = [
                skeleton.network.cells[place]
                for skeleton in self._skeletons
                for place, kind in enumerate(skeleton.kinds)
                if kind is None
            ]
            kept, numbers = unique_cells(fixed) if fixed else ([], [])
            nothing = self._like.new_empty(0, len(distinct))
            self._fixed = metric.ifgw(kept, distinct) if kept else nothing
            self._kinds: list[Tensor] = []
            for skeleton in self._skeletons:
                places = [
                    relaxation.num_kinds + numbers.pop(0) if kind is None else kind
                    for kind in skeleton.kinds
                ]
                self._kinds.append(torch.tensor(places, device=metric.device))

    def _plain(self, value: float | Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=self._like.dtype, device=self._like.device).detach()

    def _places(self, network: Network) -> Tensor:
        """Position and half of the two state coordinates per cell, shape (N, 3)."""
        scale = self._metric.state_scale
        state = [(0.0, 0.0)] * network.num_cells
        if scale is not None:
            state = list(network_state(network, scale))
        rows = [
            (position, width / 2, resolution / 2)
            for position, (width, resolution) in zip(network.positions(), state, strict=True)
        ]
        return self._like.new_tensor(rows)

    def _masses(self, network: Network) -> Tensor:
        return self._like.new_tensor(network.masses(self._metric.mass))

    def _tables(self, networks: Sequence[Network]) -> tuple[_Landmarks, list[Any]]:
        distinct, numbers = unique_cells([cell for net in networks for cell in net.cells])
        batch = ArchitectureBatch.from_cells(
            distinct,
            self._metric.ifgw.tree,
            max_nodes=self._max_nodes,
            device=self._like.device,
            dtype=self._like.dtype,
        )
        lengths = batch.path_lengths(normalize=self._max_nodes is None)
        struct = pair_costs(
            batch.labels,
            lengths,
            batch.reachability(),
            self._label_cost,
            self._eps,
            self._unreachable,
        )
        width = max(net.num_cells for net in networks)
        cells = torch.zeros(len(networks), width, dtype=torch.int64, device=self._like.device)
        mass = self._like.new_zeros(len(networks), width)
        places = self._like.new_zeros(len(networks), width, 3)
        start = 0
        for row, net in enumerate(networks):
            size = net.num_cells
            cells[row, :size] = torch.tensor(numbers[start : start + size])
            mass[row, :size] = self._masses(net)
            places[row, :size] = self._places(net)
            start += size
        table = _Landmarks(batch.labels, lengths, struct, batch.weights, cells, mass, places)
        return table, distinct

    def __call__(self, X: Tensor) -> Tensor:
        """Distances, differentiable in the rows.

        Args:
            X: Rows of weights, shape (B, dim of the relaxation).

        Returns:
            Shape (B, R). For rows of zeros and ones, the distances between the networks (up to the
            choice among local optima of the solver).

        Differentiability: by the envelope theorem, as `hotnas_torch.ot.fgw`. A node of expected
            mass 0 gets no gradient: start inside.
        """
        parts = self.relaxation.split(X.to(self._like))
        kinds = [
            self._cell_distances(
                RelaxedCells.expected(
                    self._table,
                    self.relaxation.wiring_probabilities(parts, kind),
                    self.relaxation.label_probabilities(parts, kind),
                )
            )
            for kind in range(self.relaxation.num_kinds)
        ]
        batch = len(X)
        fixed = self._fixed[None].expand(batch, -1, -1)
        cells = torch.cat([torch.stack(kinds, dim=1), fixed], dim=1)
        weights = self.relaxation.skeleton_probabilities(parts)
        total = cells.new_zeros(batch, len(self._landmarks.cells))
        for place, (skeleton, kind) in enumerate(zip(self._skeletons, self._kinds, strict=True)):
            weight = weights[:, place, None]
            if not weight.requires_grad and not bool(weight.any()):
                continue
            total = total + weight * self._network_distances(cells, skeleton.network, kind)
        return total

    def _cell_distances(self, cells: RelaxedCells) -> Tensor:
        """IFGW between B relaxed cells and the U distinct cells, shape (B, U)."""
        marks = self._landmarks
        by_label = (cells.labels @ self._label_cost)[:, :, marks.labels].transpose(1, 2)
        apart = (cells.lengths[:, None, :, None] - marks.lengths[:, None]).abs().mean(-1)
        cost = by_label + (1 - self._eps) * apart
        within = cells.labels @ self._label_cost @ cells.labels.mT
        struct = cells.reachable * within + (1 - self._eps) * cells.apart
        struct = struct + (1 - cells.reachable) * self._unreachable
        struct = struct - torch.diag_embed(struct.diagonal(dim1=1, dim2=2))
        ifgw = self._metric.ifgw
        result = ot.fgw(
            cost,
            struct[:, None],
            marks.struct,
            cells.mass[:, None],
            marks.weights,
            alpha=float(1 - self._lam),
            loss="l1",
            pairs="directed",
            num_starts=ifgw.solver.num_starts,
            tol=ifgw.solver.tol,
            max_iter=ifgw.solver.max_iter,
            backend=ifgw.solver.backend,
            validate=False,
        )
        return result.objective.clamp_min(0.0)

    def _network_distances(self, cells: Tensor, network: Network, kinds: Tensor) -> Tensor:
        """HOTNN between B relaxed networks on one skeleton and the R networks, shape (B, R)."""
        marks = self._landmarks
        cell_share, state_share, position_share = self._shares
        apart = (self._places(network)[:, None] - marks.places[:, None]).abs()
        outside = position_share * apart[..., 0] + state_share * apart[..., 1:].sum(-1)
        size = max(1, _CHUNK_ELEMENTS // outside.numel())
        masses = self._masses(network)
        parts = []
        for chunk in cells.split(size):
            inside = chunk[:, kinds[:, None], marks.cells[:, None]]
            cost = cell_share * inside + outside
            result = ot.transport(
                cost, masses, marks.mass, backend=self._metric.backend, validate=False
            )
            parts.append(result.objective)
        return torch.cat(parts)


def relaxed_distances(metric: HOTNN, X: Tensor, networks: Sequence[Network]) -> Tensor:
    """HOTNN distances between relaxed architectures and networks, differentiable in the former.

    Args:
        metric: HOTNN of a space with a relaxation; directed pairs, separable linear term.
        X: Rows of weights, shape (B, dim), see `hotnas_torch.gp.relaxation.Relaxation`.
        networks: R networks of the space.

    Returns:
        Shape (B, R).

    Raises:
        TypeError, ValueError: As `RelaxedDistances`.

    Example:
        >>> import hotnas_torch as ht
        >>> from hotnas_torch.gp.relaxation import relaxation_of
        >>> space = ht.spaces.NASBench201()
        >>> nets = space.sample(2, generator=torch.Generator().manual_seed(0))
        >>> X = relaxation_of(space).encode(nets[:1])
        >>> metric = ht.HOTNN(space=space, dtype=torch.float64)
        >>> torch.allclose(relaxed_distances(metric, X, nets), metric(nets[:1], nets), atol=1e-6)
        True
    """
    return RelaxedDistances(metric, networks)(X)


class RelaxedHOTNNGP(Model):
    """The posterior of a `HOTNNGP` at relaxed architectures, differentiable in them.

    At rows of zeros and ones this is the model itself. BoTorch's acquisition functions take it like
    any model, and ``optimize_acqf`` moves through it; `optimize_relaxed` does so and rounds.

    Args:
        model: Fitted model with its default covariance, one output and no numeric columns.

    Attributes:
        relaxation: What the columns of a row mean.

    Raises:
        TypeError: The space has no relaxation, or `model` is no HOTNNGP.
        ValueError: A model of another form.
    """

    def __init__(self, model: HOTNNGP) -> None:
        check_kind("model", model, HOTNNGP, optional=False)
        super().__init__()
        scaled = model.covar_module
        if (
            not isinstance(scaled, ScaleKernel)
            or not isinstance(scaled.base_kernel, HOTNNKernel)
            or scaled.base_kernel.landmarks is None
            or model.num_outputs != 1
            or not isinstance(model.mean_module, ConstantMean | ZeroMean)
            or len(model.batch_shape)
            or model.train_inputs[0].shape[-1] != model.space.dim
        ):
            raise ValueError(
                "a relaxed model needs a HOTNNGP with one output, a constant mean, no numeric"
                " columns, and the scaled HOTNNKernel with landmarks that is its default covariance"
            )
        model.eval()
        self.model = model
        self.relaxation = relaxation_of(model.space)
        kernel: HOTNNKernel = scaled.base_kernel
        with torch.no_grad():
            landmarks = kernel.landmark_networks()
            among = torch.exp(-kernel.landmark_distances() / kernel.lengthscale)
            whitening = whitener(among, kernel.cutoff)
            features = landmark_features(among, whitening)
            self._lengthscale = kernel.lengthscale.reshape(())
            self._outputscale = scaled.outputscale.reshape(())
            self._distances = RelaxedDistances(kernel.metric(), landmarks, self.relaxation)
            rows = model.train_inputs[0]
            train = model.likelihood(model.forward(rows), rows)
            place = kernel.landmark_places(rows)
            root = psd_safe_cholesky(train.covariance_matrix)
            residual = (model.train_targets - train.mean).unsqueeze(-1)
            self._whitening = whitening
            # From features at x to the standardised covariance with the observations.
            self._reduced = torch.linalg.solve_triangular(root, features[place], upper=False)
            self._targets = torch.linalg.solve_triangular(root, residual, upper=False)

    @property
    def num_outputs(self) -> int:
        """One."""
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        """No batch dimensions of its own."""
        return torch.Size()

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Posterior:
        """Joint posterior of q relaxed architectures.

        Args:
            X: Rows of weights, shape (*batch, q, dim).
            output_indices: None or [0].
            observation_noise: Must be False.
            posterior_transform: As for every BoTorch model.

        Raises:
            NotImplementedError: `observation_noise` or another output is asked for.
        """
        if observation_noise is not False or output_indices not in (None, [0]):
            raise NotImplementedError(
                "a relaxed model has one output, and a posterior without observation noise"
            )
        distances = self._distances(X.reshape(-1, X.shape[-1])).to(X)
        similarity = torch.exp(-distances / self._lengthscale)
        features = landmark_features(similarity, self._whitening)
        features = features.reshape(*X.shape[:-1], -1)
        own = 1.0 - features.square().sum(-1)
        prior = features @ features.mT + torch.diag_embed(own.clamp_min(0.0))
        shared = self._outputscale * (self._reduced @ features.mT)
        mean = self.model.mean_module(X) + (shared.mT @ self._targets).squeeze(-1)
        covariance = self._outputscale * prior - shared.mT @ shared
        posterior: Posterior = GPyTorchPosterior(MultivariateNormal(mean, covariance))
        transform = getattr(self.model, "outcome_transform", None)
        if transform is not None:
            posterior = transform.untransform_posterior(posterior)
        return posterior if posterior_transform is None else posterior_transform(posterior)


@dataclass(frozen=True, slots=True)
class RelaxedOptimum:
    """What `optimize_relaxed` found.

    Attributes:
        networks: q networks, distinct and none to be avoided.
        value: Acquisition value of the networks together, from the model itself.
        num_evaluations: Architectures, relaxed or not, that acquisition functions were evaluated
            at.
    """

    networks: list[Network]
    value: float
    num_evaluations: int


@takes()
def optimize_relaxed(
    model: HOTNNGP,
    acquisition: Callable[[Model], AcquisitionFunction],
    *,
    generator: torch.Generator,
    q: int = 1,
    raw_samples: int = 32,
    num_restarts: int = 2,
    max_iter: int = 5,
    num_roundings: int = 4,
    num_climbs: int = 3,
    num_neighbors: int = 8,
    max_steps: int = 10,
    avoid: Sequence[Network] = (),
) -> RelaxedOptimum:
    """Maximise an acquisition function by gradient over relaxed architectures, and round.

    Random networks are scored. From the best of them, softened towards all other values, L-BFGS
    climbs through the relaxation; what it finds is rounded to the most probable network and to
    networks drawn from its distribution. From the best of all these, steps follow between networks:
    the gradient at the network, slightly softened, says which changes of a single decision promise
    most, and the model itself scores those. Networks of a batch are found one after the other.

    Args:
        model: Fitted model of a space with a relaxation.
        acquisition: Builds the acquisition function for a model, as in ``lambda m:
            qLogExpectedImprovement(m, best_f)``; called with `model` and with its relaxation.
        generator: Source of all randomness.
        q: Networks to find.
        raw_samples: Random networks that are scored first.
        num_restarts: Starts of L-BFGS; 0 leaves it out.
        max_iter: Iterations of L-BFGS.
        num_roundings: Networks drawn from each optimum of L-BFGS.
        num_climbs: Networks from which steps are made.
        num_neighbors: Changes that are scored per step.
        max_steps: Most steps of a climb, which ends earlier where no change is better.
        avoid: Networks that are no answer, for example those evaluated already.

    Returns:
        The networks with their acquisition value.

    Raises:
        TypeError, ValueError: The model or its space has no relaxation, see `RelaxedHOTNNGP`; a
            setting is unknown, of the wrong kind or out of range.

    Complexity: an evaluation costs one HOTNN distance per training network, relaxed or not.
    """
    check_kind("generator", generator, torch.Generator, optional=False)
    for name, given, smallest in (
        ("q", q, 1),
        ("raw_samples", raw_samples, 1),
        ("num_restarts", num_restarts, 0),
        ("max_iter", max_iter, 1),
        ("num_roundings", num_roundings, 0),
        ("num_climbs", num_climbs, 0),
        ("num_neighbors", num_neighbors, 1),
        ("max_steps", max_steps, 0),
    ):
        whole(name, given, smallest)
    avoided = list(avoid)
    for net in avoided:
        check_kind("avoid", net, Network, optional=False)
    relaxed = RelaxedHOTNNGP(model)
    search = _Search(
        model=model,
        relaxation=relaxed.relaxation,
        direct=acquisition(model),
        smooth=acquisition(relaxed),
        generator=generator,
    )
    search.seen.update(model.space.key(net) for net in avoided)
    chosen: list[Network] = []
    value = -torch.inf
    for _ in range(q):
        search.begin(chosen)
        search.score(model.space.sample(raw_samples, generator=generator))
        if num_restarts:
            search.score(search.ascend(num_restarts, max_iter, num_roundings))
        for start in search.best(num_climbs):
            search.climb(start, num_neighbors, max_steps)
        value, best = search.best(1)[0]
        chosen.append(best)
    return RelaxedOptimum(networks=chosen, value=value, num_evaluations=search.evaluations)


class _Search:
    """The state of `optimize_relaxed`: what has been scored, given what has been chosen.

    Args:
        model: The model of the networks.
        relaxation: Relaxation of its space.
        direct: Acquisition function of encoded rows.
        smooth: The same of relaxed rows.
        generator: Source of randomness.
    """

    def __init__(
        self,
        *,
        model: HOTNNGP,
        relaxation: Relaxation,
        direct: AcquisitionFunction,
        smooth: AcquisitionFunction,
        generator: torch.Generator,
    ) -> None:
        self.evaluations = 0
        self.seen: set[str] = set()
        self._model, self._relaxation = model, relaxation
        self._direct = direct
        self._smooth = _Pending(smooth)
        self._generator = generator
        self._scored: dict[str, tuple[float, Network]] = {}
        self._rows = model.train_inputs[0][:0]

    def begin(self, chosen: Sequence[Network]) -> None:
        """Start the search for another network beside those that are chosen."""
        space = self._model.space
        self.seen.update(space.key(net) for net in chosen)
        self._scored = {}
        self._rows = space.encode(chosen).to(self._rows)
        self._smooth.pending = self._relaxation.encode(chosen)

    def score(self, networks: Sequence[Network]) -> None:
        """Evaluate the acquisition function at networks that are new."""
        space = self._model.space
        by_key = {space.key(net): net for net in networks}
        known = self.seen | self._scored.keys()
        fresh = {key: net for key, net in by_key.items() if key not in known}
        if not fresh:
            return
        rows = space.encode(list(fresh.values())).to(self._rows).unsqueeze(1)
        pending = self._rows.expand(len(rows), *self._rows.shape)
        with torch.no_grad():
            values = self._direct(torch.cat([rows, pending], dim=1)).tolist()
        self.evaluations += len(fresh)
        for (key, net), value in zip(fresh.items(), values, strict=True):
            self._scored[key] = value, net

    def best(self, num: int) -> list[tuple[float, Network]]:
        """The best networks scored, with their values.

        Raises:
            ValueError: There is none: all that was met is to be avoided.
        """
        if not self._scored:
            raise ValueError(
                "every network that was met is to be avoided (raise raw_samples, or avoid less)"
            )
        return sorted(self._scored.values(), key=lambda entry: -entry[0])[:num]

    def ascend(self, num_restarts: int, max_iter: int, num_roundings: int) -> list[Network]:
        """Networks that L-BFGS through the relaxation leads to."""
        relaxation = self._relaxation
        starts = relaxation.encode([net for _, net in self.best(num_restarts)])
        found, _ = optimize_acqf(
            self._smooth,
            bounds=relaxation.bounds,
            q=1,
            num_restarts=len(starts),
            batch_initial_conditions=_softened(relaxation, starts, 0.3).unsqueeze(1),
            options={"maxiter": max_iter},
            return_best_only=False,
        )
        self._count_smooth()
        rows = found.detach().squeeze(1)
        networks = relaxation.round(rows)
        for row in rows:
            networks += relaxation.sample(row, num_roundings, generator=self._generator)
        return networks

    def climb(self, start: tuple[float, Network], num_neighbors: int, max_steps: int) -> None:
        """Go from network to network, scoring the changes that the gradient recommends."""
        value, network = start
        for _ in range(max_steps):
            neighbors = self._promising(network, num_neighbors)
            self.score(neighbors)
            keys = {self._model.space.key(net) for net in neighbors}
            reached = [self._scored[key] for key in keys & self._scored.keys()]
            if not reached or max(reached, key=_value)[0] <= value:
                return
            value, network = max(reached, key=_value)

    def _promising(self, network: Network, num: int) -> list[Network]:
        """Networks one decision away, those first for which the slope is steepest."""
        relaxation = self._relaxation
        row = relaxation.encode([network])
        soft = _softened(relaxation, row, 0.1).requires_grad_()
        (slope,) = torch.autograd.grad(self._smooth(soft.unsqueeze(1)).sum(), soft)
        self._count_smooth()
        gains, changed = [], []
        first = 0
        for decision in relaxation.decisions:
            columns = range(first, first + decision.num_values)
            first += decision.num_values
            current = int(row[0, columns].argmax()) + columns.start
            for other in columns:
                if other != current:
                    gains.append(float(slope[0, other] - slope[0, current]))
                    changed.append((current, other))
        order = sorted(range(len(gains)), key=lambda place: -gains[place])[:num]
        rows = row.repeat(len(order), 1)
        for place, which in enumerate(order):
            current, other = changed[which]
            rows[place, current], rows[place, other] = 0.0, 1.0
        return relaxation.round(rows)

    def _count_smooth(self) -> None:
        self.evaluations += self._smooth.evaluations
        self._smooth.evaluations = 0


class _Pending(AcquisitionFunction):
    """An acquisition function of one row beside those that are chosen, with a count of rows."""

    def __init__(self, function: AcquisitionFunction) -> None:
        super().__init__(model=function.model)
        self.function = function
        self.pending: Tensor | None = None
        self.evaluations = 0

    def forward(self, X: Tensor) -> Tensor:
        self.evaluations += X.shape[:-2].numel()
        if self.pending is not None and len(self.pending):
            pending = self.pending.to(X).expand(*X.shape[:-2], *self.pending.shape)
            X = torch.cat([X, pending], dim=-2)
        values: Tensor = self.function(X)
        return values


def _value(scored: tuple[float, Network]) -> float:
    return scored[0]


def _softened(relaxation: Relaxation, rows: Tensor, share: float) -> Tensor:
    """Rows with a share of their weight spread evenly, which gives all values a gradient."""
    even = relaxation.probabilities(torch.ones_like(rows))
    return (1 - share) * rows + share * even
