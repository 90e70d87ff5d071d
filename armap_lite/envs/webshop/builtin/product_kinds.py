"""What the made shop sells: the kinds of products in catalogue.json, what they are made of, may be and may have.

Within a kind, no two features are alike to WebShop's reward (a fuzzy comparison of words), and none contains the
letters of a colour or pattern ("red" is in "layered"): otherwise a wrong product would be rewarded as a right one.
"""

from __future__ import annotations

from dataclasses import dataclass

from armap_lite.envs.webshop.tables import table


@dataclass(frozen=True)
class Kind:
    """One kind of product. A feature is a material ("made of"), a quality that it is, or a part that it has."""

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


TABLES = table("builtin/catalogue")
KINDS = [Kind(**row, qualities=TABLES["qualities"][row["category"]]) for row in TABLES["kinds"]]
