"""What every planner works with: the states of one task, a policy and a reward model, each use of them counted."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from armap_lite.agent import Agent, rollout
from armap_lite.batching import Batcher
from armap_lite.episode import Episode, State
from armap_lite.llms.base import Choice
from armap_lite.rng import derive_seed
from armap_lite.storage.records import Record
from armap_lite.trajectory import Trajectory

# The reward to maximise, from a trajectory and its learned reward (see `control.Objective`), or None: the learned one.
Objective = Callable[[Trajectory, float], float] | None


@dataclass(frozen=True)
class Sample(Record):
    """A finished trajectory that a planner looked at, and its reward (None: the reward model was not asked)."""

    trajectory: Trajectory
    reward: float | None = None


@dataclass(frozen=True)
class Budget(Record):
    """What a plan cost: tokens the LLM read and wrote, environment steps, trajectories the reward model scored.

    `llm_tokens` counts each distinct prompt once, `llm_tokens_without_reuse` each call in full.
    `steps_avoided`: further steps that a search would need that replays each of its states from the start.
    """

    JSON_NAMES: ClassVar[dict[str, str]] = {"steps_avoided": "steps_saved"}

    llm_tokens: int = 0
    env_steps: int = 0
    reward_calls: int = 0
    steps_avoided: int = 0
    llm_tokens_without_reuse: int = 0


@dataclass(frozen=True)
class PlanResult(Record):
    """The plan of one task. `samples` in the order they were found; `answer_index`: which of them is the answer."""

    JSON_NAMES: ClassVar[dict[str, str]] = {"answer_index": "chosen"}

    id: str  # "<planner>/<task id>"
    task_id: str
    planner: str
    samples: tuple[Sample, ...]
    answer_index: int
    budget: Budget
    tree: dict[str, Any] | None = None  # the search tree, for drawing (MCTS)

    @property
    def answer(self) -> Trajectory:
        return self.samples[self.answer_index].trajectory


class Search:
    """One planner on one task: act, reach states, ask for rewards. Every use is counted.

    LLM tokens are those of each distinct prompt and its choices, as if there were no cache. A prompt asked again costs
    nothing if `lm.has_prefix_cache`, and its full price otherwise (a server). A trajectory is scored once.
    """

    def __init__(
        self, planner: str, episode: Episode, agent: Agent, batch: Batcher, seed: int, objective: Objective = None
    ):
        self.planner, self.episode, self.agent, self.batch = planner, episode, agent, batch
        self.seed = derive_seed(seed, planner, episode.task.id)
        self.objective = objective
        self.tokens = self.tokens_without_reuse = 0
        self._prompts: set[tuple] = set()
        self._rewards: dict[tuple[str, ...], asyncio.Future[float]] = {}
        self._rollouts: list[Episode] = []

    @property
    def steps(self) -> int:
        """Environment steps carried out so far."""
        return self.episode.steps + sum(episode.steps for episode in self._rollouts)

    async def act(
        self, state: State, temperature: float, *keys: object, n: int | None = 1, lessons: tuple[str, ...] = ()
    ) -> list[Choice]:
        """`n` actions drawn by the policy in `state`; with n=None every admissible one with its log-probability."""
        choices = await self.agent.act(self.batch, state, temperature, derive_seed(self.seed, *keys), n, lessons)
        self._count((state.trajectory.actions, lessons), choices[0].tokens)
        return choices

    async def rollout(self, temperature: float, *keys: object, lessons: tuple[str, ...] = ()) -> Trajectory:
        """One trajectory of the policy from the start, in a simulator of its own."""
        self._rollouts.append(Episode(self.episode.env.fork(), self.episode.task))

        async def policy(state: State) -> str:
            [choice] = await self.act(state, temperature, *keys, len(state.trajectory.steps), lessons=lessons)
            return choice.text

        return await rollout(self._rollouts[-1], self.batch, policy)

    async def write(self, prompt: str, *keys: object) -> str:
        """One line of free text by the policy's LLM, of at most 32 tokens."""
        [text] = await self.batch.generate(prompt, 1, 32, 0.7, derive_seed(self.seed, *keys))
        self._count((prompt, keys), text.tokens)
        return text.text.strip()

    async def reward(self, trajectory: Trajectory) -> float:
        """The reward of a finished trajectory, by the reward model and the objective, if there is one."""
        if trajectory.actions not in self._rewards:
            asked = self.batch.score(self.episode.task.instruction, trajectory)
            self._rewards[trajectory.actions] = asyncio.ensure_future(asked)
        learned = await self._rewards[trajectory.actions]
        return self.objective(trajectory, learned) if self.objective else learned

    def result(self, samples: list[Sample], answer_index: int, tree: dict[str, Any] | None = None) -> PlanResult:
        name, task_id = self.planner, self.episode.task.id
        calls, avoided = len(self._rewards), self.episode.steps_avoided
        budget = Budget(self.tokens, self.steps, calls, avoided, self.tokens_without_reuse)
        return PlanResult(f"{name}/{task_id}", task_id, name, tuple(samples), answer_index, budget, tree)

    def _count(self, key: tuple, tokens: int) -> None:
        self.tokens_without_reuse += tokens
        if key not in self._prompts or not self.batch.lm.has_prefix_cache:
            self._prompts.add(key)
            self.tokens += tokens


def best(samples: list[Sample]) -> int:
    """Index of the sample with the highest reward; the first of equals."""
    return max(range(len(samples)), key=lambda i: (samples[i].reward, -i))
