"""A reader's own world says for itself what transcripts show, what control weighs and how a person plays it."""

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import ipywidgets as ipw
import pytest
from tiny import ScriptedLM, ScriptedReward

from armap_lite import collect, envs, evaluate, planners
from armap_lite.agent import Agent
from armap_lite.display.play import PlaySession, play
from armap_lite.envs.base import Environment, Judge, Term, actions_like
from armap_lite.envs.page import Part
from armap_lite.episode import Episode
from armap_lite.pipeline.run import Run
from armap_lite.planners import Budget, PlanResult, Sample
from armap_lite.trajectory import Observation, Step, Task, Trajectory, transcript

SHELVES = {"upper": ("jam", "rice"), "lower": ("honey", "tea")}


class Pantry(Environment):
    """Look at shelves, take one thing. Terse but for the list of a shelf, which matters while one stands before it."""

    name, version, metric, max_steps = "pantry", "1", "right thing", 3
    guide = "Look at a shelf, then take one thing."
    terms: Mapping[str, Term] = {"jars": actions_like("jam|honey")}

    def tasks(self, split: str) -> list[Task]:
        things = {"train": ("jam", "tea"), "dev": ("rice",), "test": ("honey", "rice")}[split]
        return [Task(f"{split}-{thing}", self.name, split, f"Take the {thing}.", {"thing": thing}) for thing in things]

    def reset(self, task: Task) -> Observation:
        self.shelf, self.taken = "", ""
        return Observation("You are in the pantry.", self.admissible(), show="never")

    def step(self, action: str) -> Observation:
        if action in self.admissible():
            verb, what = action.split()
            self.shelf, self.taken = (what, "") if verb == "look" else (self.shelf, what)
        if self.taken:
            return Observation(f"You hold the {self.taken}.", done=True, show="never")
        listed = " ".join(SHELVES.get(self.shelf, ()))
        return Observation(f"{self.shelf} shelf: {listed}", self.admissible(), show="while_current")

    def admissible(self) -> tuple[str, ...]:
        if self.taken:
            return ()
        looks = [f"look {shelf}" for shelf in SHELVES if shelf != self.shelf]
        return (*looks, *(f"take {thing}" for thing in SHELVES.get(self.shelf, ())))


class Paged(Pantry):
    def page(self, trajectory: Trajectory, admissible: tuple[str, ...]) -> list[Part]:
        shelves = tuple((f"{shelf} shelf", f"look {shelf}") for shelf in SHELVES)
        last = trajectory.steps[-1].observation if trajectory.steps else trajectory.start
        return [Part("Look at:", shelves, "of <two>"), Part(last, strong=True), Part(entry=("Take", "take {}"))]


class Thing(Judge):
    def score(self, trajectory: Trajectory) -> float:
        end = Pantry().replay(trajectory.task, trajectory.actions)
        return float(end.actions[-1:] == (f"take {trajectory.task.setup['thing']}",))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setitem(envs.ENVIRONMENTS, "pantry", (Pantry, Thing))
    search: dict[str, dict[str, int]] = {"best_of_n": {"n": 12}, "mcts": {"rollouts": 12}}
    made = Run("pantry", "fast", tmp_path, collect_tasks=2, samples=4, num_proposals=2, planners=search)
    made.__dict__["lm"] = ScriptedLM(lambda prompt, choice: 1.0)
    return made


def test_a_transcript_keeps_what_each_observation_says_of_itself():
    env, task = Pantry(), Pantry().tasks("train")[0]
    seen = [transcript(env.replay(task, actions)) for actions in ([], ["look upper"], ["look upper", "look lower"])]
    assert seen[0] == "Take the jam.\n"
    assert seen[1] == "Take the jam.\nlook upper\nupper shelf: jam rice\n"
    assert seen[2] == "Take the jam.\nlook upper\nlook lower\nlower shelf: honey tea\n"
    whole = env.replay(task, ["look upper", "look lower", "take tea"])
    assert transcript(whole) == "Take the jam.\nlook upper\nlook lower\ntake tea\n"
    assert Trajectory.from_json(whole.to_json()) == whole  # a stage file says so, too
    loud = Trajectory(task, "start", (Step("look upper", "a list"), Step("take tea", "tea")))
    assert transcript(loud) == "Take the jam.\nstart\nlook upper\na list\ntake tea\ntea\n"  # where nothing is said
    with pytest.raises(ValueError, match="show='sometimes': expected one of always, while_current, never"):
        Observation("a list", show="sometimes")


