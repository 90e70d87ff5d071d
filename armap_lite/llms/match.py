"""Reads which of the admissible actions an answer in free text names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

_SIGNS = str.maketrans(dict.fromkeys("×·∗⋅∙✕✖", "*") | dict.fromkeys("÷∕⁄", "/") | dict.fromkeys("−–—‐‑‒﹣－", "-"))
_NUMBER = r"-?\d+(?:\.\d+|/\d+)?"
_EQUATION = re.compile(rf"({_NUMBER})( ?)([-+*/])( ?)({_NUMBER})(?:\)? ?= ?(?:\*\*|[$`])?({_NUMBER}))?")
# An equation within a sentence; part of a longer calculation, or of a number such as 1,000, is none.
_WITHIN = re.compile(
    r"(?<![\w./^√|+-])(?<!\d\*)(?<!\)\*)(?<!\d,)(?<![-+*/(=] )(?:(?=\d)|(?<!\d )(?<!\d=)(?<!\) ))"
    rf"{_EQUATION.pattern}(?![\w/^√]|[.,]\d| ?[+*/] ?[\w(]| ?- ?[\d(]|\)? ?= ?\W{{0,3}}\d|\) ?[-+*/] ?\d)"
)
_MARKER = re.compile(r"^(?:[-*•>] |\(?\d{1,2}[.)] )")  # of a list
_QUOTES = " \"'`*_“”‘’"
_NOT = re.compile(
    r"\b(?:no|not|never|avoid|without|instead|rather|cannot|but|however|neither|nor|except|skip|wrong|bad|incorrect|"
    r"invalid|impossible|\w+n['’]t)\b"
)


def match(text: str, choices: Sequence[str]) -> int | None:
    """The index of the one choice that `text` names, or None where it names none, or may mean several.

    Tried in turn: the choice as it is; but for case, blanks and signs (× ÷ −); without a list marker or quotes; with
    swapped operands of + and *; `Buy Now` for `click[buy now]`; as the only choice within a sentence.
    """
    answer = _plain(text)
    bare = _MARKER.sub("", answer).strip(_QUOTES)
    bare = _MARKER.sub("", bare).strip(_QUOTES)  # quotes around a marker, or the other way round
    whole = (bare, re.sub(r"^- (?=\d)", "-", answer))  # a list marker may be a minus
    meant = {_ordered(found) for found in _WITHIN.finditer(answer) if _is_meant(found)}
    meant |= {_ordered(_EQUATION.fullmatch(text)) for text in whole}
    denied = bool(_NOT.search(answer))
    tests: tuple[Callable[[str], bool], ...] = (
        lambda c: c.strip() == text.strip(),
        lambda c: _tight(c) == _tight(answer),
        lambda c: _tight(c) == _tight(bare),
        lambda c: not denied and _same_equation(c, meant),
        lambda c: _inner(c) is not None and _tight(bare) in (_inner(c), re.sub(r"[\[\]]", "", _tight(c))),
        lambda c: not denied and _within(c, answer),
    )
    for test in tests:
        found = {c for c in choices if test(c)}
        if found:
            return list(choices).index(found.pop()) if len(found) == 1 else None
    return None


def _plain(text: str) -> str:
    """One line in lower case, each sign in its ASCII form."""
    text = " ".join(text.replace("\\*", "*").translate(_SIGNS).split()).casefold()
    return re.sub(r"(?<=\d) ?x ?(?=\d)", " * ", text)


def _tight(text: str) -> str:
    return "".join(_plain(text).split())


def _is_meant(equation: re.Match[str]) -> bool:
    """Whether it is a calculation: without a result, `1-4` may be a range, `1/2` a number and `3 -4` two of them."""
    return bool(equation[6]) or bool(equation[2] and equation[4])


def _ordered(equation: re.Match[str] | None) -> tuple[object, ...]:
    """Operator, operands (sorted where their order is free) and result (None where it is left open)."""
    if equation is None:
        return ()
    a, _, sign, _, b, result = equation.groups()
    try:
        first, second, value = Fraction(a), Fraction(b), None if result is None else Fraction(result)
    except ZeroDivisionError:
        return ()
    return (sign, *(sorted((first, second)) if sign in "+*" else (first, second)), value)


def _same_equation(choice: str, meant: set[tuple[object, ...]]) -> bool:
    mine = _ordered(_EQUATION.fullmatch(_plain(choice)))
    return bool(mine) and (mine in meant or (*mine[:-1], None) in meant)


def _inner(choice: str) -> str | None:
    """What stands in the brackets of an action such as `click[buy now]`."""
    found = re.fullmatch(r"\w+\[(.+)\]", _tight(choice))
    return found[1] if found else None


def _within(choice: str, answer: str) -> bool:
    inside = _plain(choice)
    if not inside or _EQUATION.fullmatch(inside):  # part of a longer calculation would be another action
        return False
    return re.search(rf"(?<![\w./-]){re.escape(inside)}(?!\w|[./]\d|-\w)", answer) is not None
