"""Sphinx configuration. `make docs` builds; every warning is an error there."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

# The notebooks then show their outcome as plain HTML, which a built page can hold.
os.environ["AMLTK_NB_STATIC"] = "1"

import amltk_nb  # noqa: E402 - from this checkout

project = "amltk_nb"
author = "amltk_nb contributors"
copyright = f"2026, {author}"
version = release = amltk_nb.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "jupyter_execute", "**.ipynb_checkpoints"]

# Sphinx reads only what is below this folder, so the notebooks are copied in; git ignores them.
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(ROOT / "notebooks", HERE / "notebooks", ignore=shutil.ignore_patterns(".*"))

nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks-cache")
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_merge_streams = True

myst_enable_extensions = ["colon_fence", "deflist", "substitution"]
myst_heading_anchors = 3

_PICTURES = """
```{image} _static/dashboard-light.png
:class: only-light
:alt: The dashboard mid-run, a failed call's row open: progress, buttons, calls, events, log
```
```{image} _static/dashboard-dark.png
:class: only-dark
:alt: The dashboard mid-run, a failed call's row open: progress, buttons, calls, events, log
```
"""
# The browser tests take the pictures; a checkout without them has a start page without.
_taken = all((HERE / "_static" / f"dashboard-{theme}.png").exists() for theme in ("light", "dark"))
myst_substitutions = {"dashboard": _PICTURES if _taken else ""}

autosummary_generate = True
# `Scheduler.ExitCode` is the same class as `ExitCode`, which has a page of its own; so has
# `Task.Batch`.
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "inherited-members": "Exception,str,Future,Executor",
    "exclude-members": "Batch, ExitCode",
}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# A docstring's `name` is code; most of them name arguments, which are nothing to link to.
default_role = "code"

html_theme = "pydata_sphinx_theme"
html_title = "amltk_nb"
html_static_path = ["_static"]
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
}
html_show_sourcelink = False
