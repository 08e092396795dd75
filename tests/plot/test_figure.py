import io
import pickle

import matplotlib
from matplotlib.image import imread

from hotnas_torch.plot import plot_cell_matching, plot_tree
from tests.generators.pictures import grouped_distances


def test_drawing_leaves_no_global_state(matching):
    plot_cell_matching(matching[1])
    plot_tree(grouped_distances(5))
    pyplot = getattr(matplotlib, "pyplot", None)
    assert pyplot is None or not pyplot.get_fignums()


def test_a_notebook_shows_a_figure_whether_or_not_pyplot_was_imported():
    figure = plot_tree(grouped_distances(5))
    for each in (figure, pickle.loads(pickle.dumps(figure))):
        pixels = imread(io.BytesIO(each._repr_png_()))
        assert pixels.shape[2] == 4
        assert pixels[..., :3].std() > 0.01
