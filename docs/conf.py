"""How the documentation is built: `make docs`."""

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
numpydoc_show_class_members = False
myst_heading_anchors = 3
exclude_patterns = ["_build", "examples"]
