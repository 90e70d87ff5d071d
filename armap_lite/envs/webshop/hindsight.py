"""Looking back at an episode in the shop: what was bought, what one could have asked for, and what a text asks for.

All vocabulary is learnt from what any visitor may see: titles, options and product kinds of the shop, and the
instructions of training tasks. Words are compared by their stems.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import NamedTuple

from armap_lite.envs.hindsight import Goal, Hindsight
from armap_lite.envs.webshop.engine import SEP, THANKS, WORDS, Page, Product, Shop, stemmer
from armap_lite.rng import derive_seed
from armap_lite.storage.store import caption
from armap_lite.trajectory import Task, Trajectory

WORD = re.compile(r"[a-z0-9]+(?:['’.#+&-][a-z0-9]+)*")
AMOUNT = re.compile(r"\$ ?(\d+(?:\.\d+)?)|\b(\d+(?:\.\d+)?) ?(?:dollars?|usd|bucks)\b")
CAP = re.compile(r"\b(?:no|not|nothing|do not spend|don['’]t spend) (?:more than|over|above)\b")
FLOOR = re.compile(r"\b(?:more than|over|above|at least) \$? ?\d")
NEGATION = re.compile(r"\b(?:not|never|no|without|except|instead|avoid)\b|n['’]t\b")
ANYTHING = "item"  # the product where its title names no kind of product that the shop knows
MAX_WORDS, MAX_NAMED = 3, 3  # words in a phrase of instructions; phrases of a title that one instruction names

Key = tuple[str, ...]  # the stems of a phrase


class Purchase(NamedTuple):
    """What the receipt says, and what the picture shows, in words."""

    title: str
    options: Sequence[tuple[str, str]]
    price: float
    look: str


def receipt(trajectory: Trajectory) -> list[str]:
    """The strings of the page after Buy Now: asin, title, price, options; empty where nothing was bought."""
    last = trajectory.steps[-1].observation.split(SEP) if trajectory.done and trajectory.steps else [""]
    return last[2:] if last[0] == THANKS else []


def price_paid(trajectory: Trajectory) -> float | None:
    """What the trajectory paid in dollars, as its last page says; None where it bought nothing."""
    bought = receipt(trajectory)
    return float(bought[2].removeprefix("$")) if bought else None


class WebShopHindsight(Hindsight):
    """Reads what was bought in `shop` and what can be asked for there, in the words of `instructions`.

    A goal is `{"product": "mug", "details": "12 oz, blue", "price": "20"}`, without what is not asked for.
    """

    few_shot = tuple((goal, text) for goal, text in WORDS["few_shot"])

    def __init__(self, shop: Shop, instructions: Iterable[str]):
        self._shop, products = shop, shop.products.values()
        phrases = [phrase for text in instructions for phrase in _phrases(AMOUNT.sub(" ", text.lower()))]
        self.asked = {key for key, _ in phrases}
        in_titles: set[Key] = set()  # of `asked`: a large shop has too many phrases to keep them all
        known: set[str] = set()  # stems that name a product or a detail
        for key in (key for product in products for key, _ in _phrases(product.title)):
            known.update(key)
            if key in self.asked:
                in_titles.add(key)
        parts = {part for p in products for part in re.split(r",|&| and ", p.query) if len(tokens(part)) > 1}
        # What an instruction may name, each in one spelling. Other words are filler, or ask for something unknown.
        names = sorted(parts | {p.query for p in products})
        self.kinds = {_key(name): " ".join(tokens(name)) for name in names if tokens(name)}
        self.details = {key: text for key, text in reversed(phrases) if key in in_titles}
        for name, value in sorted({(n, v) for p in products for n, values in p.options.items() for v in values}):
            words = option_phrase(name, value)
            self.details |= dict.fromkeys((_key(f"{name} {value}"), _key(f"{value} {name}"), _key(words)), words)
        known.update(stem for key in self.details for stem in key)
        self.filler = filler() | {stem("made")} | {k[0] for k in self.asked if len(k) == 1 and k[0] not in known}
        self.queries = functools.lru_cache(1024)(self._queries)
        self._longest = max(map(len, (*self.details, *self.kinds)), default=1)

    def achieved(self, trajectory: Trajectory) -> Goal:
        """A goal that one could have had who bought this, with some of what the title says; empty if none is clear."""
        if (purchase := self._purchase(trajectory)) is None:
            return {}
        kind, details, others = self._describe(purchase)
        random = Random(derive_seed(0, purchase.title, *purchase.options))
        details += random.sample(others, min(random.randint(1, MAX_NAMED), len(others)))
        cap = str(int(purchase.price // 10 + 1) * 10)
        goal = self.parse(self.to_text({"product": kind, "details": ", ".join(details), "price": cap}))
        clear = goal and self.parse(self.to_text(goal)) == goal and self.satisfied(trajectory, goal)
        return goal if goal and clear else {}

    def satisfied(self, trajectory: Trajectory, goal: Goal) -> bool:
        """Is what was bought all that `goal` names, whatever else it is?"""
        if (purchase := self._purchase(trajectory)) is None:
            return False
        kind, details, others = self._describe(purchase)
        wanted = {_key(detail) for detail in goal.get("details", "").split(", ") if detail}
        fits = goal["product"] in (kind, ANYTHING) and wanted <= set(map(_key, details + others))
        return fits and purchase.price < float(goal.get("price", "inf"))

    def count(self, trajectory: Trajectory, goal: Goal) -> int:
        """How many of the things that `goal` names (the kind, each detail, the price) were bought as asked."""
        parts = [{"product": ANYTHING, "details": one} for one in goal.get("details", "").split(", ") if one]
        parts += [{"product": ANYTHING, "price": goal["price"]}] if "price" in goal else []
        parts += [{"product": goal["product"]}]
        return sum(self.satisfied(trajectory, part) for part in parts)

    def to_text(self, goal: Goal) -> str:
        """A plain sentence, worded in one of several ways, always the same for the same goal."""
        template = WORDS["templates"][derive_seed(0, *goal.items()) % len(WORDS["templates"])]
        *most, last = goal.get("details", "").split(", ")
        details = template["joint"] + (f"{', '.join(most)} and {last}" if most else last) if last else ""
        return template["text"].format(product=goal["product"], details=details, price=goal["price"])

    def parse(self, instruction: str) -> Goal | None:
        """The goal that `instruction` states; None where it denies something, or has words that are not known here."""
        text = CAP.sub(" ", instruction.lower())
        amounts, rest = AMOUNT.findall(text), AMOUNT.sub(" ", text)
        kinds, details, unknown = self.extract(rest)
        if len(amounts) > 1 or len(set(kinds)) > 1 or unknown or NEGATION.search(rest) or FLOOR.search(text):
            return None
        goal = {"product": kinds[0] if kinds else ANYTHING, "details": ", ".join(sorted(set(details)))}
        if amounts:
            goal["price"] = f"{float(amounts[0][0] or amounts[0][1]):g}"
        return {key: value for key, value in goal.items() if value}

    def similar_actions(self, trajectory: Trajectory, action: str, others: Sequence[str]) -> list[str]:
        """The three products whose titles are most like that of the one clicked; of an option, its other values."""
        if product := self._clicked(action):
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

    def extract(self, text: str) -> tuple[list[str], list[str], list[str]]:
        """The kinds of products, the details, and the unknown words in `text`; longer phrases are found first."""
        words, kinds = _matched(tokens(text), self.kinds, self._longest)
        words, details = _matched(words, self.details, self._longest)
        return kinds, details, [word for word in words if word and stem(word) not in self.filler]

    def _clicked(self, action: str) -> Product | None:
        return self._shop.products.get(action.removeprefix("click[").removesuffix("]").upper())

    def _purchase(self, trajectory: Trajectory) -> Purchase | None:
        if not (bought := receipt(trajectory)):
            return None
        asin, title, price, *options = bought
        pairs = [(name, value) for name, _, value in (option.partition(": ") for option in options)]
        pictured = self._shop.products[asin].images.keys() - {""}
        # Where options have pictures of their own, the picture says nothing of one that was not chosen.
        shows_choice = not pictured or pictured & {value for _, value in pairs}
        look = caption(trajectory.steps[-2].picture or "") if shows_choice else ""
        return Purchase(title, pairs, float(price[1:]), look)

    def _describe(self, purchase: Purchase) -> tuple[str, list[str], list[str]]:
        """The kind of product, what was chosen of it or shows in the picture, and what else its title says.

        An option whose value no instruction would name (a style called "aurelia") is described by its look alone.
        """
        kinds, named, _ = self.extract(purchase.title)
        if not kinds:  # its words may stand apart: "women's summer dress" is one of "women's dresses"
            stems = set(_key(purchase.title))
            kinds = [self.kinds[key] for key in sorted(self.kinds, key=len, reverse=True) if stems.issuperset(key)]
        kind = kinds[0] if kinds else ANYTHING
        details = list(dict.fromkeys(self.extract(purchase.look)[1]))
        for name, value in purchase.options:
            words = option_phrase(name, value)
            asked = self.asked & {_key(words), _key(value), _key(f"{value} {name}")}
            if words not in details and (asked or not purchase.look):
                details.append(words)
        known = set(_key(kind))
        return kind, details, [d for d in dict.fromkeys(named) if d not in details and known.isdisjoint(_key(d))]

    def _queries(self, text: str) -> list[str]:
        """Up to eight ways to search for what `text` asks for, from all of its words to the kind of product alone."""
        text = AMOUNT.sub(" ", CAP.sub(" ", text.lower()))
        kinds, details, unknown = self.extract(text)
        words = [word for word in tokens(text) if stem(word) not in self.filler]
        kind = " ".join(kinds)
        single = [f"{detail} {kind}" for detail in details]
        queries = [" ".join(words), " ".join([*details, kind]), kind, *single, " ".join(details), " ".join(unknown)]
        return [query for query in dict.fromkeys(map(str.strip, queries)) if query][:8] or ["item"]


def tokens(text: str) -> list[str]:
    return WORD.findall(text.lower())


def word_difference(title: str, other: str) -> int:
    """How many words stand in one of two titles and not in the other."""
    return len(set(tokens(title)) ^ set(tokens(other)))


@functools.lru_cache(200_000)
def stem(word: str) -> str:
    return stemmer().stemWord(re.sub("['’]", "", word))


@functools.cache
def filler() -> frozenset[str]:
    """The stems of words that ask for nothing."""
    return frozenset(map(stem, WORDS["filler"]))


def _key(text: str) -> Key:
    return tuple(map(stem, tokens(text)))


def option_phrase(name: str, value: str) -> str:
    """How an option is asked for: by its value, and by its name, too, where that says too little ("size 11")."""
    words = tokens(value)
    clear = len("".join(words)) > 2 and re.search("[a-z]", value) and not filler().issuperset(map(stem, words))
    return " ".join(words if clear else [*tokens(name), *words])


def _matched(words: list[str], phrases: dict[Key, str], longest: int) -> tuple[list[str], list[str]]:
    """`words` with those of each phrase found made empty, and the phrases in their order, the longest one first."""
    stems, found = [stem(w) if w else "" for w in words], {}
    for n in range(min(longest, len(words)), 0, -1):
        for at in range(len(words) - n + 1):
            if all(key := tuple(stems[at : at + n])) and key in phrases:
                found[at] = phrases[key]
                stems[at : at + n] = [""] * n
    return [w if s else "" for w, s in zip(words, stems)], [found[at] for at in sorted(found)]


def _phrases(text: str) -> Iterator[tuple[Key, str]]:
    """Stems and text of up to MAX_WORDS words in a row between punctuation marks, with no filler at either end."""
    for part in re.split(r"[,;:?!()|–—]|\.(?!\d)", text.lower()):
        words = tokens(part)
        stems = list(map(stem, words))
        for n in range(1, MAX_WORDS + 1):
            for i in range(len(words) - n + 1):
                if stems[i] not in filler() and stems[i + n - 1] not in filler() and stems[i : i + n] != ["made"]:
                    yield tuple(stems[i : i + n]), " ".join(words[i : i + n])
