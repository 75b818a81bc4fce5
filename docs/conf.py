"""Sphinx's settings for the book, which `python docs/build_book.py` lays out and builds."""

import sys
from pathlib import Path

from minitransformer import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "minitransformer"
author = "The minitransformer developers"
version = release = __version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "docstrings",  # docs/docstrings.py
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # MathJax inside the book: no network to read it
]

# Notebooks come with their stored outputs; `pytest -m notebook` runs them.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "attrs_inline"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]

smartquotes = False  # three dots, two hyphens and quotes stay what they are
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"Array": "Array"}
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
maximum_signature_line_length = 80
add_module_names = False  # the heading above names the file
# Types of other packages have no pages here.
nitpick_ignore_regex = [
    ("py:.*", r"(?!minitransformer\b).*"),
    ("py:class", r"minitransformer\..*\.(S|T|Options)"),  # type variables
]

html_theme = "pydata_sphinx_theme"
html_title = "minitransformer"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = ["card.js"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "show_prev_next": True,
    "back_to_top_button": False,
    "navigation_with_keys": True,
    "show_nav_level": 1,
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": {"**": ["page-toc"], "costs": [], "study/report": []},  # wide tables
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {page: [] for page in ("index", "instructors")}
html_context = {"default_mode": "auto"}
copyright = "The minitransformer developers, Apache-2.0"
