"""Gathers the model calls of many concurrent searches into batches.

Coroutines await single requests. When all are blocked, pending requests are executed as batches. No timers are used,
so batch composition, and hence floating-point results, are deterministic.
"""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from armap_lite.llms.base import Choice, Completion, LanguageModel
from armap_lite.storage.store import JsonlStore
from armap_lite.trajectory import Trajectory

Item = TypeVar("Item")


class Batcher:
    """Gathers single requests into the batch-first calls of a language model and a reward model.

    Requests of one method with the same options form a batch. Where the model's cache does not hold all their prompts,
    those wait that began later. An error of a batch reaches each of its requests.
    """

    def __init__(self, lm: LanguageModel, reward: Any = None, max_concurrent_episodes: int = 1000):
        """Each of up to `max_concurrent_episodes` episodes runs within `async with batch.episode_slots`."""
        self.lm, self.reward = lm, reward
        self.episode_slots = asyncio.Semaphore(max_concurrent_episodes)
        self._pending: dict[tuple[str, str], list[tuple[int, tuple, asyncio.Future]]] = {}
        self._began: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # the place of each task that asked
        self._places = itertools.count()
        self._driver: asyncio.Task | None = None

    async def choose(
        self, prompt: str, choices: Sequence[str], n: int | None, temperature: float, seed: int, **options: Any
    ) -> list[Choice]:
        """`LanguageModel.choose` for one prompt, with its other `options`."""
        return await self._request("choose", (prompt, choices, seed), n=n, temperature=temperature, **options)

    async def generate(
        self, prompt: str, n: int, max_tokens: int, temperature: float, seed: int, **options: Any
    ) -> list[Completion]:
        """`LanguageModel.generate` for one prompt, with its other `options`."""
        options |= {"n": n, "max_tokens": max_tokens, "temperature": temperature}
        return await self._request("generate", (prompt, seed), **options)

    async def score(self, instruction: str, trajectory: Trajectory) -> float:
        """`RewardModel.score` of one trajectory."""
        return await self._request("score", (instruction, trajectory))

    def _request(self, method: str, arguments: tuple, **options: Any) -> asyncio.Future:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        request = self._began.setdefault(asyncio.current_task(), next(self._places)), arguments, future
        self._pending.setdefault((method, json.dumps(options)), []).append(request)
        if self._driver is None or self._driver.done():
            self._driver = loop.create_task(self._drive())
        return future

    async def _drive(self) -> None:
        while self._pending:
            count, unchanged = -1, 0
            while unchanged < 3:  # let every coroutine run until all are blocked
                await asyncio.sleep(0)
                now = sum(map(len, self._pending.values()))
                count, unchanged = now, unchanged + 1 if now == count else 0
            pending, self._pending = self._pending, {}
            for (method, options), requests in pending.items():
                try:
                    requests, later = self._fitting(method, requests)
                    if later:
                        self._pending[method, options] = later
                    columns = list(zip(*(arguments for _, arguments, _ in requests)))
                    answers = self._execute(method, columns, **json.loads(options))
                except Exception as error:
                    for *_, future in requests:
                        if not future.done():  # it may be cancelled
                            future.set_exception(error)
                    continue
                for (*_, future), answer in zip(requests, answers):
                    if not future.done():
                        future.set_result(answer)

    def _fitting(self, method: str, requests: list[Any]) -> tuple[list[Any], list[Any]]:
        """Those of `requests` that the model's cache holds together, of tasks that began first, and the others."""
        if method != "choose" or not hasattr(self.lm, "fits"):
            return requests, []
        requests.sort(key=lambda request: request[0])
        count = self.lm.fits([prompt for _, (prompt, *_), _ in requests])
        return requests[:count], requests[count:]

    def _execute(self, method: str, columns: list[tuple], **options: Any) -> Sequence[Any]:
        """The answers to requests whose arguments are the rows of `columns`."""
        if method == "score":
            return [float(reward) for reward in self.reward.score(*columns)]
        *arguments, seeds = columns
        return getattr(self.lm, method)(*arguments, seeds=seeds, **options)


async def run_groups(
    items: Sequence[Item],
    work: Callable[[Item], Awaitable[Iterable[dict[str, Any]]]],
    out: Path,
    ids: Callable[[Item], Iterable[str]],
    *,
    group: int,
    fresh: Callable[[], None] = lambda: None,
    progress: Callable[[int], Any] = lambda n: None,
) -> None:
    """Append the records that `work` makes of each item to the JSONL file `out`, running `group` items at a time.

    An item is done once records with all its `ids` are in `out`. After an interruption within a group, the whole group
    runs again, so that batches hold what they held before, and what was done stays as it is. `fresh` is called before
    each group, to clear caches on which the next group must not depend.
    """
    with JsonlStore(out) as store:

        def done(item: Item) -> bool:
            return store.ids.issuperset(ids(item))

        async def one(item: Item) -> None:
            records = await work(item)
            if not done(item):
                store.extend(records)
                progress(1)

        for chunk in chunks(items, group):
            progress(sum(map(done, chunk)))
            if not all(map(done, chunk)):
                fresh()
                await gather_or_cancel([one(item) for item in chunk])


async def gather_or_cancel(work: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Run all of `work` concurrently; if one fails, cancel the others before its error is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def chunks(items: Sequence[Item], size: int) -> Iterable[Sequence[Item]]:
    return (items[i : i + size] for i in range(0, len(items), size))
