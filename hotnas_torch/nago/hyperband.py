"""Hyperband: many points with a small budget, the best of them with larger ones."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hotnas_torch.arguments import boolean, finite, integer, number, takes
from hotnas_torch.nago.box import Box, check_box, describe_box
from hotnas_torch.search.asking import AskTell
from hotnas_torch.search.brackets import Bracket, brackets_of

__all__ = ["Hyperband", "Job", "JobResult"]


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation that a multi-fidelity search asks for.

    Attributes:
        number: Place in the order of asking, from 0; a seed for the evaluation that no other has.
        row: The point as numbers in [0, 1].
        budget: How much to spend on it, for example epochs.
        bracket: Number of its bracket, from 0.
        rung: Its place in the bracket's budgets, from 0.
        parent: Number of the job with a smaller budget that was promoted; None for a new point.
    """

    number: int
    row: tuple[float, ...]
    budget: float
    bracket: int
    rung: int
    parent: int | None

    @property
    def rows(self) -> Tensor:
        """The point as one row, (1, d) float64, as `space.decode` takes it."""
        return torch.tensor([self.row], dtype=torch.float64)


class JobResult(NamedTuple):
    """A job with its value.

    Attributes:
        job: What was asked.
        value: The value to minimise; NaN when the evaluation failed.
    """

    job: Job
    value: float


