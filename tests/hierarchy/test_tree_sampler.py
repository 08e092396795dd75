import math

import pytest
import torch

from hotnas_torch.hierarchy import (
    Schedule,
    TreeSampler,
    flat_tree,
    layer_tree,
    random_tree,
)
from tests.generators.trees import random_shape

COLD = Schedule(warm_up=0.0, start=0.1, end=0.1)


class Walker:
    """Algorithm 1 of the paper, node by node, in plain Python."""

    def __init__(self, tree, *, beta, exploration, initial, unvisited, regularization):
        self.tree, self.beta, self.exploration = tree, beta, exploration
        self.unvisited, self.regularization = unvisited, regularization
        self.rewards = [[] for _ in range(tree.num_nodes)]
        self.shared = [[] for _ in range(int(tree.group.max()) + 1)]
        self.initial = initial

    def value(self, rewards):
        if self.initial is None:
            weights = [self.beta**age for age in reversed(range(len(rewards)))]
            total = sum(w * r for w, r in zip(weights, rewards, strict=True))
            return total / sum(weights) if rewards else 0.0
        value = self.initial
        for reward in rewards:
            value = self.beta * value + (1 - self.beta) * reward
        return value

    def update(self, architecture, reward):
        for node in self.tree.path(architecture):
            self.rewards[node].append(reward)
            if (group := int(self.tree.group[node])) >= 0:
                self.shared[group].append(reward)

    def probabilities(self, temperature, explore, allowed):
        found = torch.zeros(self.tree.num_architectures, dtype=torch.float64)

        def descend(node, p):
            children = [
                child
                for child in self.tree.children(node)
                if any(allowed[a] for a in self.tree.below(child).tolist())
            ]
            if not children:
                found[int(self.tree.architecture[node])] = p
                return
            visits = {child: len(self.rewards[child]) for child in children}
            new = [child for child in children if not visits[child]]
            old = [child for child in children if visits[child]]
            ignored = False
            if explore and self.unvisited == "first" and new:
                children, ignored = new, True
            if not explore:
                children, ignored = (old, False) if old else (new, True)
            scores = []
            for child in children:
                score = 0.0
                if not ignored:
                    score = self.value(self.rewards[child])
                    if explore:
                        ratio = math.log(max(1, len(self.rewards[node]))) / max(1, visits[child])
                        score += self.exploration * math.sqrt(ratio)
                if self.regularization and (group := int(self.tree.group[child])) >= 0:
                    score += self.regularization * self.value(self.shared[group])
                scores.append(score / temperature)
            for child, q in zip(
                children, torch.tensor(scores, dtype=torch.float64).softmax(0), strict=True
            ):
                descend(child, p * float(q))

        descend(0, 1.0)
        return found


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize(
    ("initial", "unvisited", "regularization"),
    [(1.0, "first", 0.0), (None, "first", 0.0), (1.0, "initial", 0.0), (1.0, "initial", 0.5),
     (None, "first", 0.5)],
)  # fmt: skip
def test_the_walk_is_that_of_the_printed_algorithm(
    initial, unvisited, regularization, explore, rng
):
    codes = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(2))
    tree = layer_tree(codes) if regularization else random_shape(14, rng)
    settings = {
        "beta": 0.9,
        "exploration": 0.3,
        "initial": initial,
        "unvisited": unvisited,
        "regularization": regularization,
    }
    walker, sampler = Walker(tree, **settings), TreeSampler(tree, **settings, schedule=COLD)
    num = tree.num_architectures
    for step in range(40):
        allowed = torch.rand(num, generator=rng) < (0.6 if step % 2 else 2.0)
        allowed[step % num] = True
        expected = walker.probabilities(0.1, explore, allowed.tolist())
        found = sampler.log_probabilities(explore=explore, allowed=allowed).exp()
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-7)
        architecture = int(torch.randint(num, (), generator=rng))
        reward = float(torch.rand((), generator=rng))
        walker.update(architecture, reward)
        sampler.update(torch.tensor([architecture]), torch.tensor([reward], dtype=torch.float64))


def test_every_architecture_of_a_node_is_tried_before_one_is_repeated_there(rng):
    sampler = TreeSampler(flat_tree(9), schedule=COLD)
    seen = []
    for _ in range(9):
        drawn = sampler.sample(1, generator=rng)
        seen.append(int(drawn))
        sampler.update(drawn, torch.rand(1, generator=rng))
    assert sorted(seen) == list(range(9))


def test_the_greedy_choice_follows_the_best_branch_not_the_best_leaf():
    tree = layer_tree(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]))
    sampler = TreeSampler(tree, initial=None, schedule=COLD)
    sampler.update(torch.tensor([0, 1, 2, 3]), torch.tensor([0.6, 0.7, 0.9, 0.0]))
    assert int(sampler.best(1, generator=torch.Generator())) == 1


