import re

import pytest

from hotnas_torch.plot.report import read_search, write_report


@pytest.fixture(scope="module")
def written(searched, tmp_path_factory):
    out = tmp_path_factory.mktemp("written") / "search.html"
    return write_report(searched, out), out.as_uri()


def column(page, number):
    cells = page.locator(f"#table tbody tr:not([hidden]) td:nth-child({number})")
    return cells.all_text_contents()


@pytest.mark.parametrize("chart", ["#map .dot", "#values .dot"])
def test_what_is_pointed_at_shows_its_name_its_value_and_its_picture(visit, written, chart):
    result, url = written
    page = visit(url)
    # The last one drawn lies above those in the same place.
    point = page.locator(chart).last
    trial = result.trials[int(point.get_attribute("data-row").removeprefix("trial-"))]
    point.hover(force=True)
    tip = page.locator("#tip")
    text = tip.inner_text()
    assert trial.network.spec in text
    assert f"value {trial.value:.6g}" in text
    assert f"evaluation {trial.number + 1}" in text
    assert tip.locator("svg").count() == len({cell.key for cell in trial.network.cells})
    page.mouse.move(2, 2)
    assert tip.is_hidden()


def test_a_failed_one_says_why(visit, written):
    _, url = written
    page = visit(url)
    page.locator("#values svg .failed[data-row]").first.hover(force=True)
    assert "failed: <broken> & 'lost' \N{PILE OF POO}" in page.locator("#tip").inner_text()


def test_the_heat_map_names_its_pair(visit, written):
    result, url = written
    page = visit(url)
    page.locator(".heat img").hover(position={"x": 200, "y": 20})
    text = page.locator("#tip").inner_text()
    assert float(re.search(r"distance ([\d.e-]+)", text)[1]) >= 0.0
    assert sum(trial.network.spec in text for trial in result.trials) == 2


def test_the_table_sorts_by_clicking_and_by_keys(visit, written):
    result, url = written
    page = visit(url)
    heads = page.locator("#table th")
    which = heads.all_text_contents().index("value")
    head, button = heads.nth(which), heads.nth(which).locator("button")
    button.click()
    values = [float(text) for text in column(page, which + 1) if text]
    assert values == sorted(trial.value for trial in result.trials if not trial.failed)
    assert head.get_attribute("aria-sort") == "ascending"
    button.press("Enter")
    assert [float(text) for text in column(page, which + 1) if text] == values[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    num_failed = sum(trial.failed for trial in result.trials)
    assert column(page, which + 1)[-num_failed:] == [""] * num_failed  # last, either way
    names = heads.count()
    heads.last.locator("button").press("Space")
    assert column(page, names) != sorted(column(page, 1))
    assert heads.last.get_attribute("aria-sort") == "ascending"


def test_the_table_filters_by_typing(visit, written):
    result, url = written
    page = visit(url)
    page.locator("#filter").press_sequentially("failed LOST")
    failed = [str(trial.number + 1) for trial in result.trials if trial.failed]
    assert column(page, 1) == failed
    assert page.locator("#count").inner_text() == f"{len(failed)} of {len(result.trials)}"
    page.locator("#filter").fill("")
    assert len(column(page, 1)) == len(result.trials)


def test_it_is_dark_where_the_system_is_and_can_be_switched(visit, written):
    _, url = written
    ground = "getComputedStyle(document.body).backgroundColor"
    dark, light = visit(url, color_scheme="dark"), visit(url, color_scheme="light")
    assert dark.evaluate(ground) != (bright := light.evaluate(ground))
    dark.locator("#theme").click()
    assert dark.evaluate(ground) == bright
    dark.reload()
    assert dark.evaluate(ground) == bright  # remembered


@pytest.mark.parametrize(("width", "media"), [(390, "screen"), (1200, "screen"), (720, "print")])
def test_nothing_is_wider_than_the_screen_or_the_paper(visit, written, width, media):
    _, url = written
    page = visit(url, viewport={"width": width, "height": 800})
    page.emulate_media(media=media)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_it_is_read_without_javascript(visit, written):
    result, url = written
    page = visit(url, java_script_enabled=False)
    assert len(column(page, 1)) == len(result.trials)
    assert page.locator("#theme").is_hidden()
    assert page.locator("#values circle").count() > 0


def test_a_thousand_trials_stay_small_and_open_quickly(visit, searched, tmp_path, monkeypatch):
    identity, result = read_search(searched)
    trials = [
        type(trial)(number, trial.network, trial.outcome, trial.elapsed)
        for number, trial in enumerate(result.trials * 34)
    ]
    many = type(result)(result.space, tuple(trials), "", result.goal)
    monkeypatch.setattr("hotnas_torch.plot.report.read_search", lambda *_, **__: (identity, many))
    write_report(searched, tmp_path / "many.html")
    assert (tmp_path / "many.html").stat().st_size < 1_500_000
    page = visit((tmp_path / "many.html").as_uri())
    assert page.locator("#count").inner_text() == "1020 evaluations"
