"""What the embedded shop sells: kinds of things, what they are made of, may be and may have. Tables, and nothing else.

Within a kind no feature is like another to the shop's reward (a ratio of shared words), and none has the letters of a
colour or pattern in it ("red" is in "layered"): what is wanted stays apart from what is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


def _list(text: str) -> list[str]:
    return [part for part in map(str.strip, text.replace("\n", " ").split(",")) if part]


# Two lines a kind: name (a key of drawing.SHAPES) | category | department, section | lowest and highest price | sizes,
# then its materials | what it may have; what it may be is shared by its category, below.
KINDS = """
t-shirt | fashion | Clothing, Tops | 9 28 | small, medium, large, xl
    cotton, linen, bamboo jersey | chest pocket, side slits, raglan sleeves, ribbed cuffs
dress | fashion | Clothing, Day Wear | 22 60 | small, medium, large, xl
    viscose, linen, cotton voile | side pockets, hidden zipper, pleated hem, cap sleeves
hoodie | fashion | Clothing, Sweatshirts | 24 60 | small, medium, large, xl
    fleece, french terry, cotton | kangaroo pocket, thumb holes, ribbed cuffs, brushed lining
lounge trousers | fashion | Clothing, Nightwear | 16 42 | small, medium, large, xl
    flannel, modal, cotton | side pockets, drawstring waist, button fly, ankle cuffs
crew socks | fashion | Clothing, Hosiery | 6 18 | small, medium, large
    merino wool, cotton, bamboo viscose | arch support, flat toe seam, padded sole, silicone grip
beanie | fashion | Clothing, Headwear | 9 30 |
    merino wool, acrylic, cashmere | fleece lining, turn-up brim, ear flaps, ponytail slot
sneakers | bags | Shoes, Trainers | 28 90 | 6, 7, 8, 9, 10
    canvas, suede, knit mesh | arch support, memory foam insole, heel tab, rubber toe cap
rain boots | bags | Shoes, Wellingtons | 24 70 | 6, 7, 8, 9, 10
    natural rubber, vinyl, neoprene | pull loops, fleece lining, deep tread, side buckle
backpack | bags | Luggage, Daypacks | 26 88 |
    nylon, canvas, recycled polyester | laptop compartment, chest strap, bottle pocket, hidden back pocket
tote bag | bags | Luggage, Shoppers | 8 34 |
    jute, canvas, nylon | inner pocket, zip closure, key clip, reinforced base
mug | kitchen | Kitchen, Cups | 7 24 | 8 oz, 12 oz, 16 oz
    stoneware, porcelain, bone china | wide handle, bamboo lid, cork base, pouring lip
bowl | kitchen | Kitchen, Tableware | 8 30 | small, medium, large
    stoneware, porcelain, melamine | bamboo lid, steep rim, anti-slip foot, pouring lip
teapot | kitchen | Kitchen, Tea Things | 18 58 |
    stoneware, cast iron, porcelain | removable infuser, drip-free spout, warming stand, insulated handle
apron | kitchen | Kitchen, Cook Wear | 11 36 |
    cotton twill, linen, hemp | adjustable neck strap, front pockets, towel loop, cross back
water bottle | kitchen | Kitchen, Drinking Flasks | 12 38 | 17 oz, 25 oz, 34 oz
    stainless steel, aluminium, tritan | carry loop, straw lid, wide mouth, silicone foot
plate | kitchen | Kitchen, Dishes | 6 22 | small, medium, large
    stoneware, porcelain, melamine | steep rim, anti-slip foot, hanging hole, divided wells
armchair | furniture | Furniture, Seating | 120 380 |
    linen, velvet, boucle | hidden storage, swivel base, lumbar cushion, solid beech legs
table lamp | furniture | Lighting, Bedside Lamps | 22 78 | small, medium, large
    linen, rice paper, cotton twill | touch dimmer, charging port, pull chain, weighted base
rug | furniture | Floors, Carpets | 32 160 | 3x5, 5x8, 8x10
    wool, jute, recycled polyester | anti-slip backing, knotted fringe, bound edges, thick pile
curtains | furniture | Windows, Drapes | 20 80 | 63in, 84in, 96in
    linen, velvet, cotton voile | thermal lining, rod pocket, tie backs, steel eyelets
throw pillow | furniture | Bedding, Cushions | 9 34 | 16in, 20in, 24in
    linen, velvet, cotton | hidden zipper, feather filling, piped edges, removable case
vase | furniture | Decor, Vessels | 12 48 | small, medium, large
    stoneware, frosted glass, earthenware | narrow neck, felt base, inner grid, hand-thrown body
