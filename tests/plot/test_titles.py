import itertools

import pytest
from matplotlib.transforms import Bbox

from hotnas_torch import spaces
from hotnas_torch.distances import HOTNN
from hotnas_torch.plot import plot_cell_matching, plot_network_matching, short_name
from hotnas_torch.plot.titles import text_width, wrapped
from tests.generators.pictures import texts, written

NASBENCH201 = (
    "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
    "|avg_pool_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
)


def check_nothing_is_overwritten(figure, dpi=100):
    """No text reaches into another one or out of the figure."""
    figure.set_dpi(dpi)
    boxes = written(figure)
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other_box), f"{text!r} and {other!r}"
    for text, box in boxes:
        inside = Bbox.intersection(box, figure.bbox)
        assert inside is not None, text
        assert inside.extents.tolist() == box.extents.tolist(), text


def compared(space, strings):
    """What `hotnas compare` draws: the networks and their first cells."""
    metric = HOTNN(space=space, num_starts=1, tol=0.01)
    networks = [space.from_string(text) for text in strings]
    cells = metric.ifgw.matching(networks[0].cells[0], networks[1].cells[0])
    return metric.matching(*networks), [(0, 0, cells)]


@pytest.mark.parametrize("dpi", [50, 100, 150])
@pytest.mark.parametrize("limit", [40, 56, 500])
def test_titles_of_two_long_names_stay_apart(limit, dpi):
    matching, cells = compared(spaces.get("nasbench201"), NASBENCH201)
    titles = tuple(short_name(text, limit) for text in NASBENCH201)
    figure = plot_network_matching(matching, cells, titles=titles)
    assert "conv3 + none conv3\n+ skip none conv3" in texts(figure)
    check_nothing_is_overwritten(figure, dpi)
    check_nothing_is_overwritten(plot_network_matching(matching, titles=titles), dpi)
    check_nothing_is_overwritten(plot_cell_matching(cells[0][2], titles=titles), dpi)


@pytest.mark.parametrize("limit", [40, 300])
@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "darts", "transnas_macro"])
def test_titles_of_every_space_stay_apart(name, limit, rng):
    space = spaces.get(name)
    for _ in range(3):
        strings = [space.to_string(network) for network in space.sample(2, generator=rng)]
        titles = tuple(short_name(text, limit) for text in strings)
        check_nothing_is_overwritten(
            plot_network_matching(*compared(space, strings), titles=titles), 150
        )


def test_higher_titles_leave_the_rest_as_it_was():
    matching, cells = compared(spaces.get("nasbench201"), NASBENCH201)
    plain = plot_network_matching(matching, cells)
    higher = plot_network_matching(matching, cells, titles=("one\ntwo\nthree\nfour", ""))
    assert higher.get_figheight() > plain.get_figheight() + 0.4
    assert higher.get_figwidth() == plain.get_figwidth()
    titles = {"network a", "network b", "one\ntwo\nthree\nfour", ""}
    rest = [
        [(text, *box.extents) for text, box in written(figure) if text not in titles]
        for figure in (plain, higher)
    ]
    assert len(rest[0]) > 40
    for before, after in zip(*rest, strict=True):
        assert before[0] == after[0]
        # The same place in pixels from the lower left corner.
        assert after[1:] == pytest.approx(before[1:], abs=1.0)
    check_nothing_is_overwritten(higher)


def test_short_titles_stand_above_the_middle_of_their_graph():
    matching, _ = compared(spaces.get("nasbench201"), NASBENCH201)
    places = {
        text.get_text(): text.get_position()[0]
        for text in plot_network_matching(matching, titles=("left", "right")).axes[0].texts
    }
    assert places["left"] == places["A · 16"]
    assert places["right"] == places["C · 16"]


def test_lines_break_at_the_best_place_that_serves():
    name = "conv3 + none conv3 + skip none conv3"
    assert wrapped(name, 10.0) == [name]
    assert wrapped(name, text_width(name) - 0.01) == ["conv3 + none conv3", "+ skip none conv3"]
    assert wrapped(name, text_width("+ skip none conv3")) == [
        "conv3",
        "+ none conv3",
        "+ skip none conv3",
    ]
    assert wrapped(name, text_width("+ skip none")) == [
        "conv3",
        "+ none",
        "conv3",
        "+ skip none",
        "conv3",
    ]
    assert wrapped("sep5:4,sep5:0 dil3:1", text_width("sep5:4,_")) == [
        "sep5:4,",
        "sep5:0",
        "dil3:1",
    ]
    assert wrapped("one\ntwo", 10.0) == ["one", "two"]
    assert wrapped("", 1.0) == [""]


@pytest.mark.parametrize("width", [0.0, 0.3, 1.0])
def test_a_word_without_a_place_to_break_is_broken_anywhere(width):
    lines = wrapped("x" * 40, width)
    assert "".join(lines) == "x" * 40
    assert all(text_width(line) <= width or len(line) == 1 for line in lines)
