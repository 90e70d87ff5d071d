"""A shop small enough to know by heart, in WebShop's own file format, and one as large as a search can show."""

import json
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

SECRET = "unspokenly"  # an attribute that no text of the shop has


def record(asin: str, name: str, price: str = "$12.99", options: Any = "", **more: Any) -> dict[str, Any]:
    return {
        "asin": asin,
        "name": name,
        "full_description": f"About {name}.",
        "small_description": ["first bullet", f"second bullet of {asin}"],
        "pricing": price,
        "images": ["https://far.away/picture.jpg"],
        "product_category": "Kitchen › Cups › Mugs",
        "category": "garden",
        "query": "Mugs ",
        "customization_options": options,
        **more,
    }


def values(**named: str) -> dict[str, Any]:
    """Options as raw files have them; each colour with its own picture."""
    return {
        name: [
            {"value": v, "image": f"pictures/{v}.png" if name == "Color" and v != "Red" else None}
            for v in choices.split(";")
        ]
        for name, choices in named.items()
    }


def products() -> list[dict[str, Any]]:
    colours = values(Color="Red;Blue;Navy/White", Size="8 oz;12 oz")
    mugs = [record(f"B00000000{i}", f"Brand{i} Stoneware Mug, Wide Handle") for i in range(6)]
    return [
        record("B0STRIPED1", "Oakline Striped Mug, Dishwasher Safe, Stoneware", "$14.99", colours, images=["main.png"]),
        record("B0PLAIN001", "Oakline Mug, Dishwasher Safe, Porcelain", "$9.49", values(Color="Red;Blue", Size="8 oz")),
        record("B0RANGE001", "Tall Mug, Wide Handle, Porcelain", "$10.00 to $20.00"),
        record("B0NOPRICE1", "Gift Mug, Stoneware", ""),
        *mugs,
        record(
            "B0LAMP0001", "Reading Lamp, Pull Chain, Linen", "$40.00", query="lamps", product_category="Home › Lamps"
        ),
        record("B0LAMP0002", "Desk Lamp <script>alert(1)</script> [SEP] Linen", "$61.00", query="lamps"),
    ]


def instructions() -> dict[str, list[dict[str, Any]]]:
    def entry(asin: str, text: str, attributes: list[str], options: list[str]) -> dict[str, Any]:
        return {
            "asin": asin,
            "instruction": text,
            "instruction_attributes": [*attributes, SECRET],
            "instruction_options": options,
        }

    rows = []
    for asin in ("B0STRIPED1", "B0PLAIN001"):
        for colour in ("red", "blue"):
            text = f"i am looking for a {colour} mug that is dishwasher safe, size 8 oz."
            rows.append(entry(asin, text, ["dishwasher safe"], [colour, "8 oz"]))
            rows.append(entry(asin, f"find me a striped stoneware mug in {colour}", ["striped", "stoneware"], [colour]))
    for i in range(6):
        rows.append(entry(f"B00000000{i}", "i need a porcelain mug with a wide handle", ["wide handle"], []))
    rows.append(entry("B0LAMP0001", "my sister would like a linen lamp with a pull chain", ["pull chain"], []))
    rows.append({**entry("B0LAMP0002", "left out", [], []), "instruction_attributes": []})
    by_asin: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_asin.setdefault(row["asin"], []).append(row)
    return by_asin


def make_shop(folder: Path) -> Path:
    (folder / "pictures").mkdir(parents=True)
    for path, shown in (("main.png", "red plain mug"), ("pictures/Blue.png", "blue striped mug")):
        alt = PngInfo()
        alt.add_text("Description", shown)
        Image.new("RGB", (4, 4)).save(folder / path, pnginfo=alt)
    attributes = {
        p["asin"]: {
            "attributes": ["wide handle", SECRET],
            "instruction": "Find me mugs",
            "instruction_attributes": ["wide handle"],
        }
        for p in products()
    }
    attributes["B0LAMP0002"] = {"attributes": []}
    for name, content in (
        ("items_shuffle.json", products()),
        ("items_ins_v2.json", attributes),
        ("items_human_ins.json", instructions()),
    ):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def make_long_shop(folder: Path, count: int = 64) -> Path:
    folder.mkdir(parents=True)
    raw = [record(f"B{i:09d}", f"Mug number {i}") for i in range(count)]
    (folder / "items_shuffle_1000.json").write_text(json.dumps(raw, indent=1), encoding="utf-8")
    return folder
