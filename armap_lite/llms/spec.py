"""The one string that names a model and its options: `http://localhost:8000/v1#my-model concurrency=4 timeout=300`."""

import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

SERVER_OPTIONS = ["api_key_env", "concurrency", "timeout", "retries", "endpoint", "structured", "scoring"]
SERVER_OPTIONS += ["parse_retries", "samples", "extra"]
LOCAL_OPTIONS = ["device", "dtype", "name", "capacity", "pack"]
REWARD_OPTIONS = ["device", "dtype", "capacity", "pack"]
# Options that change how a model is run, not what its results mean.
RUNNING = {"concurrency", "timeout", "retries", "api_key_env", "device", "capacity", "pack"}
_OPTION = re.compile(r"\s+([A-Za-z_]\w*)=")
_SECRET = re.compile(
    r"(?:api|subscription|access|auth)?[-_]?(?:key|token|secret)|authorization|sig|"
    r"(?:.*[-_.])?(?:key|secret|password|code)",
    re.I,
)


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """Split `SOURCE name=value …` into the source and its options.

    The options are the trailing `name=value` parts, so a path may hold blanks; a path that exists is not split. A value
    is read as JSON (`timeout=300`, `extra={"top_k": -1}`), and as text where it is none (`dtype=float32`).
    Raises ValueError for a value that begins like a JSON object, list or string and is none.
    """
    spec = spec.strip()
    if os.path.exists(os.path.expanduser(spec)):
        return spec, {}
    found = []
    for start in _OPTION.finditer(spec):
        if (options := _options(spec, start.start())) is not None:
            found.append((spec[: start.start()], options))
    there = [one for one in found if os.path.exists(os.path.expanduser(one[0]))]
    return there[-1] if there else found[0] if found else (spec, {})


def _options(spec: str, at: int) -> dict[str, Any] | None:
    """The options that make up `spec` from `at` to its end; None where something else stands between them."""
    options: dict[str, Any] = {}
    while at < len(spec):
        if not (name := _OPTION.match(spec, at)):
            return None
        word = re.compile(r"\S*").match(spec, name.end())
        value, at = word[0], word.end()  # type: ignore[index, union-attr]
        try:
            read, end = json.JSONDecoder().raw_decode(spec, name.end())
            if end == len(spec) or spec[end].isspace():
                value, at = read, end
        except ValueError:
            if value[:1] in ("{", "[", '"'):
                raise ValueError(f"option {name[1]} is {spec[name.end() :]!r}, which is no valid JSON") from None
        options[name[1]] = value
    return options


def is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def check(spec: str, reward: bool = False, **more: Any) -> tuple[str, dict[str, Any]]:
    """`parse_spec(spec)`, with `more` for what it leaves open; `reward`: it names the backbone of a reward model.

    Raises TypeError for an unknown option, and ValueError for a key in it, a URL of a reward model or no model.
    A key would be written into the files of a run, so neither URL nor options may hold one.
    """
    source, options = parse_spec(spec)
    if not source:
        raise ValueError("no model is named; give an asset's name, a Hugging Face id, a folder, a GGUF file or a URL")
    options = more | options
    if reward and is_url(source):
        raise ValueError(f"a reward model runs on this machine, not at {source}; give a folder or a Hugging Face id")
    if is_url(source):
        refuse_keys(source, options.get("extra"), options.get("api_key_env", "OPENAI_API_KEY"))
    kind, known = ("a model behind a URL", SERVER_OPTIONS) if is_url(source) else ("a local model", LOCAL_OPTIONS)
    kind, known = ("a reward model", REWARD_OPTIONS) if reward else (kind, known)
    if unknown := sorted(set(options) - set(known)):
        raise TypeError(f"unknown option {unknown[0]!r} of {kind}; it has {', '.join(known)}")
    return source, options


def refuse_keys(url: str, extra: Any, api_key_env: str) -> None:
    """Raise ValueError where the URL or one of the names in `extra` looks like holding a user or a key."""
    if not isinstance(extra, Mapping | None):
        raise ValueError(f'extra is {extra!r}; it must be an object such as {{"top_k": -1}}')
    parts = urlsplit(url)
    named = [name for name, _ in parse_qsl(parts.query)] + list(extra or ())
    if "@" in parts.netloc or any(_SECRET.fullmatch(str(name)) for name in named):
        raise ValueError(
            f"the URL or its options hold a user or a key; put the key into the environment variable {api_key_env}"
        )


def identity(spec: str) -> str:
    """`spec` without what does not change what results mean: a server's host and port, and the options in RUNNING.

    A run may go on where the identity is the same. It is its own identity, so that a saved one can be compared.
    """
    source, options = parse_spec(spec)
    if is_url(source):
        url = urlsplit(source)
        query = f"?{url.query}" if url.query else ""
        source = f"{url.path.rstrip('/') or '/'}{query}#{url.fragment}"
    return " ".join([source, *meaning(options)])


def label(spec: str) -> str:
    """The name of the model of `spec` in tables and results, with the options that change what they mean."""
    source, options = parse_spec(spec)
    if is_url(source):
        source = urlsplit(source).fragment or "the only model of a server"
    return " ".join([source, *meaning(options)])


def meaning(options: Mapping[str, Any]) -> list[str]:
    """Those of `options` that change what results mean, as a spec has them, in the order of their names."""
    kept = sorted((name, value) for name, value in options.items() if name not in RUNNING)
    words = ((name, v, isinstance(v, str) and parse_spec(f"x {name}={v}") == ("x", {name: v})) for name, v in kept)
    return [f"{name}={v if plain else json.dumps(v, sort_keys=True)}" for name, v, plain in words]
