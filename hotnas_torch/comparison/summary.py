"""What a comparison says: means, ranks and tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, rankdata, studentized_range, wilcoxon

from hotnas_torch.comparison.methods import METHODS
from hotnas_torch.comparison.records import Record
from hotnas_torch.comparison.tasks import TASKS

__all__ = ["Cell", "PairedTest", "Summary", "summarize"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cell:
    """One method on one task, over all seeds.

    Attributes:
        regret: Mean of the best value found less the best of the table.
        error: Standard error of that mean; NaN for a single seed.
        better: Mean number of architectures of the table that are better than the best found.
        rank: Mean rank among the methods, 1 is the best, equal values sharing their ranks.
        seconds: Mean processor seconds for proposing one network.
        value: Mean of the smallest value found, of those that the search minimised.
        value_error: Standard error of that mean; NaN for a single seed.
    """

    regret: float
    error: float
    better: float
    rank: float
    seconds: float
    value: float
    value_error: float


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Whether one method is better than another on one task, seed by seed.

    Attributes:
        wins: Seeds on which the first is strictly better.
        losses: Seeds on which it is strictly worse.
        p: Two-sided p-value of Wilcoxon's signed-rank test; 1 where all seeds agree exactly.
    """

    wins: int
    losses: int
    p: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A comparison after a number of evaluations.

    Attributes:
        evaluations: After how many.
        tasks: Names of the tasks.
        methods: Names of the methods, the best mean rank first.
        num_seeds: Seeds that every task and method has.
        cells: By task and method.
        mean_rank: By method, over tasks and seeds.
        critical_difference: Mean ranks over the tasks that differ by less do not differ at
            the 5 % level (Nemenyi); NaN for a single method.
    """

    evaluations: int
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    num_seeds: int
    cells: dict[tuple[str, str], Cell]
    mean_rank: dict[str, float]
    critical_difference: float
    _regrets: dict[tuple[str, str], FloatArray]

    def paired_test(self, task: str, first: str, second: str) -> PairedTest:
        """Compare two methods on a task.

        Reference: Wilcoxon, Individual Comparisons by Ranking Methods, 1945.
        """
        difference = self._regrets[task, first] - self._regrets[task, second]
        wins, losses = int((difference < 0).sum()), int((difference > 0).sum())
        if wins + losses == 0:
            return PairedTest(0, 0, 1.0)
        return PairedTest(wins, losses, float(wilcoxon(difference).pvalue))

    def paired_test_of_all(self, first: str, second: str) -> PairedTest:
        """Compare two methods on all tasks and seeds at once, by a two-sided sign test.

        Signs alone, as regrets of several tasks have no common unit; ties are left out.
        """
        tests = [self.paired_test(task, first, second) for task in self.tasks]
        wins, losses = sum(test.wins for test in tests), sum(test.losses for test in tests)
        if wins + losses == 0:
            return PairedTest(0, 0, 1.0)
        return PairedTest(wins, losses, float(binomtest(wins, wins + losses).pvalue))

    def markdown(self) -> str:
        """Return the table: a row per method, with mean regret and its standard error per task."""
        titles = [TASKS[task].title for task in self.tasks]
        lines = [
            f"| method | mean rank | {' | '.join(titles)} | processor s per proposal |",
            "|---|---:" + "|---" * len(titles) + "|---:|",
        ]
        best = {
            task: min(self.cells[task, method].regret for method in self.methods)
            for task in self.tasks
        }
        for method in self.methods:
            entries = []
            for task in self.tasks:
                cell = self.cells[task, method]
                text = f"{cell.regret:.3f} ± {cell.error:.3f} ({cell.better:.1f})"
                entries.append(f"**{text}**" if cell.regret == best[task] else text)
            seconds = np.mean([self.cells[task, method].seconds for task in self.tasks])
            lines.append(
                f"| {METHODS[method].title} | {self.mean_rank[method]:.2f} | "
                f"{' | '.join(entries)} | {seconds:.3f} |"
            )
        return "\n".join(lines)

    def searched_markdown(self) -> str:
        """Return a table of the smallest values found, for tasks that judge by another column.

        Empty where there is no such task.
        """
        tasks = [task for task in self.tasks if TASKS[task].reported is not None]
        if not tasks:
            return ""
        lines = [
            f"| method | {' | '.join(TASKS[task].title for task in tasks)} |",
            "|---" * (len(tasks) + 1) + "|",
        ]
        for method in self.methods:
            cells = [self.cells[task, method] for task in tasks]
            entries = [f"{cell.value:.3f} ± {cell.value_error:.3f}" for cell in cells]
            lines.append(f"| {METHODS[method].title} | {' | '.join(entries)} |")
        return "\n".join(lines)


def summarize(records: Sequence[Record], *, evaluations: int | None = None) -> Summary:
    """Summarise records; only seeds that every task and method has count.

    Args:
        records: Searches of several methods on the same tasks.
        evaluations: After how many evaluations of each; None takes all.

    Raises:
        ValueError: There are no records, no seed is complete, or a search is shorter.

    Reference: Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006,
        for ranks and the critical difference.
    """
    by_run = {(one.task, one.method, one.seed): one for one in records}
    tasks = tuple(dict.fromkeys(one.task for one in records))
    methods = tuple(dict.fromkeys(one.method for one in records))
    seeds = [
        seed
        for seed in sorted({one.seed for one in records})
        if all((task, method, seed) in by_run for task in tasks for method in methods)
    ]
    if not seeds:
        raise ValueError(
            "records must hold at least one seed for every task and method; "
            f"got {len(records)} records without one"
        )
    length = min(len(one.values) for one in records)
    last = length if evaluations is None else evaluations
    if not 1 <= last <= length:
        raise ValueError(f"evaluations must lie in [1, {length}]; got {evaluations}")
    regrets: dict[tuple[str, str], FloatArray] = {}
    cells: dict[tuple[str, str], Cell] = {}
    of_methods: dict[str, list[float]] = {method: [] for method in methods}
    for task in tasks:
        runs = [[by_run[task, method, seed] for seed in seeds] for method in methods]
        table = np.array([[one.regrets()[last - 1] for one in row] for row in runs])
        ranks = rankdata(table, axis=0)
        for place, method in enumerate(methods):
            regrets[task, method] = table[place]
            smallest = np.array([np.nanmin(one.values[:last]) for one in runs[place]])
            cells[task, method] = Cell(
                regret=float(table[place].mean()),
                error=_standard_error(table[place]),
                better=float(np.mean([one.better[last - 1] for one in runs[place]])),
                rank=float(ranks[place].mean()),
                seconds=float(np.mean([np.mean(one.seconds[:last]) for one in runs[place]])),
                value=float(smallest.mean()),
                value_error=_standard_error(smallest),
            )
            of_methods[method].append(cells[task, method].rank)
    mean_rank = {method: float(np.mean(of_methods[method])) for method in methods}
    return Summary(
        evaluations=last,
        tasks=tasks,
        methods=tuple(sorted(methods, key=lambda method: mean_rank[method])),
        num_seeds=len(seeds),
        cells=cells,
        mean_rank=mean_rank,
        critical_difference=critical_difference(len(methods), len(tasks)),
        _regrets=regrets,
    )


def _standard_error(values: FloatArray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def critical_difference(num_methods: int, num_tasks: int, level: float = 0.05) -> float:
    """Return Nemenyi's critical difference of mean ranks, q * sqrt(k (k + 1) / (6 N)).

    Args:
        num_methods: k; the difference is NaN below 2.
        num_tasks: N.
        level: Of the two-sided test.
    """
    if num_methods < 2:
        return math.nan
    quantile = float(studentized_range.ppf(1.0 - level, num_methods, math.inf)) / math.sqrt(2.0)
    return quantile * math.sqrt(num_methods * (num_methods + 1) / (6.0 * num_tasks))
