"""The course for nbgrader, taken by nbgrader itself: release, four hand-ins, marks and what the students are told."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_course import BOOKS
from test_grading import code, solve

from armap_lite.course import GAP, find, notebooks
from armap_lite.course.__main__ import main
from armap_lite.storage.store import write_atomic

pytestmark = pytest.mark.slow

ASSIGNMENT = "06_control"
POINTS = {id: find(id).points for id in notebooks.tagged(BOOKS["06"]["cells"], "exercise")}


def test_each_assignment_is_what_the_exercises_need_with_points_and_marks(tmp_path: Path):
    assert main(["nbgrader", str(tmp_path)]) == 0
    written = {path.parent.name[:2]: notebooks.read(path) for path in tmp_path.glob("source/*/*.ipynb")}
    assert set(written) == set(BOOKS)
    for number, book in written.items():
        marks = [cell["metadata"]["nbgrader"] for cell in book["cells"] if "nbgrader" in cell["metadata"]]
        assert len({mark["grade_id"] for mark in marks}) == len(marks)
        points = {mark["grade_id"]: mark["points"] for mark in marks if mark["grade"]}
        ids = notebooks.tagged(BOOKS[number]["cells"], "exercise")
        assert points == {f"check-{id}": find(id).points for id in ids} | {"open": 4}
        for cell in notebooks.tagged(book["cells"], "exercise").values():
            assert "### BEGIN SOLUTION" in cell["source"] and GAP not in cell["source"]
        assert len(book["cells"]) < len(BOOKS[number]["cells"]) - 10


@pytest.mark.skipif(not importlib.util.find_spec("nbgrader"), reason="needs nbgrader: pip install armap-lite[teach]")
def test_four_hand_ins_get_the_right_marks_and_are_told_why(tmp_path: Path):
    def nbgrader(*arguments: str) -> str:
        paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        homes = {name: str(tmp_path / "home") for name in ("HOME", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
        homes["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # nbgrader calls `alembic`
        env = {**os.environ, **homes, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(
            [sys.executable, "-m", "nbgrader", *arguments],
            cwd=tmp_path / "course", env=env, capture_output=True, text=True, encoding="utf-8",
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def hand_in(student: str, change: Any) -> None:
        path = Path("submitted", student, ASSIGNMENT, f"{ASSIGNMENT}.ipynb")
        book = notebooks.read(released)
        change(book["cells"], notebooks.tagged(book["cells"], "exercise"))
        write_atomic(tmp_path / "course" / path, json.dumps(book))

    def fill(*ids: str) -> Any:
        def change(cells: Any, by: Any) -> None:
            stubs = notebooks.tagged(BOOKS["06"]["cells"], "exercise")
            for id in ids:
                by[id]["source"] = stubs[id]["source"]
                solve(by, id)

        return change

    def crash(cells: Any, by: Any) -> None:
        fill("06-1", "06-4")(cells, by)
        by["06-2"]["source"] = "1 / 0"
        by["06-3"]["source"] = "import sys\nsys.exit('done')"
        cells.append(code("raise KeyboardInterrupt"))

    assert main(["nbgrader", str(tmp_path / "course")]) == 0
    nbgrader("generate_assignment", ASSIGNMENT, "--create")
    released = tmp_path / "course/release" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"
    assert "BEGIN SOLUTION" not in (text := released.read_text(encoding="utf-8"))
    assert text.count("# YOUR CODE HERE") == len(POINTS) and "three letters, for example" in text
    hand_in("perfect", fill(*POINTS))
    hand_in("empty", fill())
    hand_in("half", fill("06-1", "06-3"))
    hand_in("crashing", crash)
    nbgrader("autograde", ASSIGNMENT, "--create")
    marks = {"perfect": 8, "empty": 0, "half": 3, "crashing": 4}
    assert exported(nbgrader, tmp_path / "grades.csv") == marks
    hand_in("half", fill("06-1", "06-2", "06-3"))  # handed in again: it counts once, as the last one
    nbgrader("autograde", ASSIGNMENT, "--student", "half", "--force")
    assert exported(nbgrader, tmp_path / "grades.csv") == marks | {"half": 5}
    nbgrader("generate_feedback", ASSIGNMENT)
    pages = {path.parents[1].name: path.read_text("utf-8") for path in tmp_path.glob("course/feedback/*/*/*.html")}
    assert set(pages) == set(marks)
    for id in POINTS:
        assert find(id).remark[:20] in pages["perfect"] and find(id).remark[:20] not in pages["empty"]
    assert pages["empty"].count("Asked for: ") >= len(POINTS) and "Did you run the cell above?" in pages["crashing"]


def exported(nbgrader: Any, csv: Path) -> dict[str, float]:
    import pandas as pd

    nbgrader("export", "--to", str(csv))
    table = pd.read_csv(csv)
    assert len(table) == 4 and set(table["max_score"]) == {
        sum(POINTS.values()) + 4
    }  # the open question is marked by a person
    return dict(zip(table["student_id"], table["score"], strict=True))
