"""Slides for a lecture: a deck for each notebook of a finished run, one HTML file that loads nothing from the network.

Each text cell is a slide, and so is each figure or diagram, below its text where that is short. Code and exercises are
left out, and so is what is printed, except where a text ends in a colon or the cell's slide type (in JupyterLab:
Property Inspector) is "fragment"; "skip" leaves a cell out. The slides of cells tagged `lecture` also make a deck of
their own. Arrow keys, page keys and the space bar turn the slides; the browser prints them, one on a page.
"""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

from armap_lite.display import pages
from armap_lite.storage.store import write_atomic

PRINTED, ALONE = 12, 20  # lines of an output that fit below a text, and on a slide of their own
ROWS, BELOW = 16, 5  # rows of a table; those that fit below a text
WIDE = 95  # characters in a line of a slide
SHORT = 60  # words of a text that leave room for a figure
ASIDE = 30  # words of a text that stands on the slide before it
PREPARATION = re.compile(r"^- \*(?:What you need|Time):\*.*\n?", re.M)  # in a title cell, for who runs the notebook


def write_slides(run: Path, out: Path, env: str) -> int:
    """Write the decks of `env` in the finished run `run` into the folder `out`; returns how many there are.

    Raises ValueError where the run holds no executed notebooks of that environment.
    """
    folder = run / env / "notebooks"
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise ValueError(f"no executed notebooks in {folder}; first finish a run: make reproduce ENV={env}")
    decks = {path.stem: Deck(nbformat.read(path, as_version=4)) for path in paths}
    for name, deck in decks.items():
        _write(out, name, deck.slides)
    lecture = [_renumbered(deck.slides[i], name[:2]) for name, deck in decks.items() for i in sorted(deck.lecture)]
    if lecture:
        _write(out, "lecture", lecture)
    return len(decks) + bool(lecture)


def _renumbered(slide: str, notebook: str) -> str:
    """`slide` with the number of its notebook in place of its section's, as sections of many notebooks follow."""
    return re.sub(r"(<h2[^>]*>|<header>)\d+ · ", rf"\g<1>{notebook} · ", slide, count=1)


def _write(out: Path, name: str, slides: list[str]) -> None:
    write_atomic(out / f"{name}.html", pages.render("slides.html", title=name, slides=slides))


class Deck:
    """`slides` of a notebook, as HTML, and the positions of those that belong into the `lecture`."""

    def __init__(self, notebook: nbformat.NotebookNode):
        self.slides: list[str] = []
        self.lecture: set[int] = set()
        self._section = ""  # the heading that further slides of a section repeat
        announced = False
        for cell in notebook.cells:
            before = len(self.slides)
            kind, tags = cell.metadata.get("slideshow", {}).get("slide_type"), cell.metadata.get("tags", [])
            if kind == "skip":
                continue
            if cell.cell_type == "markdown":
                if cell.source.startswith("## Exercise"):  # they end the deck
                    break
                for part in filter(None, re.split("^(?=## )", PREPARATION.sub("", cell.source), flags=re.M)):
                    self._add_text(pages.sanitize(pages.markdown(part)))
                if not any(tag.startswith("world:") for tag in tags):  # what such a cell adds announces nothing
                    announced = False
                announced = announced or cell.source.rstrip().endswith(":")
            elif cell.cell_type == "code" and self.slides:
                printed = "".join(output.get("text", "") for output in cell.outputs).rstrip()
                shown = announced or kind == "fragment"
                for output in cell.outputs:
                    if shown and printed and "text" in output:  # all of a cell at once
                        self._add_printed(printed)
                        printed = ""
                    announced = not self._add_output(output) and announced
            if "lecture" in tags and self.slides:
                self.lecture.update(range(min(before, len(self.slides) - 1), len(self.slides)))

    def _new(self) -> None:
        self.slides.append(f"<header>{html.escape(self._section)}</header>" if self._section else "")

    def _add_text(self, text: str) -> None:
        heading = re.match(r"<h[12][^>]*>(.*?)</h[12]>", text, re.S)
        bare = bool(self.slides) and "<h" in self.slides[-1] and "<p" not in self.slides[-1]  # a heading alone
        aside = bool(self.slides) and not heading and _words(text) < ASIDE and _words(self.slides[-1]) < SHORT
        joins = (bare or aside) and _plain(self.slides[-1])
        if heading:
            self._section = ""
        if not joins:
            self._new()
        self.slides[-1] += text
        if heading:
            self._section = pages.plain_text(heading[1])

    def _add_printed(self, text: str) -> None:
        """Below the text if all of it fits there, else on slides of its own."""
        below = self._has_room() and _lines(text) <= PRINTED
        for lines in [text.splitlines()] if below else _portions(text):
            if not below:
                self._new()
            self.slides[-1] += f"<pre>{html.escape(chr(10).join(lines))}</pre>"

    def _add_output(self, output: nbformat.NotebookNode) -> bool:
        """Add a table or a figure; returns whether it was a figure."""
        data, table = output.get("data", {}), ""
        if "text/markdown" in data:
            table = pages.markdown(data["text/markdown"])
        elif "<table" in data.get("text/html", ""):  # those of pandas
            table = data["text/html"]
        if table:
            table = _first_rows(pages.sanitize(table))
            long = table.count("<tr") > BELOW and _words(self.slides[-1]) > BELOW
            if "<img" in self.slides[-1] or long:
                self._new()
            self.slides[-1] += table
        elif picture := data.get("image/png"):
            alt = html.escape(output.get("metadata", {}).get("image/png", {}).get("alt", ""))
            if not self._has_room():
                self._new()
            self.slides[-1] += f'<img src="data:image/png;base64,{"".join(picture.split())}" alt="{alt}">'
            return True
        return False

    def _has_room(self) -> bool:
        return _plain(self.slides[-1]) and _words(self.slides[-1]) <= SHORT


def _words(slide: str) -> int:
    return len(pages.plain_text(slide).split())


def _plain(slide: str) -> bool:
    """Whether `slide` holds nothing but text."""
    return not any(tag in slide for tag in ("<pre", "<img", "<table"))


def _lines(text: str) -> int:
    """How many lines of a slide `text` takes, where long ones wrap."""
    return sum(1 + max(0, len(line) - 1) // WIDE for line in text.splitlines())


def _portions(text: str) -> Iterator[list[str]]:
    """The lines of `text`, as many at a time as fit on a slide, up to an empty line where there is one."""
    portion: list[str] = []
    for line in text.splitlines():
        if portion and _lines("\n".join([*portion, line])) > ALONE:
            whole = max((i for i, one in enumerate(portion) if not one.strip()), default=0) or len(portion)
            yield portion[:whole]
            portion = portion[whole:]
        portion.append(line)
    yield portion


def _first_rows(table: str) -> str:
    """As many rows of an HTML table as fit on a slide."""
    rows = [match.end() for match in re.finditer("</tr>", table)]
    if len(rows) <= ROWS:
        return table
    last = table.rindex("</tr>") + len("</tr>")
    return f"{table[: rows[ROWS - 2]]}<tr><td>… {len(rows) - ROWS + 1} more rows</td></tr>{table[last:]}"
