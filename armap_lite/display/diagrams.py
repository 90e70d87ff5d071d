"""Concept drawings for the notebooks, in one style: boxes for data, arrows for what happens to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from armap_lite.display.figures import BLUE, GREEN, GREY, ORANGE, SKY, STYLE, VERMILLION, note, panels, with_alt
from armap_lite.planners.mcts import Node, select

Box = tuple[float, float, str, str]  # x and y of its centre in inches, text, colour
Arrow = tuple[str, str, str]  # from, to, label


def _boxes(size: tuple[float, float], boxes: Mapping[str, Box], arrows: Sequence[Arrow]) -> tuple[Figure, Axes]:
    """Boxes by name, and arrows between them. A grey box is drawn with a dashed border."""
    figure, (axes,) = panels(*size)
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]))
    axes.set_axis_off()
    drawn = {}
    for name, (x, y, text, colour) in boxes.items():
        frame = {"boxstyle": "round,pad=0.45", "fc": mpl.colors.to_rgba(colour, 0.15), "ec": colour, "lw": 2}
        frame["ls"] = "--" if colour == GREY else "-"
        drawn[name] = axes.text(x, y, text, ha="center", va="center", bbox=frame, fontsize=17, linespacing=1.35)
    figure.draw_without_rendering()  # only then do the boxes have their places
    for start, end, label in arrows:
        (x, y), (to_x, to_y) = (boxes[name][:2] for name in (start, end))
        ends = {"patchA": drawn[start].get_bbox_patch(), "patchB": drawn[end].get_bbox_patch()}
        style = {
            "arrowstyle": "-|>,head_width=0.35,head_length=0.6",
            "lw": 2,
            "color": GREY,
            "shrinkA": 3,
            "shrinkB": 3,
        }
        axes.annotate("", (to_x, to_y), (x, y), arrowprops={**style, **ends})
        level = abs(to_y - y) < 0.1
        place = {"va": "bottom", "ha": "center"} if level else {"va": "center", "ha": "left"}
        note(axes, label, ((x + to_x) / 2, (y + to_y) / 2), (0, 6) if level else (8, 0), fontsize=14, **place)
    return figure, axes


@mpl.rc_context(STYLE)
def data_flow() -> Figure:
    """How data flows: tasks, trajectories, preference pairs, reward model, answers, gold scores."""
    boxes = {
        "tasks": (0.7, 2.8, "tasks", BLUE),
        "trajectories": (3.4, 2.8, "trajectories", BLUE),
        "pairs": (6.7, 2.8, "preference\npairs", BLUE),
        "reward": (9.7, 2.8, "reward\nmodel", GREEN),
        "answers": (12.4, 2.8, "answers", BLUE),
        "agent": (3.4, 0.7, "LLM agent in the\nenvironment", SKY),
        "data": (6.7, 0.7, "data LLM and\nenvironment", SKY),
        "judge": (9.7, 0.7, "judge", GREY),
        "scores": (12.4, 0.7, "gold scores", VERMILLION),
    }
    arrows = [
        ("tasks", "trajectories", "collect"),
        ("trajectories", "pairs", "synthesize"),
        ("pairs", "reward", "train"),
        ("reward", "answers", "plan"),
        ("agent", "trajectories", "acts"),
        ("data", "pairs", "look back"),
        ("answers", "scores", "evaluate"),
        ("judge", "scores", ""),
    ]
    figure, _ = _boxes((13.4, 3.5), boxes, arrows)
    text = "Tasks become trajectories (collect), preference pairs (synthesize), a reward model (train), answers (plan)."
    return with_alt(figure, f"Flow chart. {text} Only then does the judge give gold scores (evaluate).")


@mpl.rc_context(STYLE)
def hindsight() -> Figure:
    """A failed trajectory is the right answer to another instruction."""
    boxes = {
        "asked": (1.3, 2.8, "instruction\n“do A”", VERMILLION),
        "trajectory": (6.0, 2.8, "trajectory, unchanged\naction 1, action 2, action 3", BLUE),
        "achieved": (11.3, 2.8, "what it achieved\nB", SKY),
        "refined": (11.3, 0.7, "refined instruction\n“do B”", GREEN),
        "chosen": (6.0, 0.7, "chosen side of a pair", BLUE),
    }
    arrows = [
        ("asked", "trajectory", "✗ failed"),
        ("trajectory", "achieved", "look back"),
        ("achieved", "refined", "put into words"),
        ("refined", "chosen", "✓ fulfilled"),
        ("trajectory", "chosen", "kept as it is"),
    ]
    figure, _ = _boxes((13.2, 3.5), boxes, arrows)
    text = "A trajectory fails at the instruction “do A” but achieves B. It is kept; the instruction becomes “do B”."
    return with_alt(figure, f"Flow chart. {text}")


@mpl.rc_context(STYLE)
def mirrored_pair() -> Figure:
    """An executed negative, and the mirrored pair in which the same two trajectories swap their roles."""
    boxes = {
        "h": (5.0, 3.6, "trajectory h\na, b, c: achieves B", BLUE),
        "changed": (10.6, 3.6, "trajectory h′\na, x, c: achieves C", BLUE),
        "pair": (1.3, 2.1, "pair\n“do B”", SKY),
        "h right": (5.0, 2.1, "✓ chosen", GREEN),
        "changed wrong": (10.6, 2.1, "✗ rejected", ORANGE),
        "mirror": (1.3, 0.7, "its mirror\n“do C”", SKY),
        "h wrong": (5.0, 0.7, "✗ rejected", ORANGE),
        "changed right": (10.6, 0.7, "✓ chosen", GREEN),
    }
    figure, _ = _boxes((12.8, 4.3), boxes, [("h", "changed", "change one action,\nexecute again")])
    text = "One action of h is changed and the rest executed again: h′. Under “do B” h is chosen and h′ rejected."
    return with_alt(figure, f"Table of roles. {text} In the mirrored pair, “do C”, the roles are swapped.")


@mpl.rc_context(STYLE)
def reward_network(pictures: bool = False) -> Figure:
    """From language model to reward model; `pictures`: with their way through tower and projector."""
    boxes = {
        "text": (1.3, 2.8, "instruction and\ntrajectory", BLUE),
        "tokens": (4.7, 2.8, "tokens", BLUE),
        "lower": (7.0, 2.8, "lower layers\nfrozen", SKY),
        "upper": (9.5, 2.8, "next layers\ntrained", GREEN),
        "head": (12.3, 2.8, "linear head\ntrained", GREEN),
        "reward": (14.6, 2.8, "reward", VERMILLION),
        "removed": (11.0, 0.7, "remaining layers and\nvocabulary: removed", GREY),
    }
    arrows = [
        ("text", "tokens", "tokenizer"),
        ("tokens", "lower", ""),
        ("lower", "upper", ""),
        ("upper", "head", "last\ntoken"),
        ("head", "reward", ""),
    ]
    if pictures:
        boxes["picture"] = (0.9, 0.7, "picture", BLUE)
        boxes["tower"] = (3.2, 0.7, "vision tower\nfrozen", SKY)
        boxes["projector"] = (6.1, 0.7, "projector\ntrained first", GREEN)
        arrows += [("picture", "tower", ""), ("tower", "projector", ""), ("projector", "tokens", "4 tokens a picture")]
    figure, _ = _boxes((15.4, 3.5), boxes, arrows)
    text = "Text becomes tokens, which pass frozen lower layers, trained layers and a linear head at the last token."
    way = " Pictures pass a frozen vision tower and a projector and become four tokens each." if pictures else ""
    return with_alt(figure, f"Flow chart of the reward model. {text}{way} Further layers and vocabulary are removed.")


@mpl.rc_context(STYLE)
def uct_tree(c: float = 1.0) -> Figure:
    """The rule of `select` on a tree of five nodes, computed with the search′s own function."""
    root = Node("", 1.0, visits=3)
    root.children = [
        Node(action, prior, root, visits=n, value=v)
        for action, prior, n, v in (("a", 0.5, 2, 0.6), ("b", 0.3, 1, 0.2), ("c", 0.2, 0, -np.inf))
    ]
    best = select(root, c, 0.0, 1.0)
    boxes = {"root": (6.2, 3.9, f"start:  N = {root.visits}", BLUE)}
    said = []
    for i, child in enumerate(root.children):
        good = max(child.value, 0.0)
        new = c * child.prior * len(root.children) * math.sqrt(math.log(root.visits + 1)) / (1 + child.visits)
        said.append(f"{child.action} {good:.2f} + {new:.2f} = {good + new:.2f}")
        text = f"{child.action}:  n = {child.visits},  p = {child.prior}\n{good:.2f} + {new:.2f} = {good + new:.2f}"
        boxes[child.action] = (2.1 + 4.1 * i, 2.2, text, GREEN if child is best else SKY)
    boxes["a, d"] = (2.1, 0.6, "d:  n = 1", SKY)
    arrows = [("root", child.action, "") for child in root.children] + [("a", "a, d", "")]
    figure, axes = _boxes((12.4, 4.4), boxes, arrows)
    rule = "it was good + it is hardly known = score\nGreen: the highest score, hence next"
    note(axes, rule, (3.8, 0.6), va="center", color=GREY, fontsize=15)
    text = f"A tree of five nodes: a start with children a, b and c; a has a child d. Scores: {', '.join(said)}."
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
    axes.set_title("Selection finds good answers first, then the reward model's mistakes")
    text = "The learned reward keeps rising with optimisation; the true score rises, peaks and falls."
    return with_alt(figure, f"Schematic line chart. {text}")
