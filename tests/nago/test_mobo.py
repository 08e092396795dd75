import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from botorch.acquisition.analytic import LogExpectedImprovement
from botorch.models import ModelListGP, SingleTaskGP
from botorch.models.model import Model
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

from hotnas_torch.nago import (
    MOBO,
    BNNSurrogate,
    GPSurrogate,
    HypervolumeImprovement,
    RandomChoice,
    Sampling,
    UncertainPareto,
    UnitBox,
    hypervolume,
)
from hotnas_torch.nago.selection import SelectionInputs, largest_slopes, local_penalty
from hotnas_torch.search.bayesian.acquisition import AcquisitionInputs
from hotnas_torch.search.randomness import draw_seed


def plain_gp(X: Tensor, Y: Tensor, generator: torch.Generator) -> Model:
    """A process with the parameters that it starts with: quick, and the same always."""
    return ModelListGP(*(SingleTaskGP(X, y[:, None]) for y in Y.T)).eval()


FEW = BNNSurrogate(
    sampling=Sampling(num_chains=3, num_samples=4, num_burn_in=100, thinning=5, num_descent=20)
)
QUICK = UncertainPareto(population=20, generations=8)
CLIMB = HypervolumeImprovement(num_samples=16, raw_samples=24, num_restarts=1, max_iter=5)


def make(seed: int = 0, dim: int = 2, **settings: object) -> MOBO:
    options = {"selection": QUICK, "surrogate": plain_gp} | settings
    return MOBO(UnitBox(dim), generator=torch.Generator().manual_seed(seed), **options)


def objectives(rows: Tensor) -> Tensor:
    """Best between two points, 0.2 and 0.6 in every column."""
    return torch.stack([(rows - 0.2).square().sum(1), (rows - 0.6).square().sum(1)], dim=1)


def run(search: MOBO, nums: tuple[int, ...]) -> Tensor:
    asked = []
    for num in nums:
        asked.append(search.ask(num))
        search.tell(asked[-1], objectives(asked[-1]))
    return torch.cat(asked)


EVERY = [
    pytest.param(QUICK, plain_gp, id="pareto-gp"),
    pytest.param(QUICK, FEW, id="pareto-bnn"),
    pytest.param(CLIMB, plain_gp, id="nehvi-gp", marks=pytest.mark.slow),
    pytest.param(CLIMB, FEW, id="nehvi-bnn"),
    pytest.param(RandomChoice(), plain_gp, id="random"),
]


# --- asking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("selection", "surrogate"), EVERY)
def test_it_asks_for_points_of_the_box_each_once(selection: object, surrogate: object) -> None:
    space = UnitBox(2, levels=(4, 3))
    search = MOBO(
        space,
        selection=selection,
        surrogate=surrogate,
        generator=torch.Generator().manual_seed(0),
    )
    rows = run(search, (5, 2, 3))
    assert torch.equal(space.round(rows), rows)
    assert len(rows.unique(dim=0)) == len(rows) == 10


@pytest.mark.parametrize(("selection", "surrogate"), EVERY)
def test_a_resumed_search_asks_what_the_uninterrupted_one_does(
    selection: object, surrogate: object
) -> None:
    settings = {"selection": selection, "surrogate": surrogate}
    whole = make(**settings)
    run(whole, (5, 1))
    waiting = whole.ask(1)
    resumed = make(seed=1, **settings)
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert torch.equal(resumed.pending, waiting)
    assert torch.equal(resumed.ask(1), whole.ask(1))
    assert json.dumps(resumed.state_dict()) == json.dumps(whole.state_dict())


def test_random_search_is_the_same_whatever_was_told() -> None:
    first, second = make(selection=RandomChoice()), make(selection=RandomChoice())
    second.ask(5)
    assert torch.equal(run(first, (5, 3))[5:], second.ask(3))


