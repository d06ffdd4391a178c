"""How the documentation is built: ``make docs``. It needs no network, and every warning is an error."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

import histcxr  # noqa: E402
from histcxr.commands import COMMANDS  # noqa: E402
from histcxr.exceptions import Reason  # noqa: E402

project, author, release = "histcxr", "the histcxr contributors", histcxr.__version__
copyright = author  # noqa: A001 - Sphinx's name
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "gallery", "**/GALLERY_HEADER.rst"]
templates_path = ["_templates"]
nitpicky = True  # a name of ours that leads nowhere is an error; others' names lead nowhere without a network
nitpick_ignore_regex = [("py:.*", r"(?!histcxr\.).*|.*\._\w+")]

smartquotes = False  # options begin with two hyphens

html_theme = "pydata_sphinx_theme"
html_title = "histcxr"
html_static_path = ["_static"]
html_css_files = ["histcxr.css"]
html_show_sourcelink = False
html_sidebars = dict.fromkeys(
    (
        "concepts",
        "promise",
        "benchmarks/**",
        "figures",
        "compare",
        "glossary",
        "security",
        "changelog",
        "contributing",
    ),
    [],
)
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["disclaimer"],
    "footer_end": ["sphinx-version", "theme-version"],
}

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"ArrayLike": "numpy.typing.ArrayLike"}
autodoc_default_options = {
    "members": True,
    "inherited-members": "object,tuple,str,Exception",
    "ignore-module-all": True,  # each thing where it is defined, once
}
autosummary_generate = True
napoleon_google_docstring = False

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "backreferences_dir": "_generated/backreferences",
    "doc_module": ("histcxr",),
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "ignore_repr_types": r"matplotlib|Display|class 'list'",
    "show_signature": False,
    "remove_config_comments": True,
}

# public name by where it is defined: docstrings name it there, the site shows it as users import it
_SHOWN_AS = {
    f"{thing.__module__}.{thing.__name__}": f"{prefix}.{name}"
    for prefix, place in (("histcxr", histcxr), ("histcxr.plots", histcxr.plots))
    for name in place.__all__
    if hasattr(thing := getattr(place, name), "__module__")
}


PLOTS = """Plots
=====

.. currentmodule:: histcxr.plots

``histcxr.plots`` has displays with scikit-learn's habits: ``from_predictions`` and its like compute and draw,
``plot(ax)`` draws what is computed, ``ax_`` and ``figure_`` are what was drawn into. They need matplotlib:
``pip install '.[report]'``.

.. autosummary::
   :toctree: api
   :nosignatures:

"""


REASONS = """# Reasons

Why an image is in `review` though no score put it there: the columns `reason_code` and `reason` of a worklist.

| code | what is wrong, and what to do |
|---|---|
"""


def _write_pages(app, config):
    """Write a page for each command, the list of plots, and why an image may be in review."""
    folder = DOCS / "_generated" / "commands"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (module, function, _) in COMMANDS.items():
        (folder / f"{name}.rst").write_text(
            f".. click:: histcxr.commands.{module}:{function}\n   :prog: histcxr {name}\n   :nested: full\n",
            encoding="utf-8",
        )
    names = "".join(f"   {name}\n" for name in histcxr.plots.__all__)
    (folder.parent / "plots.rst").write_text(PLOTS + names, encoding="utf-8")
    rows = "".join(f"| `{reason.value}` | {reason.sentence} |\n" for reason in Reason)
    (folder.parent / "reasons.md").write_text(REASONS + rows, encoding="utf-8")


def _leave_out(app, what, name, obj, skip, options):
    """Leave out what classes inherit from other packages, and of modules what has a page as a public name."""
    module = str(getattr(obj, "__module__", None) or "histcxr")
    shown = what == "module" and f"{module}.{name}" in _SHOWN_AS
    return True if shown or not module.startswith("histcxr") else None


def _as_rst(app, ctx, lines):
    """Take stars and backticks of a command's help for what they are, and what keeps its lines for code."""
    found, inside = [], False
    for line in lines:
        if line.startswith("| ") and not inside:
            found += [".. code-block:: none", ""]
        inside = line.startswith("| ")
        text = re.sub("`+", "``", line).replace("*", r"\*")
        found.append(f"   {line[2:]}" if inside else text)
    lines[:] = found


def _shorten_types(app, domain, objtype, content):
    """Write arrays as ndarray[float64], as annotations do; their shapes are in the text."""
    for types in app.env.current_document.autodoc_annotations.values():
        types.pop("self", None)
        for name, text in types.items():
            text = re.sub(r"(?:TypeAliasForwardRef\('|~)?numpy\.typing\.ArrayLike(?:'\))?", "ArrayLike", text)
            types[name] = re.sub(r"\[tuple\[[^\]]*\], ~?numpy\.dtype\[([^\[\]]*)\]\]", r"[\1]", text)


def _find_reference(app, env, node, contnode):
    """Resolve names by the module that defines them, or by their last part where only one of ours has it."""
    from sphinx.util.nodes import make_refnode

    target = node.get("reftarget", "")
    objects = env.domains.python_domain.objects
    public = _SHOWN_AS.get(target)
    if public is None:
        head = next((place for place in _SHOWN_AS if target.startswith(f"{place}.")), None)
        public = head and _SHOWN_AS[head] + target.removeprefix(head)
    found = [public] if public in objects else [name for name in objects if name.endswith(f".{target}")]
    found = sorted(found, key=lambda name: (name not in _SHOWN_AS.values(), name))
    if node.get("reftype") == "class":  # the type of an argument, too: no attribute of that name
        found = [name for name in found if objects[name].objtype in ("class", "exception", "data")]
    if node.get("refdomain") != "py" or not found:
        return None
    place = objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], place.docname, place.node_id, contnode, found[0])


def setup(app):
    """Hook into Sphinx."""
    sys.modules["histcxr.plots"] = histcxr.plots  # a name of the package, not a module of its own
    app.connect("config-inited", _write_pages)  # before autosummary looks which pages there are
    app.connect("autodoc-skip-member", _leave_out)
    for part in ("description", "epilog"):
        app.connect(f"sphinx-click-process-{part}", _as_rst)
    app.connect("object-description-transform", _shorten_types, priority=400)
    app.connect("missing-reference", _find_reference)
