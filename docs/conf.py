"""The site: the pages of this folder, the reference of every public name, the gallery."""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

import hotnas_torch as ht

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MADE = HERE / "made"
sys.path[:0] = [str(HERE), str(ROOT)]

import reference  # noqa: E402  # beside this file

from tools.notebooks import FIRST_CELL  # noqa: E402

project = "hotnas_torch"
author = "the hotnas_torch authors"
version = release = ht.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
# Results are read in the repository, too, where their titles are smaller.
suppress_warnings = ["myst.header", "config.cache"]

# Docstrings: Google's sections, names in single backticks.
default_role = "py:obj"
autodoc_member_order = "groupwise"
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    # scikit-learn makes these of every estimator
    "exclude-members": "set_fit_request, set_predict_request, set_score_request,"
    " set_transform_request, set_partial_fit_request",
}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "subsection_order": [
        f"../examples/{folder}"
        for folder in (
            "solvers",
            "distances",
            "spaces",
            "models",
            "search",
            "hierarchies",
            "generators",
        )
    ],
    "image_scrapers": ("matplotlib", "reference.figures"),
    "download_all_examples": False,
    "first_notebook_cell": FIRST_CELL,
    "min_reported_time": 10,
    "show_memory": False,
    "show_signature": False,
}

html_theme = "pydata_sphinx_theme"
html_title = f"hotnas_torch {version}"
html_context = {"default_mode": "auto"}  # dark where the system is
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_toc_level": 2,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "friendly",
    "pygments_dark_style": "monokai",
}
html_sidebars = {"index": []}
html_show_sourcelink = False
copyright = author

# Pages are read in a repository, too, where results lie beside the folder of the pages.
_MOVED = [
    (re.compile(r"\]\((?:\.\./)*benchmarks/results/"), "](/made/results/"),
    (re.compile(r"\]\((?:\.\./)*docs/"), "](/"),
    (
        re.compile(r"\]\((?:\.\./)+(CONTRIBUTING|CHANGELOG)\.md"),
        lambda found: f"](/made/{found[1].lower()}.md",
    ),
]


def _copy_in() -> None:
    """Copy what lies outside this folder into it: results of benchmarks, two pages for makers."""
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        _copy(ROOT / name, MADE / name.lower())
    for path in sorted((ROOT / "benchmarks" / "results").rglob("*")):
        if path.suffix in {".md", ".png", ".json", ".csv"}:
            _copy(path, MADE / "results" / path.relative_to(ROOT / "benchmarks" / "results"))


def _copy(source: Path, target: Path) -> None:
    content = source.read_bytes()
    if source.suffix == ".md" and not content.startswith(b"# "):
        content = f"# {source.stem.replace('_', ' ')}\n\n".encode() + content
    if not target.exists() or target.read_bytes() != content:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _moved(_app: Sphinx, _name: str, source: list[str]) -> None:
    for pattern, replacement in _MOVED:
        source[0] = pattern.sub(replacement, source[0])


# Stars of shapes, (*batch, n, m), begin no emphasis; bars, |x - y|, no substitution.
_STAR = re.compile(r"(?<![*\\`\w])\*(?=\w)|\|(?=\w)")


def _starred(
    _app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    lines[:] = [_STAR.sub(r"\\\g<0>", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Write the reference; register what rewrites links and docstrings."""
    reference.write(HERE / "api")
    _copy_in()
    app.connect("source-read", _moved)
    app.connect("autodoc-process-docstring", _starred, priority=900)  # after napoleon
