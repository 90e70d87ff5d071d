"""Figures: they say what their data say, carry alternative text, and stand edge data without a warning."""

import itertools
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from armap_lite import statistics
from armap_lite.display import diagrams, figures, tables, trees
from armap_lite.display.tables import cut, ending, on_one_line, page_names, side_by_side
from armap_lite.trajectory import Step, Task, Trajectory, transcript

LOG = [{"step": str(i), "train_loss": str(0.7 - i / 100), "train_accuracy": "0.75", "val_loss": ""} for i in range(9)]
LOG += [{"step": "4", "val_loss": "0.5", "val_accuracy": "0.8"}, {"step": 8, "val_loss": 0.4, "val_accuracy": 0.9}]


def row(planner: str, mean: float, **more: Any) -> dict[str, Any]:
    return {"planner": planner, "mean": mean, "ci_low": mean / 2, "ci_high": mean * 1.5, "n": 10, **more}


def node(action: str | None, visits: int, *children: dict, chosen: bool = False, value: float | None = 0.0) -> dict:
    found = {"action": action, "visits": visits, "value": value if visits else None, "prior": 0.5, "chosen": chosen}
    return {**found, "children": list(children)}


def curve(rewards: list, golds: list) -> dict[str, np.ndarray]:
    return statistics.best_of_n_curve(rewards, golds)


TREE = node(
    None,
    7,
    node("a", 5, node("a1", 3, value=2.0, chosen=True), node("a2", 2, value=1.0), chosen=True, value=2.0),
    node("b", 2, node("b1", 2, value=-1.0), value=-1.0),
    node("c", 0),
    chosen=True,
    value=2.0,
)
EDGE: dict[str, Any] = {
    "curves": lambda: figures.learning_curves(LOG),
    "curves, nothing held out": lambda: figures.learning_curves([{"step": 1, "train_loss": 0.7}]),
    "curves, empty": lambda: figures.learning_curves([]),
    "histogram": lambda: figures.reward_histogram([1, 2, 3], [0, 1, 4]),
    "histogram, of two tasks": lambda: figures.reward_histogram([1, 2, 3], [0, 1, 4], 2),
    "histogram, all equal": lambda: figures.reward_histogram([1.0] * 5, [1.0] * 5),
    "histogram, one pair": lambda: figures.reward_histogram([1.0], [0.0]),
    "best of n": lambda: figures.best_of_n(curve([[1, 2, 3], [3, 2, 1]], [[0, 0, 1], [1, 0, 0]]), 2),
    "best of 1, one task, no success": lambda: figures.best_of_n(curve([[1]], [[0]]), 1),
    "best of n, all rewards equal": lambda: figures.best_of_n(curve([[1, 1]], [[0, 1]]), 1),
    "bars": lambda: figures.planner_bars([row("sampling", 0.2), row("mcts", 0.5)]),
    "bars, all zero": lambda: figures.planner_bars([row("sampling", 0), row("mcts", 0)]),
    "bars, only the floor": lambda: figures.planner_bars([row("random_best_of_n", 0.1)]),
    "bars, one task": lambda: figures.planner_bars([{**row("mcts", 1.0), "ci_low": 1.0, "ci_high": 1.0, "n": 1}]),
    "differences": lambda: figures.differences([difference(0.1, 0.05, 0.15, 0.01), difference(0.1, 0.05, 0.2, 0.06)]),
    "rewards and scores": lambda: figures.rewards_and_scores(
        {"best_of_n": ([1, 2, -3], [1, 0, 1], 3), "mcts": ([], [], 0)}
    ),
    "rewards and scores, partial": lambda: figures.rewards_and_scores({"mcts": ([1, 2], [1, 0.25], 1)}),
    "attempts": lambda: figures.attempts([("a, b", 1.2, 0.25), ("c " * 40, -0.3, 0.83)], 0.6, own=1),
    "attempts, one, worth nothing": lambda: figures.attempts([("a", 0.0, 0.0)], 0.0),
    "tree": lambda: trees.search_tree(TREE),
    "tree, only a root": lambda: trees.search_tree(node(None, 0)),
    "tree, nothing chosen, all values equal": lambda: trees.search_tree(node(None, 2, node("x", 2), value=0.0)),
    "tree, dollars and a long action": lambda: trees.search_tree(node(None, 1, node("buy $5 or $6 " * 9, 1))),
    "tree, 40 deep": lambda: trees.search_tree(deep(40)),
    "frontier": lambda: figures.frontier(
        [{"term": "actions", "weight": w, "score": 1 - w, "cost": 4 - w} for w in (0, 0.5, 1)], 9
    ),
    "frontier, one point": lambda: figures.frontier([{"term": "price", "weight": 0, "score": 0.5, "cost": 9.5}], 9),
    **{name: getattr(diagrams, name) for name in ("data_flow", "hindsight", "mirrored_pair", "over_optimisation")},
    "reward network": diagrams.reward_network,
    "reward network with pictures": lambda: diagrams.reward_network(pictures=True),
    "uct": diagrams.uct_tree,
}


