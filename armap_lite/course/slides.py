"""Slides for a lecture: a deck for each notebook of a finished run, one HTML file that loads nothing from the network.

Each text cell is a slide, and so is each figure or diagram, below its text where that is short. Code and exercises are
left out, and so is what is printed, but for the first lines where a text ends in a colon or the cell's slide type (in
JupyterLab: Property Inspector) is "fragment"; "skip" leaves a cell out. Arrow keys, page keys and the space bar turn
the slides; the browser prints them, one on a page.
"""

import html
import re
from pathlib import Path

import nbformat

from armap_lite.display import pages
from armap_lite.storage.store import write_atomic

PRINTED = 12  # lines of an output that fit below a text
WIDE = 95  # characters in a line of a slide
SHORT = 60  # words of a text that leave room for a figure
ASIDE = 30  # words of a text on one world that stands on the slide before it


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
            kind = cell.metadata.get("slideshow", {}).get("slide_type")
            if kind == "skip":
                continue
            if cell.cell_type == "markdown":
                if cell.source.startswith("## Exercise"):  # they end the deck
                    break
                for part in filter(None, re.split("^(?=## )", cell.source, flags=re.M)):
                    text = pages.sanitize(pages.markdown(part))
                    aside = any(tag.startswith("world:") for tag in cell.metadata.get("tags", []))
                    if not (slides and _plain(slides) and _joins(slides[-1], text, aside)):
                        slides.append("")
                    slides[-1] += text
                announced = cell.source.rstrip().endswith(":")
            outputs = cell.get("outputs", []) if slides else []
            printed = "".join(output.get("text", "") for output in outputs).rstrip()
            for output in outputs:
                data = output.get("data", {})
                told = ""
                if (announced or kind == "fragment") and "text" in output and printed:
                    told, printed = f"<pre>{html.escape(_first_lines(printed))}</pre>", ""  # all of a cell at once
                elif "text/markdown" in data:  # tables
                    told = pages.sanitize(pages.markdown(data["text/markdown"]))
                elif "<table" in (table := data.get("text/html", "")):  # those of pandas
                    told = pages.sanitize(table)
                if told and ("<img" in slides[-1] or ("<pre" in told and not _has_room(slides))):
                    slides.append("")
                slides[-1] += told
                if not told and (picture := data.get("image/png")):
                    alt = html.escape(output.get("metadata", {}).get("image/png", {}).get("alt", ""))
                    if not _has_room(slides):
                        slides.append("")
                    slides[-1] += f'<img src="data:image/png;base64,{"".join(picture.split())}" alt="{alt}">'
                    announced = False
        write_atomic(out / f"{path.stem}.html", pages.render("slides.html", title=path.stem, slides=slides))
    return len(paths)


def _words(slide: str) -> int:
    return len(pages.plain_text(slide).split())


def _has_room(slides: list[str]) -> bool:
    return _plain(slides) and _words(slides[-1]) <= SHORT


def _plain(slides: list[str]) -> bool:
    """Whether the last slide holds nothing but text."""
    return not any(tag in slides[-1] for tag in ("<pre", "<img", "<table"))


def _joins(slide: str, text: str, aside: bool) -> bool:
    """Whether `text` stands on `slide`: below a heading alone, or as a short `aside` on one world."""
    bare = slide.startswith("<h") and "<p" not in slide
    return bare or (aside and _words(text) < ASIDE and _words(slide) < SHORT)


def _first_lines(text: str) -> str:
    """As much of `text` as fits below a short text, where long lines wrap."""
    shown: list[str] = []
    room = PRINTED
    for line in text.splitlines():
        room -= 1 + max(0, len(line) - 1) // WIDE
        if room < 0:
            return "\n".join([*shown, "…"])
        shown.append(line)
    return "\n".join(shown)
