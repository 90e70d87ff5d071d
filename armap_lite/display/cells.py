"""Notebooks and their cells: those for readers of one world, and source code that is folded away.

A cell tagged `world:NAME` is for readers of that world; several tags name several worlds; a cell without such a tag is
for all. `for_world` drops the cells of other worlds. In JupyterLab, where all cells are there, `show_world` hides them
by CSS, which cannot see tags: such a text cell therefore starts with a label, `<b class="world-NAME">`, and the class
`with-code` there includes the code cell below. A reader of one world does not see the labels.
"""

import inspect
import re
from pathlib import Path
from typing import Any

from IPython.display import HTML, Code, display

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
TAG = "world:"
LABEL = '[class^="world-"]'
LABEL_TEXT = re.compile(r'^<b class="world-[^>]*>.*?</b> ')


def notebook_paths() -> list[Path]:
    """The notebooks of this checkout, in order. Raises ValueError where there is none."""
    found = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise ValueError(f"no notebooks in {NOTEBOOKS}; run from a checkout of armap-lite")
    return found


def worlds(cell: dict[str, Any]) -> list[str]:
    """The worlds that `cell` is for; empty if it is for all."""
    return [tag.removeprefix(TAG) for tag in cell["metadata"].get("tags", []) if tag.startswith(TAG)]


def for_world(notebook: dict[str, Any], env: str) -> dict[str, Any]:
    """A copy of `notebook` (JSON of nbformat 4) without the cells of other worlds, with `env` as default of `ENV`."""
    cells = []
    for cell in (cell for cell in notebook["cells"] if env in (worlds(cell) or [env])):
        source = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", []):
            source = re.sub(r'^ENV = ".*?"', f'ENV = "{env}"', source, flags=re.MULTILINE)
        cells.append({**cell, "source": LABEL_TEXT.sub("", source)})
    return {**notebook, "cells": cells}


def world_style(env: str) -> str:
    """CSS that hides the cells of other worlds than `env` in JupyterLab and Notebook 7."""
    own = f'[class~="world-{env}"]'
    other = f".jp-MarkdownCell:has({LABEL}):not(:has({own}))"
    with_code = f".jp-MarkdownCell:has({LABEL}.with-code):not(:has({own})) + .jp-CodeCell"
    return f"<style>{other}, {with_code}, .jp-MarkdownCell b{LABEL} {{ display: none !important; }}</style>"


def show_world(env: str) -> None:
    """Hide the cells of other worlds than `env` in the notebook that a reader has open; elsewhere do nothing."""
    from armap_lite.display.canvas import is_interactive

    if is_interactive():
        display(HTML(world_style(env)))


def source(*objects: Any) -> HTML:
    """The source code of functions and classes, highlighted and folded under their names."""
    code = Code("\n\n".join(map(inspect.getsource, objects)), language="python")._repr_html_()
    names = ", ".join(one.__qualname__ for one in objects)
    return HTML(f"<details><summary>Source code of {names}</summary>{code}</details>")
