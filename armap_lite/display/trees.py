"""Search trees: as they grew, and as a figure."""

import itertools
import math
import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from armap_lite.display.canvas import BLACK, STYLE, VERMILLION, note, panels, with_alt
from armap_lite.display.tables import cut
from armap_lite.planners.base import PlanResult
from armap_lite.planners.mcts import Node, backward

LEVELS, ENDS = 4, 12  # levels of a tree and ends of its branches that are drawn, so that labels can be read
LINE, MARK = 14.0, 4.0  # points from one line of a label to the next; half the size of a node
Point = tuple[float, float]


def tree_after(plan: PlanResult, rollouts: int, gamma: float = 1.0) -> dict[str, Any]:
    """The tree of `plan` after its first `rollouts` rollouts, with the path of the last of them marked `chosen`.

    The `backward` of each of these rollouts is repeated on the nodes of the finished tree, which each node carries as
    `finished`, so that a figure places it where it will stand. `gamma` is the search's own.
    Raises ValueError if `plan` has no tree, or `gamma` does not lead to its values.
    """
    if plan.tree is None:
        raise ValueError(f"plan {plan.id!r} has no tree; only those of planner 'mcts' have one")
    root, tree = _unvisited(plan.tree), None
    path: tuple[str, ...] = ()
    for k, sample in enumerate(plan.samples):
        tree = _so_far(root, plan.tree, path) if k == rollouts else tree
        node, path = root, sample.trajectory.actions
        for action in path:
            node = next(child for child in node.children if child.action == action)
        backward(node, sample.reward or 0.0, gamma)
    if not math.isclose(root.value, plan.tree["value"], rel_tol=1e-6, abs_tol=1e-6):
        was, now = plan.tree["value"], root.value
        raise ValueError(f"gamma={gamma} makes the root's value {now:.4f}, the search had {was:.4f}; give its gamma")
    return tree or _so_far(root, plan.tree, path)


def _so_far(node: Node, finished: Mapping[str, Any], path: tuple[str, ...] | None) -> dict[str, Any]:
    """`planners.mcts.to_dict` with the nodes that are not visited yet."""
    below = ((child, path[1:] if path and child.action == path[0] else None) for child in node.children)
    children = [_so_far(child, then, way) for (child, way), then in zip(below, finished["children"])]
    value = node.value if node.visits else None
    now = {"visits": node.visits, "value": value, "chosen": path is not None, "children": children}
    return {**finished, **now, "finished": finished}


def _unvisited(drawn: dict[str, Any], parent: Node | None = None) -> Node:
    """The nodes of a drawn tree, without visits and values."""
    node = Node(drawn["action"] or "", drawn["prior"], parent)
    node.children = [_unvisited(child, node) for child in drawn["children"]]
    return node


