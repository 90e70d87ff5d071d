"""A page of the shop for a person at the mouse: its lines, with what can be clicked as buttons, and the search box."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from armap_lite.envs.base import Part
from armap_lite.envs.webshop.engine import SEP
from armap_lite.trajectory import Trajectory

NOTE = "You have clicked"  # begins a page that only shows what a click has changed


def page(trajectory: Trajectory, admissible: Sequence[str]) -> list[Part]:
    """The page that `trajectory` has come to. What was chosen bears a check mark; what no line names comes last."""
    steps = trajectory.steps
    text = steps[-1].observation if steps else trajectory.start
    here = itertools.takewhile(lambda step: step.observation == text, reversed(steps))
    picked = {step.action for step in here} | {step.action for step in steps} - set(admissible)
    whole = next((step.observation for step in reversed(steps) if not step.observation.startswith(NOTE)), text)
    if whole != text:  # a click on an option shows what is left to choose; a reader also wants to see of what
        text = SEP.join([text.split(SEP)[0], whole])
    links, chosen = (
        {action[len("click[") : -1] for action in some if action.startswith("click[")} for some in (admissible, picked)
    )
    parts: list[Part] = []
    used: set[str] = set()
    # A receipt has no buttons. Links in a row stand in one line.
    cut = cut_parts(text.split(SEP), links, chosen if links else set())
    for bare, group in itertools.groupby(cut, lambda line: bool(line[1]) and not line[0] and not line[2]):
        lines = list(group)
        if bare:
            lines = [("", [name for _, names, _ in lines for name in names], "")]
        for before, names, after in lines:
            actions = [f"click[{name.lower()}]" for name in names]
            used |= {*actions}
            buttons = tuple(("✓ " * (action in picked) + name, action) for name, action in zip(names, actions))
            parts.append(Part(before, buttons, after, strong="$" in after and len(after) < 40))  # a hit ends with one
    clicks = [action for action in admissible if action.startswith("click[") and action not in used]
    if clicks:
        parts.append(Part(actions=tuple((action[len("click[") : -1], action) for action in clicks)))
    if any(action.startswith("search[") for action in admissible):
        parts.append(Part(entry=("Search", "search[{}]")))
    return parts


def cut_parts(parts: Sequence[str], links: set[str], chosen: set[str]) -> list[tuple[str, list[str], str]]:
    """Each part of a page as (text before, buttons, text after).

    "color: red, blue" is (color:, [red, blue], nothing), "Next > Page 1" is (nothing, [Next >], Page 1). `links`: what
    can be clicked, in lower case; `chosen`: what was, an option's value is shown all the same. A title that happens to
    begin with the value of an option stays text.
    """

    def leading(text: str, values: set[str]) -> tuple[list[str], str]:
        names = []
        while found := [v for v in values if re.match(re.escape(v) + r"(?![\w-])", text, re.IGNORECASE)]:
            names.append(text[: len(max(found, key=len))])
            text = text[len(names[-1]) :].lstrip(", ")
        return names, text

    options: dict[str, list[str]] = {}
    for part in parts:
        names, after = leading(part.partition(": ")[2], links | chosen)
        if names and not after:
            options[part] = names
    free = links - {name.lower() for names in options.values() for name in names}
    return [
        (part.partition(": ")[0] + ":", options[part], "") if part in options else ("", *leading(part, free))
        for part in parts
    ]