def difference(mean: float, low: float, high: float, p_value: float) -> dict[str, Any]:
    named = {"planner": "own_best_of_n", "versus": "greedy", "n": 60}
    return {**named, "difference": mean, "ci_low": low, "ci_high": high, "p_value": p_value}


def deep(depth: int) -> dict[str, Any]:
    return node(f"look at step {depth}", 3, *([deep(depth - 1)] if depth else []), chosen=True)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # sockets of earlier tests may be collected meanwhile
        yield


@pytest.mark.parametrize("name", EDGE)
def test_every_figure_is_drawn_without_a_warning_and_says_in_words_what_it_shows(name, tmp_path):
    figure = EDGE[name]()
    figure.savefig(tmp_path / "figure.png", dpi=40)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    alt = figure.get_label()
    assert len(alt) > 30 and "nan" not in alt.lower()
    shown = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert min(text.get_fontsize() for text in shown) >= 12  # readable from the last row
    assert all("nan" not in text.get_text().lower() for text in shown)


def test_a_notebook_shows_a_figure_once_with_its_alternative_text():
    shown, about = DisplayFormatter().format(figures.with_alt(EDGE["bars"](), "two bars"))
    assert shown["image/png"].startswith(b"\x89PNG") and about["image/png"] == {"alt": "two bars"}


