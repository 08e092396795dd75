"""Gaussian processes whose kernel adds and multiplies several kernels between networks."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.utils.types import DEFAULT, _DefaultType
from gpytorch.kernels import Kernel
from gpytorch.means import Mean
from gpytorch.priors import LogNormalPrior
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import takes
from hotnas_torch.distances import HOTNN, NetworkDistance, WeisfeilerLehman
from hotnas_torch.gp.distance_kernel import DistanceKernel
from hotnas_torch.gp.feature_kernel import FeatureKernel, Features
from hotnas_torch.gp.kernel_gp import KernelGP
from hotnas_torch.gp.memory import PairMemory, typical_distance
from hotnas_torch.gp.network_lists import as_rows
from hotnas_torch.gp.scales import LogInterval, matern_kernel, start_lengthscale
from hotnas_torch.gp.settings import KERNEL_SETTINGS
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space
from hotnas_torch.spaces.joint import network_space

__all__ = ["CombinedGP", "CombinedKernel", "Parts", "combined_parts"]

Parts = Mapping[str, NetworkDistance | Features]
"""What is combined, by names that terms use: distances, and functions of rows (..., d) that return
features (..., f)."""

# Starts of lengthscales, in typical distances, and the spread of everything learned on log scales:
# few observations move it little.
_LENGTHS = 3.0
_SPREAD = 1.0
_SHARES = 1e-3, 1e2


def combined_parts(space: SearchSpace) -> dict[str, NetworkDistance | Features]:
    """Return what is combined by default: HOTNN and Weisfeiler-Lehman distances.

    Args:
        space: Search space of the rows; of a `Joint` space, that of its networks is meant.

    Raises:
        TypeError: `space` is no search space.
    """
    networks = network_space(check_space(space))
    return {"hotnn": HOTNN(space=networks), "wl": WeisfeilerLehman(networks)}


class CombinedKernel(Kernel):  # type: ignore[misc]
    r"""Sum of products of kernels on the same rows, each evaluated once.

    .. math:: k(x, x') = \sum_t s_t \prod_{i \in t} k_i(x, x')

    The scales s_t are learned, in [0.001, 100], with log-normal priors around one part of the
    whole. Positive semi-definite as the kernels are.

    Args:
        kernels: The kernels by name, without output scales.
        terms: Each one name, or several with `*` between them.
        **kwargs: `batch_shape`, `active_dims`, as for every `gpytorch.kernels.Kernel`.

    Raises:
        TypeError: `kernels` are no kernels by name, or `terms` no sequence of str.
        ValueError: There are no terms, or one twice; a term names something else, or a kernel is
            in no term.

    Example:
        >>> import torch
        >>> from gpytorch.kernels import MaternKernel, RBFKernel
        >>> kernel = CombinedKernel({"a": RBFKernel(), "b": MaternKernel()}, ["a", "a * b"])
        >>> [round(share, 2) for share in kernel.shares.tolist()]
        [0.5, 0.5]
        >>> kernel(torch.rand(3, 2)).to_dense().diagonal().round(decimals=4).tolist()
        [1.0, 1.0, 1.0]
    """

    has_lengthscale = False

    @takes(*KERNEL_SETTINGS)
    def __init__(self, kernels: Mapping[str, Kernel], terms: Sequence[str], **kwargs: Any) -> None:
        if not isinstance(kernels, Mapping) or not all(
            isinstance(name, str) and isinstance(one, Kernel) for name, one in kernels.items()
        ):
            raise TypeError(f"kernels must be a mapping from names to Kernels; got {kernels!r}")
        factors = factors_of(terms, list(kernels))
        super().__init__(**kwargs)
        self.kernels = torch.nn.ModuleDict(dict(kernels))
        self.factors = factors
        count = len(factors)
        like = next((p for one in kernels.values() for p in one.parameters()), torch.empty(()))
        self.register_parameter(
            "raw_shares", torch.nn.Parameter(like.new_zeros(*self.batch_shape, count))
        )
        self.register_constraint("raw_shares", LogInterval(*_SHARES))
        self.register_prior(
            "shares_prior",
            LogNormalPrior(math.log(1.0 / count), _SPREAD).to(like),
            _shares,
            _set_shares,
        )
        self.shares = 1.0 / count

    @property
    def shares(self) -> Tensor:
        """Scales s_t, shape (*batch_shape, T)."""
        value: Tensor = self.raw_shares_constraint.transform(self.raw_shares)
        return value

    @shares.setter
    def shares(self, value: Tensor | float) -> None:
        tensor = torch.as_tensor(value, dtype=self.raw_shares.dtype, device=self.raw_shares.device)
        raw = self.raw_shares_constraint.inverse_transform(tensor.expand_as(self.raw_shares))
        self.initialize(raw_shares=raw)

    @property
    def is_stationary(self) -> bool:
        """Whether all kernels are."""
        return all(bool(one.is_stationary) for one in self.kernels.values())

    def __getitem__(self, index: Any) -> "CombinedKernel":
        """Return the kernel of some batch elements, as for every GPyTorch kernel."""
        chosen: CombinedKernel = super().__getitem__(index)
        for name, one in self.kernels.items():
            kernel: Any = one
            chosen.kernels[name] = kernel[index]
        return chosen

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Tensor:
        """Covariance of rows, as for every GPyTorch kernel."""
        found = {
            name: one.forward(x1, x2, diag=diag, **params) for name, one in self.kernels.items()
        }
        shares = self.shares[..., None] if diag else self.shares[..., None, None]
        total: Any = 0.0
        for place, names in enumerate(self.factors):
            product = found[names[0]]
            for name in names[1:]:
                product = product * found[name]
            total = total + shares.select(len(self.batch_shape), place) * product
        covariance: Tensor = total
        return covariance


class CombinedGP(KernelGP):
    """Gaussian process on architectures whose kernel adds and multiplies several.

    A `botorch.models.SingleTaskGP` with a `CombinedKernel`: of each distance among the parts its
    exponential kernel (`DistanceKernel`, with the training rows as landmarks where it needs them),
    of each function of rows a Matern-5/2 kernel between features. Where one distance tells nothing,
    its terms fade as others explain the targets; a product asks for agreement in both.
    `fit_gpytorch_mll` learns scales and lengthscales, under log-normal priors that few observations
    move little; the distances stay as they are, so that each pair is computed once in a search.
    Targets are standardised unless another `outcome_transform` is given.

    Args:
        train_X: Networks; or rows of `space.encode`, shape (..., n, d), float64 recommended.
        train_Y: Targets, shape (..., n, m), larger is better where BoTorch's acquisition functions
            are used; finite.
        train_Yvar: Known variances of the targets' noise, shape (..., n, m); None infers it.
        space: Search space of the rows.
        parts: What is combined, see `Parts`; None takes `combined_parts(space)`, HOTNN as `"hotnn"`
            and Weisfeiler-Lehman as `"wl"`.
        terms: What is added: names of parts, with `*` between what is multiplied. None takes each
            part, and the product of all.
        memories: Of distances by the names of their parts; those that are missing start anew. Share
            them between the models of one search.
        mean_module: Prior mean; None takes a constant that is learned.
        outcome_transform: What is done to targets first; by default they are standardised.
        input_transform: What is done to rows first; it must leave them as they are.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: Parts of another space; terms as for `CombinedKernel`; fewer than two
            observations; targets that are not finite, are constant, or vary so little or so much
            that variances cannot be told; rows of another length than the space's.
        ArchitectureError: A row that encodes no network of the space; the message names it.

    Complexity: one distance of each kind per pair of a new row and a training row; O(n^3) per
        evaluation of the likelihood of n observations.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> X = space.encode(space.sample(6, generator=torch.Generator().manual_seed(0)))
        >>> Y = (X == 3).sum(dim=1, keepdim=True).double()  # number of 3x3 convolutions
        >>> model = CombinedGP(X, Y, space=space, terms=["hotnn", "hotnn * wl"])
        >>> model.posterior(X[:2]).mean.shape
        torch.Size([2, 1])
    """

    @takes()
    def __init__(
        self,
        train_X: Tensor | Sequence[Network],
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        *,
        space: SearchSpace,
        parts: Parts | None = None,
        terms: Sequence[str] | None = None,
        memories: Mapping[str, PairMemory] | None = None,
        mean_module: Mean | None = None,
        outcome_transform: OutcomeTransform | _DefaultType | None = DEFAULT,
        input_transform: InputTransform | None = None,
    ) -> None:
        check_space(space)
        chosen, terms = chosen_parts(space, parts, terms)
        known = {} if memories is None else dict(memories)
        for name in known:
            if not isinstance(chosen.get(name), NetworkDistance):
                raise ValueError(f"memories must be of distances among the parts; got {name!r}")
        train_X = as_rows("train_X", train_X, space)

        def covariance(rows: Tensor, batch_shape: torch.Size) -> Kernel:
            kernels = {
                name: _distance_kernel(part, known.get(name), rows, batch_shape)
                if isinstance(part, NetworkDistance)
                else _feature_kernel(part, rows, batch_shape)
                for name, part in chosen.items()
            }
            return CombinedKernel(kernels, terms, batch_shape=batch_shape)

        super().__init__(
            train_X,
            train_Y,
            train_Yvar,
            covariance=covariance,
            space=space,
            mean_module=mean_module,
            outcome_transform=outcome_transform,
            input_transform=input_transform,
        )

    @property
    def kernel(self) -> CombinedKernel:
        """The kernel between networks."""
        modules = self.covar_module.modules()
        return next(module for module in modules if isinstance(module, CombinedKernel))


def chosen_parts(
    space: SearchSpace, parts: Parts | None, terms: Sequence[str] | None
) -> tuple[dict[str, NetworkDistance | Features], Sequence[str]]:
    """Return parts and terms, in place of None those of `CombinedGP`.

    Raises:
        TypeError, ValueError: As `CombinedGP`.
    """
    found = combined_parts(space) if parts is None else dict(check_parts(parts, space))
    names = tuple(found)
    if terms is None:
        return found, names if len(names) < 2 else (*names, " * ".join(names))
    factors = factors_of(terms, names, all_parts=parts is not None)
    used = {name for names in factors for name in names}
    return {name: part for name, part in found.items() if name in used}, terms


def check_mapping(parts: object) -> Parts:
    """Return what may be combined, of whichever spaces.

    Raises:
        TypeError: It is no mapping from names to distances and functions.
        ValueError: There is nothing, or a name that terms cannot use.
    """
    if not isinstance(parts, Mapping):
        raise TypeError(
            "parts must be a mapping from names to distances and functions of rows; got"
            f" {type(parts).__name__}"
        )
    if not parts:
        raise ValueError("parts must hold at least one distance or function of rows; got none")
    for name, part in parts.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"parts must have names such as 'hotnn'; got {name!r}")
        if not (isinstance(part, NetworkDistance) or callable(part)):
            raise TypeError(
                f"parts[{name!r}] must be a NetworkDistance or a function of rows; got {part!r}"
            )
    return parts


def check_parts(parts: object, space: SearchSpace) -> Parts:
    """Return what may be combined for rows of a space.

    Raises:
        TypeError, ValueError: As `check_mapping`, or a distance of another space.
    """
    found, networks = check_mapping(parts), network_space(space)
    for name, part in found.items():
        if isinstance(part, NetworkDistance) and not _same(part.space, networks):
            raise ValueError(f"parts[{name!r}] must be of {networks!r}; it is of {part.space!r}")
    return found


def _same(space: SearchSpace | None, other: SearchSpace) -> bool:
    if space is None or space is other:
        return space is other
    return space.description() == other.description()


def factors_of(
    terms: object, names: Sequence[str], *, all_parts: bool = True
) -> tuple[tuple[str, ...], ...]:
    """Read terms: the names that each multiplies.

    Args:
        terms: The terms.
        names: Of the parts.
        all_parts: Whether each part must be in a term.

    Raises:
        TypeError, ValueError: As `CombinedKernel`.
    """
    if isinstance(terms, str) or not isinstance(terms, Sequence):
        raise TypeError(f"terms must be a sequence of str such as 'hotnn * wl'; got {terms!r}")
    if not terms:
        raise ValueError("terms must hold at least one term; got none")
    factors: list[tuple[str, ...]] = []
    for place, term in enumerate(terms):
        if not isinstance(term, str):
            raise TypeError(f"terms[{place}] must be a str; got {term!r}")
        found = tuple(one.strip() for one in term.split("*"))
        for one in found:
            if one not in names:
                raise ValueError(
                    f"terms[{place}] must multiply {', '.join(map(repr, names))}; got {term!r}"
                )
        if sorted(found) in [sorted(before) for before in factors]:
            raise ValueError(f"terms[{place}] must not repeat an earlier term; got {term!r}")
        factors.append(found)
    for name in names if all_parts else ():
        if not any(name in found for found in factors):
            raise ValueError(f"terms must use all parts (leave {name!r} out of them); got {terms}")
    return tuple(factors)


def _distance_kernel(
    distance: NetworkDistance, memory: PairMemory | None, rows: Tensor, batch_shape: torch.Size
) -> DistanceKernel:
    kernel: DistanceKernel = DistanceKernel(distance, memory=memory, batch_shape=batch_shape)
    kernel.to(rows)
    if not distance.negative_definite:
        kernel.landmarks = rows
    parts = kernel.part_distances(rows.reshape(-1, rows.shape[-1]))
    starts = torch.tensor([_LENGTHS * (typical_distance(part) or 1.0) for part in parts]).to(rows)
    kernel.scales = starts
    kernel.register_prior(
        "scales_prior",
        LogNormalPrior(0.0, _SPREAD).to(rows),
        partial(_relative, starts.tolist()),
        partial(_set_relative, starts.tolist()),
    )
    return kernel


def _feature_kernel(features: Features, rows: Tensor, batch_shape: torch.Size) -> FeatureKernel:
    base = matern_kernel(1.0, batch_shape=batch_shape).to(rows)
    found = features(rows.reshape(-1, rows.shape[-1]))
    start_lengthscale(base, typical_distance(torch.cdist(found, found)), rows)
    return FeatureKernel(base, features)


def _shares(kernel: CombinedKernel) -> Tensor:
    return kernel.shares


def _set_shares(kernel: CombinedKernel, value: Tensor) -> None:
    kernel.shares = value


def _relative(starts: list[float], kernel: DistanceKernel) -> Tensor:
    return kernel.scales / kernel.scales.new_tensor(starts)


def _set_relative(starts: list[float], kernel: DistanceKernel, value: Tensor) -> None:
    kernel.scales = value * kernel.scales.detach().new_tensor(starts)
