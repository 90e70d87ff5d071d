"""One source for stub and solution: the stub is a code cell with one gap, the solution is what belongs into the gap.

An exercise is four cells in a row, the last three tagged with its id ("05-3") and their role: text; `exercise` (the
stub, whose line with YOUR CODE HERE is the gap); `check`; `solution`, a folded Markdown cell with just the missing
lines. A committed notebook therefore runs from top to bottom, shows stubs, hides solutions, and repeats no code. One
cell tagged `setup` holds all that the exercises of a notebook need.

`nbgrader` writes the exercises as a course of that tool: gap and BEGIN SOLUTION marks are nbgrader's own.
"""

import copy
import json
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from armap_lite.course import GAP, find
from armap_lite.course.questions import points, rubric
from armap_lite.display.cells import for_world, notebook_paths
from armap_lite.storage.store import write_atomic

# In the text before the exercises.
FOLDED = re.compile(r" The solutions are folded[;:].*?(?:`make student`\.\)|are over\.)", re.DOTALL)
NBGRADER_CONFIG = """c = get_config()
c.CourseDirectory.course_id = "armap-lite"
c.Execute.timeout = 120  # seconds for a cell; the first one imports torch in some notebooks
"""
ID = re.compile(r"\d\d-\d")
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

Cell = dict[str, Any]


def read(path: Path) -> dict[str, Any]:
    """The notebook in `path`, each source one string. Raises ValueError where it is none."""
    try:
        notebook = json.loads(path.read_bytes())  # in UTF-8, with or without a byte order mark
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])
            cell["metadata"] = dict(cell.get("metadata") or {})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a notebook of nbformat 4: {type(error).__name__} {error}") from error
    return notebook


def tagged(cells: Sequence[Cell], kind: str) -> dict[str, Cell]:
    """The cells tagged `kind` by exercise id; those without an id (`setup`) by their place."""
    tags = [cell["metadata"].get("tags", []) for cell in cells]
    own = [i for i in range(len(cells)) if kind in tags[i]]
    return {next(filter(ID.fullmatch, tags[i]), str(i)): cells[i] for i in own}


def fill(stub: str, solution: str, marks: bool = False) -> str:
    """The stub's code with the gap filled by the code in the solution's Markdown; `marks` puts nbgrader's around it.

    Raises ValueError unless there is one gap and one piece of code.
    """
    gaps = re.findall(rf"^([ ]*)(.*{GAP}.*)$", stub, re.MULTILINE)
    pieces = FENCE.findall(solution)
    if len(gaps) != 1 or len(pieces) != 1:
        raise ValueError(f"{len(gaps)} lines with {GAP!r}, {len(pieces)} python blocks in the solution: one of each")
    [(indent, line)], [code] = gaps, pieces
    if marks:
        asked = line.partition(f"{GAP}: ")[2]  # stays where nbgrader takes the solution away
        comment = f"# {asked}\n" if asked else ""
        code = f"{comment}### BEGIN SOLUTION\n{code}### END SOLUTION\n"
    return stub.replace(indent + line, textwrap.indent(code.rstrip("\n"), indent))


def student(notebook: dict[str, Any]) -> dict[str, Any]:
    """A copy without the solutions."""
    left = [cell for cell in notebook["cells"] if "solution" not in cell["metadata"].get("tags", [])]
    return {**notebook, "cells": [{**cell, "source": FOLDED.sub("", cell["source"])} for cell in left]}


def instructor(notebook: dict[str, Any], marks: bool = True) -> dict[str, Any]:
    """A copy in which every gap is filled, and solved exercises stand in the place of stubs and solutions."""
    solutions = tagged(notebook["cells"], "solution")
    solved = student(copy.deepcopy(notebook))
    for id, cell in tagged(solved["cells"], "exercise").items():
        cell["source"] = fill(cell["source"], solutions[id]["source"], marks)
    return solved