def test_it_finds_better_fronts_than_random_search() -> None:
    def found(seed: int, selection: object) -> float:
        search = make(seed, dim=4, selection=selection)
        run(search, (8, 4, 4, 4))
        return search.hypervolume(torch.tensor([0.6, 0.6]))

    assert found(0, CLIMB) > found(0, RandomChoice()) + 0.02


def test_a_box_that_is_used_up_is_asked_again() -> None:
    search = MOBO(
        UnitBox(1, levels=(3,)),
        selection=QUICK,
        surrogate=plain_gp,
        generator=torch.Generator().manual_seed(0),
    )
    assert len(run(search, (3, 2))) == 5
    assert len(search.observations[0].unique()) == 3


def test_failures_are_left_out_and_not_asked_again() -> None:
    search = make()
    rows = search.ask(6)
    values = objectives(rows)
    values[2, 0] = math.nan
    search.tell(rows, values)
    assert len(search.front()[0]) <= 5
    assert not (search.ask(4)[:, None] == rows).all(-1).any()
    lost = make()
    lost.tell(lost.ask(6), torch.full((6, 2), math.nan))
    assert len(lost.ask(3)) == 3


def test_values_may_come_in_any_order_and_unasked() -> None:
    search = make()
    rows = search.ask(4)
    search.tell(rows[[2, 0]], objectives(rows[[2, 0]]))
    assert torch.equal(search.pending, rows[[1, 3]])
    other = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
    search.tell(other, objectives(other))
    assert len(search.observations[0]) == 4
    assert torch.equal(search.pending, rows[[1, 3]])


# --- fronts ---------------------------------------------------------------------------------------


def test_the_front_is_what_nothing_dominates() -> None:
    search = make()
    rows = torch.arange(5, dtype=torch.float64)[:, None].expand(5, 2) / 5
    values = torch.tensor([[3.0, 1.0], [2.0, 2.0], [2.0, 2.0], [4.0, 1.0], [1.0, 5.0]])
    search.tell(rows, values)
    front_rows, front_values = search.front()
    assert front_values.tolist() == [[1.0, 5.0], [2.0, 2.0], [3.0, 1.0]]
    assert torch.equal(front_rows, rows[[4, 1, 0]])


def test_the_hypervolume_is_the_dominated_volume(rng: torch.Generator) -> None:
    values = torch.rand(12, 3, generator=rng, dtype=torch.float64)
    reference = torch.tensor([0.9, 1.0, 0.8], dtype=torch.float64)
    points = torch.rand(40000, 3, generator=rng, dtype=torch.float64) * reference
    inside = (values[:, None] <= points).all(-1).any(0).double().mean() * reference.prod()
    assert abs(hypervolume(values, reference) - inside.item()) < 0.01
    assert hypervolume(values[:0], reference) == 0.0
    assert hypervolume(reference[None] + 0.1, reference) == 0.0
    with pytest.raises(ValueError, match="reference"):
        hypervolume(values, reference[:2])


# --- selection ------------------------------------------------------------------------------------


@pytest.fixture
def inputs(rng: torch.Generator) -> SelectionInputs:
    X = torch.rand(12, 2, generator=rng, dtype=torch.float64)
    Y = -objectives(X)
    nothing = X[:0]
    return SelectionInputs(UnitBox(2), X, Y, X, nothing, rng, lambda: plain_gp(X, Y, rng))


def test_the_penalty_is_a_cone_around_pending_points(inputs: SelectionInputs) -> None:
    slopes = largest_slopes(inputs)
    centre = inputs.X[:1]
    steps = torch.tensor([0.0, 0.01, 0.1, 0.5, 50.0], dtype=torch.float64)
    rows = centre + steps[:, None] * centre.new_tensor([1.0, 0.0])
    found = local_penalty(inputs.model, rows, centre, inputs.Y, slopes)
    assert found[0] == 0.0
    assert (found.diff() > 0).all()
    assert abs(found[-1].item() - 1.0) < 1e-3
    # Close to the point both cones are straight.
    posterior = inputs.model.posterior(centre)
    gap = (posterior.mean - inputs.Y.amax(0)).abs() + posterior.variance.sqrt()
    expected = (0.01 * slopes / gap).prod()
    torch.testing.assert_close(found[1], expected, rtol=1e-2, atol=0.0)
    nowhere = local_penalty(inputs.model, rows, centre[:0], inputs.Y, slopes)
    assert torch.equal(nowhere, torch.ones(5, dtype=torch.float64))


