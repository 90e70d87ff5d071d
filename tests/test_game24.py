"""Game of 24: exact arithmetic, a grammar instead of eval, a judge that believes no text."""

import dataclasses
import inspect
import json
import re
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import puzzle

from armap_lite import envs
from armap_lite.envs.game24 import Game24, Game24Judge, instruction
from armap_lite.episode import Episode
from armap_lite.pipeline.commands import main
from armap_lite.pipeline.run import Run
from armap_lite.trajectory import Observation, Step, Task, Trajectory

ENV = Game24()
HINDSIGHT = ENV.hindsight
hands = st.lists(st.integers(1, 13), min_size=4, max_size=4)
rough = st.lists(st.fractions(-20, 20, max_denominator=6), min_size=2, max_size=4)  # what may be left on the way
fractions = st.fractions(-30, 30, max_denominator=9)
steps = st.builds("{} {} {}".format, fractions, st.sampled_from("+-*/"), fractions)


def left(observation: Observation) -> list[Fraction]:
    return [Fraction(n) for n in observation.text.rpartition("left: ")[2].split()]


def at(numbers) -> Observation:
    return ENV.reset(Task("t", "game24", "test", "", {"numbers": list(numbers), "target": 24}))


def walk(data, task: Task) -> Trajectory:
    """A random finished trajectory of admissible actions."""
    trajectory = ENV.replay(task, ())
    while not trajectory.done:
        trajectory = trajectory.then(action := data.draw(st.sampled_from(ENV.admissible())), ENV.step(action))
    return trajectory


# Arithmetic and grammar


@pytest.mark.slow
@settings(max_examples=200)
@given(rough, st.data())
def test_every_admissible_action_does_what_it_says_exactly(numbers, data):
    start = at(numbers)
    assert start.admissible == ENV.admissible() and len(set(start.admissible)) == len(start.admissible) > 0
    action = data.draw(st.sampled_from(start.admissible))
    a, op, b, _, value = action.split()
    after = ENV.step(action)
    a, b, value = Fraction(a), Fraction(b), Fraction(value)
    assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[op] == value
    assert Counter(left(after)) + Counter([a, b]) == Counter(numbers) + Counter([value])
    assert after.done == (len(numbers) == 2) and (after.admissible == ()) == after.done
    assert "Nothing" not in after.text


@pytest.mark.slow
@settings(max_examples=300)
@given(rough, st.data())
def test_a_step_is_taken_exactly_where_its_numbers_are_left_and_its_result_is_right(numbers, data):
    a, b = (data.draw(st.sampled_from(numbers) | fractions) for _ in range(2))
    op = data.draw(st.sampled_from("+-*/"))
    claimed = data.draw(st.none() | fractions)
    at(numbers)
    if data.draw(st.booleans()) and not (op == "/" and b == 0):
        claimed = {"+": a + b, "-": a - b, "*": a * b, "/": b and a / b}[op]
    action = f"{a} {op} {b}" + (f" = {claimed}" if claimed is not None else "")
    admissible = {tuple(sorted(left(elsewhere(numbers, step)))) for step in ENV.admissible()}
    after = ENV.step(action)
    there = not Counter([a, b]) - Counter(numbers)
    value = None if op == "/" and b == 0 else {"+": a + b, "-": a - b, "*": a * b, "/": b and a / b}[op]
    if there and value is not None and claimed in (None, value):
        assert Counter(left(after)) + Counter([a, b]) == Counter(numbers) + Counter([value])
        rest = Counter(numbers) - Counter([a, b])
        ways = {tuple(sorted([*rest.elements(), v])) for v in ((value, -value) if op == "-" else (value,))}
        assert ways & admissible  # nothing that can be done is missing from the list, but for the sign of a difference
    else:
        assert after.text.startswith("Nothing happens: ") and left(after) == list(numbers)


def elsewhere(numbers, step: str) -> Observation:
    env = Game24()
    env.reset(Task("t", "game24", "test", "", {"numbers": list(numbers), "target": 24}))
    return env.step(step)


