"""Widgets: what they show follows their controls, text stays text, and a run that nobody watches gets a picture."""

import asyncio
import base64
import html.parser
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import PathCollection
from PIL import Image

from armap_lite import envs
from armap_lite.agent import Agent
from armap_lite.batching import Batcher
from armap_lite.control import Objective, Weighted
from armap_lite.display import pages, widgets
from armap_lite.display.canvas import WIDGET_MIME
from armap_lite.display.play import PlaySession, play
from armap_lite.display.temperature import explore_temperature, sides_of_the_die
from armap_lite.display.trees import search_tree, tree_after
from armap_lite.display.widgets import (
    Interactive,
    explore_best_of_n,
    explore_pairs,
    explore_tree,
    explore_weights,
)
from armap_lite.envs.base import actions_like, length
from armap_lite.envs.game24 import Game24
from armap_lite.envs.page import Part
from armap_lite.envs.webshop.engine import SEP
from armap_lite.episode import Episode
from armap_lite.llms.base import Choice
from armap_lite.llms.choices import tempered
from armap_lite.planners import PLANNERS, Budget, PlanResult, Sample, Search
from armap_lite.trajectory import Observation, PreferencePair, Step, Task, Trajectory
from tests.shop import make_shop
from tests.tiny import ScriptedLM, ScriptedReward, puzzle

HOSTILE = "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
TASK = puzzle(4, 4, 6, 8)


def walk(*actions: str, task: Task = TASK) -> Trajectory:
    return Game24().replay(task, actions)


CHOSEN, REJECTED = walk("8 + 4 = 12", "6 - 4 = 2", "12 * 2 = 24"), walk("8 + 4 = 12", "6 + 4 = 10", "12 - 10 = 2")
PAIR = PreferencePair("p", TASK.id, TASK.instruction, CHOSEN, REJECTED, "plain", 1)


def liked(trajectory: Trajectory) -> float:
    """A reward that tells most walks apart: many steps, small numbers."""
    return len(trajectory.steps) - sum(map(len, trajectory.actions)) / 10


class Shop(Game24):
    """A page to search from, a page of results, an item with a picture and two options; the item's name is hostile."""

    name = "webshop"
    max_steps = 8
    picture: str | None = None

    def reset(self, task: Task) -> Observation:
        self.at, self._page = None, "start"
        return self._look()

    def step(self, action: str) -> Observation:
        found = {"search": "results", f"click[{HOSTILE.lower()}]": "item", "click[buy now]": "done"}
        self._page = next((page for words, page in found.items() if action.startswith(words)), self._page)
        return self._look()

    def page(self, trajectory: Trajectory, admissible: Sequence[str]) -> list[Part]:
        texts = (trajectory.steps[-1].observation if trajectory.steps else trajectory.start).split(SEP)
        actions = [f"click[{text.lower()}]" for text in texts]
        marked = ["✓ " * (action in trajectory.actions) + text for text, action in zip(texts, actions)]
        parts = [
            Part(actions=((label, action),)) if action in admissible else Part(after=text, strong="$" in text)
            for text, label, action in zip(texts, marked, actions)
        ]
        return [Part(entry=("Search", "search[{}]")), *parts] if not trajectory.steps else parts

    def _look(self) -> Observation:
        parts, actions = {
            "start": (["WebShop", "Instruction:", "a red cup"], ["search[red cup]"]),
            "results": (
                ["Back to Search", HOSTILE, "$10 or $12"],
                ["click[back to search]", f"click[{HOSTILE.lower()}]"],
            ),
            "item": (
                ["Back to Search", "colour", "red", "Blue", f"{HOSTILE} for tea", "Price: $12.50", "Buy Now"],
                ["click[back to search]", "click[red]", "click[blue]", "click[buy now]", "click[reviews]"],
            ),
            "done": (["Thank you"], []),
        }[self._page]
        item = self.picture if self._page == "item" else None
        return Observation(SEP.join(parts), tuple(actions), self._page == "done", item)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "cup.png")
    return str(tmp_path / "cup.png")


