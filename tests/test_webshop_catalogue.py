"""The embedded shop: WebShop's format, goals that can be met, looks that only pictures tell, the same every time."""

import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rapidfuzz import fuzz, utils

from armap_lite.envs.webshop.builtin import catalogue, drawing
from armap_lite.envs.webshop.engine import Page, Shop
from armap_lite.envs.webshop.goals import goals
from armap_lite.envs.webshop.judge import COLOURS as COLOUR_WORDS

FOLDER = catalogue.build()
PRODUCTS = {p["asin"]: p for p in json.loads((FOLDER / "items_shuffle.json").read_bytes())}
TRUTH = {asin: entry["attributes"] for asin, entry in json.loads((FOLDER / "items_ins_v2.json").read_bytes()).items()}
GOALS = [g for entries in json.loads((FOLDER / "items_human_ins.json").read_bytes()).values() for g in entries]
STYLE_NAMES = catalogue.TABLES["style_names"]
SHELVES: dict[str, list[str]] = defaultdict(list)
for product in PRODUCTS.values():
    SHELVES[product["query"]].append(product["asin"])


def alike(a: str, b: str) -> bool:
    """The published rule for attributes and options."""
    return round(fuzz.token_set_ratio(a, b, processor=utils.default_process)) > 85


def texts(asin: str) -> str:
    p = PRODUCTS[asin]
    return " \n ".join([p["name"], *p["small_description"], p["full_description"]]).lower()


def options(asin: str) -> dict[str, list[str]]:
    found = PRODUCTS[asin]["customization_options"].items()
    return {name.lower(): [choice["value"].lower() for choice in choices] for name, choices in found}


def price(asin: str) -> float:
    return float(PRODUCTS[asin]["pricing"].split("$")[-1])


def paid(asin: str, goal: dict) -> list[dict[str, str]]:
    """The choices of options with which this product earns the whole reward, by the published rules."""
    met = all(
        any(alike(own, wanted) for own in TRUTH[asin]) or wanted in texts(asin)
        for wanted in goal["instruction_attributes"]
    )
    if not met or price(asin) > goal["price_upper"]:
        return []
    choices = [dict(zip(options(asin), values)) for values in itertools.product(*options(asin).values())]
    return [c for c in choices if all(any(alike(v, o) for v in c.values()) for o in goal["instruction_options"])]


def wording(asin: str) -> str:
    """What tells a product from others by its text, but for the brand: features, price, names of options."""
    brands = sorted(catalogue.TABLES["brands"], key=len, reverse=True)
    text = texts(asin)
    for brand in brands:
        text = text.replace(brand.lower(), "*")
    return text


def look(picture: str) -> str:
    with Image.open(FOLDER / picture) as image:
        return image.info["Description"]


def pixels(picture: str) -> np.ndarray:
    with Image.open(FOLDER / picture) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def test_it_is_a_shop_of_some_size():
    assert 1000 <= len(PRODUCTS) <= 1100 and len(SHELVES) == len(drawing.SHAPES)
    assert len({p["category"] for p in PRODUCTS.values()}) >= 5
    assert len(GOALS) >= 600 and len({g["instruction"] for g in GOALS}) == len(GOALS)
    assert 0.25 <= np.mean([g["needs_picture"] for g in GOALS]) <= 0.6
    assert sum(f.stat().st_size for f in FOLDER.rglob("*") if f.is_file()) <= 20_000_000
    assert min(Counter(g["instruction_options"] != [] for g in GOALS).values()) > 50


def test_the_records_have_the_fields_of_the_official_files():
    for p in PRODUCTS.values():
        assert set(p) == {
            "name", "full_description", "pricing", "images", "product_category", "average_rating", "small_description",
            "customization_options", "asin", "category", "query", "page",
        }  # fmt: skip
        assert len(p["asin"]) == 10 and p["asin"].startswith("B0") and p["product_category"].count(" › ") == 2
        assert 8 <= len(p["name"].split()) <= 14, p["name"]
    for g in GOALS:
        assert set(g) == {
            "asin", "instruction", "instruction_attributes", "instruction_options", "price_upper", "needs_picture"
        }  # fmt: skip
        assert 1 <= len(g["instruction_attributes"]) <= 3
        assert f"{g['price_upper']:.0f}" in g["instruction"] and g["price_upper"] > price(g["asin"])
        assert "  " not in g["instruction"] and "{" not in g["instruction"]