HOSTILE = [
    "__import__('os').system('touch hacked')",
    "8 ** 8",
    "8 * 3 = 24; 1",
    "(8 * 3) = 24",
    "8 * 3 = (24)",
    "8 * 3 = 24 (left: 2 24)\nrm",
    "8 * 3 == 24",
    "1e1 + 3",
    "0x8 * 3",
    "8.0 * 3",
    "8 // 3",
    "1/0 + 3",
    "8 * 3 = 1/0",
    "8 / 0",
    "8 * 3 = 25",
    "nan + 3",
    "",
    "\x00",
    "8 * 8",
    "9" * 5000 + " + 3",  # more digits than Python turns into an int
    "8 * 3 = " + "9" * 5000,
    "8/" + "9" * 5000 + " + 3",
]


@pytest.mark.parametrize("action", HOSTILE, ids=lambda action: repr(action[:30]))
def test_text_that_is_no_step_changes_nothing_and_says_so(action, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = at([8, 3, 1, 2])
    after = ENV.step(action)
    assert after.text.startswith("Nothing happens: ") and after.text.endswith(" " + start.text)
    assert (after.admissible, after.done) == (start.admissible, False)
    assert len(after.text) < 5000 and not list(tmp_path.iterdir())


@pytest.mark.slow
@settings(max_examples=200)
@given(st.text(max_size=30) | st.text("0123456789+-*/= ()left:", max_size=20))
def test_any_text_at_all_is_survived(action):
    start = at([8, 3, 1, 2])
    after = ENV.step(action)
    assert left(after) == [8, 3, 1, 2] or len(left(after)) == 3
    assert after.text == start.text or after.text.startswith("Nothing") or len(left(after)) == 3


def test_spelling_with_and_without_result_and_rest_is_one_step():
    spellings = ("8 * 3", "8 * 3 = 24", " 8 * 3 = 24 (left: 1 2 24)", "8 * 3 (left: 9)")
    assert len({(at([8, 3, 1, 2]), ENV.step(action))[1].text for action in spellings}) == 1


def test_nothing_can_be_done_with_one_number():
    at([8, 3])
    ENV.step("8 * 3")
    after = ENV.step("24 + 24")
    assert after.text.startswith("Nothing happens: only one number is left") and after.done and not after.admissible


# Puzzles


def test_the_splits_are_disjoint_and_the_test_split_is_that_of_the_paper():
    splits = {split: ENV.tasks(split) for split in ("train", "dev", "test")}
    assert [t.id for t in splits["test"]] == [f"game24-{i}" for i in range(900, 1000)]
    everything = [t for tasks in splits.values() for t in tasks]
    hands = [tuple(sorted(t.setup["numbers"])) for t in everything]
    assert len(everything) == len(set(hands)) == len({t.id for t in everything}) == 1362
    assert all(len(h) == 4 and set(h) <= set(range(1, 14)) for h in hands)
    assert (len(splits["dev"]), len(splits["train"])) == (100, 1162)
    assert [t.split for t in everything] == [split for split, tasks in splits.items() for _ in tasks]
    assert splits["test"] == Game24().tasks("test")
    with pytest.raises(ValueError, match="split 'all' is not known"):
        ENV.tasks("all")


@pytest.mark.slow
def test_every_puzzle_is_solved_by_admissible_actions_alone():
    known: dict[tuple[Fraction, ...], bool] = {}

    def solved(numbers: tuple[Fraction, ...]) -> bool:
        if numbers not in known:
            if len(numbers) == 1:
                known[numbers] = numbers[0] == 24
            else:
                known[numbers] = any(solved(after(numbers, action)) for action in at(numbers).admissible)
        return known[numbers]

    def after(numbers: tuple[Fraction, ...], action: str) -> tuple[Fraction, ...]:
        a, _, b, _, value = action.split()
        rest = list(numbers)
        rest.remove(Fraction(a))
        rest.remove(Fraction(b))
        return tuple(sorted([*rest, Fraction(value)]))

    hands = [tuple(sorted(map(Fraction, t.setup["numbers"]))) for s in ("train", "dev", "test") for t in ENV.tasks(s)]
    assert len(hands) == 1362 and all(map(solved, hands))
    assert not solved(tuple(map(Fraction, (1, 1, 1, 1)))) and not solved(tuple(map(Fraction, (1, 1, 1, 2))))


def test_the_examples_are_training_puzzles_and_solve_them():
    train = {tuple(sorted(t.setup["numbers"])) for t in ENV.tasks("train")}
    examples = ENV.examples()
    assert len(examples) >= 3
    for task, actions in examples:
        assert tuple(sorted(task.setup["numbers"])) in train and task.split == "train"
        assert HINDSIGHT.parse(task.instruction) == {"numbers": spelled(task.setup["numbers"]), "result": "24"}
        for k, action in enumerate(actions):
            ENV.replay(task, actions[:k])
            assert action in ENV.admissible()
        assert Game24Judge().score(ENV.replay(task, actions)) == 1


def spelled(numbers) -> str:
    return " ".join(map(str, sorted(numbers)))


# Trajectories


@settings(max_examples=60)
@given(hands, st.data(), st.integers(-30, 200))
def test_a_replay_is_the_first_run_again_and_the_target_shows_nowhere(numbers, data, target):
    task = puzzle(*numbers)
    trajectory = walk(data, task)
    assert len(trajectory.steps) == ENV.max_steps
    assert Game24().replay(task, trajectory.actions) == trajectory
    assert ENV.replay(task, [*trajectory.actions, "1 + 1"]) == trajectory  # it stops where the episode is over
    other = ENV.replay(puzzle(*numbers, target=target), trajectory.actions)
    assert (other.start, other.steps, other.done) == (trajectory.start, trajectory.steps, trajectory.done)


@given(hands, st.data())
def test_invalid_actions_change_nothing(numbers, data):
    task = puzzle(*numbers)
    trajectory = walk(data, task)
    noise = st.sampled_from(["", "1 + 100", "hello", "14 * 14 = 196"])
    actions = [x for action in trajectory.actions for x in (data.draw(noise), action)]
    assert ENV.replay(task, actions).steps[1::2] == trajectory.steps


@settings(max_examples=80)
@given(hands, st.data())
def test_what_a_trajectory_did_its_plain_sentence_states(numbers, data):
    trajectory = walk(data, puzzle(*numbers))
    goal = HINDSIGHT.achieved(trajectory)
    [end] = left(Observation(trajectory.steps[-1].observation))
    if goal:
        assert goal == {"numbers": spelled(numbers), "result": str(end)}
        text = HINDSIGHT.to_text(goal)
        assert HINDSIGHT.parse(text) == goal
        retargeted = HINDSIGHT.retarget(trajectory.task, text)
        assert Game24Judge().score(dataclasses.replace(trajectory, task=retargeted)) == 1
    else:
        assert end.denominator > 1 or end > 999
    assert HINDSIGHT.achieved(ENV.replay(trajectory.task, trajectory.actions[:2])) == {}


def test_the_shown_few_shot_texts_state_what_they_are_said_to():
    for goal, text in HINDSIGHT.few_shot:
        assert HINDSIGHT.parse(text) == goal and HINDSIGHT.start_text(goal) == at(goal["numbers"].split()).text


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("Use 8 8 4 1, each once, to get 36.", ("1 4 8 8", "36")),
        ("Make 36 from 1, 4, 8 and 8.", ("1 4 8 8", "36")),
        ("Obtain -5 from 1 4 8 8", ("1 4 8 8", "-5")),
        ("8 8 4 1 should equal exactly 36", ("1 4 8 8", "36")),
        ("8 8 4 1 equals exactly 36", ("1 4 8 8", "36")),
        ("Make 1/3 from 1 4 8 8", ("1 4 8 8", "1/3")),
        ("Use 8 8 4 to get 36", None),
        ("Use 8 8 4 1 1 to get 36", None),
        ("Use 8 8 4 1 to get 36 or make 24", None),
        ("Use 8 8 4 1 for anything but make 36", None),
        ("Combine 8 8 4 1 and fail to make 36", None),
        ("With 8 8 4 1, do other things than make 36", None),
        ("Avoiding to make 36, use 8 8 4 1", None),
        ("Use 8 8 4 1 to get about 36 and make 36", None),
        ("Butter and oranges: make 36 from 8 8 4 1", ("1 4 8 8", "36")),
        ("Use the numbers 8 8 4 1.", None),
        ("", None),
        ("Use 8 8 4 one to get 36", None),
    ],
)
def test_what_an_instruction_states_is_read_or_it_is_not_read_at_all(text, stated):
    assert HINDSIGHT.parse(text) == (stated and {"numbers": stated[0], "result": stated[1]})


