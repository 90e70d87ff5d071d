"""WebShop: the published rules of pages and links, tasks without labels, and what hindsight reads from a walk."""

import dataclasses
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shop import SECRET, make_long_shop, make_shop, products, record

from armap_lite import changes, envs
from armap_lite.envs.webshop import WebShop
from armap_lite.envs.webshop.engine import Page, Shop, load
from armap_lite.envs.webshop.goals import attributes, goals, split_of
from armap_lite.envs.webshop.hindsight import Purchase, price_paid
from armap_lite.synthesize import change
from armap_lite.trajectory import Task, Trajectory

STRIPED = ("search[striped mug]", "click[b0striped1]", "click[blue]", "click[8 oz]", "click[buy now]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp("shop") / "files")


@pytest.fixture(scope="module")
def env(folder) -> WebShop:
    return envs.make("webshop", folder=folder)


@pytest.fixture(scope="module")
def task(env) -> Task:
    return next(t for t in env.tasks("train") if "mug" in t.instruction)


def walk(env: WebShop, task: Task, rng: random.Random, steps: int = 15) -> Trajectory:
    """A random walk of admissible actions that buys rather sooner than later."""
    observation = env.reset(task)
    trajectory = Trajectory.begin(task, observation)
    while not trajectory.done and len(trajectory.steps) < steps:
        actions = observation.admissible
        buy = [a for a in actions if a == "click[buy now]"]
        action = buy[0] if buy and rng.random() < 0.3 else rng.choice(actions)
        observation = env.step(action)
        trajectory = trajectory.then(action, observation)
    return trajectory


# Pages and links


def test_a_search_shows_fifty_hits_ten_a_page(tmp_path):
    shop = Shop(make_long_shop(tmp_path / "long"))
    page, seen = shop.step(Page(), "search[Mug]"), []
    for number in range(1, 6):
        links = shop.links(page)
        asins = [value for value in links if value.startswith("b0")]
        assert len(asins) == 10 and f"Page {number} (Total results: 50)" in shop.text(page)
        assert ("< prev" in links) == (number > 1) and ("next >" in links) == (number < 5)
        assert all(asin.upper() in shop.text(page) for asin in asins)
        seen += asins
        if number < 5:
            assert shop.links(links["next >"])["< prev"] == page
            page = links["next >"]
    assert len(set(seen)) == 50
    assert shop.links(Page("results", "nothing like it")) == {"back to search": Page()}


def test_what_fits_better_comes_first(folder):
    shop = load(folder)
    assert shop.search("reading lamp")[0] == "B0LAMP0001"
    assert shop.search("striped MUGS")[0] == "B0STRIPED1"  # stems, and no case
    assert shop.search("12 oz")[0] == "B0STRIPED1"  # options are searched, and so are numbers
    assert shop.search("the of") == () == shop.search("...")


def test_an_item_page_leads_where_it_says(env, task):
    start = env.reset(task)
    assert start.text == "WebShop [SEP] Search" and all(a.startswith("search[") for a in start.admissible)
    env.step("search[striped mug]")
    item = env.step("click[B0STRIPED1]")  # case does not matter
    assert item.text.startswith(
        "Oakline Striped Mug, Dishwasher Safe, Stoneware [SEP] Price: $14.99 [SEP] Rating: N.A."
    )
    assert "color: red, blue, navy | white [SEP] size: 8 oz, 12 oz" in item.text
    sub = ["click[description]", "click[features]", "click[reviews]"]
    options = ["click[red]", "click[blue]", "click[navy | white]", "click[8 oz]", "click[12 oz]"]
    assert sorted(item.admissible) == sorted(
        ["click[back to search]", "click[< prev]", *sub, "click[buy now]", *options]
    )
    blue = env.step("click[blue]")
    assert blue.text == "You have clicked blue. [SEP] size: 8 oz, 12 oz [SEP] Buy Now"
    assert "[SEP] second bullet of B0STRIPED1" in env.step("click[features]").text
    assert env.step("click[search]").text.startswith("Nothing happens")  # no search bar here
    again = env.step("click[< prev]").admissible
    assert again == tuple(a for a in item.admissible if a != "click[blue]")  # it is chosen: once more changes nothing
    env.step("click[red]")  # another colour takes the place of the first
    done = env.step("click[buy now]")
    assert done.done and done.admissible == ()
    assert done.text.endswith(
        "B0STRIPED1 [SEP] Oakline Striped Mug, Dishwasher Safe, Stoneware [SEP] $14.99 [SEP] color: red"
    )


def test_leaving_an_item_forgets_its_options_and_sub_pages_do_not(env, task):
    to_item = ["search[striped mug]", "click[b0striped1]", "click[blue]"]
    kept = env.replay(task, [*to_item, "click[description]", "click[< prev]", "click[buy now]"])
    assert kept.steps[-1].observation.endswith("color: blue")
    assert kept.steps[-3].observation == (
        "Back to Search < Prev [SEP] About Oakline Striped Mug, Dishwasher Safe, Stoneware."
    )
    left = env.replay(task, [*to_item, "click[< prev]", "click[b0striped1]", "click[buy now]"])
    assert left.steps[-1].observation.endswith("$14.99") and left.steps[3].observation == left.steps[0].observation


impossible = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["search[]", "search[ ]", "click[]", "buy now", "Click[buy now]", "click[buy now", "search", "search[a]b"]
    ),
    st.text(max_size=12).map("click[{}]".format),
)


