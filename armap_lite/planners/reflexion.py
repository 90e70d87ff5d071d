"""Reflexion (ARMAP-R): try, put into words what went wrong, try again with that lesson in the prompt."""

from __future__ import annotations

from armap_lite.planners.base import PlanResult, Sample, Search, best
from armap_lite.trajectory import transcript


async def reflexion(
    search: Search, *, trials: int = 10, threshold: float = 0.0, temperature: float = 1.0, memory: int = 3
) -> PlanResult:
    """Up to `trials` trials; stops early once the reward of one exceeds `threshold`.

    The answer is the trial that the reward model likes most. `memory`: how many of the latest lessons are shown.
    """
    samples: list[Sample] = []
    lessons: tuple[str, ...] = ()
    for trial in range(trials):
        trajectory = await search.rollout(temperature, trial, lessons=lessons[max(0, len(lessons) - memory) :])
        samples.append(Sample(trajectory, await search.reward(trajectory)))
        if samples[-1].reward > threshold:  # type: ignore[operator]
            break
        if trial + 1 < trials:
            # The sentence is begun for the LLM: asked an open question, a small one answers with an empty line.
            advice = await search.write(f"{transcript(trajectory)}This did not succeed. Next time,", trial, "lesson")
            lessons = (*lessons, f"Next time, {advice}")
    return search.result(samples, best(samples))
