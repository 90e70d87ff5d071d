"""Widgets: what the figures show, to be moved by hand. Plain stage data in, an `Interactive` out (see also `play.py`).

Text of a world, a model or a catalogue is shown as text, whatever it looks like: it goes through `safe`, or into
buttons and lists, which take no markup. Nothing here asks a judge; true scores come in as numbers, where they do.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import html
import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from armap_lite import statistics
from armap_lite.display import figures
from armap_lite.envs.base import Term
from armap_lite.planners.base import PlanResult
from armap_lite.planners.mcts import tree_after
from armap_lite.trajectory import PreferencePair, Trajectory

LOOK = """<style>
.armap { --jp-widgets-font-size: 16px; --jp-widgets-inline-height: 36px; --jp-widgets-inline-label-width: 6em; }
.armap .widget-html-content { font-size: 16px; line-height: 1.45; overflow-wrap: anywhere; }
.armap .widget-inline-hbox { max-width: 46em; width: auto; }
.armap .widget-label, .armap .widget-readout, .armap select, .armap input { font-size: 16px; }
.armap button { height: auto; min-height: 36px; width: auto; white-space: normal; text-align: left; line-height: 1.3; }
.armap button:focus-visible, .armap select:focus-visible, .armap .noUi-handle:focus { outline: 3px solid #D55E00; }
.armap .widget-vbox > button { align-self: flex-start; }
.armap img { max-width: 100%; }
.armap table { border-collapse: collapse; }
.armap th, .armap td { text-align: left; vertical-align: top; padding: 4px 10px; border-bottom: 1px solid #999; }
.armap th { white-space: nowrap; } .armap td { white-space: pre-line; overflow-wrap: anywhere; }
.armap .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.armap .page { border: 1px solid #999; border-radius: 8px; padding: 10px 14px; }
.armap tr.marked td { background: #FBE5C8; color: #000; font-weight: 600; }
</style>"""
VIEW = "application/vnd.jupyter.widget-view+json"


class Interactive:
    """Controls where somebody can use them, a picture where nobody can: in a batch run, on a page, in print.

    `controls` is the ipywidget, `picture()` the figure; each is made when it is first asked for.
    """

    def __init__(self, build: Callable[[], Sequence[ipw.Widget]], picture: Callable[[], Figure]):
        self._build = build
        self.picture = picture

    @functools.cached_property
    def controls(self) -> ipw.VBox:
        box = ipw.VBox([ipw.HTML(LOOK), *self._build()])
        box.add_class("armap")
        return box

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
        figure = self.picture()
        alt = str(figure.get_label())
        shown: dict[str, Any] = {"image/png": figures.png(figure), "text/plain": alt}
        # nbconvert takes the widget before the picture once the notebook holds the widget's state, and papermill puts
        # it there: the page would show controls that move nothing. So a run that nobody watches gets no widget.
        if figures.attended():
            shown[VIEW] = self.controls._repr_mimebundle_()[VIEW]
        return shown, {"image/png": {"alt": alt}}


# What the widgets are made of


def safe(text: object) -> str:
    """`text` for HTML, as text: nothing in it is markup, in an attribute neither."""
    return html.escape(str(text), quote=True)


def image(source: Figure | Path | str, alt: str = "") -> str:
    """`source` (a figure, which has its own alternative text, or the path of a PNG) as HTML that stands alone."""
    if isinstance(source, Figure):
        data, alt, height = figures.png(source), str(source.get_label()), "none"
    else:
        data, height = Path(source).read_bytes(), "240px"
    code = base64.b64encode(data).decode()
    return f'<img src="data:image/png;base64,{code}" alt="{safe(alt)}" style="max-height:{height}">'


def table(head: Sequence[str], rows: Sequence[Sequence[object]], marked: Sequence[int] = ()) -> str:
    """A table of text and numbers as HTML; rows `marked` stand out by weight and by colour."""

    def cell(value: object) -> str:
        number = isinstance(value, (int, float))
        text = f"{value:.2f}" if isinstance(value, float) else value
        return f"<td{' class=number' * number}>{safe(text)}</td>"

    lines = (f"<tr{' class=marked' * (i in marked)}>{''.join(map(cell, row))}</tr>" for i, row in enumerate(rows))
    return f"<table><tr>{''.join(f'<th>{safe(name)}</th>' for name in head)}</tr>{''.join(lines)}</table>"


def slider(label: str, low: int, high: int, meaning: str) -> ipw.IntSlider:
    return ipw.IntSlider(low, low, high, description=label, tooltip=meaning, continuous_update=False)


def choice(label: str, n: int) -> ipw.IntSlider:
    """Which of `n` is shown, counted from 1; of a single one there is nothing to choose, and it is not shown.

    Not a drop-down list: JupyterLab takes the arrow keys away from it (ipywidgets issue 3912).
    """
    shown = slider(label, 1, n, f"which {label.lower()} is shown")
    shown.layout.display = None if n > 1 else "none"
    return shown


# Preference pairs, step by step


def rewards_along(reward: Any, instruction: str, trajectory: Trajectory) -> list[float]:
    """What the reward model says after 0, 1, … T steps of `trajectory`: [T + 1]."""
    steps = trajectory.steps
    parts = [dataclasses.replace(trajectory, steps=steps[:k], done=False) for k in range(len(steps))] + [trajectory]
    return [float(value) for value in reward.score([instruction] * len(parts), parts)]


def explore_pairs(pairs: PreferencePair | Sequence[PreferencePair], reward: Any) -> Interactive:
    """Step through preference pairs: chosen beside rejected, differences marked, the reward after every step."""
    several = [pairs] if isinstance(pairs, PreferencePair) else list(pairs)

    @functools.cache
    def lines(i: int) -> dict[str, list[float]]:
        pair = several[i]
        return {side: rewards_along(reward, pair.instruction, getattr(pair, side)) for side in ("chosen", "rejected")}

    def build() -> Sequence[ipw.Widget]:
        pair, shown = choice("Pair", len(several)), ipw.HTML()
        step = slider("Step", 0, 1, "how far both trajectories have gone")

        def show(*_: object) -> None:
            at, known = several[pair.value - 1], lines(pair.value - 1)
            chart = reward_chart(known, at=step.value, change=at.changed_at + 1)
            shown.value = _beside(at, known, step.value) + image(chart)

        def other(*_: object) -> None:
            at = several[pair.value - 1]
            step.max = max(len(at.chosen.steps), len(at.rejected.steps))
            step.value = min(step.max, at.changed_at + 1)
            show()

        step.observe(show, "value")
        pair.observe(other, "value")
        other()
        return [pair, step, shown]

    return Interactive(build, lambda: reward_chart(lines(0), change=several[0].changed_at + 1, pair=several[0]))


def _beside(pair: PreferencePair, lines: Mapping[str, Sequence[float]], k: int) -> str:
    """The first `k` steps of both sides, a row each, and what the two show then."""
    rows: list[list[object]] = []
    for i, steps in enumerate(itertools.zip_longest(pair.chosen.steps[:k], pair.rejected.steps[:k]), 1):
        rows.append([f"{i} {'=' if steps[0] == steps[1] else '≠'}"])
        for step, values in zip(steps, lines.values()):
            rows[-1] += [f"{step.action}  →  {step.observation}", values[i]] if step else ["", ""]
    marked = [i for i, row in enumerate(rows) if "≠" in str(row[0])]
    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
    seen = {name: [t.picture, *(step.picture for step in t.steps[:k])][-1] for name, t in sides.items()}
    pictures = "".join(f"{name}: {image(path, f'what {name} shows')} " for name, path in seen.items() if path)
    head = ["step", "chosen", "reward", "rejected", "reward"]
    return f"<p><b>{safe(pair.instruction)}</b></p>{table(head, rows, marked)}<p>{pictures}</p>"


@mpl.rc_context(figures.STYLE)
def reward_chart(
    lines: Mapping[str, Sequence[float]],
    *,
    at: int | None = None,
    change: int | None = None,
    answers: Mapping[str, float] | None = None,
    pair: PreferencePair | None = None,
) -> Figure:
    """Reward after every step, a line for each trajectory, up to step `at`; `change`: the first step that differs.

    `answers`: name -> reward of another's answer, as a level to compare with. `pair`: its actions stand at the points.
    """
    size = (9.5, 5.2) if pair else (9.5, 3.8) if len(lines) > 1 else (5.6, 4.4 + 0.25 * len(answers or {}))
    figure = figures.Picture(figsize=size, layout="constrained")
    axes, said = figure.subplots(), []
    for (name, values), colour, mark, style in zip(
        lines.items(), (figures.BLUE, figures.VERMILLION), "oX", ("-", "--")
    ):
        shown = values[: len(values) if at is None else at + 1]
        axes.plot(range(len(shown)), shown, color=colour, marker=mark, ms=9, ls=style, label=name)
        said.append(f"{name} {shown[-1]:.2f}")
        for k, step in enumerate(getattr(pair, name).steps if pair and len(values) < 6 else (), 1):
            above = all(values[k] >= others[k] for others in lines.values() if k < len(others))
            place: dict[str, Any] = {"xytext": (0, 10), "va": "bottom"} if above else {"xytext": (0, -10), "va": "top"}
            text = step.action if len(step.action) < 28 else step.action[:26] + "…"
            place |= {"textcoords": "offset points", "ha": "center", "path_effects": figures.OUTLINE}
            axes.annotate(text, (k, values[k]), color=colour, zorder=4, **place)
    colours = (figures.GREEN, figures.ORANGE, figures.SKY, figures.GREY, figures.BLACK)
    for (name, level), colour in zip((answers or {}).items(), itertools.cycle(colours)):
        axes.axhline(level, color=colour, lw=1.8, ls=":", label=f"{name.replace('_', ' ')} {level:.2f}")
    longest = max(len(values) for values in lines.values()) - 1
    if change is not None and change <= longest:
        axes.axvline(change, color=figures.GREY, lw=1.2, ls="--", zorder=0)
        axes.annotate("first difference", (change, 0), (4, 4), ("data", "axes fraction"), "offset points")
    known = [value for values in lines.values() for value in values] + list((answers or {}).values())
    room = 0.15 * (max(known) - min(known)) or 1.0
    axes.set(xlim=(-0.3, longest + 0.6), ylim=(min(known) - room, max(known) + room))
    axes.set(xlabel="steps taken", ylabel="reward", xticks=range(0, longest + 1, 1 + longest // 15))
    taken = longest if at is None else at
    when = "at the end" if pair and at is None else f"after {taken} step{'s' * (taken != 1)}"
    title = f"Reward {when}: {', '.join(said)}"
    asked = textwrap.wrap(pair.instruction, 66, max_lines=3, placeholder=" …") if pair else []
    axes.set_title("\n".join([*asked, title]))
    figure.legend(loc="outside lower left" if len(lines) == 1 else "outside right")
    beside = "; ".join(f"{name} {level:.2f}" for name, level in (answers or {}).items())
    text = f"Line chart of the reward after every step. {title}.{f' Planners: {beside}.' if beside else ''}"
    return figures.with_alt(figure, f"{pair.instruction} {text}" if pair else text)


# A search, rollout by rollout


def explore_tree(plans: PlanResult | Sequence[PlanResult], gamma: float = 1.0) -> Interactive:
    """Grow the tree of MCTS plans rollout by rollout: visits, value and prior along the path that was taken."""
    several = [plans] if isinstance(plans, PlanResult) else list(plans)

    def chart(i: int, k: int) -> Figure:
        samples = several[i].samples
        figure = figures.search_tree(tree_after(several[i], k, gamma))
        best = max(sample.reward or 0.0 for sample in samples[:k])
        said = f"After rollout {k} of {len(samples)} (outlined): highest reward so far {best:.2f}"
        figure.axes[0].set_title(said, loc="left", fontsize=figures.STYLE["axes.titlesize"])
        return figures.with_alt(
            figure, f"Search tree. {said}. Rollout {k}: {'; '.join(samples[k - 1].trajectory.actions)}."
        )

    def build() -> Sequence[ipw.Widget]:
        task, shown = choice("Task", len(several)), ipw.HTML()
        rollout = slider("Rollout", 1, 1, "how many rollouts the search has done")

        def show(*_: object) -> None:
            plan, k = several[task.value - 1], rollout.value
            got = f"<p>Rollout {k} got reward <b>{plan.samples[k - 1].reward or 0.0:.2f}</b>. Its path:</p>"
            drawn = image(chart(task.value - 1, k)) + got + _path(tree_after(plan, k, gamma))
            shown.value = f"<p><b>{safe(plan.answer.task.instruction)}</b></p>{drawn}"

        def other(*_: object) -> None:
            rollout.value, rollout.max = 1, len(several[task.value - 1].samples)
            show()

        rollout.observe(show, "value")
        task.observe(other, "value")
        other()
        return [task, rollout, shown]

    return Interactive(build, lambda: chart(0, len(several[0].samples)))


def _path(tree: Mapping[str, Any]) -> str:
    """The marked path of `tree` as a table."""
    rows: list[list[object]] = []
    node: Mapping[str, Any] | None = tree
    while node:
        prior = float(node["prior"]) if rows else ""
        rows.append([node["action"] or "start", node["visits"], float(node["value"]), prior])
        node = next((child for child in node["children"] if child["chosen"]), None)
    return table(["action", "visits", "value", "prior"], rows)


# Choosing among samples: how many, and by which reward


def explore_n(plans: Sequence[PlanResult], golds: Mapping[str, Sequence[float]]) -> Interactive:
    """Move N: what the reward model picks among the first N samples, beside the best of them and a random one.

    `plans` of planner "best_of_n"; `golds`: plan id -> true score of each sample, from `evaluate.score_plans`.
    """
    rewards = [[sample.reward or 0.0 for sample in plan.samples] for plan in plans]
    scores = [list(golds[plan.id]) for plan in plans]
    curve = statistics.best_of_n_curve(rewards, scores)
    most = len(curve["n"])

    def chart(n: int) -> Figure:
        figure = figures.best_of_n(curve)
        floor, picked, ceiling = (float(curve[name][n - 1]) for name in ("mean", "selected", "oracle"))
        said = f"N = {n}: random {floor:.3f}, reward model {picked:.3f}, oracle {ceiling:.3f}"
        figure.axes[0].axvline(n, color=figures.BLACK, lw=1.6, ls="--")
        figure.axes[0].set_title(said, loc="left", fontsize=figures.STYLE["axes.titlesize"])
        return figures.with_alt(figure, f"{figure.get_label()} {said}.")

    def build() -> Sequence[ipw.Widget]:
        n = slider("N", 1, most, "how many samples there are to choose from")
        task, shown = choice("Task", len(plans)), ipw.HTML()

        def show(*_: object) -> None:
            at, k = task.value - 1, n.value
            plan, known, true = plans[at], np.array(rewards[at][:k]), np.array(scores[at][:k])
            pick = int(known.argmax())
            rows = []
            for i in range(k):
                best = true[i] == true.max() and (k == 1 or true.max() > true.min())  # of equals it picks any
                who = ["reward model"] * (i == pick) + ["oracle"] * bool(best)
                actions = "; ".join(plan.samples[i].trajectory.actions)
                rows.append([i + 1, actions, float(known[i]), float(true[i]), " and ".join(who)])
            heads = ["sample", "actions", "reward", "true score", "picked by"]
            about = f"<p><b>{safe(plan.answer.task.instruction)}</b></p>"
            about += f"<p>The first {k} samples of this task. A random pick gets {true.mean():.2f} on average.</p>"
            shown.value = image(chart(k)) + about + table(heads, rows, [pick])

        n.observe(show, "value")
        task.observe(show, "value")
        n.value = most
        show()
        return [n, task, shown]

    return Interactive(build, lambda: chart(most))


def explore_weights(
    plans: Sequence[PlanResult], terms: Mapping[str, Term], golds: Mapping[str, Sequence[float]] | None = None
) -> Interactive:
    """Move the weight λ of each term: the answers change, and with them what they cost and what they are worth.

    `terms`: name -> term of `control.py`. Worth is the learned reward; with `golds` (see `explore_n`) the true score.
    A panel for each term: its frontier under all its weights, the other weights as they stand (grey: with those at 0).
    """
    what = "learned reward" if golds is None else "gold score"
    rewards = [np.array([sample.reward or 0.0 for sample in plan.samples]) for plan in plans]
    worth = rewards if golds is None else [np.array(golds[plan.id], dtype=float) for plan in plans]
    costs = [np.array([[t(s.trajectory) for s in p.samples] for t in terms.values()]) for p in plans]  # [terms, N] each
    spread = np.concatenate(costs, axis=1).std(axis=1)
    top = 4 * (np.concatenate(rewards).std() or 1) / np.where(spread > 0, spread, 1)  # beyond it hardly anything moves

    def means(weights: np.ndarray) -> np.ndarray:
        """Mean cost in each term and mean worth of the answers under `weights`: [terms + 1]."""
        picks = [int((reward - weights @ cost).argmax()) for reward, cost in zip(rewards, costs)]
        return np.mean([[*c[:, k], w[k]] for c, w, k in zip(costs, worth, picks)], axis=0)

    @mpl.rc_context(figures.STYLE)
    def chart(weights: np.ndarray) -> Figure:
        figure = figures.Picture(figsize=(2 + 4.8 * len(terms), 4.8), layout="constrained")
        panels = figure.subplots(1, len(terms), squeeze=False, sharey=True)[0]
        here = means(weights)
        for i, (axes, name) in enumerate(zip(panels, terms)):
            for others, look in (
                (0, {"color": figures.GREY, "ls": "--"}),
                (1, {"color": figures.BLUE, "marker": "o", "ms": 5}),
            ):
                along = np.tile(others * weights, (41, 1))
                along[:, i] = np.linspace(0, top[i], 41)
                line = np.array([means(w) for w in along])
                axes.plot(line[:, i], line[:, -1], **look)
            axes.plot(here[i], here[-1], color=figures.VERMILLION, marker="D", ms=13)
            place: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "path_effects": figures.OUTLINE}
            axes.annotate(f"λ = {weights[i]:.3g}", (here[i], here[-1]), (0, 14), **place)
            axes.set_xlabel(f"{name} (mean per task)")
            axes.margins(0.15, 0.25)
        panels[0].set_ylabel(f"{what} (mean over tasks)")
        said = ", ".join(f"{name} {value:.3g}" for name, value in zip([*terms, what], here))
        figure.suptitle(f"With these weights:\n{said}", x=0.01, ha="left")
        alt = f"Mean {what} against {' and '.join(terms)}, a curve over all weights. With these weights: {said}."
        return figures.with_alt(figure, alt)

    def build() -> Sequence[ipw.Widget]:
        shown = ipw.HTML()
        sliders = [
            ipw.FloatSlider(0, min=0, max=float(f"{high:.2g}"), step=float(f"{high / 40:.1g}"), description=f"λ {name}")
            for name, high in zip(terms, top)
        ]

        def show(*_: object) -> None:
            shown.value = image(chart(np.array([one.value for one in sliders])))

        for one, name in zip(sliders, terms):
            one.tooltip, one.readout_format = f"what one unit of '{name}' costs in learned reward", ".3g"
            one.continuous_update, one.style.description_width = False, "initial"
            one.observe(show, "value")
        show()
        return [*sliders, shown]

    return Interactive(build, lambda: chart(np.zeros(len(terms))))
