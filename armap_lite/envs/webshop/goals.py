"""What people want to buy, by the published rules: from WebShop's instruction files to goals in the official order."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

from armap_lite.envs.webshop.engine import OFFICIAL, Product, Shop, data_file, reading
from armap_lite.rng import derive_seed
from armap_lite.storage.store import read_json

Wanted = tuple[str, Any, float, Any, bool]  # instruction, attributes, price cap, options, whether a picture is needed


def goals(shop: Shop, kind: str | None = None) -> list[dict[str, Any]]:
    """All goals of the shop's folder, each a dict with the official keys (asin, instruction_text, attributes, ...).

    `kind`: "human" for items_human_ins.json, "synthetic" for every instruction of items_ins_v2*.json times every
    combination of options; None: human where the folder has that file. The official code shuffles with seed 233 and so
    does this; it draws the price caps anew at every start, here they are fixed. Raises ValueError for another kind.
    """
    if kind not in (None, "human", "synthetic"):
        raise ValueError(f"goals {kind!r} are not known; use 'human', 'synthetic' or None")
    human = kind == "human" or (kind is None and any(shop.folder.glob("items_human_ins*.json")))
    stem, make = ("items_human_ins", _human) if human else ("items_ins_v2", _synthetic)
    file = data_file(shop.folder, stem)
    entries = read_json(file, OFFICIAL)
    found: list[dict[str, Any]] = []
    for product in shop.products.values():
        if product.asin in entries:
            with reading(file, f"asin {product.asin}"):
                for text, wanted, cap, options, picture in make(product, entries[product.asin]):
                    goal = {"asin": product.asin, "name": product.title, "query": product.query}
                    goal |= {"product_category": product.product_category, "instruction_text": text}
                    truth = {"attributes": _words(wanted), "goal_options": _words(options), "price_upper": cap}
                    found.append({**goal, **truth, "needs_picture": picture})
    if not found:
        raise ValueError(f"{file} has no instruction for any of the {len(shop.products)} products beside it")
    random.Random(233).shuffle(found)
    return found


def split_of(index: int, total: int) -> str:
    """The split of goal `index`: the official 0-499 test, 500-1499 dev, the rest train; a fifth each in small sets."""
    test, dev = min(500, total // 5), min(1000, total // 5)
    return "test" if index < test else "dev" if index < test + dev else "train"


def attributes(shop: Shop) -> dict[str, list[str]]:
    """The attributes of each product, which only the judge may know."""
    file, found = data_file(shop.folder, "items_ins_v2"), {}
    for asin, entry in read_json(file, OFFICIAL).items():
        with reading(file, f"asin {asin}"):
            if "attributes" in entry:
                found[asin] = _words(entry["attributes"])
    return found


def _words(value: Any) -> Any:
    """`value`, a list of words or, of options, also a dict. Raises TypeError for anything else."""
    if not isinstance(value, (list, dict)) or not all(isinstance(word, str) for word in value):
        raise TypeError(f"{value!r:.60} is not a list of words")
    return value


def _human(product: Product, entries: list[dict[str, Any]]) -> Iterator[Wanted]:
    for i, entry in enumerate(entries):
        if entry["instruction_attributes"]:
            # The catalogue that this package makes has the cap in its wording; the official file has none.
            cap, clause = (float(entry["price_upper"]), "") if "price_upper" in entry else _price_cap(product, i)
            text = entry["instruction"].strip(".") + clause
            picture = entry.get("needs_picture", False)
            yield text, entry["instruction_attributes"], cap, entry["instruction_options"], picture


def _synthetic(product: Product, entry: dict[str, Any]) -> Iterator[Wanted]:
    if entry.get("instruction") is None:
        return
    cap, clause = _price_cap(product, 0)
    names = sorted(product.options)
    for values in itertools.product(*(product.options[name] for name in names)):
        options = dict(zip(names, values))
        asked = ", and ".join(f"{name}: {value}" for name, value in options.items())
        text = entry["instruction"] + (f" with {asked}" if asked else "") + clause
        yield text, entry["instruction_attributes"], cap, options, False


def _price_cap(product: Product, number: int) -> tuple[float, str]:
    """The larger of two of the next four multiples of 10 above the price, and the clause that states it."""
    above = [10.0 * i for i in range(1, 100) if 10.0 * i > product.price][:4]
    if len(above) < 2:
        return 1_000_000.0, ""
    cap = max(random.Random(derive_seed(0, product.asin, number)).sample(above, 2))
    return cap, f", and price lower than {cap:.2f} dollars"
