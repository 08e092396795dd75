"""The site: the pages of this folder, the reference of every public name, the gallery."""

import re
import sys
from pathlib import Path

import hotnas_torch as ht
from sphinx.application import Sphinx
from sphinx_gallery.sorting import FileNameSortKey

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402  # beside this file

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
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4

# Docstrings: Google's sections, names in single backticks.
default_role = "py:obj"
autodoc_member_order = "groupwise"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": FileNameSortKey,
    "download_all_examples": False,
    "min_reported_time": 10,
    "show_memory": False,
    "copyfile_regex": r".*\.(csv|json)$",
    "remove_config_comments": True,
    "matplotlib_animations": False,
    "show_signature": False,
}

html_theme = "pydata_sphinx_theme"
html_title = f"hotnas_torch {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_toc_level": 2,
    "navbar_align": "left",
    "navbar_end": ["version", "theme-switcher"],
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "friendly",
    "pygments_dark_style": "monokai",
}
html_sidebars = {"index": []}
html_show_sourcelink = False
copyright = author  # noqa: A001  # the name that Sphinx reads

# Pages are read in a repository, too, where results lie beside them.
_MOVED = [
    (re.compile(r"\]\((?:\.\./)*benchmarks/results/"), "](/results/"),
    (re.compile(r"\]\((?:\.\./)*docs/"), "](/"),
    (re.compile(r"\]\((?:\.\./)+(CONTRIBUTING|CHANGELOG)\.md"), lambda found: f"](/{found[1].lower()}.md"),
]


def _moved(_app: Sphinx, _name: str, source: list[str]) -> None:
    for pattern, replacement in _MOVED:
        source[0] = pattern.sub(replacement, source[0])


def setup(app: Sphinx) -> None:
    """Write the reference; register what rewrites links."""
    reference.write(HERE / "api")
    app.connect("source-read", _moved)
