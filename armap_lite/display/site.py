"""A small static site made by Sphinx: results, executed notebooks, a sidebar, a search; from disk, without the network.
Needs the extra `site`. Sphinx loads this module too, and calls `setup`.
"""

from __future__ import annotations

import html
import importlib.util
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import bleach
import nbformat

from armap_lite.display import report

NEEDS = ("sphinx", "myst_nb", "furo", "latex2mathml")
CONFIG = {
    "extensions": ["myst_nb", "armap_lite.display.site"],
    "html_title": "armap-lite",
    "html_theme": "furo",
    "html_static_path": ["armap.css"],
    "html_css_files": ["armap.css"],
    "html_math_renderer": "mathml",
    "html_show_search_summary": False,  # it would fetch pages, which a browser refuses without a server
    **dict.fromkeys(("html_show_copyright", "html_copy_source", "html_use_index", "smartquotes"), False),
    "myst_enable_extensions": ["dollarmath"],
    "nb_execution_mode": "off",
    "nb_render_markdown_format": "gfm",  # tables, and none of Sphinx's directives
}
STYLE = """
@media (min-width: 84em) { .content { width: min(100vw - 38em, 60em); } }
article table:not(.docutils) { border-collapse: collapse; display: block; overflow-x: auto; font-size: 0.9rem;
  :is(th, td) { padding: 0.3rem 0.7rem; border: 0; text-align: right; } :is(th, td):first-child { text-align: left; }
  tr { border-bottom: 1px solid var(--color-background-border); } }
section > table td { white-space: nowrap; } figure, math[display="block"] { margin: 1.5rem 0; }
math { font-family: math, "Latin Modern Math", "STIX Two Math", "Cambria Math", serif; font-size: 1.1em; }
#search-results a::after { content: "  " attr(href); color: var(--color-foreground-muted); font-size: 0.8rem; }
"""
TOC = "```{toctree}\n:caption: ENV\n:hidden:\n:glob:\n\nResults <ENV/results>\nENV/[0-9]*\n```\n\n"
TAGS = bleach.ALLOWED_TAGS | {"br", "div", "img", "p", "pre", "span", "table", "tbody", "td", "th", "thead", "tr"}
ATTRIBUTES = {"*": ["class", "alt"], "img": ["src"]}  # a source has to be data


def missing_packages() -> list[str]:
    """The modules of the extra `site` that are not installed."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


def write_site(out: Path) -> Path:
    """Write `out/site/` from what `gather` wrote and read; returns its first page. If that fails, the old one stays."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    with tempfile.TemporaryDirectory(dir=out, prefix=".site-") as folder, docutils_namespace(), patch_docutils():
        source, built, cache = (Path(folder, name) for name in ("source", "site", "cache"))
        write_source(out, source)
        Sphinx(source, None, built, cache, "html", CONFIG, status=None).build()
        shutil.rmtree(out / "site", ignore_errors=True)
        return built.rename(out / "site") / "index.html"


def write_source(out: Path, source: Path) -> None:
    """What Sphinx reads: a first page, and for each environment a page of results and the executed notebooks."""
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    source.mkdir()
    (source / "armap.css").write_text(STYLE, encoding="utf-8")
    run = "The run {}: profile {}, seed {}.".format(
        out.resolve().name, *(results["rows"][0][key] for key in ("profile", "seed"))
    )
    contents, tables = "", f"# Results\n\n{raw(f'<p>{html.escape(run)}</p>', report.ABOUT)}"
    for env in dict.fromkeys(row["env"] for row in results["rows"]):
        (source / env).mkdir()
        how, table, *more = report.environment_parts(out, env, results)
        (source / env / "results.md").write_text(f"# Results: {env}\n\n{raw(how, table, *more)}", encoding="utf-8")
        tables += f"## {env}\n\n{raw(table)}[Figures and details]({env}/results.md)\n\n"
        contents += TOC.replace("ENV", env)
        for notebook in (out / env / "notebooks").glob("*.ipynb"):
            node = report.strip_widgets(notebook)
            for cell in node.cells:
                told = (o.get("metadata", {}).get("image/png", {}).get("alt", "") for o in cell.get("outputs", []))
                cell.metadata["mystnb"] = {"image": {"alt": " ".join(told).strip()}}
            nbformat.write(node, source / env / notebook.name)
    (source / "index.md").write_text(
        f"{tables}## Made with\n\n{raw(report.versions_list(results))}{contents}", encoding="utf-8"
    )


def raw(*parts: str) -> str:
    """HTML as a block of MyST: on one line, so nothing ends it early; its tags apart, so the search sees words."""
    return f"```{{raw}} html\n{' '.join(' '.join(parts).replace('><', '> <').split())}\n```\n\n"


def setup(app: Any) -> None:
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("doctree-read", sanitize)


def mathml(writer: Any, node: Any) -> None:
    """A formula as browsers read it by themselves; one that is not understood stays what was written."""
    from docutils import nodes
    from latex2mathml.converter import convert

    source, display = node.astext(), "block" if isinstance(node, nodes.math_block) else "inline"
    try:
        writer.body.append(convert(source.replace(r"\arg\max", r"\operatorname{arg}\max"), display=display))
    except Exception:  # each kind of mistake is a class of its own, and none is worth the page
        writer.body.append(f"<code>{html.escape(source)}</code>")
    raise nodes.SkipNode


def sanitize(app: Any, tree: Any) -> None:
    """Outputs may quote a world or a model: their HTML runs nothing and loads nothing, nor does any picture."""
    from docutils import nodes

    for output in tree.findall(lambda node: isinstance(node, nodes.Element) and "cell_output" in node["classes"]):
        for part in list(output.findall(nodes.raw)):
            text = re.sub(r"(?is)<style\b.*?</style\s*>", "", part.astext())
            part[:] = [nodes.Text(bleach.clean(text, TAGS, ATTRIBUTES, ["data"]))]
    for picture in [image for image in tree.findall(nodes.image) if "://" in image["uri"]]:
        picture.replace_self(nodes.Text(picture.get("alt", "")))
