"""The exercises: every stub fails with a message that helps, every solution passes, and grades are fair."""

import copy
import functools
import itertools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from armap_lite.course import EXERCISES, GAP, LampsBase, check, find, grade, notebooks
from armap_lite.course.__main__ import main
from armap_lite.display.cells import for_world

ROOT = Path(__file__).parents[1]
BOOKS = {path.name[:2]: book for path, book in notebooks.course() if notebooks.tagged(book["cells"], "exercise")}
SCRATCH = tempfile.TemporaryDirectory()  # gone when the tests are over
IDS = [id for book in BOOKS.values() for id in notebooks.tagged(book["cells"], "exercise")]


@functools.cache
def copies(kind: str) -> Path:
    """The copies for `kind`, as `make` writes them."""
    out = Path(SCRATCH.name, kind)
    assert main([kind, str(out)]) == 0
    return out


@functools.cache
def marks(kind: str, number: str) -> grade.NotebookGrade:
    [path] = copies(kind).glob(f"{number}_*.ipynb")
    return grade.grade_notebook(path, kind, seconds=120)


# Every exercise.


@pytest.mark.parametrize("id", IDS)
def test_a_stub_fails_its_check_and_is_told_what_is_expected(id: str):
    stub = marks("student", id[:2])
    result = stub.results[id]
    assert stub.reason == ""  # neither the stub nor the check raised
    assert (result.points, result.of) == (0, find(id).points)
    assert "Not solved yet" in result.message and len(result.message) > 150
    assert f"Asked for: {find(id).test.__doc__}" in result.message
    assert "Look at:" not in result.message  # the hint is for those who tried
    assert repr(result).startswith(f"✗ {id}: 0 of {result.of} points\n")


@pytest.mark.parametrize("id", IDS)
def test_a_solution_passes_its_check(id: str):
    solved = marks("instructor", id[:2])
    assert solved.results[id].points == find(id).points, solved.results[id]
    assert len(solved.results[id].message) > 20  # a remark to end with
    assert solved.reason == ""


@pytest.mark.parametrize("id", IDS)
def test_whatever_the_answer_is_a_check_explains_and_never_raises(id: str):
    nonsense = [None, 42, -1.5, "text", [], (0, 0), {}, object(), lambda *a, **k: None, lambda *a, **k: 1 / 0, object]
    for answer in [*nonsense, lambda *a: a[0], lambda *a: [], LampsBase]:
        result = check(id, lambda answer=answer: answer)
        assert result.points == 0 and "Asked for: " in result.message
        assert (f"Look at: {find(id).hint}" in result.message) != ("Not solved yet" in result.message)
    result = check(id, lambda: not_defined)  # noqa: F821
    assert result.points == 0 and "Did you run the cell above?" in result.message


def test_a_learners_own_line_is_named():
    scope: dict[str, Any] = {}
    source = "def sides(probabilities):\n    return probabilities['first']"
    import linecache

    linecache.cache["<cell 7>"] = (len(source), None, source.splitlines(keepends=True), "<cell 7>")
    exec(compile(source, "<cell 7>", "exec"), scope)  # noqa: S102
    message = check("02-3", lambda: scope["sides"]).message
    assert "stopped with TypeError" in message and "in the line `return probabilities['first']`" in message


def test_what_it_was_called_with_is_said():
    message = check(
        "01-3", lambda: lambda env, trajectory: float(trajectory.steps[-1].observation == "left: 24")
    ).message
    assert "expected 1, found 0" in message or "stopped with IndexError" in message
    message = check("02-3", lambda: lambda ps: -sum(p * math.log(p) for p in ps if ps[9])).message
    assert "stopped with IndexError" in message and "called with [1]" in message


RIGHT = [
    ("02-2", lambda logs, t: np.exp(np.divide(logs, t) - np.max(np.divide(logs, t))), False),
    ("02-2", lambda logs, t: torch.softmax(torch.tensor(logs, dtype=torch.float64) / t, 0), True),
    ("07-2", lambda scores, rng: np.quantile(rng.choice(scores, (2000, len(scores))).mean(1), (0.025, 0.975)), True),
    ("01-1", np.array([30, 9]), True),
    ("04-1", 0.67, True),
    ("06-1", ("a", "b", "c"), True),
]


@pytest.mark.parametrize(("id", "answer", "right"), RIGHT, ids=[id for id, *_ in RIGHT])
def test_an_array_or_a_tensor_is_as_good_as_a_list(id: str, answer: Any, right: bool):
    assert bool(check(id, lambda: answer).points) == right


@pytest.mark.parametrize("id", ["01-1", "02-1", "05-1", "07-1", "08-1"])
def test_a_number_to_be_found_is_not_given_away(id: str):
    for n in (2, 3):
        result = check(id, lambda n=n: (1000,) * n)
        assert result.points == 0 and "expected" not in result.message.lower().replace(f"expected {5 - n} things", "")


