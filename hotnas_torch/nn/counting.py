"""Multiply-adds and parameters of all networks of a supernet, from one table of its layers."""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hotnas_torch.arch import Network
from hotnas_torch.hierarchy import LayeredBudget
from hotnas_torch.nn.supernets.mixture import SupernetMixture
from hotnas_torch.nn.supernets.single_path import ChoiceLayer, SinglePathSupernet

__all__ = ["CostTable", "Costs"]

# Normalisation by the batch needs more than one value per channel, so two images are sent through.
_IMAGES = 2

_Shape = tuple[int, ...]


class Costs(NamedTuple):
    """What networks cost.

    Attributes:
        multiply_adds: For one image, (N,) int64.
        parameters: (N,) int64.
    """

    multiply_adds: Tensor
    parameters: Tensor


@dataclass(frozen=True, slots=True)
class _LayerTable:
    """Costs of a layer, by which of S shapes enters it and by which of O choices it makes.

    Attributes:
        multiply_adds: (S, O) int64.
        following: (S, O) int64, which of the next layer's shapes leaves it.
        parameters: (O,) int64.
    """

    multiply_adds: Tensor
    following: Tensor
    parameters: Tensor


class CostTable:
    """Multiply-adds and parameters of the networks of a supernet, for images of one size.

    What a layer costs depends on its choice and on the shape of the feature map that reaches it, of
    which there are few. Each is measured once, without storage for weights or maps; the costs of
    any number of networks are then sums over tables.

    Multiply-adds are those of convolutions and linear layers, a multiplication with its addition
    counting once; normalisations, activations, poolings and sums count nothing. Papers on mobile
    networks call them FLOPs, and so does NAS-Bench-Macro.

    Args:
        supernet: Which networks; its normalisation counts: `"running"` has scales and shifts.
        image_size: Height and width of an image, >= 1, or one number for both.

    Raises:
        ValueError: `image_size` is out of range, or the supernet holds one network only, or is a
            mixture.

    Complexity: a network costs one look-up per layer.

    Example:
        >>> from hotnas_torch.nn.supernets.mobile_supernets import MacroSupernet
        >>> supernet = MacroSupernet(normalization="running", generator=torch.Generator())
        >>> table = CostTable(supernet, image_size=32)
        >>> costs = table([supernet.space.from_string(text) for text in ("00000000", "22222222")])
        >>> costs.multiply_adds.tolist(), costs.parameters.tolist()
        ([7713280, 105660928], [387882, 2932586])
    """

    def __init__(self, supernet: SinglePathSupernet, *, image_size: int | tuple[int, int]) -> None:
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"image_size must be at least 1; got {image_size!r}")
        if isinstance(supernet, SupernetMixture):
            raise ValueError(
                "supernet must be a single one: networks cost the same in all supernets of a"
                " mixture (pass mixture.models[0])"
            )
        if supernet.only is not None:
            raise ValueError(
                f"supernet must hold all networks of its space; got {supernet.only.spec!r} only "
                "(build it without only=)"
            )
        self._supernet = supernet
        stem = _meta(supernet.stem)
        stem_cost, shape = _measure(stem, (_IMAGES, supernet.input_channels, *size))
        self._layers: list[_LayerTable] = []
        shapes = [shape]
        for layer in supernet.layers:
            assert isinstance(layer, ChoiceLayer)
            table, shapes = _layer_table(layer, shapes)
            self._layers.append(table)
        head = _meta(supernet.head)
        ends = torch.tensor([_measure(head, shape)[0] for shape in shapes])
        self._fixed_multiply_adds = stem_cost + ends
        self._fixed_parameters = _parameters([supernet.stem, supernet.head])

    def __call__(self, nets: Sequence[Network]) -> Costs:
        """Return the costs of networks.

        Args:
            nets: N networks of the supernet's space.

        Raises:
            ArchitectureError: An entry is not of the space; the message gives its index.
        """
        return self.of_paths(self._supernet.paths(nets))

    def within(
        self,
        budget: float,
        *,
        least: float = 0,
        log_weights: Sequence[Tensor] | None = None,
        most_cells: int = 2**15,
    ) -> LayeredBudget:
        """Return what draws paths whose multiply-adds lie in a range, without listing networks.

        Args:
            budget: Most multiply-adds for one image.
            least: Fewest.
            log_weights: As `hotnas_torch.hierarchy.LayeredBudget`, like the following.
            most_cells: Bounds its tables.

        Raises:
            TypeError, ValueError: An argument of the wrong kind or out of range; nothing fits; or
                choices of the supernet's layers depend on each other, as poolings do.
        """
        space = self._supernet.space
        if space.size() != math.prod(table.multiply_adds.shape[1] for table in self._layers):
            raise ValueError(
                f"the layers of {space!r} do not choose freely, so that paths are not networks"
                " (list its networks and use hotnas_torch.hierarchy.Budgeted)"
            )
        return LayeredBudget(
            [table.multiply_adds for table in self._layers],
            following=[table.following for table in self._layers],
            ends=self._fixed_multiply_adds,
            budget=budget,
            least=least,
            log_weights=log_weights,
            most_cells=most_cells,
        )

    def sample(
        self, num: int, budget: float, *, least: float = 0, generator: torch.Generator
    ) -> list[Network]:
        """Draw distinct networks uniformly among all whose multiply-adds lie in a range.

        Args:
            num: How many, >= 0.
            budget: Most multiply-adds for one image.
            least: Fewest.
            generator: Source of randomness.

        Raises:
            TypeError, ValueError: As `within` and `LayeredBudget.sample`.
        """
        drawn = self.within(budget, least=least).sample(num, generator=generator, distinct=True)
        return self._supernet.space.decode(drawn.double()) if num else []

    def of_paths(self, paths: Tensor) -> Costs:
        """Return the costs of paths, (N, layers) int64 as the supernet's `paths` gives them."""
        shape = torch.zeros(len(paths), dtype=torch.int64)
        multiply_adds = torch.zeros(len(paths), dtype=torch.int64)
        parameters = torch.full((len(paths),), self._fixed_parameters)
        for table, choice in zip(self._layers, paths.unbind(dim=1), strict=True):
            multiply_adds += table.multiply_adds[shape, choice]
            parameters += table.parameters[choice]
            shape = table.following[shape, choice]
        return Costs(multiply_adds + self._fixed_multiply_adds[shape], parameters)


