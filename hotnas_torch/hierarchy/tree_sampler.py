"""Monte-Carlo tree search over a tree of architectures that is complete from the start."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from hotnas_torch.arguments import choice, kind, number
from hotnas_torch.hierarchy.running_mean import RunningMean, SharedMean
from hotnas_torch.hierarchy.sampler import Sampler
from hotnas_torch.hierarchy.schedule import Schedule
from hotnas_torch.hierarchy.tree import ArchitectureTree
from hotnas_torch.segments import segment_logsumexp

__all__ = ["TreeSampler"]


class TreeSampler(Sampler):
    r"""Walks from the root to a leaf, at each node by a Boltzmann draw among the children.

    .. math:: p(a_i) \propto \exp(R(a_i) / T), \quad
        R(a_i) = C(a_i) + \lambda \sqrt{\log n_{parent(i)} / n_i}, \quad
        C(a_i) \leftarrow \beta C(a_i) + (1 - \beta) \, \text{reward}

    with n the number of visits of a node; a reward is recorded in all nodes between the
    architecture's leaf and the root. The final choice has lambda 0 and leaves out what was never
    visited beside what was.

    Args:
        tree: The hierarchy.
        beta: Smoothing of the rewards, in [0, 1).
        exploration: lambda, >= 0.
        initial: Value C of a node before its first visit; None starts from nothing, so that a
            node's value is the mean of its rewards weighted by beta to the power of their age.
        unvisited: `"first"`: children never visited are drawn before all others, uniformly, as an
            infinite bonus asks for; `"initial"`: they count as visited once, with value
            `initial`.
        regularization: Weight of the node communication, >= 0, between nodes of the same `group`
            of the tree.
        communication: `"added"`: to R is added the weight times the smoothed reward of all nodes of
            the group. `"averaged"`: a reward of a node is a reward of every other node of its
            group, too, smoothed with the weight times (1 - beta); the weight is then at most 1.
        schedule: Phases and temperature; None takes `Schedule`'s defaults.

    Attributes:
        tree: As passed.

    Raises:
        TypeError: `tree` is not an ArchitectureTree.
        ValueError: An argument out of range; `unvisited="initial"` without `initial`; a
            regularisation of a tree without groups.

    Complexity: O(M) per draw after an update, for M nodes; O(num * levels) per update.

    Reference: "Neural Architecture Search by Learning a Hierarchical Search Space", 2025, Eq. 2-4
        and Algorithm 1, whose printed R has n outside the root (Eq. 3 is taken). The regularisation
        is that of Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR
        2021. The 2025 paper describes it as the averaged form; neither prints a weight.

    Example:
        >>> tree = ArchitectureTree.from_parents([-1, 0, 0, 1, 1], [-1, -1, 2, 0, 1])
        >>> sampler = TreeSampler(tree, schedule=Schedule(warm_up=0.0))
        >>> sampler.update(torch.tensor([0, 2, 1]), torch.tensor([0.9, 0.2, 0.8]))
        >>> sampler.best(1, generator=torch.Generator())
        tensor([0])
    """

    name = "tree"

    def __init__(
        self,
        tree: ArchitectureTree,
        *,
        beta: float = 0.95,
        exploration: float = 0.5,
        initial: float | None = 1.0,
        unvisited: Literal["first", "initial"] = "first",
        regularization: float = 0.0,
        communication: Literal["added", "averaged"] = "added",
        schedule: Schedule | None = None,
    ) -> None:
        kind("tree", tree, ArchitectureTree)
        for argument, value in (("exploration", exploration), ("regularization", regularization)):
            number(argument, value, least=0.0)
        choice("unvisited", unvisited, ("first", "initial"))
        choice("communication", communication, ("added", "averaged"))
        if communication == "averaged" and regularization > 1.0:
            raise ValueError(
                "regularization must be at most 1 with communication='averaged'; got"
                f" {regularization:g}"
            )
        if unvisited == "initial" and initial is None:
            raise ValueError("initial must be a number with unvisited='initial'; got None")
        num_groups = int(tree.group.max()) + 1
        if regularization and not num_groups:
            raise ValueError(
                "regularization must be 0 on a tree whose nodes have no groups (trees of layers "
                "have them)"
            )
        super().__init__(tree.num_architectures, schedule=schedule)
        self.tree = tree
        self._digest = tree.digest()
        self.exploration = float(exploration)
        self.unvisited = unvisited
        self.regularization = float(regularization)
        self.communication = communication
        self._averages = communication == "averaged"
        self._rewards: RunningMean | SharedMean = (
            SharedMean(tree.group, beta=beta, weight=self.regularization, initial=initial)
            if self._averages
            else RunningMean(tree.num_nodes, beta=beta, initial=initial)
        )
        self._shared = RunningMean(num_groups, beta=beta, initial=initial)

    def settings(self) -> dict[str, Any]:
        """Return the constants of the method and the tree's digest."""
        settings = {
            "beta": self._rewards.beta,
            "exploration": self.exploration,
            "initial": self._rewards.initial,
            "unvisited": self.unvisited,
            "regularization": self.regularization,
            "tree": self._digest,
        }
        # States of earlier versions have the added form and do not say so.
        return settings | ({"communication": self.communication} if self._averages else {})

    @property
    def visits(self) -> Tensor:
        """(M,) int64, how often each node was visited."""
        return self._rewards.count

    @property
    def values(self) -> Tensor:
        """(M,) float64, the smoothed reward C of each node."""
        return self._rewards.value

    def node_log_probabilities(
        self, *, explore: bool = True, allowed: Tensor | None = None
    ) -> Tensor:
        """Return log p of each node given its parent.

        Args:
            explore: With the exploration term and unvisited nodes as the method treats them;
                otherwise lambda is 0 and unvisited nodes are left out beside visited ones.
            allowed: (N,) bool, architectures that may be reached; None allows all.

        Returns:
            (M,) float64, 0 for the root, -inf for nodes that lead to nothing allowed.
        """
        tree, count = self.tree, self.visits
        unvisited = count == 0
        shared = torch.zeros(tree.num_nodes, dtype=torch.float64)
        if self.regularization and not self._averages:
            grouped = tree.group >= 0
            shared[grouped] = self.regularization * self._shared.value[tree.group[grouped]]
        scores = shared + self.values
        if explore and self.exploration:
            above = count[tree.parent.clamp_min(0)].clamp_min(1).double()
            scores += self.exploration * (above.log() / count.clamp_min(1)).sqrt()
        reachable = torch.ones(tree.num_nodes, dtype=torch.bool)
        if allowed is not None:
            leaves = torch.zeros(tree.num_nodes, dtype=torch.int64)
            leaves[tree.leaf] = allowed.long()
            reachable = tree.sum_up(leaves) > 0
        if not explore or self.unvisited == "first":
            # Among siblings only the unvisited count, or in the final choice only the visited.
            scores[unvisited] = (self.values if self._averages else shared)[unvisited]
            preferred = unvisited if explore else ~unvisited
            reachable &= preferred | ~self._beside(preferred & reachable)
        scores = (scores / self.temperature).masked_fill(~reachable, -math.inf)
        return self._normalized(scores)

    def _beside(self, chosen: Tensor) -> Tensor:
        """Return for each node whether it or a sibling is among the chosen ones."""
        parent = self.tree.parent.clamp_min(0)
        found = torch.zeros(self.tree.num_nodes, dtype=torch.bool)
        found[parent[1:][chosen[1:]]] = True
        among = found[parent]
        among[0] = chosen[0]
        return among

    def _normalized(self, scores: Tensor) -> Tensor:
        """Log-softmax over the children of each node."""
        parent = self.tree.parent[1:]
        below = scores[1:]
        total = segment_logsumexp(below, parent, len(scores))
        log_p = torch.zeros_like(scores)
        log_p[1:] = torch.where(below.isfinite(), below - total[parent], -math.inf)
        return log_p

    def _log_weights(self, *, explore: bool, allowed: Tensor | None) -> Tensor:
        below = self.node_log_probabilities(explore=explore, allowed=allowed)
        return self.tree.sum_down(below)[self.tree.leaf]

    def _greedy(self, allowed: Tensor | None) -> int:
        log_p = self.node_log_probabilities(explore=False, allowed=allowed)
        node = 0
        while len(children := self.tree.children(node)):
            node = children[int(log_p[children.start : children.stop].argmax())]
        return int(self.tree.architecture[node])

    def _record(self, indices: Tensor, rewards: Tensor) -> None:
        nodes, owners = self.tree.ancestors(indices)
        self._rewards.record(nodes, rewards[owners], owners)
        group = self.tree.group[nodes]
        grouped = group >= 0
        self._shared.record(group[grouped], rewards[owners[grouped]], owners[grouped])

    def _statistics(self) -> dict[str, dict[str, Tensor]]:
        return {"rewards": self._rewards.state_dict(), "shared": self._shared.state_dict()}

    def _load_statistics(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._rewards.load_state_dict(state["rewards"])
        self._shared.load_state_dict(state["shared"])