def test_the_engine_reads_all_of_it():
    shop = Shop(FOLDER)
    assert set(shop.products) == set(PRODUCTS)
    read = {(g["asin"], g["instruction_text"], g["price_upper"]) for g in goals(shop)}
    assert read == {(g["asin"], g["instruction"].strip("."), g["price_upper"]) for g in GOALS}
    for asin, record in PRODUCTS.items():
        assert dict(shop.products[asin].options) == {k: tuple(v) for k, v in options(asin).items()}
        assert shop.picture(Page("item", asin=asin)) == str(FOLDER / record["images"][0])
    styled = next(p for p in PRODUCTS.values() if "Style" in p["customization_options"])
    for choice in styled["customization_options"]["Style"]:
        page = Page("item", asin=styled["asin"], options=(("style", choice["value"].lower()),))
        assert shop.picture(page) == str(FOLDER / choice["image"])


def test_every_goal_is_satisfied_by_its_own_product():
    for goal in GOALS:
        assert paid(goal["asin"], goal), goal


def test_nothing_counts_as_what_it_is_not():
    for shelf in SHELVES.values():
        known = {attribute for asin in shelf for attribute in TRUTH[asin]} | set(drawing.COLOURS)
        for asin in shelf:
            for wanted in known:
                has = any(alike(own, wanted) for own in TRUTH[asin]) or wanted in texts(asin)
                assert has == (wanted in TRUTH[asin]), (PRODUCTS[asin]["name"], wanted)
            for a, b in itertools.combinations([v for values in options(asin).values() for v in values], 2):
                assert not alike(a, b)


def test_kinds_of_things_are_kept_apart():
    paths = [set(PRODUCTS[shelf[0]]["product_category"].split(" › ")) for shelf in SHELVES.values()]
    for a, b in itertools.combinations(paths, 2):
        assert len(a & b) < 2  # two shared names would make a mug a plate to the reward


def test_near_duplicates_differ_in_one_feature_and_prices_trade_off():
    for shelf in SHELVES.values():
        fewer = swapped = 0
        for a, b in itertools.permutations(shelf, 2):
            one, other = set(TRUTH[a]), set(TRUTH[b])
            if options(a) == options(b):
                fewer += len(one - other) == 1 and other < one and price(b) < 0.9 * price(a)
                swapped += len(one - other) == len(other - one) == 1
        assert fewer >= 5 and swapped >= 5
    decided_by_text = [g for g in GOALS if not g["needs_picture"]]
    bargains = [
        any(price(asin) < 0.8 * price(g["asin"]) and paid(asin, g) for asin in SHELVES[PRODUCTS[g["asin"]]["query"]])
        for g in decided_by_text
    ]
    assert np.mean(bargains) > 0.3


def test_goals_that_need_the_picture_are_at_chance_without_it():
    shown = set(drawing.PATTERNS) | set(drawing.COLOURS) | {"stripe", "dotted", "check", "flower"}
    for goal in (g for g in GOALS if g["needs_picture"]):
        shelf = SHELVES[PRODUCTS[goal["asin"]]["query"]]
        twins = [a for a in shelf if wording(a) == wording(goal["asin"])]
        assert len({price(a) for a in twins if price(a) > 0.8 * max(map(price, twins))}) == 1
        assert max(map(price, twins)) < goal["price_upper"]  # so the cap does not tell either
        styles = set(STYLE_NAMES) & set(goal["instruction_options"])
        right, tries = 0, 0
        for asin in twins:
            page = texts(asin) + str(options(asin)).lower()
            assert not [word for word in shown if word in page]
            assert not [code for code in STYLE_NAMES if code in texts(asin)]
            good = paid(asin, goal)
            for value in next((v for name, v in options(asin).items() if name != "size"), [""]):
                right += any(value in choice.values() or not value for choice in good)
                tries += 1
        assert tries >= 4 and 0 < right <= tries / 2 and len(styles) <= 1
        assert all(a in twins for a in shelf if paid(a, goal)) or not styles


def test_names_of_styles_say_nothing():
    for shelf in SHELVES.values():
        names = [v for a in shelf for vs in options(a).values() for v in vs if v in STYLE_NAMES]
        assert len(set(names)) == len(names) >= 12  # one name, one style of one product
    for code in STYLE_NAMES:
        assert not [word for word in COLOUR_WORDS if word in code]
    meant = defaultdict(set)
    for p in PRODUCTS.values():
        for choice in itertools.chain(*p["customization_options"].values()):
            if choice["value"].lower() in STYLE_NAMES:
                meant[choice["value"]].add(tuple(look(choice["image"]).split()[:2]))
    assert min(map(len, meant.values())) > 5


def test_colors_in_the_text_are_those_of_the_picture_and_styles_look_different():
    used = []
    for p in PRODUCTS.values():
        used += p["images"]
        seen = [look(picture).removesuffix(f" {name}") for picture in p["images"] for name in [kind_of(p)]]
        assert len(set(seen)) == len(seen)
        for choice in p["customization_options"].get("Color", []):
            if choice["value"].lower() in drawing.COLOURS:
                assert look(choice["image"]).startswith(choice["value"].lower() + " ")
        if not set(drawing.COLOURS) & set(options(p["asin"]).get("color", [])):
            continue
        [pattern] = {words.partition(" ")[2] for words in seen}
        assert pattern in TRUTH[p["asin"]] and pattern in p["name"].lower()
    assert len(set(used)) == len(used) and set(used) == {f"pictures/{f.name}" for f in FOLDER.glob("pictures/*")}


