"""Pictures of products, drawn from vector shapes: what it is, in which colour and with which pattern.

A shape in drawing.json is a list of parts from back to front, each `form role [number] points`, in a square of
100 × 100 with y downward.
Forms: `poly` and `curve` (closed; straight or smooth), `sym` and `symc` (the same, from the right half that is given),
`oval` and `box` (two corners; a box also a radius), `line` (a smooth stroke of the given width).
A `2` before the form adds the mirror image.
Roles: `p` the pattern, `c` plain colour, `d` and `l` its darker and lighter tone; fixed are `m` metal, `w` wood,
`g` leaves, `k` near black, `e` a dark inside, `W` near white.
The product colours differ in lightness as well as in hue, so that most colour-blind readers can tell them apart.
"""

import json
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageDraw
from PIL.PngImagePlugin import PngInfo

RGB = tuple[int, ...]
Part = tuple[str, float, np.ndarray]  # role, width of a stroke or 0, points [N, 2] in a square of 100 × 100
TABLES = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
COLOURS, MATERIALS = ({name: tuple(rgb) for name, rgb in TABLES[key].items()} for key in ("colours", "materials"))
PATTERNS: list[str] = TABLES["patterns"]
SHAPES: dict[str, list[str]] = TABLES["shapes"]
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
SIDE, FINE = 128, 3  # pixels of a picture's side, and how many times finer it is drawn
SHADE = [value // 6 for value in range(256)]


def picture(kind: str, colour: str, pattern: str, seed: int) -> bytes:
    """A PNG of SIDE × SIDE pixels that shows a `kind` (a key of SHAPES) in that colour and pattern.

    `seed` chooses what a shopper does not care for: pose, proportions, scale of the pattern, wall. The alternative
    text, "Description" in the file, is for data writers without eyes; no page shows it.
    """
    random, size = Random(seed), SIDE * FINE
    base = COLOURS[colour]
    dark = _mix(base, WHITE, 0.25) if colour == "black" else _mix(base, BLACK, 0.35)
    tones = {"c": base, "d": dark, "l": _mix(base, WHITE, 0.35), **MATERIALS}
    cloth = _cloth(base, pattern, random)
    wall = tuple(random.choice(TABLES["walls"]))
    stretch = np.array([random.uniform(0.86, 1) * random.choice((1, -1)), random.uniform(0.86, 1)])
    turn = random.uniform(-0.09, 0.09)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    image = Image.new("RGB", (size, size), wall)
    pen = ImageDraw.Draw(image)
    pen.ellipse((0.1 * size, 0.82 * size, 0.9 * size, 0.97 * size), fill=_mix(wall, BLACK, 0.1))
    for role, width, points in _parts(kind):
        xy = ((points - 50) * stretch @ rotation * 0.96 + 50) * size / 100  # [N, 2] in pixels
        thick, fill = round(width * size / 100), tones.get(role, base)
        rim = _mix(fill, BLACK, 0.5)
        if width > 2:
            pen.line(_pairs(xy), fill=rim, width=thick + 2 * FINE, joint="curve")
        left, top = (int(v) for v in xy.min(0) - thick)
        right, bottom = (int(v) + 2 for v in xy.max(0) + thick)
        area, mask = (left, top, right, bottom), Image.new("L", (right - left, bottom - top))
        brush, inside = ImageDraw.Draw(mask), _pairs(xy - (left, top))
        if width:
            brush.line(inside, fill=255, width=thick, joint="curve")
        else:
            brush.polygon(inside, fill=255)
        image.paste(cloth.crop(area) if role == "p" else fill, area, mask)
        if not width:
            lit = Image.new("L", mask.size)
            lit.paste(mask, (-size // 28, -size // 60))
            image.paste(BLACK, area, ImageChops.subtract(mask, lit).point(SHADE))
            pen.line(_pairs(np.concatenate([xy, xy[:2]])), fill=rim, width=FINE, joint="curve")
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX).quantize(40, dither=Image.Dither.NONE)
    file, alt = BytesIO(), PngInfo()
    alt.add_text("Description", f"{colour} {pattern} {kind}")
    small.save(file, "PNG", pnginfo=alt)
    return file.getvalue()


def _pairs(xy: np.ndarray) -> list[tuple[float, float]]:
    return [(x, y) for x, y in xy.round(2).tolist()]


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b))


