import matplotlib

from hotnas_torch.plot import plot_cell_matching, plot_tree
from tests.generators.pictures import grouped_distances


def test_drawing_leaves_no_global_state(matching):
    plot_cell_matching(matching[1])
    plot_tree(grouped_distances(5))
    pyplot = getattr(matplotlib, "pyplot", None)
    assert pyplot is None or not pyplot.get_fignums()
