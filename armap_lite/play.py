"""Be the agent: do a task by clicking admissible actions while the reward model scores you live."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ipywidgets as ipw
import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.image import imread

from armap_lite import figures
from armap_lite.envs.base import Environment
from armap_lite.planners.base import PlanResult
from armap_lite.trajectory import Task, Trajectory
from armap_lite.widgets import Interactive, choice, image, reward_chart, safe, table
from armap_lite.world import State, World

BREAK = " [SEP] "  # between the visible parts of a web page
NOTE = "You have clicked"  # begins a page that only shows what a click has changed
SOON = 0.3  # seconds until what was just made stands on the page
FEW = 12  # actions that are shown as buttons; more of them become a list with a filter


def play(env: Environment, tasks: Task | Sequence[Task], reward: Any, plans: Sequence[PlanResult] = ()) -> Interactive:
    """Play `tasks` in `env` by hand, and compare with what planners answered to the same.

    The judge is out of reach here as it is for a planner: what counts is the reward. `plans`: results of stage 4.
    """
    several = [tasks] if isinstance(tasks, Task) else list(tasks)
    env = env.fork()
    return Interactive(lambda: [Game(env, several, reward, plans).box], lambda: first_look(World(env, several[0])))


class Game:
    """The page at hand, the actions to choose from, and the reward so far. `path`: the states from the start on."""

    def __init__(self, env: Environment, tasks: Sequence[Task], reward: Any, plans: Sequence[PlanResult]):
        self.env, self.tasks, self.reward, self.plans = env, tasks, reward, plans
        env.freely = True  # a reader may go back to where they were
        self.which = choice("Task", len(tasks))
        self.page = ipw.VBox(layout={"flex": "4 1 24em"})
        self.page.add_class("page")
        self.score, self.answers = ipw.HTML(layout={"flex": "3 1 24em"}), ipw.HTML()
        self.undo = button("Undo", "take the last action back", lambda: self.show(self.path[:-1]))
        self.again = button("Start again", "back to the first observation", lambda: self.show(self.path[:1]))
        self.match = button("Compare with the planners", "what they answered to this task", self.compare)
        self.which.observe(lambda _: self.start(), "value")
        below = wrap([self.undo, self.again, self.match])
        self.box = ipw.VBox([self.which, wrap([self.page, self.score]), below, self.answers])
        self.start()

    def start(self) -> None:
        self.world = World(self.env, self.tasks[self.which.value - 1])
        self._rewards: dict[tuple[str, ...], float] = {}
        self.show([self.world.start()])

    def act(self, action: str) -> None:
        self.show([*self.path, self.world.step(self.path[-1], action)])
        first = next(usable(self.page), self.match)
        with contextlib.suppress(RuntimeError):  # no event loop: nobody is there
            # What had the focus is gone, and the next key would go to the notebook: whoever plays by keys goes on here.
            asyncio.get_running_loop().call_later(SOON, first.focus)

    def show(self, path: list[State]) -> None:
        self.path, state = path, path[-1]
        self.undo.disabled = self.again.disabled = len(path) == 1
        trajectory = state.trajectory
        seen = [(trajectory.start, trajectory.picture), *((s.observation, s.picture) for s in trajectory.steps)]
        text, picture = seen[-1]
        parts: list[ipw.Widget] = [ipw.HTML(f"<b>{safe(trajectory.task.instruction)}</b>")]
        if picture:
            parts.append(ipw.HTML(image(picture, "the picture of this page")))
        rest: Sequence[str] = state.admissible
        if BREAK in trajectory.start:
            page, rest = self._page(state, text)
            parts += page
        else:
            rows = [
                (0, "", trajectory.start),
                *((k, s.action, s.observation) for k, s in enumerate(trajectory.steps, 1)),
            ]
            parts.append(ipw.HTML(table(["step", "action", "what you see"], rows, [len(rows) - 1])))
        if state.over:
            end = trajectory.failure or "The episode is over."
            parts.append(ipw.HTML(f"<p><b>{safe(end)} Reward: {self.reward_of(trajectory):.2f}</b></p>"))
        chart = image(reward_chart(self._mine()))  # it takes a moment, and page and chart should change together
        self.page.children = [*parts, *self._menu(rest)]
        self.score.value, self.answers.value = chart, ""

    def compare(self) -> None:
        mine = self.path[-1].trajectory
        found = {p.planner: p.answer for p in self.plans if p.task_id == mine.task.id}
        if not found:
            self.answers.value = "<p>There are no plans for this task yet.</p>"
            return
        levels = {name: self.reward_of(answer) for name, answer in found.items()}
        rows = [(name, self.reward_of(t), "; ".join(t.actions)) for name, t in {"you": mine, **found}.items()]
        rows.sort(key=lambda row: -row[1])
        self.score.value = image(reward_chart(self._mine(), answers=levels))
        self.answers.value = table(["who", "reward", "actions"], rows, [[row[0] for row in rows].index("you")])

    def _mine(self) -> dict[str, list[float]]:
        return {"you": [self.reward_of(state.trajectory) for state in self.path]}

    def reward_of(self, trajectory: Trajectory) -> float:
        if trajectory.actions not in self._rewards:
            [self._rewards[trajectory.actions]] = self.reward.score([trajectory.task.instruction], [trajectory])
        return float(self._rewards[trajectory.actions])

    def _menu(self, actions: Sequence[str]) -> list[ipw.Widget]:
        if len(actions) <= FEW:
            return [wrap([self._button(re.sub(r"^click\[(.+)]$", r"\1", action), action) for action in actions])]
        words = ipw.Text(description="Filter", placeholder="part of an action", continuous_update=True)
        listed = ipw.Select(options=actions, value=actions[0], description="Action", rows=9)
        words.observe(lambda change: setattr(listed, "options", matching(actions, change["new"])), "value")
        return [
            words,
            listed,
            button("Do it", "do the action that is marked in the list", lambda: self._do(listed.value), "primary"),
        ]

    def _do(self, action: str | None) -> None:
        if action:
            self.act(action)

    def _page(self, state: State, text: str) -> tuple[list[ipw.Widget], list[str]]:
        """The parts of a web page in their order, those that can be clicked as buttons; and the actions left over."""
        steps = state.trajectory.steps
        here = itertools.takewhile(lambda step: step.observation == text, reversed(steps))
        picked = {step.action for step in here} | {step.action for step in steps} - set(state.admissible)
        whole = next((step.observation for step in reversed(steps) if not step.observation.startswith(NOTE)), text)
        if whole != text:  # a click on an option shows what is left to choose; a reader also wants to see of what
            text = BREAK.join([text.split(BREAK)[0], whole])
        searches = [action for action in state.admissible if action.startswith("search[")]
        shown, used = [], set(searches)
        links, chosen = ({action[len("click[") : -1] for action in some} for some in (state.admissible, picked))
        chosen = chosen if links else set()  # a receipt has no buttons
        cut = cut_parts(text.split(BREAK), links, chosen)
        for bare, group in itertools.groupby(cut, lambda part: bool(part[1]) and not part[0] and not part[2]):
            rows = list(group)
            if bare:
                rows = [("", [name for _, names, _ in rows for name in names], "")]
            for before, names, after in rows:
                used |= {click(name) for name in names}
                made = [self._button("✓ " * (click(name) in picked) + name, click(name)) for name in names]
                for one, name in zip(made, names):
                    one.disabled = click(name) not in state.admissible
                shown.append(wrap([*map(label, filter(None, [before])), *made, *map(label, filter(None, [after]))]))
        if searches:
            known = [action[len("search[") : -1] for action in searches]
            words = ipw.Combobox(description="Search", options=known, placeholder="what you are looking for")
            go = button("Search", "search the shop for these words", lambda: self._search(words.value), "primary")
            shown.append(ipw.HBox([words, go]))
        return shown, [action for action in state.admissible if action not in used]

    def _search(self, words: str) -> None:
        if words.strip():
            self.act(f"search[{words.strip()}]")

    def _button(self, text: str, action: str) -> ipw.Button:
        return button(text, action, lambda: self.act(action))


def button(text: str, meaning: str, do: Callable[[], None], style: str = "") -> ipw.Button:
    """A button that does `do()`; `text` is shown as text."""
    made = ipw.Button(description=text, tooltip=meaning, button_style=style)
    made.on_click(lambda _: do())
    return made


def usable(box: ipw.Widget) -> Iterator[ipw.Widget]:
    """What can be pressed or typed into in `box`, in its order."""
    for child in getattr(box, "children", ()):
        if isinstance(child, (ipw.Button, ipw.Text)) and not child.disabled:
            yield child
        yield from usable(child)


def wrap(children: Sequence[ipw.Widget]) -> ipw.HBox:
    return ipw.HBox(list(children), layout={"flex_flow": "row wrap"})


def label(text: str) -> ipw.HTML:
    """Text of a page that cannot be clicked; a price stands out."""
    price = "$" in text and len(text) < 40  # not a hit, which ends with one
    return ipw.HTML(f"<b>{safe(text)}</b>" if price else safe(text), layout={"flex": "0 1 auto"})


def click(part: str) -> str:
    return f"click[{part.lower()}]"


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


def matching(actions: Sequence[str], words: str) -> list[str]:
    """The actions in which each of `words` occurs, in any order; first those that begin with them as they stand."""
    typed = words.lower().strip()
    found = [action for action in actions if all(word in action.lower() for word in typed.split())]
    return sorted(found, key=lambda action: not action.lower().startswith(typed))


@mpl.rc_context(figures.STYLE)
def first_look(world: World) -> Figure:
    """What a player sees first, as a picture."""
    state = world.start()
    some = "; ".join(state.admissible[:6]) + (" …" if len(state.admissible) > 6 else "")
    told = [world.task.instruction, *state.trajectory.start.split(BREAK), f"{len(state.admissible)} actions: {some}"]
    wide = 46 if state.trajectory.picture else 92
    lines = [line for text in told for line in textwrap.wrap(text, wide, max_lines=5, placeholder=" …")]
    figure = figures.Picture(figsize=(9.5, max(1 + 0.3 * len(lines), 4 if state.trajectory.picture else 0)))
    top = 1 - 0.15 / figure.get_figheight()
    figure.text(0.02, top, "Be the agent: what would you do first?", va="top", weight="bold")
    figure.text(0.02, top - 0.45 / figure.get_figheight(), "\n".join(lines), va="top", linespacing=1.5)
    if state.trajectory.picture:
        axes = figure.add_axes((0.56, 0.05, 0.42, 0.85))
        axes.imshow(imread(state.trajectory.picture))
        axes.set_axis_off()
    return figures.with_alt(figure, f"The first observation of a task to play by hand. {' '.join(told)}")