def every(root: ipw.Widget, kind: type = ipw.Widget) -> Iterator[Any]:
    if isinstance(root, kind):
        yield root
    for child in getattr(root, "children", ()):
        yield from every(child, kind)


def named(root: ipw.Widget, description: str) -> Any:
    [found] = [widget for widget in every(root) if getattr(widget, "description", "") == description]
    return found


def shown(root: ipw.Widget) -> str:
    """All HTML a widget shows."""
    return "\n".join(widget.value for widget in every(root, ipw.HTML))


class Reader(html.parser.HTMLParser):
    """What a browser makes of HTML: the tags, and the text outside them."""

    def __init__(self, source: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def rows(source: str, marked: bool = False) -> list[str]:
    """Texts of the body rows of a table, or of those that are marked."""
    pattern = r"<tr class=marked>(.*?)</tr>" if marked else r"<tr(?: class=marked)?>(<td.*?)</tr>"
    return [" | ".join(Reader(cell).text for cell in row.split("</td>")[:-1]) for row in re.findall(pattern, source)]


async def planned(planner: str, options: dict[str, Any], reward: Any, task: Task = TASK) -> PlanResult:
    """What a planner finds with a policy that knows nothing of the task."""
    lm = ScriptedLM(lambda prompt, choice: 1 + len(choice) % 3)
    search = Search(planner, Episode(Game24(), task), Agent(lm, Game24()), Batcher(lm, reward), 0)
    return await PLANNERS[planner](search, **options)


def mcts(rollouts: int, **options: Any) -> PlanResult:
    return asyncio.run(planned("mcts", {"rollouts": rollouts, **options}, ScriptedReward(liked)))


def listing(planner: str, walks: Sequence[Trajectory], rewards: Sequence[float]) -> PlanResult:
    """A plan with these samples."""
    samples = tuple(Sample(t, r) for t, r in zip(walks, rewards, strict=True))
    task = walks[0].task.id
    return PlanResult(f"{planner}/{task}", task, planner, samples, int(np.argmax(rewards)), Budget())


# A picture where nobody watches


def test_without_a_reader_there_is_a_picture_and_no_widget(monkeypatch):
    made = []
    figure = widgets.reward_chart({"you": [0.0, 1.0]})
    one = Interactive(lambda: made.append(1) or [ipw.HTML("moves")], lambda: figure)
    data, about = one._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG") and WIDGET_MIME not in data and not made
    assert data["text/plain"] == about["image/png"]["alt"] == figure.get_label()
    monkeypatch.setattr("armap_lite.display.canvas.is_interactive", lambda: True)
    data, _ = one._repr_mimebundle_()
    assert data[WIDGET_MIME]["model_id"] == one.controls.model_id and data["image/png"] and made == [1]


@pytest.mark.slow
def test_papermill_and_nbconvert_show_the_picture_even_where_other_widgets_left_their_state(tmp_path):
    import papermill
    from nbconvert import HTMLExporter

    source = "import sys; sys.path.insert(0, {!r})\nimport ipywidgets\nfrom tests.test_widgets import *\n{}"
    cells = ["ipywidgets.IntSlider()", "explore_pairs(PAIR, ScriptedReward(liked))"]
    root = str(Path(__file__).parent.parent)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.format(root, cell)) for cell in cells])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "in.ipynb")
    papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False, cwd=root)
    done = nbformat.read(tmp_path / "out.ipynb", 4)
    assert done.metadata.widgets  # the bare slider's: nbconvert has what it needs to prefer a widget
    body, _ = HTMLExporter(template_name="lab").from_notebook_node(done)
    bare, picture = (cell.outputs[0].data for cell in done.cells)
    assert body.count(f'<script type="{WIDGET_MIME}">') == 1 and bare[WIDGET_MIME]["model_id"] in body
    assert picture["image/png"].replace("\n", "") in body and WIDGET_MIME not in picture
    assert done.cells[1].outputs[0].metadata["image/png"]["alt"].startswith("Use the numbers 4 4 6 8")
    assert "data:image/png" in pages.notebook(tmp_path / "out.ipynb")["html"]


