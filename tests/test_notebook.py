"""What a notebook shows is well-formed, escaped, and says what the object is."""

from xml.etree import ElementTree

import pytest
import torch

import hotnas_torch as ht
from hotnas_torch.notebook import graph_svg, matrix_html, table_html

SPACE = ht.spaces.NASBench101()
NETS = SPACE.sample(3, generator=torch.Generator().manual_seed(0), distinct=True)


def parsed(html):
    """The elements, of which a browser would forgive what is wrong, and this does not."""
    return ElementTree.fromstring(f"<div>{html}</div>")


def texts(html):
    return [text.strip() for text in parsed(html).itertext()]


def test_a_cell_is_a_graph_with_every_node_and_edge_in_the_picture():
    cell = NETS[0].cells[0]
    (svg,) = parsed(cell._repr_html_())
    name = "{http://www.w3.org/2000/svg}"
    rectangles = svg.findall(f"{name}rect")
    assert [entry.text for entry in svg.findall(f"{name}text")] != []
    assert sorted(entry.text for entry in svg.findall(f"{name}text")) == sorted(cell.ops)
    assert len(svg.findall(f"{name}path")) == len(cell.edges)
    boxes = [[float(box.get(key)) for key in ("x", "y", "width", "height")] for box in rectangles]
    for k, (x, y, width, height) in enumerate(boxes):
        assert x >= 0
        assert y >= 0
        assert x + width <= float(svg.get("width"))
        assert y + height <= float(svg.get("height"))
        for left, top, wide, high in boxes[:k]:
            apart = x >= left + wide or left >= x + width or y >= top + high or top >= y + height
            assert apart


def test_labels_are_text_and_no_markup():
    evil = "<script>alert('x')</script>"
    for html in (
        graph_svg(["input", evil, "output"], [(0, 1), (1, 2)], evil),
        graph_svg([evil] * 61, [], evil),
        table_html([evil], [[evil]], evil),
        matrix_html([[0.0]], [evil], evil, size=1),
    ):
        assert "<script" not in html
        parsed(html)


def test_a_network_shows_its_repeated_cells_and_a_tree_its_lengths():
    shown = texts(NETS[0]._repr_html_())
    assert f"Network: a chain of {NETS[0].num_cells} cells {NETS[0].spec}" in shown
    assert "cell 1" in shown
    matrix = ht.OperationTree.from_matrix(["input", "output", "c"], 1 - torch.eye(3))
    assert "OperationTree of 3 labels, their costs" in texts(matrix._repr_html_())
    edges = texts(SPACE.tree._repr_html_())
    assert set(SPACE.tree.parents) <= set(edges)
    weighed = ht.OperationTree({"a": None, "b": "a"}, {"b": 1.0}, weights={"kernel": 0.25})
    assert {"[kernel=]", "0.25"} <= set(texts(weighed._repr_html_()))


def test_a_search_shows_its_best_and_a_front():
    def values(net):
        if "conv1x1" in net.spec:
            return float("nan")
        return float(len(net.cells[0].edges))

    strategy = ht.search.RandomSearch(
        SPACE, generator=torch.Generator().manual_seed(0), direction="maximize"
    )
    result = ht.search.run(strategy, values, budget=12, progress=False)
    rows = [[cell.text for cell in row] for row in parsed(result._repr_html_()).iter("tr")]
    found = [float(row[1]) for row in rows[1:]]
    assert found == sorted(found, reverse=True)
    assert found[0] == result.best.value
    assert rows[1][2] == result.best.network.spec
    assert "failed" in result._repr_html_()
    assert "0 trials" in ht.search.SearchResult(SPACE, (), "time")._repr_html_()
    two = ht.search.RandomSearch(
        SPACE, generator=torch.Generator().manual_seed(0), objectives=("a", "b")
    )
    both = ht.search.run(
        two, lambda net: (len(net.spec), -len(net.cells[0].edges)), budget=6, progress=False
    )
    numbers = [
        int(row[0].text) for row in parsed(both._repr_html_()).iter("tr") if row[0].text != "trial"
    ]
    assert numbers == [trial.number for trial in both.front]


@pytest.mark.parametrize("size", [2, 12])
def test_a_gram_shows_its_beginning(tmp_path, size):
    space = ht.spaces.NASBench201()
    nets = space.sample(size, generator=torch.Generator().manual_seed(0), distinct=True)
    ht.distances.TreeWasserstein(space).gram(nets, out=tmp_path / "g.npz", progress=False)
    gram = ht.load_gram(tmp_path / "g.npz")
    html = gram._repr_html_()
    rows = [[cell.text for cell in row] for row in parsed(html).iter("tr")]
    assert len(rows) == min(size, 10)
    assert float(rows[0][2]) == pytest.approx(float(gram.distances[0, 1]), rel=1e-4)
    assert f"of {size} networks" in html
    assert ("the first 10" in html) == (size > 10)
    assert "rgba(76,120,168,nan" not in matrix_html([[float("nan"), 1.0]], ["x"], "y", size=1)