def test_a_search_finds_a_good_branch(rng):
    tree = random_tree(64, generator=rng)
    good = tree.below(tree.children(tree.children(0)[0])[1])
    rewards = torch.zeros(64)
    rewards[good] = 1.0
    sampler = TreeSampler(tree, initial=None, schedule=Schedule(warm_up=0.2))
    for step in range(60):
        sampler.set_progress(step / 60)
        drawn = sampler.sample(1, generator=rng)
        sampler.update(drawn, rewards[drawn])
    assert float(sampler.log_probabilities(explore=False).exp()[good].sum()) > 0.99
    assert int(sampler.best(1, generator=rng)) in good.tolist()


def test_one_architecture_alone_is_a_tree(rng):
    sampler = TreeSampler(flat_tree(1), schedule=COLD)
    assert sampler.sample(3, generator=rng).tolist() == [0, 0, 0]
    sampler.update(torch.tensor([0]), torch.tensor([0.5]))
    assert sampler.best(2, generator=rng).tolist() == [0]


def test_wrong_settings_are_refused():
    tree = flat_tree(3)
    for settings, message in (
        ({"beta": 1.0}, "beta must be in"),
        ({"exploration": -1.0}, "exploration must be finite and >= 0"),
        ({"unvisited": "last"}, "unvisited must be one of 'first', 'initial'"),
        ({"unvisited": "initial", "initial": None}, "initial must be a number"),
        ({"regularization": 0.5}, "regularization must be 0 on a tree whose nodes have no groups"),
    ):
        with pytest.raises(ValueError, match=message):
            TreeSampler(tree, **settings)
    with pytest.raises(TypeError, match="tree must be an ArchitectureTree"):
        TreeSampler(3)
    other = TreeSampler(random_tree(3, generator=torch.Generator()))
    with pytest.raises(ValueError, match="its settings is"):
        other.load_state_dict(TreeSampler(tree).state_dict())


# --- averaged communication -----------------------------------------------------------------------


def averaged(weight, **settings):
    codes = torch.cartesian_prod(torch.arange(2), torch.arange(3))
    return TreeSampler(
        layer_tree(codes),
        beta=0.5,
        regularization=weight,
        communication="averaged",
        schedule=Schedule(warm_up=0.0, start=0.5, end=0.5),
        **settings,
    )


def test_equivalent_nodes_are_updated_with_the_one_that_was_visited():
    sampler = averaged(0.5)
    # Nodes: root, first layer 1-2, second layer 3-5 below 1 and 6-8 below 2.
    sampler.update(torch.tensor([1]), torch.tensor([0.0]))
    assert sampler.values.tolist() == [0.5, 0.5, 1.0, 1.0, 0.5, 1.0, 1.0, 0.75, 1.0]
    assert sampler.visits.tolist() == [1, 1, 0, 0, 1, 0, 0, 0, 0]


def test_complete_communication_makes_the_layers_independent(rng):
    sampler = averaged(1.0, exploration=0.0, initial=0.3, unvisited="initial")
    sampler.update(torch.randint(6, (40,), generator=rng), torch.rand(40, generator=rng))
    below = sampler.node_log_probabilities()
    torch.testing.assert_close(below[3:6], below[6:9])
    assert len(set(below[3:6].tolist())) == 3
    state = sampler.state_dict()
    other = averaged(1.0, exploration=0.0, initial=0.3, unvisited="initial")
    other.load_state_dict(state)
    assert torch.equal(other.log_probabilities(), sampler.log_probabilities())
    with pytest.raises(ValueError, match="its settings is"):
        averaged(0.5).load_state_dict(state)


def test_a_node_that_equivalent_ones_were_rewarded_for_is_preferred_before_its_first_visit():
    sampler = averaged(1.0, exploration=0.0)
    for _ in range(20):
        sampler.update(torch.tensor([0, 1, 2]), torch.tensor([0.1, 0.9, 0.2]))
    # Below the branch that was never taken, all are unvisited.
    below = sampler.node_log_probabilities()[6:9]
    assert int(below.argmax()) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 1.5}, "regularization must be at most 1 with communication='averaged'"),
        ({"weight": -0.5}, "regularization must be"),
    ],
)
def test_weights_of_averages_are_shares(settings, message):
    with pytest.raises(ValueError, match=message):
        averaged(**settings)


def test_another_communication_is_refused():
    with pytest.raises(ValueError, match="communication must be one of 'added', 'averaged'"):
        TreeSampler(random_tree(4, generator=torch.Generator()), communication="max")
