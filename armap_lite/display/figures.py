"""Figures: plain data in, a matplotlib Figure out, with its message as title and alternative text as label."""

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import ArrayLike

from armap_lite.display.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    STYLE,
    VERMILLION,
    NotebookFigure,
    note,
    panels,
    with_alt,
)
from armap_lite.display.tables import p_text, told_apart
from armap_lite.evaluate import CEILING, DERIVED, FLOOR
from armap_lite.statistics import gap_closed

MOST = 10  # attempts in a figure
ENOUGH = {"tasks": 60}  # fewer (of anything else, 30) are no sample to conclude from, and titles say so


def sample_size(n: int, unit: str = "tasks") -> str:
    """`n` and its unit for a title, which says so where it is small."""
    return f"{n:,} {unit}{'' if n >= ENOUGH.get(unit, 30) else ', a small sample'}"


@mpl.rc_context(STYLE)
def learning_curves(
    metrics: Sequence[Mapping[str, Any]], val_pairs: int = 0, val_tasks: int = 0, kept_loss: float | None = None
) -> Figure:
    """Loss and pair accuracy over training steps, from the rows that Lightning's CSVLogger wrote.

    Columns: step, train_loss, train_accuracy, val_loss, val_accuracy; cells may be missing, empty or NaN.
    `val_pairs`, `val_tasks`: how many pairs the held-out tasks have, and how many of these there are, if known.
    `kept_loss`: the held-out loss of the weights that were kept, which are ringed; None: the last ones.
    """
    validated, losses = _series(metrics, "val_loss")
    known = kept_loss is not None and math.isfinite(kept_loss) and losses.size
    kept_at = validated[np.abs(losses - kept_loss).argmin()] if known else None  # the step of the kept weights
    figure, (left, right) = panels(10, 4.4, columns=2)
    for axes, name, level in ((left, "loss", math.log(2)), (right, "accuracy", 0.5)):
        axes.plot(*_series(metrics, f"train_{name}"), label="training batch", color=SKY, lw=1.5)
        steps, values = _series(metrics, f"val_{name}")
        axes.plot(steps, values, label="held-out tasks", color=BLUE, marker="o")
        for at in np.flatnonzero(steps == kept_at):
            ring: dict[str, Any] = {"ms": 15, "mfc": "none", "mec": BLACK, "mew": 2}
            axes.plot(steps[at], values[at], "o", **ring, label="weights that are kept")
        axes.axhline(level, color=GREY, lw=1.2, ls="--")
        note(axes, "chance", (1, level), (-4, 4), xycoords=("axes fraction", "data"), color=GREY, ha="right")
        axes.set(xlabel="training step", ylabel={"loss": "pairwise loss", "accuracy": "pair accuracy"}[name])
    right.set_ylim(top=1.04)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    steps, accuracy = _series(metrics, "val_accuracy")
    if len(accuracy):
        total = max(float(row["step"]) for row in metrics) + 1
        when, k = ("in the kept weights, ", steps.tolist().index(kept_at)) if kept_at in steps else ("", -1)
        last = f"{accuracy[k]:.3f} {when}after {steps[k]:,.0f} of {total:,.0f} steps"
    else:
        last = "not measured yet"
    of = f" of {val_tasks} task{'s' * (val_tasks != 1)}" if val_tasks else ""
    sample = f"\n{sample_size(val_pairs, f'held-out pairs{of}')}" if val_pairs else ""
    figure.suptitle(f"Pair accuracy on held-out tasks: {last}{sample}", x=0.01, ha="left")
    return with_alt(figure, f"Two line charts over training steps, loss and pair accuracy. Held-out accuracy: {last}.")


