"""Looking back at a visit to the shop: what was bought, and what one could have asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from armap_lite.envs.hindsight import Goal, Hindsight
from armap_lite.envs.prompts import example
from armap_lite.envs.webshop.engine import SEP, THANKS, Page, Product, Shop
from armap_lite.envs.webshop.instruction_parser import ANYTHING, InstructionParser, instruction, word_difference
from armap_lite.storage.store import caption
from armap_lite.trajectory import Task, Trajectory


def receipt(trajectory: Trajectory) -> list[str]:
    """The strings of the page after Buy Now: asin, title, price, options; empty where nothing was bought."""
    last = trajectory.steps[-1].observation.split(SEP) if trajectory.done and trajectory.steps else [""]
    return last[2:] if last[0] == THANKS else []


def price_paid(trajectory: Trajectory) -> float | None:
    """What the trajectory paid in dollars, as its last page says; None where it bought nothing."""
    told = receipt(trajectory)
    return float(told[2].removeprefix("$")) if told else None


LOOK_BACK_EXAMPLES = (
    example(
        "find me a green mug that is dishwasher safe, size 12 oz, for less than $20",
        "WebShop [SEP] Search",
        [
            ("search[dishwasher safe mug]", "Page 1 (Total results: 2) [SEP] B0A Mug, Dishwasher Safe $12.50"),
            (
                "click[b0a]",
                "Mug, Dishwasher Safe [SEP] Price: $12.50 [SEP] color: blue, green [SEP] size: 12 oz",
            ),
            ("click[blue]", "You have clicked blue."),
            ("click[12 oz]", "You have clicked 12 oz."),
            ("click[buy now]", "Thank you for shopping with us! [SEP] B0A [SEP] Mug, Dishwasher Safe [SEP] $12.50"),
        ],
        did="The agent bought a blue, dishwasher safe mug of 12 oz for $12.50.",
        fulfilled=False,
        instruction="find me a blue mug that is dishwasher safe, size 12 oz, for less than $20",
        change=[3, 4],
    ),
)


class WebShopHindsight(Hindsight):
    """A goal is `{"product": "mug", "details": "12 oz, blue", "price": "20"}`, without what is not asked for."""

    few_shot = (
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

    def __init__(self, shop: Shop, parser: InstructionParser):
        self._shop, self._parser = shop, parser

    def achieved(self, trajectory: Trajectory) -> Goal:
        told = self._bought(trajectory)
        return self._parser.achieved(*told) if told else {}

    def to_text(self, goal: Goal) -> str:
        return instruction(goal)

    def parse(self, instruction: str) -> Goal | None:
        return self._parser.parse(instruction)

    def satisfied(self, trajectory: Trajectory, goal: Goal) -> bool:
        told = self._bought(trajectory)
        return told is not None and self._parser.satisfied(goal, *told)

    def similar_actions(self, trajectory: Trajectory, action: str, others: Sequence[str]) -> list[str]:
        """The three products whose titles are most like that of the one clicked; of an option, its other values."""
        product = self._clicked(action)
        if product:
            apart = {a: word_difference(product.title, p.title) for a in others if (p := self._clicked(a))}
            return sorted(apart, key=apart.__getitem__)[:3]
        here = next(filter(None, map(self._clicked, reversed(trajectory.actions))), None)
        groups = ({f"click[{value}]" for value in values} for values in here.options.values()) if here else ()
        group = next((group for group in groups if action in group), set())
        return [a for a in others if a in group]

    def retarget(self, task: Task, instruction: str) -> Task | None:
        goal = self.parse(instruction)
        if goal is None or goal["product"] == ANYTHING or "details" not in goal:
            return None
        return dataclasses.replace(task, instruction=instruction, setup={})  # nobody knows what satisfies it

    def start_text(self, goal: Goal) -> str:
        return self._shop.text(Page())

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
