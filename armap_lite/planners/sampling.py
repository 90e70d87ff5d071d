"""The two baselines that use no reward: one draw from the policy, and its most probable actions."""

from armap_lite.planners.base import PlanResult, Sample, Search


async def sampling(search: Search, *, temperature: float = 1.0) -> PlanResult:
    """One trajectory, each action drawn from the policy."""
    return search.result([Sample(await search.rollout(temperature, 0))], 0)


async def greedy(search: Search) -> PlanResult:
    """One trajectory, each action the policy's most probable one."""
    return search.result([Sample(await search.rollout(0.0, 0))], 0)