@mpl.rc_context(STYLE)
def search_tree(
    tree: Mapping[str, Any],
    span: tuple[float, float] | None = None,
    names: Mapping[str, str] | None = None,
    outlined: str = "the answer",
) -> Figure:
    """The tree of a search from left to right: width = visits, colour = value, the path of the answer outlined.

    `tree`: nested {"action": str | None, "visits": int, "value": float | None, "prior": float, "chosen": bool,
    "children": [...]}. Children that were never visited are counted, not drawn. Nodes carry action and visits, the ends
    of one attempt its value; where two labels would meet, the answer or the more visited one. In a tree deeper than
    `LEVELS`, actions without a branch between them share one edge, named by the first and the last of them, and what
    lies deeper still is left out, but for the end of the answer; of more than `ENDS` ends the most visited are drawn,
    and of these the best. `span`: the values that the colours cover; None: those of this tree. `names`: what to write
    for an action that says little. `outlined`: what the outlined path is. A tree from `tree_after` is laid out as the
    finished one.
    """
    nodes, unvisited = _layout(tree)
    every = tree
    path = [node for node, *_ in nodes if node["chosen"] and node["action"]]
    if max(x for _, x, *_ in nodes) > LEVELS:
        tree = {**tree, "children": [*map(_merge_chains, tree["children"])]}
        nodes, _ = _layout(tree)
    followed = sum(x > LEVELS and node["chosen"] for node, x, *_ in nodes)  # stand in the label of the answer's end
    seen = [x for node, x, *_ in nodes if node["visits"] or node["chosen"]]
    visited, below = len(seen) - followed, sum(x > LEVELS for x in seen) - followed
    nodes, _ = _layout(_thinned(tree))
    values = [node["value"] for node, *_ in nodes if node["value"] is not None] or [0.0]
    low, high = span or (min(values), max(values))
    colours = ScalarMappable(Normalize(low, high if high > low else low + 1), "cividis")
    depth, leaves = max(x for _, x, _, _ in nodes), 1 + max(y for _, _, y, _ in nodes)
    width = 9.0 if depth < LEVELS else 11.5
    letters = int(8.5 * width / (depth + 1.5))  # fit into one column of the tree at 12 points
    figure, (axes,) = panels(width, min(max(6.0, width / 1.8), max(width / 2, 2 + 0.4 * leaves)))
    nodes = [placed for placed in nodes if placed[0]["visits"] or placed[0]["chosen"]]
    most = max(1, tree["visits"])
    t = np.linspace(0, 1, 30)
    for node, x, y, parent in nodes:
        colour = "#D0D0D0" if node["value"] is None else colours.to_rgba(node["value"])
        if parent:
            line, bend = parent[0] + (x - parent[0]) * t, parent[1] + (y - parent[1]) * t * t * (3 - 2 * t)
            thick = 1 + 8 * node["visits"] / most
            if node["chosen"]:
                axes.plot(line, bend, color=VERMILLION, lw=thick + 3, zorder=1, solid_capstyle="round")
            axes.plot(line, bend, color=colour, lw=thick, zorder=2, solid_capstyle="round")
        edge, line_width = (VERMILLION, 2.5) if node["chosen"] else (BLACK, 0.6)
        axes.scatter(x, y, 70, color=[colour], zorder=3, edgecolor=edge, linewidth=line_width)
    named = _told_apart(nodes, names or {}, max(8, letters - 4))
    row = 0.85 * 72 * figure.get_figheight() / (leaves + 0.7)  # its height in points
    taken: dict[float, list[Point]] = {}  # by column: from and to which height there is a node or a label
    for _, x, y, _ in nodes:
        taken.setdefault(x, []).append((-y * row - MARK, -y * row + MARK))
    for node, x, y, _ in sorted(nodes, key=lambda placed: _rank(placed[0]), reverse=True):
        shown = {**node, **{key: (names or {}).get(node[key], node[key]) for key in ("action", "last") if key in node}}
        shown["action"] = named.get(id(node), shown["action"])
        _label_node(axes, shown, (x, y), letters, 7 + 5 * node["visits"] / most, row, taken[x])
    axes.set(xlim=(-0.4, depth + 0.9), ylim=(leaves - 0.3, -1))
    axes.set_axis_off()
    figure.colorbar(colours, ax=axes, label="value (reward)", fraction=0.03, pad=0.01, aspect=30)
    first = (names or {}).get(path[0]["action"], path[0]["action"]) if path else ""
    share = f"{path[0]['visits'] / most:.0%} begin with {cut(first, 30)!r}, as the answer does" if path else ""
    walks, said = _before_the_last(every), f"{tree['visits']} attempts"
    said += f", {walks} different before the last action" if walks < tree["visits"] else ""
    message = f"{said},\n{share or 'no answer'}"
    axes.set_title(message)
    counts = {"children never visited": unvisited, f"nodes below level {LEVELS}": below}
    counts["other nodes"] = visited - below - len(nodes)
    hidden = [
        f"{number} {what if number > 1 else what.replace('nodes', 'node')}" for what, number in counts.items() if number
    ]
    key = f"(n): attempts; at an end: its reward; outlined: {outlined}"
    figure.supxlabel(f"{key}\nnot drawn: {', '.join(hidden)}" if hidden else key, x=0.01, ha="left", fontsize=12)
    steps = " then ".join(node["action"] for node in path) or "none"
    told = message.replace("\n", " ")
    return with_alt(figure, f"Search tree, {len(nodes)} nodes drawn. {told}. The answer: {steps}.")


