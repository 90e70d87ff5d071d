"""Renders the HTML of a run, for the report and the site alike: templates, formulas, executed notebooks.

The pages load nothing from the network. HTML that a model, a world or a catalogue wrote is reduced to harmless tags;
any other tag appears as text.
"""

import html
import re
from pathlib import Path
from typing import Any

import bleach
import jinja2
import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from armap_lite.display.canvas import WIDGET_MIME

TEMPLATES = Path(__file__).parent / "templates"
TAGS = frozenset((TEMPLATES / "allowed_tags.txt").read_text(encoding="utf-8").split())
ATTRIBUTES = {"alt", "class", "display", "fence", "linethickness", "stretchy", "title", "xmlns"}


def render(template: str, **context: Any) -> str:
    """The file `template` of `templates/`, filled in; strings are escaped unless the template marks them as safe."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["anchors"] = lambda body, env: re.sub(r'href="([\w-]+)\.html"', rf'href="#{env}-\1"', body)
    return environment.get_template(template).render(context)


def sanitize(source: str) -> str:
    """HTML `source` with the tags and attributes that neither run nor load anything; other tags become text."""
    source = re.sub(r"(?is)<style\b.*?</style\s*>", "", str(source))
    return bleach.clean(source, TAGS, _is_allowed, {"data", "http", "https", "mailto"})


def _is_allowed(tag: str, attribute: str, value: str) -> bool:
    if attribute == "src":
        return tag == "img" and value.startswith("data:image/")
    if attribute == "href":
        return tag == "a" and not value.lower().strip().startswith("data:")
    return attribute in ATTRIBUTES


class _Renderer(IPythonRenderer):
    """Markdown of notebooks to HTML, with formulas as MathML, which browsers display without a script."""

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return mathml(body, "block")


def mathml(formula: str, display: str) -> str:
    """LaTeX `formula` as MathML, `display` "inline" or "block"; a formula that cannot be parsed stays as source."""
    try:
        return convert(formula.replace(r"\arg\max", r"\operatorname{arg}\max"), display=display)
    except Exception:  # latex2mathml raises a class of its own for each kind of mistake, and some built-in ones
        return f"<code>{html.escape(formula)}</code>"


def markdown(source: str) -> str:
    """Markdown with formulas as HTML. The result is not sanitized."""
    return MarkdownWithMath(_Renderer(escape=False, exclude_anchor_links=True)).render(source)


def notebook(path: Path) -> dict[str, str]:
    """An executed notebook as {"name", "title", "html"}; links to other notebooks lead to their pages of the site.

    Widgets are left out, as they need a kernel; the pictures beside them stay.
    """
    node = nbformat.read(path, as_version=4)
    node.metadata.pop("widgets", None)
    tags = [cell.metadata.get("tags", []) for cell in node.cells]
    if any("injected-parameters" in some for some in tags):  # these are what ran; the defaults above them did not
        node.cells = [cell for cell, some in zip(node.cells, tags) if "parameters" not in some]
    for cell in node.cells:
        cell.outputs = [output for output in cell.get("outputs", []) if WIDGET_MIME not in output.get("data", {})]
    exporter = HTMLExporter(
        raw_template=(TEMPLATES / "cells.html").read_text(encoding="utf-8"),
        filters={"markdown2html": markdown, "clean_html": sanitize},
        sanitize_html=True,
    )
    body, _ = exporter.from_notebook_node(node)
    body = re.sub(r'href="([\w-]+)\.ipynb(#[^"]*)?"', r'href="\1.html"', body)
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.S)
    if not path.with_suffix(".done.json").is_file():
        body = f"<p><b>This notebook did not run to its end.</b></p>{body}"
    return {"name": path.stem, "title": plain_text(heading[1]) if heading else path.stem, "html": body}


def plain_text(source: str) -> str:
    """The text of sanitized HTML, on one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", source)).split())
