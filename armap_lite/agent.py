"""A language model as a policy: from state to prompt to action, and the rollout. The only file with prompts for acting.

A prompt holds solved examples, then the task and what was done so far. It grows by whole lines only, so that a
language model with a prefix cache reads each line once.
"""

from collections.abc import Awaitable, Callable, Sequence

from armap_lite.batching import Batcher
from armap_lite.envs.base import Environment
from armap_lite.episode import Episode, State
from armap_lite.llms.base import Choice, LanguageModel
from armap_lite.rng import derive_seed
from armap_lite.trajectory import Trajectory, transcript

Policy = Callable[[State], Awaitable[str]]  # returns one admissible action


class Agent:
    """A language model, and a prompt that shows `examples` worked examples of `env` (all by default)."""

    def __init__(self, lm: LanguageModel, env: Environment, examples: int | None = None):
        self.lm = lm
        self.decoding = env.decoding
        shown = [env.replay(task, actions) for task, actions in env.examples()[:examples]]
        env.release()
        self.head = env.guide + "\n\n" + "".join(f"{transcript(t)}\n" for t in shown)

    def prompt(self, trajectory: Trajectory, lessons: Sequence[str] = ()) -> str:
        """The text after which the next action is chosen; `lessons` of earlier trials (Reflexion) precede the task."""
        notes = "".join(f"Lesson: {lesson}\n" for lesson in lessons)
        return f"{self.head}{notes}{transcript(trajectory)}"

    async def act(
        self, batch: Batcher, state: State, temperature: float, seed: int, n: int | None, lessons: Sequence[str] = ()
    ) -> list[Choice]:
        """`n` actions drawn in `state`; with n=None every admissible one with its log-probability."""
        prompt = self.prompt(state.trajectory, lessons)
        return await batch.choose(prompt, state.admissible, n, temperature, seed, decoding=self.decoding)

    def policy(self, batch: Batcher, temperature: float, seed: int) -> Policy:
        """Draws one action in each state, with a seed derived for each step."""

        async def act(state: State) -> str:
            [choice] = await self.act(batch, state, temperature, derive_seed(seed, len(state.trajectory.steps)), 1)
            return choice.text

        return act


async def rollout(episode: Episode, batch: Batcher, policy: Policy) -> Trajectory:
    """One trajectory of `policy` from the start of `episode` to its end, within one of the slots of `batch`."""
    async with batch.episode_slots:
        state = episode.start()
        while not state.over:
            state = episode.step(state, await policy(state))
        episode.release()
    return state.trajectory
