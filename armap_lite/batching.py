"""Many coroutines, one batch: what they await together is computed together.

A search for one task is written as if it were alone. Here the language model and the reward model answer
whatever all running tasks have asked once none of them can go on without an answer. No clock is involved,
so the batches, and with them every last bit of the results, are the same on each run.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from armap_lite.llms.base import Choice, Completion, LanguageModel
from armap_lite.trajectory import Trajectory

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher:
    """Gathers single calls into the batch-first calls of a language model and a reward model."""

    def __init__(self, lm: LanguageModel, reward: Any = None, max_concurrent_episodes: int = 1000):
        """Each of up to `max_concurrent_episodes` episodes runs within `async with batch.episode_slots`."""
        self.lm = lm
        self.episode_slots = asyncio.Semaphore(max_concurrent_episodes)
        self.reward = reward
        self._waiting: dict[tuple, list[tuple[tuple, asyncio.Future]]] = {}
        self._driver: asyncio.Task | None = None

    async def choose(
        self,
        prompt: str,
        choices: Sequence[str],
        n: int | None,
        temperature: float,
        seed: int,
        decoding: str = "sequence",
    ) -> list[Choice]:
        return await self._ask(("choose", n, temperature, decoding), (prompt, choices, seed))

    async def generate(
        self,
        prompt: str,
        n: int,
        max_tokens: int,
        temperature: float,
        seed: int,
        stop: str = "\n",
        schema: Mapping[str, Any] | None = None,
    ) -> list[Completion]:
        return await self._ask(("generate", n, max_tokens, temperature, stop, json.dumps(schema)), (prompt, seed))

    async def score(self, instruction: str, trajectory: Trajectory) -> float:
        return await self._ask(("score",), (instruction, trajectory))

    def _ask(self, key: tuple, item: tuple) -> asyncio.Future:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.setdefault(key, []).append((item, future))
        if self._driver is None or self._driver.done():
            self._driver = loop.create_task(self._drive())
        return future

    async def _drive(self) -> None:
        while self._waiting:
            asked, quiet = -1, 0
            while quiet < 3:  # let every task run until all of them wait for an answer
                await asyncio.sleep(0)
                now = sum(map(len, self._waiting.values()))
                quiet, asked = (quiet + 1, asked) if now == asked else (0, now)
            waiting, self._waiting = self._waiting, {}
            for key, entries in waiting.items():
                try:
                    answers = self._answer(key, [item for item, _ in entries])
                except Exception as error:  # each of the askers hears of it
                    for _, future in entries:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for (_, future), answer in zip(entries, answers):
                    if not future.done():
                        future.set_result(answer)

    def _answer(self, key: tuple, items: list[tuple]) -> Sequence[Any]:
        kind, *options = key
        columns = list(zip(*items))
        if kind == "choose":
            n, temperature, decoding = options
            way = {} if decoding == "sequence" else {"decoding": decoding}
            return self.lm.choose(columns[0], columns[1], n, temperature=temperature, seeds=columns[2], **way)
        if kind == "generate":
            n, max_tokens, temperature, stop, schema = options
            size: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "stop": stop}
            shape = {"schema": json.loads(schema)} if schema != "null" else {}
            return self.lm.generate(columns[0], n, seeds=columns[1], **size, **shape)
        return [float(r) for r in self.reward.score(columns[0], columns[1])]


async def run_groups(
    items: Sequence[Item],
    work: Callable[[Item], Awaitable[Result]],
    finished: Callable[[Item, Result], None],
    done: Callable[[Item], bool],
    *,
    group: int = 32,
    fresh: Callable[[], None] = lambda: None,
    progress: Callable[[int], Any] = lambda n: None,
) -> None:
    """Run `work` on all items, `group` at a time; `finished(item, result)` is called as each one ends.

    A group is done over whole when a run was broken off within it, but only what is not `done` is handed on.
    Batches then hold what they held before, and the rest comes out as if nothing had happened.
    `fresh` is called before each group: it clears caches, so that no group depends on an earlier one.
    """

    async def one(item: Item) -> None:
        result = await work(item)
        if not done(item):
            finished(item, result)
            progress(1)

    for chunk in chunks(items, group):
        progress(sum(done(item) for item in chunk))
        if not all(done(item) for item in chunk):
            fresh()
            await gather_or_cancel([one(item) for item in chunk])


async def gather_or_cancel(work: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Run all of `work` side by side; where one fails the others are ended before its error goes on."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def chunks(items: Sequence[Item], size: int) -> Iterable[Sequence[Item]]:
    return (items[i : i + size] for i in range(0, len(items), size))
