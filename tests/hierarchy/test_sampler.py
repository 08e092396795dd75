"""What every sampler keeps."""

import math

import pytest
import torch
from scipy.stats import chisquare

from hotnas_torch.hierarchy import (
    Boltzmann,
    Budgeted,
    Independent,
    Schedule,
    TreeSampler,
    Uniform,
    layer_tree,
    random_tree,
)

CODES = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(3))
NUM = len(CODES)


def make(name, schedule):
    tree = random_tree(NUM, generator=torch.Generator().manual_seed(3))
    layers = layer_tree(CODES)
    return {
        "uniform": lambda: Uniform(NUM, schedule=schedule),
        "boltzmann": lambda: Boltzmann(NUM, schedule=schedule),
        "independent": lambda: Independent(CODES, schedule=schedule),
        "tree": lambda: TreeSampler(tree, schedule=schedule),
        "tree from nothing": lambda: TreeSampler(tree, initial=None, schedule=schedule),
        "tree, initial": lambda: TreeSampler(tree, unvisited="initial", schedule=schedule),
        "layers": lambda: TreeSampler(layers, regularization=0.5, schedule=schedule),
        "budgeted": lambda: Budgeted(Boltzmann(NUM, schedule=schedule), CODES.sum(1).double(), 4.0),
        "budgeted tree": lambda: Budgeted(
            TreeSampler(tree, schedule=schedule), CODES.sum(1).double(), 3.0, least=2.0
        ),
    }[name]()


NAMES = [
    "uniform", "boltzmann", "independent", "tree", "tree from nothing", "tree, initial", "layers",
    "budgeted", "budgeted tree",
]  # fmt: skip
WARM = Schedule(warm_up=0.5, start=0.3, end=0.1)


def searched(name, generator, steps=60):
    """A sampler in the middle of a search with rewards that favour large codes."""
    sampler = make(name, WARM)
    for step in range(steps):
        sampler.set_progress(step / 80)
        drawn = sampler.sample(1, generator=generator)
        sampler.update(drawn, CODES[drawn].sum(1) / 6)
    return sampler


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_draws_have_the_probabilities_that_are_stated(name, rng):
    sampler = searched(name, rng)
    p = sampler.log_probabilities().exp()
    assert float(p.sum()) == pytest.approx(1.0)
    counts = torch.bincount(sampler.sample(4000, generator=rng), minlength=NUM)
    likely = p > 1e-3
    rest = [float(counts[~likely].sum()) + 1e-9], [4000 * float(p[~likely].sum()) + 1e-9]
    observed = counts[likely].tolist() + rest[0]
    expected = (4000 * p[likely]).tolist() + rest[1]
    assert chisquare(observed, expected, sum_check=False).pvalue > 1e-4
    assert sampler.sample(0, generator=rng).shape == (0,)


def test_before_the_search_draws_are_uniform_and_rewards_recorded(name, rng):
    sampler = make(name, WARM)
    before = sampler.log_probabilities()
    fits = before > -math.inf
    assert torch.equal(before[fits], before[fits][:1].expand(int(fits.sum())))
    sampler.update(torch.arange(NUM)[fits], CODES.sum(1)[fits] / 6)
    assert torch.equal(sampler.log_probabilities(), before)
    best = int(sampler.best(1, generator=rng))
    assert fits[best]
    assert CODES[best].sum() >= CODES[fits].sum(1).double().median()


def test_the_phase_without_records_records_nothing(name):
    sampler = make(name, Schedule.inside_search())
    state = sampler.state_dict()["statistics"]
    sampler.update(torch.tensor([1, 2]), torch.tensor([0.3, 0.5]))
    for key, found in sampler.state_dict()["statistics"].items():
        assert all(torch.equal(values, state[key][k]) for k, values in found.items())
    sampler.set_progress(0.5)
    sampler.update(torch.tensor([1, 2]), torch.tensor([0.3, 0.5]))
    assert any(
        not torch.equal(values, state[key][k])
        for key, found in sampler.state_dict()["statistics"].items()
        for k, values in found.items()
    )


def test_only_what_is_allowed_is_drawn_and_chosen(name, rng):
    sampler = searched(name, rng)
    fits = sampler.log_probabilities(explore=False).exp() >= 0
    if isinstance(sampler, Budgeted):
        fits = sampler.allowed
    # One after the other everything is ruled out, also what the sampler wants most.
    allowed = fits.clone()
    seen = []
    while allowed.any():
        log_p = sampler.log_probabilities(allowed=allowed)
        assert not (log_p[~allowed] > -math.inf).any()
        assert float(log_p.exp().sum()) == pytest.approx(1.0)
        assert allowed[sampler.best(1, generator=rng, allowed=allowed)]
        assert allowed[sampler.best(4, generator=rng, allowed=allowed)].all()
        drawn = sampler.sample(1, generator=rng, allowed=allowed)
        seen.append(int(drawn))
        allowed[drawn] = False
    assert sorted(seen) == fits.nonzero().flatten().tolist()
    with pytest.raises(ValueError, match="at least one architecture"):
        sampler.sample(1, generator=rng, allowed=allowed)


