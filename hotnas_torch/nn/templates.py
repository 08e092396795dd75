"""A layer of learnable template graphs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hotnas_torch.arguments import boolean, choice, integer, number, random_generator
from hotnas_torch.ot.fgw import fgw
from hotnas_torch.ot.graphs import Graphs, checked_graphs, feature_costs
from hotnas_torch.ot.terms import Loss

__all__ = ["FGWTemplates"]


class FGWTemplates(torch.nn.Module):
    """Fused Gromov-Wasserstein distances of graphs to learnable template graphs.

    What stands for a graph are its distances to K templates, whose structures, features and masses
    are learned, and the weight alpha of structure against features as well. Graphs may have any
    size. A distance is the least of a few local optima, one of whose starts takes nodes as they
    are numbered: another order of the nodes may lead to another optimum, mostly where nodes tie.

    Args:
        num_templates: Templates K.
        nodes: Nodes of each.
        num_features: Features of a node, 0 for graphs that are structure alone.
        alpha: Weight of the structure: a number in [0, 1] to hold it, None to learn it, from 0.5.
            Without features it is 1.
        per_template: Whether every template has an alpha of its own.
        train_masses: Whether masses of the templates' nodes are learned; they are uniform if not.
        loss: Of structures and features, "l2" or "l1".
        num_starts: Starts of each distance, 1 to 3; see `hotnas_torch.ot.fgw`. With one, half the
            time, distances jump between optima from step to step, and less is learned.
        max_iter: Most transport problems of a start; graphs that need more have an upper bound of
            their distance, and its gradient.
        generator: Source of the first templates: structures uniform in [0, 1] and symmetric,
            features normal.

    Attributes:
        struct: Parameter, shape (K, nodes, nodes); its symmetric part is the structure.
        features: Parameter, shape (K, nodes, num_features), None without features.
        mass_logits: Parameter (or buffer), shape (K, nodes); the masses are its softmax.
        alpha: The weight that is held, None if it is learned.
        alpha_logit: Parameter, shape () or (K,); alpha is its sigmoid. None where it is held.

    Raises:
        TypeError, ValueError: An argument of the wrong kind, or out of range.

    Complexity: K problems of fused Gromov-Wasserstein per graph, solved as one batch.

    Reference:
        C. Vincent-Cuaz, R. Flamary, M. Corneli, T. Vayer, N. Courty, Template based graph neural
        network with optimal transport distances, NeurIPS 2022.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> generator = torch.Generator().manual_seed(0)
        >>> layer = ht.nn.FGWTemplates(4, 3, generator=generator)
        >>> layer([torch.ones(2, 2), torch.ones(5, 5)]).shape
        torch.Size([2, 4])
    """

    mass_logits: Tensor
    features: torch.nn.Parameter | None
    alpha_logit: torch.nn.Parameter | None

    def __init__(
        self,
        num_templates: int,
        nodes: int,
        num_features: int = 0,
        *,
        alpha: float | None = None,
        per_template: bool = False,
        train_masses: bool = True,
        loss: Loss = "l2",
        num_starts: int = 3,
        max_iter: int = 100,
        generator: torch.Generator | None = None,
    ) -> None:
        num_templates = integer("num_templates", num_templates, least=1)
        nodes = integer("nodes", nodes, least=1)
        num_features = integer("num_features", num_features, least=0)
        if alpha is not None:
            alpha = number("alpha", alpha, least=0.0, most=1.0)
            if not num_features and alpha != 1.0:
                raise ValueError(
                    f"alpha must be 1 or None without features; got {alpha:g} (pass num_features)"
                )
        per_template = boolean("per_template", per_template)
        train_masses = boolean("train_masses", train_masses)
        generator = random_generator(generator)
        super().__init__()
        self.loss = choice("loss", loss, ("l2", "l1"))
        self.num_starts = integer("num_starts", num_starts, least=1, most=3)
        self.max_iter = integer("max_iter", max_iter, least=1)
        self.alpha = 1.0 if not num_features else alpha
        struct = torch.rand(num_templates, nodes, nodes, generator=generator)
        self.struct = torch.nn.Parameter(0.5 * (struct + struct.mT))
        drawn = torch.randn(num_templates, nodes, num_features, generator=generator)
        self.register_parameter("features", torch.nn.Parameter(drawn) if num_features else None)
        logits = torch.zeros(num_templates, nodes)
        if train_masses:
            self.mass_logits = torch.nn.Parameter(logits)
        else:
            self.register_buffer("mass_logits", logits)
        logit = torch.zeros(num_templates if per_template else ())
        self.register_parameter(
            "alpha_logit", torch.nn.Parameter(logit) if self.alpha is None else None
        )

    def templates(self) -> Graphs:
        """Return the templates: symmetric structures, features and masses, in the graph."""
        struct = 0.5 * (self.struct + self.struct.mT)
        return Graphs(struct, self.features, self.mass_logits.softmax(-1))

    def forward(
        self,
        structs: Tensor | Sequence[Tensor],
        features: Tensor | Sequence[Tensor] | None = None,
        masses: Tensor | Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Compute the distances of graphs to the templates.

        Args:
            structs: Structures, shape (*batch, n, n), or a list of matrices of different sizes; of
                the dtype and on the device of the parameters.
            features: Features of the nodes, shape (*batch, n, num_features), or a list.
            masses: Masses, shape (*batch, n), sum 1, or a list; None for uniform. A node of zero
                mass is absent (padding).

        Returns:
            Distances, shape (*batch, K), without a root; differentiable in the parameters and the
            graphs. NaN where a graph or a template is no number any more.

        Raises:
            TypeError, ValueError: The graphs are not what is said above; the message names what
                is wrong.
        """
        graphs = checked_graphs(structs, features, masses)
        self._check(graphs)
        templates = self.templates()
        # The templates are the last dimension before the nodes.
        struct, mass = graphs.struct[..., None, :, :], graphs.masses[..., None, :]
        if graphs.features is None or templates.features is None:
            shape = (*graphs.masses.shape[:-1], *templates.masses.shape)
            nodes = graphs.masses.shape[-1]
            cost = struct.new_zeros(*shape[:-1], nodes, shape[-1])
        else:
            rows = graphs.features[..., None, :, :]
            cost = feature_costs(rows, templates.features, self.loss)
        alpha = self.alpha if self.alpha_logit is None else self.alpha_logit.sigmoid()
        return fgw(
            cost,
            struct,
            templates.struct,
            mass,
            templates.masses,
            alpha=1.0 if alpha is None else alpha,
            loss=self.loss,
            num_starts=self.num_starts,
            max_iter=self.max_iter,
            validate=False,
        ).objective

    def _check(self, graphs: Graphs) -> None:
        like = self.struct
        if graphs.struct.dtype != like.dtype or graphs.struct.device != like.device:
            raise TypeError(
                f"structs must be {like.dtype} on {like.device}, as the parameters are; got"
                f" {graphs.struct.dtype} on {graphs.struct.device} (use layer.to(structs))"
            )
        found = 0 if graphs.features is None else graphs.features.shape[-1]
        wanted = 0 if self.features is None else self.features.shape[-1]
        if found != wanted:
            raise ValueError(
                f"features must have {wanted} numbers per node, as num_features says; got {found}"
            )

    def extra_repr(self) -> str:
        """Return what the representation shows."""
        num_templates, nodes = self.mass_logits.shape
        width = 0 if self.features is None else self.features.shape[-1]
        alpha = "learned" if self.alpha is None else f"{self.alpha:g}"
        return f"{num_templates}, {nodes}, {width}, alpha={alpha}, loss={self.loss!r}"
