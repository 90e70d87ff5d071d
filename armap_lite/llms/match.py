"""Reads which of the admissible actions an answer in free text names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_SIGNS = str.maketrans(dict.fromkeys("×·∗⋅✕", "*") | dict.fromkeys("÷∕", "/") | dict.fromkeys("−–—", "-"))
_NUMBER = r"-?\d+(?:\.\d+|/\d+)?"
_EQUATION = re.compile(rf"({_NUMBER}) ?([-+*/]) ?({_NUMBER})(?: ?= ?({_NUMBER}))?")
# An equation within a sentence; part of a longer calculation is none.
_WITHIN = re.compile(rf"(?<![\w./-])(?<![-+*/(=] ){_EQUATION.pattern}(?! ?[-+*/]|[\w/]|\.\d)")
_MARKER = re.compile(r"^(?:[-*•>] |\(?\d{1,2}[.)] )")  # of a list
_QUOTES = " \"'`*_“”‘’"
_NOT = re.compile(r"\b(?:not|never|avoid|without|instead of|rather than|cannot|\w+n['’]t)\b")


def match(text: str, choices: Sequence[str]) -> int | None:
    """The index of the one choice that `text` names, or None where it names none, or may mean several.

    Tried in turn: the choice as it is; but for case, blanks and signs (× ÷ −); without a list marker or quotes; with
    swapped operands of + and *; `Buy Now` for `click[buy now]`; as the only choice within a sentence.
    """
    answer = _plain(text)
    bare = _MARKER.sub("", answer).strip(_QUOTES)
    bare = _MARKER.sub("", bare).strip(_QUOTES)  # quotes around a marker, or the other way round
    meant = {_ordered(found) for found in _WITHIN.finditer(answer)} | {_ordered(_EQUATION.fullmatch(bare))}
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


def _ordered(equation: re.Match[str] | None) -> tuple[str, ...]:
    """Operator, operands (sorted where their order is free) and result ("" where it is left open)."""
    if equation is None:
        return ()
    a, sign, b, result = equation.groups("")
    return (sign, *(sorted((a, b)) if sign in "+*" else (a, b)), result)


def _same_equation(choice: str, meant: set[tuple[str, ...]]) -> bool:
    mine = _ordered(_EQUATION.fullmatch(_plain(choice)))
    return bool(mine) and (mine in meant or (*mine[:-1], "") in meant)


def _inner(choice: str) -> str | None:
    """What stands in the brackets of an action such as `click[buy now]`."""
    found = re.fullmatch(r"\w+\[(.+)\]", _tight(choice))
    return found[1] if found else None


def _within(choice: str, answer: str) -> bool:
    inside = _plain(choice)
    if not inside or _EQUATION.fullmatch(inside):  # part of a longer calculation would be another action
        return False
    return re.search(rf"(?<![\w./-]){re.escape(inside)}(?!\w|[./]\d|-\w)", answer) is not None
