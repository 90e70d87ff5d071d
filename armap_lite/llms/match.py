"""Reads which of the admissible actions an answer in free text names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

_SIGNS = str.maketrans(dict.fromkeys("×·∗⋅∙✕✖", "*") | dict.fromkeys("÷∕⁄", "/") | dict.fromkeys("−–—‐‑‒﹣－", "-"))
_NUMBER = r"-?\d+(?:\.\d+|/\d+)?"
_EQUATION = re.compile(rf"({_NUMBER})( ?)([-+*/])( ?)({_NUMBER})(?: ?= ?({_NUMBER}))?")
_CALCULATION = re.compile(r"\d\W{0,3}[-+*/^]\W{0,3}\d|[=≠]")
_BRACKETS = re.compile(r"\w\[")
_MARKER = re.compile(r"^(?:[-*•>] |\(?\d{1,2}[.)] )")  # of a list
_PAIRS = [("**", "**"), ("__", "__"), ("`", "`"), ('"', '"'), ("'", "'"), ("*", "*"), ("_", "_"), ("$", "$")]
_PAIRS += [("“", "”"), ("‘", "’"), ("„", "“"), ("«", "»")]
_NOUN = r"(?:action|answer|move|choice|step)"
_FRAME = re.compile(
    rf"^(?:(?:so |my |the |final |best |next |chosen )*{_NOUN}(?: is)? ?(?:: |(?<=is ))|"
    r"i(?:['’]ll| will)? (?:choose|take|pick|select):? )"
)
_INTENT = re.compile(rf"\b(?:{_NOUN}|choose|take|pick|select|think)\b")
_BOLD = re.compile(r"(?<![\w*])\*\*(?=\S)([^*]+)(?<=\S)\*\*(?![\w*])")
_QUOTED = re.compile(r"`([^`]+)`|\"([^\"]+)\"|“([^”]+)”|«([^»]+)»|(?<!\w)'([^']+)'(?!\w)|" + _BOLD.pattern)
# An answer with one of these words may mean another action, or none: it is asked again.
_NOT = re.compile(
    r"\b(?:no|not|nothing|never|none|avoid|without|instead|rather|cannot|but|however|neither|nor|except|skip|wrong|bad|"
    r"refuse\w*|reject\w*|exclu\w+|useless|pointless|fail\w*|unused|anything|then|or|if|unless|until|after|before|first|"
    r"in\w*correct|invalid|inadmissible|impossible|\w+n['’]t|(?:do|does|is|are|was|wo|ca|ai|should|would|could)nt)\b"
)


def match(text: str, choices: Sequence[str]) -> int | None:
    """The index of the one choice that `text` names, or None where it names none, or may mean several.

    An action is read where it is the whole answer, or one of its lines, or stands in quotes, in bold type or at the end
    of a sentence that says it is chosen. It may differ in case, blanks, signs (× ÷ −), the order of operands of + and
    *, and by a list marker; `Buy Now` is `click[buy now]`. Any doubt gives None, as a wrong action is worse.
    """
    exact = [c for c in choices if c.strip() == text.strip()]
    if exact:
        return list(choices).index(exact[0])
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("```")]
    if len(lines) > 1:
        found = _last_line(lines, choices)
    else:
        found = (_whole(lines[0], choices) or _inside(_plain(lines[0]), choices)) if lines else set()
    return list(choices).index(found.pop()) if len(found) == 1 else None


def _last_line(lines: Sequence[str], choices: Sequence[str]) -> set[str]:
    """What the only line that is an action names, or the same action in several; nothing in doubt."""
    named = [_whole(line, choices) for line in lines]
    for line, found in zip(lines, named):
        plain = _plain(line)
        if not found and (_NOT.search(plain) or _CALCULATION.search(plain) or _BRACKETS.search(plain)):
            return set()
    return set().union(*named)


def _whole(text: str, choices: Sequence[str]) -> set[str]:
    """The choices that `text` is, but for what may stand around an action."""
    answer = _plain(text)
    open_result = True  # a calculation may lack its result
    while answer:
        if found := {c for c in choices if _same(c, answer, open_result)}:
            found = {c for c in found if _tight(c) == _tight(answer)} or found  # `go` is "go" rather than "click[go]"
            joined = re.sub(r"^- (?=\d)", "-", answer)  # a minus is also a list marker
            return found | {c for c in choices if joined != answer and _same(c, joined, True)}
        if marker := _MARKER.match(answer):
            minus = re.sub(r"^- (?=\d)", "-", answer)
            open_result = open_result and minus == answer
            bare = answer[marker.end() :]
            if minus != answer and (signed := {c for c in choices if _same(c, minus, True)}):
                return signed | {c for c in choices if _same(c, bare, True)}
        elif frame := _FRAME.match(answer):
            bare = answer[frame.end() :]
        else:
            bare = _BOLD.sub(r"\1", _unquoted(answer))
            bare = bare if bare != answer else answer.removesuffix(".")
        if bare == answer:
            break
        answer = bare.strip()
    return set()


def _unquoted(text: str) -> str:
    for left, right in _PAIRS:
        inner = text[len(left) : -len(right)]
        if inner and text.startswith(left) and text.endswith(right) and not {left, right} & set(inner.split(" ")):
            return inner
    return text


def _inside(answer: str, choices: Sequence[str]) -> set[str]:
    """The choice in the only quotes of a sentence, or after its only colon; nothing in doubt."""
    if _NOT.search(answer) or not _INTENT.search(answer):
        return set()
    spans = {(next(filter(None, found.groups())), found.span()) for found in _QUOTED.finditer(answer)}
    if not spans and answer.count(": ") == 1:
        at = answer.index(": ") + 2
        spans = {(answer[at:], (at, len(answer)))} if _INTENT.search(answer[:at]) else set()
    if len(spans) != 1:
        return set()
    [(inner, (start, end))] = spans
    around = f"{answer[:start]} ; {answer[end:]}"
    if _CALCULATION.search(around) or re.search(r"[+*/^=√]|- ?;|; ?-|\d ?;", around) or _BRACKETS.search(around):
        return set()
    return set() if _CALCULATION.search(inner) and "=" not in inner else _whole(inner, choices)


def _plain(text: str) -> str:
    """One line in lower case, each sign in its ASCII form."""
    text = " ".join(text.replace("\\*", "*").translate(_SIGNS).split()).casefold()
    return re.sub(r"(?<=\d) ?x ?(?=\d)", " * ", text)


def _tight(text: str) -> str:
    """Without blanks, but for those between words or numbers."""
    return re.sub(r"(?<!\w) | (?!\w)", "", _plain(text))


def _same(choice: str, answer: str, open_result: bool) -> bool:
    mine, its = _EQUATION.fullmatch(_plain(choice)), _EQUATION.fullmatch(answer)
    if mine and its:
        bare = its[6] is None
        if bare and (not open_result or (its[3] == "/" and not (its[2] and its[4]))):  # 1/2 is a number
            return False
        wanted, said = _ordered(mine), _ordered(its)
        return bool(wanted) and (said[:-1] == wanted[:-1] if bare else said == wanted)
    inner = re.fullmatch(r"\w+\[(.+)\]", _tight(choice))
    forms = {_tight(choice)} | ({inner[1], _tight(re.sub(r"[\[\]]", " ", choice))} if inner else set())
    return bool(_tight(answer)) and bool({_tight(answer), _tight(answer.replace(" [", "["))} & forms)


def _ordered(equation: re.Match[str]) -> tuple[object, ...]:
    """Operator, operands (sorted where their order is free) and result (None where it is left open)."""
    a, _, sign, _, b, result = equation.groups()
    try:
        first, second, value = Fraction(a), Fraction(b), None if result is None else Fraction(result)
    except ZeroDivisionError:
        return ()
    return (sign, *(sorted((first, second)) if sign in "+*" else (first, second)), value)
