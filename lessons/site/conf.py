"""How Sphinx makes the book; build.py lays out what it reads."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import tinymixer  # noqa: E402

project, author = "tinymixer", "The tinymixer authors"
version = release = tinymixer.__version__
project_copyright = author

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "formulas", "docstrings"]
nb_execution_mode = "off"  # the lessons are committed with their outputs
nb_number_source_lines = False
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
# A name is shown where it lives, not where it is imported and listed in __all__.
autodoc_default_options = {"members": True, "ignore-module-all": True}
viewcode_follow_imported_members = False  # a source page links back by the name of one module
toc_object_entries = False  # with them, half of the time goes into copies of the table of contents
python_maximum_signature_line_length = 90

html_theme = "furo"
html_title = f"tinymixer {version}"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
pygments_style, pygments_dark_style = "friendly", "github-dark"
