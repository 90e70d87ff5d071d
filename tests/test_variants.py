"""Other numbers for an exam: the solution is right for every seed, an answer to another seed is not, grades follow."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_course import IDS

from armap_lite.course import check, notebooks, variant
from armap_lite.course.__main__ import main


def solved(id: str, seed: int) -> tuple[Any, int]:
    """What the solution of the notebook answers, and the points of its check."""
    [book] = (book["cells"] for path, book in notebooks.course(seed) if path.name.startswith(id[:2]))
    stub, solution, checking = (
        notebooks.tagged(book, kind)[id]["source"] for kind in ("exercise", "solution", "check")
    )
    [setup] = notebooks.tagged(book, "setup").values()
    scope: dict[str, Any] = {}
    exec(f"{setup['source']}\n\n{notebooks.fill(stub, solution)}", scope)  # noqa: S102
    return scope[stub.partition(" ")[0]], eval(checking, scope).points  # noqa: S307


@pytest.mark.parametrize("id", [id for id in IDS if id.endswith("-1")])
def test_every_variant_has_a_right_answer_and_differs(id: str):
    assert variant(id, 3) == variant(id, 3)
    answers = {seed: solved(id, seed) for seed in (0, 1, 2, 7, 12, 2026)}
    assert {points for _, points in answers.values()} == {1}
    own, _ = answers[0]
    assert any(check(id, lambda: own, seed).points == 0 for seed in (1, 2, 7))


def test_grades_are_those_of_the_variant_that_was_handed_out(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["student", str(tmp_path / "out"), "--variant", "7"]) == 0
    [path] = (tmp_path / "out").glob("06_*")
    book = notebooks.read(path)
    exercises = notebooks.tagged(book["cells"], "exercise")
    assert "VARIANT = 7" in next(iter(notebooks.tagged(book["cells"], "setup").values()))["source"]
    exercises["06-1"]["source"] = f"winners = {solved('06-1', 7)[0]}\nVARIANT = 0"  # the second line changes nothing
    (tmp_path / "in").mkdir()
    (tmp_path / "in/06.ipynb").write_text(json.dumps(book), encoding="utf-8")
    for seed, points in ((7, 1), (0, 0)):
        assert main(["grade", str(tmp_path / "in"), "--csv", str(tmp_path / "g.csv"), "--variant", str(seed)]) == 0
        assert capsys.readouterr().out.split("\n")[-3].split()[:3] == [str(points), "of", "8"]
