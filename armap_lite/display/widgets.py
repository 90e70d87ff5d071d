"""Widgets: figures that sliders control. Plain stage data in, an `Interactive` out (see also `play.py`).

Text of a world, a model or a catalogue is never markup: it goes through `escape`, or into buttons and lists, which
show it as it is. Nothing here asks a judge; gold scores come in as numbers.
"""

import dataclasses
import functools
import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from armap_lite import evaluate, statistics
from armap_lite.display import canvas, figures, trees
from armap_lite.display.tables import cut, in_a_line
from armap_lite.envs.base import Term
from armap_lite.planners.base import PlanResult
from armap_lite.trajectory import PreferencePair, Trajectory

PLANNER_COLOURS = {
    "mcts": canvas.GREEN,
    "best_of_n": canvas.ORANGE,
    "reflexion": canvas.SKY,
    "greedy": canvas.BLACK,
}
LEVEL_STYLES: tuple[Any, ...] = (":", "--", "-.", (0, (6, 2)), (0, (1, 3)))  # so that equal levels show side by side
CSS = (Path(__file__).parent / "templates" / "widgets.css").read_text(encoding="utf-8")


class Interactive:
    """Controls where a reader can use them, a figure elsewhere: in a batch run, on a page, in print.

    `controls` is the ipywidget, `figure()` the figure; each is made on demand.
    """

    def __init__(self, build: Callable[[], Sequence[ipw.Widget]], figure: Callable[[], Figure]):
        self._build = build
        self.figure = figure

    @functools.cached_property
    def controls(self) -> ipw.VBox:
        box = ipw.VBox([ipw.HTML(f"<style>{CSS}</style>"), *self._build()])
        box.add_class("armap")
        return box

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
        figure, read = self.figure(), canvas.is_interactive()
        if not read:
            said = "\n".join([*filter(None, [figure.get_supxlabel()]), "A picture: the controls work in JupyterLab."])
            figure.supxlabel(said, x=0.01, ha="left", fontsize=12, color=canvas.GREY)
        shown, about = figure._repr_mimebundle_()
        shown["text/plain"] = about["image/png"]["alt"]
        # In a notebook with widget state, which papermill stores, nbconvert prefers the widget to the image, and the
        # page would show controls that move nothing. Hence no widget without a reader.
        if read:
            shown[canvas.WIDGET_MIME] = self.controls._repr_mimebundle_()[canvas.WIDGET_MIME]
        return shown, about


def image_html(source: Figure | Path | str, alt: str = "") -> str:
    """A figure, with its own alternative text, or the PNG file at a path, as a self-contained `<img>`."""
    if isinstance(source, Figure):
        data, alt, height = canvas.png(source), str(source.get_label()), "none"
    else:
        data, height = Path(source).read_bytes(), "240px"
    return f'<img src="{canvas.png_uri(data)}" alt="{escape(alt)}" style="max-height:{height}">'


def table_html(head: Sequence[str], rows: Sequence[Sequence[object]], marked: Sequence[int] = ()) -> str:
    """A table of text and numbers; the rows `marked` are highlighted by weight and colour."""

    def cell(value: object) -> str:
        number = isinstance(value, (int, float))
        text = f"{value:.2f}" if isinstance(value, float) else value
        return f"<td{' class=number' * number}>{escape(str(text))}</td>"

    lines = (f"<tr{' class=marked' * (i in marked)}>{''.join(map(cell, row))}</tr>" for i, row in enumerate(rows))
    return f"<table><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>{''.join(lines)}</table>"


def instruction_html(instruction: str) -> str:
    return f"<p><b>{escape(instruction)}</b></p>"


def slider(label: str, low: int, high: int, meaning: str) -> ipw.IntSlider:
    return ipw.IntSlider(low, low, high, description=label, tooltip=meaning, continuous_update=False)


def index_slider(label: str, n: int) -> ipw.IntSlider:
    """Selects one of `n`, counted from 1; hidden where there is only one.

    A drop-down list would lose the arrow keys to JupyterLab (ipywidgets issue 3912).
    """
    shown = slider(label, 1, n, f"which {label.lower()} is shown")
    shown.layout.display = None if n > 1 else "none"
    return shown


