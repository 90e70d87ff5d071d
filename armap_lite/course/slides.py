"""Slides for a lecture: a deck for each notebook of a finished run, one HTML file that loads nothing from the network.

Texts, figures and diagrams of a section follow each other, as many on a slide as fit. Code and exercises are left out,
and so is what is printed, except where a text ends in a colon or the cell's slide type (in JupyterLab: Property
Inspector) is "fragment", or "subslide" for a slide of its own; "slide" gives a figure one, and "skip" leaves a cell
out. A cell with a shorter text for its slide has it in its metadata (`{"slideshow": {"text": "- one point"}}`). Cells
tagged `lecture` also make a deck of their own. Arrow keys, page keys and the space bar turn the slides; N opens a
window with the notebook's own texts, for the speaker; the browser prints slides, one on a page.
"""

import base64
import html
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat

from armap_lite.display import pages
from armap_lite.display.tables import cut
from armap_lite.storage.store import write_atomic

# Heights are in lines of text; the sizes are those of templates/slides.html.
HEIGHT, FIGURE = 18.0, 11.5  # of a slide, and what a figure may need of it
TEXT, WIDE = 75, 84  # characters in a line of text, and in one of what is printed
LONG = 252  # characters of a printed line, of which the middle is left out where it has more
SMALL = 0.9  # size of what is printed and of tables
SHORT = 5.5  # lines of heading and text that a figure of any form stands below
ALONE, FULL = 18, 22  # lines of an output that fit on a slide, and in small print
ROWS, ROW = 16, 70  # lines of a table; characters in a row that takes one, in cells that wrap
WIDTH, TALL = 30.0, 1.6  # of a figure, in lines; one of a smaller ratio of width to height does not stand below a text
NARROW = 2.2, 52  # ratio of a figure that may stand beside a text; characters of a printed line there
COLUMN = 1.95  # a text takes so many times its height where something stands beside it
SIZES = {"large": 1.3, "larger": 1.15}  # of the text of a slide that has room for it
PREPARATION = re.compile(r"^- \*(?:What you need|Time):\*.*\n?", re.M)  # in a title cell, for who runs the notebook


def write_slides(run: Path, out: Path, env: str) -> int:
    """Write the decks of `env` in the finished run `run` into the folder `out`; returns how many there are.

    Raises ValueError where the run holds no executed notebooks of that environment.
    """
    folder = run / env / "notebooks"
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise ValueError(f"no executed notebooks in {folder}; first finish a run: make reproduce ENV={env}")
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in paths}
    for name, notebook in notebooks.items():
        _write(out, name, Deck(notebook).slides)
    lectures = {name[:2]: Deck(notebook, "lecture").slides for name, notebook in notebooks.items()}
    lecture = [_renumbered(slide, number) for number, slides in lectures.items() for slide in slides]
    if lecture:
        titles = [notebooks[name].cells[0].source.partition("\n")[0] for name in notebooks if lectures[name[:2]]]
        if "<h1" in lecture[0]:
            lecture[0] = _title_slide([title.lstrip("# ") for title in titles], lecture[0], env)
        _write(out, "lecture", lecture)
    return len(notebooks) + bool(lecture)


def _title_slide(titles: list[str], first: str, env: str) -> str:
    """The first slide of the lecture: the question of the notebook whose slide is `first`, and what follows."""
    question = re.search("<p>.*?</p>", first, re.S)
    parts = "".join(f"<li>{html.escape(title)}</li>" for title in titles)
    follows = f"<p>The parts, with the numbers of their notebooks (world: {env}):</p><ul>{parts}</ul>"
    title = "<h1>ARMAP: learn a reward from your own attempts</h1>"
    return f'<section class="stacked">{title}{question[0] if question else ""}{follows}</section>'


def _renumbered(slide: str, notebook: str) -> str:
    """`slide` with the number of its notebook in place of its section's, as sections of many notebooks follow."""
    return re.sub(r"(<h2[^>]*>|<header>)\d+ · ", rf"\g<1>{notebook} · ", slide)


def _write(out: Path, name: str, slides: list[str]) -> None:
    write_atomic(out / f"{name}.html", pages.render("slides.html", title=name, slides=slides))


class Item(NamedTuple):
    """A part of a slide: kind, HTML, about its lines of text, if it may stand beside a text, and the speaker's text."""

    kind: str
    html: str
    height: float
    narrow: bool = False
    notes: str = ""