def test_a_reader_of_jupyterlab_which_drops_that_text_gets_it_below_the_figure(monkeypatch):
    shown: list[dict] = []
    monkeypatch.setattr("armap_lite.display.canvas.is_interactive", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    done = DisplayFormatter().format(figures.with_alt(EDGE["bars"](), "2 bars, one < the other"))
    assert done == ({}, {})  # so that IPython shows nothing more
    assert [list(data) for data in shown] == [["image/png"], ["text/html", "text/plain"]]
    assert "2 bars, one &lt; the other</details>" in shown[1]["text/html"]
    assert shown[1]["text/plain"] == "2 bars, one < the other"


def test_figures_leave_the_style_of_others_alone():
    before = dict(mpl.rcParams)
    trees.search_tree(TREE)
    assert dict(mpl.rcParams) == before


def test_learning_curves_skip_missing_cells():
    figure = figures.learning_curves([*LOG, {"step": 9, "val_accuracy": math.nan, "val_loss": None}])
    loss, accuracy = figure.axes
    train, held_out, _ = loss.get_lines()
    assert len(train.get_xdata()) == 9 and list(held_out.get_ydata()) == [0.5, 0.4]
    assert list(accuracy.get_lines()[1].get_xdata()) == [5, 9]
    assert "Pair accuracy on held-out tasks: 0.900 after 9 of 10 steps" in texts(figure)
    title = "Pair accuracy on held-out tasks: 0.900 after 9 of 9 steps\n12 held-out pairs, a small sample"
    assert title in texts(figures.learning_curves(LOG, 12))


def test_learning_curves_ring_the_weights_that_were_kept():
    log = [{"step": step, "val_loss": loss, "val_accuracy": 1 - loss} for step, loss in ((4, 0.5), (8, 0.2), (12, 0.4))]
    figure = figures.learning_curves(log, kept_loss=0.2 + 1e-9)
    rings = [line for axes in figure.axes for line in axes.get_lines() if line.get_label() == "weights that are kept"]
    assert [(*ring.get_xdata(), *ring.get_ydata()) for ring in rings] == [(9, 0.2), (9, 0.8)]  # counted from 1
    assert "0.800 in the kept weights, after 9 of 13 steps" in figure.get_suptitle()
    assert "not measured yet" in figures.learning_curves([], kept_loss=0.2).get_suptitle()
    odd = [{"step": step, "val_loss": loss, "val_accuracy": a} for step, loss, a in ((4, "nan", 0.5), (8, 0.4, 0.9))]
    assert "0.900 in the kept weights, after 9" in figures.learning_curves(odd, kept_loss=0.4).get_suptitle()
    assert "kept" not in figures.learning_curves(log, kept_loss=math.nan).get_suptitle()


def test_histogram_counts_every_trajectory_once():
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(1, 1, 200), rng.normal(-1, 1, 200)
    figure = figures.reward_histogram(chosen, rejected)
    bars = [sum(bar.get_height() for bar in container) for container in figure.axes[0].containers]
    assert bars == [200, 200]
    share = (chosen > rejected).mean()
    assert any(f"{share:.1%}\nof 200 pairs" in text for text in texts(figure))
    assert f"dashed: means; mean margin {np.mean(chosen - rejected):.2f}" in texts(figure)
    with pytest.raises(ValueError, match="2 chosen, 1 rejected"):
        figures.reward_histogram([1, 2], [1])


def test_best_of_n_draws_its_curves_and_says_of_how_many_tasks():
    rng = np.random.default_rng(0)
    golds = (rng.random((200, 8)) < 0.3).astype(float)
    found = curve(golds + rng.normal(0, 0.3, golds.shape), golds)
    figure = figures.best_of_n(found, 200)
    axes = figure.axes[0]
    gap = statistics.gap_closed(found["mean"][-1], found["selected"][-1], found["oracle"][-1])
    assert f"Best of 8: {gap:.0%} of the gap from floor to ceiling closed\n200 tasks" in texts(figure)
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines["chosen by the reward model"].get_ydata()) == list(found["selected"]) and len(lines) == 3
    assert len(axes.collections) == 3 and axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "4", "8"]
    assert any(
        "no gap to close\n1 tasks, a small sample" in text for text in texts(EDGE["best of 1, one task, no success"]())
    )


def test_no_share_of_a_gap_is_given_for_few_tasks_or_a_bad_choice():
    assert figures.gap_message(0.1, 0.3, 0.3, 60) == "100% of the gap from floor to ceiling closed"
    assert figures.gap_message(0.1, 0.3, 0.3, 59) == "chosen 0.300, between random 0.100 and best 0.300"
    assert figures.gap_message(0.2, 0.1, 0.3, 100) == "the choice (0.100) is worse than a random pick (0.200)"


def test_planner_bars_carry_their_budget():
    cost = {"llm_tokens": 12_340, "env_steps": 30, "reward_calls": 640}
    rows = [row(name, mean, **cost) for name, mean in (("mcts", 0.5), ("best_of_n", 0.4), ("oracle_best_of_n", 0.9))]
    figure = figures.planner_bars(rows)
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0.4, 0.9]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == ["mcts", "best of n", "oracle best of n (ceiling)"]
    assert [text.get_text() for text in axes.texts] == [f"{mean:.3f}  (1,234 tokens)" for mean in (0.5, 0.4, 0.9)]
    title = figure.get_suptitle()  # the ceiling is no planner
    assert title.startswith("Highest mean: mcts, 0.500\n10 tasks, a small sample; light: from best of n's attempts")
    assert axes.patches[2].get_facecolor() != axes.patches[0].get_facecolor()
    said = figures.planner_bars(rows, "Told apart: nothing").get_suptitle()
    assert said.startswith("Told apart: nothing\n10 tasks")
    pooled = figures.planner_bars([{"seeds": 2, **row("mcts", 0.5)}])
    assert [text.get_text() for text in pooled.axes[0].texts] == ["0.500"]
    with pytest.raises(ValueError, match="expected each once"):
        figures.planner_bars([rows[0], rows[0]])


