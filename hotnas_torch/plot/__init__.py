"""Pictures of distances, matchings, networks and searches; figures that need no display."""

from typing import TYPE_CHECKING

from hotnas_torch._lazy import lazily
from hotnas_torch.plot.architectures import plot_network
from hotnas_torch.plot.atlas import plot_atlas
from hotnas_torch.plot.comparison import plot_ranks, plot_regrets
from hotnas_torch.plot.distances import plot_heat_map, plot_tree
from hotnas_torch.plot.figure import save_figure
from hotnas_torch.plot.hierarchy import plot_hierarchy
from hotnas_torch.plot.matching import plot_cell_matching, plot_network_matching
from hotnas_torch.plot.names import short_name
from hotnas_torch.plot.pareto import plot_fronts, plot_progress, plot_spread
from hotnas_torch.plot.search import plot_map, plot_trace

if TYPE_CHECKING:
    from hotnas_torch.plot import report
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "plot_atlas",
    "plot_cell_matching",
    "plot_fronts",
    "plot_heat_map",
    "plot_hierarchy",
    "plot_map",
    "plot_network",
    "plot_network_matching",
    "plot_progress",
    "plot_ranks",
    "plot_regrets",
    "plot_spread",
    "plot_trace",
    "plot_tree",
    "report",
    "save_figure",
    "short_name",
]
