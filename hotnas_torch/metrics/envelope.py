"""Distances as functions of their parameters while the couplings are held, and their gradients.

With its coupling T held, an iFGW distance is linear in the coefficients ::

    lam eps w_e,  lam (1 - eps),  (1 - lam) eps w_e,  (1 - lam) (1 - eps),  (1 - lam) unreachable

(w_e the lengths of the operation tree), because every cost is, and because |a - b| is linear where
the sign of a - b does not change. Its slopes in the coefficients are all that a gradient needs: a
few numbers per pair in place of the coupling. A HOTNN distance with its coupling of cells held is
linear in the iFGW distances and in the shares of cells, state and position.

A distance is the least over all couplings, so where it is differentiable, its derivative is that
of the held expression (envelope theorem). Elsewhere (ties between costs, or between couplings) the
held expression at the coupling found gives a derivative along that coupling; the sign of 0 counts
as 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.metrics.pairwise import Tiling

__all__ = ["HeldCells", "HeldNetworks", "cell_coefficients", "envelope", "network_shares"]


def cell_coefficients(lam: Tensor, eps: Tensor, lengths: Tensor, unreachable: Tensor) -> Tensor:
    """Coefficients that an iFGW distance is linear in while its coupling is held.

    Args:
        lam: Weight of the node term, shape ().
        eps: Share of the operation cost, shape ().
        lengths: Lengths of the operation tree, shape (E,).
        unreachable: Pair cost where no path leads from one node to the other, shape ().

    Returns:
        Shape (2E + 3,), in the order of the module's docstring; differentiable.
    """
    costs = torch.cat([eps * lengths, (1 - eps).reshape(1)])
    return torch.cat([lam * costs, (1 - lam) * costs, ((1 - lam) * unreachable).reshape(1)])


def network_shares(eta: Tensor, zeta: Tensor) -> Tensor:
    """Shares of cells, state and position in the cost between two cells, shape (3,)."""
    return torch.stack([(1 - eta) * (1 - zeta), (1 - eta) * zeta, eta])


@dataclass(frozen=True, slots=True)
class HeldCells:
    """A block of iFGW distances with the couplings of the nodes held.

    Attributes:
        slopes: Derivatives of every distinct pair's distance in the coefficients, (P, 2E + 3).
        expand: Turns the values of the pairs, shape (P,), into the block, shape (r, c).
    """

    slopes: Tensor
    expand: Callable[[Tensor], Tensor]

    def distances(self, coefficients: Tensor) -> Tensor:
        """Distances for these coefficients, shape (r, c), differentiable in them."""
        return self.expand((self.slopes @ coefficients).clamp_min(0.0))


@dataclass(frozen=True, slots=True)
class HeldNetworks:
    """A block of HOTNN distances with the couplings of the cells held.

    Attributes:
        index: Place of every pair of different cells in the flattened cell distances, int64 of
            shape (P, K, K), of which the coupling uses those that `mass` says.
        mass: Mass that the coupling moves between the two cells, shape (P, K, K).
        state: State difference over the coupling, shape (P,).
        position: Position difference over the coupling, shape (P,).
        expand: Turns the values of the pairs, shape (P,), into the block, shape (r, c).
    """

    index: Tensor
    mass: Tensor
    state: Tensor
    position: Tensor
    expand: Callable[[Tensor], Tensor]

    def distances(self, cells: Tensor, shares: Tensor) -> Tensor:
        """Distances, differentiable in everything given.

        Args:
            cells: iFGW distances of the block's cells, as the block was computed from them.
            shares: What `network_shares` returned.

        Returns:
            Shape (r, c).
        """
        inside = (self.mass * cells.reshape(-1)[self.index]).sum((1, 2))
        cell_share, state_share, position_share = shares
        values = cell_share * inside + state_share * self.state + position_share * self.position
        return self.expand(values)


class _Envelope(torch.autograd.Function):
    """Values computed without a graph; the backward pass holds couplings one tile at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Callable[[], Tensor],
        held: Callable[..., Callable[[Tensor, Tensor], Tensor]],
        tiling: Tiling,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.held, ctx.tiling = held, tiling
        ctx.save_for_backward(*parameters)
        return values()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "distances can be differentiated once: their gradient holds the couplings, which a"
                " second derivative would have to move (pass create_graph=False)"
            )
        tiling: Tiling = ctx.tiling
        leaves = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        for tile in tiling.tiles:
            row, col = tiling.where(tile)
            share = grad[row, col]
            if tiling.symmetric and not tile.diagonal:
                share = share + grad[col[:, None], row.squeeze(1)].T
            if not bool(share.any()):
                continue
            with torch.enable_grad():
                tiling.compute(tile, ctx.held(*leaves)).backward(share)
        return None, None, None, *(leaf.grad for leaf in leaves)


def envelope(
    values: Callable[[], Tensor],
    held: Callable[..., Callable[[Tensor, Tensor], Tensor]],
    tiling: Tiling,
    *parameters: Tensor,
) -> Tensor:
    """A pairwise matrix whose gradient is that of its tiles with the couplings held.

    Args:
        values: Computes the matrix; runs without a graph.
        held: Called with the parameters, returns the function that computes a tile of given items
            with held couplings, differentiably.
        tiling: How the matrix is cut; at most one tile's couplings exist at a time.
        *parameters: Tensors that the gradient goes to.

    Returns:
        What `values` returned, attached to the graph of the parameters if there is one. A second
        derivative raises.
    """
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in parameters)):
        with torch.no_grad():
            return values()
    apply: Any = _Envelope.apply
    result: Tensor = apply(values, held, tiling, *parameters)
    return result
