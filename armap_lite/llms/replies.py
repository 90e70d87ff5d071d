"""Reads what OpenAI-compatible servers answer: completions, thoughts, log-probabilities, hidden errors, refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

_TAG = r"\s*(?:\w+:)?(?:think|thinking|thought|reasoning)\s*"
_CLOSED = re.compile(
    rf".*(?:</{_TAG}>|\[/THINK\]|◁/think▷|<\|channel\|>final(?:<\|constrain\|>\w+)?<\|message\|>)", re.S | re.I
)
# Only at the beginning: elsewhere a tag may be what the text is about.
_OPEN = re.compile(rf"\s*(?:<{_TAG}>|\[THINK\]|◁think▷|(?:<\|start\|>assistant)?<\|channel\|>(?!final))", re.I)


@dataclass(frozen=True)
class Reply:
    """One answer of a model."""

    text: str | None  # without the thought; None where there is only a thought
    tokens: int  # of prompt and answer, thought included; 0 where the server does not count
    thought: bool = False  # the model thinks before it answers
    apart: bool = False  # its thought is no part of the content, but a field or a part of its own, or hidden
    cut: bool = False  # ended by max_tokens
    withheld: str = ""  # why the server gives no answer: its filter, a refusal, or calls of tools; the text is None


def read(data: Any) -> Reply:
    """The first choice of a completion or chat completion. Raises ValueError where `data` is neither."""
    try:
        choice = data["choices"][0]
        usage = data.get("usage") or {}
        tokens = sum(usage.get(part) or 0 for part in ("prompt_tokens", "completion_tokens"))
        cut = choice.get("finish_reason") == "length"
        if withheld := _withheld(choice):
            return Reply(None, tokens, withheld=withheld)
        if "message" not in choice:
            return _without_thought(str(choice["text"] or ""), tokens, cut)
        message = choice["message"]
        text, thought = _content(message.get("content"))
        thought = thought or bool(message.get("reasoning_content") or message.get("reasoning"))
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(str(data)) from error
    if not text.strip() and (thought or cut):  # hosted models may hide the thought itself
        return Reply(None, tokens, thought=True, apart=True, cut=cut)
    reply = _without_thought(text, tokens, cut)
    return replace(reply, thought=thought or reply.thought, apart=thought and not reply.thought)


def _withheld(choice: dict[str, Any]) -> str:
    """Why there is no answer in `choice`; empty where there is one. What a filter has cut off is no answer."""
    message = choice.get("message") or {}
    if "filter" in str(choice.get("finish_reason")):
        return f"finish_reason={choice['finish_reason']}"
    refusal = message.get("refusal")
    for part in message["content"] if isinstance(message.get("content"), list) else ():
        refusal = refusal or (isinstance(part, dict) and part.get("type") == "refusal" and part.get("refusal"))
    if refusal:
        return f"a refusal: {refusal}"
    tools = message.get("tool_calls") or message.get("function_call")
    return "calls of tools, which were not offered" if tools and not message.get("content") else ""


def _content(content: Any) -> tuple[str, bool]:
    """The text of a message's content, and whether a thought is part of it. Raises ValueError for other kinds."""
    if content is None or isinstance(content, str):
        return content or "", False
    text, thought = "", False
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "output_text") and isinstance(part.get("text"), str):
            text += part["text"]
        elif kind in ("thinking", "reasoning", "redacted_thinking"):
            thought = True
        else:
            raise ValueError(f"content of a kind that is not text: {part!r}")
    return text, thought


def _without_thought(text: str, tokens: int, cut: bool) -> Reply:
    closed = _CLOSED.match(text)
    rest = text[closed.end() :].lstrip() if closed else text
    opened = _OPEN.search(rest) if closed else _OPEN.match(rest)
    return Reply(None if opened else rest, tokens, thought=bool(closed or opened), cut=cut)


def hidden_status(text: str) -> int | None:
    """The status that an error sent with status 200 stands for; None where `text` is no such error."""
    if '"error"' not in text:  # long answers need not be parsed twice
        return None
    try:
        data = json.loads(text)
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = first.get("error") or (None if choices or data.get("data") else data.get("error"))
    if data.get("object") == "error":
        error = error or data
    if not error:
        return None
    fields = error if isinstance(error, dict) else {}
    for code in (fields.get("code"), fields.get("status"), data.get("code"), data.get("status")):
        if re.fullmatch(r"[45][0-9][0-9](?:\.0+)?", str(code)):
            return int(float(str(code)))
    said = str(error).lower()
    if re.search(r"unexpected endpoint|unknown endpoint|no such (?:route|endpoint)|not found", said):
        return 404
    if re.search(r"rate.?limit|too many requests", said):
        return 429
    # without a code, only an error that names its cause is the request's; any other may pass
    return 400 if _names_cause(error, said) else 503


def _names_cause(error: Any, said: str) -> bool:
    named = isinstance(error, dict) and (error.get("param") or error.get("loc"))
    return bool(named or _REFUSES.search(said) or _SIZE.search(said) or re.search(r"invalid|context|field|route", said))


