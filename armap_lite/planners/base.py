"""What every planner works with: one task's states, a policy and a reward, each use of them counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from armap_lite.agent import Agent
from armap_lite.batching import Batcher
from armap_lite.episode import Episode, State
from armap_lite.llms.base import Choice
from armap_lite.rng import derive_seed
from armap_lite.trajectory import Record, Trajectory


@dataclass(frozen=True)
class Sample(Record):
    """One finished trajectory a planner looked at, with what the reward model says of it (None: not asked)."""

    trajectory: Trajectory
    reward: float | None = None

    @classmethod
    def _nested(cls) -> dict[str, Callable[[Any], Any]]:
        return {"trajectory": Trajectory.from_json}


@dataclass(frozen=True)
class Budget(Record):
    """What a plan cost: tokens the LLM read and wrote, environment steps, trajectories the reward model scored.

    `steps_avoided`: further steps that it would have cost a search to reach each of its states from the start.
    """

    JSON_NAMES: ClassVar[dict[str, str]] = {"steps_avoided": "steps_saved"}

    llm_tokens: int = 0
    env_steps: int = 0
    reward_calls: int = 0
    steps_avoided: int = 0


@dataclass(frozen=True)
class PlanResult(Record):
    """One task, planned. `samples` in the order they were found; `answer_index` is the place of its answer."""

    JSON_NAMES: ClassVar[dict[str, str]] = {"answer_index": "chosen"}

    id: str  # "<planner>/<task id>"
    task_id: str
    planner: str
    samples: tuple[Sample, ...]
    answer_index: int
    budget: Budget
    tree: dict[str, Any] | None = None  # the search tree, for drawing (MCTS)

    @classmethod
    def _nested(cls) -> dict[str, Callable[[Any], Any]]:
        return {"samples": lambda samples: tuple(Sample.from_json(s) for s in samples), "budget": Budget.from_json}

    @property
    def answer(self) -> Trajectory:
        return self.samples[self.answer_index].trajectory


class Search:
    """One planner on one task: act, reach states, ask for rewards; every use is counted, no answer is computed twice.

    LLM tokens are those of each distinct prompt and its choices, as if no cache were there; a prompt that is asked
    again costs nothing where `lm.has_prefix_cache`, and its full price elsewhere (a server).
    """

    def __init__(
        self,
        planner: str,
        episode: Episode,
        agent: Agent,
        batch: Batcher,
        seed: int,
        objective: Callable[[Trajectory, float], float] | None = None,
    ):
        self.planner = planner
        self.episode = episode
        self.agent = agent
        self.batch = batch
        self.seed = derive_seed(seed, planner, episode.task.id)
        self.objective = objective
        self.tokens = 0
        self._prompts: set[tuple] = set()
        self._rewards: dict[tuple[str, ...], asyncio.Future[float]] = {}
        self._rollouts: list[Episode] = []

    @property
    def steps(self) -> int:
        return self.episode.steps + sum(episode.steps for episode in self._rollouts)

    async def act(
        self, state: State, temperature: float, *keys: object, n: int | None = 1, lessons: tuple[str, ...] = ()
    ) -> list[Choice]:
        """`n` actions drawn by the policy in `state`; with n=None every admissible one with its log-probability."""
        prompt = self.agent.prompt(state.trajectory, lessons)
        seed, decoding = derive_seed(self.seed, *keys), self.episode.env.decoding
        choices = await self.batch.choose(prompt, state.admissible, n, temperature, seed, decoding)
        self._count((prompt,), choices[0].tokens)
        return choices

    async def rollout(self, temperature: float, *keys: object, lessons: tuple[str, ...] = ()) -> Trajectory:
        """One trajectory of the policy from the start, in a simulator of its own."""
        episode = Episode(self.episode.env.fork(), self.episode.task)
        self._rollouts.append(episode)
        async with self.batch.episode_slots:
            state = episode.start()
            while not state.over:
                [choice] = await self.act(state, temperature, *keys, len(state.trajectory.steps), lessons=lessons)
                state = episode.step(state, choice.text)
            episode.release()
        return state.trajectory

    async def write(self, prompt: str, *keys: object, max_tokens: int = 32, temperature: float = 0.7) -> str:
        """One line of free text by the policy's LLM."""
        [text] = await self.batch.generate(prompt, 1, max_tokens, temperature, derive_seed(self.seed, *keys))
        self._count((prompt, keys), text.tokens)
        return text.text.strip()

    async def reward(self, trajectory: Trajectory) -> float:
        """What the reward model (and the objective, where there is one) says of a finished trajectory."""
        if trajectory.actions not in self._rewards:
            asked = self.batch.score(self.episode.task.instruction, trajectory)
            self._rewards[trajectory.actions] = asyncio.ensure_future(asked)
        learned = await self._rewards[trajectory.actions]
        return self.objective(trajectory, learned) if self.objective else learned

    def result(self, samples: list[Sample], answer_index: int, tree: dict[str, Any] | None = None) -> PlanResult:
        task = self.episode.task.id
        budget = Budget(self.tokens, self.steps, len(self._rewards), self.episode.steps_avoided)
        return PlanResult(f"{self.planner}/{task}", task, self.planner, tuple(samples), answer_index, budget, tree)

    def _count(self, key: tuple, tokens: int) -> None:
        if key not in self._prompts or not self.batch.lm.has_prefix_cache:
            self._prompts.add(key)
            self.tokens += tokens


def best(samples: list[Sample]) -> int:
    """Index of the sample the reward likes most; the first of equals."""
    return max(range(len(samples)), key=lambda i: (samples[i].reward, -i))