def with_output(controls: Sequence[ipw.Widget], render: Callable[..., str]) -> list[ipw.Widget]:
    """`controls`, and below them the HTML that `render` makes of their values, updated with each change."""
    output = ipw.HTML()

    def update(*_: object) -> None:
        output.value = render(*(control.value for control in controls))

    for control in controls:
        control.observe(update, "value")
    update()
    return [*controls, output]


def explore_pairs(
    pairs: PreferencePair | Sequence[PreferencePair], reward: Any, names: Mapping[str, str] | None = None
) -> Interactive:
    """Step through preference pairs: chosen beside rejected, differences marked, the reward after every step.

    `names`: what to write for an action that says little.
    """
    items = [pairs] if isinstance(pairs, PreferencePair) else list(pairs)

    @functools.cache
    def rewards(i: int) -> dict[str, list[float]]:
        """Rewards of each side after 0, 1, … T steps: [T + 1]."""
        found = {}
        for side in ("chosen", "rejected"):
            whole: Trajectory = getattr(items[i], side)
            cut = [dataclasses.replace(whole, steps=whole.steps[:k], done=False) for k in range(len(whole.steps))]
            found[side] = [float(r) for r in reward.score([items[i].instruction] * (len(cut) + 1), [*cut, whole])]
        return found

    def render(number: int, step: int) -> str:
        pair, lines = items[number - 1], rewards(number - 1)
        chart = image_html(reward_chart(lines, at=step, change=pair.changed_at + 1))
        return instruction_html(pair.instruction) + chart + _pair_html(pair, lines, step, names or {})

    def build() -> Sequence[ipw.Widget]:
        number = index_slider("Pair", len(items))
        step = slider("Step", 0, 1, "how far both trajectories have gone")

        def start_at_the_change(*_: object) -> None:
            pair = items[number.value - 1]
            step.max = max(len(pair.chosen.steps), len(pair.rejected.steps))
            step.value = min(step.max, pair.changed_at + 1)

        number.observe(start_at_the_change, "value")
        start_at_the_change()
        return with_output([number, step], render)

    whole = {"change": items[0].changed_at + 1, "pair": items[0], "names": names}
    return Interactive(build, lambda: reward_chart(rewards(0), **whole))


def _pair_html(pair: PreferencePair, rewards: Mapping[str, Sequence[float]], k: int, names: Mapping[str, str]) -> str:
    """The first `k` steps of both trajectories, a row each, and the pictures that both show then."""
    rows: list[list[object]] = []
    for i, steps in enumerate(itertools.zip_longest(pair.chosen.steps[:k], pair.rejected.steps[:k]), 1):
        rows.append([f"{i} {'=' if steps[0] == steps[1] else '≠'}"])
        for step, values in zip(steps, rewards.values()):
            rows[-1] += (
                [f"{names.get(step.action, step.action)}  →  {textwrap.shorten(step.observation, 160)}", values[i]]
                if step
                else ["", ""]
            )
    marked = [i for i, row in enumerate(rows) if "≠" in str(row[0])]
    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
    seen = {name: [t.picture, *(step.picture for step in t.steps[:k])][-1] for name, t in sides.items()}
    pictures = "".join(f"{name}: {image_html(path, f'what {name} shows')} " for name, path in seen.items() if path)
    table = table_html(["step", "chosen", "reward", "rejected", "reward"], rows, marked)
    return f"{table}<p>{pictures}</p>"


