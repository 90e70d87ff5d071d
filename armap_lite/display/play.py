"""Be the agent: solve a task by clicking admissible actions while the reward model scores each step."""

import asyncio
import contextlib
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ipywidgets as ipw
import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.image import imread

from armap_lite.display import canvas, widgets
from armap_lite.display.tables import in_a_line
from armap_lite.display.widgets import Interactive, escape
from armap_lite.envs.base import Environment
from armap_lite.envs.page import Part
from armap_lite.episode import Episode, State
from armap_lite.planners.base import PlanResult
from armap_lite.trajectory import Task, Trajectory

FOCUS_DELAY = 0.3  # seconds until a new widget stands on the page
MAX_BUTTONS = 12  # more actions are shown as a list with a filter


def play(env: Environment, tasks: Task | Sequence[Task], reward: Any, plans: Sequence[PlanResult] = ()) -> Interactive:
    """Play `tasks` in `env` by hand and compare the reward with that of the planners' answers, `plans` of stage 4.

    As for a planner, there is no judge here.
    """
    several = [tasks] if isinstance(tasks, Task) else list(tasks)
    env = env.fork()
    first = Episode(env, several[0])
    answers = {p.planner: p.answer for p in plans if p.task_id == several[0].id}

    def picture() -> Figure:
        scored = reward.score([several[0].instruction] * len(answers), list(answers.values())) if answers else []
        return first_observation(first, dict(zip(answers, map(float, scored))))

    return Interactive(lambda: [PlaySession(env, several, reward, plans).box], picture)