def test_a_notebook_saved_in_a_frontend_is_converted_to_the_picture(monkeypatch):
    from nbconvert import HTMLExporter

    monkeypatch.setattr("armap_lite.display.canvas.is_interactive", lambda: True)
    data, about = explore_pairs(PAIR, ScriptedReward(liked))._repr_mimebundle_()
    data["image/png"] = base64.b64encode(data["image/png"]).decode()
    output = nbformat.v4.new_output("display_data", data, metadata=about)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    body, _ = HTMLExporter(template_name="lab").from_notebook_node(book)
    assert "<img" in body and f'type="{WIDGET_MIME}"' not in body


# Text stays text


@given(st.text() | st.sampled_from([HOSTILE, "</td></tr></table>", "' onload='x", "&lt;b&gt;", "<!--"]))
def test_any_text_in_a_table_or_an_attribute_stays_what_it_is(text):
    text = text.replace("\r", "\n").replace("\0", "")  # HTML itself has no such characters
    table = Reader(widgets.table_html([text], [[text]]))
    assert table.tags == {"table", "tr", "th", "td"} and table.text == text * 2
    assert Reader(f'<p title="{widgets.escape(text)}">').attributes["title"] == text


@pytest.mark.slow
def test_a_hostile_product_is_text_wherever_it_is_shown(photo):
    Shop.picture = photo
    task = Task("t", "webshop", "test", f"buy {HOSTILE}")
    reward = ScriptedReward(liked)
    bought = Shop().replay(task, ["search[red cup]", f"click[{HOSTILE.lower()}]", "click[buy now]"])
    other = Shop().replay(task, [f"search[{HOSTILE}]", f"click[{HOSTILE.lower()}]", "click[red]", "click[buy now]"])
    plan = listing("best_of_n", [bought, other], [1.0, 0.0])
    game = play(Shop(), [task, task], reward, [plan]).controls
    for words in ("Search", HOSTILE, "Buy Now", "Compare with the planners"):
        if words == "Search":
            [box] = every(game, ipw.Combobox)
            box.value = HOSTILE
            next(b for b in every(game, ipw.Button) if b.description == words).click()
        else:
            named(game, words).click()
        assert Reader(shown(game)).tags <= {"style", "b", "p", "img", "table", "tr", "th", "td"}
    pair = PreferencePair("p", "t", task.instruction, bought, other, "plain", 0)
    seen = shown(explore_pairs(pair, reward).controls) + shown(explore_best_of_n([plan], {plan.id: [1, 0]}).controls)
    assert HOSTILE in Reader(seen).text and not Reader(seen).tags & {"script"}
    assert "onerror" not in Reader(seen).attributes


# Pairs


def test_a_pair_is_walked_step_by_step_with_its_differences_and_rewards():
    reward = ScriptedReward(liked)
    box = explore_pairs([PAIR, PAIR], reward).controls
    assert {t.actions for t in reward.scored} == {t.actions[:k] for t in (CHOSEN, REJECTED) for k in range(4)}
    step = named(box, "Step")
    assert (step.max, step.value) == (3, 2)  # opens where the two part
    for k in range(4):
        step.value = k
        lines = rows(shown(box))
        assert [line[:3] for line in lines] == ["1 =", "2 ≠", "3 ≠"][:k]
        assert [line[:3] for line in rows(shown(box), marked=True)] == ["2 ≠", "3 ≠"][: max(0, k - 1)]
        for i, line in enumerate(lines):
            for side in (CHOSEN, REJECTED):
                prefix = walk(*side.actions[: i + 1])
                assert f"{side.actions[i]}  →  {side.steps[i].observation} | {liked(prefix):.2f}" in line
    assert f"chosen {liked(CHOSEN):.2f}, rejected {liked(REJECTED):.2f}" in Reader(shown(box)).attributes["alt"]


