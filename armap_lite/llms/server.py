"""A language model behind an OpenAI-compatible URL: vLLM, llama.cpp, `transformers serve`, or a hosted one."""

from __future__ import annotations

import json
import math
import os
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import openai

from armap_lite.llms import shapes
from armap_lite.llms.base import Choice, Completion, LanguageModel
from armap_lite.rng import stream


def _schema(choices: list[str]) -> dict[str, Any]:
    choice = {"choice": {"type": "string", "enum": choices}}
    schema = {"type": "object", "properties": choice, "required": ["choice"], "additionalProperties": False}
    return shapes.FIELDS["response_format"](schema)


# What to add to a request so that the answer is one of `choices`, in the order it is tried
STRUCTURED: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "structured_outputs": lambda choices: {"structured_outputs": {"choice": choices}},  # vLLM
    "guided_choice": lambda choices: {"guided_choice": choices},  # vLLM before 0.12
    "grammar": lambda choices: {  # llama.cpp
        "grammar": "root ::= " + " | ".join(json.dumps(c, ensure_ascii=False) for c in choices)
    },
    "json_schema": _schema,  # OpenAI, and llama.cpp's chat
}
REFUSED = {400, 404, 405, 422}  # the server does not have this endpoint, field or value
WAY_OUT = {
    401: "put a key that is valid there into the environment variable {api_key_env}",
    403: "put a key that is valid there into the environment variable {api_key_env}",
    404: "check the model's name, and that the URL ends in /v1",
    429: "lower concurrency={concurrency}, or raise retries={retries}",
    500: "look at the server's log, or raise retries={retries}",
}


