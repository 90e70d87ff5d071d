"""WebShop as an environment: an agent searches, looks, chooses and buys, and sees no score of what it bought."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

from armap_lite.envs.base import Environment
from armap_lite.envs.webshop.engine import SEP, THANKS, WINDOW, Page, Product, Shop, load, step
from armap_lite.envs.webshop.goals import goals, split_of
from armap_lite.envs.webshop.wishes import ANYTHING, Wishes, instruction, option_words, unlike
from armap_lite.store import caption
from armap_lite.trajectory import Observation, Task, Trajectory


def receipt(trajectory: Trajectory) -> list[str]:
    """The strings of the page after Buy Now: asin, title, price, options; empty where nothing was bought."""
    last = trajectory.steps[-1].observation.split(SEP) if trajectory.done and trajectory.steps else [""]
    return last[2:] if last[0] == THANKS else []


def price_paid(trajectory: Trajectory) -> float | None:
    """What the trajectory paid in dollars, as its last page says; None where it bought nothing."""
    told = receipt(trajectory)
    return float(told[2].removeprefix("$")) if told else None


class WebShop(Environment):
    """Actions read `search[words]` and `click[value]`.

    `Task.setup` = {"goal": 17, "needs_picture": False}: a number that says nothing here, and whether only a picture
    tells the right product (to report such tasks apart; nothing reads it to act).
    """

    name = "webshop"
    version = "rules-2"
    metric = "WebShop reward"
    max_steps = 15
    parallel = 24  # pages are long: what so many episodes read fits into a language model's pool of prefixes
    choose_by = "token"  # product numbers are long, and a page of results has ten of them
    guide = "Search the shop, open a product that fits the instruction, click its options and then buy it."
    phrasings = (
        (
            {"product": "t-shirt", "details": "black, cotton, medium", "price": "40"},
            "i am looking for a medium cotton t-shirt in black, and price lower than 40.00 dollars",
        ),
        (
            {"product": "table lamp", "details": "pull chain, striped", "price": "60"},
            "i need a striped table lamp with a pull chain, under 60 dollars",
        ),
        (
            {"product": "mug", "details": "12 oz, blue, dishwasher safe", "price": "20"},
            "find me a blue mug that is dishwasher safe, size 12 oz, for less than $20",
        ),
        (
            {"product": "backpack", "details": "bottle pocket, lightweight", "price": "90"},
            "i want to buy a lightweight backpack with a bottle pocket, and price lower than 90.00 dollars",
        ),
    )

    def __init__(self, folder: Path | str | None = None, goals: str | None = None):
        """`folder`: WebShop's own files (see `engine.Shop`); by default the catalogue that this package makes.

        `goals`: "human" or "synthetic" instructions; by default human ones where the folder has them.
        """
        self._folder, self._kind = folder, goals
        self._page, self._task = Page(), Task("", self.name, "train", "")
        self._done: frozenset[tuple[Page, str]] = frozenset()  # what was done in this episode, and on which page

    @functools.cached_property
    def _shop(self) -> Shop:
        return load(self._folder)

    @functools.cached_property
    def _tasks(self) -> list[Task]:
        wanted = [(g["instruction_text"], g["needs_picture"]) for g in goals(self._shop, self._kind)]  # and no more
        return [
            Task(f"{self.name}-{i}", self.name, split_of(i, len(wanted)), text, {"goal": i, "needs_picture": looks})
            for i, (text, looks) in enumerate(wanted)
        ]

    @functools.cached_property
    def _wishes(self) -> Wishes:
        return Wishes(self._shop, [task.instruction for task in self.tasks("train")])

    def tasks(self, split: str) -> list[Task]:
        if split not in ("train", "dev", "test"):
            raise ValueError(f"split {split!r} is not known; use 'train', 'dev' or 'test'")
        return [task for task in self._tasks if task.split == split]

    def fork(self) -> WebShop:
        self._wishes  # noqa: B018 (loaded once, so that all forks share it)
        return copy.copy(self)

    def reset(self, task: Task) -> Observation:
        self.at = None
        self._page, self._task, self._done = Page(), task, frozenset()
        return self._observe()

    def step(self, action: str) -> Observation:
        page = step(self._shop, self._page, action)
        if page is None:
            return self._observe(f"Nothing happens: {action[:80]!r} is not possible here.{SEP}")
        self._done |= {(self._page, action)}
        self._page = page
        return self._observe()

    def admissible(self) -> tuple[str, ...]:
        """Searches and clicks worth a step here; whatever else a page offers may be given to `step` as well.

        Not listed: the option that is chosen, and what was done before in this episode on this very page (it leads
        where it led then, and a small policy goes in circles otherwise), as long as anything else is left.
        """
        if self._page.kind == "search":
            offered = [f"search[{words}]" for words in self._wishes.queries(self._task.instruction)]
        else:
            chosen = {value for _, value in self._page.options}
            offered = [f"click[{value}]" for value in self._shop.links(self._page) if value not in chosen]
        done = frozenset() if self.freely else self._done
        return tuple(action for action in offered if (self._page, action) not in done) or tuple(offered)

    def _observe(self, note: str = "") -> Observation:
        done, picture = self._page.kind == "done", self._shop.picture(self._page)
        return Observation(note + self._shop.text(self._page), self.admissible(), done, picture)

    def examples(self) -> list[tuple[Task, tuple[str, ...]]]:
        """The first two training tasks that plain reading does: a hit whose text has all that the instruction names."""
        read = ((task, self._read(task)) for task in self.tasks("train"))
        return list(itertools.islice(((task, actions) for task, actions in read if actions), 2))

    def _read(self, task: Task) -> tuple[str, ...]:
        """A search, the first hit that says it has all of `task`, its options, Buy Now; empty where none does."""
        asked, words = self._wishes.states(task.instruction) or {}, self._wishes.queries(task.instruction)[0]
        for product in (self._shop.products[asin] for asin in self._shop.search(words)[:WINDOW]):
            missing = set(asked.get("details", "").split(", ")) - set(self._wishes.named(product.title)[1])
            pairs = [(name, value) for name, values in product.options.items() for value in values]
            clicks = {option_words(name, value): value for name, value in pairs}
            if missing and missing <= clicks.keys() and product.price <= float(asked.get("price", "inf")):
                chosen = (f"click[{clicks[words]}]" for words in sorted(missing))
                return (f"search[{words}]", f"click[{product.asin.lower()}]", *chosen, "click[buy now]")
        return ()

    def adopt(self, task: Task, instruction: str) -> Task | None:
        facts = self.states(instruction)
        if facts is None or facts["product"] == ANYTHING or "details" not in facts:
            return None
        return dataclasses.replace(task, instruction=instruction, setup={})  # nobody knows what fulfils it

    # What a data writer may know of a trajectory: read from what it showed, not from any score.

    def facts(self, trajectory: Trajectory) -> dict[str, str]:
        told = self._bought(trajectory)
        return self._wishes.facts(*told) if told else {}

    def fulfils(self, trajectory: Trajectory, asked: dict[str, str]) -> bool:
        told = self._bought(trajectory)
        return told is not None and self._wishes.fulfilled(asked, *told)

    def alike(self, trajectory: Trajectory, action: str, others: Sequence[str]) -> list[str]:
        """The three products whose titles are most like that of the one clicked; of an option, its other values."""
        product = self._clicked(action)
        if product:
            apart = {a: unlike(product.title, p.title) for a in others if (p := self._clicked(a))}
            return sorted(apart, key=apart.__getitem__)[:3]
        here = next(filter(None, map(self._clicked, reversed(trajectory.actions))), None)
        groups = ({f"click[{value}]" for value in values} for values in here.options.values()) if here else ()
        group = next((group for group in groups if action in group), set())
        return [a for a in others if a in group]

    def _clicked(self, action: str) -> Product | None:
        return self._shop.products.get(action.removeprefix("click[").removesuffix("]").upper())

    def _bought(self, trajectory: Trajectory) -> tuple[str, list[tuple[str, str]], float, str] | None:
        """Title, options, price and look of what was bought."""
        told = receipt(trajectory)
        if not told:
            return None
        asin, title, price, *options = told
        pairs = [(name, value) for name, _, value in (option.partition(": ") for option in options)]
        shown = self._shop.products[asin].images.keys() - {""}  # what has a picture of its own shows nothing unchosen
        look = caption(trajectory.steps[-2].picture or "") if not shown or shown & {v for _, v in pairs} else ""
        return title, pairs, float(price[1:]), look

    def start_text(self, facts: dict[str, str]) -> str:
        return self._shop.text(Page())

    def plain_instruction(self, facts: dict[str, str]) -> str:
        return instruction(facts)

    def states(self, instruction: str) -> dict[str, str] | None:
        return self._wishes.states(instruction)