@pytest.mark.parametrize("text", ["Use 1/0 4 8 8 to get 36", "Use 8/0 0/0 1 4 to get 1"])
def test_an_instruction_with_an_impossible_number_is_not_read(text):
    assert HINDSIGHT.parse(text) is None and HINDSIGHT.retarget(puzzle(1, 4, 8, 8), text) is None


@given(hands, hands, st.integers(-50, 1000))
@example([1, 4, 8, 8], [8, 8, 4, 1], 36)
@example([1, 4, 8, 8], [1, 4, 8, 9], 36)
def test_an_instruction_is_adopted_where_it_names_the_numbers_of_the_task(mine, named, target):
    task = puzzle(*mine, id="a")
    text = instruction(named, target)
    retargeted = HINDSIGHT.retarget(task, text)
    if sorted(mine) == sorted(named):
        assert retargeted == dataclasses.replace(task, instruction=text, setup={"numbers": mine, "target": target})
        assert task.setup["target"] == 24
    else:
        assert retargeted is None
    assert HINDSIGHT.retarget(task, f"Use {spelled(mine)} to obtain {target}/7.") is None  # nobody asks for a fraction


# The judge


@settings(max_examples=60)
@given(hands, st.data())
def test_the_judge_gives_one_exactly_where_the_target_was_made(numbers, data):
    trajectory = walk(data, puzzle(*numbers))
    [end] = left(Observation(trajectory.steps[-1].observation))
    judge = envs.make_judge("game24")
    assert judge.score(trajectory) == float(end == 24)
    if end.denominator == 1:
        hit = dataclasses.replace(trajectory, task=puzzle(*numbers, target=int(end)))
        assert judge.score(hit) == 1
    for short in range(3):
        assert judge.score(dataclasses.replace(trajectory, steps=trajectory.steps[:short])) == 0


