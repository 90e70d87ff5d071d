"""The shop: products, search, pages and links, by the published rules of WebShop (arXiv 2207.01206).

A page is a small immutable record and a link leads from page to page, so a session is one `Page`, and any number of
sessions share one loaded `Shop`. Nothing here knows a goal.
"""

import contextlib
import functools
import importlib
import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from armap_lite.rng import derive_seed
from armap_lite.storage.assets import how_to_install
from armap_lite.storage.store import read_json

MAX_RESULTS, PRODUCTS_PER_PAGE = 50, 10  # products that a search finds, and those shown on one page
THANKS = "Thank you for shopping with us!"
SEP = " [SEP] "
OFFICIAL = "get WebShop's own file again"
TOKEN = r"(?u)\w+(?:[.']\w+)*"  # of Lucene's English analyzer: "8", "b" and "12.5" are words, too
WORDS: dict[str, Any] = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))
ACTION = re.compile(r"(search|click)\[(.+)\]", re.DOTALL)


@dataclass(frozen=True)
class Product:
    """One product. Option values are in lower case, as they are clicked."""

    asin: str
    title: str
    description: str
    features: tuple[str, ...]
    query: str
    product_category: str
    options: dict[str, tuple[str, ...]]
    price: float  # as paid, in dollars
    price_text: str  # as shown
    images: dict[str, str]  # option value -> file in the folder; "" -> the product's own


class Page(NamedTuple):
    """Where a session is."""

    kind: str = "search"  # search, results, item, description, features, reviews, done
    query: str = ""
    number: int = 1  # of the page of results
    asin: str = ""
    options: tuple[tuple[str, str], ...] = ()  # chosen so far, the last one last
    clicked: str = ""  # the option value that was clicked just now


class Line(NamedTuple):
    """One line of a page: the name of an option, what can be clicked, text."""

    option: str = ""
    links: tuple[str, ...] = ()
    text: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, [self.option, (", " if self.option else " ").join(self.links), self.text]))


class Shop:
    """The products of a folder with WebShop's own files, and their BM25 index (Lucene's formula, k1 0.9, b 0.4)."""

    def __init__(self, folder: Path | str):
        """Raises FileNotFoundError where `folder` lacks the products, ValueError where they cannot be read."""
        bm25s = require("bm25s")
        self.folder = Path(folder)
        self.products: dict[str, Product] = {}
        file = data_file(self.folder, "items_shuffle")
        for number, raw in enumerate(read_json(file, OFFICIAL, list), 1):
            with reading(file, f"product {number} (asin {raw.get('asin') if isinstance(raw, dict) else raw})"):
                if raw["asin"] != "nan" and len(raw["asin"]) <= 10:  # what the official loader leaves out, too
                    self.products.setdefault(raw["asin"], _product(raw))
        self.asins = list(self.products)
        self._tokenize = functools.partial(
            bm25s.tokenize, token_pattern=TOKEN, stopwords="en", stemmer=stemmer(), show_progress=False
        )
        self._index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
        self._index.index(self._tokenize([_indexed_text(p) for p in self.products.values()]), show_progress=False)
        self.search = functools.lru_cache(4096)(self._search)
        self.links = functools.lru_cache(256)(self._links)

    def _search(self, words: str) -> tuple[str, ...]:
        """The asins that fit `words`, best first, at most MAX_RESULTS."""
        [tokens] = self._tokenize(words, return_ids=False)
        if not tokens:
            return ()
        scores = self._index.get_scores(tokens)  # [products]
        best = np.argsort(-scores, kind="stable")[:MAX_RESULTS]
        return tuple(self.asins[i] for i in best if scores[i] > 0)

    def step(self, page: Page, action: str) -> Page | None:
        """The page that `action` leads to from `page`; None where it does nothing."""
        match = ACTION.fullmatch(action.strip())
        words = " ".join(match[2].lower().split()) if match else ""
        if match and match[1] == "click":
            return self.links(page).get(words)
        return Page("results", words) if page.kind == "search" and words else None

    def page_after(self, actions: Iterable[str]) -> Page:
        """The page that `actions` lead to from the start."""
        page = Page()
        for action in actions:
            page = self.step(page, action) or page
        return page

    def _links(self, page: Page) -> dict[str, Page]:
        """What can be clicked on `page`, in lower case, and where it leads."""
        if page.kind in ("search", "done"):
            return {}
        links = {"back to search": Page()}
        if page.kind == "results":
            if page.number > 1:
                links["< prev"] = page._replace(number=page.number - 1)
            if page.number * PRODUCTS_PER_PAGE < len(self.search(page.query)):
                links["next >"] = page._replace(number=page.number + 1)
            links |= {asin.lower(): page._replace(kind="item", asin=asin) for asin in self._shown(page)}
        elif page.kind == "item":
            links["< prev"] = Page("results", page.query, page.number)
            for kind in ("description", "features", "reviews"):
                links[kind] = page._replace(kind=kind, clicked="")
            links["buy now"] = page._replace(kind="done", clicked="")
            for name, values in self.products[page.asin].options.items():
                others = tuple((n, v) for n, v in page.options if n != name)
                for value in values:
                    links[value] = page._replace(options=(*others, (name, value)), clicked=value)
        else:
            links["< prev"] = page._replace(kind="item")
        return links

    def _shown(self, page: Page) -> tuple[str, ...]:
        return self.search(page.query)[(page.number - 1) * PRODUCTS_PER_PAGE : page.number * PRODUCTS_PER_PAGE]

    def text(self, page: Page) -> str:
        """The lines of `page` joined by [SEP], without the instruction, which stands first in a trajectory."""
        return SEP.join(map(str, self.lines(page)))

    def lines(self, page: Page) -> list[Line]:
        """The visible lines of `page`.

        What belongs together (a hit's asin, title and price; the values of one option) is one line, and a click on
        an option shows what is left to choose, not the whole page again: every token of it would be read again.
        """
        if page.kind == "search":
            return [Line(text="WebShop"), Line(text="Search")]
        if page.kind == "results":
            found, links = self.search(page.query), self.links(page)
            buttons = tuple(name for name in ("Back to Search", "< Prev", "Next >") if name.lower() in links)
            hits = (self.products[asin] for asin in self._shown(page))
            head = Line("", buttons, f"Page {page.number} (Total results: {len(found)})")
            return [head, *(Line("", (hit.asin,), f"{hit.title} {hit.price_text}") for hit in hits)]
        product, chosen = self.products[page.asin], dict(page.options)
        if page.kind == "done":  # the official page shows the score here; this one, what was paid
            options = [f"{name}: {value}" for name, value in page.options]
            receipt = [THANKS, "Purchased", product.asin, product.title, f"${product.price:.2f}", *options]
            return [Line(text=text) for text in receipt]
        buy, choices = Line("", ("Buy Now",)), {n: Line(f"{n}:", values) for n, values in product.options.items()}
        if page.clicked:
            left = [line for name, line in choices.items() if name not in chosen]
            return [Line(text=f"You have clicked {page.clicked}."), *left, buy]
        if page.kind == "item":
            head, rating = Line(text=f"Price: {product.price_text}"), Line(text="Rating: N.A.")
            subpages = Line("", ("Description", "Features", "Reviews"))
            return [Line(text=product.title), head, rating, *choices.values(), subpages, buy]
        texts = {"description": (product.description,), "features": product.features, "reviews": ()}[page.kind]
        return [Line("", ("Back to Search", "< Prev")), *(Line(text=text) for text in texts)]

    def picture(self, page: Page) -> str | None:
        """The picture on an item's page, and on the receipt: that of the chosen option, else the product's, or None."""
        if page.kind not in ("item", "done"):
            return None
        images = self.products[page.asin].images
        name = next((images[v] for _, v in reversed(page.options) if v in images), images.get("", ""))
        path = self.folder / name
        return str(path) if name and "://" not in name and path.is_file() else None


