"""An online shop made from a seed, in WebShop's own raw file format, with a picture for every product and colour.

Each kind of thing is sold by families of near-duplicates: one costs less and lacks one feature, one differs in
exactly one feature, one costs more and has a feature on top. Two sorts of families hide what only a picture shows:
one product in several "styles" whose names say nothing, and twins with the same text that look different. Their
looks are the truth behind a goal (the name of a style, or an attribute, which no page shows), never part of a text.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product as combinations
from pathlib import Path
from random import Random
from typing import Any

from armap_lite.envs.webshop.builtin import drawing, product_kinds
from armap_lite.envs.webshop.builtin.drawing import COLOURS, PATTERNS
from armap_lite.envs.webshop.builtin.product_kinds import BRANDS, CODES, Kind, kinds
from armap_lite.rng import derive_seed
from armap_lite.storage import assets

LINES = ["Classic", "Everyday", "Studio", "Weekend", "Heritage", "Coast", "City", "Nova", "Atelier", "Original"]
UNSEEN = [
    "Pattern as in Picture",
    "See Picture for Design",
    "Print as Shown",
    "Design per Photo",
    "Look as in Photo",
]
TITLES = [
    "{brand} {line} {Noun}, {look}, {features}",
    "{look} {Noun} by {brand}, {features}",
    "{brand} {Noun} – {look}, {features}",
    "{Noun} {brand} {line}, {look}, {features}",
]
BULLETS = [
    "{F}: small thing, big difference.",
    "{F}, and it shows every day.",
    "Our buyers ask for it: {f}.",
    "{F}, looked over by hand before it ships.",
    "{F}. Simple as that.",
    "What sets it apart: {f}.",
]
DESCRIPTIONS = [
    "{brand} keeps it simple. The {line} {noun}: {all}.",
    "A favorite for small homes and busy weeks. {All}. Ships without plastic.",
    "From the {line} range. {All}. Returns within 30 days.",
    "Made in small runs and meant to be used a lot. In short: {all}.",
    "{All}. A good gift for someone who has it all, and an honest price.",
]
WORDS = {  # a pattern before the noun, and after it
    "plain": ("plain", "in a plain design"),
    "striped": ("striped", "with stripes"),
    "polka dot": ("polka dot", "with polka dots"),
    "plaid": ("plaid", "in a plaid pattern"),
    "floral": ("floral", "with a floral print"),
}
CAPS = [
    "under {n} dollars",
    "for less than ${n}",
    "price lower than {n}.00 dollars",
    "within a budget of ${n}",
    "for no more than {n} dollars",
    "at most ${n}",
    "below {n} dollars",
    "cheaper than {n} dollars",
    "up to ${n}",
]
# {that}, {size} bring their own leading blank or comma, and may be empty; {must} is for goals with a feature.
FRAMES = [
    "i am looking for {np}{that}{size}, {cap}",
    "i need {np}{that}{size}, and price lower than {n}.00 dollars",
    "i'm looking for {np}{size}{that}, {cap}",
    "i want to buy {np}{that}{size} {cap}",
    "can you find me {np}{that}{size}? my budget is ${n}",
    "find me {np}{size}{that}, and price lower than {n}.00 dollars",
    "looking for {np}{that}{size}. i can spend up to {n} dollars",
    "show me {np}{that}{size} {cap}",
    "my sister would like {np}{that}{size}; please keep it under {n} dollars",
    "i would like {np}{that}{size}, ideally {cap}",
    "{cap}, please: {np}{that}{size}",
    "shopping for {np}{size}{that}, {cap}",
    "do you have {np}{that}{size} {cap}?",
    "please get me {np}{that}{size} and do not spend more than ${n}",
    "for my new flat i need {np}{that}{size}, {cap}",
    "with {n} dollars to spend, i am after {np}{that}{size}",
    "birthday present: {np}{that}{size}, {cap}",
    "i have {n} dollars and want {np}{that}{size}",
    "{np}{that}{size}, {cap}",
    "help me pick {np}{that}{size}. nothing above {n} dollars",
    "where can i get {np}{that}{size} {cap}?",
    "i lost mine, so i need {np}{that}{size} again, {cap}",
]
MUSTS = [
    "i'd like {np}{size}. {must}, {cap}",
    "need {np}{size}, {cap}. {must}",
    "{np}{size} wanted, {cap}; {must}",
    "hi, {np}{size} please. {must}. my limit is {n} dollars",
    "i am searching for {np} {cap}{size}. {must}",
    "{must}: {np}{size}, {cap}",
    "could you order {np}{size} for me? {must}, price lower than {n}.00 dollars",
    "looking to replace an old one with {np}{size}, {cap}. {must}",
]

Look = tuple[str, str]  # colour, pattern


@dataclass(frozen=True)
class Item:
    """One product. `looks` names what each value of `styling` looks like; "" is a product that has no such option."""

    kind: Kind
    brand: str
    price: float
    voice: int  # of its family: it chooses the wording
    features: tuple[str, ...]  # the material first
    looks: dict[str, Look]
    styling: str = "color"
    pictured: bool = False  # the text names neither colour nor pattern
    asin: str = ""

    @property
    def attributes(self) -> list[str]:
        """The truth as items_ins_v2 has it. Of styles that look different, none can be named here."""
        look: Iterable[str] = ()
        if not self.pictured:
            look = {pattern for _, pattern in self.looks.values()}
        elif "" in self.looks:
            look = self.looks[""]
        return [*self.features, *look]


def build(seed: int = 0, cache: Path | None = None) -> Path:
    """The folder of the shop made from `seed`: WebShop's three files and `pictures/`. Made once, in about 15 s.

    It lies in `cache` (by default that of the assets), under a name that changes with this code; a folder that is
    damaged is made again. Raises AssetError where the disk is full or cannot be written to.
    """
    code = b"".join(Path(file).read_bytes() for file in (__file__, drawing.__file__, product_kinds.__file__))
    name = f"webshop-{seed}-{hashlib.sha256(code).hexdigest()[:12]}"
    folder = (assets.cache() if cache is None else Path(cache)) / name
    if assets._intact(folder):
        return folder
    with assets._workshop(folder, need=20_000_000) as work:
        if not assets._intact(folder):  # someone else may have made it while this waited
            new, sums = work / name, {}
            (new / "pictures").mkdir(parents=True)
            for path, content in _files(seed):
                (new / path).write_bytes(content)
                sums[path] = hashlib.sha256(content).hexdigest()
            (new / "sha256.json").write_text(json.dumps(sums, indent=1), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(new, folder)
    return folder


def _files(seed: int) -> Iterator[tuple[str, bytes]]:
    """Every file of the shop: its path in the folder, and what is in it."""
    records, attributes = [], {}
    goals: dict[str, list[dict[str, Any]]] = {}
    for kind in kinds():
        random = Random(derive_seed(seed, "shop", kind.name))
        shelf = _shelf(kind, random)
        for item in shelf:
            attributes[item.asin] = {"attributes": item.attributes}
            records.append(_record(item))
            for n, look in enumerate(item.looks.values()):
                yield _image(item, n), drawing.picture(kind.name, *look, derive_seed(seed, item.asin))
        for goal in _goals(shelf, random):
            goals.setdefault(goal["asin"], []).append(goal)
    Random(derive_seed(seed, "order")).shuffle(records)
    for name, content in (
        ("items_shuffle.json", records),
        ("items_ins_v2.json", attributes),
        ("items_human_ins.json", goals),
    ):
        yield name, json.dumps(content, ensure_ascii=False, indent=0).encode()


def _shelf(kind: Kind, random: Random) -> list[Item]:
    """All products of a kind, 32 of them: five families whose text tells all, two sold in styles, two of twins."""
    codes = random.sample(CODES, 16)  # each names one style of one product, so nothing can be learnt from it
    items = []
    for n in range(9):
        material, other = random.sample(kind.materials, 2)
        is0, is1, is2 = random.sample(kind.is_, 3)
        has0, has1 = random.sample(kind.has, 2)
        brands = random.sample(BRANDS, 4)
        price, voice = _charm(random.uniform(*kind.price), random), random.getrandbits(32)
        base = Item(kind, brands[0], price, voice, (material, is0, is1, has0), {})
        if n < 5:
            pattern = random.choice(PATTERNS)
            colours = random.sample(list(COLOURS), random.choice((2, 2, 3, 4)))
            base = replace(base, looks={colour: (colour, pattern) for colour in colours})
            swapped = random.choice(((other, is0, is1, has0), (material, is2, is1, has0), (material, is0, is1, has1)))
            family = [
                base,
                replace(base, features=swapped, price=_charm(base.price * random.uniform(0.9, 1.1), random)),
                _cheaper(
                    base, brands[1], random, features=random.choice(((material, is0, is1), (material, is0, has0)))
                ),
                replace(
                    base,
                    brand=brands[2],
                    features=(*base.features, has1),
                    price=_charm(base.price * random.uniform(1.3, 1.7), random),
                ),
            ]
        elif n < 7:  # the same text and price twice; only the pictures say which style is what
            styling = random.choice(("color", "style", "design", "print"))
            base = replace(base, pictured=True, styling=styling)
            family = [
                replace(base, brand=brand, looks={codes.pop(): look for look in _looks(random, random.choice((3, 4)))})
                for brand in brands[:2]
            ]
        else:  # three of the same text and price, and one of them again for less
            looks = _looks(random, 3)
            family = [replace(base, brand=b, pictured=True, looks={"": look}) for b, look in zip(brands, looks)]
            family.append(_cheaper(random.choice(family), brands[3], random))
        items += family
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"
    return [replace(item, asin="B0" + "".join(random.choices(letters, k=8))) for item in items]


def _looks(random: Random, count: int) -> list[Look]:
    """Looks that differ in color, in pattern, or in both so that neither alone tells them apart."""
    colours, patterns = random.sample(list(COLOURS), count), random.sample(PATTERNS, count)
    grids = ((colours, patterns[:1]), (colours[:1], patterns), (colours[:2], patterns[:2]))
    return random.sample(list(combinations(*random.choice(grids))), count)


def _cheaper(item: Item, brand: str, random: Random, **changes: Any) -> Item:
    return replace(item, brand=brand, price=_charm(item.price * random.uniform(0.5, 0.75), random), **changes)


def _charm(price: float, random: Random) -> float:
    return max(2, int(price)) + random.choice((0.99, 0.99, 0.49, 0.95))


def _record(item: Item) -> dict[str, Any]:
    """One product as items_shuffle.json has it. The voice is the family's: near-duplicates are worded alike."""
    kind, voice = item.kind, Random(item.voice)
    line, title, closing = voice.choice(LINES), voice.choice(TITLES), voice.choice(DESCRIPTIONS)
    shown, hidden = f"{item.attributes[-1]} {voice.choice(('Design', 'Pattern', 'Look'))}", voice.choice(UNSEEN)
    sentences, turn, ranged = voice.sample(BULLETS, len(BULLETS)), voice.randrange(3), voice.random() < 0.15
    names = {"brand": item.brand, "line": line, "noun": kind.name, "look": hidden if item.pictured else shown.title()}
    features = [*item.features[turn:], *item.features[:turn]]
    name = title.format(Noun=kind.name.title(), features=", ".join(features).title(), **names)
    while len(name.split()) > 12 + len(item.brand.split()):  # cut alike for all of a family
        name = name.rpartition(",")[0]
    made, being, having = _phrases(kind, item.features)
    everything = ", ".join([*made, *being, *(f"with {thing}" for thing in having)])
    low = _charm(item.price * 0.8, voice) if ranged and not item.pictured else item.price
    images = [_image(item, n) for n in range(len(item.looks))]
    styles = [{"value": value.title(), "image": image} for value, image in zip(item.looks, images) if value]
    choices = {item.styling.title(): styles, "Size": [{"value": size} for size in kind.sizes]}
    return {
        "name": name,
        "full_description": closing.format(all=everything, All=everything.capitalize(), **names),
        "pricing": f"${low} to ${item.price}" if low < item.price else f"${item.price}",
        "images": images,
        "product_category": f"{kind.path} › {kind.many.title()}",
        "average_rating": round(Random(item.asin).uniform(3.4, 4.9), 1),
        "small_description": [s.format(f=f, F=f.capitalize()) for s, f in zip(sentences, made + being + having)],
        "customization_options": {name: values for name, values in choices.items() if values},
        "asin": item.asin,
        "category": kind.category,
        "query": kind.many,
        "page": 1,
    }