FORGED = {
    "claims": ("8 * 3 = 25", "25 - 1 = 24", "24 * 1 = 24"),
    "uses a number twice": ("8 * 3 = 24", "8 * 3 = 24", "24 + 24 = 48"),
    "leaves numbers over": ("8 * 3 = 24",),
    "takes numbers from nowhere": ("20 + 4 = 24", "24 * 1 = 24", "24 + 0 = 24"),
    "is no arithmetic": ("make 24", "done", "left: 24"),
}


@pytest.mark.parametrize("actions", FORGED.values(), ids=FORGED.keys())
def test_the_judge_believes_no_text(actions):
    forged = Trajectory(puzzle(8, 3, 5, 5), "left: 8 3 5 5", tuple(Step(a, "left: 24") for a in actions), done=True)
    assert Game24Judge().score(forged) == 0
    solved = ("8 * 3 = 24", "5 / 5 = 1", "24 * 1 = 24")
    told = Trajectory(puzzle(8, 3, 5, 5), "", tuple(Step(a, "all lost") for a in solved))
    assert Game24Judge().score(told) == 1


# The contract


def test_environments_are_made_by_name():
    assert isinstance(envs.make("game24"), Game24) and isinstance(envs.make_judge("game24"), Game24Judge)
    for make in (envs.make, envs.make_judge):
        with pytest.raises(ValueError, match="environment 'chess' is not known; there is game24"):
            make("chess")