def _cloth(base: RGB, pattern: str, random: Random) -> Image.Image:
    """A whole canvas of the pattern. The second colour is white, on light ground a darker tone: never a third hue."""
    size = SIDE * FINE
    image = Image.new("RGB", (size, size), base)
    if pattern == "plain":
        return image
    light = sum(base) > 480
    second = _mix(base, BLACK, 0.45) if light else (250, 248, 244)
    unit = size * random.uniform(0.13, 0.17)  # from one stripe, dot or flower to the next
    pen = ImageDraw.Draw(image)
    left, top = (-unit * random.random() for _ in range(2))
    steps = range(-1, round(size / unit) + 3)
    if pattern == "striped":
        slant = random.choice((0, 1, None))  # None: slanted
        for i in steps if slant is not None else range(-12, 24):
            x = left + i * unit
            ends = {0: (0, x, size, x), 1: (x, 0, x, size), None: (x, 0, x + size, size)}[slant]
            pen.line(ends, fill=second, width=round(unit * 0.4))
    elif pattern == "plaid":
        half, full = (_mix(base, second, share) for share in ((0.25, 0.6) if light else (0.5, 1)))
        bands = [(left + i * unit, left + (i + 0.45) * unit) for i in steps]
        for a, b in bands:
            pen.rectangle((0, a, size, b), fill=half)
            pen.rectangle((a, 0, b, size), fill=half)
        for a, b in bands:
            for c, d in bands:
                pen.rectangle((a, c, b, d), fill=full)
    else:
        for i in steps:
            for j in steps:
                x, y = left + (i + 0.5 * (j % 2)) * unit, top + j * unit
                if pattern == "polka dot":
                    _dot(pen, x, y, unit * 0.27, second)
                    continue
                spin = random.random()
                for petal in range(5):
                    turn = 2 * np.pi * (petal / 5 + spin)
                    _dot(pen, x + unit * 0.24 * np.cos(turn), y + unit * 0.24 * np.sin(turn), unit * 0.17, second)
                _dot(pen, x, y, unit * 0.13, _mix(base, BLACK, 0.2))
    return image


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: RGB) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


@cache
def _parts(kind: str) -> tuple[Part, ...]:
    """The parts of a shape, back to front. Raises ValueError for a kind without one."""
    if kind not in SHAPES:
        raise ValueError(f"no shape for {kind!r}; there are {', '.join(SHAPES)}")
    parts: list[Part] = []
    for row in SHAPES[kind]:
        form, role, *rest = row.split()
        points = np.array([[float(x) for x in pair.split(",")] for pair in rest if "," in pair])  # [N, 2]
        number = next((float(word) for word in rest if "," not in word), 0.0)
        twice, form = form.startswith("2"), form.lstrip("2")
        if form.startswith("sym"):
            points = np.concatenate([points, [(100 - x, y) for x, y in points[::-1] if x != 50]])
        elif form in ("oval", "box"):
            reach = (points[1] - points[0]) / 2  # [2]
            radius = reach if form == "oval" else np.minimum(number, reach)
            turn = np.linspace(0, 2 * np.pi, 48, endpoint=False) + 1e-6
            ring = np.stack([np.cos(turn), np.sin(turn)], 1)  # [48, 2]
            points = (points[0] + points[1]) / 2 + np.sign(ring) * (reach - radius) + ring * radius
        if form in ("curve", "symc", "line"):
            points = _smooth(points, closed=form != "line")
        width = number if form == "line" else 0.0
        parts += [(role, width, each) for each in ([points, points * (-1, 1) + (100, 0)] if twice else [points])]
    return tuple(parts)


def _smooth(points: np.ndarray, closed: bool) -> np.ndarray:
    """A Catmull-Rom curve through the points, eight steps from one to the next: [N, 2] → [about 8 N, 2]."""
    before, after = points[-1:], points[:2]
    if not closed:
        before, after = 2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1]
    around = np.concatenate([before, points, after])
    a, b, c, d = (around[i : len(around) - 3 + i, None] for i in range(4))  # [N, 1, 2] each
    t = np.linspace(0, 1, 8, endpoint=False)[None, :, None]
    curve = b + (c - a) * t / 2 + (2 * a - 5 * b + 4 * c - d) * t**2 / 2 + (3 * (b - c) + d - a) * t**3 / 2
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, points[-1:]])