@mpl.rc_context(canvas.STYLE)
def reward_chart(
    rewards: Mapping[str, Sequence[float]],
    *,
    at: int | None = None,
    change: int | None = None,
    answers: Mapping[str, float] | None = None,
    pair: PreferencePair | None = None,
    names: Mapping[str, str] | None = None,
) -> Figure:
    """Reward after every step, a line for each trajectory, up to step `at`; `change`: the first step that differs.

    `answers`: planner -> reward of its answer, drawn as a level. `pair`: its actions label the points, under their
    `names` if they have any.
    """
    answers = answers or {}
    size = (9.5, 5.2) if pair else (9.5, 3.8) if len(rewards) > 1 else (5.6, 4.4 + 0.25 * len(answers))
    figure, (axes,) = canvas.panels(*size)
    ends, longest = [], max(len(values) for values in rewards.values()) - 1
    looks = ((canvas.BLUE, "o", "-"), (canvas.VERMILLION, "X", "--"))
    for (name, values), (colour, mark, style) in zip(rewards.items(), looks):
        shown = values[: len(values) if at is None else at + 1]
        axes.plot(range(len(shown)), shown, color=colour, marker=mark, ms=9, ls=style, label=name)
        ends.append(f"{name} {shown[-1]:.2f}")
        for k, step in enumerate(getattr(pair, name).steps if pair else (), 1):
            shared = change is not None and k < change  # by both sides: named once
            crowded = longest > 5 and k not in (change, len(values) - 1)
            if crowded or (shared and name != next(iter(rewards))):
                continue
            above = all(values[k] >= others[k] for others in rewards.values() if k < len(others))
            text = textwrap.fill(cut((names or {}).get(step.action, step.action), 36), max(12, 66 // longest))
            place = {"va": "bottom" if above else "top", "ha": "center", "zorder": 4}
            place["color"] = canvas.GREY if shared else colour
            canvas.note(axes, text, (k, values[k]), (0, 10 if above else -10), **place)
    for (name, level), style in zip(answers.items(), itertools.cycle(LEVEL_STYLES)):
        colour = PLANNER_COLOURS.get(name, canvas.GREY)
        axes.axhline(level, color=colour, lw=2.2, ls=style, label=f"{name.replace('_', ' ')} {level:.2f}")
    if change is not None and change <= longest:
        axes.axvline(change, color=canvas.GREY, lw=1.2, ls="--", zorder=0, label="first difference")
    known = [value for values in rewards.values() for value in values] + list(answers.values())
    room = (0.24 if pair else 0.15) * (max(known) - min(known)) or 1.0
    axes.set(xlim=(-0.3, longest + 0.6), ylim=(min(known) - room, max(known) + room))
    axes.set(xlabel="steps taken", ylabel="reward", xticks=range(0, longest + 1, 1 + longest // 15))
    taken = longest if at is None else at
    when = "at the end" if pair and at is None else f"after {taken} step{'s' * (taken != 1)}"
    title, instruction = f"Reward {when}: {', '.join(ends)}", pair.instruction if pair else ""
    axes.set_title("\n".join([*textwrap.wrap(instruction, 66, max_lines=3, placeholder=" …"), title]))
    figure.legend(loc="outside lower left" if len(rewards) == 1 else "outside right")
    levels = "; ".join(f"{name} {level:.2f}" for name, level in answers.items())
    text = f"Line chart of the reward after every step. {title}.{f' Planners: {levels}.' if levels else ''}"
    return canvas.with_alt(figure, f"{instruction} {text}".lstrip())


def explore_tree(
    plans: PlanResult | Sequence[PlanResult], gamma: float = 1.0, names: Mapping[str, str] | None = None
) -> Interactive:
    """Grow the tree of MCTS plans: after each attempt, the attempts, value and prior of the states on its path.

    `names`: what to write for an action that says little.
    """
    items = [plans] if isinstance(plans, PlanResult) else list(plans)

    def chart(plan: PlanResult, k: int) -> tuple[Figure, dict[str, Any]]:
        tree = trees.tree_after(plan, k, gamma)
        best = max(sample.reward or 0.0 for sample in plan.samples[:k])
        title = f"After attempt {k} of {len(plan.samples)} (outlined): highest reward so far {best:.2f}"
        actions = "; ".join(plan.samples[k - 1].trajectory.actions)
        rewards = [sample.reward or 0.0 for sample in plan.samples]  # one colour for a value, whatever k is
        figure = trees.search_tree(tree, (min(rewards), max(rewards)), names, "this attempt")
        return retitle(figure, title, f"Search tree. {title}. Attempt {k}: {actions}."), tree

    def render(number: int, k: int) -> str:
        plan = items[number - 1]
        figure, node = chart(plan, k)
        rows: list[list[object]] = [["start", node["visits"], float(node["value"]), ""]]
        while path := [child for child in node["children"] if child["chosen"]]:
            [node] = path
            rows.append([node["action"], node["visits"], float(node["value"]), float(node["prior"])])
        got = f"<p>Attempt {k} got reward <b>{plan.samples[k - 1].reward or 0.0:.2f}</b>. Its path:</p>"
        table = table_html(["action", "attempts", "value", "prior"], rows)
        return instruction_html(plan.answer.task.instruction) + image_html(figure) + got + table

    def build() -> Sequence[ipw.Widget]:
        number = index_slider("Task", len(items))
        attempt = slider("Attempt", 1, len(items[0].samples), "how many attempts the search has made")

        def restart(*_: object) -> None:
            attempt.value, attempt.max = 1, len(items[number.value - 1].samples)

        number.observe(restart, "value")
        return with_output([number, attempt], render)

    first = max(1, len(items[0].samples) // 3)  # the whole tree is a figure of its own
    return Interactive(build, lambda: chart(items[0], first)[0])


def retitle(figure: Figure, title: str, alt: str) -> Figure:
    """`figure` with another title and alternative text."""
    figure.axes[0].set_title(title, loc="left", fontsize=canvas.STYLE["axes.titlesize"])
    return canvas.with_alt(figure, alt)


def explore_best_of_n(plans: Sequence[PlanResult], golds: Mapping[str, Sequence[float]]) -> Interactive:
    """Move N: the gold score of the sample that the reward model, an oracle or chance picks among the first N.

    `plans` of planner "best_of_n"; `golds`: plan id -> gold score of each sample, from `evaluate.score_plans`.
    """
    rewards = [[sample.reward or 0.0 for sample in plan.samples] for plan in plans]
    scores = [list(golds[plan.id]) for plan in plans]
    order = sorted(range(len(plans)), key=lambda i: plans[i].task_id)  # as everywhere, so that intervals agree
    family = evaluate.families(plans)
    strata = [family[plans[i].task_id] for i in order] if family else None
    curve = statistics.best_of_n_curve([rewards[i] for i in order], [scores[i] for i in order], strata)
    most = len(curve["n"])

    def chart(n: int) -> Figure:
        figure = figures.best_of_n(curve, len(plans))
        figure.set_size_inches(10, 3.2)  # the table below stays in sight
        figure.legends[0].remove()
        figure.axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1))
        floor, picked, ceiling = (float(curve[name][n - 1]) for name in ("mean", "selected", "oracle"))
        figure.axes[0].axvline(n, color=canvas.BLACK, lw=1.6, ls="--")
        found = f"random {floor:.3f}, reward model {picked:.3f}, oracle {ceiling:.3f}"
        title = f"N = {n}: {found}\n{figures.sample_size(len(plans))}"
        return retitle(figure, title, f"{figure.get_label()} {title}.")

    def render(n: int, number: int) -> str:
        plan = plans[number - 1]
        reward, gold = np.array(rewards[number - 1][:n]), np.array(scores[number - 1][:n])
        pick = int(reward.argmax())
        rows = []
        for i, sample in enumerate(plan.samples[:n]):
            best = gold[i] == gold.max() and (n == 1 or gold.max() > gold.min())  # among equals there is no best
            pickers = " and ".join(["reward model"] * (i == pick) + ["oracle"] * bool(best))
            rows.append([i + 1, in_a_line(sample.trajectory, 150), float(reward[i]), float(gold[i]), pickers])
        heads = ["sample", "actions", "reward", "gold score", "picked by"]
        about = f"<p>The first {n} samples of this task. A random pick scores {gold.mean():.2f} on average.</p>"
        drawn, asked = image_html(chart(n)), instruction_html(plan.answer.task.instruction)
        return drawn + asked + about + table_html(heads, rows, [pick])

    def build() -> Sequence[ipw.Widget]:
        n = slider("N", 1, most, "how many samples there are to choose from")
        n.value = most
        return with_output([n, index_slider("Task", len(plans))], render)

    def one_task() -> Figure:  # the curve over all tasks is a figure of its own
        names = [in_a_line(sample.trajectory, 64) for sample in plans[0].samples]
        ranked = sorted(zip(names, rewards[0], scores[0]), key=lambda one: -one[1])
        figure = figures.attempts(list(dict.fromkeys(ranked)), float(np.mean(scores[0])))
        asked = textwrap.shorten(plans[0].answer.task.instruction, 100, placeholder=" …")
        found = f"picked {ranked[0][2]:.2f}, best {max(scores[0]):.2f}, random {np.mean(scores[0]):.2f}"
        title = f"{asked}\nN = {len(names)}: {found}"
        figure.suptitle(title, x=0.01, ha="left")
        return canvas.with_alt(figure, f"{title} {figure.get_label()}")

    return Interactive(build, one_task)


def explore_weights(
    plans: Sequence[PlanResult], terms: Mapping[str, Term], golds: Mapping[str, Sequence[float]] | None = None
) -> Interactive:
    """Move the weight λ of each control term: the mean cost and score of the answers change.

    `terms`: name -> term of `control.py`. The score is the learned reward, or the gold score where `golds` is given
    (see `explore_best_of_n`). A panel shows the frontier of one term, with the other weights fixed.
    """
    score_label = "learned reward" if golds is None else "gold score"
    rewards = [np.array([sample.reward or 0.0 for sample in plan.samples]) for plan in plans]
    scores = rewards if golds is None else [np.array(golds[plan.id], dtype=float) for plan in plans]
    costs = [np.array([[t(s.trajectory) for s in p.samples] for t in terms.values()]) for p in plans]  # [terms, N] each
    spread = np.concatenate(costs, axis=1).std(axis=1)
    top = 4 * (np.concatenate(rewards).std() or 1) / np.where(spread > 0, spread, 1)  # beyond, answers hardly change

    def means(weights: np.ndarray) -> np.ndarray:
        """Mean cost in each term and mean score of the answers under `weights`: [terms + 1]."""
        picks = [int((reward - weights @ cost).argmax()) for reward, cost in zip(rewards, costs)]
        return np.mean([[*c[:, k], s[k]] for c, s, k in zip(costs, scores, picks)], axis=0)

    corners = np.array([means(top * np.array(ends)) for ends in itertools.product((0, 0.05, 0.3, 1), repeat=len(top))])
    low, high = corners.min(0), corners.max(0)
    room = np.where(high > low, 0.15 * (high - low), 0.5)  # the axes stay while the sliders move

    def chart(*weights: float) -> Figure:
        here, points = means(np.array(weights)), []
        for i, term in enumerate(terms):
            for weight in top[i] * np.linspace(0, 1, 9) ** 2:  # small weights decide most
                *cost, score = means(np.array([*weights[:i], weight, *weights[i + 1 :]]))
                points.append({"term": term, "weight": float(f"{weight:.2g}"), "cost": cost[i], "score": score})
        figure = figures.frontier(points, len(plans), score_label=score_label)
        for axes, cost in zip(figure.axes, here):
            axes.plot(cost, here[-1], color=canvas.VERMILLION, marker="D", ms=13, zorder=3)
        for i, axes in enumerate(figure.axes):
            left = max(low[i] - 2.5 * room[i], 0 if low[i] >= 0 else -np.inf)  # a cost that counts is never below 0
            axes.set(xlim=(left, high[i] + 2 * room[i]), ylim=(low[-1] - room[-1], high[-1] + room[-1]))
        message = ", ".join(f"{name} {value:.3g}" for name, value in zip([*terms, score_label], here))
        size, chosen = canvas.STYLE["axes.titlesize"], ", ".join(f"{weight:.2g}" for weight in weights)
        figure.suptitle(f"With λ = {chosen} (diamond):\n{message}", x=0.01, ha="left", fontsize=size)
        return canvas.with_alt(figure, f"{figure.get_label()} With these weights: {message}.")

    def build() -> Sequence[ipw.Widget]:
        sliders = []
        for name, high in zip(terms, top):
            one = ipw.FloatSlider(0, max=float(f"{high:.2g}"), step=float(f"{high / 40:.1g}"), description=f"λ {name}")
            one.tooltip, one.readout_format = f"the learned reward that one unit of '{name}' costs", ".3g"
            one.continuous_update, one.style.description_width = False, "initial"
            sliders.append(one)
        return with_output(sliders, lambda *weights: image_html(chart(*weights)))

    return Interactive(build, lambda: chart(top[0] / 16, *[0.0] * (len(terms) - 1)))  # the diamond has moved a little
