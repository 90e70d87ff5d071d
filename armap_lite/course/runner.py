"""Runs the cells of one hand-in, in a process that `grade` starts: `python -m armap_lite.course.runner CELLS NOTES S`.

The cells run in IPython, as in a notebook, and everything that happens is noted at once in NOTES, a JSONL file.
S: seconds for each cell, where the system has timers. Code that cannot be interrupted, a long sum in C say, goes on
until `grade` ends the process.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from armap_lite.course import Result, check
from armap_lite.course.notebooks import ID
from armap_lite.storage.store import escape_unencodable_output


class TooLongError(BaseException):
    """Of no kind that code under test would catch."""


class Shell(InteractiveShell):
    def enable_gui(self, gui: Any = None) -> None:
        """There is no window system to enable, but `%matplotlib` asks for one."""


def run_cells(script: Path, notes: Path, seconds: float) -> None:
    """Run the cells in `script`, a JSON list of `grade.Cells`."""

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


if __name__ == "__main__":
    escape_unencodable_output()
    run_cells(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
