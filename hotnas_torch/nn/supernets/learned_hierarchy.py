"""Algorithm 1 of the learned hierarchy: pre-training, a tree of its outputs, and tree search."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import boolean, choice, integer, number
from hotnas_torch.hierarchy import (
    ArchitectureTree,
    Schedule,
    TreeSampler,
    Uniform,
    cluster,
    output_distances,
)
from hotnas_torch.hierarchy.clustering import Linkage
from hotnas_torch.nn.data import LabelledImages
from hotnas_torch.nn.supernets.single_path import SinglePathSupernet
from hotnas_torch.nn.supernets.supernet_search import (
    SupernetResult,
    SupernetSearch,
    SupernetSettings,
)

__all__ = ["LearnedHierarchySearch", "LearnedHierarchySettings"]

_PRETRAINING = SupernetSettings(epochs=300, batch_size=512, learning_rate=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedHierarchySettings:
    """How a hierarchy is learned, and searched.

    Args:
        pretraining: How the supernet is trained that the distances come from; its `num_final`
            does not matter.
        search: How fresh weights are trained while they are searched.
        num_images: Validation images whose outputs are compared, >= 1.
        measure: Distance between outputs, see `hotnas_torch.hierarchy.output_distances`.
        linkage: Distance between clusters, see `hotnas_torch.hierarchy.cluster`. Of average
            linkage, networks unlike all others branch off near the root.
        check_euclidean: Refuse `"ward"` with distances that are not Euclidean; of the measures,
            `"l2"` alone is.
        beta: Smoothing of rewards, in [0, 1).
        exploration: Weight lambda of the exploration term, >= 0. The paper's 0.5 is for tens of
            thousands of steps; as the term falls with the root of the visits, a hundredth of the
            steps explores as much with a tenth of it.
        initial: Value of a node before its first visit, see
            `hotnas_torch.hierarchy.TreeSampler`; None suits searches that visit each network
            a few times only.
        schedule: Warm-up and temperatures of the search.

    Raises:
        ValueError: A setting out of range.

    Reference: "Neural Architecture Search by Learning a Hierarchical Search Space", 2025, Appendix
        B.1; the defaults are those of the pooling space. The linkage is not stated there.
    """

    pretraining: SupernetSettings = _PRETRAINING
    search: SupernetSettings = field(default_factory=SupernetSettings)
    num_images: int = 512
    measure: Literal["kl", "l2", "cross_entropy"] = "kl"
    linkage: Linkage = "average"
    check_euclidean: bool = True
    beta: float = 0.95
    exploration: float = 0.5
    initial: float | None = 1.0
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        integer("num_images", self.num_images)
        boolean("check_euclidean", self.check_euclidean)
        if self.initial is not None and not math.isfinite(number("initial", self.initial)):
            raise ValueError(f"initial must be finite or None; got {self.initial}")
        integer("num_images", self.num_images, least=1)
        number("beta", self.beta, least=0.0, below=1.0)
        number("exploration", self.exploration, least=0.0)
        choice("linkage", self.linkage, get_args(Linkage))
        choice("measure", self.measure, ("kl", "l2", "cross_entropy"))

    def to_json(self) -> dict[str, Any]:
        """Return the settings, ready for `json.dumps`."""
        return asdict(self)


class LearnedHierarchySearch:
    """A whole search, from images to a network, that continues after any interruption.

    1. A supernet is trained on networks drawn uniformly.
    2. The distances between the networks' outputs for some validation images are clustered into a
       binary tree.
    3. Fresh weights are trained on networks that a Monte-Carlo tree search draws from the tree.
    4. The sampler proposes networks, and the most accurate one is chosen.

    With `folder`, training is written to `pretraining.pt` and `search.pt` after each epoch
    and the tree to `tree.npz`; the same call goes on where an earlier one stopped and ends as it
    would have uninterrupted on the same machine.

    Args:
        make_supernet: Builds a supernet with fresh weights from a generator; called twice.
        nets: The N networks to choose from, for example all of the space or those within a budget;
            distances take N^2 numbers of memory, so that beyond about 20,000 a sample of them has
            to do.
        data: Training and validation images; test images are not looked at.
        settings: How.
        generator: Source of weights, order of images and drawn networks, on the CPU.
        folder: Where to continue from, or to write to.

    Raises:
        ValueError: The folder holds another search.
        ArchitectureError: A network is not of the supernet's space.

    Reference: "Neural Architecture Search by Learning a Hierarchical Search Space", 2025,
        Algorithm 1.

    Example:
        >>> from hotnas_torch.nn.supernets.pooling_supernet import PoolingSupernet
        >>> from hotnas_torch.nn.data import digits
        >>> from hotnas_torch.spaces import Pooling
        >>> generator = torch.Generator().manual_seed(0)
        >>> few = SupernetSettings(epochs=1, batch_size=32)
        >>> search = LearnedHierarchySearch(
        ...     lambda g: PoolingSupernet(width=0.125, input_channels=1, generator=g),
        ...     list(Pooling()),
        ...     digits(generator=generator, num_train=64, num_validation=64),
        ...     LearnedHierarchySettings(pretraining=few, search=few, num_images=64),
        ...     generator=generator,
        ... )
        >>> result = search.run(progress=False)
        >>> search.tree.num_architectures, result.network in Pooling()
        (36, True)
    """

    def __init__(
        self,
        make_supernet: Callable[[torch.Generator], SinglePathSupernet],
        nets: Sequence[Network],
        data: LabelledImages,
        settings: LearnedHierarchySettings,
        *,
        generator: torch.Generator,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.settings = settings
        self._make = make_supernet
        self._nets = list(nets)
        self._data = data
        self._generator = generator
        self._folder = None if folder is None else Path(folder)
        self._tree: ArchitectureTree | None = None
        self.pretraining = SupernetSearch(
            make_supernet(generator),
            self._nets,
            Uniform(len(self._nets)),
            data,
            settings.pretraining,
            generator=generator,
            checkpoint=self._file("pretraining.pt"),
        )
        """The training that the distances come from."""
        self.search: SupernetSearch | None = None
        """The search in the tree, once it has begun."""

    def _file(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / name

    @property
    def tree(self) -> ArchitectureTree:
        """The learned hierarchy; its leaves are numbered as the networks.

        Raises:
            RuntimeError: The pre-training is not done.
        """
        if self._tree is None:
            raise RuntimeError("there is no tree before the pre-training is done (call run)")
        return self._tree

    def distances(self) -> Tensor:
        """Return the distances between the outputs of all networks, with the present weights.

        They are those of the tree once the pre-training is done.

        Returns:
            (N, N), on the supernet's device.
        """
        supernet, validation = self.pretraining.supernet, self._data.validation
        device = next(supernet.parameters()).device
        # The first ones: the images are in random order, and no number is drawn.
        places = torch.arange(min(self.settings.num_images, len(validation)))
        ((images, _),) = validation.to(device).batches([places])
        return output_distances(supernet.outputs(images, self._nets), self.settings.measure)

    def run(self, *, progress: bool = True) -> SupernetResult:
        """Do what is not done yet, and return the choice.

        Args:
            progress: Show progress bars on a terminal.

        Raises:
            RuntimeError: A loss became non-finite.
        """
        settings = self.settings
        self.pretraining.run(progress=progress)
        self._tree = self._learn()
        if self.search is None:
            self.search = SupernetSearch(
                self._make(self._generator),
                self._nets,
                TreeSampler(
                    self._tree,
                    beta=settings.beta,
                    exploration=settings.exploration,
                    initial=settings.initial,
                    schedule=settings.schedule,
                ),
                self._data,
                settings.search,
                generator=self._generator,
                checkpoint=self._file("search.pt"),
            )
        return self.search.run(progress=progress)

    def _learn(self) -> ArchitectureTree:
        if self._tree is not None:
            return self._tree
        file = self._file("tree.npz")
        if file is not None and file.exists():
            return ArchitectureTree.load(file)
        tree = cluster(
            self.distances(),
            linkage=self.settings.linkage,
            check_euclidean=self.settings.check_euclidean,
        )
        if file is not None:
            tree.save(file)
        return tree