def course(seed: int = 0) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every notebook of the course, with its path, and with the numbers of variant `seed`; 0: as committed.

    Raises ValueError where there is none.
    """
    for path in notebook_paths():
        notebook = read(path)
        for kind in ("setup", "check"):
            for cell in tagged(notebook["cells"], kind).values():
                numbered = re.sub("VARIANT = 0.*", f"VARIANT = {seed}  # fixed in this copy", cell["source"])
                cell["source"] = numbered.replace(", VARIANT)", f", {seed})")  # nobody else's VARIANT counts
        yield path, notebook


def write_nbgrader(out: Path, seed: int = 0) -> int:
    """Write the course that nbgrader takes into the folder `out`: the exercises of each notebook as an assignment.

    Returns how many there are. Only the exercises are in it, since nbgrader runs all that is handed in.
    """
    number = 0
    for path, notebook in course(seed):
        cells = notebook["cells"]
        begin = next((i for i, cell in enumerate(cells) if "setup" in cell["metadata"].get("tags", [])), None)
        if begin is None:
            continue
        asked = [cell for cell in cells[begin - 1 :] if "in-world" not in cell["metadata"].get("tags", [])]
        solved = instructor({**notebook, "cells": asked})  # with the text before the setup, and without its world
        checked = {**solved, "cells": [new for cell in solved["cells"] for new in _for_nbgrader(cell, path.name[:2])]}
        write_atomic(out / "source" / path.stem / path.name, json.dumps(checked, indent=1, ensure_ascii=False) + "\n")
        number += 1
    write_atomic(out / "nbgrader_config.py", NBGRADER_CONFIG)
    return number


def _for_nbgrader(cell: Cell, number: str) -> list[Cell]:
    """`cell` with what nbgrader has to know of it: whether it is written, gives points or stays as it is.

    An open question gets a cell for the answer, which a person marks; its solution is how to mark it.
    """
    tags = cell["metadata"].get("tags", [])
    role = next((tag for tag in ("open", "setup", "exercise", "check") if tag in tags), "")
    if not role:
        return [cell]
    id, kind = next(filter(ID.fullmatch, tags), ""), "markdown" if role == "open" else "code"
    about = {"grade_id": f"{role}-{id}".rstrip("-"), "schema_version": 3, "task": False, "cell_type": kind}
    written = role in ("open", "exercise")
    about |= {"grade": role in ("open", "check"), "solution": written, "locked": not written}
    if role == "open":
        about["points"] = points(number)
        answer = {"cell_type": kind, "id": "open-answer", "metadata": {"nbgrader": about}}
        return [cell, {**answer, "source": rubric(number)}]
    source = cell["source"]
    if role == "check":
        about["points"], source = find(id).points, f"{source}.require()"  # points where nothing is raised
    return [{**cell, "source": source, "metadata": {**cell["metadata"], "nbgrader": about}}]


def write_copies(kind: str, out: Path, env: str = "game24", seed: int = 0) -> tuple[int, list[str]]:
    """Write the copies for a "reader", "student" or "instructor" of the world `env`, with the numbers of `seed`.

    A reader's have all cells of that world and use the runs of this checkout. Returns how many there are, and the
    names of those left alone: a copy that differs may have been worked on, but for an instructor's.
    """
    runs = Path(os.path.relpath(notebook_paths()[0].parents[1] / "runs", out)).as_posix() if kind == "reader" else ""
    notebooks, kept = list(course(seed)), []
    for path, notebook in notebooks:
        shown, number = for_world(notebook, env), path.name[:2]
        made = shown if kind == "reader" else student(shown) if kind == "student" else instructor(shown)
        for cell in made["cells"] if runs else ():
            cell["source"] = cell["source"].replace('"../runs/"', json.dumps(f"{runs}/"))
        if kind == "instructor":  # what no check marks says how to mark it
            for tag, task in (("open", "rubric"), ("in-world", "in_world")):
                for cell in tagged(made["cells"], tag).values():
                    if cell["cell_type"] == "markdown":  # not the code to start from
                        cell["source"] += f"\n\n**Points** ({points(number, task)})\n\n{rubric(number, task)}"
        copied = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        target = out / path.name
        if kind != "instructor" and target.is_file() and target.read_text(encoding="utf-8") != copied:
            kept.append(path.name)
        else:
            write_atomic(target, copied)
    return len(notebooks), kept
