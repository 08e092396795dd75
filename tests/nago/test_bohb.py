import json
import math
import statistics

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.neighbors import KernelDensity

from hotnas_torch.nago import BOHB, Hyperband, UnitBox
from hotnas_torch.nago.bohb import ProductDensity


def make(seed: int = 0, dim: int = 2, **settings: object) -> BOHB:
    options = {"min_budget": 1, "max_budget": 9} | settings
    return BOHB(UnitBox(dim), generator=torch.Generator().manual_seed(seed), **options)


# --- densities ------------------------------------------------------------------------------------


def test_the_density_is_scikit_learns(rng: torch.Generator) -> None:
    points = torch.rand(12, 3, generator=rng, dtype=torch.float64)
    rows = torch.rand(20, 3, generator=rng, dtype=torch.float64)
    density = ProductDensity.fit(points, min_bandwidth=1e-3)
    # One width for all columns there, so the columns are scaled before.
    width = density.bandwidth.numpy()
    theirs = KernelDensity(bandwidth=1.0).fit(points.numpy() / width)
    expected = theirs.score_samples(rows.numpy() / width) - np.log(width).sum()
    np.testing.assert_allclose(density.log_prob(rows).numpy(), expected)


def test_the_bandwidth_is_the_normal_reference_rule_and_never_too_small() -> None:
    points = torch.tensor([[0.1, 0.5], [0.5, 0.5], [0.9, 0.5]], dtype=torch.float64)
    density = ProductDensity.fit(points, min_bandwidth=1e-3)
    expected = 1.06 * np.std([0.1, 0.5, 0.9]) * 3 ** (-1 / 6)
    np.testing.assert_allclose(density.bandwidth.numpy(), [expected, 1e-3])


def test_chances_of_categories_sum_to_1_and_are_aitchison_and_aitkens(rng: torch.Generator) -> None:
    box = UnitBox(3, levels=(2, 5, 1))
    points = box.sample(6, generator=rng)
    density = ProductDensity.fit(points, min_bandwidth=1e-3, categories=box.levels)
    every = torch.cartesian_prod(
        *(torch.arange(count, dtype=torch.float64).add(0.5) / count for count in box.levels)
    )
    chances = density.log_prob(every).exp()
    assert float(chances.sum()) == pytest.approx(1.0)
    widths = density.bandwidth.tolist()
    assert widths[0] <= 0.5
    expected = [
        statistics.fmean(
            math.prod(
                (1.0 - width if a == b else width / (count - 1)) if count > 1 else 1.0
                for a, b, width, count in zip(row, point, widths, box.levels, strict=True)
            )
            for point in points.tolist()
        )
        for row in every.tolist()
    ]
    np.testing.assert_allclose(chances.numpy(), expected)


def test_a_category_is_drawn_anew_as_often_as_its_width_says(rng: torch.Generator) -> None:
    point = torch.tensor([[0.3]], dtype=torch.float64)
    density = ProductDensity(point, torch.tensor([0.4], dtype=torch.float64), (5,))
    drawn = density.sample(4000, factor=3.0, generator=rng)[:, 0]
    counts = [int(((drawn - (n + 0.5) / 5).abs() < 1e-9).sum()) for n in range(5)]
    assert sum(counts) == 4000
    chances = [0.08, 0.68, 0.08, 0.08, 0.08]
    assert scipy.stats.chisquare(counts, [4000 * one for one in chances]).pvalue > 1e-3


def test_samples_come_from_truncated_kernels(rng: torch.Generator) -> None:
    centres, width = [0.02, 0.6], 0.1
    density = ProductDensity(
        torch.tensor(centres, dtype=torch.float64)[:, None],
        torch.tensor([width], dtype=torch.float64),
    )
    drawn = density.sample(4000, factor=3.0, generator=rng)[:, 0].numpy()
    wide = 3.0 * width

    def distribution(x: np.ndarray) -> np.ndarray:
        return np.mean(
            [
                scipy.stats.truncnorm.cdf(x, -m / wide, (1 - m) / wide, loc=m, scale=wide)
                for m in centres
            ],
            axis=0,
        )

    assert drawn.min() >= 0.0
    assert drawn.max() <= 1.0
    assert scipy.stats.kstest(drawn, distribution).pvalue > 1e-3