_UN = r"un(?:supported|known|expected|recogni[sz]ed)"
_NOT_TAKEN = rf"(?:{_UN}|(?:not|never) (?:\w+ )?(?:supported|permitted|allowed|valid|recogni[sz]ed|accepted))"
_DOES_NOT = r"(?:does|do)(?: not|n't) (?:support|accept|allow|permit)"
_REFUSES = re.compile(rf"{_NOT_TAKEN}|{_DOES_NOT}|extra|forbidden|invalid|deprecated|only the default|instead", re.I)
_NOUN = r"(?:parameter|argument|field|name|key|property|properties|option|input)s?"
_QUOTE = r"['\"`]?"
_NAMES = rf"{_QUOTE}(?:body\.)?\w+{_QUOTE}(?:(?:, | ?/ ?| and | or |, and ){_QUOTE}\w+{_QUOTE})*"
# Names right beside the words that refuse; group 1 holds them.
_BESIDE = [
    re.compile(pattern, re.I)
    for pattern in (
        (
            rf"\b(?:{_UN}|invalid|extra|additional|forbidden|deprecated)(?: (?!{_NOUN}\b)\w+)? {_NOUN}"
            rf"(?: (?:supplied|received|provided|found|passed|given))? ?[:=]? ?({_NAMES})"
        ),
        rf"\b{_UN}: ({_NAMES})",
        (
            rf"({_NAMES})(?: {_NOUN})?(?::| (?:is|are|was|were))? (?:currently )?(?:{_NOT_TAKEN}|deprecated|forbidden)"
            r"(?=\W*$|[.,;:!(]| (?:by|in|for|with|on|at|here|when|and|yet|anymore|any)\b)"
        ),
        rf"({_NAMES}):? (?:{_DOES_NOT}|extra (?:inputs|fields)(?: are)? not)\b",
        rf"\b{_DOES_NOT} (?:the |a |any |custom )?(?:{_NOUN} )?({_NAMES})(?= {_NOUN}\b|[.,;!]|$)",
    )
]
_KEY = re.compile(r"[{,] ?['\"]\w+['\"] ?:")  # of the request, which some servers repeat
# Quoted, but no mere circumstance
_QUOTED = re.compile(
    r"(?<!when )(?<!if )(?<!while )(?<!with )(?<!after )(?<!before )(?<!unless )(?<!without )"
    r"['\"`](\w+)['\"`]"
)
_KNOWN = re.compile(r"\b(?:expected (?:one|any) of|(?:supported|allowed|valid|known) (?:\w+ )?are)\b.*", re.I | re.S)
_SIZE = re.compile(
    r"too (?:large|big|long|small|high|low)|at (?:most|least)|exceed|(?:greater|less) than|context length|below|above|"
    r"minimum|maximum|[<>]=|must be (?:positive|between|in\b)|out of range",
    re.I,
)
_ONE_OF = re.compile(r"\b(?:both|only one|one of|either|together|mutually|same time|simultaneous\w*|combin\w+)\b", re.I)
_RENAMED = re.compile(r"(?:\buse|did you mean|renamed to|replaced by)\W+(?:the \W*)?([a-z]+_[a-z_]+)", re.I)


def refused(answer: str, sent: Collection[str]) -> dict[str, str | None]:
    """The fields among `sent` that an error answer refuses, each with its new name where the answer tells one.

    They are read from `param` and `loc`, else from quoted names in the message, or from names right beside the words
    that refuse. Empty where it refuses none: another fault of the request, or a field whose value is too large.
    """
    found, texts, elsewhere = [], [], False
    for key, value in _strings(answer):
        if key in ("param", "loc"):
            words = [word for word in re.findall(r"\w+", value) if word not in ("body", "query")]
            inside = {"messages", "prompt"} & set(words)  # a part of these may be called like a field
            names = [] if inside else [word for word in words if word in sent][:1]
            found += names
            elsewhere |= bool(words) and not names
        else:
            texts.append(value)
    said = " ".join(" ".join(texts).split())
    if not found and not elsewhere:
        found = _named(_KNOWN.sub("", said), sent)
    free = _KEY.sub(" ", _KNOWN.sub("", said))
    if {"temperature", "top_p"} <= set(sent) and "temperature" in free and "top_p" in free:
        one_of = _ONE_OF.search(free) or ("temperature" in found) != ("top_p" in found)
        found = ["top_p"] if one_of else found  # the default is the same, and a temperature is asked for
    new = _RENAMED.search(said)
    rename = new[1] if new and new[1] not in sent else None
    fields = dict.fromkeys(found, rename if len(set(found)) == 1 else None)
    about_value = _SIZE.search(_KNOWN.sub("", said)) and not rename
    sizes = {name for name in fields if name.startswith("max_")} if about_value else ()
    return {name: new for name, new in fields.items() if name not in sizes}


def _named(said: str, sent: Collection[str]) -> list[str]:
    beside = [word for pattern in _BESIDE for names in pattern.findall(said) for word in re.findall(r"\w+", names)]
    found = [word for word in beside if word in sent]
    if not found and _REFUSES.search(said):
        found = [name for name in _QUOTED.findall(_KEY.sub(" ", said)) if name in sent]
    return found


def _strings(data: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All strings in `data`, each with the name of the field it stands in; a string of JSON is read as well."""
    if isinstance(data, str):
        try:
            inner = json.loads(data) if data.lstrip()[:1] in ("{", "[") else None
        except ValueError:
            inner = None
        if inner is None:
            yield key, data
        else:
            yield from _strings(inner, key)
    elif isinstance(data, list) and key == "loc":
        yield key, " ".join(map(str, data))
    elif isinstance(data, list):
        for item in data:
            yield from _strings(item, key)
    elif isinstance(data, dict):
        for name, value in data.items():
            if name not in ("input", "ctx", "url", "type", "code", "object"):  # `input` repeats the request
                yield from _strings(value, name)
