"""WebShop as an environment: an agent searches, looks, chooses and buys, and sees no score of what it bought."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from armap_lite.envs.base import Environment, Part, Term, length
from armap_lite.envs.webshop.engine import PRODUCTS_PER_PAGE, SEP, Page, Shop, load, step
from armap_lite.envs.webshop.goals import goals, split_of
from armap_lite.envs.webshop.hindsight import LOOK_BACK_EXAMPLES, WebShopHindsight, price_paid
from armap_lite.envs.webshop.instruction_parser import InstructionParser, option_phrase
from armap_lite.envs.webshop.page import page
from armap_lite.trajectory import Observation, Task, Trajectory

RESULTS = "(Total results: "  # ends the heading of a page of hits


def price(trajectory: Trajectory) -> float:
    """What was paid, in hundreds of dollars, up to 5; and 5 for nothing bought.

    Nothing that this package's shop sells costs as much. In another one, what is dearer counts no more than not buying:
    otherwise a large weight would rather not buy at all.
    """
    paid = price_paid(trajectory)
    return 5.0 if paid is None else min(paid / 100, 5.0)


class WebShop(Environment):
    """Actions read `search[words]` and `click[value]`.

    `Task.setup` = {"goal": 17, "needs_picture": False}: a number that says nothing here, and whether only a picture
    tells the right product (to report such tasks apart; nothing reads it to act).
    """

    name = "webshop"
    version = "rules-2"
    metric = "WebShop reward"
    max_steps = 15
    max_concurrent_episodes = 24  # pages are long: what so many read fits into a language model's pool of prefixes
    decoding = "token"  # product numbers are long, and a page of results has ten of them
    terms: Mapping[str, Term] = {
        "price paid, in 100 $": price,
        "actions": length,
        "price and 10 $ an action, in 100 $": lambda trajectory: price(trajectory) + length(trajectory) / 10,
    }
    guide = "Search the shop, open a product that fits the instruction, click its options and then buy it."
    look_back_examples = LOOK_BACK_EXAMPLES

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
    def _parser(self) -> InstructionParser:
        return InstructionParser(self._shop, [task.instruction for task in self.tasks("train")])

    def tasks(self, split: str) -> list[Task]:
        if split not in ("train", "dev", "test"):
            raise ValueError(f"split {split!r} is not known; use 'train', 'dev' or 'test'")
        return [task for task in self._tasks if task.split == split]

    @functools.cached_property
    def hindsight(self) -> WebShopHindsight:  # type: ignore[override]
        return WebShopHindsight(self._shop, self._parser)

    def fork(self) -> WebShop:
        self.hindsight  # noqa: B018 (loaded once, so that all forks share it)
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
            offered = [f"search[{words}]" for words in self._parser.queries(self._task.instruction)]
        else:
            chosen = {value for _, value in self._page.options}
            offered = [f"click[{value}]" for value in self._shop.links(self._page) if value not in chosen]
        done = frozenset() if self.allow_repeats else self._done
        return tuple(action for action in offered if (self._page, action) not in done) or tuple(offered)

    def _observe(self, note: str = "") -> Observation:
        done, picture = self._page.kind == "done", self._shop.picture(self._page)
        text = note + self._shop.text(self._page)
        # A page of hits is 400 tokens, and only lists what can be chosen: by the next step the agent has chosen.
        show = "while_current" if RESULTS in text.split("\n")[0] else "always"
        return Observation(text, self.admissible(), done, picture, show)

    def page(self, trajectory: Trajectory, admissible: Sequence[str]) -> list[Part]:
        return page(trajectory, admissible)

    def examples(self) -> list[tuple[Task, tuple[str, ...]]]:
        """The first two training tasks that plain reading does: a hit whose text has all that the instruction names."""
        read = ((task, self._read(task)) for task in self.tasks("train"))
        return list(itertools.islice(((task, actions) for task, actions in read if actions), 2))

    def _read(self, task: Task) -> tuple[str, ...]:
        """A search, the first hit that says it has all of `task`, its options, Buy Now; empty where none does."""
        asked, words = self._parser.parse(task.instruction) or {}, self._parser.queries(task.instruction)[0]
        for product in (self._shop.products[asin] for asin in self._shop.search(words)[:PRODUCTS_PER_PAGE]):
            missing = set(asked.get("details", "").split(", ")) - set(self._parser.extract(product.title)[1])
            pairs = [(name, value) for name, values in product.options.items() for value in values]
            clicks = {option_phrase(name, value): value for name, value in pairs}
            if missing and missing <= clicks.keys() and product.price <= float(asked.get("price", "inf")):
                chosen = (f"click[{clicks[words]}]" for words in sorted(missing))
                return (f"search[{words}]", f"click[{product.asin.lower()}]", *chosen, "click[buy now]")
        return ()