class ServerError(RuntimeError):
    """The server cannot be reached or did not answer as asked: one line that names URL, status and way out."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class ServerLM(LanguageModel):
    """`generate` and `choose` by HTTP requests, `concurrency` at a time, results in the order of the prompts.

    Every sample is a request of its own: then sample k of a prompt depends on its seed and k alone, and its tokens are
    its own (with `n` in one request, llama.cpp reports the first sample's usage and `transformers serve` ignores `n`).
    vLLM and llama.cpp read a repeated prompt from their cache. Tokens are what the server reports, 0 where it does not.

    Seeds are handed on; how far they make answers repeatable is the server's affair: vLLM and llama.cpp nearly, but
    batches change the last bits; `transformers serve` with `concurrency=1`. Servers may add a `top_k`, `min_p` and the
    like of their own; `extra` sets them.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 16,
        timeout: float = 120,
        retries: int = 5,
        endpoint: str = "auto",
        structured: str = "auto",
        parse_retries: int = 3,
        samples: int = 8,
        extra: Mapping[str, Any] | None = None,
    ):
        """`base_url` mostly ends in /v1; `model`: its name there, by default the only one.

        `api_key_env`: the environment variable that holds the key. It is read for each request and kept nowhere.
        `timeout`: seconds for one try. `retries`: further tries after 429, 5xx, a timeout or a lost connection.
        `endpoint`: "completions" continues the prompt as it is, the way `LocalLM` does; "chat" sends it as one user
        message; "auto" (found out once): completions where the server has them for this model, else chat.
        `structured`: how `choose` is done: a key of STRUCTURED, "none" (ask and parse), or "auto" (found out once).
        `parse_retries`: further questions after an answer that is not admissible.
        `samples`: draws from which `choose(n=None)` estimates the probabilities.
        `extra`: fields added to the body of every request, such as {"top_k": -1}.
        """
        if "@" in urlsplit(base_url).netloc:
            raise ValueError(f"the URL holds a user or a key; put the key into the environment variable {api_key_env}")
        for name, value, known in (
            ("endpoint", endpoint, ("auto", "completions", "chat")),
            ("structured", structured, ("auto", "none", *STRUCTURED)),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; use one of {', '.join(known)}")
        self.base_url = base_url.rstrip("/")
        self.api_key_env = api_key_env
        self.concurrency = concurrency
        self.timeout = timeout
        self.retries = retries
        self.endpoint = endpoint
        self.structured = structured
        self.parse_retries = parse_retries
        self.samples = samples
        self.extra = dict(extra or {})
        self.parsed = 0  # answers read out of free text
        self.misses = 0  # answers that were not admissible, and structured requests that were refused
        self.fallbacks = 0  # choices drawn uniformly, after the last miss
        self._shapes = shapes.Shapes()
        self._lock = threading.Lock()
        self._client = openai.OpenAI(
            base_url=self.base_url,
            api_key="none",  # `_sign` puts the real one on each request
            timeout=timeout,
            max_retries=retries,
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [self._sign], "response": [_final]}),
        )
        self.model = model or ""
        self.name = self.model = model or self._only_model()

    def __repr__(self) -> str:
        return f"ServerLM({self.base_url}#{self.model}, endpoint={self.endpoint!r}, structured={self.structured!r})"

    def generate(
        self,
        prompts: Sequence[str],
        n: int = 1,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        stop: str = "\n",
        seeds: Sequence[int] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> list[list[Completion]]:
        """`n` completions of each prompt, each cut before the first `stop`. Raises ServerError.

        `schema` is handed on where the server heeds it (found out once), except with structured="none".
        """
        self._find_endpoint()
        schema = None if self.structured == "none" else schema
        shape = self._shapes(schema, lambda fields: self._ask("A word:", None, None, fields, **shapes.SIZE).text)

        def ask(i: int, k: int) -> Completion:
            seed = None if seeds is None else stream(seeds[i], k)
            return self._ask(prompts[i], stop, seed, shape, max_tokens=max_tokens, temperature=temperature)

        return self._map(ask, len(prompts), n)

    def choose(
        self,
        prompts: Sequence[str],
        choices: Sequence[Sequence[str]],
        n: int | None = 1,
        *,
        temperature: float = 1.0,
        seeds: Sequence[int] | None = None,
        by: str = "string",
    ) -> list[list[Choice]]:
        """`n` draws among `choices[i]` after `prompts[i]`; with n=None every choice once, in order. Raises ServerError.

        The server restricts the answer token by token where it can (`structured`); else the choices are listed in the
        prompt and the answer is read (`match`), asked again on a miss, and drawn uniformly after the last: see
        `parsed`, `misses` and `fallbacks`. Neither is exactly `LocalLM`'s distribution over whole strings.

        A server tells no log-probability of a choice: it is nan, but for n=None, where it is the log of
        (hits + 1/len(choices)) / (samples + 1), or 0 and -inf at temperature 0.
        `tokens`: what all requests for this prompt took, on each of its choices.
        """
        if len(prompts) != len(choices):
            raise ValueError(f"{len(prompts)} prompts but {len(choices)} lists of choices; each prompt needs its own")
        for prompt, options in zip(prompts, choices):
            if not options:
                raise ValueError(f"no choices for the prompt ending in {prompt[-60:]!r}; a finished episode has none")
        self._find_endpoint()
        self._find_structured()
        draws = n if n is not None else self.samples if temperature > 0 else 1

        def draw(i: int, k: int) -> tuple[int, int]:
            return self._draw(prompts[i], choices[i], temperature, None if seeds is None else stream(seeds[i], k))

        out = []
        for options, drawn in zip(choices, self._map(draw, len(prompts), draws)):
            hits, tokens = Counter(index for index, _ in drawn), sum(used for _, used in drawn)
            prior = 1 / len(options) if temperature > 0 else 0.0
            if n is not None:
                picks: Iterable[tuple[int, float]] = ((index, math.nan) for index, _ in drawn)
            else:
                shares = [(hits[c] + prior) / (draws + prior * len(options)) for c in range(len(options))]
                picks = enumerate(math.log(share) if share else -math.inf for share in shares)
            out.append([Choice(options[index], index, logprob, tokens) for index, logprob in picks])
        return out

    def _draw(self, prompt: str, options: Sequence[str], temperature: float, seed: int | None) -> tuple[int, int]:
        """The index of one choice, and the tokens its requests took."""
        guided, tokens = self.structured != "none", 0
        for attempt in range(guided + 1 + self.parse_retries):
            way = self.structured if attempt < guided else "none"
            heat = temperature if attempt <= guided else temperature or 1.0  # at 0 the same miss would come again
            try:
                answer = self._pick(prompt, options, way, heat, None if seed is None else stream(seed, attempt))
            except ServerError as error:
                if way == "none" or error.status not in REFUSED:
                    raise
                choice = None  # this list of choices is too long for the server, or too odd
            else:
                tokens += answer.tokens
                choice = match(answer.text, options)
            with self._lock:
                self.misses += choice is None
                self.parsed += choice is not None and way == "none"
            if choice is not None:
                return choice, tokens
        with self._lock:
            self.fallbacks += 1
        return random.Random(None if seed is None else stream(seed, "fallback")).randrange(len(options)), tokens

    def _pick(
        self, prompt: str, options: Sequence[str], way: str, temperature: float, seed: int | None, show: bool = True
    ) -> Completion:
        """One answer, restricted to `options` by `way`; they are listed in the prompt where that helps."""
        lines = "\n".join(options)
        if show and self.endpoint == "chat":
            prompt = f"{prompt}\n\nAnswer with exactly one of these lines and nothing else:\n{lines}"
        elif show and way == "none":  # the prompt's end is what is continued, so the list goes before it
            prompt = f"The next line is one of these:\n{lines}\n\n{prompt}"
        answer = self._ask(
            prompt,
            None if way == "json_schema" or (way == "none" and self.endpoint == "chat") else "\n",
            seed,
            STRUCTURED[way](list(dict.fromkeys(options))) if way != "none" else {},
            max_tokens=max(len(o.encode()) for o in options) + 32,  # no option has more tokens than bytes
            temperature=temperature,
        )
        if way != "json_schema":
            return answer
        try:
            return Completion(str(json.loads(answer.text)["choice"]), answer.tokens)
        except (ValueError, TypeError, KeyError):
            return Completion("", answer.tokens)

    def _ask(
        self, prompt: str, stop: str | None, seed: int | None, extra: Mapping[str, Any] | None = None, **body: Any
    ) -> Completion:
        """One request, one text, cut before `stop`."""
        body |= {"model": self.model, "top_p": 1.0, "extra_body": {**self.extra, **(extra or {})}}
        if stop is not None:
            body["stop"] = stop
        if seed is not None:
            body["seed"] = seed >> 32  # 31 bits: what every server takes
        chat = self.endpoint == "chat"
        if chat:
            body["messages"] = [{"role": "user", "content": prompt}]
            reply = self._call(lambda: self._client.chat.completions.create(**body))
        else:
            reply = self._call(lambda: self._client.completions.create(prompt=prompt, **body))
        try:
            text = (reply.choices[0].message.content if chat else reply.choices[0].text) or ""
            tokens = sum(getattr(reply.usage, part, 0) or 0 for part in ("prompt_tokens", "completion_tokens"))
        except (AttributeError, TypeError, IndexError):
            raise self._no_completion(str(reply)) from None
        return Completion(text.split(stop)[0] if stop else text, tokens)

    def _map(self, work: Callable[[int, int], Any], items: int, n: int) -> list[list[Any]]:
        """`work(i, k)` for each item i and sample k < n."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            found = list(pool.map(work, [i for i in range(items) for _ in range(n)], list(range(n)) * items))
        return [found[i * n : (i + 1) * n] for i in range(items)]

    def _find_endpoint(self) -> None:
        with self._lock:
            if self.endpoint != "auto":
                return
            try:
                self._ask("1 2 3", None, None, max_tokens=1, temperature=0.0)  # only "chat" is no completion
                self.endpoint = "completions"
            except ServerError as error:
                if error.status not in REFUSED:
                    raise
                self.endpoint = "chat"

    def _find_structured(self) -> None:
        """Most servers ignore a field they do not know, so only an answer no model would give shows that one works."""
        with self._lock:
            if self.structured == "auto":
                self.structured = next((way for way in STRUCTURED if self._heeds(way)), "none")

    def _heeds(self, way: str) -> bool:
        choices = ["zq7", "xv9"]
        try:
            return self._pick("A word:", choices, way, 1.0, None, show=False).text in choices
        except ServerError as error:
            if error.status not in REFUSED:
                raise
            return False

    def _only_model(self) -> str:
        reply = self._call(self._client.models.list)
        listed = getattr(reply, "data", None)
        if not isinstance(listed, list):
            raise self._no_completion(str(reply))
        if len(listed) == 1:
            return listed[0].id
        names = ", ".join(m.id for m in listed) or "no model"
        raise ValueError(f"{self.base_url} serves {names}; name one: {self.base_url}#MODEL")

    def _key(self) -> str:
        return os.environ.get(self.api_key_env, "").strip()

    def _sign(self, request: Any) -> None:
        # the key meets the request only here; where a redirect leads elsewhere it does not go along
        if self._key() and str(request.url).startswith(str(self._client.base_url)):
            request.headers["Authorization"] = f"Bearer {self._key()}"

    def _call(self, send: Callable[[], Any]) -> Any:
        """What `send` returns; whatever goes wrong becomes one ServerError.

        The client itself tries again, with exponential backoff and jitter, or after what Retry-After says.
        """
        try:
            return send()
        except (openai.OpenAIError, ValueError, AttributeError) as error:  # the last two: no JSON, or not OpenAI's
            failure = self._explain(error)
        raise failure  # here, so that no trace leads to the request and its headers

    def _explain(self, error: Exception) -> ServerError:
        if not isinstance(error, openai.APIConnectionError | openai.APIStatusError):
            return self._no_completion(str(error))
        where, status = f"{self.base_url}#{self.model}".rstrip("#"), getattr(error, "status_code", None)
        tries = f"tries: {int(error.request.headers.get('x-stainless-retry-count', 0)) + 1}"
        if isinstance(error, openai.APITimeoutError):
            text = f"{where} gave no answer within {self.timeout} s ({tries}); raise timeout, or lower concurrency"
        elif isinstance(error, openai.APIConnectionError):
            text = f"cannot reach {where} ({tries}): {error.__cause__}; start the server, or check host and port"
        else:
            waits = error.response.headers.get("retry-after")
            tries += f", Retry-After: {waits}" if waits else ""
            way_out = WAY_OUT.get(min(error.status_code, 500), "the request was refused, so it was not sent again")
            said = self._clean(error.response.text, 300) or "nothing"
            text = f"{where} answered {status} ({tries}): {said}; {way_out.format(**vars(self))}"
        return ServerError(self._clean(text, 900), status)

    def _no_completion(self, said: str) -> ServerError:
        return ServerError(
            f"{self.base_url} sent no OpenAI answer but {self._clean(said, 300)!r}; "
            "is this the URL of an OpenAI-compatible server, ending in /v1?"
        )

    def _clean(self, text: str, size: int) -> str:
        """One line of at most `size` characters, without the key, which a server or a library may quote."""
        text = re.sub(r"Bearer [^'\"]+", "Bearer ***", text)
        text = text.replace(self._key(), "***") if self._key() else text
        return " ".join(text.split())[:size]


def match(text: str, choices: Sequence[str]) -> int | None:
    """The index of the choice that `text` gives: as it is, but for case and spaces, or as the only one inside it."""
    answer = " ".join(text.split()).casefold()
    tests: tuple[Callable[[str], Any], ...] = (
        lambda c: c.strip() == text.strip(),
        lambda c: "".join(c.split()).casefold() == answer.replace(" ", ""),
        lambda c: c.strip() and re.search(rf"(?<!\w){re.escape(' '.join(c.split()).casefold())}(?!\w)", answer),
    )
    for test in tests:
        found = {c for c in choices if test(c)}
        if len(found) == 1:
            return list(choices).index(found.pop())
    return None


def _final(response: Any) -> None:
    # the client would send a 409 again as well; a 408 is a timeout
    if 400 <= response.status_code < 500 and response.status_code not in (408, 429):
        response.headers["x-should-retry"] = "false"
