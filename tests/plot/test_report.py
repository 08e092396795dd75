import base64
import html.parser
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from matplotlib.figure import Figure

from hotnas_torch import spaces
from hotnas_torch.errors import StorageError
from hotnas_torch.nn import Skeleton, TrainingSettings
from hotnas_torch.objectives import Evaluation, Function, Training
from hotnas_torch.plot.report import pictures, read_search, write_report
from hotnas_torch.search import RandomSearch, Storage, run


def search(storage, space=None, budget=12, value=None):
    space = space or spaces.NASBench201()

    def objective(net):
        if value is not None:
            return value
        if net.spec.endswith("none~2|"):
            return Evaluation.failure("<broken> & lost")
        return Evaluation(float(len(net.spec)), {"accuracy": 0.5}, cost=90.0)

    objective.__qualname__ = "length"
    strategy = RandomSearch(space, generator=torch.Generator().manual_seed(0))
    return run(strategy, objective, budget=budget, storage=storage, progress=False)


class Page(html.parser.HTMLParser):
    """Tags in order, attributes that load something, and the visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.text, self.attributes = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "data")]
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    result = search(folder / "search.sqlite")
    write_report(folder / "search.sqlite", folder / "search.html")
    return result, folder


def test_the_page_needs_nothing_else(finished):
    _, folder = finished
    text = (folder / "search.html").read_text(encoding="utf-8")
    page = Page(text)
    assert {"iframe", "object", "embed", "form"}.isdisjoint(page.tags)
    sources = [source for source in page.sources if not source.startswith("#")]
    assert len(sources) == 6  # no icon, four networks, distances
    for source in sources:
        kind, data = source.split(",", 1)
        if kind != "data:image/svg+xml;base64":
            assert kind in ("data:", "data:image/png;base64")
            continue
        picture = base64.b64decode(data)
        tree = ElementTree.fromstring(picture)
        # Nothing inside the pictures is loaded from elsewhere, either.
        for element in tree.iter():
            for name, value in element.attrib.items():
                if name.endswith("href"):
                    assert value.startswith(("#", "data:"))
    assert "url(" not in text
    assert "@import" not in text
    assert not [name for name in page.attributes if name.startswith("on")]
    assert "default-src &#39;none&#39;" in text
    assert "connect-src &#39;none&#39;" in text


def test_the_page_tells_what_happened(finished):
    result, folder = finished
    text = "".join(Page((folder / "search.html").read_text(encoding="utf-8")).text)
    assert result.best.network.spec in text
    assert f"{result.best.value:.6g}" in text
    assert "accuracy" in text
    num_failed = sum(trial.failed for trial in result.trials)
    assert num_failed > 0
    assert text.count("failed: <broken> & lost") == num_failed
    assert re.search(rf"<broken> & lost{num_failed}", text)  # among the reasons
    assert re.search(rf"evaluations\s*{len(result.trials)}", text)
    assert "random on nasbench201" in text
    assert "min" in text  # time evaluating: some 90 s each
    for trial in result.trials:
        assert trial.network.spec in text


def test_the_same_search_gives_the_same_page(finished, tmp_path):
    _, folder = finished
    write_report(folder / "search.sqlite", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (folder / "search.html").read_bytes()


@pytest.mark.parametrize(("budget", "value"), [(1, 1.0), (3, math.nan), (2, 0.0)])
def test_small_and_failed_searches_are_reported(tmp_path, budget, value):
    search(tmp_path / "s.sqlite", spaces.Pooling(), budget, value)
    result = write_report(tmp_path / "s.sqlite", tmp_path / "s.html")
    text = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert ("All evaluations failed" in text) == (result.best is None)
    assert ("<h2>Map</h2>" in text) == (budget > 1)


def test_what_was_known_before_stands_in_the_table(tmp_path):
    space = spaces.Pooling()
    strategy = RandomSearch(space, generator=torch.Generator().manual_seed(0))
    earlier = space.sample_one(generator=torch.Generator().manual_seed(8))
    strategy.tell([earlier], [-5.0])
    storage = tmp_path / "s.sqlite"
    run(strategy, lambda net: float(len(net.spec)), budget=4, storage=storage, progress=False)
    write_report(storage, tmp_path / "s.html")
    text = "".join(Page((tmp_path / "s.html").read_text()).text)
    assert text.count("known before") >= 3  # the summary, the best, the table
    assert earlier.spec in text


def test_objectives_constraints_and_what_is_missing(tmp_path):
    def objective(net):
        size = len(net.spec)
        if size % 3 == 0:
            return {"accuracy": float(size), "latency": math.nan, "energy": 1.0}
        return {"accuracy": float(size), "latency": size / 2, "energy": float(size % 5)}

    strategy = RandomSearch(
        spaces.NASBench201(),
        generator=torch.Generator().manual_seed(0),
        objectives={"accuracy": "maximize", "latency": "minimize", "energy": "minimize"},
        constraints=["latency <= 43.5"],
    )
    storage = tmp_path / "s.sqlite"
    result = run(strategy, objective, budget=20, storage=storage, progress=False)
    assert any(trial.failed for trial in result.trials)
    assert not all(result.goal.feasible(result.values).tolist())
    write_report(storage, tmp_path / "s.html")
    text = (tmp_path / "s.html").read_text()
    assert [f'id="front-{number}"' in text for number in (1, 2, 3, 4)] == [True] * 3 + [False]
    kept = int((result.values[:, 1] <= 43.5).sum())
    measured = sum(not trial.failed for trial in result.trials)
    assert f"<td>latency &lt;= 43.5</td><td>{kept} of {measured}</td>" in text
    assert "latency was NaN" in text


def test_nothing_ends_an_element_that_it_stands_in(tmp_path):
    evil = "</script><script>alert(1)</script><!--"
    strategy = RandomSearch(spaces.Pooling(), generator=torch.Generator().manual_seed(0))

    def objective(_net):
        return Evaluation(1.0, {evil: 2.0, '" onload="x': 1.0, "\N{CAT}\n'": 3.0})

    objective.__qualname__ = evil
    run(strategy, objective, budget=3, storage=tmp_path / "s.sqlite", progress=False)
    write_report(tmp_path / "s.sqlite", tmp_path / "s.html")
    page = Page((tmp_path / "s.html").read_text())
    assert page.tags.count("script") == 3  # two of data, one that works
    assert not [name for name in page.attributes if name.startswith("on")]
    assert any("\N{CAT}" in text for text in page.text)


def test_a_search_that_is_running_can_be_read(tmp_path):
    storage = tmp_path / "s.sqlite"
    search(storage, budget=5)
    with Storage(storage) as store:
        store.begin(store.identity)
        net = spaces.NASBench201().sample_one(generator=torch.Generator().manual_seed(9))
        store.add_batch([net], store.state)
        identity, result = read_search(storage)
    assert len(result.trials) == 5
    assert identity["strategy"]["strategy"] == "random"


def test_subsets_are_rebuilt_and_other_options_must_be_passed(tmp_path):
    space = spaces.NASBench201()
    subset = spaces.Subset(
        space, space.sample(9, generator=torch.Generator().manual_seed(0), distinct=True)
    )
    search(tmp_path / "subset.sqlite", subset, budget=4)
    assert len(read_search(tmp_path / "subset.sqlite")[1].trials) == 4
    own = spaces.NASBench201(contract_skip=True)
    search(tmp_path / "own.sqlite", own, budget=4)
    with pytest.raises(StorageError, match=r"contract_skip=True.*pass space="):
        read_search(tmp_path / "own.sqlite")
    assert len(read_search(tmp_path / "own.sqlite", space=own)[1].trials) == 4


def test_what_cannot_be_reported_is_named(tmp_path):
    with pytest.raises(StorageError, match="there is no storage file"):
        write_report(tmp_path / "nowhere.sqlite", tmp_path / "x.html")
    Storage(tmp_path / "new.sqlite").close()
    with pytest.raises(StorageError, match="holds no search yet"):
        write_report(tmp_path / "new.sqlite", tmp_path / "x.html")
    with Storage(tmp_path / "begun.sqlite") as store:
        store.begin({"space": {"name": "pooling", "space": "Pooling()"}})
    with pytest.raises(StorageError, match="no finished trial"):
        write_report(tmp_path / "begun.sqlite", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_the_network_is_drawn_as_it_was_trained(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "plot_network", lambda net: drawn.append(net) or Figure())
    skeleton = Skeleton(channels=4, num_stages=3, cells_per_stage=2, input_channels=1)
    objective = Training(skeleton=skeleton, settings=TrainingSettings(epochs=1))
    space = spaces.NASBench201()
    strategy = RandomSearch(space, generator=torch.Generator().manual_seed(0))
    storage = tmp_path / "s.sqlite"
    result = run(strategy, objective, budget=2, storage=storage, progress=False)
    write_report(storage, tmp_path / "s.html")
    net, _ = drawn
    assert net.channels == (4, 4, 8, 8, 8, 16, 16, 16)
    assert net.downsampling == (1, 1, 2, 2, 2, 4, 4, 4)
    searched = result.best.network.cells[0].key
    assert [cell.key == searched for cell in net.cells] == [True, True, *[False, True, True] * 2]
    assert "As they were trained" in (tmp_path / "s.html").read_text(encoding="utf-8")


def test_a_report_is_written_at_once_or_not_at_all(finished, tmp_path, monkeypatch):
    _, folder = finished
    out = tmp_path / "a.html"
    out.write_text("old")
    monkeypatch.setattr("os.replace", None)
    with pytest.raises(TypeError):
        write_report(folder / "search.sqlite", out)
    assert out.read_text() == "old"
    with pytest.raises(OSError, match="does not exist"):
        write_report(folder / "search.sqlite", tmp_path / "absent" / "a.html")


@pytest.mark.parametrize("name", ["cost in $ and $", "\\ud800", "a\x00b", "<b>"])
def test_any_name_of_an_objective_can_be_reported(tmp_path, name):
    name = name.replace("\\ud800", "\ud800")
    strategy = RandomSearch(spaces.Pooling(), generator=torch.Generator().manual_seed(0))
    objective = Function(lambda net: float(net.num_cells), name=name)
    run(strategy, objective, budget=3, storage=tmp_path / "s.sqlite", progress=False)
    write_report(tmp_path / "s.sqlite", tmp_path / "s.html")
    assert "<b>" not in (tmp_path / "s.html").read_text(encoding="utf-8")


def test_an_objective_that_calls_itself_training_is_reported_like_others(tmp_path):
    class Mine:
        def __call__(self, net):
            return float(len(net.spec))

        def describe(self):
            return {"kind": "training"}

    storage = tmp_path / "mine.sqlite"
    strategy = RandomSearch(spaces.Pooling(), generator=torch.Generator().manual_seed(0))
    run(strategy, Mine(), budget=3, storage=storage, progress=False)
    write_report(storage, tmp_path / "mine.html")
    assert "Best networks" in (tmp_path / "mine.html").read_text()
