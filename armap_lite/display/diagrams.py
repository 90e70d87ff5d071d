"""Concept drawings for the notebooks, in one style: boxes for data, arrows for what happens to them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from armap_lite.display import figures
from armap_lite.display.canvas import BLUE, GREY, ORANGE, STYLE, note, panels, with_alt
from armap_lite.planners.mcts import Node, select

DRAWINGS = json.loads((Path(__file__).parent / "drawings.json").read_text(encoding="utf-8"))
ARROW = {"arrowstyle": "-|>,head_width=0.35,head_length=0.6", "lw": 2, "color": GREY, "shrinkA": 3, "shrinkB": 3}


def _boxes(size: tuple[float, float], boxes: Mapping[str, Any], arrows: Sequence[Sequence[str]]) -> tuple[Figure, Axes]:
    """Boxes by name, [x and y of the centre in inches, text, colour], and arrows between them, [from, to, label].

    A grey box is drawn with a dashed border.
    """
    figure, (axes,) = panels(*size)
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]))
    axes.set_axis_off()
    drawn = {}
    for name, (x, y, text, colour) in boxes.items():
        edge = getattr(figures, colour)
        frame = {"boxstyle": "round,pad=0.45", "fc": (edge, 0.15), "ec": edge, "lw": 2}
        frame["ls"] = "--" if colour == "GREY" else "-"
        drawn[name] = axes.text(x, y, text, ha="center", va="center", bbox=frame, fontsize=17, linespacing=1.35)
    figure.draw_without_rendering()  # only then do the boxes have their places
    for start, end, label in arrows:
        (x, y), (to_x, to_y) = (boxes[name][:2] for name in (start, end))
        ends = {"patchA": drawn[start].get_bbox_patch(), "patchB": drawn[end].get_bbox_patch()}
        axes.annotate("", (to_x, to_y), (x, y), arrowprops={**ARROW, **ends})
        level = abs(to_y - y) < 0.1
        place = {"va": "bottom", "ha": "center"} if level else {"va": "center", "ha": "left"}
        note(axes, label, ((x + to_x) / 2, (y + to_y) / 2), (0, 6) if level else (8, 0), fontsize=14, **place)
    return figure, axes


@mpl.rc_context(STYLE)
def _drawing(*names: str) -> Figure:
    """The drawing of drawings.json, with the additions of further names, the last of which has the alternative text."""
    parts = [DRAWINGS[name] for name in names]
    boxes = {name: box for part in parts for name, box in part["boxes"].items()}
    figure, _ = _boxes(parts[0]["size"], boxes, [arrow for part in parts for arrow in part["arrows"]])
    return with_alt(figure, parts[-1]["alt"])


def data_flow() -> Figure:
    """How data flows: tasks, trajectories, preference pairs, reward model, answers, gold scores."""
    return _drawing("data_flow")


def hindsight() -> Figure:
    """A failed trajectory is the right answer to another instruction."""
    return _drawing("hindsight")


def mirrored_pair() -> Figure:
    """An executed negative, and the mirrored pair in which the same two trajectories swap their roles."""
    return _drawing("mirrored_pair")


def reward_network(pictures: bool = False) -> Figure:
    """From language model to reward model; `pictures`: with their way through tower and projector."""
    return _drawing("reward_network", *["pictures"] * pictures)


@mpl.rc_context(STYLE)
def uct_tree(c: float = 0.2) -> Figure:
    """The rule of `select` on a tree of five nodes, computed with the search′s own function."""
    root = Node("", 1.0, visits=3)
    root.children = [
        Node(action, prior, root, visits=n, value=v)
        for action, prior, n, v in (("A", 0.25, 2, 1.0), ("B", 0.25, 1, 0.2), ("C", 0.5, 0, -np.inf))
    ]
    best = select(root, c, 0.0, 1.0)
    boxes = {"root": (5.5, 3.9, f"start:  N = {root.visits}", "BLUE")}
    said = []
    for i, child in enumerate(root.children):
        good = max(child.value, 0.0)
        new = c * child.prior * len(root.children) * math.sqrt(math.log(root.visits + 1)) / (1 + child.visits)
        said.append(f"{child.action} {good:.2f} + {new:.2f} = {good + new:.2f}")
        text = f"{child.action}:  n = {child.visits},  p = {child.prior}\n{good:.2f} + {new:.2f} = {good + new:.2f}"
        boxes[child.action] = (1.9 + 3.6 * i, 2.2, text, "GREEN" if child is best else "SKY")
    boxes["A, D"] = (1.9, 0.6, "D:  n = 2", "SKY")
    arrows = [("root", child.action, "") for child in root.children] + [("A", "A, D", "")]
    figure, axes = _boxes((11, 4.4), boxes, arrows)
    other = 1.0 if c < 0.5 else 0.2
    also = f"with c = {other:g}: {select(root, other, 0.0, 1.0).action}"
    rule = (
        f"it was good + it is hardly known = score (c = {c:g}, K = 3)\nGreen: the highest score, hence next ({also});"
    )
    rule += "\nbelow A, its own children are compared in the same way: here D alone"
    note(axes, rule, (3.2, 0.6), va="center", fontsize=15)
    text = f"A tree of five nodes: a start with children A, B and C; A has a child D. Scores: {', '.join(said)}."
    return with_alt(figure, f"{text} Next is {best.action}.")


@mpl.rc_context(STYLE)
def over_optimisation() -> Figure:
    """Reward and true score as selection gets stronger, in the form that Gao et al. (arXiv 2210.10760) fitted."""
    d = np.linspace(0, 3, 100)  # square root of the divergence from the policy
    reward, gold = d, d * (1 - 0.27 * d)
    figure, (axes,) = panels(9, 4.6)
    axes.plot(d, reward, color=ORANGE)
    axes.plot(d, gold, color=BLUE)
    top = d[gold.argmax()]
    axes.axvline(top, color=GREY, ls="--", lw=1.2)
    note(axes, "learned reward", (2.6, 2.6), (-14, 2), color=ORANGE, ha="right")
    note(axes, "true score", (2.7, 0.73), (0, 12), color=BLUE)
    note(axes, "from here on, a higher reward\nis a lower true score", (top, 0.1), (8, 0), color=GREY)
    axes.set(xlabel="how hard the reward is optimised", ylabel="mean (schematic)", xticks=[], yticks=[])
    axes.set_title("A sketch: selection finds good answers first, then the reward model's mistakes")
    text = "The learned reward keeps rising with optimisation; the true score rises, peaks and falls."
    return with_alt(figure, f"Schematic line chart. {text}")