class Deck:
    """`slides` of a notebook, as HTML; with `only`, of the cells that have this tag."""

    def __init__(self, notebook: nbformat.NotebookNode, only: str = ""):
        self._slides: list[list[Item]] = []
        self._apart = False  # whether another section has begun since
        self._section = ""  # the heading that further slides of a section repeat
        self._named = False  # whether a slide has it
        announced = False
        for cell in notebook.cells:
            slideshow, tags = cell.metadata.get("slideshow", {}), cell.metadata.get("tags", [])
            kind = slideshow.get("slide_type")
            if kind == "skip":
                continue
            shown = not only or only in tags
            if cell.cell_type == "markdown":
                if cell.source.startswith("## Exercise"):  # they end the deck
                    break
                said = _sections(cell.source)
                for number, part in enumerate(texts := _sections(slideshow.get("text", cell.source))):
                    notes = said[number:] if number == len(texts) - 1 else said[number : number + 1]
                    self._add_text(part, shown, "".join(notes))
                if not any(tag.startswith("world:") for tag in tags):  # what such a cell adds announces nothing
                    announced = False
                announced = announced or cell.source.rstrip().endswith(":")
            elif cell.cell_type == "code" and shown and (only or self._slides):
                whole = "".join(output.get("text", "") for output in cell.outputs).rstrip().expandtabs()
                printed = "\n".join(cut(line, LONG) for line in whole.splitlines())
                for output in cell.outputs:
                    if (
                        (announced or kind in ("fragment", "subslide")) and printed and "text" in output
                    ):  # all of a cell at once
                        self._add_printed(printed, apart=kind == "subslide")
                        printed = ""
                    announced = not self._add_output(output, apart=kind in ("slide", "subslide")) and announced

    @property
    def slides(self) -> list[str]:
        return [_rendered(items) for items in self._slides]

    def _add(self, item: Item, apart: bool = False) -> None:
        """Put `item` on the last slide if there is room, else, or where `apart`, on a new one, with the text before."""
        last = self._slides[-1] if self._slides else []
        apart, self._apart = apart or self._apart, False
        if last and not apart and _layout([*last, item]):
            last.append(item)
            return
        new = []
        if self._section:
            tag, kind, height = ("header", "header", 0.0) if self._named else ("h2", "heading", 3.3)
            new = [Item(kind, f"<{tag}>{html.escape(self._section)}</{tag}>", height)]
        self._named = True
        before = [one for one in last[:-1] if one.kind not in ("header", "heading")]
        if before and not apart and item.kind not in ("heading", "text") and _layout([last[-1], item]):
            new = [*new, last.pop()] if last[-1].kind == "text" else [last.pop()] if last[-1].kind == "heading" else new
        self._slides.append([*new, item])

    def _add_text(self, text: str, shown: bool, notes: str = "") -> None:
        heading = re.match(r"<h[12][^>]*>(.*?)</h[12]>", text, re.S)
        if heading:
            self._section = ""
        if shown:
            item = Item("heading" if heading else "text", text, _height(text), notes=notes)
            self._add(item, apart=heading is not None)
        if heading:
            self._section, self._apart, self._named = pages.plain_text(heading[1]), not shown, shown

    def _add_printed(self, text: str, apart: bool) -> None:
        """All of it on one slide where that is possible, else a paragraph after the other."""
        for lines in [text.splitlines()] if _lines(text) <= FULL else _portions(text):
            printed = f"<pre>{html.escape(chr(10).join(lines))}</pre>"
            narrow = sum(1 + len(line) // NARROW[1] for line in lines) <= ALONE
            self._add(Item("printed", printed, min(_height(printed), HEIGHT), narrow), apart)
            apart = False

    def _add_output(self, output: nbformat.NotebookNode, apart: bool) -> bool:
        """Add a table or a figure, or, where `apart`, a slide with it; returns whether it was a figure."""
        data, table, results = output.get("data", {}), "", False
        if "text/markdown" in data:
            table = pages.markdown(data["text/markdown"])
            results = True
        elif "<table" in data.get("text/html", ""):  # those of pandas
            table = data["text/html"]
        if table:
            table = _first_rows(pages.sanitize(table))
            table = table.replace("<table", '<table class="results"') if results else table
            self._add(Item("table", table, _height(table)))
        elif picture := "".join(data.get("image/png", "").split()):
            alt = html.escape(output.get("metadata", {}).get("image/png", {}).get("alt", ""))
            ratio = _ratio(picture)
            figure = f'<img src="data:image/png;base64,{picture}" alt="{alt}">'
            kind = "tall" if ratio < TALL else "wide"
            self._add(Item(kind, figure, min(WIDTH / ratio, FIGURE), ratio < NARROW[0]), apart)
            return True
        return False


def _sections(source: str) -> list[str]:
    """The HTML of each part of a text cell that begins with a heading."""
    parts = re.split("^(?=## )", PREPARATION.sub("", source), flags=re.M)
    return [pages.sanitize(pages.markdown(part)) for part in parts if part]


def _rendered(items: list[Item]) -> str:
    """The slide of these items: its class says how they are laid out."""
    parts, how = [item.html for item in items], _layout(items) or "stacked"
    notes = f"<aside>{''.join(item.notes for item in items)}</aside>"
    if how == "beside":
        parts = [*(item.html for item in items if item.kind == "header"), '<div class="text">']
        parts += [item.html for item in items[:-1] if item.kind != "header"]
        parts += ["</div>", items[-1].html]
        if items[-1].kind == "printed":
            lines = _printed_lines(items[-1].html)
            widest, height = max(map(len, lines)), SMALL * (1 + len(lines))
            sizes = (name for name, size in SIZES.items() if widest * size < NARROW[1] and height * size < HEIGHT - 2)
            how = f"beside {next(sizes, '')}".strip()
    elif not {"wide", "tall", "table"} & {item.kind for item in items}:
        lines = [line for item in items for line in _printed_lines(item.html)]
        widest = max((len(line) for line in lines if len(line) <= WIDE), default=0)  # longer ones wrap anyway
        height = sum(item.height for item in items)
        for name, size in SIZES.items():
            more = sum(len(line) * size // WIDE - len(line) // WIDE for line in lines)
            if (height + SMALL * more) * size < HEIGHT and widest * size < WIDE - 4:
                return f'<section class="{name}">{"".join(parts)}{notes}</section>'
        if _lines("\n".join(lines)) > ALONE:
            how = "stacked small"
    return f'<section class="{how}">{"".join(parts)}{notes}</section>'


def _layout(items: list[Item]) -> str:
    """ "stacked", or "beside" where the last item stands right of the texts, or "" where they do not fit on a slide."""
    texts = sum(item.height for item in items if item.kind in ("heading", "text"))
    others = [item for item in items if item.kind not in ("header", "heading", "text")]
    beside = len(others) == 1 and items[-1] is others[0] and items[-1].narrow and COLUMN * texts <= HEIGHT
    if "tall" in [item.kind for item in others]:
        stacked = len(others) == 1 and items[-1] is others[0] and texts <= SHORT
    else:
        stacked = sum(item.height for item in items) <= HEIGHT
    return "stacked" if stacked else "beside" if beside else ""


def _height(text: str) -> float:
    """About how many lines of text this HTML takes."""
    lines = 0.0
    for printed in re.findall("<pre.*?</pre>", text, re.S):
        lines += SMALL * (_lines(html.unescape(re.sub("<.*?>", "", printed))) + 1)
    lines += SMALL * 1.3 * sum(_row_lines(text)) + 2 * text.count('display="block"')
    rest = re.sub(r"<(pre|table).*?</\1>|<header.*?</header>", "", text, flags=re.S)
    for tag, block in re.findall(r"<(p|li|h[1-6])[^>]*>(.*?)</\1>", rest, re.S):
        said = pages.plain_text(block)
        size, space = (1.5, 1.8) if tag in ("h1", "h2") else (1, 0.3 if tag == "li" else 1)
        lines += size * (1 + len(said) * size // TEXT) + space
    return lines


def _printed_lines(text: str) -> list[str]:
    """The lines of all that is printed in this HTML."""
    printed = re.findall("<pre.*?</pre>", text, re.S)
    return [html.unescape(re.sub("<.*?>", "", line)) for one in printed for line in one.splitlines()]


def _ratio(picture: str) -> float:
    """Width over height of a PNG in base64; of anything else, that of a wide figure."""
    start = base64.b64decode(picture[:32])
    width, height = int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")
    return width / height if height else TALL


def _lines(text: str) -> int:
    """How many lines of a slide `text` takes, where long ones wrap."""
    return sum(1 + max(0, len(line) - 1) // WIDE for line in text.splitlines())


def _portions(text: str) -> Iterator[list[str]]:
    """The paragraphs of `text` as lines, short ones with the next; one that is longer than a slide in parts."""
    portion: list[str] = []
    for line in text.splitlines():
        ended = not line.strip() and len(portion) >= SHORT
        if portion and (ended or _lines("\n".join([*portion, line])) > ALONE):
            heads = [
                k for k, one in enumerate([*portion, line]) if not one.startswith(" ")
            ]  # an indented line follows its head
            keep = heads[-1] if heads and heads[-1] > SHORT else len(portion)
            yield portion[:keep]
            portion = portion[keep:]
        portion += [line] if portion or line.strip() else []
    yield portion


def _first_rows(table: str) -> str:
    """As many rows of an HTML table as fit on a slide."""
    ends, lines = [match.end() for match in re.finditer("</tr>", table)], _row_lines(table)
    kept = max(2, sum(total < ROWS for total in itertools.accumulate(lines)))  # the head and at least one
    if sum(lines) <= ROWS or kept >= len(ends):
        return table
    return f"{table[: ends[kept - 1]]}<tr><td>… {len(ends) - kept} more rows</td></tr>{table[ends[-1] :]}"


def _row_lines(table: str) -> list[int]:
    """About how many lines each row of an HTML table takes."""
    return [1 + len(pages.plain_text(row)) // ROW for row in re.findall("<tr.*?</tr>", table, re.S)]
