"""An online shop made from a seed, in WebShop's own raw file format, with a picture for every product and colour.

Each kind of product is sold by families of near-duplicates: one costs less and lacks one feature, one differs in
exactly one feature, one costs more and has a feature on top. Two sorts of families hide what only a picture shows:
one product in several "styles" whose names say nothing, and twins with the same text that look different. Their
looks are the truth behind a goal (the name of a style, or an attribute, which no page shows), never part of a text.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product as combinations
from pathlib import Path
from random import Random
from typing import Any

from armap_lite.envs.webshop.builtin import drawing
from armap_lite.envs.webshop.builtin.drawing import COLOURS, PATTERNS
from armap_lite.rng import derive_seed
from armap_lite.storage import assets

TABLES = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
Look = tuple[str, str]  # colour, pattern
CHEAPER, SIMILAR, DEARER = (0.5, 0.75), (0.9, 1.1), (1.3, 1.7)  # the price of a near-duplicate, as a factor


@dataclass(frozen=True)
class Kind:
    """One kind of product. A feature is a material ("made of"), a quality that it is, or a part that it has.

    Within a kind, no two features are alike to WebShop's reward (a fuzzy comparison of words), and none contains the
    letters of a colour or pattern ("red" is in "layered"): otherwise a wrong product would be rewarded as a right one.
    """

    name: str  # a key of the shapes in drawing.json
    category: str
    departments: list[str]
    price: list[int]  # lowest and highest, in dollars
    sizes: list[str]
    materials: list[str]
    has: list[str]
    qualities: list[str]  # shared by all kinds of the category

    @property
    def is_plural(self) -> bool:
        return self.name.endswith("s") and not self.name.endswith("ss")

    @property
    def plural(self) -> str:
        """The name of several: the category page, and a query that finds it."""
        return self.name if self.is_plural else self.name + ("es" if self.name.endswith(("ss", "ch", "sh")) else "s")


KINDS = [Kind(**row, qualities=TABLES["qualities"][row["category"]]) for row in TABLES["kinds"]]


@dataclass(frozen=True)
class Item:
    """One product. `looks` maps each value of the option `styling` to a look; "": the product has no such option."""

    kind: Kind
    brand: str
    price: float
    wording: int  # seed of its texts, the same for a whole family
    features: tuple[str, ...]  # the material first
    looks: dict[str, Look]
    styling: str = "color"
    needs_picture: bool = False  # the text names neither colour nor pattern
    asin: str = ""

    @property
    def attributes(self) -> list[str]:
        """The truth as items_ins_v2 has it. Of styles that look different, none can be named here."""
        look = self.looks.get("", ()) if self.needs_picture else {pattern for _, pattern in self.looks.values()}
        return [*self.features, *look]

    @property
    def images(self) -> list[str]:
        """Files in the folder, one for each look."""
        return [f"pictures/{self.asin}-{n}.png" for n in range(len(self.looks))]


def build(seed: int = 0) -> Path:
    """The folder of the shop made from `seed`: WebShop's three files and `pictures/`. Made once, in about 15 s.

    It lies in the cache of the assets, under a name that changes with this folder's code and tables; a
    damaged folder is made again. Raises AssetError where the disk is full or cannot be written to.
    """
    name = f"webshop-{seed}-{hashlib.sha256(sources()).hexdigest()[:12]}"
    folder = assets.cache_dir() / name

    def make(folder: Path) -> None:
        (folder / "pictures").mkdir()
        for path, content in _files(seed):
            (folder / path).write_bytes(content)

    return assets.made_once(folder, make, need=20_000_000)


def sources() -> bytes:
    """Code and tables of this folder, on which the shop depends."""
    files = (file for file in Path(__file__).parent.iterdir() if file.suffix in (".py", ".json"))
    return b"".join(file.read_bytes() for file in sorted(files))


def _files(seed: int) -> Iterator[tuple[str, bytes]]:
    """Path in the folder and content of every file of the shop."""
    records, attributes = [], {}
    goals: dict[str, list[dict[str, Any]]] = {}
    for kind in KINDS:
        random = Random(derive_seed(seed, "shop", kind.name))
        shelf = _shelf(kind, random)
        for item in shelf:
            attributes[item.asin] = {"attributes": item.attributes}
            records.append(_record(item))
            for image, look in zip(item.images, item.looks.values()):
                yield image, drawing.picture(kind.name, *look, derive_seed(seed, item.asin))
        for goal in _goals(shelf, random):
            goals.setdefault(goal["asin"], []).append(goal)
    Random(derive_seed(seed, "order")).shuffle(records)
    contents = {"items_shuffle": records, "items_ins_v2": attributes, "items_human_ins": goals}
    for name, content in contents.items():
        yield f"{name}.json", json.dumps(content, ensure_ascii=False, indent=0).encode()


def _shelf(kind: Kind, random: Random) -> list[Item]:
    """All 32 products of a kind: five families whose text tells all, two sold in styles, two of twins."""
    style_names = random.sample(TABLES["style_names"], 16)  # each for one style of one product: nothing can be learnt
    items: list[Item] = []
    for n in range(9):
        material, other = random.sample(kind.materials, 2)
        is0, is1, is2 = random.sample(kind.qualities, 3)
        has0, has1 = random.sample(kind.has, 2)
        brands = random.sample(TABLES["brands"], 4)
        price, wording = _charm(random.uniform(*kind.price), random), random.getrandbits(32)
        base = Item(kind, brands[0], price, wording, (material, is0, is1, has0), {})
        if n < 5:
            pattern = random.choice(PATTERNS)
            colours = random.sample(list(COLOURS), random.choice((2, 2, 3, 4)))
            base = replace(base, looks={colour: (colour, pattern) for colour in colours})
            swapped = random.choice(((other, is0, is1, has0), (material, is2, is1, has0), (material, is0, is1, has1)))
            fewer = ((material, is0, is1), (material, is0, has0))
            items += [
                base,
                _variant(base, base.brand, SIMILAR, random, features=swapped),
                _variant(base, brands[1], CHEAPER, random, features=random.choice(fewer)),
                _variant(base, brands[2], DEARER, random, features=(*base.features, has1)),
            ]
        elif n < 7:  # the same text and price twice; only the pictures say which style is what
            base = replace(base, needs_picture=True, styling=random.choice(("color", "style", "design", "print")))
            for brand in brands[:2]:
                looks = _looks(random, random.choice((3, 4)))
                items.append(replace(base, brand=brand, looks={style_names.pop(): look for look in looks}))
        else:  # three of the same text and price, and one of them again for less
            looks = _looks(random, 3)
            twins = [replace(base, brand=b, needs_picture=True, looks={"": look}) for b, look in zip(brands, looks)]
            items += [*twins, _variant(random.choice(twins), brands[3], CHEAPER, random)]
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"
    return [replace(item, asin="B0" + "".join(random.choices(letters, k=8))) for item in items]


def _looks(random: Random, count: int) -> list[Look]:
    """Looks that differ in colour, in pattern, or in both so that neither alone tells them apart."""
    colours, patterns = random.sample(list(COLOURS), count), random.sample(PATTERNS, count)
    grids = ((colours, patterns[:1]), (colours[:1], patterns), (colours[:2], patterns[:2]))
    return random.sample(list(combinations(*random.choice(grids))), count)


def _variant(item: Item, brand: str, factors: tuple[float, float], random: Random, **changes: Any) -> Item:
    return replace(item, brand=brand, price=_charm(item.price * random.uniform(*factors), random), **changes)


def _charm(price: float, random: Random) -> float:
    """A price as shops write it, just below a whole number."""
    return max(2, int(price)) + random.choice((0.99, 0.99, 0.49, 0.95))


def _record(item: Item) -> dict[str, Any]:
    """One product as items_shuffle.json has it."""
    kind, random = item.kind, Random(item.wording)
    line, title, closing = (random.choice(TABLES[name]) for name in ("lines", "titles", "descriptions"))
    shown = f"{item.attributes[-1]} {random.choice(('Design', 'Pattern', 'Look'))}".title()
    hidden = random.choice(TABLES["hidden_looks"])
    bullets, turn, ranged = random.sample(TABLES["bullets"], 6), random.randrange(3), random.random() < 0.15
    names = {"brand": item.brand, "line": line, "noun": kind.name, "look": hidden if item.needs_picture else shown}
    features = [*item.features[turn:], *item.features[:turn]]
    name = title.format(Noun=kind.name.title(), features=", ".join(features).title(), **names)
    while len(name.split()) > 12 + len(item.brand.split()):  # cut alike for all of a family
        name = name.rpartition(",")[0]
    made, being, having = _phrases(kind, item.features)
    everything = ", ".join([*made, *being, *(f"with {thing}" for thing in having)])
    low = _charm(item.price * 0.8, random) if ranged and not item.needs_picture else item.price
    styles = [{"value": value.title(), "image": image} for value, image in zip(item.looks, item.images) if value]
    options = {item.styling.title(): styles, "Size": [{"value": size} for size in kind.sizes]}
    return {
        "name": name,
        "full_description": closing.format(all=everything, All=everything.capitalize(), **names),
        "pricing": f"${low} to ${item.price}" if low < item.price else f"${item.price}",
        "images": item.images,
        "product_category": " › ".join([*kind.departments, kind.plural.title()]),
        "average_rating": round(Random(item.asin).uniform(3.4, 4.9), 1),
        "small_description": [b.format(f=f, F=f.capitalize()) for b, f in zip(bullets, made + being + having)],
        "customization_options": {name: values for name, values in options.items() if values},
        "asin": item.asin,
        "category": kind.category,
        "query": kind.plural,
        "page": 1,
    }


def _goals(shelf: list[Item], random: Random) -> Iterator[dict[str, Any]]:
    """Goals for a shelf, as items_human_ins.json has them: 15 that the text decides and 10 that need the picture.

    Only such that every product and style that truly fits is paid in full, and nothing else is. The price cap of a
    goal that needs the picture is that of its whole family: it must not tell which of the twins is meant.
    """
    seen: set[tuple[str, ...]] = set()
    stock = [(item, name, look) for item in shelf for name, look in item.looks.items()]
    for needs_picture, count in ((False, 15), (True, 10)):
        choice, start = [entry for entry in stock if entry[0].needs_picture == needs_picture], len(seen)
        for _ in range(2000):  # two in three tries are in vain, and a shelf without enough goals is no harm
            if len(seen) == start + count:
                break
            item, label, look = random.choice(choice)
            features = set(random.sample(item.features, random.choice((1, 1, 2) if needs_picture else (1, 2, 2, 3))))
            colour, pattern = (part if random.random() < 0.6 else "" for part in look)
            size = random.choice([*item.kind.sizes, ""])
            asked = {colour, pattern}
            visible = asked if not label else {pattern} if not needs_picture else set()
            wanted, style = (features | visible) - {""}, label if needs_picture or colour else ""
            fits = {(i.asin, name) for i, name, shown in stock if features <= {*i.features} and asked <= {*shown, ""}}
            paid = {(i.asin, name) for i, name, _ in stock if wanted <= {*i.attributes} and style in ("", name)}
            others = any(not i.needs_picture or shown != look for i, name, shown in stock if (i.asin, name) in paid)
            key = (item.asin, *sorted(wanted), style, size)
            if fits != paid or (needs_picture and others) or key in seen or len(wanted) > 3:
                continue
            seen.add(key)
            dearest = max(i.price for i in shelf if i is item or (needs_picture and i.wording == item.wording))
            cap = max(random.sample([10 * (int(dearest) // 10 + n) for n in (1, 2, 3, 4)], 2))
            yield {
                "asin": item.asin,
                "instruction": _instruction(item.kind, sorted(features), colour, pattern, size, cap, random),
                "instruction_attributes": sorted(wanted),
                "instruction_options": [option for option in (style, size) if option],
                "price_upper": float(cap),
                "needs_picture": needs_picture,
            }


def _instruction(
    kind: Kind, features: list[str], colour: str, pattern: str, size: str, cap: int, random: Random
) -> str:
    """The goal in a shopper's words, in one of many orders."""
    made, being, having = _phrases(kind, features)
    before, after = TABLES["pattern_words"].get(pattern, ("", ""))
    # Before the noun: quality, colour, pattern, material. Behind it: material, colour, pattern.
    quality = ""
    if random.random() < 0.4:
        quality, being = " ".join(being[:1]), being[1:]
    colours = random.choice(((colour, ""), ("", f"in {colour}" if colour else "")))
    patterns = random.choice(((before, ""), ("", after)))
    materials = random.choice(((made[0].removeprefix("made of "), ""), ("", made[0]))) if made else ("", "")
    front, back = (quality, colours[0], patterns[0], materials[0]), (materials[1], colours[1], patterns[1])
    noun = " ".join(filter(None, [*front, kind.name, *back]))
    *verbs, it = ("are", "have", "they") if kind.is_plural else ("is", "has", "it")
    claims = [" and ".join(things) for things in (being, having)]
    that, must = ([f"{verb} {x}" for verb, x in zip(pair, claims) if x] for pair in (verbs, ("be", "have")))
    listed = f", {', '.join([*being, *(f'with {thing}' for thing in having)])}"
    requests = TABLES["requests"] + TABLES["requests_with_must"] if must else TABLES["requests"]
    return random.choice(requests).format(
        np=noun if kind.is_plural else _a(noun),
        that=random.choice((f" that {' and '.join(that)}", listed)) if that else "",
        must=f"{it} {random.choice(('should', 'must', 'ought to'))} {' and '.join(must)}",
        size=random.choice((" in size {}", ", size {}", " (size {})", ", {} size")).format(size) if size else "",
        cap=random.choice(TABLES["price_caps"]).format(n=cap),
        n=cap,
    )


def _phrases(kind: Kind, features: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Features as one says them: made of ..., (it is) ..., (it has) ..."""
    made = [f"made of {thing}" for thing in features if thing in kind.materials]
    having = [thing if thing.endswith("s") else _a(thing) for thing in features if thing in kind.has]
    return made, [thing for thing in features if thing in kind.qualities], having


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