# --- proposals ------------------------------------------------------------------------------------


def test_points_are_random_until_both_kinds_are_enough() -> None:
    search = make(num_brackets=1, min_budget=9, random_fraction=0.0)
    plain = Hyperband(
        UnitBox(2), min_budget=9, max_budget=9, generator=torch.Generator().manual_seed(0)
    )
    search.num_brackets = None
    for number in range(6):
        assert search.densities() is None
        job = search.ask()
        assert job.row == plain.ask().row
        search.tell(job, float(number))
    good, bad = search.densities()
    rows = torch.tensor([result.job.row for result in search.results], dtype=torch.float64)
    assert torch.equal(good.points, rows[:3])
    assert torch.equal(bad.points, rows[3:])


def test_the_best_fraction_is_good_and_failures_are_bad() -> None:
    search = make(min_budget=9, top_fraction=0.25)
    for number in range(20):
        job = search.ask()
        search.tell(job, math.nan if number < 4 else float(-number))
    good, bad = search.densities()
    rows = torch.tensor([result.job.row for result in search.results], dtype=torch.float64)
    assert torch.equal(good.points, rows[15:].flip(0))
    assert torch.equal(bad.points[-4:], rows[:4])


def test_the_model_is_of_the_largest_budget_with_enough_points() -> None:
    search = make()
    while len([1 for result in search.results if result.job.budget == 3.0]) < 6:
        job = search.ask()
        search.tell(job, sum(job.row))
    good, bad = search.densities()
    rows = {result.job.row for result in search.results if result.job.budget == 3.0}
    assert {tuple(row) for row in torch.cat([good.points, bad.points]).tolist()} == rows


def test_new_points_are_where_good_ones_are() -> None:
    search = make(min_budget=9, random_fraction=0.0)
    for _ in range(40):
        job = search.ask()
        search.tell(job, (job.row[0] - 0.2) ** 2 + (job.row[1] - 0.8) ** 2)
    last = torch.tensor([search.ask().row for _ in range(10)])
    assert (last - torch.tensor([0.2, 0.8])).abs().max() < 0.2


def test_rows_are_those_of_points() -> None:
    search = BOHB(
        UnitBox(2, levels=(3, 0)),
        min_budget=9,
        max_budget=9,
        generator=torch.Generator().manual_seed(0),
    )
    for _ in range(30):
        job = search.ask()
        search.tell(job, sum(job.row))
    assert {round(job.row[0] * 6, 9) for job, _ in search.results} <= {1.0, 3.0, 5.0}


def test_it_finds_better_points_than_hyperband_at_equal_cost() -> None:
    def found(kind: type[Hyperband], seed: int) -> float:
        noise = torch.Generator().manual_seed(100 + seed)
        generator = torch.Generator().manual_seed(seed)
        search = kind(UnitBox(5), min_budget=1, max_budget=4, eta=2, generator=generator)

        def truth(row: tuple[float, ...]) -> float:
            return sum((entry - 0.3) ** 2 for entry in row)

        while search.spent < 300:
            job = search.ask()
            drawn = float(torch.randn((), generator=noise))
            search.tell(job, truth(job.row) + 0.05 * drawn / job.budget)
        return truth(search.best.job.row)

    with_model = [found(BOHB, seed) for seed in range(8)]
    without = [found(Hyperband, seed) for seed in range(8)]
    assert statistics.mean(with_model) < 0.7 * statistics.mean(without)


def test_a_resumed_search_asks_what_the_uninterrupted_one_does() -> None:
    def run(search: BOHB, num: int) -> list[tuple[float, ...]]:
        rows = []
        for _ in range(num):
            job = search.ask()
            search.tell(job, sum(job.row))
            rows.append(job.row)
        return rows

    whole, resumed = make(), make(seed=1)
    run(whole, 25)
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert run(resumed, 25) == run(whole, 25)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"top_fraction": 1.0}, "top_fraction must be in"),
        ({"num_samples": 0}, "num_samples must be at least 1"),
        ({"random_fraction": -0.1}, "random_fraction must be in"),
        ({"bandwidth_factor": 0.0}, "bandwidth_factor must be positive"),
        ({"min_bandwidth": 0.0}, "min_bandwidth must be positive"),
        ({"min_points": 2}, "more than the 2 columns"),
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, float], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make(**given)
