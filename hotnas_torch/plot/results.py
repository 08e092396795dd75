"""Pictures of what a search found, whatever it was after."""

from matplotlib.figure import Figure

from hotnas_torch.plot.pareto import plot_fronts
from hotnas_torch.plot.search import plot_trace
from hotnas_torch.search.running.trial import SearchResult

__all__ = ["draw_front", "draw_progress"]


def draw_progress(
    result: SearchResult, *, num_initial: int = 0, label: str | None = None
) -> Figure:
    """Draw values in the order of evaluation; of several objectives the hypervolume.

    Args:
        result: What a search found, at least one trial.
        num_initial: Trials at the start that are set apart.
        label: Name of the vertical axis for one objective; None says which values are better.
    """
    goal = result.goal
    if goal.several:
        return plot_trace(
            result.hypervolume_so_far().tolist(),
            num_initial=num_initial,
            label="hypervolume (larger is better)",
            direction="maximize",
        )
    return plot_trace(
        [trial.value for trial in result.trials],
        num_initial=num_initial,
        label=label,
        direction=goal.direction,
        feasible=goal.feasible(result.values).tolist(),
    )


def draw_front(result: SearchResult) -> Figure:
    """Draw all that was evaluated by its two objectives, and the front.

    Raises:
        ValueError: There are not just two objectives.
    """
    goal = result.goal
    if len(goal.objectives) != 2:
        raise ValueError(
            f"result must have two objectives for a picture of its front; got {goal.objectives}"
        )
    return plot_fronts(
        {"this search": goal.scores(result.values)},
        labels=(goal.objectives[0], goal.objectives[1]),
        directions=(goal.directions[0], goal.directions[1]),
    )
