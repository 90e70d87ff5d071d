"""Be the agent: do a task by clicking admissible actions while the reward model scores you live."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ipywidgets as ipw
import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.image import imread

from armap_lite.display import figures
from armap_lite.display.widgets import Interactive, escape, image_html, index_slider, reward_chart, table_html
from armap_lite.envs.base import Environment, Part
from armap_lite.episode import Episode, State
from armap_lite.planners.base import PlanResult
from armap_lite.trajectory import Task, Trajectory

FOCUS_DELAY = 0.3  # seconds until what was just made stands on the page
MAX_BUTTONS = 12  # actions that are shown as buttons; more of them become a list with a filter


def play(env: Environment, tasks: Task | Sequence[Task], reward: Any, plans: Sequence[PlanResult] = ()) -> Interactive:
    """Play `tasks` in `env` by hand, and compare with what planners answered to the same.

    The judge is out of reach here as it is for a planner: what counts is the reward. `plans`: results of stage 4.
    """
    several = [tasks] if isinstance(tasks, Task) else list(tasks)
    env = env.fork()
    return Interactive(
        lambda: [PlaySession(env, several, reward, plans).box], lambda: first_observation(Episode(env, several[0]))
    )


class PlaySession:
    """The page at hand, the actions to choose from, and the reward so far. `path`: the states from the start on."""

    def __init__(self, env: Environment, tasks: Sequence[Task], reward: Any, plans: Sequence[PlanResult]):
        self.env, self.tasks, self.reward, self.plans = env, tasks, reward, plans
        env.allow_repeats = True  # a reader may go back to where they were
        self.task_slider = index_slider("Task", len(tasks))
        self.page = ipw.VBox(layout={"flex": "4 1 24em"})
        self.page.add_class("page")
        self.score, self.answers = ipw.HTML(layout={"flex": "3 1 24em"}), ipw.HTML()
        self.undo = button("Undo", "take the last action back", lambda: self.show(self.path[:-1]))
        self.restart = button("Start again", "back to the first observation", lambda: self.show(self.path[:1]))
        self.compare_button = button("Compare with the planners", "what they answered to this task", self.compare)
        self.task_slider.observe(lambda _: self.start(), "value")
        below = wrapped_row([self.undo, self.restart, self.compare_button])
        self.box = ipw.VBox([self.task_slider, wrapped_row([self.page, self.score]), below, self.answers])
        self.start()

    def start(self) -> None:
        self.episode = Episode(self.env, self.tasks[self.task_slider.value - 1])
        self._rewards: dict[tuple[str, ...], float] = {}
        self.show([self.episode.start()])

    def act(self, action: str) -> None:
        self.show([*self.path, self.episode.step(self.path[-1], action)])
        first = next(focusable(self.page), self.compare_button)
        with contextlib.suppress(RuntimeError):  # no event loop: nobody is there
            # What had the focus is gone, and the next key would go to the notebook: whoever plays by keys goes on here.
            asyncio.get_running_loop().call_later(FOCUS_DELAY, first.focus)

    def show(self, path: list[State]) -> None:
        self.path, state = path, path[-1]
        self.undo.disabled = self.restart.disabled = len(path) == 1
        trajectory = state.trajectory
        picture = [trajectory.picture, *(step.picture for step in trajectory.steps)][-1]
        parts: list[ipw.Widget] = [ipw.HTML(f"<b>{escape(trajectory.task.instruction)}</b>")]
        if picture:
            parts.append(ipw.HTML(image_html(picture, "the picture of this page")))
        rest: Sequence[str] = state.admissible
        page = self.env.page(trajectory, state.admissible)
        if page is None:
            rows = [
                (0, "", trajectory.start),
                *((k, s.action, s.observation) for k, s in enumerate(trajectory.steps, 1)),
            ]
            parts.append(ipw.HTML(table_html(["step", "action", "what you see"], rows, [len(rows) - 1])))
        else:
            parts += [self._part(part, state.admissible) for part in page]
            rest = [a for a in state.admissible if not any(covers(part, a) for part in page)]
        if state.over:
            end = trajectory.failure or "The episode is over."
            parts.append(ipw.HTML(f"<p><b>{escape(end)} Reward: {self.reward_of(trajectory):.2f}</b></p>"))
        chart = image_html(reward_chart(self._mine()))  # it takes a moment, and page and chart should change together
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
        self.score.value = image_html(reward_chart(self._mine(), answers=levels))
        self.answers.value = table_html(["who", "reward", "actions"], rows, [[row[0] for row in rows].index("you")])

    def _mine(self) -> dict[str, list[float]]:
        return {"you": [self.reward_of(state.trajectory) for state in self.path]}

    def reward_of(self, trajectory: Trajectory) -> float:
        if trajectory.actions not in self._rewards:
            [self._rewards[trajectory.actions]] = self.reward.score([trajectory.task.instruction], [trajectory])
        return float(self._rewards[trajectory.actions])

    def _menu(self, actions: Sequence[str]) -> list[ipw.Widget]:
        if len(actions) <= MAX_BUTTONS:
            return [wrapped_row([self._button(action, action) for action in actions])]
        words = ipw.Text(description="Filter", placeholder="part of an action", continuous_update=True)
        listed = ipw.Select(options=actions, value=actions[0], description="Action", rows=9)
        words.observe(lambda change: setattr(listed, "options", filter_actions(actions, change["new"])), "value")
        return [
            words,
            listed,
            button("Do it", "do the action that is marked in the list", lambda: self._do(listed.value), "primary"),
        ]

    def _do(self, action: str | None) -> None:
        if action:
            self.act(action)

    def _part(self, part: Part, admissible: Sequence[str]) -> ipw.HBox:
        """`part` in one row; a button that is not admissible is shown all the same, and cannot be pressed."""
        buttons = [self._button(text, action) for text, action in part.actions]
        for one, (_, action) in zip(buttons, part.actions):
            one.disabled = action not in admissible
        before, after = ([text_html(text, part.strong)] if text else [] for text in (part.before, part.after))
        row = [*before, *buttons, *after]
        if part.entry:
            name, action = part.entry
            head, tail = action.split("{}")
            known = [a[len(head) : len(a) - len(tail)] for a in admissible if covers(part, a)]
            words = ipw.Combobox(description=name, options=known, placeholder="your own words, or one of the list")
            row += [words, button(name, f"{name} with these words", lambda: self._say(action, words.value), "primary")]
        return wrapped_row(row)

    def _say(self, action: str, words: str) -> None:
        if words.strip():
            self.act(action.replace("{}", words.strip()))

    def _button(self, text: str, action: str) -> ipw.Button:
        return button(text, action, lambda: self.act(action))


def button(text: str, meaning: str, do: Callable[[], None], style: str = "") -> ipw.Button:
    """A button that does `do()`; `text` is shown as text."""
    made = ipw.Button(description=text, tooltip=meaning, button_style=style)
    made.on_click(lambda _: do())
    return made


def focusable(box: ipw.Widget) -> Iterator[ipw.Widget]:
    """What can be pressed or typed into in `box`, in its order."""
    for child in getattr(box, "children", ()):
        if isinstance(child, (ipw.Button, ipw.Text)) and not child.disabled:
            yield child
        yield from focusable(child)


def wrapped_row(children: Sequence[ipw.Widget]) -> ipw.HBox:
    return ipw.HBox(list(children), layout={"flex_flow": "row wrap"})


def text_html(text: str, strong: bool) -> ipw.HTML:
    """Text of a page that cannot be clicked."""
    return ipw.HTML(f"<b>{escape(text)}</b>" if strong else escape(text), layout={"flex": "0 1 auto"})


def covers(part: Part, action: str) -> bool:
    """Whether `action` can be taken by a button or by the entry of `part`."""
    head, tail = part.entry[1].split("{}") if part.entry else ("", "")
    typed = bool(part.entry) and action.startswith(head) and action.endswith(tail)
    return typed or any(action == offered for _, offered in part.actions)


def filter_actions(actions: Sequence[str], words: str) -> list[str]:
    """The actions in which each of `words` occurs, in any order; first those that begin with them as they stand."""
    typed = words.lower().strip()
    found = [action for action in actions if all(word in action.lower() for word in typed.split())]
    return sorted(found, key=lambda action: not action.lower().startswith(typed))


def part_to_text(part: Part) -> str:
    """`part` as plain text."""
    return " ".join(filter(None, [part.before, ", ".join(name for name, _ in part.actions), part.after]))


@mpl.rc_context(figures.STYLE)
def first_observation(episode: Episode) -> Figure:
    """What a player sees first, as a picture."""
    state = episode.start()
    some = "; ".join(state.admissible[:6]) + (" …" if len(state.admissible) > 6 else "")
    page = episode.env.page(state.trajectory, state.admissible)
    seen = [state.trajectory.start] if page is None else map(part_to_text, page)
    told = [episode.task.instruction, *filter(None, seen), f"{len(state.admissible)} actions: {some}"]
    wide = 46 if state.trajectory.picture else 92
    lines = [line for text in told for line in textwrap.wrap(text, wide, max_lines=5, placeholder=" …")]
    figure = figures.NotebookFigure(figsize=(9.5, max(1 + 0.3 * len(lines), 4 if state.trajectory.picture else 0)))
    top = 1 - 0.15 / figure.get_figheight()
    figure.text(0.02, top, "Be the agent: what would you do first?", va="top", weight="bold")
    figure.text(0.02, top - 0.45 / figure.get_figheight(), "\n".join(lines), va="top", linespacing=1.5)
    if state.trajectory.picture:
        axes = figure.add_axes((0.56, 0.05, 0.42, 0.85))
        axes.imshow(imread(state.trajectory.picture))
        axes.set_axis_off()
    return figures.with_alt(figure, f"The first observation of a task to play by hand. {' '.join(told)}")