class PlaySession:
    """The current page, its actions, and the rewards so far. `path`: the states from the start on."""

    def __init__(self, env: Environment, tasks: Sequence[Task], reward: Any, plans: Sequence[PlanResult]):
        self.env, self.tasks, self.reward, self.plans = env, tasks, reward, plans
        env.allow_repeats = True  # a reader may return to an earlier state
        self.task_slider = widgets.index_slider("Task", len(tasks))
        self.page = ipw.VBox(layout={"flex": "4 1 24em"})
        self.page.add_class("page")
        self.score, self.answers = ipw.HTML(layout={"flex": "3 1 24em"}), ipw.HTML()
        self.undo = button("Undo", "take the last action back", lambda: self.show(self.path[:-1]))
        self.restart = button("Start again", "back to the first observation", lambda: self.show(self.path[:1]))
        self.compare_button = button("Compare with the planners", "their answers to this task", self.compare)
        self.task_slider.observe(lambda _: self.start(), "value")
        below = wrapped_row([self.undo, self.restart, self.compare_button])
        self.box = ipw.VBox([self.task_slider, wrapped_row([self.page, self.score]), below, self.answers])
        self.start()

    def start(self) -> None:
        """Show the first observation of the selected task."""
        self.episode = Episode(self.env, self.tasks[self.task_slider.value - 1])
        self._rewards: dict[tuple[str, ...], float] = {}
        self.show([self.episode.start()])

    def act(self, action: str) -> None:
        """Take `action`, and move the keyboard focus, which was on a widget that is gone, to the new page."""
        self.show([*self.path, self.episode.step(self.path[-1], action)])
        first = next(focusable(self.page), self.compare_button)
        with contextlib.suppress(RuntimeError):  # no event loop, hence no page
            asyncio.get_running_loop().call_later(FOCUS_DELAY, first.focus)

    def show(self, path: list[State]) -> None:
        """Show the last state of `path`, which becomes the current path."""
        self.path, state = path, path[-1]
        self.undo.disabled = self.restart.disabled = len(path) == 1
        trajectory, rest = state.trajectory, state.admissible
        picture = [trajectory.picture, *(step.picture for step in trajectory.steps)][-1]
        parts: list[ipw.Widget] = [ipw.HTML(widgets.instruction_html(trajectory.task.instruction))]
        if picture:
            parts.append(ipw.HTML(widgets.image_html(picture, "the picture of this page")))
        page = self.env.page(trajectory, state.admissible)
        if page is None:
            rows = [(0, "", trajectory.start)]
            rows += [(k, step.action, step.observation) for k, step in enumerate(trajectory.steps, 1)]
            parts.append(ipw.HTML(widgets.table_html(["step", "action", "observation"], rows, [len(rows) - 1])))
        else:
            parts += [self._part(part) for part in page]
            rest = tuple(action for action in rest if not any(covers(part, action) for part in page))
        if state.over:
            end = f"{trajectory.failure or 'The episode is over.'}{self._by_code(trajectory)}"
            parts.append(ipw.HTML(f"<p><b>{escape(end)} Reward: {self.reward_of(trajectory):.2f}</b></p>"))
        # the chart takes a moment: made before page and chart change together
        chart = widgets.image_html(widgets.reward_chart(self._mine()))
        self.page.children = [*parts, *self._menu(rest)]
        self.score.value, self.answers.value = chart, ""

    def _by_code(self, trajectory: Trajectory) -> str:
        """Whether code finds that the instruction is fulfilled, where it can read it."""
        goal = self.env.hindsight and self.env.hindsight.parse(trajectory.task.instruction)
        if not (goal and self.env.hindsight):
            return ""
        done = self.env.hindsight.satisfied(trajectory, goal)
        return f" What was asked, by code: {'done' if done else 'not done'}."

    def compare(self) -> None:
        """Show the planners' answers to this task beside the reader's own."""
        mine = self.path[-1].trajectory
        found = {p.planner: p.answer for p in self.plans if p.task_id == mine.task.id}
        if not found:
            self.answers.value = "<p>There are no plans for this task yet.</p>"
            return
        levels = {name: self.reward_of(answer) for name, answer in found.items()}
        you = "you" if self.path[-1].over else "you, not finished"  # a guess, beside finished answers
        rows = [(name, self.reward_of(t), in_a_line(t, 150)) for name, t in {you: mine, **found}.items()]
        rows.sort(key=lambda row: (row[0] == "you, not finished", -row[1]))
        self.score.value = widgets.image_html(widgets.reward_chart(self._mine(), answers=levels))
        marked = [i for i, row in enumerate(rows) if row[0] == you]
        self.answers.value = widgets.table_html(["player", "reward", "actions"], rows, marked)

    def _mine(self) -> dict[str, list[float]]:
        return {"you": [self.reward_of(state.trajectory) for state in self.path]}

    def reward_of(self, trajectory: Trajectory) -> float:
        if trajectory.actions not in self._rewards:
            [self._rewards[trajectory.actions]] = self.reward.score([trajectory.task.instruction], [trajectory])
        return float(self._rewards[trajectory.actions])

    def _menu(self, actions: Sequence[str]) -> list[ipw.Widget]:
        """Buttons for a few `actions`, a list with a filter for many."""
        if len(actions) <= MAX_BUTTONS:
            return [wrapped_row([self._button(action, action) for action in actions])]
        words = ipw.Text(description="Filter", placeholder="part of an action", continuous_update=True)
        listed = ipw.Select(options=actions, value=actions[0], description="Action", rows=9)
        words.observe(lambda change: setattr(listed, "options", filter_actions(actions, change["new"])), "value")

        def take() -> None:
            if listed.value:
                self.act(listed.value)

        return [words, listed, button("Do it", "take the selected action", take, "primary")]

    def _part(self, part: Part) -> ipw.HBox:
        """`part` in one row."""

        def label(text: str) -> list[ipw.Widget]:
            shown = f"<b>{escape(text)}</b>" if part.strong else escape(text)
            return [ipw.HTML(shown, layout={"flex": "0 1 auto"})] if text else []

        buttons = [self._button(text, action) for text, action in part.actions]
        row = [*label(part.before), *buttons, *label(part.after)]
        if part.entry:
            name, action = part.entry
            head, tail = action.split("{}")
            known = [a[len(head) : len(a) - len(tail)] for a in self.path[-1].admissible if covers(part, a)]
            words = ipw.Combobox(description=name, options=known, placeholder="your own words, or one of the list")

            def enter() -> None:
                if words.value.strip():
                    self.act(action.replace("{}", words.value.strip()))

            row += [words, button(name, f"{name} with these words", enter, "primary")]
        return wrapped_row(row)

    def _button(self, text: str, action: str) -> ipw.Button:
        """A button for `action`, disabled where that is not admissible."""
        made = button(text, action, lambda: self.act(action))
        made.disabled = action not in self.path[-1].admissible
        return made


