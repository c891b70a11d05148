"""Sphinx configuration. `make docs` builds the pages, with warnings as errors and no network."""

import inspect
import re

import nixl_connect

project = "nixl_connect"
author = "The nixl-connect authors"
release = nixl_connect.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"nixl_connect {release}"
html_copy_source = False

# A word in single backquotes is a Python object where there is one of that name.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_use_rtype = False
# What pages of the reference import, and building them does not need.
autodoc_mock_imports = ["prometheus_client", "ray"]

# For the builder that follows links: `sphinx-build -b linkcheck`.
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_workers = 4
linkcheck_anchors = False  # pages of GitHub make theirs with scripts
linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1|10\.0\.0\.1)(:\d+)?(/.*)?$"]
linkcheck_allowed_redirects = {r"https://github\.com/.*": r"https://github\.com/.*"}


def _hide_private(*event):
    """Leave parameters that start with an underscore out of signatures."""
    _, what, _, obj, _, signature, returns = event
    if what != "class" or signature is None:
        return None
    shown = inspect.signature(obj)
    if not any(item.startswith("_") for item in shown.parameters):
        return None
    kept = [item for item in shown.parameters.values() if not item.name.startswith("_")]
    return str(shown.replace(parameters=kept)).replace("'", ""), returns


def _keep_colons(*event):
    """Keep napoleon from taking what precedes a colon in an attribute's first line for a type."""
    _, what, _, _, _, lines = event
    if what in {"attribute", "property"} and lines:
        lines[:0] = ["..", ""]  # an empty comment


def _link_beside(*event):
    """Have a file of the repository's root that a page includes link to others outside of docs."""
    _, _, _, content = event
    content[0] = re.sub(
        r"\]\((?!docs/|https?:|#)([^)\s]+)\)", r"](path:../\1)", content[0], flags=re.ASCII
    )


def setup(app):
    app.connect("include-read", _link_beside)
    app.connect("autodoc-process-signature", _hide_private)
    app.connect("autodoc-process-docstring", _keep_colons, priority=400)
