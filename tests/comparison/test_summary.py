import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import wilcoxon

from hotnas_torch.comparison import Record, summarize, write_csv
from hotnas_torch.comparison.summary import critical_difference


def record(task, method, seed, values):
    return Record(
        task=task,
        method=method,
        seed=seed,
        identity={},
        networks=tuple(map(str, range(len(values)))),
        values=tuple(values),
        seconds=(0.5,) * len(values),
        reported=tuple(np.fmin.accumulate(values).tolist()),
        best_value=1.0,
        better=(3,) * len(values),
    )


def records(num_seeds=6):
    random = np.random.default_rng(0)
    return [
        record(task, method, seed, 1.0 + place + random.random(4))
        for task in ("nasbench_macro", "nb201_cifar10")
        for place, method in enumerate(("hotnas", "evolution", "random"))
        for seed in range(num_seeds)
    ]


def test_regret_is_counted_from_the_best_of_the_table():
    assert record("nasbench_macro", "random", 0, [3.0, 4.0, 2.0, 2.5]).regrets() == [2, 2, 1, 1]


def test_means_and_ranks():
    given = records()
    summary = summarize(given, evaluations=2)
    assert summary.methods == ("hotnas", "evolution", "random")
    assert summary.mean_rank == {"hotnas": 1.0, "evolution": 2.0, "random": 3.0}
    mine = [min(one.values[:2]) - 1.0 for one in given if one.method == "hotnas"][:6]
    cell = summary.cells["nasbench_macro", "hotnas"]
    assert cell.regret == pytest.approx(np.mean(mine))
    assert cell.error == pytest.approx(np.std(mine, ddof=1) / math.sqrt(6))
    assert (cell.better, cell.rank, cell.seconds) == (3.0, 1.0, 0.5)
    assert summary.searched_markdown() == ""
    assert "| method | mean rank | NAS-Bench-Macro |" in summary.markdown()


def test_what_was_searched_by_is_told_beside_what_counts():
    random = np.random.default_rng(0)
    given = [
        replace(
            record("nb201_cifar10_val", "hotnas", seed, 10.0 + random.random(4)),
            reported=(5.0, 4.0, 6.0, 7.0),
        )
        for seed in range(6)
    ]
    cell = summarize(given, evaluations=3).cells["nb201_cifar10_val", "hotnas"]
    mine = [min(one.values[:3]) for one in given]
    assert cell.regret == 5.0
    assert cell.value == pytest.approx(np.mean(mine))
    assert cell.value_error == pytest.approx(np.std(mine, ddof=1) / math.sqrt(6))
    expected = f"| HOTNAS | {np.mean(mine):.3f} ± {cell.value_error:.3f} |"
    assert summarize(given, evaluations=3).searched_markdown().splitlines()[-1] == expected


def test_equal_values_share_a_rank():
    summary = summarize([record("nasbench_macro", m, 0, [2.0]) for m in ("random", "hotnas")])
    assert summary.mean_rank == {"random": 1.5, "hotnas": 1.5}
    test = summary.paired_test("nasbench_macro", "random", "hotnas")
    assert (test.wins, test.losses, test.p) == (0, 0, 1.0)


def test_paired_test_is_scipys():
    given = records()
    summary = summarize(given)
    test = summary.paired_test("nb201_cifar10", "hotnas", "random")
    one, other = (
        [min(r.values) for r in given if (r.task, r.method) == ("nb201_cifar10", method)]
        for method in ("hotnas", "random")
    )
    assert (test.wins, test.losses) == (6, 0)
    assert test.p == wilcoxon(one, other).pvalue
    assert summary.paired_test("nb201_cifar10", "random", "hotnas").p == test.p


def test_all_tasks_together_are_a_sign_test():
    values = {"hotnas": [1.0, 2.0, 5.0, 3.0], "random": [2.0, 3.0, 4.0, 3.0]}
    given = [
        record(task, method, seed, [value])
        for task in ("nasbench_macro", "nb201_cifar10")
        for method, all_values in values.items()
        for seed, value in enumerate(all_values)
    ]
    test = summarize(given).paired_test_of_all("hotnas", "random")
    # Two wins, a loss and a tie, twice: p = P(at least 4 heads or at least 4 tails of 6).
    assert (test.wins, test.losses) == (4, 2)
    assert test.p == pytest.approx(2 * (15 + 6 + 1) / 64)
    assert summarize(given).paired_test_of_all("random", "random").p == 1.0


def test_only_complete_seeds_count():
    given = records()[:-1]
    assert summarize(given).num_seeds == 5
    with pytest.raises(ValueError, match="at least one seed"):
        summarize([record("nasbench_macro", m, seed, [2.0]) for seed, m in enumerate("ab")])
    with pytest.raises(ValueError, match=r"evaluations must lie in \[1, 4\]; got 9"):
        summarize(given, evaluations=9)


@pytest.mark.parametrize(("methods", "expected"), [(2, 1.960), (5, 2.728), (10, 3.164)])
def test_critical_difference(methods, expected):
    # q at 0.05 from the table of Demsar 2006, for which k (k + 1) / (6 N) = 1.
    num_tasks = methods * (methods + 1) / 6
    assert critical_difference(methods, num_tasks) == pytest.approx(expected, abs=2e-3)
    assert math.isnan(critical_difference(1, 5))


def test_csv_has_a_line_per_evaluation(tmp_path):
    write_csv(records(1), tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 3 * 4
    assert lines[1]["evaluation"] == "2"
    assert float(lines[0]["regret"]) == float(lines[0]["value"]) - 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]
