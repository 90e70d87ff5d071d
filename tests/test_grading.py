"""Grades: which points a hand-in gets, whatever it does, and how it comes."""

import copy
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_course import BOOKS, ROOT, copies

from armap_lite.course import Result, grade, notebooks
from armap_lite.course.__main__ import main


def hand_in(path: Path, number: str, change: Any, kind: str = "student") -> None:
    """A notebook as somebody hands it in: `change(cells, by)` edits its cells; `by` finds those of an exercise."""
    book = notebooks.read(next(copies(kind).glob(f"{number}_*")))
    change(book["cells"], {kind: notebooks.tagged(book["cells"], kind) for kind in ("exercise", "check", "setup")})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(book), encoding="utf-8")


def code(source: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": source}


def solve(cells: dict[str, Any], id: str) -> None:
    solution = notebooks.tagged(BOOKS[id[:2]]["cells"], "solution")[id]["source"]
    cells[id]["source"] = notebooks.fill(cells[id]["source"], solution)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.is_file() or stat.read_text(encoding="utf-8").split(") ")[1][0] != "Z"


@pytest.mark.slow
def test_a_perfect_an_empty_a_crashing_and_an_endless_notebook_get_the_right_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    folder, out = tmp_path / "in", tmp_path / "grades.csv"
    pid = tmp_path / "pid"

    def crash(cells: list[Any], by: Any) -> None:
        solve(by["exercise"], "02-1")
        by["exercise"]["02-2"]["source"] = "1 / 0"  # an exception: the next one counts all the same
        solve(by["exercise"], "02-3")
        by["exercise"]["02-4"]["source"] = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"

    def endless(cells: list[Any], by: Any) -> None:
        for id in ("02-1", "02-2", "02-4"):
            solve(by["exercise"], id)
        start = "import subprocess; left = subprocess.Popen(['sleep', '600']); "
        by["exercise"]["02-3"]["source"] = f"{start}open({str(pid)!r}, 'w').write(str(left.pid))\nwhile True: pass"

    def stubborn(cells: list[Any], by: Any) -> None:
        solve(by["exercise"], "02-1")
        deaf = "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)"  # as long sums in C are
        by["exercise"]["02-2"]["source"] = f"{deaf}\nwhile True: pass"

    hand_in(folder / "ann/02.ipynb", "02", lambda *_: None, kind="instructor")
    hand_in(folder / "ben/renamed by ben.ipynb", "02", lambda *_: None)
    hand_in(folder / "cleo/02.ipynb", "02", crash)
    hand_in(folder / "dan/.ipynb_checkpoints/02-checkpoint.ipynb", "02", lambda *_: None)
    hand_in(folder / "dan/02.ipynb", "02", endless)
    hand_in(folder / "eve/02.ipynb", "02", stubborn)
    start = time.perf_counter()
    assert grade.grade_notebook(folder / "ann/02.ipynb", "ann", 300).points == 8
    limit = max(6, round(4 * (time.perf_counter() - start)))  # a machine that is busy gives everybody more time
    assert main(["grade", str(folder), "--csv", str(out), "--seconds", str(limit)]) == 0
    rows = list(csv.reader(out.open(newline="", encoding="utf-8")))
    assert rows[0] == ["notebook", "student", "points", "of", "reason", "02-1", "02-2", "02-3", "02-4"]
    assert rows[1] == ["02.ipynb", "ann", "8", "8", "", "1", "2", "2", "3"]
    assert rows[2] == ["renamed by ben.ipynb", "ben", "0", "8", "", "0", "0", "0", "0"]
    died = "ZeroDivisionError in the cell of 02-2; it died of SIGKILL, in the cell of 02-4"
    assert rows[3] == ["02.ipynb", "cleo", "3", "8", died, "1", "0", "2", "0"]
    stopped = f"stopped after {limit / 4:g} seconds in the cell of 02-3"
    assert rows[4] == ["02.ipynb", "dan", "6", "8", stopped, "1", "2", "0", "3"]
    stopped = f"stopped after {limit} seconds, in the cell of 02-2"
    assert rows[5] == ["02.ipynb", "eve", "1", "8", stopped, "1", "0", "0", "0"]
    assert len(rows) == 6 and "5 notebooks graded" in capsys.readouterr().out
    assert not alive(int(pid.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_hand_ins_as_they_come(tmp_path: Path):
    """As archives, browsers and other editors leave them."""
    solved = notebooks.read(next(copies("instructor").glob("06_*")))

    def put(at: str, text: str | bytes) -> None:
        path = tmp_path / "in" / at
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    def changed(id: str, source: str) -> dict[str, Any]:
        book = copy.deepcopy(solved)
        notebooks.tagged(book["cells"], "exercise")[id]["source"] = source
        return book

    def with_cell(source: str) -> dict[str, Any]:
        book = copy.deepcopy(solved)
        book["cells"].insert(book["cells"].index(notebooks.tagged(book["cells"], "exercise")["06-2"]), code(source))
        return book

    colab = copy.deepcopy(solved)
    for cell in colab["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
        cell.pop("id", None)
    colab["metadata"] = {"colab": {"provenance": []}}
    untagged = copy.deepcopy(solved)
    for cell in untagged["cells"]:
        cell["metadata"] = {}
    wrong = changed("06-1", "winners = ('A', 'A', 'A')")
    put("__MACOSX/ann/._06.ipynb", b"\x00\x05\x16\x07\x80")
    put("ann/._06.ipynb", b"\x00\x05\x16\x07\x80")
    put("ann/06.ipynb", json.dumps(solved))
    put("ben/06.ipynb", json.dumps(wrong))
    put("ben/06 (1).ipynb", json.dumps(solved))
    put("ben/06 (2).ipynb", json.dumps(wrong))
    put("cleo/06.ipynb", json.dumps(untagged))
    put("dan/06.ipynb", json.dumps(with_cell("n = input('how many? ')")))
    put("eve/06.ipynb", json.dumps(changed("06-2", "import sys\nsys.exit('done')")))
    put("fay/06.ipynb", json.dumps({"nbformat": 3, "metadata": {}, "worksheets": [{"cells": []}]}))
    put("gus/06.ipynb", "\ufeff" + json.dumps(colab, ensure_ascii=False))
    put('jürgen o\'neil; "x"/06.ipynb', json.dumps(solved))
    shown: list[str] = []
    rows = grade.grade(tmp_path / "in", tmp_path / "out.csv", 60, progress=lambda marks: shown.append(str(marks)))
    assert [(row.student, row.notebook, row.points) for row in rows] == [
        ("ann", "06.ipynb", 8),
        ("ben", "06 (1).ipynb", 8),
        ("cleo", "06.ipynb", 0),
        ("dan", "06.ipynb", 8),
        ("eve", "06.ipynb", 6),
        ("fay", "06.ipynb", 0),
        ("gus", "06.ipynb", 8),
        ('jürgen o\'neil; "x"', "06.ipynb", 8),
    ]
    table = list(csv.DictReader((tmp_path / "out.csv").open(newline="", encoding="utf-8")))
    assert [line["reason"] for line in table] == [
        "",
        "the best of 3 attempts, besides 06 (2).ipynb, 06.ipynb",
        "no cell is tagged as an exercise of this course",
        "EOFError in a cell after the check of 06-1",
        "SystemExit in the cell of 06-2",
        f"{tmp_path / 'in/fay/06.ipynb'} is not a notebook of nbformat 4: KeyError 'cells'",
        "",
        "",
    ]
    assert "besides 06 (2).ipynb, 06.ipynb" in shown[3] and not grade.totals(rows)


def test_cells_are_played_where_there_are_no_timers(tmp_path: Path):
    script, notes = tmp_path / "cells.json", tmp_path / "notes.jsonl"
    script.write_text(json.dumps([("code", "1 / 0"), ("code", "print(1)")]), encoding="utf-8")
    windows = "import signal; del signal.SIGALRM, signal.setitimer; from pathlib import Path; "
    play = f"from armap_lite.course import grade; grade.run_cells(Path({str(script)!r}), Path({str(notes)!r}), 1)"
    subprocess.run([sys.executable, "-c", windows + play], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    noted = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
    assert noted[1] == {"error": "ZeroDivisionError in a cell at the start"} and noted[-1] == {"end": True}


@pytest.mark.slow
def test_where_there_are_no_process_groups_a_hand_in_is_ended_by_the_system_s_own_command(tmp_path, monkeypatch):
    (tmp_path / "taskkill").write_text(f"#!/bin/sh\necho $@ > '{tmp_path}/asked'", encoding="utf-8")
    (tmp_path / "taskkill").chmod(0o755)
    endless = "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass"
    for path in (f"{tmp_path}{os.pathsep}{os.environ['PATH']}", os.environ["PATH"]):  # and without that command
        monkeypatch.setenv("PATH", path)
        monkeypatch.delattr(os, "killpg", raising=False)
        found, reason = grade.run([("code", endless)], 5)
        assert not found and reason.startswith("stopped after 5 seconds, ")
    *options, pid = (tmp_path / "asked").read_text(encoding="utf-8").split()
    assert options == ["/F", "/T", "/PID"] and not alive(int(pid))


def test_points_come_from_our_checks_alone(tmp_path: Path):
    def cheat(cells: list[Any], by: Any) -> None:
        at = cells.index(by["exercise"]["06-1"])
        fake = "from armap_lite.course import Result\n\ndef check(id, answer):\n    return Result(id, 99, 99, '')"
        cells[at:at] = [code(fake), code("Result('06-2', 2, 2, '')"), code("print('✓ 06-3: 2 of 2 points')")]
        by["check"]["06-1"]["source"] = "Result('06-1', 1, 1, '')"
        cells.remove(by["check"]["06-4"])
        by["setup"][next(iter(by["setup"]))]["source"] = "three = None"

    hand_in(tmp_path / "cheat.ipynb", "06", cheat)
    found = grade.grade_notebook(tmp_path / "cheat.ipynb", "cheat", 60)
    assert found.points == 0 and set(found.results) == set(found.of) == {"06-1", "06-2", "06-3", "06-4"}

    def honest(cells: list[Any], by: Any) -> None:
        cheat(cells, by)
        for id in ("06-1", "06-4"):  # solved: 06-1 needs our setup cell, the check of 06-4 was deleted
            solve(by["exercise"], id)
        at = cells.index(by["exercise"]["06-3"])
        by["exercise"]["06-3"]["source"] += "\n"
        cells.insert(at + 1, code("def tipping(best, cheap):\n    return await_me(best, cheap)"))
        more = "def await_me(a, b):\n    return None if b[1] >= a[1] else (a[0] - b[0]) / (a[1] - b[1])"
        cells.insert(at + 2, code(f"%matplotlib inline\nimport asyncio\nawait asyncio.sleep(0)\n{more}"))

    hand_in(tmp_path / "honest.ipynb", "06", honest)
    found = grade.grade_notebook(tmp_path / "honest.ipynb", "honest", 60)
    assert {id: result.points for id, result in found.results.items()} == {"06-1": 1, "06-2": 0, "06-3": 2, "06-4": 3}


def test_what_is_no_hand_in_gets_a_row_with_a_reason(tmp_path: Path):
    (tmp_path / "nothing.ipynb").write_text("", encoding="utf-8")
    (tmp_path / "05_old.ipynb").write_text(json.dumps({"cells": [code("1 + 1")], "nbformat": 4}), encoding="utf-8")
    (tmp_path / "list.ipynb").write_text("[]", encoding="utf-8")
    (tmp_path / "00_start_here.ipynb").write_text(
        (ROOT / "notebooks/00_start_here.ipynb").read_text(encoding="utf-8"), encoding="utf-8"
    )
    rows = grade.grade(tmp_path, tmp_path / "out.csv", 60, progress=lambda marks: None)
    assert [(row.notebook, row.points, sum(row.of.values())) for row in rows] == [
        ("00_start_here.ipynb", 0, 1),
        ("05_old.ipynb", 0, 10),
        ("list.ipynb", 0, 0),
        ("nothing.ipynb", 0, 0),
    ]
    assert rows[0].reason == ""
    assert rows[1].reason == "no cell is tagged as an exercise of this course"
    assert all("is not a notebook" in row.reason for row in rows[2:])
    table = list(csv.reader((tmp_path / "out.csv").open(newline="", encoding="utf-8")))
    assert table[0][5:] == ["00-1", *(f"05-{i}" for i in range(1, 6))]
    assert table[1][5:] == ["0", *[""] * 5] and table[2][5:] == ["", *["0"] * 5]


def test_a_file_handed_in_twice_counts_once(tmp_path: Path):
    book = notebooks.read(next(copies("student").glob("06_*")))
    for name in ("ann", "ann (1)", "ann-Copy2", "ann copy", "ben"):
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(book), encoding="utf-8")
    rows = grade.grade(tmp_path, tmp_path / "out.csv", 120, progress=lambda marks: None)
    assert [row.student for row in rows] == ["ann", "ben"] and len(rows[0].others) == 3


def test_points_of_several_notebooks_add_up_by_student():
    def marks(notebook: str, student: str, points: int) -> grade.NotebookGrade:
        id = f"{notebook[:2]}-1"
        return grade.NotebookGrade(notebook, student, {id: 3}, {id: Result(id, points, 3, "")})

    rows = [marks("01.ipynb", "ann", 3), marks("01.ipynb", "ben", 2), marks("04.ipynb", "ann", 1)]
    assert grade.totals(rows) == ["  4 of   6  ann: 01, 04"]


def test_wrong_commands_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["grade", str(tmp_path), "--csv", str(tmp_path / "out.csv")]) == 1
    assert capsys.readouterr().err == f"error: no notebooks (*.ipynb) under {tmp_path}\n"
    assert not (tmp_path / "out.csv").exists()
