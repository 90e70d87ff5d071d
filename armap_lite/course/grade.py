"""Grades for a folder of handed-in notebooks, as CSV: each runs in a process of its own, with a time limit.

Only what a student writes from the first exercise on is run. The cells tagged `setup` and `check` are those of this
checkout, found by the exercise's id: editing, deleting or copying them changes nothing. An exception in one cell does
not stop the next, nor does a cell that takes a quarter of the time. A notebook that crashes or never ends keeps the
points it has by then, and the row says why. Of several attempts at one notebook the best counts.

What is *not* protected: answers and checks live in one Python process, so code written to cheat can change the checks
in memory or the file where points are noted. A hand-in runs with your rights: it can read your files and use your
network, so run it in a container or under an account without secrets. Time is limited, memory is not. What a hand-in
leaves running ends with it, unless it detached itself. On Windows, which has no POSIX signals, a cell has the time of
the whole notebook.
"""

import contextlib
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from armap_lite.course import Result, check, find
from armap_lite.course.notebooks import ID, course, read, tagged
from armap_lite.storage.store import escape_unencodable_output, read_jsonl, write_atomic

STRAY = re.compile(r"\.ipynb_checkpoints$|__MACOSX$|\._")  # files and folders beside hand-ins that are none
AGAIN = re.compile(r"( \(\d+\)|-Copy\d+| copy( \d+)?)$")  # what browsers, JupyterLab and macOS add to a second file
CELL_SHARE = 4  # no cell may take more than this part of a notebook's time

Cells = list[tuple[str, str]]  # (what it is: "setup", "code", "code of 05-3", or "05-3", which checks it; its source)


@dataclass
class NotebookGrade:
    """The grade of one hand-in; `results` holds the exercises whose check ran."""

    notebook: str
    student: str
    of: dict[str, int] = field(default_factory=dict)  # points to be had by exercise id
    results: dict[str, Result] = field(default_factory=dict)
    reason: str = ""  # why there are not more points, where it is not for wrong answers alone
    others: list[str] = field(default_factory=list)  # further attempts, none of them better

    @property
    def points(self) -> int:
        return sum(result.points for result in self.results.values())

    @property
    def total(self) -> int:
        return sum(self.of.values())

    @property
    def remark(self) -> str:
        """The reason, and which of several attempts this is."""
        best = f"the best of {1 + len(self.others)} attempts, besides {', '.join(self.others)}" if self.others else ""
        return "; ".join(filter(None, [self.reason, best]))

    def __str__(self) -> str:
        remark = f"   ({self.remark})" if self.remark else ""
        return f"{self.points:3} of {self.total:3}  {self.notebook}  {self.student}{remark}"


def grade(
    folder: Path, out: Path, seconds: float = 60, progress: Callable[[NotebookGrade], Any] = print, seed: int = 0
) -> list[NotebookGrade]:
    """Grade every notebook under `folder`, a row for each student and notebook, written to the CSV file `out`.

    The file is written after each notebook, and `progress` called with the row it stands in. `seed`: of the variant
    that was handed out.

    Columns: notebook, student (the folders it lies in, else its name), points, of, reason, and one for each exercise:
    0 also where its check did not run, empty for those of other notebooks. Raises ValueError where there is none.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; name one that holds handed-in notebooks")
    paths = [p for p in sorted(folder.rglob("*.ipynb")) if not any(map(STRAY.match, p.relative_to(folder).parts))]
    if not paths:
        raise ValueError(f"no notebooks (*.ipynb) under {folder}")
    rows: dict[Any, NotebookGrade] = {}
    for path in paths:
        student = "/".join(path.relative_to(folder).parts[:-1]) or AGAIN.sub("", path.stem)
        row = grade_notebook(path, student, seconds, seed)
        key = (student, *row.of) if row.of else path
        if key in rows:
            best, rest = (row, rows[key]) if row.points > rows[key].points else (rows[key], row)
            best.others = [*rows[key].others, rest.notebook]
            row = best
        rows[key] = row
        write_atomic(out, as_csv(list(rows.values())))
        progress(row)
    return list(rows.values())


def grade_notebook(path: Path, student: str, seconds: float, seed: int = 0) -> NotebookGrade:
    """The grade of one hand-in."""
    try:
        cells = read(path)["cells"]
    except (ValueError, OSError) as error:
        return NotebookGrade(path.name, student, reason=str(error))
    ids = list(tagged(cells, "exercise"))
    number = (ids or [path.name])[0][:2]  # a file may have been renamed, but an exercise knows where it belongs
    ours: list[Any] = next((book["cells"] for origin, book in course(seed) if origin.name[:2] == number), [])
    row = NotebookGrade(path.name, student, {id: find(id).points for id in tagged(ours, "check")})
    if set(ids) & set(row.of):
        row.results, row.reason = run(assemble(cells, ours), seconds)
    else:
        row.reason = "no cell is tagged as an exercise of this course"
    return row


def assemble(cells: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]]) -> Cells:
    """What is run of the hand-in `cells`: the student's code from the first exercise on, and `ours` of the rest."""
    checks = {id: cell["source"] for id, cell in tagged(ours, "check").items()}
    parts: Cells = [("setup", cell["source"]) for cell in tagged(ours, "setup").values()]
    begun = False
    for cell in cells:
        tags = set(cell["metadata"].get("tags", []))
        begun = begun or bool(tags & {"setup", "exercise"})
        id = next(filter(ID.fullmatch, tags), "")
        if "check" in tags and id in checks:
            parts.append((id, checks.pop(id)))
        elif begun and cell.get("cell_type") == "code" and not tags & {"setup", "check", "in-world"}:
            parts.append((f"code of {id}" if "exercise" in tags and id else "code", cell["source"]))
    return parts + list(checks.items())  # checks that were deleted


