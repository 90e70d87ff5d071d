"""Best-of-N (ARMAP-B): draw N trajectories, and answer with the one that has the highest reward."""

import asyncio

from armap_lite.planners.base import PlanResult, Sample, Search, best


async def best_of_n(search: Search, *, n: int = 10, temperature: float = 1.0) -> PlanResult:
    """`n` independent rollouts. A trajectory drawn twice counts twice as a sample, but is scored once."""

    async def one(k: int) -> Sample:
        trajectory = await search.rollout(temperature, k)
        return Sample(trajectory, await search.reward(trajectory))

    samples = list(await asyncio.gather(*(one(k) for k in range(n))))
    return search.result(samples, best(samples))
