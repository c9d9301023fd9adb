"""How the documentation is built: `make docs`."""

import re

from fullspan._version import __version__

project = "fullspan"
release = __version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "abort_on_example_error": True,
    "show_memory": False,
}
html_theme = "furo"
html_title = f"fullspan {release}"
autodoc_typehints = "none"  # the docstrings say more
autodoc_member_order = "bysource"
# scikit-learn writes these.
requests = ("fit", "predict", "predict_proba", "score", "partial_fit", "transform", "inverse_transform")
inherited = ["get_metadata_routing", *(f"set_{name}_request" for name in requests)]
autodoc_default_options = {"exclude-members": ", ".join(inherited)}
numpydoc_show_class_members = False
myst_heading_anchors = 3
exclude_patterns = ["_build", "examples"]


def without_foreign_links(app, what, name, member, options, lines):
    """What estimators inherit from scikit-learn points into its own pages: keep the words."""
    if (getattr(member, "__module__", None) or "").startswith("sklearn"):
        text = re.sub(r":ref:`([^`<]+?)\s*(<[^`]*>)?`", r"\1", "\n".join(lines))
        lines[:] = text.split("\n")


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", without_foreign_links, priority=400)  # before numpydoc
