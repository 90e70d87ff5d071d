"""What a reader of one world reads: words, asides about other worlds, long sentences, long outputs.

python tests/bench/prose.py [--run runs/fast] [--list]

Counts the text cells before the exercises, as a reader of each world gets them; the aim is at most 60 words a cell on
average. An aside is a world's name in a cell that is not for that world alone, or a branch on `ENV` in code. `--run`
also counts the lines that each cell of an executed run printed. The ratio is the number of words of the reader who gets
most, against 8,000.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from armap_lite.course.notebooks import course
from armap_lite.display.cells import for_world, worlds
from armap_lite.envs import ENVIRONMENTS

WORDS, WORDS_PER_SENTENCE, LINES = 8_000, 35, 40
NAMES = {
    "game24": r"game ?of ?24|game24",
    "scienceworld": r"scienceworld|laborator",
    "webshop": r"web ?shop|\bthe shop|\bshop's",
}
BRANCH = re.compile(r"\bENV *[!=]=|\bENV (?:not )?in\b")
WORD = re.compile(r"\w[\w'’.,-]*")
OTHER = (  # what is no prose, and what is left of it: code and formulas within a sentence count as a word
    (r"(?s)```.*?```|\$\$.*?\$\$", "\n\n"),
    (r"`[^`]*`|\$[^$\n]+\$", "x"),
    (r"<[^>]+>|(?<=\])\([^)]*\)", ""),
)


def prose(source: str) -> str:
    """Markdown without code, formulas, tags and addresses."""
    for pattern, left in OTHER:
        source = re.sub(pattern, left, source)
    return source


def sentences(source: str) -> list[str]:
    """The sentences of Markdown; a list item, a heading and a table cell end one, too."""
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*#|]|\d+\.))|\|", prose(source))
    return [s for block in blocks for s in re.split(r"(?<=[.?!])[\")*]*\s+", block) if WORD.search(s)]


def words(text: str) -> int:
    return len(WORD.findall(text))


def asides(cell: dict[str, Any]) -> list[str]:
    """Names of worlds, or branches on `ENV`, in a cell that is not for that world alone."""
    if cell["cell_type"] == "code":
        return (
            [] if worlds(cell) or "parameters" in cell["metadata"].get("tags", []) else BRANCH.findall(cell["source"])
        )
    strange = [pattern for name, pattern in NAMES.items() if name not in worlds(cell)]
    return [found[0] for pattern in strange for found in re.finditer(pattern, prose(cell["source"]), re.IGNORECASE)]


def printed(run: Path) -> list[tuple[int, str]]:
    """(lines, where) of each output of the executed notebooks under `run`."""
    found = []
    for path in sorted(run.glob("*/notebooks/*.ipynb")):
        for i, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            text = ["".join(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in cell.get("outputs", [])]
            found.append((sum(t.count("\n") for t in text), f"{path.parent.parent.name} {path.stem} cell {i}"))
    return found


def running_text(cells: list[dict[str, Any]]) -> list[str]:
    """The text cells before the exercises."""
    texts = [cell["source"] for cell in cells if cell["cell_type"] == "markdown"]
    return texts[: next((i for i, text in enumerate(texts) if text.startswith("## Exercise")), len(texts))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run, whose outputs are counted too")
    parser.add_argument("--list", action="store_true", help="list what is over a limit")
    options = parser.parse_args()
    books = {path.stem: notebook for path, notebook in course()}
    details: dict[str, Any] = {}
    for env in ENVIRONMENTS:
        texts = {name: running_text(for_world(book, env)["cells"]) for name, book in books.items()}
        total = {name: sum(words(prose(text)) for text in some) for name, some in texts.items()}
        mean = sum(total.values()) / sum(map(len, texts.values()))
        details[env] = {"words": sum(total.values()), "words per cell": round(mean, 1), "notebooks": total}
    cells = [(name, cell) for name, book in books.items() for cell in book["cells"]]
    said = [(name, s) for name, cell in cells if cell["cell_type"] == "markdown" for s in sentences(cell["source"])]
    over = {
        "asides": [f"{name}: {text}" for name, cell in cells for text in asides(cell)],
        "long sentences": [f"{name}: {' '.join(s.split())}" for name, s in said if words(s) > WORDS_PER_SENTENCE],
        "long outputs": [
            f"{where}: {n} lines" for n, where in (printed(options.run) if options.run else []) if n > LINES
        ],
    }
    if options.list:
        print(*(f"{kind}: {one}" for kind, some in over.items() for one in some), sep="\n")
    details |= {kind: len(some) for kind, some in over.items()}
    most = max(details[env]["words"] for env in ENVIRONMENTS)
    found = {"name": "prose", "ratio": round(most / WORDS, 3), "versus": f"{WORDS} words", "unit": "words / words"}
    print(json.dumps({**found, "device": "any", "details": details}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