def test_the_tree_draws_visited_nodes_and_outlines_the_answer():
    figure = trees.search_tree(TREE)
    axes, said = figure.axes[0], texts(figure)
    nodes = axes.findobj(PathCollection)
    assert len(nodes) == 6
    vermillion = mpl.colors.to_rgba(figures.VERMILLION)
    assert sum(tuple(point.get_edgecolor()[0]) == vermillion for point in nodes) == 3  # root, a, a1
    edges = [line for line in axes.get_lines() if line.get_color() != figures.VERMILLION]
    assert len(edges) == 5 and len(axes.get_lines()) == 5 + 2
    assert max(edge.get_linewidth() for edge in edges) == pytest.approx(1 + 8 * 5 / 7)  # that to a
    assert any("not drawn: 1 children never visited" in text for text in said)
    assert "7 attempts, 2 different before the last action,\n71% begin with 'a', as the answer does" in said
    assert "The answer: a then a1." in figure.get_label()
    assert {"start (7)", "a (5)", "a1: 2.0", "a2 (2)", "b (2)", "b1 (2)"} <= set(said)


def test_in_a_deep_tree_a_run_of_actions_without_a_branch_is_one_edge():
    end = node("c", 4, node("d", 1), node("e", 3, node("f", 3, node("g", 3, node("h", 3, chosen=True), chosen=True))))
    for child in (end, end["children"][1], end["children"][1]["children"][0]):
        child["chosen"] = True
    run = node("a", 4, node("b", 4, end, node("never", 0), chosen=True), chosen=True)
    figure = trees.search_tree(node(None, 4, run, chosen=True))
    said = set(texts(figure))
    assert {"start (4)", "a\n+1→ c (4)", "d: 0.0", "e\n+2→ h: 0.0"} <= said
    assert len(figure.axes[0].findobj(PathCollection)) == 4
    assert any("not drawn: 1 children never visited" in text for text in said)
    assert figure.get_label().endswith("The answer: a then b then c then e then f then g then h.")


def test_what_lies_deeper_than_can_be_read_is_counted():
    figure = trees.search_tree(node(None, 9, branching(6)))
    points = [tuple(p.get_offsets()[0]) for p in figure.axes[0].findobj(PathCollection)]
    assert max(x for x, _ in points) == trees.LEVELS
    hidden = f"not drawn: {2**7 - 2**trees.LEVELS} nodes below level {trees.LEVELS}"
    assert any(hidden in text for text in texts(figure))


def branching(depth: int) -> dict[str, Any]:
    return node("x", 2**depth, *(branching(depth - 1) for _ in range(2 if depth else 0)))


def test_an_action_has_the_name_that_is_given_for_it():
    said = texts(trees.search_tree(node(None, 2, node("click[7]", 2, chosen=True)), names={"click[7]": "Red mug"}))
    assert "Red mug: 0.0" in said and not any(text.startswith("click") for text in said)


def test_a_name_of_one_long_word_keeps_its_beginning():
    ends = [node(f"{i}", 1, node("e", 1, node("f", 1, node("g", 1)))) for i in range(2)]
    long = node("search[lightweight_watering_cans_of_zinc]", 2, node("b", 2, *ends))
    said = texts(trees.search_tree(node(None, 2, long)))
    assert any(re.match(r"search\[\w+…\n→ b \(2\)", text) for text in said), said