def kind_of(record: dict) -> str:
    return next(kind.name for kind in catalogue.KINDS if kind.plural == record["query"])


@pytest.mark.parametrize("kind", drawing.SHAPES)
def test_a_picture_shows_its_colour_and_pattern(kind):
    """By pixels: the colour is there, no other colour of the palette is, and a pattern adds a second tone to it."""
    for n, colour in enumerate(drawing.COLOURS):
        shades = {}
        for pattern in ("plain", drawing.PATTERNS[1 + n % 4]):
            image = Image.open(io.BytesIO(drawing.picture(kind, colour, pattern, 7))).convert("RGB")
            assert image.size == (128, 128)
            rgb = np.asarray(image, dtype=np.int16).reshape(-1, 1, 3)
            near = (abs(rgb - np.array(list(drawing.COLOURS.values()))).max(2) < 14).mean(0)  # [colours]
            shades[pattern] = near[n]
            others = np.delete(near, [n, *(list(drawing.COLOURS).index(c) for c in ("white", "black"))])
            assert near[n] > 0.02 and others.max() < 0.01, (colour, pattern, near.round(3))
        plain, patterned = shades.values()
        assert patterned < 0.93 * plain, (colour, plain, patterned)


def test_the_same_look_twice_is_not_the_same_picture():
    a, b = (drawing.picture("mug", "green", "striped", seed) for seed in (1, 2))
    assert a != b and a == drawing.picture("mug", "green", "striped", 1)
    with pytest.raises(ValueError, match="no shape for 'sofa'.*mug"):
        drawing.picture("sofa", "green", "striped", 1)


def test_shoppers_word_it_in_many_ways():
    openings = Counter(" ".join(g["instruction"].split()[:3]) for g in GOALS)
    assert len(openings) > 60 and openings.most_common(1)[0][1] < 0.1 * len(GOALS)
    endings = Counter(" ".join(g["instruction"].split()[-2:]) for g in GOALS)
    assert len(endings) > 60


# Made once, the same everywhere


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A shop of one kind, for what need not be seen on all, in an empty cache."""
    monkeypatch.setenv("ARMAP_CACHE", str(tmp_path))
    monkeypatch.setattr(catalogue, "KINDS", catalogue.KINDS[10:11])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.mark.slow
def test_another_process_makes_the_same_bytes_and_another_seed_another_shop(small, tmp_path):
    here = contents(catalogue.build(3))
    code = "from armap_lite.envs.webshop.builtin import catalogue as c\nc.KINDS = c.KINDS[10:11]; print(c.build(3))"
    env = os.environ | {"PYTHONHASHSEED": "1", "ARMAP_CACHE": str(tmp_path / "there")}
    made = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert contents(Path(made.stdout.decode().strip())) == here
    assert contents(catalogue.build(4))["items_shuffle.json"] != here["items_shuffle.json"]


@pytest.mark.slow
def test_a_damaged_shop_is_made_again_and_a_sound_one_is_not(small, tmp_path, monkeypatch):
    folder = catalogue.build()
    whole, made = contents(folder), folder.stat().st_ino
    assert catalogue.build() == folder and folder.stat().st_ino == made
    picture = next(folder.glob("pictures/*.png"))
    for damage in (lambda: picture.write_bytes(b""), picture.unlink, (folder / "items_ins_v2.json").unlink):
        damage()
        assert catalogue.build() == folder and contents(folder) == whole
    assert [f.name for f in tmp_path.iterdir() if not f.name.startswith(".")] == [folder.name]
    picture.unlink()
    monkeypatch.setattr(drawing, "picture", lambda *_: 1 / 0)  # it breaks off half-way: what is there stays
    with pytest.raises(ZeroDivisionError):
        catalogue.build()
    assert len(contents(folder)) == len(whole) - 1


def test_it_lies_in_the_cache_of_the_assets(small, tmp_path):
    assert catalogue.build().parent == tmp_path
    digests = json.loads((catalogue.build() / "sha256.json").read_text(encoding="utf-8"))
    assert all(hashlib.sha256((catalogue.build() / f).read_bytes()).hexdigest() == d for f, d in digests.items())


def test_its_name_changes_with_each_table(small, monkeypatch):
    for name in ("catalogue.json", "drawing.json", "drawing.py"):
        assert (Path(catalogue.__file__).with_name(name)).read_bytes() in catalogue.sources()
    first = catalogue.build()
    monkeypatch.setattr(catalogue, "sources", lambda: b"another table")
    assert catalogue.build() != first
