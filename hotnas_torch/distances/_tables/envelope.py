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
from typing import Any, cast

import torch
from torch import Tensor

from hotnas_torch.matrices.pairwise import Tile, Tiling
from hotnas_torch.ot._operators.operator import (
    forward_levels,
    full_precision,
    held,
    is_tracked,
    is_vmapped,
    plain,
    save,
)

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
    """Share of cells, state and position in the cost between two cells, shape (3,)."""
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


_MOVES = (
    "distances can be differentiated once: their gradient holds the couplings, which a second"
    " derivative would have to move"
)


class _Envelope(torch.autograd.Function):
    """Values computed without a graph; derivatives hold couplings one tile at a time."""

    @staticmethod
    def forward(
        values: Callable[[], Tensor],
        held_tiles: Callable[..., Callable[[Tensor, Tensor], Tensor]],
        tiling: Tiling,
        *parameters: Tensor,
    ) -> Tensor:
        del held_tiles, tiling, parameters
        return values()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.held, ctx.tiling, *parameters = inputs
        ctx.shape, ctx.dtype, ctx.device = output.shape, output.dtype, output.device
        save(ctx, *parameters)

    @staticmethod
    @full_precision
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        tiling: Tiling = ctx.tiling
        leaves = [plain(tensor) for tensor in ctx.saved_tensors]
        transformed = torch._C._are_functorch_transforms_active()
        totals: list[Tensor] = [torch.zeros_like(leaf) for leaf in leaves]
        for tile in tiling.tiles:
            row, col = tiling.where(tile)
            share = grad[row, col]
            if tiling.symmetric and not tile.diagonal:
                share = share + grad[col[:, None], row.squeeze(1)].T
            if not (is_vmapped(share) or bool(share.any())):
                continue
            pull = _pull(ctx, tile, leaves, transformed=transformed)
            totals = [total + part for total, part in zip(totals, pull(share), strict=True)]
        return None, None, None, *(held(total, _MOVES, *ctx.saved_tensors) for total in totals)

    @staticmethod
    @full_precision
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        tiling: Tiling = ctx.tiling
        leaves = [plain(tensor) for tensor in ctx.saved_tensors]
        changes = tuple(
            torch.zeros_like(leaf) if change is None else change
            for leaf, change in zip(leaves, tangents[3:], strict=True)
        )
        out = torch.zeros(ctx.shape, dtype=ctx.dtype, device=ctx.device)
        for tile in tiling.tiles:
            row, col = tiling.where(tile)
            # Forward mode of what is linear in v: the transpose of its transpose.
            nothing = torch.zeros(len(row), len(col), dtype=ctx.dtype, device=ctx.device)
            transpose: Any = torch.func.vjp(_pull(ctx, tile, leaves, transformed=True), nothing)[1]
            (values,) = transpose(changes)
            out = out.index_put((row, col), values)
            if tiling.symmetric and not tile.diagonal:
                out = out.index_put((col[:, None], row.squeeze(1)), values.mT)
        return held(out, _MOVES, *ctx.saved_tensors)

    @staticmethod
    def vmap(*_: Any) -> Any:
        msg = "distances have one set of parameters, which torch.vmap cannot map; call in a loop"
        raise RuntimeError(msg)


def _pull(
    ctx: Any, tile: Tile, leaves: list[Tensor], *, transformed: bool
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return the map from the gradient of a tile to those of the parameters, couplings held.

    Args:
        ctx: What `_Envelope` saved.
        tile: The tile.
        leaves: Values of the parameters.
        transformed: Whether a transform of `torch.func` is at work or the map itself shall be
            differentiated; plain autograd is faster.
    """

    def values(*parameters: Tensor) -> Tensor:
        found: Tensor = ctx.tiling.compute(tile, ctx.held(*parameters))
        return found

    if transformed:
        pull: Any = torch.func.vjp(values, *leaves)[1]
        return cast(Callable[[Tensor], tuple[Tensor, ...]], pull)
    given = [leaf.detach().requires_grad_() for leaf in leaves]
    with torch.enable_grad():
        found = values(*given)
    return lambda share: torch.autograd.grad(found, given, share, materialize_grads=True)


def envelope(
    values: Callable[[], Tensor],
    held_tiles: Callable[..., Callable[[Tensor, Tensor], Tensor]],
    tiling: Tiling,
    *parameters: Tensor,
) -> Tensor:
    """Return a pairwise matrix whose gradient is that of its tiles with the couplings held.

    Args:
        values: Computes the matrix, from what `plain` returns; runs without a graph.
        held_tiles: Called with the parameters, returns the function that computes a tile of
            given items with held couplings, differentiably.
        tiling: How the matrix is cut; at most one tile's couplings exist at a time.
        *parameters: Tensors that the gradient goes to.

    Returns:
        What `values` returned, attached to what tracks the parameters, in reverse or in forward
        mode. A second derivative raises, or is NaN in forward mode.
    """
    if not is_tracked(*parameters):
        with torch.no_grad():
            return values()
    forward, levels = forward_levels()
    if forward and levels > 1:
        raise RuntimeError(_MOVES)
    apply: Any = _Envelope.apply
    result: Tensor = apply(values, held_tiles, tiling, *parameters)
    return result