def _before_the_last(tree: Mapping[str, Any]) -> int:
    """How many visited nodes have an end among their children: the attempts, without their last actions."""
    children = [child for child in tree["children"] if child["visits"]]
    ends = any(not any(one["visits"] for one in child["children"]) for child in children)
    return ends + sum(map(_before_the_last, children))


def _rank(node: Mapping[str, Any]) -> tuple[bool, int, float]:
    """What is drawn and named first: the answer, then the most visited, then the best."""
    then = _finished(node)
    return node["chosen"], then["visits"], -math.inf if then["value"] is None else then["value"]


def _finished(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """`node` in the finished tree."""
    return node.get("finished", node)


def _thinned(tree: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` to level `LEVELS` and with `ENDS` ends: the answer, the highest value, then by visits and by value."""
    found: list[tuple[Mapping[str, Any], ...]] = []  # each node, after those above it

    def walk(*way: Mapping[str, Any]) -> None:
        found.append(way)
        for child in way[-1]["children"] if len(way) <= LEVELS else ():
            if _finished(child)["visits"] or child["chosen"]:
                walk(*way, child)

    walk(tree)
    values = [_finished(way[-1])["value"] for way in found]
    best = max((value for value in values if value is not None), default=None)
    drawn, branching, ends = {id(tree)}, set(), 1
    for way in sorted(found, key=lambda way: (_finished(way[-1])["value"] == best, *_rank(way[-1])), reverse=True):
        new = [node for node in way if id(node) not in drawn]
        more = bool(new) and id(way[-len(new) - 1]) in branching  # else the first child of a node that was an end
        if ends + more > ENDS:
            continue
        ends += more
        drawn |= {id(node) for node in new}
        branching |= {id(node) for node in way[:-1]}

    def copy(node: Mapping[str, Any], level: int = 0) -> dict[str, Any]:
        kept = [copy(child, level + 1) for child in node["children"] if id(child) in drawn]
        answer = _answer_below(node) if level == LEVELS and node["chosen"] else {}
        return {**node, **answer, "children": kept}

    return copy(tree)


def _answer_below(node: Mapping[str, Any]) -> dict[str, Any]:
    """The last action of the answer, its value and how many actions there are below `node`, for the label of `node`."""
    more, last = node.get("more", 0), node.get("last", node["action"])
    while following := next((child for child in node["children"] if child["chosen"]), None):
        node, more, last = following, more + 1 + following.get("more", 0), following.get("last", following["action"])
    return {"more": more, "last": last, "value": node["value"]}


def _label_node(
    axes: Axes, node: Mapping[str, Any], at: Point, letters: int, above: float, row: float, taken: list[Point]
) -> None:
    """Write action and visits of `node`: beside an end, `above` other nodes by so many points; not over another label.

    `row`: height of a row in points. `taken`: the heights of the column, from and to, that are taken.
    """
    name, wide = node["action"] or "start", max(8, letters - 4)
    end = not any(child["visits"] for child in node["children"])
    between = f"+{node['more'] - 1}" if node.get("more", 0) > 1 else ""
    last = f"{between}→ {node['last']}" if node.get("more") else ""
    offset, place = ((9, 0), {"va": "center"}) if end else ((0, above), {"ha": "center"})
    own = (-at[1] * row - MARK, -at[1] * row + MARK)
    main = last if last and end else name  # a branch begins with its first action, and the last one decides
    for parts in ([(name, 2), (last, 2)], [(main, 2)] if end else [(name, 1), (last, 1)], [(main, 1)]):
        words = [line for text, lines in parts if text for line in _wrapped(text, wide, lines)]
        low = -at[1] * row + (-LINE * len(words) / 2 if end else above)
        high = low + LINE * len(words)
        if all(high <= from_ or low >= to for from_, to in taken if (from_, to) != own):
            taken.append((low, high))
            once = end and node["value"] is not None and (node["visits"] == 1 or node["chosen"])
            said = f": {node['value']:.1f}" if once else f" ({node['visits']})"
            frame = {"fc": "white", "ec": "none", "pad": 0.5, "alpha": 0.8}  # an edge may run below it
            note(axes, "\n".join(words) + said, at, offset, fontsize=12, zorder=4, bbox=frame, **place)
            return


def _told_apart(
    nodes: list[tuple[Mapping[str, Any], float, float, Point | None]], names: Mapping[str, str], wide: int
) -> dict[int, str]:
    """By `id` of a node: the beginning of its name, where the name on one line would look like that of a sibling."""
    alike: dict[Any, dict[int, str]] = {}
    for node, _, _, parent in nodes:
        if node["action"]:
            name = names.get(node["action"], node["action"])
            alike.setdefault((parent, *_wrapped(name, wide, 1)), {})[id(node)] = name
    found: dict[int, str] = {}
    for group in alike.values():
        starts = {node: name if len(name) <= wide else f"{name[: wide - 1].rstrip()}…" for node, name in group.items()}
        found |= starts if len({*starts.values()}) > 1 else {}
    return found


def _wrapped(text: str, wide: int, lines: int) -> list[str]:
    """`text` in so many lines of at most `wide` letters; of a long one the first and the last words remain."""
    words, most = text.split(" "), lines * (wide - 2 * (lines > 1))
    start = 2 if words[0].endswith("→") else 1
    if len(text) > most:
        shorter = (" ".join([*words[:start], "…", *words[k:]]) for k in range(start + 1, len(words)))
        text = next((short for short in shorter if len(short) <= most), f"… {words[-1]}" if words[1:] else text)
    found = textwrap.wrap(text, wide, break_long_words=False)
    if found and found[0].endswith("→"):  # not alone on its line
        found[:2] = [" ".join(found[:2])]
    found = [*found[: lines - 1], " ".join(found[lines - 1 :])] if len(found) > lines else found
    return [line if len(line) <= wide else f"{line[: wide - 1]}…" for line in found]


def _merge_chains(node: Mapping[str, Any]) -> dict[str, Any]:
    """`node` and its descendants, each chain without a branch merged into its end, with the names of both."""
    last, aside, more = node, [], 0
    while True:
        seen = [child for child in last["children"] if _finished(child)["visits"] or child["chosen"]]
        if len(seen) != 1 or _finished(seen[0])["visits"] != _finished(node)["visits"]:
            break
        if seen[0]["chosen"] != node["chosen"]:
            break
        aside += [child for child in last["children"] if child is not seen[0]]
        last, more = seen[0], more + 1
    named = {"action": node["action"], "last": last["action"], "more": more}
    return {**last, **named, "children": [*map(_merge_chains, last["children"]), *aside]}


def _layout(tree: Mapping[str, Any]) -> tuple[list[tuple[Mapping[str, Any], float, float, Point | None]], int]:
    """(node, depth, row, position of its parent) of each visited node, by depth, and the number of unvisited nodes.

    Each leaf has its own row; a parent stands in the middle of its children, so that edges do not cross.
    """
    placed: list[tuple[Mapping[str, Any], float, float, Point | None]] = []
    rows, left_out = itertools.count(), 0

    def place(node: Mapping[str, Any], depth: int) -> float:
        nonlocal left_out
        children = [child for child in node["children"] if _finished(child)["visits"] or child["chosen"]]
        left_out += len(node["children"]) - len(children)
        below = [(child, place(child, depth + 1)) for child in children]
        y = (below[0][1] + below[-1][1]) / 2 if below else float(next(rows))
        placed.extend((child, depth + 1, row, (depth, y)) for child, row in below)
        return y

    placed.append((tree, 0, place(tree, 0), None))
    return sorted(placed, key=lambda item: item[1]), left_out