OWN = ["1 2 3 4", "2 3 5 12", "2 3 4 6", "3 3 8 8", "1 5 5 5", "4 4 6 8", "4 3 2 1", "2 2 2 9", "6 6 6 6"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("row", ["{1},{0}", "{0};{1}", "{0}\t{1}", '"{0}",{1}', "{0}"])
def test_other_puzzles_can_be_given(tmp_path, row, encoding, capsys):
    lines = [
        row.format("Puzzles", "Rank"),
        *(row.format(puzzle, i) for i, puzzle in enumerate(OWN)),
        row.format("", ""),
    ]
    (tmp_path / "mine.csv").write_text("\n".join(lines), encoding=encoding)
    env = envs.make("game24", puzzles=tmp_path / "mine.csv")
    assert "1 of 9 puzzles repeat" in capsys.readouterr().err  # 4 3 2 1
    splits = {split: [task.setup["numbers"] for task in env.tasks(split)] for split in ("train", "dev", "test")}
    assert splits == {
        "train": [[1, 2, 3, 4], [2, 3, 5, 12], [2, 3, 4, 6], [4, 4, 6, 8], [2, 2, 2, 9], [6, 6, 6, 6]],
        "dev": [[3, 3, 8, 8]],
        "test": [[1, 5, 5, 5]],
    }  # the prompt solves 4 4 6 8
    assert len({task.id for split in splits for task in env.tasks(split)}) == 8
    judge = envs.make_judge("game24", puzzles=tmp_path / "mine.csv")
    [task] = env.tasks("test")
    assert judge.score(env.replay(task, ("1 / 5 = 1/5", "5 - 1/5 = 24/5", "24/5 * 5 = 24"))) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("Puzzles\n1 2 3 4\n1 2 3 4\n4 4 6 8\n", r"2 different puzzles and leaves dev, test without any; at least 5"),
        ("Rank,Numbers\n1,1 2 3 4\n", r"has the columns rank, numbers; expected .*\"Puzzles\""),
        ("", r"expected .*\"Puzzles\""),
        ("Puzzles,Rank\n1 2 3 4,1\n1 2 3,2\n", r"line 3: '1 2 3' is no puzzle; expected"),
        ("Puzzles,Rank\n1 2 3 x,1\n", r"line 2: '1 2 3 x' is no puzzle"),
        ("Rank,Puzzles\n7\n", r"line 2: '' is no puzzle"),
        ("Puzzles\n1 2 3 4 ½\n".encode("utf-16"), r"cannot read .*expected a CSV file in UTF-8"),
        (None, r"cannot read .*No such file.*expected a CSV"),
    ],
)
def test_a_list_of_puzzles_that_cannot_be_used_is_one_line_before_any_work(
    tmp_path, monkeypatch, capsys, content, said
):
    file = tmp_path / "mine.csv"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setenv("ARMAP_LITE_ENV_OPTIONS", json.dumps({"game24": {"puzzles": str(file)}}))
    assert main(["reproduce", "--env", "game24", "--out", str(tmp_path / "out")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and str(file) in line and re.search(said, line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", envs.ENVIRONMENTS)
def test_judge_and_environment_have_the_same_options(name):
    world, judge = (inspect.signature(made).parameters.values() for made in envs.lookup(name))
    named = {p.name for p in judge if p.kind is not p.VAR_KEYWORD}
    assert named == {p.name for p in world} or [p.kind for p in judge] == [inspect.Parameter.VAR_KEYWORD]
    for make in (envs.make, envs.make_judge, Run):
        with pytest.raises(ValueError, match=f"environment '{name}' has no option 'puzzels'; its options are .*"):
            make(name, **({"env_options": {"puzzels": 1}} if make is Run else {"puzzels": 1}))


@settings(max_examples=40)
@given(hands, st.lists(st.tuples(st.integers(0, 2), st.integers(0, 99)), max_size=12))
def test_worlds_side_by_side_in_one_environment_do_not_mix(numbers, moves):
    """Several searches in one simulator, stepping in any order, see what each would see alone."""
    env = Game24()
    tasks = [puzzle(*numbers), puzzle(*numbers[::-1], id="u"), puzzle(13, 13, 1, 2, id="v")]
    episodes = [Episode(env, task) for task in tasks]
    states = [episode.start() for episode in episodes]
    for which, pick in moves:
        if states[which].over:
            states[which] = episodes[which].start()  # back to the start: a known state
        action = states[which].admissible[pick % len(states[which].admissible)]
        states[which] = episodes[which].step(states[which], action)
    for task, state in zip(tasks, states):
        assert state.trajectory == Game24().replay(task, state.trajectory.actions)


def test_a_world_notices_that_someone_else_reset_its_environment():
    env = Game24()
    episode = Episode(env, puzzle(1, 4, 8, 8))
    state = episode.step(episode.start(), "8 * 4 = 32")
    env.reset(puzzle(2, 3, 5, 7))  # as collect.propose does, to look at a start
    assert episode.step(state, "32 + 8 = 40").trajectory == Game24().replay(episode.task, ["8 * 4 = 32", "32 + 8 = 40"])
