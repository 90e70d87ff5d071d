"""WebShop as an environment: an agent searches, looks, chooses and buys, and sees no score of what it bought."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from armap_lite.envs.base import Environment, Term, length
from armap_lite.envs.page import Part
from armap_lite.envs.prompts import example
from armap_lite.envs.webshop.engine import PRODUCTS_PER_PAGE, SEP, WORDS, Page, Shop, load
from armap_lite.envs.webshop.goals import goals, split_of
from armap_lite.envs.webshop.hindsight import WebShopHindsight, option_phrase, price_paid
from armap_lite.trajectory import Observation, Task, Trajectory


def price(trajectory: Trajectory) -> float:
    """The price paid in hundreds of dollars, at most 5, and 5 if nothing was bought.

    Nothing in the made catalogue costs as much. A dearer product of another one must not cost more than not buying:
    otherwise a large weight would prefer to buy nothing.
    """
    paid = price_paid(trajectory)
    return 5.0 if paid is None else min(paid / 100, 5.0)


class WebShop(Environment):
    """Actions are `search[words]` and `click[value]`.

    `Task.setup` = {"goal": 17, "needs_picture": False}: the goal's index, which only the judge can look up, and whether
    only a picture identifies the right product (for reports; nothing reads it to act).
    """

    name = "webshop"
    version = "rules-2"
    metric = "WebShop reward"
    max_steps = 15
    max_concurrent_episodes = 24  # pages are long; the texts of so many fit into a language model's prefix cache
    decoding = "token"  # product numbers are long, and a page of results has ten of them
    terms: Mapping[str, Term] = {
        "price paid, in 100 $": price,
        "actions": length,
        "price and 10 $ an action, in 100 $": lambda trajectory: price(trajectory) + length(trajectory) / 10,
    }
    guide = "Search the shop, open a product that fits the instruction, click its options and then buy it."
    look_back_examples = tuple(example(**fields) for fields in WORDS["look_back_examples"])

    def __init__(self, folder: Path | str | None = None, goals: str | None = None):
        """`folder`: WebShop's own files (see `engine.Shop`); by default the catalogue that this package makes.

        `goals`: "human" or "synthetic" instructions; by default human ones where the folder has them.
        """
        self._folder, self._kind = folder, goals
        self._page, self._task = Page(), Task("", self.name, "train", "")
        self._taken: frozenset[tuple[Page, str]] = frozenset()  # actions of this episode, and on which page

    @functools.cached_property
    def _shop(self) -> Shop:
        return load(self._folder)

    @functools.cached_property
    def _tasks(self) -> list[Task]:
        wanted = goals(self._shop, self._kind)
        texts = [(goal["instruction_text"], goal["needs_picture"]) for goal in wanted]  # no label
        return [
            Task(f"{self.name}-{i}", self.name, split_of(i, len(texts)), text, {"goal": i, "needs_picture": picture})
            for i, (text, picture) in enumerate(texts)
        ]

    def tasks(self, split: str) -> list[Task]:
        if split not in ("train", "dev", "test"):
            raise ValueError(f"split {split!r} is not known; use 'train', 'dev' or 'test'")
        return [task for task in self._tasks if task.split == split]

    @functools.cached_property
    def hindsight(self) -> WebShopHindsight:  # type: ignore[override]
        return WebShopHindsight(self._shop, [task.instruction for task in self.tasks("train")])

    def fork(self) -> WebShop:
        self.hindsight  # noqa: B018 (loaded once, so that all forks share it)
        return copy.copy(self)

    def reset(self, task: Task) -> Observation:
        self.at = None
        self._page, self._task, self._taken = Page(), task, frozenset()
        return self._observe()

    def step(self, action: str) -> Observation:
        page = self._shop.step(self._page, action)
        if page is None:
            return self._observe(f"Nothing happens: {action[:80]!r} is not possible here.{SEP}")
        self._taken |= {(self._page, action)}
        self._page = page
        return self._observe()

    def admissible(self) -> tuple[str, ...]:
        """Searches made from the instruction, and the links of the page; `step` accepts any other search.

        Hidden as long as anything else is left: the option that is chosen, and actions already taken in this episode
        on this very page (they lead where they led then, and a small policy goes in circles otherwise).
        """
        if self._page.kind == "search":
            offered = [f"search[{words}]" for words in self.hindsight.queries(self._task.instruction)]
        else:
            chosen = {value for _, value in self._page.options}
            offered = [f"click[{value}]" for value in self._shop.links(self._page) if value not in chosen]
        taken = frozenset() if self.allow_repeats else self._taken
        return tuple(action for action in offered if (self._page, action) not in taken) or tuple(offered)

    def _observe(self, note: str = "") -> Observation:
        kind, text, picture = self._page.kind, note + self._shop.text(self._page), self._shop.picture(self._page)
        # A page of results is 400 tokens, and only lists what can be chosen: by the next step the agent has chosen.
        show = "while_current" if kind == "results" else "always"
        return Observation(text, self.admissible(), kind == "done", picture, show)

    def page(self, trajectory: Trajectory, admissible: Sequence[str]) -> list[Part]:
        """The page that `trajectory` came to, whole and with a check mark at chosen options; other links come last."""
        here = self._shop.page_after(trajectory.actions)
        lines = self._shop.lines(here._replace(clicked=""))
        if here.clicked:  # the observation only shows what is left to choose; a person also wants to see of what
            lines.insert(0, self._shop.lines(here)[0])
        chosen = {value for _, value in here.options}
        parts = []
        for line in lines:
            buttons = tuple(("✓ " * (link in chosen) + link, f"click[{link.lower()}]") for link in line.links)
            parts.append(Part(line.option, buttons, line.text, strong=line.text.startswith(("$", "Price:"))))
        offered = {action for part in parts for _, action in part.actions}
        clicks = (action for action in admissible if action.startswith("click[") and action not in offered)
        if left := tuple((action[len("click[") : -1], action) for action in clicks):
            parts.append(Part(actions=left))
        return [*parts, Part(entry=("Search", "search[{}]"))] if here.kind == "search" else parts

    def examples(self) -> list[tuple[Task, tuple[str, ...]]]:
        """The first two training tasks for which a search result says that it has all that the instruction names."""
        solved = ((task, self._solve(task)) for task in self.tasks("train"))
        return list(itertools.islice(((task, actions) for task, actions in solved if actions), 2))

    def _solve(self, task: Task) -> tuple[str, ...]:
        """A search, the first product that says it has all of `task`, its options, Buy Now; empty where none does."""
        goal, words = self.hindsight.parse(task.instruction) or {}, self.hindsight.queries(task.instruction)[0]
        for product in (self._shop.products[asin] for asin in self._shop.search(words)[:PRODUCTS_PER_PAGE]):
            missing = set(goal.get("details", "").split(", ")) - set(self.hindsight.extract(product.title)[1])
            options = ((name, value) for name, values in product.options.items() for value in values)
            clicks = {option_phrase(name, value): value for name, value in options}
            if missing and missing <= clicks.keys() and product.price <= float(goal.get("price", "inf")):
                chosen = (f"click[{clicks[detail]}]" for detail in sorted(missing))
                return (f"search[{words}]", f"click[{product.asin.lower()}]", *chosen, "click[buy now]")
        return ()