def test_the_answer_is_followed_to_its_end_below_what_is_drawn():
    """The last action decides, so the label of the deepest node that is drawn says it."""
    deeper = node("end", 1, chosen=True)
    for level in range(trees.LEVELS + 3):
        deeper = node(f"step {level}", 2, deeper, node(f"other {level}", 1), chosen=True)
    said = texts(trees.search_tree(node(None, 2, deeper, chosen=True)))
    assert any(re.search(r"\+\d+→ end: 0.0$", text) for text in said), said


@pytest.mark.parametrize(
    "name", [" ", "click[multicoloured]", "click lightweight_watering_cans_of_zinc", "a b c d e f g"]
)
def test_a_label_keeps_some_of_its_name_however_narrow(name: str):
    for lines, wide in itertools.product((1, 2), (9, 16)):
        said = trees._wrapped(f"+3→ {name}", wide, lines)
        assert len(said) <= lines and all(len(line) <= wide for line in said)
        assert any(letter.isalpha() for letter in "".join(said)) or not name.strip()
    assert trees._wrapped(" ", 9, 2) == []  # an action may be nothing but a space


def test_where_labels_would_meet_the_answer_is_named_and_the_more_visited_node():
    ends = [node(f"end {i}", i + 1, node(f"below {i}", i + 1)) for i in range(trees.ENDS)]
    ends[3]["chosen"] = True
    figure = trees.search_tree(node(None, 300, *ends, chosen=True))
    labels = [label for label in figure.axes[0].texts if label.get_text().startswith("end")]
    assert {f"end {trees.ENDS - 1} ({trees.ENDS})", "end 3 (4)"} <= {label.get_text() for label in labels}
    figure.canvas.draw()
    boxes = sorted((box.y0, box.y1) for box in (label.get_window_extent() for label in labels))
    assert all(high <= low + 1 for (_, high), (low, _) in itertools.pairwise(boxes))


def wide(depth: int) -> dict[str, Any]:
    return node("x", 3**depth, *(wide(depth - 1) for _ in range(3 if depth else 0)))


def test_of_many_ends_the_answer_the_best_and_the_most_visited_are_drawn():
    ends = [node(f"end {i}", 2 if i % 2 else 1, value=i / 100) for i in range(80)]
    ends[0]["chosen"] = True
    ends[2]["value"] = 5.0
    figure = trees.search_tree(node(None, 120, node("x", 120, *ends, chosen=True), chosen=True))
    points = [tuple(p.get_offsets()[0]) for p in figure.axes[0].findobj(PathCollection)]
    assert sum(x == 2 for x, _ in points) == trees.ENDS
    said = texts(figure)
    assert any(f"not drawn: {80 - trees.ENDS} other nodes" in text for text in said)
    assert {"end 0: 0.0", "end 2: 5.0", "end 79 (2)"} <= set(said)
    visited_twice = [text for text in said if text.endswith("(2)")]
    assert visited_twice and all(int(text.split()[1]) > 79 - 2 * trees.ENDS for text in visited_twice)


def test_no_two_nodes_of_a_tree_share_a_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trees, "ENDS", 27)
    points = [tuple(p.get_offsets()[0]) for p in trees.search_tree(wide(3)).axes[0].findobj(PathCollection)]
    assert len(points) == len(set(points)) == 40
    rows = sorted(y for x, y in points if x == 3)
    assert np.diff(rows).min() >= 1  # leaves do not crowd


def test_the_frontier_has_a_column_for_each_term_and_a_row_for_each_planner():
    points = [
        {"planner": planner, "term": term, "weight": w, "score": 0.7 - w / 10, "cost": start - w}
        for planner in ("mcts", "best_of_n")
        for term, start in (("actions", 4 + 5 * (planner == "best_of_n")), ("price", 90))
        for w in (1, 0, 0.5)
    ]
    figure = figures.frontier(points, 20)
    drawn = [[list(line[0].get_xdata()) for line in axes.containers] for axes in figure.axes]
    assert drawn == [[[4, 3.5, 3]], [[90, 89.5, 89]], [[9, 8.5, 8]], [[90, 89.5, 89]]]
    for axes, costs in zip(figure.axes, drawn, strict=True):
        low, high = axes.get_xlim()
        assert 0 <= low < min(costs[0]) and max(costs[0]) < high, "every point can be seen"
    said = texts(figure)
    assert {"λ = 0", "λ = 1", "actions (mean per task)", "price (mean per task)", "mcts\ngold score"} <= set(said)
    assert "λ = 0.5" not in said, "only the ends are named"
    assert "Gold score against cost, one point for each λ\n20 tasks, a small sample" in said
    assert "best_of_n, λ 0 → 1: gold score 0.7 → 0.6, price 90 → 89" in figure.get_label()


