"""How far a matrix is: a bar on stderr, or calls of the caller's function."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

__all__ = ["Progress", "progress_bar"]

Progress = bool | Callable[[str, int, int], None]
"""True shows a bar per stage on stderr; a callable receives (stage, pairs done, pairs in all)."""


@contextmanager
def progress_bar(progress: Progress, stage: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` pairs of a stage are finished.

    Args:
        progress: False shows nothing, True a bar on stderr, a callable is called with
            (stage, done, total) at the start and after every step.
        stage: What is being computed, the bar's label.
        total: Pairs in all.

    Yields:
        A function to call with the number of pairs newly finished.
    """
    if callable(progress):
        finished = 0
        progress(stage, 0, total)

        def advance(pairs: int) -> None:
            nonlocal finished
            finished += pairs
            progress(stage, finished, total)

        yield advance
        return
    with tqdm(
        total=total, desc=stage, unit=" pairs", unit_scale=True, disable=not progress, leave=True
    ) as bar:

        def advance_bar(pairs: int) -> None:
            bar.update(pairs)

        yield advance_bar