def test_an_exercise_that_is_not_known_is_an_error():
    for id in ("09-1", "05-9", "", "the first"):
        with pytest.raises(ValueError, match=f"exercise '{id}' is not known"):
            check(id, lambda: 1)


# Stub and solution come from one source.


def test_there_are_enough_exercises_of_every_kind():
    assert len(IDS) >= 25 and len(set(IDS)) == len(IDS)
    for number, book in BOOKS.items():
        mine = [id for id in IDS if id.startswith(number)]
        assert (len(mine) == 1 if number == "00" else 3 <= len(mine) <= 5) and mine == [
            f"{number}-{i + 1}" for i in range(len(mine))
        ]
        assert len(notebooks.tagged(book["cells"], "setup")) == 1
    assert list(BOOKS) == [f"{n:02}" for n in range(9)]
    assert {find(id).points for id in IDS} == {1, 2, 3}
    assert set(EXERCISES) == set(IDS)  # no check without an exercise


@pytest.mark.parametrize("id", IDS)
def test_an_exercise_is_text_stub_check_and_folded_solution(id: str):
    cells = BOOKS[id[:2]]["cells"]
    at = next(i for i, cell in enumerate(cells) if cell is notebooks.tagged(cells, "exercise")[id])
    text, stub, checking, solution = cells[at - 1 : at + 3]
    assert [cell["cell_type"] for cell in (text, stub, checking, solution)] == ["markdown", "code", "code", "markdown"]
    [(named, stars, minutes)] = re.findall(r"^### (\d\d-\d) (★+) .+ · (\d+) minutes$", text["source"], re.MULTILINE)
    assert (named, len(stars)) == (id, find(id).points) and int(minutes) > 0
    assert "<details><summary>Hint</summary>\n\n" in text["source"] and text["source"].endswith("\n\n</details>")
    assert set(checking["metadata"]["tags"]) == {"check", id}
    assert re.fullmatch(rf'check\("{id}", lambda: \w+{", 0" * bool(find(id).draw)}\)', checking["source"])
    assert set(solution["metadata"]["tags"]) == {"solution", id}
    assert solution["source"].startswith("<details><summary>Solution</summary>\n\n")  # a blank line: Markdown inside
    assert solution["source"].endswith("\n\n</details>")
    solved = notebooks.fill(stub["source"], solution["source"])
    assert GAP not in solved and "NotImplementedError" not in solved
    assert max(len(stub["source"].splitlines()), len(solved.splitlines())) <= 25
    missing = [line for line in solved.splitlines() if line not in stub["source"].splitlines()]
    assert missing and all(line.strip() in solution["source"] for line in missing if line.strip())


def test_one_gap_and_one_piece_of_code():
    text = "so:\n\n```python\na = 1\n\nb = 2\n```\n"
    assert notebooks.fill(f"if x:\n    pass  # {GAP}\nc", text) == "if x:\n    a = 1\n\n    b = 2\nc"
    marked = notebooks.fill(f"if x:\n    pass  # {GAP}", text, marks=True)
    assert marked == "if x:\n    ### BEGIN SOLUTION\n    a = 1\n\n    b = 2\n    ### END SOLUTION"
    for stub, solution in ((f"{GAP}\n{GAP}", text), ("x", text), (GAP, "words"), (GAP, text + text)):
        with pytest.raises(ValueError, match="one of each"):
            notebooks.fill(stub, solution)


