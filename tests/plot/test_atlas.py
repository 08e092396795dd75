import numpy as np
import pytest
import torch

from hotnas_torch.plot import plot_atlas, save_figure
from tests.generators.pictures import grouped_distances, pixels, texts


@pytest.mark.parametrize(("size", "count"), [(1, 1), (2, 1), (30, 4), (60, 11)])
def test_clusters_of_every_number_are_drawn(size, count, tmp_path):
    distances = torch.from_numpy(grouped_distances(size + count))
    figure = plot_atlas(distances, torch.arange(size) % count)
    save_figure(figure, tmp_path / "atlas.png", dpi=40)
    assert (tmp_path / "atlas.png").stat().st_size > 1000
    assert pixels(figure).std() > 5
    # A star per cluster, and as many lines as networks.
    stars = [c for c in figure.axes[0].collections if c.get_sizes()[0] > 100]
    assert len(stars) == count
    assert len(figure.axes[0].lines) == size


def test_centres_carry_their_names_and_the_number_of_their_networks():
    figure = plot_atlas(grouped_distances(8), [0, 1, 1, 1, 0, 1], ["first", "a$b$"], title="Map")
    shown = texts(figure)
    assert {"first (2)", "Map"} <= set(shown)
    assert any(text.endswith("(4)") for text in shown)


def test_a_centre_lies_amid_its_networks():
    points = np.random.default_rng(0).normal(size=(20, 2)) + 20.0 * (np.arange(20) % 2)[:, None]
    both = np.vstack([points, points[::2].mean(0), points[1::2].mean(0)])
    figure = plot_atlas(np.linalg.norm(both[:, None] - both, axis=-1), np.arange(20) % 2)
    drawn = [np.asarray(c.get_offsets()) for c in figure.axes[0].collections]
    for nets, star in (drawn[:2], drawn[2:]):
        assert np.abs(nets.mean(0) - star[0]).max() < 1e-6 * np.abs(both).max()


@pytest.mark.parametrize(
    ("assigned", "message"),
    [
        ([0, 1, 2, 3, 4, 5], "assigned must hold one whole number per network, fewer than the 6"),
        ([], "assigned must hold one whole number"),
        ([[0, 1]], "assigned must hold one whole number"),
        ([0.0, 1.0, 1.0], "got float64"),
        ([True, False, True], "got bool"),
        ([0, 0, 0, 2], r"assigned\[3\] must be one of 2 clusters, 0 to 1; got 2"),
        ([0, -1, 0, 1], r"assigned\[1\] must be one of 2 clusters"),
    ],
)
def test_wrong_clusters_say_what_is_wrong(assigned, message):
    with pytest.raises(ValueError, match=message):
        plot_atlas(grouped_distances(6), assigned)


def test_other_faults_say_what_is_wrong():
    with pytest.raises(ValueError, match="names must name each of the 2 centres; got 1"):
        plot_atlas(grouped_distances(6), [0, 0, 1, 1], ["one"])
    with pytest.raises(ValueError, match="must be finite"):
        plot_atlas(np.full((3, 3), np.nan), [0, 0])