def test_the_final_choice_is_distinct_and_among_what_was_tried(name, rng):
    sampler = make(name, WARM)
    sampler.set_progress(1.0)
    fits = sampler.log_probabilities() > -math.inf
    tried = fits.nonzero().flatten()[:3]
    for _ in range(5):
        sampler.update(tried, torch.tensor([0.2, 0.9, 0.3]))
    many = sampler.best(NUM, generator=rng)
    assert len(set(many.tolist())) == len(many)
    if "independent" not in name:
        assert set(many.tolist()) == set(tried.tolist())
        assert int(sampler.best(1, generator=rng)) == int(tried[1])


def test_a_loaded_state_continues_bit_by_bit(name, rng, tmp_path):
    sampler = searched(name, rng)
    torch.save(sampler.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other = make(name, WARM)
    other.load_state_dict(state)
    for _ in range(5):
        assert torch.equal(other.log_probabilities(), sampler.log_probabilities())
        before = rng.get_state()
        drawn = sampler.sample(3, generator=rng)
        rng.set_state(before)
        assert torch.equal(other.sample(3, generator=rng), drawn)
        rewards = torch.rand(3, generator=rng)
        for one in (sampler, other):
            one.update(drawn, rewards)
    # What was saved is no view of what went on.
    again = make(name, WARM)
    again.load_state_dict(state)
    assert not torch.equal(
        again.log_probabilities(explore=False), sampler.log_probabilities(explore=False)
    )
    again.reset()
    fresh = make(name, WARM)
    fresh.set_progress(1.0)
    again.set_progress(1.0)
    assert torch.equal(again.log_probabilities(), fresh.log_probabilities())


def test_rewards_in_parts_or_at_once_are_the_same(name, rng):
    indices = torch.randint(NUM, (40,), generator=rng)
    rewards = torch.rand(40, generator=rng)
    parts, at_once = make(name, WARM), make(name, WARM)
    at_once.update(indices, rewards)
    for place in range(40):
        parts.update(indices[place : place + 1], rewards[place : place + 1])
    for sampler in (parts, at_once):
        sampler.set_progress(1.0)
    torch.testing.assert_close(parts.log_probabilities(), at_once.log_probabilities())


def test_what_is_wrong_is_refused(name):
    sampler = make(name, WARM)
    for arguments, kind, message in (
        ((torch.tensor([0.0]), torch.tensor([0.0])), TypeError, "indices must be a tensor of int"),
        ((torch.tensor([0]), [0.5]), TypeError, "rewards must be a torch Tensor; got list"),
        ((torch.tensor([0]), torch.tensor([0.5, 0.5])), ValueError, "one entry per reward"),
        ((torch.tensor([0, NUM]), torch.zeros(2)), ValueError, rf"indices\[1\] .* got {NUM}"),
        ((torch.tensor([0]), torch.tensor([torch.nan])), ValueError, r"rewards\[0\] .* got nan"),
    ):
        with pytest.raises(kind, match=message):
            sampler.update(*arguments)
    with pytest.raises(ValueError, match=r"progress must be in \[0, 1\]; got 1.5"):
        sampler.set_progress(1.5)
    with pytest.raises(ValueError, match="num must be at least 1"):
        sampler.best(0, generator=torch.Generator())
    with pytest.raises(ValueError, match="num must be at least 0"):
        sampler.sample(-1, generator=torch.Generator())
    for allowed, kind in ((torch.ones(NUM), TypeError), (torch.ones(3) > 0, ValueError)):
        with pytest.raises(kind, match="allowed must"):
            sampler.sample(1, generator=torch.Generator(), allowed=allowed)
    state = sampler.state_dict()
    for changes, message in (
        ({"version": 9}, "newer version"),
        ({"version": True}, "got version True"),
        ({"version": "1"}, "got version '1'"),
        ({"sampler": "other"}, "its sampler is 'other'"),
        ({"num_architectures": 4}, "its num_architectures is 4"),
        ({"settings": {"beta": 0.1}}, "its settings is"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler.load_state_dict(state | changes)
    with pytest.raises(ValueError, match="no state of a sampler"):
        sampler.load_state_dict({})
