"""Looking back at an episode in the shop: what was bought, and what one could have asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from armap_lite.envs.hindsight import Goal, Hindsight
from armap_lite.envs.webshop.engine import SEP, THANKS, Page, Product, Shop
from armap_lite.envs.webshop.instruction_parser import (
    ANYTHING,
    InstructionParser,
    Purchase,
    instruction,
    word_difference,
)
from armap_lite.envs.webshop.tables import WORDS
from armap_lite.storage.store import caption
from armap_lite.trajectory import Task, Trajectory


def receipt(trajectory: Trajectory) -> list[str]:
    """The strings of the page after Buy Now: asin, title, price, options; empty where nothing was bought."""
    last = trajectory.steps[-1].observation.split(SEP) if trajectory.done and trajectory.steps else [""]
    return last[2:] if last[0] == THANKS else []


def price_paid(trajectory: Trajectory) -> float | None:
    """What the trajectory paid in dollars, as its last page says; None where it bought nothing."""
    bought = receipt(trajectory)
    return float(bought[2].removeprefix("$")) if bought else None


class WebShopHindsight(Hindsight):
    """A goal is `{"product": "mug", "details": "12 oz, blue", "price": "20"}`, without what is not asked for."""

    few_shot = tuple((goal, text) for goal, text in WORDS["few_shot"])

    def __init__(self, shop: Shop, parser: InstructionParser):
        self._shop, self._parser = shop, parser

    def achieved(self, trajectory: Trajectory) -> Goal:
        purchase = self._purchase(trajectory)
        return self._parser.achieved(purchase) if purchase else {}

    def to_text(self, goal: Goal) -> str:
        return instruction(goal)

    def parse(self, instruction: str) -> Goal | None:
        return self._parser.parse(instruction)

    def satisfied(self, trajectory: Trajectory, goal: Goal) -> bool:
        purchase = self._purchase(trajectory)
        return purchase is not None and self._parser.satisfied(goal, purchase)

    def similar_actions(self, trajectory: Trajectory, action: str, others: Sequence[str]) -> list[str]:
        """The three products whose titles are most like that of the one clicked; of an option, its other values."""
        product = self._clicked(action)
        if product:
            distances = {a: word_difference(product.title, p.title) for a in others if (p := self._clicked(a))}
            return sorted(distances, key=distances.__getitem__)[:3]
        open_product = next(filter(None, map(self._clicked, reversed(trajectory.actions))), None)
        for values in open_product.options.values() if open_product else ():
            clicks = {f"click[{value}]" for value in values}
            if action in clicks:
                return [other for other in others if other in clicks]
        return []

    def retarget(self, task: Task, instruction: str) -> Task | None:
        goal = self.parse(instruction)
        if goal is None or goal["product"] == ANYTHING or "details" not in goal:
            return None
        return dataclasses.replace(task, instruction=instruction, setup={})  # nobody knows what satisfies it

    def start_text(self, goal: Goal) -> str:
        return self._shop.text(Page())

    def _clicked(self, action: str) -> Product | None:
        return self._shop.products.get(action.removeprefix("click[").removesuffix("]").upper())

    def _purchase(self, trajectory: Trajectory) -> Purchase | None:
        bought = receipt(trajectory)
        if not bought:
            return None
        asin, title, price, *options = bought
        pairs = [(name, value) for name, _, value in (option.partition(": ") for option in options)]
        pictured = self._shop.products[asin].images.keys() - {""}
        # Where options have pictures of their own, the picture says nothing of one that was not chosen.
        shows_choice = not pictured or pictured & {value for _, value in pairs}
        look = caption(trajectory.steps[-2].picture or "") if shows_choice else ""
        return Purchase(title, pairs, float(price[1:]), look)