def run(cells: Cells, seconds: float) -> tuple[dict[str, Result], str]:
    """Run `cells` in a process of their own: what each check found, and what went wrong besides ("" for nothing)."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        script, notes = Path(scratch, "cells.json"), Path(scratch, "notes.jsonl")
        script.write_text(json.dumps(cells), encoding="utf-8")
        here = str(Path(__file__).resolve().parents[2])
        env = {**os.environ, "PYTHONPATH": here, "IPYTHONDIR": scratch, "OMP_NUM_THREADS": "1"}
        limit, null = str(seconds / CELL_SHARE), subprocess.DEVNULL
        child = subprocess.Popen(
            [sys.executable, "-m", "armap_lite.course.grade", str(script), str(notes), limit],
            cwd=scratch, env=env, start_new_session=True, stdin=null, stdout=null, stderr=null,
        )  # fmt: skip
        try:
            status = child.wait(seconds)
            death = f"died of {signal.Signals(-status).name}" if status < 0 else f"ended itself with status {status}"
            ended = f"it {death}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {seconds:g} seconds"
        finally:  # end it and all that it started, which is a session of its own
            with contextlib.suppress(OSError):  # it ended itself, or there is no such command
                if hasattr(os, "killpg"):
                    os.killpg(child.pid, signal.SIGKILL)
                else:
                    subprocess.run(["taskkill", "/F", "/T", "/PID", str(child.pid)], capture_output=True, check=False)
            child.kill()
            child.wait()
        lines = list(read_jsonl(notes)) if notes.is_file() else []
    results = {line["id"]: Result(**line) for line in lines if "id" in line}
    errors = [line["error"] for line in lines if "error" in line]
    if not any("end" in line for line in lines):
        where = [line["at"] for line in lines if "at" in line] or ["before the first cell"]
        errors.append(f"{ended}, {where[-1]}")
    return results, "; ".join(errors[-3:])


class TooLongError(BaseException):
    """Of no kind that code under test would catch."""


class Shell(InteractiveShell):
    def enable_gui(self, gui: Any = None) -> None:
        """There is no window system to enable, but `%matplotlib` asks for one."""


def run_cells(script: Path, notes: Path, seconds: float) -> None:
    """In the process that `run` starts: run the cells in `script`, JSON of `Cells`, in IPython, as in a notebook.

    Everything that happens is noted at once in `notes`, a JSONL file. `seconds`: for each cell, where the system has
    timers. Code that cannot be interrupted, a long sum in C say, goes on until `run` ends the process.
    """

    def too_long(*_: Any) -> None:
        raise TooLongError

    def limit(seconds: float) -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def note(**line: Any) -> None:
        file.write(json.dumps(line) + "\n")
        file.flush()

    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, too_long)
    shell, last = Shell.instance(), "at the start"
    with notes.open("a", encoding="utf-8") as file:
        for kind, source in json.loads(script.read_text(encoding="utf-8")):
            checking, own = ID.fullmatch(kind), kind.partition(" of ")[2]
            where = f"in the check of {kind}" if checking else f"in the cell of {own}" if own else f"in a cell {last}"
            note(at=where)
            if checking:
                shell.user_ns["check"] = check  # whatever the name means by now
                last = f"after the check of {kind}"
            limit(0 if kind == "setup" else seconds)  # setup is ours, and importing torch takes long
            done = shell.run_cell(source)
            limit(0)
            error = done.error_before_exec or done.error_in_exec
            if checking and isinstance(done.result, Result) and done.result.id == kind:
                note(**vars(done.result))
            elif error:
                late = isinstance(error, TooLongError)
                note(error=f"{f'stopped after {seconds:g} seconds' if late else type(error).__name__} {where}")
        note(end=True)


def totals(rows: Sequence[NotebookGrade]) -> list[str]:
    """A line for each student who handed in more than one notebook: points, and in which notebooks of the course."""
    lines = []
    for student in dict.fromkeys(row.student for row in rows):
        own = [row for row in rows if row.student == student]
        if len(own) > 1:
            numbers = ", ".join(sorted({id[:2] for row in own for id in row.of}))
            points, total = sum(row.points for row in own), sum(row.total for row in own)
            lines.append(f"{points:3} of {total:3}  {student}: {numbers}")
    return lines


def as_csv(rows: Sequence[NotebookGrade]) -> str:
    """The rows as CSV; the exercises of all notebooks among them are columns."""
    ids = sorted({id for row in rows for id in row.of})
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["notebook", "student", "points", "of", "reason", *ids])
    for row in rows:
        each = [row.results[id].points if id in row.results else 0 if id in row.of else "" for id in ids]
        table.writerow([row.notebook, row.student, row.points, row.total, row.remark, *each])
    return text.getvalue()


if __name__ == "__main__":
    escape_unencodable_output()
    run_cells(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
