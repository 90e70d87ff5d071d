"""Reads which of the admissible actions an answer in free text names."""

import re
from collections.abc import Sequence
from fractions import Fraction

_SIGNS = str.maketrans(dict.fromkeys("×·∗⋅∙✕✖", "*") | dict.fromkeys("÷∕⁄", "/") | dict.fromkeys("−–—‐‑‒﹣－", "-"))
_NUMBER = r"-?\d+(?:\.\d+|/\d+)?"
_EQUATION = re.compile(rf"({_NUMBER})( ?)([-+*/])( ?)({_NUMBER})(?: ?= ?({_NUMBER}))?")
_AROUND = " .`\"'“”‘’„«»*_$"  # marks around an action: quotes, bold type, a full stop
_BEFORE = re.compile(  # a list marker or a label
    r"^(?:[-*•>] |\(?\d{1,2}[.)] |(?:(?:my|the|next|best|final|chosen) )*(?:action|answer|move|choice|step)(?: is)?: )"
)
_BOLD = re.compile(r"(?<![\w*])\*\*(?=\S)([^*]+)(?<=\S)\*\*(?![\w*])")
# A line with one of these may mean another action, or deny one.
_DOUBT = re.compile(
    r"\d\W{0,3}[-+*/^]\W{0,3}\d|[=≠]|\w\[|"
    r"\b(?:no|not|never|none|cannot|avoid|without|instead|rather|but|or|neither|nor|wrong|bad|unused)\b|n['’]t\b"
)


def match(text: str, choices: Sequence[str]) -> int | None:
    """The index of the one choice that `text` names, or None where it names none, or may mean several.

    An action is read where it is the whole answer, or a line of it while no other line leaves a doubt. It may differ in
    case, blanks, signs (× ÷ −), the order of operands of + and *, and by a list marker, a label, quotes or bold type;
    `Buy Now` is `click[buy now]`. No sentence is interpreted, as a wrong action is worse than another question.
    """
    found = {c for c in choices if c.strip() == text.strip()}
    if not found:
        lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("```")]
        named = [_named(line, choices) for line in lines]
        if any(not some and _DOUBT.search(_plain(line)) for line, some in zip(lines, named)):
            return None
        found = set().union(*named)
    return next(i for i, c in enumerate(choices) if c in found) if len({c.strip() for c in found}) == 1 else None


def _named(line: str, choices: Sequence[str]) -> set[str]:
    """The choices that `line` is, but for what may stand around an action."""
    answer, forms = _BOLD.sub(r"\1", _plain(line)), set[str]()
    while answer and answer not in forms:
        forms.add(answer)
        answer = _BEFORE.sub("", answer).strip(_AROUND)
    forms |= {re.sub(r"^- (?=\d)", "-", form) for form in forms}  # a list marker may also be a minus
    found = {c for c in choices if any(_same(c, form) for form in forms)}
    return {c for c in found if _tight(c) in map(_tight, forms)} or found  # `go` is "go" rather than "click[go]"


def _plain(text: str) -> str:
    """One line in lower case, each sign in its ASCII form."""
    text = " ".join(text.replace("\\*", "*").translate(_SIGNS).split()).casefold()
    return re.sub(r"(?<=\d) ?x ?(?=\d)", " * ", text)


def _tight(text: str) -> str:
    """Without blanks, but for those between words or numbers."""
    return re.sub(r"(?<!\w) | (?!\w)", "", _plain(text))


def _same(choice: str, answer: str) -> bool:
    """Whether `answer` writes the action `choice`; a calculation may lack its result."""
    mine, its = _EQUATION.fullmatch(_plain(choice)), _EQUATION.fullmatch(answer)
    if mine and its:
        number = its[6] is None and its[3] == "/" and not (its[2] and its[4])  # 1/2 is no division
        wanted, said = _parts(mine), _parts(its)
        return not number and bool(wanted) and wanted[:-1] == said[:-1] and said[-1] in (None, wanted[-1])
    inner = re.fullmatch(r"\w+\[(.+)\]", _tight(choice))
    forms = {_tight(choice)} | ({inner[1], _tight(re.sub(r"[\[\]]", " ", choice))} if inner else set())
    return bool(_tight(answer)) and bool({_tight(answer), _tight(answer.replace(" [", "["))} & forms)


def _parts(equation: re.Match[str]) -> tuple[object, ...]:
    """Operator, operands (sorted where their order is free) and result (None where it is left open)."""
    a, _, sign, _, b, result = equation.groups()
    try:
        first, second, value = Fraction(a), Fraction(b), None if result is None else Fraction(result)
    except ZeroDivisionError:
        return ()
    return (sign, *(sorted((first, second)) if sign in "+*" else (first, second)), value)