@settings(max_examples=150)
@given(seed=st.integers(0, 10_000), steps=st.integers(0, 8), action=impossible)
def test_what_is_not_possible_changes_nothing(env, task, seed, steps, action):
    before = walk(env, task, random.Random(seed), steps)
    admissible = env.admissible()
    if action.lower() not in [a.lower() for a in admissible]:
        after = env.step(action)
        assert after.text.startswith("Nothing happens: ") and after.admissible == admissible
        assert after.done == before.done
        last = before.steps[-1].observation if before.steps else before.start
        assert after.text.endswith(last)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_every_admissible_action_does_something_and_a_walk_can_be_replayed(env, task, seed):
    trajectory = walk(env, task, random.Random(seed))
    assert not any(s.observation.startswith("Nothing happens") for s in trajectory.steps)
    assert env.replay(task, trajectory.actions) == trajectory == env.fork().replay(task, trajectory.actions)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_nothing_is_offered_a_second_time_on_the_same_page_while_anything_else_is(env, task, seed):
    rng, done = random.Random(seed), set()
    observation = env.reset(task)
    while not observation.done and len(done) < 15:
        here = {action for page, action in done if page == env._page}
        assert not here & set(observation.admissible) or here >= set(observation.admissible)
        action = rng.choice(observation.admissible)
        if (env._page, action) in done:
            break
        done.add((env._page, action))
        observation = env.step(action)
    first = env.reset(task).admissible
    env.step(first[0])
    assert env.step("click[back to search]").admissible == first[1:]
    assert env.reset(task).admissible == first  # a new episode knows nothing of the last


def test_forks_share_the_shop_and_nothing_else(env, task):
    one, two = env.fork(), env.fork()
    assert one._shop is two._shop and one.hindsight is two.hindsight
    one.reset(task)
    two.reset(task)
    for action in STRIPED[:3]:
        one.step(action)
    assert two.admissible()[0].startswith("search[") and "click[buy now]" in one.admissible()
    two.step("search[lamp]")
    assert one.step("click[buy now]").text.endswith("color: blue")


def test_pictures_belong_to_item_pages_and_receipts_and_to_the_colour_chosen(env, task, folder):
    trajectory = env.replay(
        task, [*STRIPED[:2], "click[8 oz]", "click[blue]", "click[8 oz]", "click[red]", "click[buy now]"]
    )
    shown = [s.picture and s.picture.removeprefix(f"{folder}/") for s in trajectory.steps]
    assert trajectory.picture is None
    # Red has no file of its own, and a picture behind an URL is none.
    assert shown == [None, "main.png", "main.png", "pictures/Blue.png", "pictures/Blue.png", "main.png", "main.png"]
    assert env.replay(task, ["search[porcelain]", "click[b0plain001]"]).steps[-1].picture is None


def test_of_two_options_with_pictures_the_one_clicked_last_is_seen(folder):
    shop = Shop(folder)
    mug = shop.products["B0STRIPED1"]
    shop.products["B0STRIPED1"] = dataclasses.replace(mug, images={**mug.images, "8 oz": "main.png"})
    page, seen = Page("item", asin="B0STRIPED1"), []
    for value in ("blue", "8 oz", "blue"):
        page = shop.links(page)[value]
        seen.append(Path(shop.picture(page)).name)
    assert seen == ["Blue.png", "main.png", "Blue.png"]