def test_a_turn_shows_its_own_picture(photo, tmp_path):
    Image.new("RGB", (9, 9), "blue").save(tmp_path / "blue.png")
    steps = (Step("look", "red", photo), Step("go", "blue", str(tmp_path / "blue.png")))
    chosen, rejected = (Trajectory(TASK, "start", steps[:n]) for n in (2, 1))
    box = explore_pairs(
        PreferencePair("p", "t", TASK.instruction, chosen, rejected, "plain", 1), ScriptedReward(liked)
    ).controls
    codes = {
        name: base64.b64encode(Path(path).read_bytes()).decode()
        for name, path in (("red", photo), ("blue", steps[1].picture))
    }
    for k, counts in enumerate([(0, 0), (2, 0), (1, 1)]):  # the shorter one keeps showing its last
        named(box, "Step").value = k
        assert (shown(box).count(codes["red"]), shown(box).count(codes["blue"])) == counts


# Playing


def test_a_game_is_played_with_the_list_scored_live_and_taken_back():
    reward = ScriptedReward(liked)
    game = PlaySession(Game24(), [TASK], reward, [])
    first = Episode(Game24(), TASK).start()
    listed = named(game.box, "Action")
    assert listed.options == first.admissible
    named(game.box, "Filter").value = "= 12 8"
    assert listed.options and all("= 12" in a and "8" in a for a in listed.options)
    listed.value = "8 + 4 = 12"
    named(game.box, "Do it").click()
    assert reward.scored[-1].actions == ("8 + 4 = 12",)
    assert f"you {liked(walk('8 + 4 = 12')):.2f}" in Reader(shown(game.box)).attributes["alt"]
    named(game.box, "Filter").value = "no such action"
    named(game.box, "Do it").click()  # nothing to do, and nothing happens
    assert game.path[-1].trajectory.actions == ("8 + 4 = 12",)
    for action in ("6 - 4 = 2", "12 * 2 = 24"):
        game.act(action)
    assert "The episode is over" in shown(game.box) and game.path[-1].trajectory == CHOSEN
    named(game.box, "Undo").click()
    named(game.box, "12 - 2 = 10").click()  # few actions are buttons; taken from the state before
    assert game.path[-1].trajectory == walk("8 + 4 = 12", "6 - 4 = 2", "12 - 2 = 10")
    named(game.box, "Start again").click()
    assert game.path == [first] and named(game.box, "Undo").disabled


def test_a_player_is_compared_with_the_plans_of_the_same_task_and_no_judge_is_asked(monkeypatch):
    monkeypatch.setattr(envs, "make_judge", lambda *_, **__: pytest.fail("the judge was touched"))
    other = puzzle(1, 1, 2, 8, id="other")
    plans = [listing("mcts", [CHOSEN], [5.0]), listing("greedy", [walk("1 + 1 = 2", task=other)], [9.0])]
    game = PlaySession(Game24(), [TASK, other], ScriptedReward(liked), plans)
    game.act("6 + 4 = 10")
    named(game.box, "Compare with the planners").click()
    mine = liked(walk("6 + 4 = 10"))
    best, you = (
        f"mcts | {liked(CHOSEN):.2f} | {'; '.join(CHOSEN.actions)}",
        f"you, not finished | {mine:.2f} | 6 + 4 = 10 (not over)",
    )
    assert rows(game.answers.value) == [best, you]  # last, whatever its reward, which is a guess
    assert f"Planners: mcts {liked(CHOSEN):.2f}." in Reader(game.score.value).attributes["alt"]
    assert rows(game.answers.value, marked=True) == [you]
    named(game.box, "Task").value = 2  # another task: another world, and its own plans
    assert game.path[-1].trajectory.task == other and not game.answers.value
    named(game.box, "Compare with the planners").click()
    assert [row.split(" | ")[0] for row in rows(game.answers.value)] == ["greedy", "you, not finished"]


