import itertools

from matplotlib.collections import LineCollection

from hotnas_torch.plot import plot_tree
from hotnas_torch.plot.clustering import cluster, members_below, top_branches
from tests.generators.pictures import grouped_distances, texts


def test_a_truncated_tree_counts_every_item_once():
    clustering = cluster(grouped_distances(100), 1000)
    branches = top_branches(clustering, 12)
    assert len(branches.leaves) == 12
    members = [members_below(clustering, node) for node in branches.leaves]
    assert sorted(itertools.chain(*members)) == list(range(100))
    figure = plot_tree(grouped_distances(100), max_leaves=12)
    counts = [text.split("(")[1].rstrip(")") for text in texts(figure) if text.endswith(")")]
    singles = sum(text.startswith("  #") and not text.endswith(")") for text in texts(figure))
    assert sum(map(int, counts)) + singles == 100


def test_branches_join_at_the_heights_of_the_linkage():
    clustering = cluster(grouped_distances(20), 1000)
    branches = top_branches(clustering, 20)
    tops = sorted({round(line[1][1], 9) for line in branches.segments})
    assert tops == sorted({round(height, 9) for height in clustering.links[:, 2]})
    assert [clustering.order.tolist().index(leaf) for leaf in branches.leaves] == list(range(20))
    figure = plot_tree(grouped_distances(20))
    (lines,) = (c for c in figure.axes[0].collections if isinstance(c, LineCollection))
    assert len(lines.get_segments()) == 2 * 19
