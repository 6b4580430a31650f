"""How the pages are built: offline, and with all their code run, so that neither links nor examples can rot."""

import os
import re
import shutil
import sys
from collections import _tuplegetter
from importlib import metadata
from pathlib import Path

from bayesnn.commands import prepare

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

# What the pages' cells inherit: the devices and compilation cache of the command line, `bayesnn` itself, lines of fixed length.
prepare()
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ |= {"COLUMNS": "88", "NO_COLOR": "1", "TTY_COMPATIBLE": "0"}
# Kernels read no start-up files of the user's, and do not warn that their local sockets are not encrypted.
PROFILE = Path(__file__).parent / "_build" / ".ipython" / "profile_default"
PROFILE.mkdir(parents=True, exist_ok=True)
(PROFILE / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 'ERROR'\n")
os.environ["IPYTHONDIR"] = str(PROFILE.parent)

project = "bayesnn"
author = "The bayesnn developers"
version = release = metadata.version("bayesnn")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_design", "mathtext"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"  # a cache would not see that the packages changed
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # the default ones come from outside
nb_merge_streams = True

default_role = "code"  # of docstrings, where single backticks hold code
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 88

html_title = "bayesnn"
html_theme = "pydata_sphinx_theme"
html_math_renderer = "mathtext"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "footer_start": [],
    "footer_end": [],
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
}
TREE = ("choose", "samplers/*")  # the pages that have others beside them
html_sidebars = {key: ["sidebar-nav-bs"] for key in TREE}
html_sidebars |= {page.stem: [] for page in Path(__file__).parent.glob("*.md") if page.stem not in TREE}

OUTSIDE = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["'](?:https?:)?//|<link\b[^>]*\bhref=["'](?:https?:)?//""")


def refuse_outside_requests(app, exception):
    """Fail the build when a page would ask another machine for anything."""
    shutil.rmtree(Path(app.outdir).with_name("jupyter_execute"), ignore_errors=True)  # copies that MyST-NB leaves in the source
    if exception is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        if found := OUTSIDE.search(page.read_text(encoding="utf-8")):
            raise RuntimeError(f"{page} loads something from outside: {found[0]}")


def skip_fields(app, what, name, member, skip, options):
    """Leave out the fields of named tuples, which their docstrings describe."""
    return True if isinstance(member, _tuplegetter) else skip


def setup(app):
    """Register with Sphinx, which calls this."""
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("build-finished", refuse_outside_requests)