def test_a_shop_is_shown_as_a_page_of_buttons(photo):
    Shop.picture = photo
    game = PlaySession(Shop(), [Task("t", "webshop", "test", "a red cup")], ScriptedReward(liked), [])
    [box] = every(game.box, ipw.Combobox)
    assert box.options == ("red cup",)
    box.value = "  blue cup "
    next(b for b in every(game.box, ipw.Button) if b.description == "Search").click()
    assert game.path[-1].trajectory.actions == ("search[blue cup]",) and "<b>$10 or $12</b>" in shown(game.box)
    named(game.box, HOSTILE).click()
    assert base64.b64encode(Path(photo).read_bytes()).decode() in shown(game.box) and "<b>Price: $12.50</b>" in shown(
        game.box
    )
    order = [b.description for b in every(game.page, ipw.Button)]
    assert order == ["Back to Search", "red", "Blue", "Buy Now", "click[reviews]"]  # the last is nowhere on the page
    named(game.box, "Blue").click()
    assert named(game.box, "✓ Blue").tooltip == "click[blue]" and named(game.box, "red")
    named(game.box, "Buy Now").click()
    assert game.path[-1].over and not list(every(game.page, ipw.Button))


@pytest.mark.slow
def test_the_real_shop_can_be_walked_by_its_buttons_and_an_item_stays_in_sight(tmp_path):
    shop = envs.make("webshop", folder=make_shop(tmp_path / "shop"))
    game = PlaySession(shop, [Task("t", "webshop", "test", "a mug")], ScriptedReward(liked), [])
    buttons = lambda: [b.description for b in every(game.page, ipw.Button) if not b.disabled]  # noqa: E731
    game.act("search[striped mug]")
    assert buttons()[:2] == ["Back to Search", "B0STRIPED1"] and not [b for b in buttons() if b.startswith("click[")]
    named(game.page, "B0STRIPED1").click()
    item = [widget.value for widget in every(game.page, ipw.HTML)]
    assert "color:" in item and "<b>Price: $14.99</b>" in item
    named(game.page, "blue").click()  # the engine answers with what is left to choose, and no more
    assert "<b>Price: $14.99</b>" not in game.path[-1].trajectory.steps[-1].observation
    assert {*item[2:], "You have clicked blue."} <= {widget.value for widget in every(game.page, ipw.HTML)}
    named(game.page, "Description").click()
    named(game.page, "< Prev").click()
    assert named(game.page, "✓ blue").disabled and {"red", "8 oz", "12 oz", "Buy Now"} <= set(buttons())
    for colour in ("red", "blue"):  # a policy is not offered what it did before on the same page; a reader may change
        named(game.page, colour).click()
        assert named(game.page, f"✓ {colour}").disabled
    named(game.page, "Buy Now").click()
    assert game.path[-1].over and not buttons()


# Search trees


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gamma": 0.9},
        {"expand_terminal_siblings": True},
        {"width": 3, "expand_terminal_siblings": True, "gamma": 0.8},
    ],
)
def test_the_tree_after_k_rollouts_is_the_one_a_search_of_k_rollouts_leaves(options):
    gamma = options.get("gamma", 1.0)
    whole = mcts(12, **options)
    for k in range(1, 13):
        early = mcts(k, **options)
        assert early.samples == whole.samples[:k]
        tree = tree_after(whole, k, gamma)
        assert unmarked(tree) == unmarked(early.tree)
        assert marked(tree) == early.samples[-1].trajectory.actions
    with pytest.raises(ValueError, match="gamma=0.5 makes the root's value"):
        tree_after(whole, 12, 0.5)


