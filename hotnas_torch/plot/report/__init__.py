"""A search as one HTML file that shows what happened, and the same page while it goes on."""

from os import PathLike
from pathlib import Path

from hotnas_torch.files import check_writable, write_bytes
from hotnas_torch.plot.report.live import LiveReport
from hotnas_torch.plot.report.page import render_page
from hotnas_torch.plot.report.reading import read_search
from hotnas_torch.search.running.trial import SearchResult
from hotnas_torch.spaces import SearchSpace

__all__ = ["LiveReport", "read_search", "write_report"]


def write_report(
    storage: str | PathLike[str],
    out: str | PathLike[str],
    *,
    space: SearchSpace | None = None,
) -> SearchResult:
    """Write a search as a self-contained HTML file, complete or not at all.

    It shows the values over time, the best networks drawn, a map of what was evaluated by HOTNN
    distance, the distances as a heat map, bounds, failures, a table of all evaluations that sorts
    and filters, and the settings; of several objectives hypervolume and fronts. What is pointed at
    shows its name, values and picture. It loads nothing from anywhere, and is read without
    JavaScript, too. The search may still be running; `LiveReport` serves the page as it goes on.

    Args:
        storage: File that `hotnas_torch.search.run` writes.
        out: HTML file to write.
        space: Space of the search; None rebuilds it, which works for spaces with their own default
            options and for subsets of them.

    Returns:
        The search as far as it has come.

    Raises:
        StorageError: The storage cannot be read, holds no finished trial, or is of a space with
            options of its own, for which `space` must be given.
        OSError: `out` cannot be written; what was there is then untouched.

    Complexity: The distances of at most 400 networks, whatever the number of trials.
    """
    check_writable(Path(out))
    identity, result = read_search(storage, space=space)
    page = render_page(identity, result, Path(storage).name)
    write_bytes(Path(out), page)
    return result