def test_slopes_are_those_of_the_mean(inputs: SelectionInputs) -> None:
    slopes = largest_slopes(inputs)
    # Differences of the mean on a grid never exceed them by much, and come near.
    line = torch.linspace(0.0, 1.0, 60, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1)
    with torch.no_grad():
        mean = inputs.model.posterior(grid.reshape(-1, 2)).mean.reshape(60, 60, 2)
    across = (mean[1:, :-1] - mean[:-1, :-1]) * 59
    along = (mean[:-1, 1:] - mean[:-1, :-1]) * 59
    steepest = (across.square() + along.square()).sqrt().amax((0, 1))
    assert (slopes > 0.8 * steepest).all()
    assert (slopes < 1.2 * steepest).all()


def test_penalties_spread_a_batch(inputs: SelectionInputs) -> None:
    def spread(penalize: bool) -> float:
        fresh = SelectionInputs(
            inputs.space,
            inputs.X,
            inputs.Y,
            inputs.known,
            inputs.pending,
            torch.Generator().manual_seed(3),
            inputs.fit,
        )
        rows = UncertainPareto(penalize=penalize)(fresh, 4)
        return float(torch.pdist(rows).min())

    assert spread(True) > 2.0 * spread(False)


def test_the_most_uncertain_compromise_is_chosen(inputs: SelectionInputs) -> None:
    # Everything in the box, scored by the acquisition functions as they are.
    line = torch.linspace(0.0, 1.0, 41, dtype=torch.float64)
    rows = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1).reshape(-1, 2)
    model = inputs.model
    with torch.no_grad():
        best = model.posterior(inputs.X).mean.amax(0)
        values = torch.stack(
            [
                LogExpectedImprovement(model.subset_output([m]), best_f=best[m])(rows[:, None])
                for m in range(2)
            ],
            dim=1,
        )
        front = rows[is_non_dominated(values)]
        widest = model.posterior(front).variance.prod(1).max()
        chosen = UncertainPareto(population=60, generations=40, observation_noise=False)(inputs, 1)
        found = model.posterior(chosen).variance.prod(1)
    assert found > 0.8 * widest
    assert torch.cdist(chosen, front).min() < 0.1


class Coordinates:
    """In place of acquisition functions: the larger the row's entry, the better."""

    def __init__(self) -> None:
        self.rows = torch.empty(0)
        self.given: list[AcquisitionInputs] = []

    def __call__(self, _: Model, given: AcquisitionInputs) -> Callable[[Tensor], Tensor]:
        column = len(self.given)
        self.given.append(given)

        def values(rows: Tensor) -> Tensor:
            self.rows = rows.squeeze(1)
            return rows[:, 0, column]

        return values


def test_fronts_are_used_up_in_order_the_most_uncertain_point_first(
    inputs: SelectionInputs,
) -> None:
    models = inputs.model.models
    models[1].covar_module.lengthscale = 0.1  # objectives are uncertain in different places
    scores = Coordinates()
    choose = UncertainPareto(
        acquisition=scores,
        population=60,
        generations=0,
        penalize=False,
        observation_noise=False,
    )
    chosen = choose(inputs, 30)
    # The best observations are parents.
    best = inputs.X[is_non_dominated(inputs.Y)]
    assert (scores.rows[:, None] == best).all(-1).any(0).all()
    new = scores.rows[~(scores.rows[:, None] == inputs.X).all(-1).any(1)]
    with torch.no_grad():
        volume = torch.stack([model.posterior(new).variance[:, 0] for model in models]).prod(0)
    expected: list[int] = []
    left = list(range(len(new)))
    while left:
        front = [left[place] for place in is_non_dominated(new[left]).nonzero()[:, 0].tolist()]
        expected += sorted(front, key=lambda place: -float(volume[place]))
        left = [place for place in left if place not in front]
    assert len(expected) >= 30
    assert torch.equal(chosen, new[expected[:30]])