def require(module: str) -> Any:
    """Import a module of the extra; ModuleNotFoundError with the way out where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        way_out = how_to_install("webshop")
        raise ModuleNotFoundError(f"WebShop needs a package that is not there ({error}); {way_out}") from error


@functools.cache
def stemmer() -> Any:
    return require("Stemmer").Stemmer("porter")


def load(folder: Path | str | None = None) -> Shop:
    """The shop of `folder`, loaded once per process; by default the catalogue that this package makes."""
    if folder is None:
        from armap_lite.envs.webshop.builtin.catalogue import build

        folder = build()
    return _cached_shop(Path(folder).absolute())


_cached_shop = functools.lru_cache(4)(Shop)


def data_file(folder: Path, stem: str) -> Path:
    """`stem`*.json in `folder`. Raises FileNotFoundError where there is none, ValueError where there are several."""
    found = sorted(folder.glob(f"{stem}*.json"))
    if not found:
        raise FileNotFoundError(
            f"{folder} has no {stem}*.json; WebShop's setup.sh (github.com/princeton-nlp/WebShop) downloads "
            "items_shuffle_1000.json or items_shuffle.json, items_ins_v2_1000.json or items_ins_v2.json, and "
            "items_human_ins.json: put one set into one folder"
        )
    if len(found) > 1:
        raise ValueError(f"{folder} has {', '.join(p.name for p in found)}; keep one set of files in a folder")
    return found[0]


@contextlib.contextmanager
def reading(file: Path, what: str) -> Iterator[None]:
    """Turn what goes wrong with a record that lacks a field or has an odd one into a ValueError that names it."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        why = f"has no field {error}" if isinstance(error, KeyError) else f"has a field of another kind ({error})"
        raise ValueError(f"{file}: {what} {why}; mend or delete it: WebShop's own files show the format") from error


def _one_line(text: str) -> str:
    """`text` on one line, and without what separates strings in an observation."""
    return " ".join(text.replace("[SEP]", "(SEP)").split())


def _indexed_text(product: Product) -> str:
    """What the search reads of a product: the fields of the official index."""
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    return " ".join([product.title, product.description, *product.features[:1], options])


def _product(raw: dict[str, Any]) -> Product:
    """One raw record as the shop holds it, by the rules of the official loader."""
    prices = [float(re.sub(r"[^\d.]", "", part)) for part in (raw.get("pricing") or "").split("$")[1:]][:2] or [100.0]
    options: dict[str, list[str]] = {}
    images = {"": (raw.get("images") or [""])[0]}
    for name, contents in (raw.get("customization_options") or {}).items():
        for content in contents or ():
            value = _one_line(content["value"].replace("/", " | ")).lower()
            options.setdefault(_one_line(name).lower(), []).append(value)
            if content.get("image"):
                images[value] = content["image"]
    bullets = raw["small_description"]
    return Product(
        asin=raw["asin"],
        title=_one_line(raw["name"]),
        description=_one_line(raw["full_description"] or ""),
        features=tuple(map(_one_line, bullets if isinstance(bullets, list) else [bullets])),
        query=raw["query"].lower().strip(),
        product_category=raw["product_category"],
        options={name: tuple(values) for name, values in options.items()},
        price=random.Random(derive_seed(0, raw["asin"])).uniform(*prices) if len(prices) > 1 else prices[0],
        price_text=" to ".join(f"${price}" for price in prices),
        images=images,
    )
