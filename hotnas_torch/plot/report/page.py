"""The page of a search: its template filled in, with a policy that lets nothing else in."""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from hotnas_torch._version import __version__
from hotnas_torch.plot.figure import printable
from hotnas_torch.plot.report.contents import contents
from hotnas_torch.search.running.trial import SearchResult

__all__ = ["Live", "render_page", "render_waiting"]


Live = tuple[str, str]
"""Version of a page that is served, and what is said of the search."""


def _file(name: str) -> str:
    return (resources.files("hotnas_torch.plot.report") / name).read_text(encoding="utf-8")


def _shown(value: object) -> object:
    """Return what a template shows: signs that no page can hold are replaced; markup is our own."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _template() -> Template:
    environment = Environment(
        loader=FunctionLoader(_file),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=False,
    )
    return environment.get_template("page.html")


@cache
def _script() -> str:
    return _file("page.js")


def _policy(connect: str) -> str:
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        f"img-src data:; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def _data(value: object) -> Markup:
    """Return JSON that cannot end the element that it stands in."""
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def render_page(
    identity: Mapping[str, Any], result: SearchResult, source: str, *, live: Live | None = None
) -> bytes:
    """Return the page of a search.

    Args:
        identity: The description of the search.
        result: The search, at least one trial.
        source: Name of its file.
        live: For a page that is served, which asks for changes.
    """
    found = contents(identity, result)
    heat = found["heat_map"]
    entries = {
        **found,
        "pictures": _data(found["pictures"]),
        "heat": _data({name: heat[name] for name in ("rows", "distances")} if heat else None),
    }
    return _render(entries, source, live)


def render_waiting(source: str, live: Live) -> bytes:
    """Return the page of a search of which nothing has finished yet."""
    return _render({"title": source, "summary": None}, source, live)


def _render(entries: Mapping[str, Any], source: str, live: Live | None) -> bytes:
    version, state = live or ("", "")
    page = _template().render(
        **entries,
        source=source,
        release=__version__,
        live=live is not None,
        version=version,
        state=state,
        policy=_policy("'self'" if live else "'none'"),
        style=_file("page.css"),
        script=_script(),
    )
    # A name may hold what no text file can, which then stands there as an escape.
    return (page + "\n").encode("utf-8", "backslashreplace")
