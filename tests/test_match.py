"""`match`: which action an answer in free text names. It may miss one, but never names a wrong one."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from armap_lite.envs.game24 import moves
from armap_lite.llms.match import match

SHOP = ["click[buy now]", "click[< prev]", "click[red]", "click[dark red]", "search[red shoes]"]
MOVES = ["10 - 4 = 6", "4 - 10 = -6", "10 + 4 = 14", "4 * 6 = 24"]
ROOM = ["go north", "go south", "open door", "go"]


@pytest.mark.parametrize(
    ("answer", "choices", "found"),
    [
        ("10 × 4 = 40", ["10 + 4 = 14", "10 * 4 = 40"], 1),
        ("10 x 4 = 40", ["10 + 4 = 14", "10 * 4 = 40"], 1),
        (r"10 \* 4 = 40", ["10 + 4 = 14", "10 * 4 = 40"], 1),
        ("10 − 4 = 6", ["10 - 4 = 6", "4 - 10 = -6"], 0),
        ("8 ÷ 4 = 2", ["8 / 4 = 2", "4 / 8 = 1/2"], 0),
        ("4 * 10 = 40", ["10 * 4 = 40", "10 + 4 = 14"], 0),
        ("4 + 10", ["10 * 4 = 40", "10 + 4 = 14"], 1),
        ("4 - 10 = -6", ["10 - 4 = 6"], None),  # order matters
        ("4 * 10 = 41", ["10 * 4 = 40"], None),
        ("Answer: 4 × 10 = 40.", ["10 * 4 = 40", "10 + 4 = 14"], 0),
        ("2 + 3 * 4 = 12", ["3 * 4 = 12"], None),  # part of a longer calculation
        ("2 * 3 * 4 = 24", ["2 * 3 = 6", "3 * 4 = 12"], None),
        ("13 * 4 = 52", ["3 * 4 = 12"], None),
        ("8 * 3 = 2.5", ["8 * 3 = 2"], None),
        ("1/2 * 6 = 3", ["2 * 6 = 3", "1/2 * 6 = 3"], 1),
        ("Buy Now", SHOP, 0),
        ("`Buy Now`", SHOP, 0),
        ("Click [Buy Now]", SHOP, 0),
        ("click buy now", SHOP, 0),
        ("red", SHOP, 2),
        ("red", [*SHOP, "search[red]"], None),
        ("red shoes or dark red", SHOP, None),
        ("1. go north", ROOM, 0),
        ("- go", ROOM, 3),
        ("* `open door`", ROOM, 2),
        ('"open door"', ROOM, 2),
        ("**Open Door**", ROOM, 2),
        ("(2) go south", ROOM, 1),
        ("I would not open door", ROOM, None),
        ("Don't open door!", ROOM, None),
        ("go north or go south", ROOM, None),
        ("reopen doors", ROOM, None),
        ("an infra-red or red-hot one", ["red"], None),
        ("", ROOM, None),
        ("-3 + 5 = 2", ["3 + 5 = 8", "-3 + 5 = 2"], 1),
        ("- 3 + 5 = 8", ["3 + 5 = 8"], 0),  # a list marker
        ("Go", ["go", "GO"], None),
        ("go", ["go", "GO"], 0),
        ("b", ["a", "b", "b"], 1),
        ("not 4 * 6 = 24", MOVES, None),
        ("4 * 6 = 24 is wrong", MOVES, None),
        ("I thought of 4 * 6 = 24, but 5 * 5 = 25 is better", MOVES, None),
        ("10 - 4 = 6 or 4 * 6 = 24", MOVES, None),
        ("10 - 4 = 6, then 6 * 7 = 42", MOVES, None),
        ("The best move is `4 * 6 = 24`, since 24 is what is asked for.", MOVES, None),  # no sentence is read
        ("I see.\n4 * 6 = 24", MOVES, 3),
        ("10 - 4 = **6**", MOVES, 0),
        ("4 - 10 = −6", MOVES, 1),
        ("10 ‑ 4 = 6", MOVES, 0),
        ("I take 10 - 4 = - 6", MOVES, None),
        ("I take 10 - 4 = 6,000", MOVES, None),
        ("I take 10 - 4 = 6,5", MOVES, None),
        ("5,010 - 4 = 6", MOVES, None),
        ("(10 - 4) = 7", MOVES, None),
        ("|4 - 10| = 6", MOVES, None),
        ("√4 * 6", MOVES, None),
        ("4 * 6^2", MOVES, None),
        ("2*4*6", MOVES, None),
        ("2+4*6", MOVES, None),
        ("2 + (10 - 4) * 3", ["10 - 4 = 6", "2 + 10 = 12"], None),
        ("take 1-4 of them", ["1 - 4 = -3"], None),
        ("use 1/2 of it", ["1 / 2 = 1/2"], None),
        ("left are 3 -4 and 5", ["3 - 4 = -1"], None),
        ("so 10 -4 + 10", ["-4 + 10 = 6"], None),
        ("- 3 + 5", ["3 + 5 = 8", "-3 + 5 = 2"], None),  # a marker or a minus
        ("Not this one:\n4 * 6 = 24", MOVES, None),
        ("My choice: **go north**", ROOM, 0),
        ("1 / 2 = 0.5", ["2 / 1 = 2", "1 / 2 = 1/2"], 1),
        ("5 / 10 = 2", ["10 / 5 = 2", "5 / 10 = 1/2"], None),
        ("5 / 10", ["10 / 5 = 2", "5 / 10 = 1/2"], 1),
        ("4 * 6.0 = 24.0", MOVES, 3),
        ("1 / 0 = 0", MOVES, None),
    ],
)
def test_what_is_meant(answer, choices, found):
    assert match(answer, choices) == found


DENIED = """Neither {} nor|except {}|anything but {}|no: {}|no way {}|dont pick {}|isnt {}|I refuse {}|{} is wrong
{} must be excluded|I would never pick `{}`|`{}` is the wrong move|Action: {} is pointless|If I take {}, nothing happens
The answer: not {}|first `go west`, then `{}`""".replace("\n", "|").split("|")
LONGER = """2+{}|2 +{}|({}) + 1|{}^2|10^{}|10,{}|{}!|2 * ({})|{} - 2|{} * 2|√{}|3 * 8 = 24 ({} unused)|3 * 8 = 24\n{}
My move: 2 + {}|I choose 2 * `{}`|**1{}**""".replace("\\n", "\n")


@pytest.mark.parametrize("frame", DENIED)
@pytest.mark.parametrize("action", ["4 * 6 = 24", "4*6", "open door"])
def test_a_denied_action_is_not_taken(frame, action):
    assert match(frame.format(action), [*MOVES, *ROOM]) is None


@pytest.mark.parametrize("frame", LONGER.replace("|", "\f").split("\f"))
@pytest.mark.parametrize("action", ["4 * 6 = 24", "4 * 6"])
def test_a_part_of_a_calculation_is_no_action(frame, action):
    for line in frame.split("\n") if "unused" not in frame else [frame]:
        if line != "{}":
            assert match(line.format(action), MOVES) is None


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("**12 / 4 = 4**", "12 / 4 = 3"),
        ("4 * 6 = 12 * 2", "4 * 6 = 24"),
        ("4 * 6 ≠ 24", "4 * 6 = 24"),
        ("4 * 6 != 24", "4 * 6 = 24"),
        ("4 * 6 <> 24", "4 * 6 = 24"),
        ("2 * (4 + 6) = 20", "4 + 6 = 10"),
        ("Numbers 4-10 are left", "4 - 10 = -6"),
        ("left: 4 - 10", "4 - 10 = -6"),
        ("3 * 8 = 24\n4 * 6 = 24", "4 * 6 = 24"),
        ("open door to kitchen", "open door"),
        ("I choose: open door to kitchen", "open door"),
        ("pour cup into cup 2", "pour cup into cup"),
        ("use thermometer on cup", "use thermometer"),
        ("go east then open door", "open door"),
        ("click[red], then click[buy now]", "click[buy now]"),
        ("click[red]\nclick[buy now]", "click[buy now]"),
        ("go to 12", "go to 1 2"),
        ("look around is pointless", "look around"),
        ("no look around", "look around"),
    ],
)
def test_another_action_than_the_admissible_one(answer, choice):
    assert match(answer, [choice, "wait"]) is None


FRAMES = [
    "{}",
    "1. {}",
    "- {}",
    "* {}",
    "`{}`",
    '"{}"',
    "**{}**",
    "My move: {}.",
    "Action: {}",
    "```\n{}\n```",
    "Sure, here it is:\n{}\n",
]
SIGNS = {"*": ["*", "×", "·", r"\*", "x"], "/": ["/", "÷"], "-": ["-", "−", "–"], "+": ["+"]}


@given(st.data())
def test_an_equation_however_written_is_itself_or_nothing(data):
    numbers = data.draw(st.lists(st.integers(-13, 24).map(Fraction), min_size=2, max_size=4))
    choices = [f"{a} {sign} {b} = {value}" for a, sign, b, value in moves(numbers)]
    index = data.draw(st.integers(0, len(choices) - 1))
    a, sign, b, _, value = choices[index].split(" ")
    swap = sign in "+*" and data.draw(st.booleans())
    shown = f"{b if swap else a} {data.draw(st.sampled_from(SIGNS[sign]))} {a if swap else b} = {value}"
    found = match(data.draw(st.sampled_from(FRAMES)).format(shown), choices)
    assert found == choices.index(choices[index])


@given(st.data())
def test_a_wrong_calculation_is_no_action(data):
    numbers = data.draw(st.lists(st.integers(1, 13).map(Fraction), min_size=2, max_size=4))
    choices = [f"{a} {sign} {b} = {value}" for a, sign, b, value in moves(numbers)]
    a, b, c = (data.draw(st.integers(1, 30)) for _ in range(3))
    sign = data.draw(st.sampled_from("+-*/"))
    right = {f"{a} {sign} {b} = {c}", f"{b} {sign} {a} = {c}" if sign in "+*" else ""}
    assume(not right & set(choices))
    assert match(data.draw(st.sampled_from(FRAMES)).format(f"{a} {sign} {b} = {c}"), choices) is None


def test_an_action_itself_comes_before_one_that_holds_it():
    assert match("1. go", ["go", "click[go]"]) == 0 == match("Action: 6 * 4 = 24", ["6 * 4 = 24", "4 * 6 = 24"])


words = st.sampled_from(["go", "north", "door", "open", "red", "buy now", "to"])
actions = st.lists(words, min_size=1, max_size=3).map(" ".join)


@given(st.lists(actions | actions.map("click[{}]".format), min_size=1, max_size=6, unique=True), st.data())
def test_another_action_is_never_named(choices, data):
    meant = data.draw(st.sampled_from(choices))
    left = [choice for choice in choices if choice != meant]
    frame = data.draw(st.sampled_from(["{}", "1. {}", "- `{}`", '"{}"']))
    assert match(frame.format(meant), choices) == choices.index(meant)
    wrong = match(frame.format(meant), left)  # the one meant is not admissible
    inner = meant.removeprefix("click[").removesuffix("]")
    assert wrong is None or inner in left[wrong] or left[wrong] in meant