def test_a_copy_that_a_student_has_worked_on_is_kept(tmp_path, capsys):
    assert main(["student", str(tmp_path)]) == 0 and "kept" not in capsys.readouterr().out
    worked, fresh = sorted(tmp_path.iterdir())[:2]
    solved, left = (
        worked.read_text(encoding="utf-8").replace("YOUR CODE HERE", "done"),
        fresh.read_text(encoding="utf-8"),
    )
    worked.write_text(solved + " ", encoding="utf-8")
    fresh.unlink()
    assert main(["student", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert worked.name in said and fresh.name not in said and "delete one to get it fresh" in said
    assert worked.read_text(encoding="utf-8") == solved + " " and fresh.read_text(encoding="utf-8") == left


def test_student_copies_hold_no_solution_and_instructors_copies_all_of_them():
    for number, all_worlds in BOOKS.items():
        book = for_world(all_worlds, "game24")
        given, solved = (notebooks.read(next(copies(kind).glob(f"{number}_*"))) for kind in ("student", "instructor"))
        outside = copy.deepcopy([c for c in book["cells"] if "solution" not in c["metadata"].get("tags", [])])
        said = [cell for cell in outside if "solutions are folded" in cell["source"]]
        assert len(said) == 1  # in a copy nothing is folded
        said[0]["source"] = re.sub(r" The solutions are folded[^.]*\.(?: \(Copies[^)]*\))?", "", said[0]["source"])
        assert given == {**book, "cells": outside}
        text = "\n".join(cell["source"] for cell in solved["cells"])
        assert (
            text.count("### BEGIN SOLUTION")
            == text.count("### END SOLUTION")
            == len(notebooks.tagged(outside, "check"))
        )
        assert "Solution</summary>" not in text and not notebooks.tagged(solved["cells"], "solution")
        for cell in notebooks.tagged(book["cells"], "solution").values():
            [piece] = notebooks.FENCE.findall(cell["source"])
            assert flat(piece) in flat(text) and flat(piece) not in flat("\n".join(c["source"] for c in outside))


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_solutions_keep_the_rules_of_the_notebooks(tmp_path: Path):
    """In the notebooks a stub may leave names unused; solved, nothing is."""
    for number, book in BOOKS.items():
        (tmp_path / f"{number}.ipynb").write_text(json.dumps(notebooks.instructor(book, marks=False)), encoding="utf-8")
    config = ["--config", str(ROOT / "pyproject.toml"), str(tmp_path)]
    for command in (["check", "--ignore", "F811", *config], ["format", "--check", *config]):
        ran = subprocess.run(
            [sys.executable, "-m", "ruff", *command], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


# make


@pytest.mark.parametrize("target", ["student", "instructor", "nbgrader", "slides", "grade", "lab"])
def test_make_runs_the_documented_commands(target: str):
    outer = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "--dry-run", "--old-file=.venv/installed", target]
    shown = subprocess.run(
        command, cwd=ROOT, env=outer, capture_output=True, text=True, encoding="utf-8"
    ).stdout.strip()
    more = {"grade": " 'handed_in' --csv 'grades.csv'", "slides": " 'runs/fast'"}.get(target, "")
    start = ".venv/bin/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb"
    assert shown == (start if target == "lab" else f".venv/bin/python -m armap_lite.course {target}{more}")
    if target in ("student", "instructor"):
        again = subprocess.run(
            [*command, "ENV=webshop"], cwd=ROOT, env=outer, capture_output=True, text=True, encoding="utf-8"
        )
        assert again.stdout.strip() == f"{shown} --env webshop"
    if target == "lab":
        again = subprocess.run(
            [*command, "ENV=webshop"], cwd=ROOT, env=outer, capture_output=True, text=True, encoding="utf-8"
        )
        copied, opened = again.stdout.strip().splitlines()
        assert copied == ".venv/bin/python -m armap_lite.course reader build/reader-webshop --env webshop"
        assert opened == start.replace("/tree/notebooks/", "/tree/build/reader-webshop/")
    if target == "lab":  # the kernel that the notebook names is the one of .venv
        assert {book["metadata"]["kernelspec"]["name"] for _, book in notebooks.course()} == {"python3"}


def test_a_reader_s_copies_have_the_solutions_and_use_the_runs_of_the_checkout(tmp_path: Path, capsys):
    assert main(["reader", str(tmp_path / "a"), "--env", "webshop"]) == 0
    capsys.readouterr()
    ran = (tmp_path / "a" / os.path.relpath(ROOT / "runs", tmp_path / "a")).resolve()
    assert ran == (ROOT / "runs").resolve()
    for path, book in notebooks.course():
        made = notebooks.read(tmp_path / "a" / path.name)
        assert len(made["cells"]) == len(for_world(book, "webshop")["cells"])
        whole = "".join(cell["source"] for cell in made["cells"])
        assert '"../runs/"' not in whole and (
            "RUN_DIR or" not in whole or f'{os.path.relpath(ROOT / "runs", tmp_path / "a")}/"' in whole
        )
    (tmp_path / "a/00_start_here.ipynb").write_text("{}", encoding="utf-8")
    assert main(["reader", str(tmp_path / "a"), "--env", "webshop"]) == 0
    assert "changed: 00_start_here.ipynb" in capsys.readouterr().out


def test_no_two_exercises_of_a_notebook_answer_to_one_name():
    for book in BOOKS.values():
        names = [
            cell["source"].rpartition(": ")[2].partition(",")[0]
            for cell in notebooks.tagged(book["cells"], "check").values()
        ]
        assert len(set(names)) == len(names)
        for a, b in itertools.pairwise(notebooks.tagged(book["cells"], "exercise")):
            assert a < b


@pytest.mark.parametrize("kind", ["student", "instructor"])
def test_without_notebooks_there_are_no_copies(kind: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("armap_lite.display.cells.NOTEBOOKS", tmp_path / "none")
    assert main([kind, str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith(f"error: no notebooks in {tmp_path / 'none'}; run from a checkout")
    assert not (tmp_path / "out").exists()