def test_stage_1_prompts_with_it_and_proposes_no_instruction_without_hindsight(run: Run):
    counts = asyncio.run(run.collect())
    assert counts["instructions by plain"] == 8 and not counts["instructions by llm"] and counts["kept"] > 2
    prompts = [prompt for kind, asked, _ in run.lm.calls for prompt in asked]
    assert {kind for kind, _, _ in run.lm.calls} == {"choose"}
    assert not any("You are" in prompt or "You hold" in prompt for prompt in prompts)
    for prompt in prompts:
        *before, last = prompt.splitlines()
        assert not any("shelf:" in line for line in before) and ("shelf:" in last) == (
            "look" in prompt.split("Take")[1]
        )
    assert all(t.show == "never" for t in collect.load(run.path("trajectories.jsonl")))


def test_without_hindsight_stage_2_asks_the_llm_and_counts_one_that_says_nothing(run: Run):
    asyncio.run(run.collect())
    counts = asyncio.run(run.synthesize())
    assert counts["looked back at"] == counts["gave up"] == len(collect.load(run.path("trajectories.jsonl"))) > 0
    assert counts["pairs"] == 0 and run.path("pairs.jsonl").exists()


def test_control_weighs_the_terms_of_the_world(run: Run):
    tasks, reward = run.env.tasks("test"), ScriptedReward(lambda t: float("honey" in str(t.actions)))

    async def stages() -> list[dict]:
        search = run.settings.planners
        await planners.plan(run.env, Agent(run.lm, run.env), reward, tasks, run.path("plans.jsonl"), search, seed=0)
        return await run.control()

    lines = asyncio.run(stages())
    assert {line["term"] for line in lines} == {"jars"}
    heavy = max(line["weight"] for line in lines)
    for line in lines:
        if line["weight"] == 0:
            assert line["trajectory"]["steps"][-1]["action"] == "take honey" and line["cost"] == 1
    assert heavy > 1 and all(line["cost"] == 0 for line in lines if line["weight"] == heavy)


def test_a_page_of_a_readers_world_is_drawn_as_it_says():
    task, reward = Pantry().tasks("test")[0], ScriptedReward(lambda t: 0.0)
    game = PlaySession(Paged(), [task], reward, [])

    def every(box: ipw.Widget) -> list[ipw.Widget]:
        return [box, *(inner for child in getattr(box, "children", ()) for inner in every(child))]

    def buttons() -> dict[str, bool]:
        return {one.description: not one.disabled for one in every(game.page) if isinstance(one, ipw.Button)}

    def texts() -> list[str]:
        return [one.value for one in every(game.page) if isinstance(one, ipw.HTML)]

    def press(name: str) -> None:
        next(
            one for one in every(game.page) if getattr(one, "description", "") == name and hasattr(one, "click")
        ).click()

    assert buttons() == {"upper shelf": True, "lower shelf": True, "Take": True}
    assert texts()[1:] == ["Look at:", "of &lt;two&gt;", "<b>You are in the pantry.</b>"]
    press("upper shelf")
    assert buttons() == {"upper shelf": False, "lower shelf": True, "Take": True}  # nothing is listed twice
    [words] = [one for one in every(game.page) if isinstance(one, ipw.Combobox)]
    assert words.options == ("jam", "rice") and texts()[-1] == "<b>upper shelf: jam rice</b>"
    words.value = " rice "
    press("Take")
    assert game.path[-1].trajectory.actions == ("look upper", "take rice") and game.path[-1].over
    assert "of <two>" in play(Paged(), task, reward)._repr_mimebundle_()[0]["text/plain"]


def test_without_a_page_all_steps_stand_in_a_table():
    game = PlaySession(Pantry(), Pantry().tasks("test"), ScriptedReward(lambda t: 0.0), [])
    game.act("look upper")
    shown = "".join(child.value for child in game.page.children if isinstance(child, ipw.HTML))
    assert "You are in the pantry." in shown and "upper shelf: jam rice" in shown
    menu = [child.description for child in game.page.children[-1].children]
    assert menu == ["look lower", "take jam", "take rice"]


def test_a_task_may_be_of_a_family_and_have_a_step_limit_of_its_own():
    env = Pantry()
    task = dataclasses.replace(env.tasks("train")[0], family="sweet", max_steps=2)
    assert Task.from_json(task.to_json()) == task
    for one, limit in ((task, 2), (env.tasks("train")[0], env.max_steps)):
        episode = Episode(env, one)
        state = episode.start()
        while not state.over:
            state = episode.step(state, next(a for a in state.admissible if a.startswith("look")))
        assert len(state.trajectory.steps) == limit and not state.trajectory.done
    whole = env.replay(task, ["look upper", "take jam"])
    alone = dataclasses.replace(whole, task=dataclasses.replace(task, id="other", family=None))
    plans = [PlanResult(t.task.id, t.task.id, "sampling", (Sample(t, None),), 0, Budget()) for t in (whole, alone)]
    assert evaluate.families(plans[:1]) == {task.id: "sweet"}
    assert evaluate.families(plans) is evaluate.families(plans[1:]) is None  # of some, of none