class Hyperband(AskTell):
    """Minimise over a box by asking for points with budgets and observing; evaluate nothing.

    Every bracket draws points and promotes the best of each rung to the next, larger budget; the
    brackets of `brackets_of` repeat. There is always something to ask: while a bracket waits
    for values, the next one starts, so that any number of workers stays busy.

    With `asynchronous=False` a rung's best are promoted once all of the rung are observed. With
    `asynchronous=True` a point is promoted as soon as it is among the best of those observed so
    far: of k observed out of n, the best floor(k n' / n), where n' is the size of the next rung.
    No rung waits for its slowest evaluation then, and sizes stay the same, but a point that is
    promoted early may turn out not to be among the rung's best.

    `min_budget = max_budget` is random search: brackets of one point.

    A value of NaN is a failed evaluation and never promoted. Everything random comes from
    `generator`, which only `ask` advances.

    Args:
        space: What is searched.
        min_budget: Smallest budget, > 0.
        max_budget: Largest budget, >= `min_budget`.
        eta: Of the points of a rung, 1 / eta go on to eta times the budget, > 1.
        asynchronous: When to promote, see above.
        num_brackets: After how many brackets to end, >= 1; None goes on for ever.
        generator: Source of all randomness.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: A number out of range.

    Complexity: O(jobs) per question.

    Reference: Li et al., Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization,
        JMLR 2018; Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, for
        the asynchronous promotions.

    Example:
        >>> from hotnas_torch.nago import UnitBox
        >>> generator = torch.Generator().manual_seed(0)
        >>> search = Hyperband(UnitBox(2), min_budget=1, max_budget=4, eta=2, generator=generator)
        >>> for _ in range(7):
        ...     job = search.ask()
        ...     search.tell(job, sum(job.row) + 1 / job.budget)
        >>> [result.job.budget for result in search.results]
        [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 4.0]
    """

    name = "hyperband"

    @takes()
    def __init__(
        self,
        space: Box,
        *,
        min_budget: float,
        max_budget: float,
        eta: float = 3.0,
        asynchronous: bool = False,
        num_brackets: int | None = None,
        generator: torch.Generator | None,
    ) -> None:
        self.space = check_box(space)
        super().__init__(generator)
        self.min_budget = number("min_budget", min_budget)
        self.max_budget = number("max_budget", max_budget)
        self.eta = number("eta", eta)
        self.asynchronous = boolean("asynchronous", asynchronous)
        self.num_brackets = (
            None if num_brackets is None else integer("num_brackets", num_brackets, least=1)
        )
        self.brackets = brackets_of(min_budget, max_budget, eta)
        self._jobs: list[Job] = []
        # By the jobs' numbers, in the order of observing.
        self._values: dict[int, float] = {}

    # --- asking and telling -----------------------------------------------------------------------

    def ask(self) -> Job | None:
        """Return what to evaluate next; it is pending until observed.

        Promotions go first, those of the oldest bracket before others; then new points of brackets
        that have begun; then the next bracket begins.

        Returns:
            The job; None when `num_brackets` have been asked, as far as what was observed allows.
        """
        rungs = self._rungs()
        job = self._promotion(rungs)
        if job is None:
            bracket = next(
                (
                    number
                    for number, found in enumerate(rungs)
                    if len(found[0]) < self._bracket(number).sizes[0]
                ),
                len(rungs),
            )
            if bracket == self.num_brackets:
                return None
            with self._asking():
                row = self._propose()
            job = Job(
                len(self._jobs),
                tuple(row.tolist()),
                self._bracket(bracket).budgets[0],
                bracket,
                0,
                None,
            )
        self._jobs.append(job)
        return job

    def tell(self, job: Job | int, value: float) -> None:
        """Record the value of a job, in any order.

        Args:
            job: What was asked, or its number.
            value: To be minimised; NaN for a failed evaluation.

        Raises:
            ValueError: It was not asked, or is observed, or the value is infinite.
        """
        place = job.number if isinstance(job, Job) else integer("job", job)
        if not 0 <= place < len(self._jobs) or (isinstance(job, Job) and self._jobs[place] != job):
            raise ValueError(f"job must be one that ask() returned; got {job!r}")
        if place in self._values:
            raise ValueError(f"job {place} is observed already (a job has one value)")
        self._values[place] = finite("value", value)

    @property
    def results(self) -> tuple[JobResult, ...]:
        """Everything that was observed, in order."""
        return tuple(JobResult(self._jobs[number], value) for number, value in self._values.items())

    @property
    def pending(self) -> tuple[Job, ...]:
        """Jobs that were asked for and are not observed yet, in the order of asking."""
        return tuple(job for job in self._jobs if job.number not in self._values)

    @property
    def spent(self) -> float:
        """Sum of the budgets of all jobs that were asked for."""
        return math.fsum(job.budget for job in self._jobs)

    @property
    def best(self) -> JobResult | None:
        """The smallest value with the largest budget that has one, the earliest of equals.

        Values with different budgets are not compared. None before the first value.
        """
        found = [result for result in self.results if not math.isnan(result.value)]
        return min(found, key=lambda result: (-result.job.budget, result.value), default=None)

    # --- what a strategy defines ------------------------------------------------------------------

    def _propose(self) -> Tensor:
        """Return the row (d,) of a new point. Changes nothing but the generator."""
        return self.space.sample(1, generator=self._generator)[0]

    def settings(self) -> dict[str, Any]:
        """Return the strategy's settings, ready for `json.dumps`."""
        return {
            "min_budget": self.min_budget,
            "max_budget": self.max_budget,
            "eta": self.eta,
            "asynchronous": self.asynchronous,
            "num_brackets": self.num_brackets,
        }

    # --- state ------------------------------------------------------------------------------------

    def _space_description(self) -> dict[str, Any]:
        return describe_box(self.space)

    def _memory(self) -> dict[str, Any]:
        return {
            "jobs": [
                [list(job.row), job.budget, job.bracket, job.rung, job.parent] for job in self._jobs
            ],
            "values": [
                [number, None if math.isnan(value) else value]
                for number, value in self._values.items()
            ],
        }

    def _remembered(self, state: Mapping[str, Any]) -> dict[str, Any]:
        jobs = [
            Job(
                number,
                tuple(float(entry) for entry in row),
                float(budget),
                int(bracket),
                int(rung),
                None if parent is None else int(parent),
            )
            for number, (row, budget, bracket, rung, parent) in enumerate(state["jobs"])
        ]
        values = {
            int(number): math.nan if value is None else float(value)
            for number, value in state["values"]
        }
        return {"_jobs": jobs, "_values": values}

    # --- brackets ---------------------------------------------------------------------------------

    def _bracket(self, number: int) -> Bracket:
        return self.brackets[number % len(self.brackets)]

    def _rungs(self) -> list[list[list[Job]]]:
        """Jobs by bracket and rung, in the order of asking."""
        rungs: list[list[list[Job]]] = []
        for job in self._jobs:
            if job.bracket == len(rungs):
                rungs.append([[] for _ in self._bracket(job.bracket).sizes])
            rungs[job.bracket][job.rung].append(job)
        return rungs

    def _promotion(self, rungs: list[list[list[Job]]]) -> Job | None:
        """Return the next job with a larger budget that what was observed so far allows."""
        for place, found in enumerate(rungs):
            bracket = self._bracket(place)
            parents = self._promoted(bracket, found)
            for rung in reversed(range(len(parents))):
                taken = {job.parent for job in found[rung + 1]}
                if len(taken) == bracket.sizes[rung + 1]:
                    continue
                parent = next((job for job in parents[rung] if job.number not in taken), None)
                if parent is not None:
                    budget = bracket.budgets[rung + 1]
                    return Job(len(self._jobs), parent.row, budget, place, rung + 1, parent.number)
        return None

    def _promoted(self, bracket: Bracket, found: list[list[Job]]) -> list[list[Job]]:
        """Return the best of each rung but the last that may go on by now, best first."""
        chosen = []
        expected = bracket.sizes[0]
        for jobs, size, places in zip(found, bracket.sizes, bracket.sizes[1:], strict=False):
            known = [job for job in jobs if job.number in self._values]
            ranked = sorted(
                (job for job in known if not math.isnan(self._values[job.number])),
                key=lambda job: self._values[job.number],
            )
            complete = len(known) == expected
            early = len(known) * places // size if self.asynchronous else 0
            quota = places if complete else early
            chosen.append(ranked[:quota])
            # Where evaluations fail, fewer than the rung's size may ever come.
            expected = min(places, len(ranked)) if complete else places
        return chosen

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({self.space!r}, {settings})"