def _goals(shelf: list[Item], random: Random) -> Iterator[dict[str, Any]]:
    """Goals for a shelf, as items_human_ins.json has them: 15 that the text decides and 10 that need the picture.

    Only such that every product and style that truly fits is paid in full, and nothing else is. The cap of a goal
    that needs the picture is that of its whole family: it must not tell which of the twins is meant.
    """
    seen: set[tuple[str, ...]] = set()
    stock = [(item, name, look) for item in shelf for name, look in item.looks.items()]
    for pictured, count in ((False, 15), (True, 10)):
        choice, start = [entry for entry in stock if entry[0].pictured == pictured], len(seen)
        for _ in range(2000):  # two in three tries are in vain, and a shelf without enough goals is no harm
            if len(seen) == start + count:
                break
            item, label, look = random.choice(choice)
            features = set(random.sample(item.features, random.choice((1, 1, 2) if pictured else (1, 2, 2, 3))))
            colour, pattern = (thing if random.random() < 0.6 else "" for thing in look)
            size = random.choice([*item.kind.sizes, ""])
            wanted = {*features, *({colour, pattern} if not label else set() if pictured else {pattern})} - {""}
            style = label if pictured or colour else ""
            fits = {(i.asin, n) for i, n, of in stock if features <= {*i.features} and {colour, pattern} <= {*of, ""}}
            paid = {(i.asin, n) for i, n, _ in stock if wanted <= {*i.attributes} and style in ("", n)}
            what = (item.asin, *sorted(wanted), style, size)
            told = any(not i.pictured or of != look for i, n, of in stock if (i.asin, n) in paid)
            if fits != paid or (pictured and told) or what in seen or len(wanted) > 3:
                continue
            seen.add(what)
            dearest = max(i.price for i in shelf if i is item or (pictured and i.voice == item.voice))
            cap = max(random.sample([10 * (int(dearest) // 10 + n) for n in (1, 2, 3, 4)], 2))
            yield {
                "asin": item.asin,
                "instruction": _instruction(item.kind, sorted(features), colour, pattern, size, cap, random),
                "instruction_attributes": sorted(wanted),
                "instruction_options": [option for option in (style, size) if option],
                "price_upper": float(cap),
                "needs_picture": pictured,
            }


def _instruction(
    kind: Kind, features: list[str], colour: str, pattern: str, size: str, cap: int, random: Random
) -> str:
    """The goal in a shopper's words, in one of many orders."""
    made, being, having = _phrases(kind, features)
    before, after = WORDS.get(pattern, ("", ""))
    front, back = [""] * 4, [""] * 3  # what it is, color, pattern, material; the last three in the same order, behind
    if random.random() < 0.4:
        front[0], being = " ".join(being[:1]), being[1:]
    front[1], back[1] = random.choice(((colour, ""), ("", f"in {colour}" if colour else "")))
    front[2], back[2] = random.choice(((before, ""), ("", after)))
    front[3], back[0] = random.choice(((made[0][8:], ""), ("", made[0]))) if made else ("", "")
    noun = " ".join(filter(None, [*front, kind.name, *back]))
    verbs = ("are", "have", "they") if kind.plural else ("is", "has", "it")
    that = [f"{verbs[0]} {' and '.join(being)}"] * bool(being) + [f"{verbs[1]} {' and '.join(having)}"] * bool(having)
    must = [f"be {' and '.join(being)}"] * bool(being) + [f"have {' and '.join(having)}"] * bool(having)
    listed = f", {', '.join([*being, *(f'with {thing}' for thing in having)])}"
    return random.choice(FRAMES + MUSTS if must else FRAMES).format(
        np=noun if kind.plural else _a(noun),
        that=random.choice((f" that {' and '.join(that)}", listed)) if that else "",
        must=f"{verbs[2]} {random.choice(('should', 'must', 'ought to'))} {' and '.join(must)}",
        size=random.choice((" in size {}", ", size {}", " (size {})", ", {} size")).format(size) if size else "",
        cap=random.choice(CAPS).format(n=cap),
        n=cap,
    )


def _phrases(kind: Kind, features: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Features as one says them: made of ..., (it is) ..., (it has) ..."""
    made = [f"made of {thing}" for thing in features if thing in kind.materials]
    having = [thing if thing.endswith("s") else _a(thing) for thing in features if thing in kind.has]
    return made, [thing for thing in features if thing in kind.is_], having


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _image(item: Item, number: int) -> str:
    return f"pictures/{item.asin}-{number}.png"