def test_pending_points_count_in_both_steps(inputs: SelectionInputs) -> None:
    def choose(pending: Tensor) -> tuple[Tensor, Coordinates]:
        scores = Coordinates()
        select = UncertainPareto(acquisition=scores, population=24, generations=0)
        fresh = replace(
            inputs, pending=pending, generator=torch.Generator().manual_seed(3), fit=inputs.fit
        )
        return select(fresh, 1), scores

    alone, _ = choose(inputs.pending)
    other, scores = choose(alone)
    assert torch.equal(scores.given[0].pending, alone)
    assert not torch.equal(other, alone)


def test_hypervolume_improvement_climbs_and_keeps_a_batch_apart(inputs: SelectionInputs) -> None:
    select = HypervolumeImprovement(num_samples=16, raw_samples=8, num_restarts=2, max_iter=20)
    drawn = torch.Generator().manual_seed(3)
    rows = select(replace(inputs, generator=drawn), 2)
    again = torch.Generator().manual_seed(3)
    draw_seed(again)
    raw = inputs.space.sample(8, generator=again)
    assert not (raw == rows[0]).all(1).any()
    assert torch.pdist(rows).min() > 0.05


# --- errors ---------------------------------------------------------------------------------------


def test_wrong_answers_are_refused_and_change_nothing() -> None:
    search = make()
    rows = search.ask(2)
    for given, values, error, expected in (
        (rows, [[1.0, 2.0]] * 2, TypeError, "values must be a tensor"),
        (rows, torch.zeros(2, 3), ValueError, r"shape \(2, 2\)"),
        (rows, torch.tensor([[0.0, 0.0], [0.0, math.inf]]), ValueError, "row 1"),
        (rows + 1.0, torch.zeros(2, 2), ValueError, r"must lie in \[0, 1\]"),
    ):
        with pytest.raises(error, match=expected):
            search.tell(given, values)
    assert len(search.pending) == 2
    with pytest.raises(ValueError, match="num must be at least 1"):
        search.ask(0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"num_objectives": 1}, "num_objectives must be at least 2"),
        ({"num_initial": 1}, "num_initial must be at least 2"),
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, int], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make(**given)


def test_selections_check_their_settings() -> None:
    with pytest.raises(TypeError, match="must be callable"):
        make(selection=3)
    with pytest.raises(ValueError, match="population"):
        UncertainPareto(population=1)
    with pytest.raises(ValueError, match="generations"):
        UncertainPareto(generations=-1)
    with pytest.raises(ValueError, match="raw_samples"):
        HypervolumeImprovement(raw_samples=0)


def test_another_searchs_state_is_refused_and_changes_nothing() -> None:
    search = make()
    run(search, (3,))
    before = search.state_dict()
    for state, expected in (
        (make(num_initial=7).state_dict(), "'num_initial'"),
        (before | {"version": 99}, "newer"),
        (before | {"rows": 3}, "damaged"),
        (make(dim=3).state_dict(), "'dim'"),
    ):
        with pytest.raises(ValueError, match=expected):
            search.load_state_dict(state)
        assert search.state_dict() == before
    with pytest.raises(TypeError, match="mapping"):
        search.load_state_dict([])


def test_the_fitted_process_is_the_surrogate_of_botorch(rng: torch.Generator) -> None:
    X = torch.rand(15, 2, generator=rng, dtype=torch.float64)
    model = GPSurrogate()(X, objectives(X), rng)
    assert isinstance(model, ModelListGP)
    error = (model.posterior(X).mean - objectives(X)).abs().max()
    assert error < 0.05
