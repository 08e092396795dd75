"""Check that what the pages of a site link to is there, within the site.

    python -m tools.links build/site

Sphinx checks what it resolves itself; this reads what it wrote. Links to elsewhere are left alone.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["broken", "main", "pages"]


class _Page(HTMLParser):
    """What a page links to, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.places.add(value or "")
            elif name in ("href", "src") and value is not None:
                self.links.append(value)


def pages(site: Path) -> list[Path]:
    """Return the pages of a site; what themes keep in `_static` is none."""
    found = site.rglob("*.html")
    return sorted(page for page in found if page.relative_to(site).parts[0] != "_static")


def broken(site: Path) -> Iterator[tuple[Path, str]]:
    """Yield each page with a link of it that leads nowhere.

    Args:
        site: Folder of the site.
    """
    read = cache(lambda path: _Page(path.read_text(encoding="utf-8")))
    for page in pages(site):
        for link in dict.fromkeys(read(page).links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve()
            target = target / "index.html" if target.is_dir() else target
            known = target.is_file() and target.is_relative_to(site.resolve())
            if known and parts.fragment and target.suffix == ".html":
                known = unquote(parts.fragment) in read(target).places
            if not known:
                yield page.relative_to(site), link


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 where a link leads nowhere, or there is no site."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    site = parser.parse_args(arguments).site
    if not (site / "index.html").is_file():
        print(f"{site} holds no site: there is no index.html (make docs)", file=sys.stderr)
        return 1
    found = list(broken(site))
    for page, link in found:
        print(f"{page}: {link} is not there", file=sys.stderr)
    print(f"{len(pages(site))} pages, {len(found)} links to nowhere")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
