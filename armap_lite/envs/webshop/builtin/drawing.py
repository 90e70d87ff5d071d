"""Pictures of products, drawn from vector shapes: what it is, in which colour and with which pattern.

A shape is text, its parts back to front and divided by `;`: `form role [number] points`, in a square of 100 × 100,
y downward.
Forms: `poly` and `curve` (closed; straight or smooth), `sym` and `symc` (the same, from the right half that is given),
`oval` and `box` (two corners; a box also a radius), `line` (a smooth stroke of the given width).
A `2` before the form adds the mirror image.
Roles: `p` the pattern, `c` plain colour, `d` and `l` its darker and lighter tone, others a material (`MATERIALS`).
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw
from PIL.PngImagePlugin import PngInfo

RGB = tuple[int, int, int]
SIDE, FINE = 128, 3  # pixels of a picture's side, and how many times finer it is drawn
# Told apart by lightness as well as by hue, so that most colour-blind readers can, too.
COLOURS: dict[str, RGB] = {
    "black": (34, 34, 38),
    "white": (253, 253, 250),
    "red": (205, 24, 42),
    "orange": (244, 130, 12),
    "yellow": (250, 220, 40),
    "green": (0, 142, 92),
    "blue": (24, 78, 190),
    "purple": (104, 30, 128),
    "pink": (250, 150, 195),
}
PATTERNS = ("plain", "striped", "polka dot", "plaid", "floral")
MATERIALS: dict[str, RGB] = {
    "m": (168, 174, 182),  # metal
    "w": (176, 128, 82),  # wood
    "g": (106, 148, 74),  # leaves
    "k": (52, 52, 58),  # near black
    "e": (86, 76, 70),  # a dark inside
    "W": (246, 244, 240),  # near white
}
WALLS: tuple[RGB, ...] = ((222, 226, 230), (230, 225, 216), (217, 226, 222), (228, 221, 228))

SHAPES = {
    "t-shirt": """
        sym p 50,29 56,28 61,20 70,22 93,40 83,54 73,47 73,88; line d 3 39,20 43,28 50,31 57,28 61,20""",
    "dress": """
        sym p 50,26 55,24 58,12 64,12 66,30 61,47 84,86 67,90 50,91; poly d 39,45 61,45 62,51 38,51""",
    "hoodie": """
        symc c 50,8 63,13 68,28 60,36 50,36; symc e 50,14 58,18 59,27 50,32;
        sym p 50,34 61,27 72,29 81,40 91,76 79,80 72,56 72,88; poly d 39,64 61,64 67,80 33,80; line W 1.5 46,35 45,48;
        line W 1.5 54,35 55,48""",
    "lounge trousers": """
        sym p 50,12 69,12 77,90 56,90 50,42; sym d 50,12 69,12 70,19 50,19; line W 1.5 49,19 45,31;
        line W 1.5 51,19 55,31""",
    "crew socks": """
        curve p 52,12 70,12 71,36 72,52 86,62 93,72 86,82 72,80 55,68 51,54 52,36; poly d 51,10 71,10 71,19 51,19;
        curve p 16,16 34,16 35,40 36,56 50,66 57,76 50,86 36,84 19,72 15,58 16,40; poly d 15,14 35,14 35,23 15,23;
        curve d 50,66 58,76 50,87 43,84 44,72; curve d 86,62 94,72 86,83 79,80 80,68""",
    "beanie": """
        oval c 40,6 60,26; symc p 50,20 66,24 77,42 79,66 50,68; box d 18,60 82,80 6; 2line e 1 34,63 34,77;
        2line e 1 44,63 44,77; 2line e 1 26,63 26,77""",
    "sneakers": """
        poly p 11,72 12,44 20,34 35,33 41,41 60,53 82,57 91,66 91,74; poly d 11,72 12,44 20,34 24,34 24,72;
        box W 8,70 93,80 5; line W 2.4 34,46 42,40; line W 2.4 41,51 49,45; line W 2.4 48,56 56,50""",
    "rain boots": """
        poly p 40,8 64,8 64,50 82,58 90,68 90,80 40,80; box e 38,78 92,86 3; poly l 40,8 64,8 64,16 40,16;
        poly p 14,12 38,12 38,54 56,62 64,72 64,84 14,84; box e 12,82 66,90 3; poly l 14,12 38,12 38,20 14,20""",
    "backpack": """
        2line d 6 73,34 85,44 86,66 74,78; line d 5 40,22 41,11 59,11 60,22; box p 25,18 75,90 16; box p 32,56 68,84 6;
        line W 1.6 36,63 64,63; line W 1.6 30,42 70,42; box m 66,42 70,50 1""",
    "tote bag": """
        line d 5 33,44 36,13 64,13 67,44; poly p 18,38 82,38 87,90 13,90; poly d 18,38 82,38 83,44 17,44""",
    "mug": """
        line c 8 66,40 86,40 87,66 65,72; box p 20,26 70,87 9; oval l 20,20 70,34; oval e 24,22 66,32""",
    "bowl": """
        box d 37,80 63,89 2; symc p 50,43 88,42 85,60 70,79 50,83; oval l 9,34 91,53; oval e 14,37 86,50""",
    "teapot": """
        line c 7 28,46 8,44 11,70 30,72; poly c 70,54 83,48 90,32 98,34 91,60 74,76; box d 36,80 64,89 2;
        oval p 22,34 78,86; oval d 36,31 64,43; oval d 44,20 56,32""",
    "apron": """
        line d 3.5 38,26 42,8 58,8 62,26; 2line d 3 78,52 93,60; sym p 50,23 62,23 65,42 81,50 79,90 50,91;
        box l 35,57 65,75 3; line d 1.2 50,58 50,75""",
    "water bottle": """
        line d 4 44,16 50,6 56,16; box c 40,24 60,38 3; box p 33,33 67,92 9; box d 38,13 62,27 4""",
    "plate": """
        line m 4 9,90 9,40; line m 2 5,14 5,32 9,40; line m 2 13,14 13,32 9,40; line m 2 9,14 9,40;
        line m 4 93,90 93,50; poly m 91,52 96,50 96,20 92,12; oval p 18,18 86,86; oval l 33,33 71,71""",
    "armchair": """
        2line w 5 26,80 24,93; box p 24,12 76,70 14; box l 24,54 76,74 6; box d 22,70 78,84 4; 2box p 72,42 92,84 9""",
    "table lamp": """
        line m 4.5 50,48 50,84; sym p 50,10 65,10 84,52 50,52; sym d 50,49 82.6,49 84,53 50,53; oval m 32,80 68,91""",
    "rug": """
        2line W 2 20,24 20,18; 2line W 2 32,24 32,18; 2line W 2 44,24 44,18; 2line W 2 8,82 7,88;
        2line W 2 22,82 21,88; 2line W 2 36,82 36,88; line W 2 50,82 50,88; poly d 15,24 85,24 96,82 4,82;
        poly p 20,28 80,28 89,77 11,77""",
    "curtains": """
        line w 4 7,12 93,12; 2poly p 54,14 90,14 90,90 68,90 73,62 58,40; 2oval w 3,8 11,16;
        2poly d 70,61 90,55 90,62 70,67; 2line d 1 72,16 82,54; 2line d 1 80,68 80,89""",
    "throw pillow": """
        curve p 10,18 30,25 50,23 70,25 90,18 83,34 85,50 83,66 90,82 70,75 50,77 30,75 10,82 17,66 15,50 17,34""",
    "vase": """
        line g 2.5 50,44 49,24 50,8; line g 2.5 50,44 38,24 30,14; line g 2.5 50,44 62,24 70,14;
        2curve g 68,16 76,3 88,8 78,18; curve g 50,12 43,6 50,-3 57,6; 2curve g 58,30 70,24 78,32 66,35;
        symc p 50,38 60,38 57,50 76,64 66,88 50,90; oval l 39,35 61,42""",
    "bar stool": """
        2line w 6 68,46 77,92; line w 3.5 27,72 73,72; 2line w 5 59,44 62,80; box p 17,26 83,50 11;
        line d 1.5 19,42 81,42""",
    "makeup pouch": """
        box p 10,34 90,86 17; poly d 18,36 82,36 86,44 14,44; line W 2 17,40 83,40; box m 80,40 86,54 2;
        line d 2 12,66 4,60 7,52 15,54""",
    "soap dispenser": """
        line m 4 50,40 50,18; poly m 40,12 66,12 80,18 80,25 74,25 73,20 62,20 40,20; box d 42,32 58,46 2;
        box p 29,42 71,91 10; box W 38,56 62,74 2; line m 1 42,63 58,63; line m 1 42,68 54,68""",
    "hair bow": """
        2poly c 51,52 62,54 84,88 72,86 66,93; 2curve p 50,48 72,22 90,22 94,48 88,74 72,70; 2line d 1.6 58,46 72,40;
        2line d 1.6 58,53 72,56; box d 41,36 59,62 7""",
    "phone case": """
        box d 27,5 73,95 11; box p 29,7 71,93 9; box k 33,11 54,33 6; oval m 35,13 43,21; oval m 44,22 52,30;
        oval W 46,14 50,18""",
    "headphones": """
        line c 8 20,56 21,28 50,8 79,28 80,56; 2line m 3 80,40 80,56; 2box d 63,50 74,82 5; 2box p 68,44 94,90 11""",
    "speaker": """
        box d 24,86 34,93 2; box d 66,86 76,93 2; box p 20,8 80,90 9; oval k 33,48 67,82; oval m 39,54 61,76;
        oval k 45,60 55,70; oval k 41,17 59,35; oval m 46,22 54,30""",
    "laptop sleeve": """
        box m 15,8 85,50 5; box k 19,12 81,50 3; box p 7,30 93,88 7; line W 1.8 10,36 90,36; box m 84,35 89,46 1;
        box l 64,72 86,82 2""",
    "plant pot": """
        line g 3 50,48 50,20; 2curve g 50,48 60,24 78,14 82,24 70,40; 2curve g 50,48 66,40 88,40 84,48 68,50;
        curve g 50,44 41,20 50,2 59,20; sym p 50,54 73,54 65,91 50,91; box c 23,46 77,58 2""",
    "umbrella": """
        line w 4 50,12 50,84 55,92 63,90 64,82; line k 3 50,12 50,4;
        sym p 50,10 64,12 78,20 89,34 95,53 88,49 79,48 71,50 65,55 58,50 50,48; line d 1 50,10 40,26 35,54;
        line d 1 50,10 60,26 65,54""",
    "watering can": """
        poly c 34,78 34,64 16,34 9,38; poly d 2,44 21,28 24,33 6,48; line c 5 38,42 45,18 64,18 71,42;
        line c 5 74,48 94,46 94,76 75,78; box p 31,38 77,88 6; oval e 36,35 72,44""",
}


class Part(NamedTuple):
    role: str
    width: float  # of a stroke; 0 for a filled shape
    points: np.ndarray  # [N, 2], in a square of 100 × 100


def picture(kind: str, colour: str, pattern: str, seed: int) -> bytes:
    """A PNG of SIDE × SIDE pixels that shows a `kind` (a key of SHAPES) in that colour and pattern.

    `seed` chooses what a shopper does not care for: pose, proportions, scale of the pattern, wall. The alternative
    text, "Description" in the file, is for data writers without eyes; no page shows it.
    """
    random, size = Random(seed), SIDE * FINE
    base = COLOURS[colour]
    tones = {"c": base, "d": _mix(base, (0, 0, 0), 0.35), "l": _mix(base, (255, 255, 255), 0.35), **MATERIALS}
    if colour == "black":
        tones["d"] = _mix(base, (255, 255, 255), 0.25)
    cloth = _cloth(base, pattern, random)
    wall = random.choice(WALLS)
    stretch = np.array([random.uniform(0.86, 1) * random.choice((1, -1)), random.uniform(0.86, 1)])
    turn = random.uniform(-0.09, 0.09)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    image = Image.new("RGB", (size, size), wall)
    pen = ImageDraw.Draw(image)
    pen.ellipse((0.1 * size, 0.82 * size, 0.9 * size, 0.97 * size), fill=_mix(wall, (0, 0, 0), 0.1))
    for role, width, points in _parts(kind):
        xy = ((points - 50) * stretch @ rotation * 0.96 + 50) * size / 100  # [N, 2] in pixels
        thick, fill = round(width * size / 100), tones.get(role, base)
        rim = _mix(fill, (0, 0, 0), 0.5)
        if width > 2:
            pen.line(_flat(xy), fill=rim, width=thick + 2 * FINE, joint="curve")
        left, top = (int(v) for v in xy.min(0) - thick)
        right, bottom = (int(v) + 2 for v in xy.max(0) + thick)
        area = (left, top, right, bottom)
        mask = Image.new("L", (right - left, bottom - top))
        if width:
            ImageDraw.Draw(mask).line(_flat(xy - (left, top)), fill=255, width=thick, joint="curve")
        else:
            ImageDraw.Draw(mask).polygon(_flat(xy - (left, top)), fill=255)
        image.paste(cloth.crop(area) if role == "p" else fill, area, mask)
        if not width:
            lit = Image.new("L", mask.size)
            lit.paste(mask, (-size // 28, -size // 60))
            image.paste((0, 0, 0), area, ImageChops.subtract(mask, lit).point(SHADE))
            pen.line(_flat(np.concatenate([xy, xy[:2]])), fill=rim, width=FINE, joint="curve")
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX).quantize(40, dither=Image.Dither.NONE)
    file = BytesIO()
    alt = PngInfo()
    alt.add_text("Description", f"{colour} {pattern} {kind}")
    small.save(file, "PNG", pnginfo=alt)
    return file.getvalue()


def _flat(xy: np.ndarray) -> list[tuple[float, float]]:
    return [(x, y) for x, y in xy.round(2).tolist()]


SHADE = [value // 6 for value in range(256)]


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b))  # type: ignore[return-value]


def _cloth(base: RGB, pattern: str, random: Random) -> Image.Image:
    """A whole canvas of the pattern. The second colour is white, on light ground a darker tone: never a third hue."""
    size = SIDE * FINE
    light = sum(base) > 480
    second = _mix(base, (0, 0, 0), 0.45) if light else (250, 248, 244)
    image = Image.new("RGB", (size, size), base)
    if pattern == "plain":
        return image
    unit = size * random.uniform(0.13, 0.17)  # from one stripe, dot or flower to the next
    pen = ImageDraw.Draw(image)
    at = [-unit * random.random() for _ in range(2)]
    steps = range(-1, round(size / unit) + 3)
    if pattern == "striped":
        slant = random.choice((0, 1, None))  # None: slanted
        for i in steps if slant is not None else range(-12, 24):
            x = at[0] + i * unit
            ends = {0: (0, x, size, x), 1: (x, 0, x, size), None: (x, 0, x + size, size)}[slant]
            pen.line(ends, fill=second, width=round(unit * 0.4))
    elif pattern == "plaid":
        half, full = (_mix(base, second, share) for share in ((0.25, 0.6) if light else (0.5, 1)))
        bands = [(at[0] + i * unit, at[0] + (i + 0.45) * unit) for i in steps]
        for a, b in bands:
            pen.rectangle((0, a, size, b), fill=half)
            pen.rectangle((a, 0, b, size), fill=half)
        for a, b in bands:
            for c, d in bands:
                pen.rectangle((a, c, b, d), fill=full)
    else:
        for i in steps:
            for j in steps:
                x, y = at[0] + (i + 0.5 * (j % 2)) * unit, at[1] + j * unit
                if pattern == "polka dot":
                    _dot(pen, x, y, unit * 0.27, second)
                else:
                    spin = random.random()
                    for petal in range(5):
                        turn = 2 * np.pi * (petal / 5 + spin)
                        _dot(pen, x + unit * 0.24 * np.cos(turn), y + unit * 0.24 * np.sin(turn), unit * 0.17, second)
                    _dot(pen, x, y, unit * 0.13, _mix(base, (0, 0, 0), 0.2))
    return image


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: RGB) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


@cache
def _parts(kind: str) -> tuple[Part, ...]:
    """The parts of a shape, back to front. Raises ValueError for a kind without one."""
    if kind not in SHAPES:
        raise ValueError(f"no shape for {kind!r}; there are {', '.join(SHAPES)}")
    parts = []
    for row in SHAPES[kind].split(";"):
        form, role, *rest = row.split()
        points = np.array([[float(x) for x in pair.split(",")] for pair in rest if "," in pair])
        number = next((float(word) for word in rest if "," not in word), 0.0)
        twice, form = form.startswith("2"), form.lstrip("2")
        if form.startswith("sym"):
            points = np.concatenate([points, [(100 - x, y) for x, y in points[::-1] if x != 50]])
        elif form in ("oval", "box"):
            (x0, y0), (x1, y1) = points
            reach = np.array([x1 - x0, y1 - y0]) / 2
            radius = reach if form == "oval" else np.minimum(number, reach)
            turn = np.linspace(0, 2 * np.pi, 48, endpoint=False) + 1e-6
            ring = np.stack([np.cos(turn), np.sin(turn)], 1)  # [48, 2]
            points = np.array([x0 + x1, y0 + y1]) / 2 + np.sign(ring) * (reach - radius) + ring * radius
        if form in ("curve", "symc", "line"):
            points = _smooth(points, closed=form != "line")
        width = number if form == "line" else 0.0
        parts.append(Part(role, width, points))
        if twice:
            parts.append(Part(role, width, points * (-1, 1) + (100, 0)))
    return tuple(parts)


def _smooth(points: np.ndarray, closed: bool) -> np.ndarray:
    """A Catmull-Rom curve through the points, eight steps from one to the next: [N, 2] → [about 8 N, 2]."""
    if closed:
        around = np.concatenate([points[-1:], points, points[:2]])
    else:
        around = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    a, b, c, d = (around[i : len(around) - 3 + i, None] for i in range(4))  # [N, 1, 2] each
    t = np.linspace(0, 1, 8, endpoint=False)[None, :, None]
    curve = b + (c - a) * t / 2 + (2 * a - 5 * b + 4 * c - d) * t**2 / 2 + (3 * (b - c) + d - a) * t**3 / 2
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, points[-1:]])
