"""Wrong answers that a learner may plausibly give: ten for each exercise, each with what its message has to name."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_course import BOOKS, IDS

from armap_lite.course import Result, find, notebooks

FOLDER = Path(__file__).parent / "wrong_answers"


def read(text: str) -> list[tuple[str, str, str]]:
    """(exercise, pattern, code) of each entry of a file: `== 01-2 | pattern of the message`, then what fills the gap.

    Where the lines hold ` => `, they change the solution instead: `old => new`, several of them with `~` in between.
    """
    heads = re.split(r"^== (\d\d-\d) \| (.*)\n", text, flags=re.MULTILINE)[1:]
    return list(zip(heads[::3], heads[1::3], heads[2::3], strict=True))


WRONG = [one for path in sorted(FOLDER.glob("*.txt")) for one in read(path.read_text(encoding="utf-8"))]
NAMES = [f"{id}-{i}" for i, (id, *_) in enumerate(WRONG)]


def changed(solution: str, code: str) -> str:
    """`code`, or where it says what to change, `solution` with the changes."""
    if " =>" not in code:
        return code
    for change in code.rstrip("\n").split("\n~\n"):
        old, _, new = change.partition(" =>")
        assert old in solution, old
        solution = solution.replace(old, new.removeprefix(" "))
    return solution


def hand_in(id: str, code: str) -> Result:
    """What the check of the notebook says of its exercise with this code in the gap."""
    cells = BOOKS[id[:2]]["cells"]
    stub, checking, solution = (
        notebooks.tagged(cells, kind)[id]["source"] for kind in ("exercise", "check", "solution")
    )
    [setup] = notebooks.tagged(cells, "setup").values()
    [solved] = notebooks.FENCE.findall(solution)
    filled = notebooks.fill(stub, f"```python\n{changed(solved, code)}\n```\n")
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(f"{setup['source']}\n\n{filled}", scope)  # noqa: S102
    return eval(checking, scope)  # noqa: S307


@pytest.mark.parametrize(("id", "named", "code"), WRONG, ids=NAMES)
def test_a_wrong_answer_gets_no_points_and_a_message_that_says_why(id: str, named: str, code: str):
    result = hand_in(id, code)
    why, asked, _ = result.message.partition("\nAsked for: ")
    assert result.points == 0 and asked and re.search(named, why), result


def test_each_exercise_has_ten_different_ones():
    counts = Counter(id for id, *_ in WRONG)
    assert set(counts) == set(IDS) == {id for id in IDS if find(id)}
    assert min(counts.values()) >= 10, counts
    assert len({(id, code) for id, _, code in WRONG}) == len(WRONG)
