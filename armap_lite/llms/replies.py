"""Reads what OpenAI-compatible servers answer: completions, thoughts, log-probabilities, hidden errors, refusals."""

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
    try:
        data = json.loads(text) if '"error"' in text else {}  # long answers need not be parsed twice
        error = (data.get("choices") or [{}])[0].get("error")
        error = error or (None if data.get("choices") or data.get("data") else data.get("error"))
        error = error or (data if data.get("object") == "error" else None)
    except (ValueError, LookupError, TypeError, AttributeError):  # no JSON, or no answer of the API
        return None
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
    named = isinstance(error, dict) and (error.get("param") or error.get("loc"))
    return 400 if named or _CAUSE.search(said) else 503  # an error without a cause may pass


# Words of an error that is the request's own.
_CAUSE = re.compile(
    r"unsupported|unknown|unexpected|unrecogni[sz]ed|not (?:\w+ )?(?:supported|permitted|allowed|accepted|valid)"
    r"|invalid|extra|forbidden|context|field|route|too (?:large|big|long|small|high|low)|exceed|m(?:ax|in)imum|must be"
)
_KNOWN = re.compile(r"\b(?:expected (?:one|any) of|(?:supported|allowed|valid|known) (?:\w+ )?are)\b[^.;]*", re.I)
_SIZE = re.compile(  # of a value
    r"too (?:large|big|long|small|high|low)|at (?:most|least)|exceed|(?:greater|less) than|context length|below|above|"
    r"minimum|maximum|[<>]=|must be (?:positive|between|in\b)|out of range",
    re.I,
)
_RENAMED = re.compile(r"(?:\buse|did you mean|renamed to|replaced by)\W+(?:the \W*)?([a-z]+_[a-z_]+)", re.I)


def refused(answer: str, sent: Collection[str]) -> tuple[str, str | None] | None:
    """The field among `sent` that an error answer may refuse, and its new name where the answer tells one.

    It is the first that `param` or `loc` names, else the first in the message. No wording is relied on, as there are
    too many: only a request that succeeds without the field shows that it was at fault (see `Client.post`). None where
    the answer names no field, or calls a value too large or too small.
    """
    strings = list(_strings(answer))
    said = _KNOWN.sub("", " ".join(text for key, text in strings if key not in ("param", "loc")))
    places = [word for key, text in strings if key in ("param", "loc") for word in re.findall(r"\w+", text)]
    places = [word for word in places if word not in ("body", "query")]
    inside = {"messages", "prompt"} & {*places}  # a part of these may be called like a field
    named = [word for word in places or re.findall(r"\w+", said) if word in sent and not inside]
    if not named:
        return None
    name = named[0]
    if name == "temperature" and "top_p" in sent and re.search(r"\btop_p\b", said):
        name = "top_p"  # where only one of both is taken: its default is the same, and a temperature is asked for
    new = _RENAMED.search(said)
    if new and new[1] not in sent and len({*named}) == 1:
        return name, new[1]
    return None if name.startswith(("max_", "temperature", "top_p")) and _SIZE.search(said) else (name, None)


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
