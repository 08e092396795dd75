"""A browser, and searches to look at in it."""

import shutil

import pytest

from hotnas_torch.search import run
from tests.generators.searches import objective, strategy

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium on the path")
    with api.sync_playwright() as playwright:
        # As root, and in containers, its own sandbox cannot be made.
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser):
    """Open a page; at the end it must have said nothing, and asked for nothing elsewhere."""
    said, asked, contexts = [], [], []

    def opened(url, **options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    local = ("file:", "data:", "http://127.0.0.1:", "http://localhost:")
    assert [url for url in asked if not url.startswith(local)] == []


@pytest.fixture(scope="session")
def searched(tmp_path_factory):
    storage = tmp_path_factory.mktemp("searched") / "search.sqlite"
    run(strategy(), objective, budget=30, storage=storage, progress=False)
    return storage