def unmarked(tree: Any) -> Any:
    kept = {key: value for key, value in tree.items() if key not in ("chosen", "value", "finished")}
    children = [unmarked(child) for child in tree["children"] if child["visits"]]
    return {**kept, "value": pytest.approx(tree["value"]), "children": children}


def marked(tree: Any) -> tuple[str, ...]:
    path = [child for child in tree["children"] if child["chosen"]]
    return (path[0]["action"], *marked(path[0])) if path else ()


def test_a_node_of_a_growing_tree_stands_where_the_finished_tree_has_it():
    plan = mcts(8)
    seen, frames = [], set()
    for k in range(1, 9):
        axes = search_tree(tree_after(plan, k)).axes[0]
        frames.add((*axes.get_xlim(), *axes.get_ylim()))
        seen.append({tuple(dot.get_offsets()[0]) for dot in axes.findobj(PathCollection)})
    assert len(frames) == 1 and len(seen[0]) < len(seen[-1])
    assert all(early <= late for early, late in itertools.pairwise(seen))


def test_a_tree_grows_with_its_slider_and_only_a_search_has_one():
    plan = mcts(6)
    box = explore_tree([plan, plan]).controls
    rollout = named(box, "Attempt")
    assert (rollout.min, rollout.value, rollout.max) == (1, 1, 6)
    for k in (1, 4, 6):
        rollout.value = k
        lines = [line.split(" | ") for line in rows(shown(box))]
        assert tuple(line[0] for line in lines) == ("start", *plan.samples[k - 1].trajectory.actions)
        assert int(lines[0][1]) == k and f"got reward <b>{plan.samples[k - 1].reward:.2f}" in shown(box)
        best = max(sample.reward for sample in plan.samples[:k])
        assert f"highest reward so far {best:.2f}" in Reader(shown(box)).attributes["alt"]
    with pytest.raises(ValueError, match="only those of planner 'mcts'"):
        explore_tree(listing("best_of_n", [CHOSEN], [1.0])).figure()


# Choosing among samples


def test_n_decides_among_how_many_the_reward_model_and_the_oracle_choose():
    walks = [REJECTED, walk("6 + 4 = 10", "8 - 4 = 4", "10 * 4 = 40"), CHOSEN]
    plan = listing("best_of_n", walks, [1.0, 3.0, 2.0])
    box = explore_best_of_n([plan], {plan.id: [0.0, 0.5, 1.0]}).controls
    n = named(box, "N")
    assert (n.min, n.value, n.max) == (1, 3, 3)
    for k, oracle in ((3, "3 |"), (2, "2 |"), (1, "1 |")):
        n.value = k
        lines = rows(shown(box))
        assert len(lines) == k and [line for line in lines if "oracle" in line] == [
            line for line in lines if line.startswith(oracle)
        ]
        assert [line for line in lines if "reward model" in line] == rows(shown(box), marked=True)
        assert rows(shown(box), marked=True)[0].startswith("1 |" if k == 1 else "2 |")
    n.value = 3
    assert "N = 3: random 0.500, reward model 0.500, oracle 1.000" in Reader(shown(box)).attributes["alt"]
    n.value = 1
    assert "N = 1: random 0.500, reward model 0.500, oracle 0.500" in Reader(shown(box)).attributes["alt"]


@pytest.mark.slow
@settings(max_examples=5)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 3)), min_size=2, max_size=6), st.floats(0, 9), st.floats(0, 9)
)
def test_answers_under_a_weight_are_those_of_the_objective(samples, weight, more):
    walks = [Trajectory(TASK, "start", tuple(Step(f"a * {k}", "") for k in range(n))) for _, n in samples]
    plan = listing("best_of_n", walks, [reward for reward, _ in samples])
    terms = {"steps": length, "products": actions_like(r"\* 1")}
    box = explore_weights([plan], terms).controls
    sliders = list(every(box, ipw.FloatSlider))
    for slider, value in zip(sliders, (weight, more)):
        slider.max = 10.0
        slider.value = value
    objective = Objective() - weight * Weighted(length) - more * Weighted(terms["products"])
    best = max(plan.samples, key=lambda s: objective(s.trajectory, s.reward))
    values = (length(best.trajectory), terms["products"](best.trajectory), best.reward)
    said = "steps {:.3g}, products {:.3g}, learned reward {:.3g}".format(*values)
    ties = sum(objective(s.trajectory, s.reward) > objective(best.trajectory, best.reward) - 1e-9 for s in plan.samples)
    assert ties > 1 or said in Reader(shown(box)).attributes["alt"]


