"""Slides for a lecture: a deck for each notebook of a finished run, one HTML file that loads nothing from the network.

Each text cell is a slide, and so is each figure or diagram. Code, exercises and printed output are left out, but for
the first lines of what a text that ends in a colon announces. Arrow keys, page keys and the space bar turn the slides;
the browser prints them, one on a page.
"""

import html
from pathlib import Path

import nbformat

from armap_lite.display import pages
from armap_lite.storage.store import write_atomic

PRINTED = 12  # lines of an output that fit below a text


def write_slides(run: Path, out: Path, env: str) -> int:
    """Write the decks of `env` in the finished run `run` into the folder `out`; returns how many there are.

    Raises ValueError where the run holds no executed notebooks of that environment.
    """
    folder = run / env / "notebooks"
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise ValueError(f"no executed notebooks in {folder}; first finish a run: make reproduce ENV={env}")
    for path in paths:
        slides: list[str] = []
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                if cell.source.startswith("## Exercise"):  # they end the deck
                    break
                slides.append(pages.sanitize(pages.markdown(cell.source)))
                announced = cell.source.rstrip().endswith(":")
            for output in cell.get("outputs", []) if slides else []:
                data = output.get("data", {})
                if announced and "text" in output:
                    lines = output["text"].rstrip().splitlines()
                    shown = "\n".join([*lines[:PRINTED], *["…"] * (len(lines) > PRINTED)])
                    slides[-1] += f"<pre>{html.escape(shown)}</pre>"
                if "text/markdown" in data:  # tables
                    slides[-1] += pages.sanitize(pages.markdown(data["text/markdown"]))
                elif "<table" in (table := data.get("text/html", "")):  # those of pandas
                    slides[-1] += pages.sanitize(table)
                elif picture := data.get("image/png"):
                    alt = html.escape(output.get("metadata", {}).get("image/png", {}).get("alt", ""))
                    slides.append(f'<img src="data:image/png;base64,{"".join(picture.split())}" alt="{alt}">')
                    announced = False
        write_atomic(out / f"{path.stem}.html", pages.render("slides.html", title=path.stem, slides=slides))
    return len(paths)
