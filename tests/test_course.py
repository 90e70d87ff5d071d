"""The exercises: every stub fails with a message that helps, every solution passes, and grades are fair."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from armap_lite.course import EXERCISES, GAP, LampsBase, check, find, grade, notebooks, random_trajectory
from armap_lite.course.__main__ import main
from armap_lite.course.toys import LAMPS
from armap_lite.display.cells import for_world
from armap_lite.episode import Episode
from armap_lite.planners.mcts import Node, backward, select
from armap_lite.synthesize import change
from armap_lite.trajectory import Observation, Trajectory, transcript

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
    assert f"Asked for: {find(id).test.__doc__}" in result.message and f"Look at: {find(id).hint}" in result.message
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


# Plausible mistakes, and the word of the message that names each.


def last_of_pairs(pairs: list[Any], share: float, rng: Any) -> tuple[list[Any], list[Any]]:
    rng.shuffle(pairs)
    n = round(share * len(pairs))
    return pairs[n:], pairs[:n]


def runs_on(env: Any, task: Any, actions: Any) -> Trajectory:
    trajectory = Trajectory.begin(task, env.reset(task))
    for action in actions:
        trajectory = trajectory.then(action, env.step(action))
    return trajectory


def believing(env: Any, trajectory: Any) -> float:
    return float(trajectory.done and trajectory.steps[-1].observation == f"left: {trajectory.task.setup['target']}")


def unexecuted(env: Any, trajectory: Any, rng: Any) -> Any:
    import dataclasses

    at = rng.randrange(3)
    steps = [dataclasses.replace(s, action="1 + 1 = 2") if i == at else s for i, s in enumerate(trajectory.steps)]
    return dataclasses.replace(trajectory, steps=tuple(steps))


def only_the_last(env: Any, trajectory: Any, rng: Any) -> Any:
    env.replay(trajectory.task, trajectory.actions[:-1])
    for action in env.admissible():
        other = env.replay(trajectory.task, (*trajectory.actions[:-1], action))
        if env.hindsight.achieved(other) != env.hindsight.achieved(trajectory):
            return other
    return None


def luck(env: Any, task: Any, reward: Any, rollouts: int) -> Any:
    walks = {t.actions: t for t in (random_trajectory(env, task, random.Random(i)) for i in range(rollouts))}
    return max(walks.values(), key=reward)


def without_prior(child: Any, node: Any, c: float, low: float, high: float) -> float:
    value = (child.value - low) / (high - low) if child.visits and high > low else 0.0
    return value + c * math.sqrt(math.log(node.visits + 1)) / (1 + child.visits)


def unscaled(child: Any, node: Any, c: float, low: float, high: float) -> float:
    return child.value + c * child.prior * len(node.children) * math.sqrt(math.log(node.visits + 1)) / (
        1 + child.visits
    )


def mean_up(leaf: Any, reward: float, gamma: float) -> None:
    node = leaf
    while node is not None:
        node.value = reward if not node.visits else (node.value * node.visits + reward) / (node.visits + 1)
        node.visits += 1
        node, reward = node.parent, reward * gamma


class Counting(LampsBase):
    """Counts what makes no sense as a switch."""

    def reset(self, task: Any) -> Observation:
        self.lit, self.left = set(), 3
        return self.look()

    def step(self, action: str) -> Observation:
        self.lit ^= {action.removeprefix("switch ")} & set(LAMPS)
        self.left -= 1
        return self.look()

    def admissible(self) -> tuple[str, ...]:
        return tuple(f"switch {lamp}" for lamp in LAMPS) if self.left > 0 else ()

    def look(self) -> Observation:
        return Observation(f"lit: {' '.join(sorted(self.lit)) or 'none'}", self.admissible(), done=self.left <= 0)


def ends_with_target(env: Any, trajectory: Any) -> float:
    end = env.replay(trajectory.task, trajectory.actions)
    return float(end.done and end.steps[-1].observation.endswith(str(trajectory.task.setup["target"])))


def by_result(env: Any, trajectory: Any, drafts: Any) -> tuple[str, str]:
    goal = env.hindsight.achieved(trajectory)
    fits = (d for d in drafts if (env.hindsight.parse(d) or {}).get("result") == goal["result"])
    draft = next(fits, None)
    return (draft, "llm") if draft else (env.hindsight.to_text(goal), "plain")


def luck_from_there(env: Any, trajectory: Any, rng: Any) -> Any:
    """Everything after the change is drawn."""
    for _ in range(8):
        at = rng.randrange(3)
        actions = list(trajectory.actions[:at])
        while True:
            end = env.replay(trajectory.task, actions)
            if end.done:
                break
            options = [a for a in env.admissible() if len(actions) != at or a != trajectory.actions[at]]
            actions.append(rng.choice(options))
        if env.hindsight.achieved(end) != env.hindsight.achieved(trajectory):
            return end
    return None


def loop(env: Any, task: Any, policy: Any, limit: bool, dead_ends: bool) -> Any:
    observation = env.reset(task)
    trajectory = Trajectory.begin(task, observation)
    while not trajectory.done and (not limit or len(trajectory.steps) < env.max_steps):
        admissible = observation.admissible or env.admissible()
        if dead_ends and not admissible:
            break
        observation = env.step(action := policy(transcript(trajectory), admissible))
        trajectory = trajectory.then(action, observation)
    return trajectory


def of_the_different_ones(attempts: Any, reward: Any) -> int:
    rewards = {t.actions: reward(t) for t in {t.actions: t for t in attempts}.values()}
    return list(rewards.values()).index(max(rewards.values()))


def above_zero(attempts: Any, reward: Any) -> Any:
    known, best, highest = {}, None, 0.0
    for i, attempt in enumerate(attempts):
        if attempt.actions not in known:
            known[attempt.actions] = reward(attempt)
        if known[attempt.actions] > highest:
            best, highest = i, known[attempt.actions]
    return best


def by_identity(attempts: Any, reward: Any) -> int:
    known = {id(t): reward(t) for t in {id(t): t for t in attempts}.values()}
    return max(range(len(attempts)), key=lambda i: known[id(attempts[i])])


def rounded_down(pairs: list[Any], share: float, rng: Any) -> tuple[list[Any], list[Any]]:
    tasks = sorted({p.task_id for p in pairs})
    held = set(rng.sample(tasks, int(share * len(tasks))))
    return [p for p in pairs if p.task_id not in held], [p for p in pairs if p.task_id in held]


def tempered(logprobs: list[float], temperature: float) -> list[float]:
    highest = max(logprobs)
    for i, x in enumerate(logprobs):
        logprobs[i] = math.exp((x - highest) / temperature)
    return [x / sum(logprobs) for x in logprobs]


def split_at_not(text: str, things: Any) -> Any:
    words = re.findall(r"[a-z]+", text.lower().split("not")[0].split("without")[0])
    found = sorted({word for word in words if word in things})
    return {"bag": " ".join(found)} if len(found) == 3 else None


def never_gives_up(env: Any, trajectory: Any, rng: Any) -> Any:
    achieved = env.hindsight.achieved
    while (other := change(env, trajectory, rng)) is None or achieved(other) == achieved(trajectory):
        pass
    return other


def random_walk(env: Any, task: Any) -> Any:
    return random_trajectory(env, task, random.Random(0))


class Once(Counting):
    """Forgets to begin again."""

    def __init__(self) -> None:
        self.lit, self.left = set(), 3

    def reset(self, task: Any) -> Observation:
        return self.look()


def never_scaled(env: Any, task: Any, reward: Any, rollouts: int) -> Any:
    episode, found = Episode(env, task), []
    root = Node(state=episode.start())
    while len(found) < rollouts and not root.exhausted:
        node = root
        while not node.state.over:
            actions = node.state.admissible
            node.children = node.children or [Node(action, 1 / len(actions), node) for action in actions]
            node = select(node, 0.2, 0.0, 1.0)
            node.state = node.state or episode.step(node.parent.state, node.action)
        found.append((reward(node.state.trajectory), node.state.trajectory))
        backward(node, found[-1][0], 1.0)
    return max(found, key=lambda one: one[0])[1]


def by_formula(scores: list[float], rng: Any) -> tuple[float, float]:
    mean, half = np.mean(scores), 1.96 * np.std(scores) / len(scores) ** 0.5
    return mean - half, mean + half


def to_the_last_digit(a: list[float], b: list[float]) -> float:
    gaps = [x - y for x, y in zip(a, b)]
    sums = [abs(sum(s * d for s, d in zip(signs, gaps))) for signs in itertools.product((1, -1), repeat=len(gaps))]
    return sum(one >= abs(sum(gaps)) for one in sums) / len(sums)


MISTAKES = [
    ("01-2", lambda env, task, actions: env.replay(task, actions), "reset"),
    ("01-3", ends_with_target, "224"),
    ("02-1", ("5", "3"), "kept"),
    ("02-2", tempered, "changed the list"),
    ("02-4", lambda *a: loop(*a, limit=False, dead_ends=True), "never ends"),
    ("02-4", lambda *a: loop(*a, limit=True, dead_ends=False), "nothing is admissible"),
    ("03-2", by_result, "other numbers"),
    ("03-4", luck_from_there, "still possible"),
    ("04-2", lambda c, r: torch.nn.functional.softplus(r - c).mean().item(), "no gradient"),
    ("04-4", rounded_down, "0.33"),
    ("05-2", of_the_different_ones, "the index"),
    ("05-2", above_zero, "the index"),
    ("05-2", by_identity, "calls"),
    ("05-4", backward, "package's own"),
    ("05-5", lambda env, task, reward, n: max([random_walk(env, task)] * n, key=reward), "1 different walks in 500"),
    ("08-2", split_at_not, "another"),
    ("08-4", Once, "afresh"),
    ("01-1", (30, 15), "After it the numbers 5 6 6"),
    ("01-2", runs_on, "after the end"),
    ("01-3", believing, "writes `left: 24`"),
    ("01-3", lambda env, t: float(env.replay(t.task, t.actions).steps[-1].observation == "left: 24"), "36"),
    ("01-4", lambda env, task: [("6 * 4 = 24",)] * 2 if len(task.setup["numbers"]) == 2 else [], "expected 1"),
    ("02-1", (6, 3), "kept"),
    ("02-2", lambda logs, t: [math.exp(x / t) for x in logs], "T = 2"),
    ("02-2", lambda logs, t: [math.exp(x / t) / sum(math.exp(y / t) for y in logs) for x in logs], "ZeroDivision"),
    ("02-3", lambda ps: len(ps), "quarters"),
    ("02-3", lambda ps: math.exp(-sum(p * math.log(p) for p in ps)), "0 ln 0|ValueError"),
    ("03-1", "Use the numbers 4 5 6 10 to obtain 24.", "expected .*36"),
    ("03-2", lambda env, t, drafts: (drafts[0], "llm"), "second draft"),
    ("03-4", unexecuted, "replayed"),
    ("03-4", never_gives_up, "for ever"),
    ("03-4", lambda env, t, rng: t, "ends where the good one ends"),
    ("03-4", only_the_last, "always at action 3"),
    ("04-1", 5 / 6, "tie"),
    ("04-2", lambda c, r: -torch.sigmoid(c - r).log().mean(), "became 0"),
    ("04-2", lambda c, r: -torch.nn.functional.logsigmoid(c - r).sum(), "mean of two"),
    ("04-2", lambda c, r: torch.nn.functional.softplus(r - c).mean().detach(), "no gradient"),
    ("04-3", lambda mask: torch.full((len(mask),), mask.shape[1] - 1), "padded on the right"),
    ("04-3", lambda mask: mask.sum(dim=1) - 1, "padded on the left"),
    ("04-4", last_of_pairs, "both sides"),
    ("04-5", lambda env, right, reward: right, "nobody is fooled"),
    ("05-1", (3, 5, 1), "all 8"),
    ("05-2", lambda ts, reward: max(range(len(ts)), key=lambda i: reward(ts[i])), "calls"),
    ("05-3", without_prior, "prior"),
    ("05-3", unscaled, "value|lowest"),
    ("05-4", mean_up, "maximum"),
    ("05-5", luck, "75 walks|use `select`|rewards asked"),
    ("06-1", ("A", "A", "C"), "λ = 0.5"),
    ("06-2", lambda t: max([float(a.split(" = ")[1]) for a in t.actions], default=0.0), "ValueError"),
    ("06-3", lambda best, cheap: (best[0] - cheap[0]) / max(1, best[1] - cheap[1]), "expected None"),
    ("05-5", never_scaled, "lowest and the highest"),
    ("06-4", lambda points: sorted(points), "points"),
    ("06-4", lambda points: {p for p in points if not any(q[0] <= p[0] and q[1] > p[1] for q in points)}, "a list"),
    ("07-2", lambda scores, rng: np.quantile(rng.choice(scores, (2000, len(scores))).mean(1), (0.05, 0.95)), "wide"),
    ("07-4", to_the_last_digit, "differences"),
    ("07-2", lambda scores, rng: (min(scores), max(scores)), "about"),
    ("07-2", by_formula, "draws other tasks"),
    ("07-2", lambda scores, rng: tuple(np.quantile(rng.permutation(scores), (0.025, 0.975))), "about"),
    ("07-3", lambda rewards, golds, n: max(golds), "random pick"),
    ("07-4", lambda a, b: float(np.mean(np.subtract(a, b) > 0)), "differences"),
    ("08-1", (120, 20), "Bags"),
    ("08-2", lambda text, things: {"bag": " ".join(t for t in things if t in text)}, "expected"),
    ("08-3", lambda env: [t for f, t in env.hindsight.few_shot if env.hindsight.parse(t) != f], "expected"),
    ("08-4", Counting, "without sense"),
    ("08-4", LampsBase, "no admissible, reset, step"),
]


@pytest.mark.parametrize(("id", "answer", "named"), MISTAKES, ids=[f"{id}-{i}" for i, (id, *_) in enumerate(MISTAKES)])
def test_a_plausible_mistake_gets_no_points_and_is_named(id: str, answer: Any, named: str):
    result = check(id, lambda: answer)
    assert result.points == 0 and re.search(named, result.message.partition("Asked for")[0]), result.message


# Stub and solution come from one source.


def test_there_are_enough_exercises_of_every_kind():
    assert len(IDS) >= 25 and len(set(IDS)) == len(IDS)
    for number, book in BOOKS.items():
        mine = [id for id in IDS if id.startswith(number)]
        assert 3 <= len(mine) <= 5 and mine == [f"{number}-{i + 1}" for i in range(len(mine))]
        assert len(notebooks.tagged(book["cells"], "setup")) == 1
    assert list(BOOKS) == [f"{n:02}" for n in range(1, 9)]
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
    assert re.fullmatch(rf'check\("{id}", lambda: \w+\)', checking["source"])
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
        said[0]["source"] = re.sub(r" The solutions are folded[^.]*\. \(Copies[^)]*\)", "", said[0]["source"])
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


@pytest.mark.parametrize("target", ["student", "instructor", "grade", "lab"])
def test_make_runs_the_documented_commands(target: str):
    outer = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "--dry-run", "--old-file=.venv/installed", target]
    shown = subprocess.run(
        command, cwd=ROOT, env=outer, capture_output=True, text=True, encoding="utf-8"
    ).stdout.strip()
    more = " 'handed_in' --csv 'grades.csv'" if target == "grade" else ""
    start = ".venv/bin/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb"
    assert shown == (start if target == "lab" else f".venv/bin/python -m armap_lite.course {target}{more}")
    if target in ("student", "instructor"):
        again = subprocess.run([*command, "ENV=webshop"], cwd=ROOT, env=outer, capture_output=True, text=True)
        assert again.stdout.strip() == f"{shown} --env webshop"
    if target == "lab":  # the kernel that the notebook names is the one of .venv
        assert {book["metadata"]["kernelspec"]["name"] for _, book in notebooks.course()} == {"python3"}


def test_no_two_exercises_of_a_notebook_answer_to_one_name():
    for book in BOOKS.values():
        names = [cell["source"].rpartition(": ")[2] for cell in notebooks.tagged(book["cells"], "check").values()]
        assert len(set(names)) == len(names)
        for a, b in itertools.pairwise(notebooks.tagged(book["cells"], "exercise")):
            assert a < b


@pytest.mark.parametrize("kind", ["student", "instructor"])
def test_without_notebooks_there_are_no_copies(kind: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / "none")
    assert main([kind, str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith(f"error: no notebooks in {tmp_path / 'none'}; run from a checkout")
    assert not (tmp_path / "out").exists()