def test_weights_move_the_answers_worth_by_true_scores_where_they_are_given():
    short, long = walk("8 + 4 = 12"), CHOSEN
    plan = listing("best_of_n", [short, long], [1.0, 2.0])
    box = explore_weights([plan], {"steps": length}, {plan.id: [0.25, 0.75]}).controls
    [weight] = every(box, ipw.FloatSlider)
    assert "steps 3, gold score 0.75" in shown(box)
    weight.value = weight.max  # two steps fewer are worth more than one point of reward
    assert weight.max > 0.5 and "steps 1, gold score 0.25" in shown(box)


def at_temperatures(logits: Sequence[float], *temperatures: float) -> dict[float, list[Choice]]:
    """What `choose(n=None)` gives for actions with these logits."""
    some = {t: tempered(logits, t) for t in temperatures}
    return {t: [Choice(f"act {k}", k, float(x), 9) for k, x in enumerate(found)] for t, found in some.items()}


@given(st.lists(st.floats(-20, 5), min_size=1, max_size=9), st.floats(0.1, 8), st.floats(0.1, 8))
def test_a_policy_chooses_among_more_actions_the_higher_the_temperature(logits, one, other):
    found = at_temperatures(logits, *sorted((one, other)))
    sides = [sides_of_the_die(some) for some in found.values()]
    assert 1 - 1e-9 <= sides[0] <= sides[-1] + 1e-6 and sides[-1] <= len(logits) + 1e-6


def test_an_impossible_action_is_no_side_of_the_die():
    possible = Choice("a", 0, 0.0, 1)
    assert sides_of_the_die([possible, Choice("b", 1, float("-inf"), 1)]) == 1


def test_temperature_moves_the_bars_beside_those_at_one():
    found = at_temperatures([2.0, 0.0, 1.0], 0.5, 1.0, 4.0)
    box = explore_temperature(found).controls
    [slider] = every(box, ipw.SelectionSlider)
    assert slider.value == 1.0
    slider.value = 4.0
    alt = Reader(shown(box)).attributes["alt"]
    first = np.exp(found[4.0][0].logprob)
    assert f"T = 4: favourite {first:.0%}" in alt and f"act 0 {first:.2f}; act 2" in alt
    with pytest.raises(ValueError, match=r"\[0.5\]: expected 1.0"):
        explore_temperature({0.5: found[0.5]})


def test_pictures_of_all_widgets_say_in_words_what_they_show(photo):
    Shop.picture = photo
    plan, tree = listing("best_of_n", [CHOSEN, REJECTED], [1.0, 0.0]), mcts(3)
    reward, golds = ScriptedReward(liked), {plan.id: [1.0, 0.0]}
    every_one = {
        "chosen": explore_pairs(PAIR, reward),
        "4 4 6 8": play(Game24(), TASK, reward),
        "red cup": play(Shop(), Task("t", "webshop", "test", "buy"), reward),
        "attempt 1 of 3": explore_tree(tree),
        "N = 2": explore_best_of_n([plan], golds),
        "steps 3": explore_weights([plan], {"steps": length}, golds),
        "T = 2": explore_temperature(at_temperatures([1, 0], 1.0, 2.0)),
    }
    for words, one in every_one.items():
        data, _ = one._repr_mimebundle_()
        assert words in data["text/plain"] and data["image/png"].startswith(b"\x89PNG")