bar stool | furniture | Dining, Counter Seats | 48 150 | 24in, 30in
    velvet, vegan leather, linen | swivel base, foot rest, solid beech legs, stacking frame
makeup pouch | beauty | Beauty, Travel Cases | 8 28 | small, medium, large
    nylon, canvas, vegan leather | brush slots, wrist strap, inner pocket, wide mouth
soap dispenser | beauty | Bathroom, Hand Care | 9 32 | 8 oz, 12 oz, 16 oz
    stoneware, frosted glass, acrylic | steel pump, writable label, silicone foot, refill window
hair bow | beauty | Hair, Clips | 4 16 | small, medium, large
    silk, grosgrain, velvet | alligator clip, elastic band, long tails, anti-slip teeth
phone case | electronics | Phones, Covers | 8 36 |
    silicone, vegan leather, polycarbonate | card slot, kickstand, camera guard, wrist strap
headphones | electronics | Audio, Over-Ear | 38 190 |
    bio plastic, vegan leather, aluminium | detachable cable, volume dial, carrying case, built-in microphone
speaker | electronics | Music, Portable Sound | 34 170 |
    plywood, aluminium, felt | aux input, carrying case, volume dial, stereo link
laptop sleeve | electronics | Computers, Covers & Cases | 14 48 | 13in, 14in, 16in
    neoprene, felt, vegan leather | cable pocket, magnetic flap, corner bumpers, carrying case
plant pot | garden | Garden, Planters | 9 44 | small, medium, large
    earthenware, stoneware, recycled plastic | drainage hole, bamboo saucer, hanging rope, watering window
umbrella | garden | Outdoors, Rain Gear | 14 46 |
    pongee, recycled polyester, canvas | automatic opening, carry loop, curved handle, fibreglass ribs
watering can | garden | Yard, Irrigation | 12 46 | 1 l, 2 l, 5 l
    coated steel, recycled plastic, aluminium | long spout, removable rose, level window, wide mouth
"""
DEPARTMENTS = {
    "fashion": "machine washable, quick drying, wrinkle free, breathable, pill resistant, itch free",
    "bags": "water repellent, lightweight, odor free, vegan, easy to clean, tear proof",
    "kitchen": "dishwasher safe, lead free, easy to clean, stain resistant, gift boxed, hand finished",
    "furniture": "easy to assemble, stain resistant, pet friendly, fade resistant, handmade, hypoallergenic",
    "beauty": "travel friendly, cruelty free, easy to clean, leak proof, gift boxed, long lasting",
    "electronics": "shock proof, lightweight, scratch resistant, easy to clean, dust proof, gift boxed",
    "garden": "frost proof, lightweight, corrosion free, uv stable, easy to clean, made to last",
}
BRANDS = _list("""Oakline, Marlow, Fennick, Tessaro, Hollis Pine, Nordvik, Bellamy, Corbel Lane, Quillan, Ravenna,
Sundale, Wexley, Juniper Row, Kestrel, Lumio, Maplehurst, Novella, Ostara, Pembry, Rookwood, Saltmarsh, Thistle,
Umberto, Vesper, Willow Bay, Yarrow, Zelda Home, Arbour, Brindle, Calder, Dovetail, Everly, Foxglove, Gable, Harrow,
Inverness, Jasper, Kindle Moss""")
# Names of styles that say nothing, neither a color nor a letter of any text.
CODES = _list("""aurelia, bosco, cleo, dorian, elio, fjord, gaia, hugo, ines, jonah, kiki, lotta, mika, nils, odette,
pippa, quinn, romy, sven, thea, ulla, vito, wanda, xenia, yuki, zoe, enzo, fabio, gwen, magnus""")


@dataclass(frozen=True)
class Kind:
    """One line of KINDS. A feature is a material ("made of"), what it `is`, or what it `has`."""

    name: str
    category: str
    path: str
    materials: list[str]
    sizes: list[str]
    price: tuple[int, int]
    has: list[str]

    @property
    def is_(self) -> list[str]:
        return _list(DEPARTMENTS[self.category])

    @property
    def plural(self) -> bool:
        return self.name.endswith("s") and not self.name.endswith("ss")

    @property
    def many(self) -> str:
        """The name of several: a shelf's name and a search for it."""
        return self.name if self.plural else self.name + ("es" if self.name.endswith(("ss", "ch", "sh")) else "s")


def kinds() -> Iterator[Kind]:
    """The lines of KINDS."""
    for row in KINDS.strip().replace("\n    ", " | ").splitlines():
        name, category, path, price, sizes, materials, has = (cell.strip() for cell in row.split("|"))
        low, high = map(int, price.split())
        yield Kind(name, category, path.replace(", ", " › "), _list(materials), _list(sizes), (low, high), _list(has))
