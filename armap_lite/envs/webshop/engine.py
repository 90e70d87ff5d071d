"""The shop: products, search, pages and links, by the published rules of WebShop (arXiv 2207.01206).

A page is a small immutable record and a link leads from page to page, so a session is one `Page` and any number of
them share one loaded `Shop`. Nothing here knows what anybody wants to buy.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from armap_lite.rng import derive_seed

MAX_RESULTS, PRODUCTS_PER_PAGE = 50, 10  # products that a search finds, and those shown on one page
THANKS = "Thank you for shopping with us!"
SEP = " [SEP] "
TOKEN = r"(?u)\w+(?:[.']\w+)*"  # as Lucene cuts English: "8", "b" and "12.5" are words, too
SUBPAGES = ("Description", "Features", "Reviews")


@dataclass(frozen=True)
class Product:
    """One product. Option values are lower-case, as they are clicked; `tag` is the price as shown, `price` as paid."""

    asin: str
    title: str
    description: str
    features: tuple[str, ...]
    category: str
    query: str
    product_category: str
    options: dict[str, tuple[str, ...]]
    price: float
    tag: str
    images: dict[str, str]  # option value -> file in the folder; "" -> the product's own


class Page(NamedTuple):
    """Where a session is; `note` is the option value that was clicked just now."""

    kind: str = "search"  # search, results, item, description, features, reviews, done
    words: str = ""
    number: int = 1
    asin: str = ""
    options: tuple[tuple[str, str], ...] = ()
    note: str = ""


class Shop:
    """The products of a folder with WebShop's own files, and their BM25 index (Lucene's formula, k1 0.9, b 0.4)."""

    def __init__(self, folder: Path | str):
        """Raises FileNotFoundError where `folder` lacks the products, ValueError where they cannot be read."""
        try:
            import bm25s
        except ImportError as error:
            raise _missing(error) from error
        self.folder = Path(folder)
        self.products: dict[str, Product] = {}
        file = data_file(self.folder, "items_shuffle")
        for number, raw in enumerate(records(file), 1):
            with reading(file, f"product {number} (asin {raw.get('asin')})"):
                if raw["asin"] != "nan" and len(raw["asin"]) <= 10:  # what the official loader leaves out, too
                    self.products.setdefault(raw["asin"], _product(raw))
        self.asins = list(self.products)
        self._cut = functools.partial(
            bm25s.tokenize, token_pattern=TOKEN, stopwords="en", stemmer=stemmer(), show_progress=False
        )
        self._index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
        self._index.index(self._cut([_indexed(p) for p in self.products.values()]), show_progress=False)
        self.search = functools.lru_cache(4096)(self._search)
        self.links = functools.lru_cache(256)(self._links)

    def _search(self, words: str) -> tuple[str, ...]:
        """The asins that fit `words`, best first, at most MAX_RESULTS."""
        [tokens] = self._cut(words, return_ids=False)
        if not tokens:
            return ()
        scores = self._index.get_scores(tokens)  # [products]
        best = np.argsort(-scores, kind="stable")[:MAX_RESULTS]
        return tuple(self.asins[i] for i in best if scores[i] > 0)

    def _links(self, page: Page) -> dict[str, Page]:
        """What can be clicked on `page`, in lower case, and where it leads."""
        if page.kind in ("search", "done"):
            return {}
        links = {"back to search": Page()}
        if page.kind == "results":
            found = self.search(page.words)
            if page.number > 1:
                links["< prev"] = page._replace(number=page.number - 1)
            if page.number * PRODUCTS_PER_PAGE < len(found):
                links["next >"] = page._replace(number=page.number + 1)
            links |= {asin.lower(): page._replace(kind="item", asin=asin) for asin in self._shown(page)}
        elif page.kind == "item":
            links["< prev"] = Page("results", page.words, page.number)
            for name in SUBPAGES:
                links[name.lower()] = page._replace(kind=name.lower(), note="")
            links["buy now"] = page._replace(kind="done", note="")
            for name, values in self.products[page.asin].options.items():
                others = tuple((n, v) for n, v in page.options if n != name)
                for value in values:  # the one that was clicked last is last: the picture is that of the last
                    links[value] = page._replace(options=(*others, (name, value)), note=value)
        else:
            links["< prev"] = page._replace(kind="item")
        return links

    def _shown(self, page: Page) -> tuple[str, ...]:
        return self.search(page.words)[(page.number - 1) * PRODUCTS_PER_PAGE : page.number * PRODUCTS_PER_PAGE]

    def text(self, page: Page) -> str:
        """The visible strings of `page` joined by [SEP], without the instruction, which stands first in a trajectory.

        What belongs together (a hit's asin, title and price; the values of one option) is one string, and a click on
        an option shows what is left to choose, not the whole page again: every token of it would be read again.
        """
        if page.kind == "search":
            return f"WebShop{SEP}Search"
        if page.kind == "results":
            found = self.search(page.words)
            shown = [self.products[asin] for asin in self._shown(page)]
            buttons = ["Back to Search", *(b for b in ("< Prev", "Next >") if b.lower() in self.links(page))]
            head = f"{' '.join(buttons)} Page {page.number} (Total results: {len(found)})"
            return SEP.join([head, *(f"{p.asin} {p.title} {p.tag}" for p in shown)])
        product, chosen = self.products[page.asin], dict(page.options)
        options = {name: values for name, values in product.options.items() if not (page.note and name in chosen)}
        choices = [f"{name}: {', '.join(values)}" for name, values in options.items()]
        if page.kind == "done":  # the official page shows the score here; this one, what was paid
            bought = [f"{name}: {value}" for name, value in page.options]
            return SEP.join([THANKS, "Purchased", product.asin, product.title, f"${product.price:.2f}", *bought])
        if page.note:
            return SEP.join([f"You have clicked {page.note}.", *choices, "Buy Now"])
        if page.kind == "item":
            buttons = ["Description Features Reviews", "Buy Now"]
            return SEP.join([product.title, f"Price: {product.tag}", "Rating: N.A.", *choices, *buttons])
        texts = {"description": (product.description,), "features": product.features, "reviews": ()}[page.kind]
        return SEP.join(["Back to Search < Prev", *texts])

    def picture(self, page: Page) -> str | None:
        """The picture on an item's page, and on the receipt: that of the chosen option, else the product's, or None."""
        if page.kind not in ("item", "done"):
            return None
        images = self.products[page.asin].images
        name = next((images[v] for _, v in reversed(page.options) if v in images), images.get("", ""))
        path = self.folder / name
        return str(path) if name and "://" not in name and path.is_file() else None


ACTION = re.compile(r"(search|click)\[(.+)\]", re.DOTALL)


def step(shop: Shop, page: Page, action: str) -> Page | None:
    """The page that `action` leads to from `page`; None where it does nothing."""
    match = ACTION.fullmatch(action.strip())
    if match is None:
        return None
    words = " ".join(match[2].lower().split())
    if match[1] == "click":
        return shop.links(page).get(words)
    return Page("results", words) if page.kind == "search" and words else None


@functools.cache
def stemmer() -> Any:
    try:
        import Stemmer
    except ImportError as error:
        raise _missing(error) from error
    return Stemmer.Stemmer("porter")


def _missing(error: ImportError) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"WebShop needs a package that is not there ({error}); 'pip install armap-lite[webshop]'"
    )


def load(folder: Path | str | None = None) -> Shop:
    """The shop of `folder`, loaded once per process; by default the catalogue that this package makes."""
    if folder is None:
        from armap_lite.envs.webshop.builtin.catalogue import build

        folder = build()
    return _load(Path(folder).absolute())


@functools.lru_cache(4)
def _load(folder: Path) -> Shop:
    return Shop(folder)


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


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list, one by one: the full set has 1.18 million, too many to hold as they come."""
    decoder, text = json.JSONDecoder(), ""
    with open(path, encoding="utf-8") as file:
        while True:
            more = file.read(1 << 20)
            text, at = text + more, 0
            while match := re.compile(r"[\s,\[]*(?=\{)").match(text, at):
                try:
                    record, at = decoder.raw_decode(text, match.end())
                except json.JSONDecodeError:  # not all of it is there yet
                    break
                yield record
            text = text[at:]
            if not more:
                break
    if text.strip() not in ("]", "[]"):
        raise ValueError(f"{path} ends in {text[-40:]!r}, not in ']': it is not a whole JSON list; get it again")


@contextlib.contextmanager
def reading(file: Path, what: str) -> Iterator[None]:
    """Turn what goes wrong with a record that lacks a field or has an odd one into a ValueError that names it."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        why = f"has no field {error}" if isinstance(error, KeyError) else f"has a field of another kind ({error})"
        raise ValueError(f"{file}: {what} {why}; mend or delete it: WebShop's own files show the format") from error


def _line(text: str) -> str:
    """`text` on one line, and without what separates strings in an observation."""
    return " ".join(text.replace("[SEP]", "(SEP)").split())


def _indexed(product: Product) -> str:
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
            value = _line(content["value"].replace("/", " | ")).lower()
            options.setdefault(_line(name).lower(), []).append(value)
            if content.get("image"):
                images[value] = content["image"]
    bullets = raw["small_description"]
    return Product(
        asin=raw["asin"],
        title=_line(raw["name"]),
        description=_line(raw["full_description"] or ""),
        features=tuple(map(_line, bullets if isinstance(bullets, list) else [bullets])),
        category=raw["category"],
        query=raw["query"].lower().strip(),
        product_category=raw["product_category"],
        options={name: tuple(values) for name, values in options.items()},
        price=random.Random(derive_seed(0, raw["asin"])).uniform(*prices) if len(prices) > 1 else prices[0],
        tag=" to ".join(f"${price}" for price in prices),
        images=images,
    )