def _series(metrics: Sequence[Mapping[str, Any]], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps, counted from 1, and values of the rows that have `column`."""
    cells = [(float(row["step"]), float(row[column])) for row in metrics if row.get(column) not in (None, "")]
    steps, values = np.array(cells, dtype=float).reshape(-1, 2).T
    return steps[~np.isnan(values)] + 1, values[~np.isnan(values)]


@mpl.rc_context(STYLE)
def reward_histogram(
    chosen: ArrayLike, rejected: ArrayLike, tasks: int = 0, mirrored: ArrayLike | None = None
) -> Figure:
    """Rewards of the chosen and of the rejected trajectories of the same pairs, [pairs] each, of so many `tasks`.

    `mirrored`: which pairs have a mirror, [pairs]; the title then says how many of these are right.
    """
    chosen, rejected = np.asarray(chosen, dtype=float), np.asarray(rejected, dtype=float)
    if chosen.shape != rejected.shape or not chosen.size:
        raise ValueError(f"{chosen.size} chosen, {rejected.size} rejected rewards; expected one of each per pair")
    accuracy, margin = float(((np.sign(chosen - rejected) + 1) / 2).mean()), float((chosen - rejected).mean())
    figure, (axes,) = panels(8, 5.2)
    edges = np.histogram_bin_edges(np.concatenate([chosen, rejected]), bins=min(40, 5 + chosen.size // 10))
    for rewards, label, colour in ((rejected, "rejected", ORANGE), (chosen, "chosen", BLUE)):
        axes.hist(rewards, edges, alpha=0.35, color=colour)
        axes.hist(rewards, edges, histtype="step", color=colour, lw=2.2, label=label)
        axes.axvline(rewards.mean(), color=colour, ls="--")
    axes.set(xlabel="reward R(instruction, trajectory)", ylabel="trajectories")
    axes.yaxis.get_major_locator().set_params(integer=True)
    pairs = f"{chosen.size:,} pairs of {tasks} tasks" if tasks else sample_size(chosen.size, "pairs")
    strict = np.zeros(0) if mirrored is None else (chosen > rejected)[np.asarray(mirrored, dtype=bool)]
    also = f", in {strict.mean():.1%} of the {strict.size} with a mirror" if strict.size else ""
    axes.set_title(f"The chosen trajectory gets the higher reward in {accuracy:.1%}\nof {pairs}{also}")
    figure.legend(loc="outside lower left", ncols=2, title=f"dashed: means; mean margin {margin:.2f}", alignment="left")
    text = f"Two histograms of rewards: chosen, mean {chosen.mean():.2f}; rejected, mean {rejected.mean():.2f}."
    return with_alt(figure, f"{text} Pair accuracy {accuracy:.3f}.")


@mpl.rc_context(STYLE)
def attempts(samples: Sequence[tuple[str, float, float]], random_pick: float, own: int | None = None) -> Figure:
    """A dot for the reward of each (name, reward, gold score), the highest reward first; full scores are green.

    Where there is none, the best gold score is blue. Of more than `MOST` attempts the last are left out, but for the
    best and the `own` one.

    `random_pick`: gold score of a random attempt. `own`: the shipped model chose the first,
    and the run's own model would have chosen the one at this place.
    """
    every = [gold for *_, gold in samples]
    kept = {k for k in range(len(samples)) if k < MOST or k in (own, every.index(max(every)))}
    whole, rewards, golds = zip(*(sample for k, sample in enumerate(samples) if k in kept))
    hidden = f" ({len(samples) - len(kept)} more are not drawn)" if len(kept) < len(samples) else ""
    names = [textwrap.fill(name, 50, max_lines=2, placeholder=" …", break_long_words=False) for name in whole]
    figure, (axes,) = panels(10.5, 2.2 + (0.5 if any("\n" in name for name in names) else 0.4) * len(names))
    own = None if own is None else sorted(kept).index(own)
    top = max(golds) or 1  # none stands out if all are worth nothing
    best = GREEN if top == 1 else BLUE
    places, colours = range(len(names)), [best if gold == top else SKY if gold >= 0.5 else ORANGE for gold in golds]
    axes.scatter(rewards, places, 130, color=colours)  # dots: a reward has no zero from which a bar could grow
    for i, (reward, gold) in enumerate(zip(rewards, golds)):
        note(axes, f"{gold:.2f}", (reward, i), (14, 0), va="center", fontsize=12)
    axes.margins(x=0.15, y=0.1)
    axes.grid(axis="y", lw=0.6, alpha=0.5)
    axes.set_yticks(places, [name[:100] for name in names], fontsize=12)
    axes.invert_yaxis()
    axes.set_xlabel(f"reward{hidden}")
    said = "done" if top == 1 else "the best, not done"
    partial = [(SKY, "at least half"), (ORANGE, "less than half")]
    for colour, label in ((best, said), *([(ORANGE, "not done")] if {*golds} <= {0, 1} else partial)):
        axes.plot([], [], "o", color=colour, ms=10, label=label)
    scores = f"chosen {golds[0]:.2f}, best {max(golds):.2f}, at random {random_pick:.2f}"
    if own is not None:
        by_both = f"chosen by the shipped model {golds[0]:.2f}, by this run's own {golds[own]:.2f}"
        scores = f"{by_both},\nbest {max(golds):.2f}, at random {random_pick:.2f}"
    scores = f"True score: {scores}"
    figure.suptitle(scores, x=0.01, ha="left")
    if own is not None:
        ring: dict[str, Any] = {"ms": 17, "mfc": "none", "mec": BLACK, "mew": 2}
        axes.plot(rewards[own], own, "o", **ring)
        axes.plot([], [], "o", **ring, label="what this run's own model would choose")
    figure.legend(loc="outside lower right", ncols=3)
    return with_alt(
        figure, f"Dots: the reward of {len(names)} attempts{hidden}, coloured by the judge. {' '.join(scores.split())}."
    )


@mpl.rc_context(STYLE)
def last_pictures(trajectories: Mapping[str, Any]) -> Figure | None:
    """The last picture that each named `Trajectory` has, side by side; None where one has none."""
    seen = {name: [p for p in (t.picture, *(s.picture for s in t.steps)) if p] for name, t in trajectories.items()}
    if not seen or not all(seen.values()):
        return None
    figure, columns = panels(3.4 * len(seen), 4.1, columns=len(seen))
    for axes, (name, pictures) in zip(columns, seen.items()):
        axes.imshow(imread(pictures[-1]))
        axes.set(title=name, xticks=[], yticks=[])
    return with_alt(figure, f"The last pictures seen: {', '.join(seen)}.")


@mpl.rc_context(STYLE)
def best_of_n(curve: Mapping[str, ArrayLike], tasks: int) -> Figure:
    """Gold score over N of a random, the selected and the best sample, from `statistics.best_of_n_curve` of `tasks`."""
    n = np.asarray(curve["n"])
    figure, (axes,) = panels(8, 5.6)
    lines = (
        ("oracle", "best of the N (ceiling)", BLACK, "--"),  # dashes on top: seen where the choice reaches it, too
        ("selected", "chosen by the reward model", BLUE, "-"),
        ("mean", "random pick (floor)", ORANGE, "-"),
    )
    for name, text, colour, dash in lines:
        axes.fill_between(n, curve[f"{name}_low"], curve[f"{name}_high"], color=colour, alpha=0.15, lw=0)
        style = {
            "color": colour,
            "ls": dash,
            "zorder": 3 if dash == "--" else 2,
            "lw": 5 if name == "selected" else 2.2,
        }
        axes.plot(n, curve[name], label=text, marker="o" if len(n) == 1 else None, **style)
    ticks = sorted({*(2**i for i in range(int(math.log2(n[-1])) + 1)), int(n[-1])})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set(
        xlim=(0.9, n[-1] * 1.1),
        xlabel="N, samples per task (doubled at each tick)",
        ylabel="gold score (mean and 95 % interval)",
    )
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower left")  # below, where no curve can run into it
    floor, picked, ceiling = (float(np.asarray(curve[name])[-1]) for name in ("mean", "selected", "oracle"))
    scores = f"random {floor:.3f}, selected {picked:.3f}, best {ceiling:.3f}"
    axes.set_title(f"Best of {n[-1]}: {gap_message(floor, picked, ceiling, tasks)}\n{sample_size(tasks)}")
    return with_alt(figure, f"Line chart of gold score over N = 1 to {n[-1]} with 95 % bands. At the end: {scores}.")


def gap_message(floor: float, picked: float, ceiling: float, tasks: int) -> str:
    """How much of the gap from floor to ceiling is closed: a share only where the sample is large enough for one."""
    gap = gap_closed(floor, picked, ceiling)
    if math.isnan(gap):
        return "no gap to close"
    if gap < 0:
        return f"the choice ({picked:.3f}) is worse than a random pick ({floor:.3f})"
    if tasks < ENOUGH["tasks"]:
        return f"chosen {picked:.3f}, between random {floor:.3f} and best {ceiling:.3f}"
    return f"{gap:.0%} of the gap from floor to ceiling closed"


@mpl.rc_context(STYLE)
def planner_bars(rows: Sequence[Mapping[str, Any]], message: str = "") -> Figure:
    """Mean gold score of each planner, interval and tokens per task; rows of one environment and seed, or pooled.

    `message`: what the differences say, for the title; else it names the highest mean.
    """
    names = [row["planner"] for row in rows]
    if not rows or len(set(names)) < len(names):
        raise ValueError(f"planners {names}: expected each once; pool seeds first")
    figure, (axes,) = panels(10.5, 1.6 + 0.44 * len(rows))
    for place, row in enumerate(rows):
        mean, bound = row["mean"], row["planner"] in DERIVED
        ends = np.maximum([[mean - row["ci_low"]], [row["ci_high"] - mean]], 0)
        axes.barh(place, mean, 0.62, color=SKY if bound else BLUE, alpha=0.45 if bound else 1)
        axes.errorbar(mean, place, xerr=ends, color=BLACK, capsize=4, lw=1.5)
        cost = f"  ({row['llm_tokens'] / row['n']:,.0f} tokens)" if "llm_tokens" in row else ""  # pooled rows have none
        frame = {"fc": "white", "ec": "none", "pad": 1}  # the line of the ceiling may run below it
        note(axes, f"{mean:.3f}{cost}", (row["ci_high"], place), (6, 0), va="center", bbox=frame)
        if row["planner"] in (FLOOR, CEILING):
            axes.axvline(mean, color=GREY, lw=1.2, ls=":", zorder=0)
    axes.set_yticks(range(len(rows)), map(_called, names))
    top = max(row["ci_high"] for row in rows)
    axes.set_xlim(0, 1.4 * top or 1)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= max(top, 1)])  # beyond, there is room for labels
    axes.invert_yaxis()
    axes.set_xlabel("gold score, mean over tasks and 95 % interval")
    able = [row for row in rows if row["planner"] not in DERIVED] or rows
    highest = max(row["mean"] for row in able)
    best = " and ".join(row["planner"].replace("_", " ") for row in able if row["mean"] == highest)
    message = message or f"Highest mean: {best}, {highest:.3f}"
    light = "; light: from best of n's attempts" * any(name in DERIVED for name in names)
    figure.suptitle(f"{message}\n{sample_size(rows[0]['n'])}{light}; dotted: floor and ceiling", x=0.01, ha="left")
    scores = ", ".join(f"{row['planner']} {row['mean']:.3f}" for row in rows)
    return with_alt(figure, f"Bar chart of mean gold score with 95 % intervals: {scores}.")


def _called(planner: str) -> str:
    bounds = {FLOOR: "random best of n (floor)", CEILING: "oracle best of n (ceiling)"}
    return {"own_best_of_n": "own best of n (this run's model)", **bounds}.get(planner, planner.replace("_", " "))


@mpl.rc_context(STYLE)
def differences(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Mean difference by task of each pair of planners with its interval and p-value; those told from 0 in blue.

    Those are the ones that `told_apart` names.
    `rows`: {"planner", "versus", "difference", "ci_low", "ci_high", "p_value", "n"}, as `evaluate.differences` gives.
    """
    figure, (axes,) = panels(10, 1.6 + 0.42 * len(rows))
    told = told_apart(rows)
    for place, (row, sure) in enumerate(zip(rows, told)):
        mean, ends = row["difference"], [[row["difference"] - row["ci_low"]], [row["ci_high"] - row["difference"]]]
        axes.errorbar(mean, place, xerr=np.maximum(ends, 0), color=BLUE if sure else GREY, marker="o", ms=8, capsize=4)
        label = f"{mean:+.3f}, {p_text(row['p_value'])}"
        note(axes, label, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=12)
    axes.axvline(0, color=BLACK, lw=1.2, zorder=0)
    names = [f"{_called(row['planner'])} − {_called(row['versus'])}" for row in rows]
    short = [name.replace("random best of n (floor)", "floor").replace(" (this run's model)", "") for name in names]
    axes.set_yticks(range(len(rows)), short)
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("difference of gold scores, mean over tasks and 95 % interval")
    title = f"{sum(told)} of {len(rows)} differences can be told from 0 (blue)"
    title += f"\n{sample_size(rows[0]['n'])}; corrected for {len(rows)} comparisons (Holm)"
    figure.suptitle(title, x=0.01, ha="left")
    said = "; ".join(f"{row['planner']} - {row['versus']} {row['difference']:+.3f}" for row in rows)
    return with_alt(figure, f"Differences of gold scores with 95 % intervals: {said}.")


@mpl.rc_context(STYLE)
def rewards_and_scores(answers: Mapping[str, tuple[ArrayLike, ArrayLike, int]]) -> Figure:
    """Reward and gold score of every answer, [tasks] each, for each planner; full scores are green.

    Scores of 0 and 1 alone are counted by reward, others drawn as dots.

    The third entry of each: on how many tasks some attempt has a full score.
    """
    figure, columns = panels(2 + 4.5 * len(answers), 4.6, len(answers), sharex=True, sharey=True)
    counts, every = [], np.concatenate([np.asarray(rewards, dtype=float) for rewards, *_ in answers.values()])
    binary = all({*np.asarray(golds).tolist()} <= {0, 1} for _, golds, _ in answers.values())
    span = (every.min(), every.max()) if every.size else None
    for axes, (planner, (rewards, golds, found)) in zip(columns, answers.items()):
        reward, gold = np.asarray(rewards, dtype=float), np.asarray(golds, dtype=float)
        if binary:
            sides = [reward[gold < 1], reward[gold == 1]]
            axes.hist(sides, 24, range=span, stacked=True, color=[ORANGE, GREEN], label=["wrong", "right"])
        else:
            spread = np.random.default_rng(0).uniform(-0.01, 0.01, len(gold))
            colours = [GREEN if g == 1 else SKY if g >= 0.5 else ORANGE for g in gold]
            axes.scatter(reward, gold + spread, 36, color=colours, alpha=0.7)
            axes.set_ylim(-0.08, 1.08)
        counts.append(f"of {found} tasks with a full score among the attempts, chosen on {(gold == 1).sum()}")
        axes.set_title(f"{_called(planner)}: full scores\nfound on {found} tasks, chosen on {(gold == 1).sum()}")
        axes.set_xlabel("learned reward of the answer")
    columns[0].set_ylabel("answers" if binary else "gold score (spread by 0.01)")
    if not binary:
        for colour, label in ((GREEN, "full score"), (SKY, "at least half"), (ORANGE, "less")):
            columns[0].scatter([], [], 36, color=colour, label=label)
    figure.legend(*columns[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
    said = "; ".join(f"{name}: {count}" for name, count in zip(answers, counts))
    drawn = "Right and wrong answers by" if binary else "A dot for each answer, gold score against"
    return with_alt(figure, f"{drawn} learned reward. {said}.")


@mpl.rc_context(STYLE)
def frontier(points: Sequence[Mapping[str, Any]], tasks: int, *, score_label: str = "gold score") -> Figure:
    """Score against cost under a customised reward, means over `tasks`: a panel per term and planner.

    `points`: {"weight": λ, "term": name, "cost": mean per task, "score": mean over tasks}; optional "planner", and
    "ci_low" and "ci_high", the interval of the score. One point per λ; the smallest and the largest are named.
    """
    if not points:
        raise ValueError("0 points; expected at least one, each with weight, term, cost and score")
    terms, planners = (list(dict.fromkeys(point.get(key, "") for point in points)) for key in ("term", "planner"))
    rows, columns = len(planners), len(terms)
    if columns == 1:  # then planners stand side by side
        rows, columns = columns, rows
    figure = NotebookFigure(figsize=(2.5 + 4.2 * columns, 1.6 + 2.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex="col" if len(terms) > 1 else True, sharey=True)
    grid = grid.T if len(terms) == 1 else grid
    changes = []
    for (row, planner), (column, term) in itertools.product(enumerate(planners), enumerate(terms)):
        axes, colour = grid[row, column], (BLUE, VERMILLION, GREEN)[row % 3]
        group = [point for point in points if (point["term"], point.get("planner", "")) == (term, planner)]
        group.sort(key=lambda point: point["weight"])
        cost, score = ([point[key] for point in group] for key in ("cost", "score"))
        low, high = min(all_costs := [p["cost"] for p in points if p["term"] == term]), max(all_costs)
        ends = [[abs(p.get(end, p["score"]) - p["score"]) for p in group] for end in ("ci_low", "ci_high")]
        style = {"color": colour, "marker": "oXs"[row % 3], "ms": 8, "elinewidth": 1, "capsize": 3}
        axes.errorbar(cost, score, ends if np.any(ends) else None, **style)
        for k in sorted({0, len(group) - 1} if group else ()):
            label = f"λ = {group[k]['weight']:g}"
            left = k and cost[k] - max(0, low - 0.4 * (high - low)) > 0.35 * (high - low)  # where there is room
            place: dict[str, Any] = {"ha": "right", "va": "center"} if left else {"ha": "left"}
            note(axes, label, (cost[k], score[k]), (-9, 0) if left else (8, -18 if k else 8), color=colour, **place)
        if group:
            moved = f"{score_label} {score[0]:.3g} → {score[-1]:.3g}, {term} {cost[0]:.3g} → {cost[-1]:.3g}"
            changes.append(f"{planner and planner + ', '}λ {group[0]['weight']:g} → {group[-1]['weight']:g}: {moved}")
        axes.margins(0.4, 0.25)  # room for the labels
        axes.set_ylabel(f"{_called(planner)}\n{score_label}".strip() if column == 0 else "")
        where = f"{term}\n(mean per task)" if len(term) > 25 else f"{term} (mean per task)"
        axes.set_xlabel(where if row == len(planners) - 1 or len(terms) == 1 else "")
    for axes, term in zip(grid[0], terms):  # once they are all drawn, as the panels of a column share their limits
        if min((point["cost"] for point in points if point["term"] == term), default=-1) >= 0:
            axes.set_xlim(left=max(0, axes.get_xlim()[0]))
    limits = [[axes.get_ylim() for axes in row if axes.has_data()] or [(0.0, 1.0)] for row in grid]
    ranges = [(min(low for low, _ in row), max(high for _, high in row)) for row in limits]
    half = max(high - low for low, high in ranges) / 2
    for row, (low, high) in zip(grid, ranges):  # one for a planner, all of one size, so that slopes can be compared
        for axes in row:
            axes.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)
    label = score_label.capitalize()
    figure.suptitle(f"{label} against cost, one point for each λ\n{sample_size(tasks)}", x=0.01, ha="left")
    return with_alt(figure, f"{label} against {' and '.join(terms)}. {'. '.join(changes)}.")
