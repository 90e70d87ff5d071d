"""Reflexion (ARMAP-R): try, write down what went wrong, try again with that lesson in the prompt."""

from armap_lite.planners.base import PlanResult, Sample, Search, best
from armap_lite.trajectory import transcript


async def reflexion(
    search: Search, *, trials: int = 10, threshold: float = 0.0, temperature: float = 1.0, memory: int = 3
) -> PlanResult:
    """Up to `trials` rollouts, until the reward of one exceeds `threshold`; the answer has the highest reward.

    `memory`: number of lessons in the prompt, the latest ones.
    """
    samples: list[Sample] = []
    lessons: tuple[str, ...] = ()
    for trial in range(trials):
        trajectory = await search.rollout(temperature, trial, lessons=lessons[max(0, len(lessons) - memory) :])
        samples.append(Sample(trajectory, await search.reward(trajectory)))
        if samples[-1].reward > threshold:  # type: ignore[operator]
            break
        if trial + 1 < trials:
            # The prompt begins the sentence: a small LLM answers an open question with an empty line.
            advice = await search.write(f"{transcript(trajectory)}This did not succeed. Next time,", trial, "lesson")
            lessons = (*lessons, f"Next time, {advice}")
    return search.result(samples, best(samples))
