"""The words of wishes: what an instruction asks for, and how to ask for what was bought.

All of it is learnt from what anybody may see: titles, options and kinds of things in the shop, and the instructions of
training tasks. Words are compared by their stems.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from armap_lite.envs.webshop.engine import Shop, stemmer
from armap_lite.rng import derive_seed

WORD = re.compile(r"[a-z0-9]+(?:['’.#+&-][a-z0-9]+)*")
AMOUNT = re.compile(r"\$ ?(\d+(?:\.\d+)?)|\b(\d+(?:\.\d+)?) ?(?:dollars?|usd|bucks)\b")
CAPPING = re.compile(r"\b(?:no|not|nothing|do not spend|don['’]t spend) (?:more than|over|above)\b")
FLOOR = re.compile(r"\b(?:more than|over|above|at least) \$? ?\d")
DENIAL = re.compile(r"\b(?:not|never|no|without|except|instead|avoid)\b|n['’]t\b")
ANYTHING = "item"  # the product where its title names no kind of thing that the shop knows
TEMPLATES = (  # {details} brings its own leading words, and may be empty
    ("i am looking for {product}{details}, and price lower than {price}.00 dollars", " with "),
    ("i need {product}{details}, under {price} dollars", ", "),
    ("find me {product}{details} for less than ${price}", " in "),
    ("i would like to buy {product}{details}; it should cost at most ${price}", ": "),
    ("i want {product}{details}, and price lower than {price}.00 dollars", " that is "),
    ("can you find me {product}{details} for no more than {price} dollars?", " with "),
)
LONGEST, NAMED = 3, 3  # words in a phrase of instructions; phrases of a title that one instruction names

Key = tuple[str, ...]  # the stems of a phrase


def tokens(text: str) -> list[str]:
    return WORD.findall(text.lower())


def word_difference(title: str, other: str) -> int:
    """How many words stand in one of two titles and not in the other."""
    return len(set(tokens(title)) ^ set(tokens(other)))


@functools.lru_cache(200_000)
def stem(word: str) -> str:
    return stemmer().stemWord(re.sub("['’]", "", word))


_TALK = """
a about after all also am an and any are as at be been below budget but buy by can cheap cheaper color colour cost
costs could design do dollar dollars find for from get good great has have having help hi i i'd i'm ideally if im in
into is it item its keep less like limit look looking lower make max maximum me most must my need needs of on one or
order pattern paying photo picture please price priced print product s search searching shopping should show size so
some spend style than that the them these they thing this those to under up usd use want wanted wants which will with
within would you your
"""


@functools.cache
def filler() -> frozenset[str]:
    """The stems of words that ask for nothing."""
    return frozenset(map(stem, _TALK.split()))


def _key(text: str) -> Key:
    return tuple(map(stem, tokens(text)))


class InstructionParser:
    """What can be asked for in `shop`, in the words of `instructions`."""

    def __init__(self, shop: Shop, instructions: Iterable[str]):
        products = shop.products.values()
        told = [phrase for text in instructions for phrase in _phrases(AMOUNT.sub(" ", text.lower()))]
        self.said = {key for key, _ in told}
        sold: set[Key] = set()  # phrases of titles, of which a large shop has too many to keep them all
        known: set[str] = set()  # words of titles
        for key in (key for p in products for key, _ in _phrases(p.title)):
            known.update(key)
            if key in self.said:
                sold.add(key)
        parts = {part for p in products for part in re.split(r",|&| and ", p.query) if len(tokens(part)) > 1}
        shelves = sorted(parts | {p.query for p in products})
        # What an instruction may name, each in one spelling; the words that it has otherwise are talk, or say a wish
        # that nobody here understands.
        self.kinds = {_key(name): " ".join(tokens(name)) for name in shelves if tokens(name)}
        self.details = {key: text for key, text in reversed(told) if key in sold}
        for name, value in sorted({(n, v) for p in products for n, values in p.options.items() for v in values}):
            words = option_phrase(name, value)
            self.details |= dict.fromkeys((_key(f"{name} {value}"), _key(f"{value} {name}"), _key(words)), words)
        known.update(word for key in self.details for word in key)
        self.talk = filler() | {stem("made")} | {k[0] for k in self.said if len(k) == 1 and k[0] not in known}
        self.queries = functools.lru_cache(1024)(self._queries)
        self._longest = max(map(len, (*self.details, *self.kinds)), default=1)

    def extract(self, text: str) -> tuple[list[str], list[str], list[str]]:
        """The kinds of things, the details, and the words of neither sort that `text` has; longer phrases first."""
        words, kinds = _matched(tokens(text), self.kinds, self._longest)
        words, details = _matched(words, self.details, self._longest)
        return kinds, details, [word for word in words if word and stem(word) not in self.talk]

    def parse(self, instruction: str) -> dict[str, str] | None:
        """The facts that `instruction` names; None where it denies something, or has words that are not known here."""
        text = instruction.lower()
        amounts = AMOUNT.findall(text)
        rest = AMOUNT.sub(" ", CAPPING.sub(" ", text))
        kinds, details, strange = self.extract(rest)
        if (
            len(amounts) > 1
            or strange
            or len(set(kinds)) > 1
            or DENIAL.search(rest)
            or FLOOR.search(CAPPING.sub(" ", text))
        ):
            return None
        facts = {"product": kinds[0] if kinds else ANYTHING, "details": ", ".join(sorted(set(details)))}
        cap = float(amounts[0][0] or amounts[0][1]) if amounts else 0.0
        return {k: v for k, v in (facts | {"price": f"{cap:g}" if amounts else ""}).items() if v}

    def achieved(self, title: str, options: Sequence[tuple[str, str]], price: float, look: str) -> dict[str, str]:
        """What one could have asked for who bought this. `look`: what the picture shows, in words.

        An option whose value no instruction would name (a style called "aurelia") is told by its look alone.
        """
        kind, details, more = self._describe(title, options, look)
        random = Random(derive_seed(0, title, *options))
        chosen = random.sample(more, min(random.randint(1, NAMED), len(more)))
        cap = str(int(price // 10 + 1) * 10)
        facts = self.parse(instruction({"product": kind, "details": ", ".join(details + chosen), "price": cap}))
        plain = facts and self.parse(instruction(facts)) == facts
        return facts if facts and plain and self.satisfied(facts, title, options, price, look) else {}

    def satisfied(
        self, asked: dict[str, str], title: str, options: Sequence[tuple[str, str]], price: float, look: str
    ) -> bool:
        """Is what was bought all that `asked` names, whatever else it is?"""
        kind, details, more = self._describe(title, options, look)
        words = {_key(detail) for detail in details + more}
        wanted = [_key(detail) for detail in asked.get("details", "").split(", ") if detail]
        return (
            asked["product"] in (kind, ANYTHING)
            and all(key in words for key in wanted)
            and price < float(asked.get("price", "inf"))
        )

    def _describe(self, title: str, options: Sequence[tuple[str, str]], look: str) -> tuple[str, list[str], list[str]]:
        """The kind of thing, what was chosen of it or shows in the picture, and what else its title says."""
        kinds, said, _ = self.extract(title)
        if not kinds:  # its words may stand apart: "women's summer dress" is one of "women's dresses"
            stems = set(_key(title))
            kinds = [self.kinds[key] for key in sorted(self.kinds, key=len, reverse=True) if stems.issuperset(key)]
        details = list(dict.fromkeys(self.extract(look)[1]))
        for name, value in options:
            told = option_phrase(name, value)
            if told not in details and (not look or self.said & {_key(told), _key(value), _key(f"{value} {name}")}):
                details.append(told)
        kind = kinds[0] if kinds else ANYTHING
        known = {*_key(kind)}
        return kind, details, [d for d in dict.fromkeys(said) if d not in details and known.isdisjoint(_key(d))]

    def _queries(self, text: str) -> list[str]:
        """Up to eight ways to search for what `text` asks for, from all of its words to the kind of thing alone."""
        text = AMOUNT.sub(" ", CAPPING.sub(" ", text.lower()))
        kinds, details, strange = self.extract(text)
        words = [w for w in tokens(text) if stem(w) not in self.talk]
        kind = " ".join(kinds)
        few = [f"{detail} {kind}".strip() for detail in details]
        every = [" ".join(words), " ".join([*details, kind]), kind, *few, " ".join(details), " ".join(strange)]
        return [q for q in dict.fromkeys(map(str.strip, every)) if q][:8] or ["item"]


def option_phrase(name: str, value: str) -> str:
    """How an option is asked for: by its value, and by its name, too, where that says too little ("size 11")."""
    told = tokens(value)
    clear = len("".join(told)) > 2 and bool(re.search("[a-z]", value)) and not filler().issuperset(map(stem, told))
    return " ".join(told if clear else [*tokens(name), *told])


def instruction(facts: dict[str, str]) -> str:
    """A plain sentence that states `facts`, worded in one of several ways, always the same for the same facts."""
    template, joint = TEMPLATES[derive_seed(0, *facts.items()) % len(TEMPLATES)]
    details = facts.get("details", "")
    *most, last = details.split(", ")
    told = joint + (f"{', '.join(most)} and {last}" if most else last) if details else ""
    return template.format(product=facts["product"], details=told, price=facts["price"])


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
    """Up to LONGEST words in a row between marks, none that asks for nothing at either end: their stems, and they."""
    for part in re.split(r"[,;:?!()|–—]|\.(?!\d)", text.lower()):
        words = tokens(part)
        stems = list(map(stem, words))
        for n in range(1, LONGEST + 1):
            for i in range(len(words) - n + 1):
                if stems[i] not in filler() and stems[i + n - 1] not in filler() and stems[i : i + n] != ["made"]:
                    yield tuple(stems[i : i + n]), " ".join(words[i : i + n])