def test_the_frontier_shows_the_interval_where_it_is_known():
    points = [{"weight": w, "score": 0.5, "cost": 2 - w, "term": "divisions", "steps": 3.0} for w in (0, 1)]
    [axes] = figures.frontier([{**point, "ci_low": 0.4, "ci_high": 0.7} for point in points], 100).axes
    assert axes.get_xlabel() == "divisions (mean per task)"
    [interval] = axes.collections
    assert interval.get_segments()[0][:, 1] == pytest.approx([0.4, 0.7])
    with pytest.raises(ValueError, match="0 points"):
        figures.frontier([], 1)


def test_a_difference_is_told_from_0_by_its_interval_and_its_p_value():
    figure = EDGE["differences"]()
    assert "1 of 2 differences can be told from 0 (blue)\n60 tasks; corrected for 2 comparisons (Holm)" in texts(figure)
    assert "own best of n − greedy" in texts(figure) and "+0.100, p = 0.0600" in texts(figure)


def test_many_differences_are_corrected_for_their_number():
    rows = [difference(0.1, 0.05, 0.15, p) for p in (0.03, 0.01, 0.03)]  # Holm: 3 * 0.01 is below 0.05, 2 * 0.03 is not
    figure = figures.differences(rows)
    assert figure.get_suptitle().startswith("1 of 3 differences")
    colours = [line.get_color() for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert colours == [figures.GREY, figures.BLUE, figures.GREY]
    stepped = [difference(0.1, 0.05, 0.15, p) for p in (0.02, 0.01, 0.03)]  # 3 * 0.01, then 2 * 0.02, then 0.03
    assert tables.told_apart(stepped) == [True, True, True]


def test_what_the_correction_takes_away_is_said():
    row = difference(0.1, 0.05, 0.15, 0.03)
    assert tables.verdict(row, True) == "told apart" and "many comparisons" in tables.verdict(row, False)
    assert tables.verdict({**row, "ci_low": -0.1}, False) == "cannot tell"


def test_full_scores_are_counted_where_some_attempt_has_one_and_where_the_answer_has():
    said = texts(EDGE["rewards and scores"]())
    assert "best of n: full scores\nfound on 3 tasks, chosen on 2" in said
    assert "mcts: full scores\nfound on 0 tasks, chosen on 0" in said


def test_a_run_concludes_what_its_differences_show():
    def compared(a: str, b: str, mean: float, p_value: float) -> dict[str, Any]:
        ends = {"ci_low": mean - 0.05, "ci_high": mean + 0.05}
        return {"planner": a, "versus": b, "difference": mean, "p_value": p_value, "n": 60, **ends}

    rows = [compared("mcts", "sampling", 0.2, 0.0001), compared("best_of_n", "sampling", 0.1, 0.001)]
    rows += [compared("best_of_n", "greedy", 0.01, 0.6), compared("mcts", "greedy", 0.1, 0.002)]
    lines, answer = tables.conclusions([*rows, compared("mcts", "best_of_n", -0.2, 0.0001)])
    assert answer == "Better than sampling: best of n and mcts; better than greedy: mcts"
    assert lines[-1] == "of these, this run does not show: best_of_n - greedy"
    assert [line.split(":")[0] for line in lines[:2]] == ["best_of_n - sampling", "mcts - sampling"]
    assert lines[-2].endswith("60 tasks: told apart") and "-0.200 [-0.250, -0.150]" in lines[-2]
    worse = [compared(a, b, -0.2, 0.0001) for a in ("best_of_n", "mcts") for b in ("sampling", "greedy")]
    assert tables.conclusions(worse)[1] == "Better than sampling and greedy: neither"


def test_the_best_attempt_is_green_only_where_it_has_a_full_score():
    for golds, best in (((0.3, 1.0), figures.GREEN), ((0.3, 0.83), figures.BLUE)):
        [dots] = figures.attempts([("a", 1.0, golds[0]), ("b", 0.5, golds[1])], 0.0).axes[0].collections
        assert [to_hex(colour) for colour in dots.get_facecolor()] == [figures.ORANGE.lower(), best.lower()]


def test_of_many_attempts_the_highest_rewards_are_drawn_the_best_and_what_the_own_model_chose():
    many = [(f"attempt {k}", -float(k), float(k == 17)) for k in range(20)]
    figure = figures.attempts(many, 0.05, own=15)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [f"attempt {k}" for k in (*range(figures.MOST), 15, 17)]
    [dots] = figure.axes[0].collections
    assert [to_hex(c) for c in dots.get_facecolor()].index(figures.GREEN.lower()) == names.index("attempt 17")
    assert "8 more are not drawn" in figure.get_label() and "by this run's own 0.00" in figure.get_label()
    [ring] = [line for line in figure.axes[0].get_lines() if len(line.get_xdata())]
    assert ring.get_xdata() == [-15.0]


def test_of_attempts_that_are_all_worth_nothing_none_stands_out():
    [dots] = figures.attempts([("a", 1.0, 0.0), ("b", 0.5, 0.0)], 0.0).axes[0].collections
    assert {to_hex(colour) for colour in dots.get_facecolor()} == {figures.ORANGE.lower()}


@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=9), max_size=20), st.integers(9, 50))
def test_a_long_text_loses_its_middle_and_no_part_of_a_word(words: list[str], most: int):
    text = " ".join(words)
    short = cut(text, most)
    assert len(short) <= most and (short == text or " … " in short)
    if short != text:
        start, end = short.split(" … ")
        assert text.startswith(start) and text.endswith(end)
        assert " " not in text[: most // 3] or text[len(start)] == " "


def walked(*steps: tuple[str, str]) -> Trajectory:
    task = Task("t", "webshop", "test", "buy")
    return Trajectory(task, "start", tuple(Step(*step) for step in steps))


def test_two_trajectories_stand_side_by_side_from_before_their_first_difference():
    one = walked(*((name, "") for name in ("a", "b", "c")))
    other = walked(*((name, "") for name in ("a", "b", "d", "e")))
    lines = [line.split() for line in side_by_side(one, other, ("A", "B")).splitlines()]
    assert lines == [["A", "B"], ["…", "…"], ["=", "b", "b"], ["≠", "c", "d"], ["≠", "e"]]
    sizes = [walked((f"search[a red cotton shirt for men, size {size}]", "")) for size in ("xl", "small")]
    assert "≠" in side_by_side(*sizes, ("A", "B")) and "small]" in side_by_side(*sizes, ("A", "B"))


@given(st.lists(st.text(alphabet="abc|", min_size=1, max_size=9), min_size=1, max_size=30), st.integers(12, 60))
def test_of_a_long_observation_the_end_remains(words: list[str], most: int):
    walk = walked(("look", "begin"), ("buy", " [SEP] ".join(words)))
    short, whole = ending(walk, most), on_one_line(walk.steps[-1].observation)
    assert whole == " | ".join(words) and transcript(walk).splitlines()[-1] == whole  # as the models read it
    assert len(short) <= most and (short == whole or (short.startswith("… ") and whole.endswith(short[2:])))
    assert len(short) >= min(len(whole), most - 12)  # as much as fits, but for a part of a word


def test_an_action_that_opens_a_page_has_its_title():
    walk = walked(("search[mug]", "Page 1"), ("click[7]", "Red Mug [SEP] Price: $3"), ("click[buy now]", "Thanks"))
    assert page_names([walk]) == {"click[7]": "Red Mug $3"}
