"""Slides for a lecture: a deck for each notebook of a finished run, one HTML file that loads nothing from the network.

Each text cell is a slide, and so is each figure or diagram; code, printed output and exercises are left out. Arrow
keys, page keys and the space bar turn the slides; the browser prints them, one on a page.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import nbformat

from armap_lite.display import pages
from armap_lite.storage.store import write_atomic


def write_slides(run: Path, out: Path, env: str) -> int:
    """Write the decks of `env` in the finished run `run` into the folder `out`; returns how many there are.

    Raises ValueError where the run holds no executed notebooks of that environment.
    """
    paths = sorted((run / env / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        folder = run / env / "notebooks"
        raise ValueError(f"no executed notebooks in {folder}; first finish a run: make reproduce ENV={env}")
    for path in paths:
        node = nbformat.read(path, as_version=4)
        shown = slides(node.cells)
        write_atomic(out / f"{path.stem}.html", pages.render("slides.html", title=path.stem, slides=shown))
    return len(paths)


def slides(cells: list[Any]) -> list[str]:
    """The HTML of each slide; the exercises end the deck."""
    found: list[str] = []
    for cell in cells:
        if cell.cell_type == "markdown":
            if cell.source.startswith("## Exercise"):
                break
            found.append(pages.sanitize(pages.markdown(cell.source)))
        for output in cell.get("outputs", []) if found else []:
            data = output.get("data", {})
            if "text/markdown" in data:  # tables
                found[-1] += pages.sanitize(pages.markdown(data["text/markdown"]))
            elif picture := data.get("image/png"):
                alt = html.escape(output.get("metadata", {}).get("image/png", {}).get("alt", ""))
                found.append(f'<img src="data:image/png;base64,{"".join(picture.split())}" alt="{alt}">')
    return found