def button(text: str, tooltip: str, do: Callable[[], None], style: str = "") -> ipw.Button:
    """A button that calls `do()`."""
    made = ipw.Button(description=text, tooltip=tooltip, button_style=style)
    made.on_click(lambda _: do())
    return made


def focusable(box: ipw.Widget) -> Iterator[ipw.Widget]:
    """The enabled buttons and text fields in `box`, in order."""
    for child in getattr(box, "children", ()):
        if isinstance(child, (ipw.Button, ipw.Text)) and not child.disabled:
            yield child
        yield from focusable(child)


def wrapped_row(children: Sequence[ipw.Widget]) -> ipw.HBox:
    return ipw.HBox(list(children), layout={"flex_flow": "row wrap"})


def covers(part: Part, action: str) -> bool:
    """Whether a button or the entry of `part` leads to `action`."""
    head, tail = part.entry[1].split("{}") if part.entry else ("", "")
    typed = bool(part.entry) and action.startswith(head) and action.endswith(tail)
    return typed or any(action == offered for _, offered in part.actions)


def filter_actions(actions: Sequence[str], words: str) -> list[str]:
    """The actions that contain each of `words`, in any order; those that begin with the whole text come first."""
    typed = words.lower().strip()
    found = [action for action in actions if all(word in action.lower() for word in typed.split())]
    return sorted(found, key=lambda action: not action.lower().startswith(typed))


@mpl.rc_context(canvas.STYLE)
def first_observation(episode: Episode, planners: Mapping[str, float]) -> Figure:
    """The first page of a task as a figure, beside it the rewards of the `planners`' answers, to beat."""
    state = episode.start()
    trajectory, actions = state.trajectory, state.admissible
    page = episode.env.page(trajectory, actions)
    parts = [(part.before, ", ".join(name for name, _ in part.actions), part.after) for part in page or ()]
    seen = [trajectory.start] if page is None else [" ".join(filter(None, part)) for part in parts]
    some = f"{len(actions)} actions: {'; '.join(actions[:6])}{' …' * (len(actions) > 6)}"
    paragraphs = [trajectory.task.instruction, *filter(None, seen), some]
    beside = bool(planners or trajectory.picture)
    lines = [textwrap.fill(text, 52 if beside else 92, max_lines=6, placeholder=" …") for text in paragraphs]
    height = max(1 + 0.28 * ("\n".join(lines).count("\n") + 1.5 * len(lines)), 4.2 if beside else 0)
    figure = canvas.NotebookFigure(figsize=(10.5, height))
    figure.text(0.02, 1 - 0.15 / height, "Be the agent: what would you do first?", va="top", weight="bold", fontsize=14)
    figure.text(0.02, 1 - 0.6 / height, "\n\n".join(lines), va="top", linespacing=1.35)
    if trajectory.picture:
        axes = figure.add_axes((0.66, 0.5, 0.32, 0.45) if planners else (0.6, 0.05, 0.38, 0.85))
        axes.imshow(imread(trajectory.picture))
        axes.set_axis_off()
    if planners:
        axes = figure.add_axes((0.71, 0.2, 0.27, 0.25 if trajectory.picture else 0.62))
        ranked = sorted(planners.items(), key=lambda one: -one[1])
        names, rewards = zip(*ranked)
        axes.scatter(rewards, range(len(names)), 130, color=canvas.BLUE)
        axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        axes.margins(0.15)
        axes.invert_yaxis()
        axes.grid(axis="y", lw=0.6, alpha=0.5)
        axes.locator_params(axis="x", nbins=4)
        axes.set(xlabel="reward", title="To beat: the planners' answers")
        paragraphs.append(
            "Rewards of the planners: " + ", ".join(f"{name} {value:.2f}" for name, value in ranked) + "."
        )
    return canvas.with_alt(figure, f"The first observation of a task to play by hand. {' '.join(paragraphs)}")