def _layer_table(layer: ChoiceLayer, shapes: Sequence[_Shape]) -> tuple[_LayerTable, list[_Shape]]:
    """Measure all choices of a layer for all shapes; returns the shapes that leave it, too."""
    copied = _meta(layer)
    leaving: dict[_Shape, int] = {}
    costs, following = [], []
    for shape in shapes:
        measured = [_measure(copied, shape, choice) for choice in range(layer.num_choices)]
        costs.append([cost for cost, _ in measured])
        following.append([leaving.setdefault(after, len(leaving)) for _, after in measured])
    parameters = [_parameters(layer.parts(choice)) for choice in range(layer.num_choices)]
    table = _LayerTable(
        torch.tensor(costs), torch.tensor(following), torch.tensor(parameters, dtype=torch.int64)
    )
    return table, list(leaving)


def _measure(module: nn.Module, shape: _Shape, *choice: int) -> tuple[int, _Shape]:
    """Return the multiply-adds for one image, and the shape of what comes out."""
    total = 0

    def count(layer: nn.Module, _: object, result: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d | nn.Linear):
            total += layer.weight[0].numel() * result[0].numel()

    hooks = [layer.register_forward_hook(count) for layer in module.modules()]
    with torch.no_grad():
        result = module(torch.empty(shape, device="meta"), *choice)
    for hook in hooks:
        hook.remove()
    return total, tuple(result.shape)


def _meta(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to("meta")


def _parameters(modules: Iterable[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