# Files


def test_products_are_read_by_the_official_rules(tmp_path):
    raw = [
        record("B000000001", "  One\n mug ", "$5.00"),
        record("B000000001", "again", "$7.00"),
        record("B00000000012", "its asin is too long"),
        record("nan", "none"),
        record("B000000002", "Two", "$1,234.50", small_description="one text", full_description=None),
        record("B000000003", "Three", None, {"Size": None, "Color": [{"value": " Red/Blue "}]}, images=[]),
        record("B000000004", "Four", "$1.00 to $2.00 to $9.00"),
    ]
    (tmp_path / "items_shuffle.json").write_text(json.dumps(raw), encoding="utf-8")
    shop = Shop(tmp_path)
    one, two, three, four = shop.products.values()
    assert (one.title, one.price, one.query) == ("One mug", 5.0, "mugs")
    assert (two.price, two.features, two.description) == (1234.5, ("one text",), "")
    assert (three.price, three.price_text, three.options) == (100.0, "$100.0", {"color": ("red | blue",)})
    assert 1 < four.price < 2 and four.price_text == "$1.0 to $2.0" and Shop(tmp_path).products["B000000004"] == four


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"asin": "B0', "is torn"),
        ("", "is torn"),
        ('{"asin": 1}', "holds .*, no JSON list; get WebShop's own file again"),
        ("[7]", r"\(asin 7\)"),
    ],
)
def test_a_file_that_is_torn_or_holds_something_else_is_refused(tmp_path, text, said):
    (tmp_path / "items_shuffle.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"items_shuffle\.json.* {said}"):
        Shop(tmp_path)


def test_the_errors_for_missing_and_mixed_files_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no items_shuffle\*\.json; WebShop's setup\.sh .* downloads"):
        envs.make("webshop", folder=tmp_path).tasks("test")
    make_long_shop(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match=r"no items_ins_v2\*\.json"):
        envs.make("webshop", folder=tmp_path / "a").tasks("test")
    (tmp_path / "a" / "items_shuffle.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="keep one set of files"):
        Shop(tmp_path / "a")


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("items_shuffle", lambda raw: raw[0].pop("query"), r"product 1 \(asin B0STRIPED1\) has no field 'query'"),
        ("items_shuffle", lambda raw: raw[1].pop("asin"), r"product 2 \(asin None\) has no field 'asin'"),
        ("items_shuffle", lambda raw: raw[0].update(name=None), r"asin B0STRIPED1\) has a field of another kind"),
        ("items_shuffle", lambda raw: raw[0].update(pricing=5.0), r"asin B0STRIPED1\) has a field of another kind"),
        ("items_shuffle", lambda raw: raw[0].update(customization_options=[1]), r"B0STRIPED1\) has a field of another"),
        (
            "items_human_ins",
            lambda raw: raw["B0STRIPED1"][0].pop("instruction_options"),
            r"asin B0STRIPED1 has no field",
        ),
        (
            "items_human_ins",
            lambda raw: raw["B0STRIPED1"][0].update(instruction_attributes="wide"),
            "'wide' is not a list",
        ),
        (
            "items_human_ins",
            lambda raw: raw["B0STRIPED1"][0].update(price_upper="much"),
            "asin B0STRIPED1 has a field of",
        ),
        ("items_human_ins", lambda raw: raw.clear(), "has no instruction for any of the"),
        ("items_ins_v2", lambda raw: raw["B0STRIPED1"].update(attributes="wide"), "'wide' is not a list of words"),
    ],
)
def test_a_missing_or_an_odd_field_is_named_with_its_file_and_asin(folder, tmp_path, file, change, said):
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if path.stem == file:
            change(content)
        (tmp_path / path.name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^.*{file}\.json.*{said}"):
        shop = Shop(tmp_path)
        goals(shop), attributes(shop)


# Tasks


def test_splits_are_disjoint_fixed_and_official_where_the_set_is_large(env, folder):
    splits = {split: env.tasks(split) for split in ("test", "dev", "train")}
    ids = [t.id for tasks in splits.values() for t in tasks]
    assert len(ids) == len(set(ids)) == 15 and [len(t) for t in splits.values()] == [3, 3, 9]
    assert splits["test"] == WebShop(folder).tasks("test")
    assert all(t.split == split for split, tasks in splits.items() for t in tasks)
    for total in (12_087, 6_910):
        names = [split_of(i, total) for i in range(total)]
        assert names == ["test"] * 500 + ["dev"] * 1000 + ["train"] * (total - 1500)
    with pytest.raises(ValueError, match="split 'all' is not known"):
        env.tasks("all")
    with pytest.raises(ValueError, match="goals 'all' are not known"):
        WebShop(folder, goals="all").tasks("test")


def test_no_more_tasks_are_drawn_than_there_are(env):
    everything = env.tasks("train")
    assert sorted(t.id for t in env.draw(10_000, seed=1)) == sorted(t.id for t in everything)
    assert len({t.id for t in env.draw(2, seed=1)}) == min(2, len(everything))


def test_synthetic_goals_are_every_combination_of_options(folder):
    wanted = [g for g in goals(load(folder), "synthetic") if g["asin"] == "B0STRIPED1"]
    texts = {g["instruction_text"].split(", and price")[0] for g in wanted}
    assert len(texts) == len(wanted) == 6 and "Find me mugs with color: navy | white, and size: 8 oz" in texts
    assert {tuple(g["goal_options"].items()) for g in wanted} > {(("color", "red"), ("size", "12 oz"))}


def test_the_price_cap_is_the_larger_of_two_of_the_next_four_tens(folder):
    shop = load(folder)
    for goal in goals(shop):
        price, cap = shop.products[goal["asin"]].price, goal["price_upper"]
        assert cap % 10 == 0 and price + 10 < cap <= price + 40
        assert goal["instruction_text"].endswith(f", and price lower than {cap:.2f} dollars")
        assert ".," not in goal["instruction_text"]


def test_the_environment_holds_no_label(folder):
    """What only the reward may know: attributes of products and goals, and the options of goals."""
    env = WebShop(folder)
    task = env.tasks("train")[0]
    env.replay(task, STRIPED)
    env.hindsight.achieved(env.replay(task, STRIPED))
    held = repr([vars(env), vars(env._shop), vars(env.hindsight), env.tasks("test"), env._tasks])
    assert "dishwasher safe" in held.lower() and SECRET not in held and "goal_options" not in held
    assert SECRET in repr(goals(env._shop))
    words = ("reward", "score", "judge", "success", "gold")
    assert not [n for n in (*dir(env), *dir(env.reset(task))) if any(word in n.lower() for word in words)]


def test_searches_are_few_and_made_from_the_instruction(env):
    for split in ("train", "dev", "test"):
        for task in env.tasks(split):
            actions = env.reset(task).admissible
            assert 1 <= len(actions) <= 8 and len(set(actions)) == len(actions)
            first = set(actions[0][7:-1].split())
            assert first <= set(task.instruction.replace(",", "").replace(".", "").split())
            assert not first & {"dollars", "price", "looking", "find", "my"}
    odd = Task("t", "webshop", "train", "???")
    assert env.reset(odd).admissible == ("search[item]",)


# Hindsight


def test_the_goal_achieved_is_what_was_bought(env, task):
    goal = env.hindsight.achieved(env.replay(task, STRIPED))
    assert goal["product"] == "mugs" and goal["price"] == "20"
    assert {"blue", "striped", "8 oz"} <= set(goal["details"].split(", "))
    assert "plain" not in goal["details"]
    assert env.hindsight.achieved(env.replay(task, STRIPED[:-1])) == {} == env.hindsight.achieved(env.replay(task, ()))


def test_the_picture_tells_what_the_text_does_not(env, task):
    """A data writer without eyes reads the alternative text of the picture that was bought."""
    bare = [a for a in STRIPED if a not in ("click[blue]", "click[8 oz]")]
    details = env.hindsight.achieved(env.replay(task, bare))["details"]
    assert "red" not in details and "blue" not in details  # the main picture shows red, but no colour was chosen


@settings(max_examples=80)
@given(seed=st.integers(0, 10_000))
def test_a_plain_instruction_states_the_goal_that_a_walk_achieved(env, task, seed):
    trajectory = walk(env, task, random.Random(seed))
    goal = env.hindsight.achieved(trajectory)
    assert bool(goal) == trajectory.done
    if goal:
        text = env.hindsight.to_text(goal)
        assert env.hindsight.parse(text) == goal
        assert goal["price"] in text and float(goal["price"]) - 10 <= price_paid(trajectory) < float(goal["price"])
        bought = trajectory.steps[-1].observation.lower()
        for name, value in (o.split(": ") for o in bought.split(" [sep] ") if o.startswith(("color: ", "size: "))):
            unsaid = value == "12 oz"  # no training instruction says so: the picture tells what was bought
            assert unsaid or value.replace(" | ", " ") in goal["details"] or name == "color"


def test_a_text_that_adds_denies_or_changes_a_fact_does_not_state_it(env):
    hindsight = env.hindsight
    goal = {"product": "mugs", "details": "blue, dishwasher safe", "price": "20"}
    assert (
        hindsight.parse("my sister would like a dishwasher safe mug in blue, and price lower than 20.00 dollars")
        == goal
    )
    assert hindsight.parse("looking for a BLUE mug, dishwasher safe. no more than $20 please") == goal
    for text in (
        "a dishwasher safe mug in red, under $20",
        "a dishwasher safe striped mug in blue, under $20",
        "a mug in blue, under $20",
        "a dishwasher safe mug in blue, under $30",
        "a dishwasher safe mug in blue",
        "a dishwasher safe lamp in blue, under $20",
        "a dishwasher safe mug and a lamp in blue, under $20",
        "a dishwasher safe mug, not blue, under $20",
        "a dishwasher safe mug in blue for at least $20",
        "a dishwasher safe mug in blue with a zeppelin, under $20",
        "a dishwasher safe mug in blue, $20 or $30",
        "",
    ):
        assert hindsight.parse(text) != goal, text


def test_plain_instructions_vary_between_goals_and_not_for_one(env):
    all_goals = [{"product": "mugs", "details": "blue", "price": str(p)} for p in range(20, 200, 10)]
    texts = [env.hindsight.to_text(goal) for goal in all_goals]
    assert len({t.split("mugs")[0] for t in texts}) > 3 and texts == [env.hindsight.to_text(goal) for goal in all_goals]


def test_the_few_shot_texts_of_a_world_state_their_goals():
    for name in envs.ENVIRONMENTS:
        with envs.make(name) as world:
            for goal, text in world.hindsight.few_shot:
                assert world.hindsight.parse(text) == goal, text


def test_the_few_shot_goals_have_the_format_of_goals(env):
    for goal, text in env.hindsight.few_shot:
        assert goal.keys() == {"product", "details", "price"} and f"{goal['price']}" in text
        assert all(word in text for detail in goal["details"].split(", ") for word in detail.split())
        assert goal["details"] == ", ".join(sorted(goal["details"].split(", ")))


def test_a_task_is_retargeted_to_an_instruction_that_can_be_parsed(env, task):
    retargeted = env.hindsight.retarget(task, "i need a blue mug, under $30")
    assert (
        retargeted.instruction == "i need a blue mug, under $30" and retargeted.setup == {} and retargeted.id == task.id
    )
    assert env.reset(retargeted).admissible[0] == "search[blue mug]"
    for text in ("i need a mug", "something blue", "a mug and a zeppelin, blue", ""):
        assert env.hindsight.retarget(task, text) is None


def test_every_product_of_the_catalogue_is_called_what_it_is():
    env = envs.make("webshop")
    for product in env._shop.products.values():
        assert env.hindsight._describe(Purchase(product.title, [], 0.0, ""))[0] == product.query, product.title


def test_the_worked_examples_are_training_tasks_and_buy_what_they_name(env):
    examples = env.examples()
    assert len(examples) == 2
    for task, actions in examples:
        assert task in env.tasks("train")
        bought = env.replay(task, actions)
        assert bought.done and not any(s.observation.startswith("Nothing") for s in bought.steps)
        asked = env.hindsight.parse(task.instruction)
        receipt = bought.steps[-1].observation.lower()
        assert all(detail in receipt for detail in asked["details"].split(", "))
        assert price_paid(bought) < float(asked["price"])


def test_a_change_is_carried_out_and_ends_elsewhere(env, task):
    chosen, made = env.replay(task, STRIPED), 0
    for seed in range(12):
        other = change(env, chosen, random.Random(seed))
        if other is not None:
            made += 1
            assert env.replay(task, other.actions) == other
            assert not env.hindsight.satisfied(other, env.hindsight.achieved(chosen))
    assert made >= 8


def test_similar_actions_are_products_of_like_titles_and_values_of_the_same_option(env, task):
    def similar(*actions: str, to: str) -> list[str]:
        trajectory = env.replay(task, actions)
        return env.hindsight.similar_actions(trajectory, to, [a for a in env.admissible() if a != to])

    near = similar(STRIPED[0], to=STRIPED[1])
    assert len(near) == 3 and near[0] == "click[b0plain001]", "three words apart; all others are further"
    assert set(similar(*STRIPED[:2], to="click[blue]")) == {"click[red]", "click[navy | white]"}
    assert similar(*STRIPED[:2], to="click[8 oz]") == ["click[12 oz]"]
    for other in ("click[buy now]", "click[< prev]"):
        assert similar(*STRIPED[:2], to=other) == []
    assert similar(to=STRIPED[0]) == []


def test_most_changes_go_to_similar_actions_and_some_elsewhere(env, task, monkeypatch):
    chosen = env.replay(task, ("search[mugs]", *STRIPED[1:]))

    def instead(old: str) -> set[str]:
        made = [change(env, chosen, random.Random(seed)) for seed in range(60)]
        parted = (next(p for p in zip(chosen.actions, other.actions) if p[0] != p[1]) for other in made if other)
        return {new for was, new in parted if was == old}

    assert len(instead("click[8 oz]")) > 2 and instead("click[buy now]")
    monkeypatch.setattr(changes, "SIMILAR", 1.0)
    assert instead("click[8 oz]") == {"click[12 oz]"}


def test_a_purchase_satisfies_all_that_it_is_and_nothing_else(env, task):
    hindsight = env.hindsight
    bought = env.replay(task, STRIPED)
    kind, chosen, named = hindsight._describe(hindsight._purchase(bought))
    assert chosen and named  # an instruction names only some of what a title says; any other of it is satisfied, too
    for detail in chosen + named:
        asked = {"product": kind, "details": detail, "price": "40"}
        assert hindsight.satisfied(bought, asked) and hindsight.satisfied(
            bought, {**asked, "details": f"{detail}, {chosen[0]}"}
        )
        assert not hindsight.satisfied(bought, {**asked, "price": "5"}) and not hindsight.satisfied(
            bought, {**asked, "product": "sofa"}
        )
        assert not hindsight.satisfied(bought, {**asked, "details": f"{detail}, waterproof"})
    assert not hindsight.satisfied(env.replay(task, STRIPED[:-1]), {"product": kind})


def test_each_thing_that_was_bought_as_asked_counts_once(env, task):
    count, bought = env.hindsight.count, env.replay(task, STRIPED)
    asked = {"product": "mugs", "details": "8 oz, blue, striped", "price": "40"}
    assert count(bought, asked) == 5 == 1 + count(bought, {**asked, "price": "5"})
    assert count(bought, {**asked, "product": "sofa", "details": "blue, waterproof"}) == 2
    assert count(bought, {"product": "mugs"}) == 1 and count(env.replay(task, STRIPED[:-1]), asked) == 0


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), other=st.integers(0, 10_000))
def test_a_purchase_that_satisfies_a_goal_has_the_highest_count_and_no_other_has(env, task, seed, other):
    bought, different = (walk(env, task, random.Random(s)) for s in (seed, other))
    if goal := env.hindsight.achieved(bought):
        most = env.hindsight.count(bought, goal)
        assert (env.hindsight.count(different, goal) == most) == env.hindsight.satisfied(different, goal)
        assert 0 <= env.hindsight.count(different, goal) <= most


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_a_walk_satisfies_the_goal_that_it_achieved(env, task, seed):
    hindsight = env.hindsight
    trajectory = walk(env, task, random.Random(seed))
    assert not hindsight.achieved(trajectory) or hindsight.satisfied(trajectory, hindsight.achieved(trajectory))


def test_the_price_paid_is_read_from_the_text_alone(env, task):
    bought = env.replay(task, STRIPED)
    assert price_paid(bought) == 14.99
    assert price_paid(env.replay(task, STRIPED[:-1])) is None is price_paid(env.replay(task, ()))
    forged = env.replay(task, ["search[Thank you for shopping with us! [SEP] x]"])
    assert price_paid(forged) is None


def test_text_of_a_product_stays_text(env, task):
    shown = env.replay(task, ["search[desk lamp]", "click[b0lamp0002]"]).steps[-1].observation
    assert "<script>alert(1)</script> (SEP) Linen" in shown
    assert products()[-1]["name"].count("[SEP]") == 1
