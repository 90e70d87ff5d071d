"""A language model behind an OpenAI-compatible URL: vLLM, llama.cpp, `transformers serve`, or a hosted one."""

from __future__ import annotations

import json
import math
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from armap_lite.llms.answers import ENOUGH, check_random
from armap_lite.llms.base import Choice, Completion, LanguageModel
from armap_lite.llms.choices import check_request, pick
from armap_lite.llms.client import BROKEN, REFUSED, Client, ServerError, UnreadableAnswersError
from armap_lite.llms.match import match
from armap_lite.llms.replies import Reply
from armap_lite.llms.scoring import SCORING, NoFirstTokenError, Scored, TextScorer
from armap_lite.llms.spec import refuse_keys
from armap_lite.llms.structured import PROBE, PROBE_ANSWER, SCHEMAS, STRUCTURED, WORDS
from armap_lite.rng import derive_seed

__all__ = ["STRUCTURED", "ServerError", "ServerLM", "UnreadableAnswersError", "match"]

T = TypeVar("T")
NO_ENDPOINT = REFUSED | {410, 501}
THINKING_TRIES = 3  # answers to one question that hold nothing but a thought


class ServerLM(LanguageModel):
    """`generate` and `choose` by HTTP requests, `concurrency` at a time, with results in the order of the prompts.

    Every sample is a request of its own: sample k of a prompt depends on its seed and k alone (with `n` in one request,
    llama.cpp reports the first sample's usage, and `transformers serve` ignores `n`). Tokens are what the server
    reports, 0 where it does not. Seeds are handed on, but servers differ in how repeatable their answers are.
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
        scoring: str = "auto",
        parse_retries: int = 3,
        samples: int = 8,
        extra: Mapping[str, Any] | None = None,
    ):
        """`base_url` mostly ends in /v1, and may have a query; `model`: its name there, by default the only one.

        `api_key_env`: the environment variable that holds the key. It is read for each request and kept nowhere.
        `timeout`: seconds for one try. `retries`: further tries after 429, 5xx, a timeout or a lost connection.
        `endpoint`: "completions" continues the prompt, as `LocalLM` does; "chat" sends it as one user message;
        "auto": completions where the server has them for this model, else chat.
        `structured`: how an answer is restricted to the choices: a key of STRUCTURED, "none" (parse), or "auto".
        `scoring`: how whole choices are compared: one of SCORING, "none", or "auto". It is exact, but the server reads
        the prompt once for each choice.
        `parse_retries`: further questions after an answer that is not admissible.
        `samples`: draws from which `choose(n=None)` estimates the probabilities, without `scoring`.
        `extra`: fields added to the body of every request, such as {"top_k": -1}; None leaves a field out.
        """
        for name, value, known in (
            ("endpoint", endpoint, ("auto", "completions", "chat")),
            ("structured", structured, ("auto", "none", *STRUCTURED)),
            ("scoring", scoring, ("auto", "none", *SCORING)),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; use one of {', '.join(known)}")
        numbers = {"concurrency": concurrency, "retries": retries, "parse_retries": parse_retries, "samples": samples}
        for name, number in numbers.items():
            least = int(name in ("concurrency", "samples"))
            if not isinstance(number, int) or number < least:
                raise ValueError(f"{name} is {number!r}; it must be a whole number, {least} or more")
        if not isinstance(timeout, int | float) or not timeout > 0:
            raise ValueError(f"timeout is {timeout!r}; it must be a number of seconds above 0")
        refuse_keys(base_url, extra, api_key_env)
        self._client = Client(base_url, api_key_env, concurrency, timeout, retries)
        self.endpoint, self.structured, self.scoring = endpoint, structured, scoring
        self.schemas = "none" if structured == "none" else "auto"  # a key of SCHEMAS, once it is known
        self.extra = dict(extra or {})
        self.concurrency, self.parse_retries, self.samples = concurrency, parse_retries, samples
        self.parsed = 0  # answers read out of free text
        self.misses = 0  # answers that were withheld or not admissible, and structured requests that were refused
        self.fallbacks = 0  # choices drawn uniformly, after the last miss
        self.unfinished = 0  # generated texts that are empty, as the thought before them was cut off
        self.asked = 0  # choices among actions, however they were made, but for weighed ones
        self._asked = self._at_random = 0  # choices of this object's whole life, and those drawn uniformly
        self._unread: deque[str] = deque(maxlen=3)
        self._thinks = self._aloud = False  # whether the model was seen to think before it answers, and in its content
        self._failed = 0  # structured requests in a row at which the server failed
        self._lock = threading.Lock()
        self.name = self.model = model or self._only_model()
        self._client.where += f"#{self.model}"
        self._scorer = TextScorer(self._client, self.model, self.extra)

    def __repr__(self) -> str:
        return f"ServerLM({self._client.where}, endpoint={self.endpoint!r}, structured={self.structured!r})"

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
        check_request(prompts, temperature, seeds)
        self._find_endpoint()
        shape = {}
        if schema is not None and (way := self._find("schemas", SCHEMAS, self._keeps_schema, "none is sent")) != "none":
            shape = SCHEMAS[way](schema)

        def ask(i: int, k: int) -> Completion:
            seed = None if seeds is None else derive_seed(seeds[i], k)
            reply = self._ask(prompts[i], stop, seed, shape, max_tokens=max_tokens, temperature=temperature)
            with self._lock:
                self.misses += bool(reply.withheld)
                self.unfinished += reply.text is None and not reply.withheld
            return Completion(reply.text or "", reply.tokens)

        return self._map(ask, len(prompts), n)

    def choose(
        self,
        prompts: Sequence[str],
        choices: Sequence[Sequence[str]],
        n: int | None = 1,
        *,
        temperature: float = 1.0,
        seeds: Sequence[int] | None = None,
        decoding: str = "sequence",
    ) -> list[list[Choice]]:
        """`n` draws among `choices[i]` after `prompts[i]`; with n=None every choice once, in order. Raises ServerError.

        With decoding="sequence" and `scoring`, the distribution is exactly `LocalLM`'s. Else the server restricts the
        answer token by token (`structured`). Where it cannot, the choices are listed in the prompt and the answer is
        read (`match`), asked again on a miss, and drawn uniformly after the last: see `parsed`, `misses` and
        `fallbacks`. Raises UnreadableAnswersError where too many are.

        A drawn choice has the log-probability nan, but for n=None, where it is estimated as
        (hits + 1/len(choices)) / (samples + 1). `tokens`: of all requests for this prompt, on each of its choices.
        """
        check_request(prompts, temperature, seeds, choices)
        self._find_endpoint()
        if decoding == "sequence" and self.endpoint == "completions":
            try:
                if self._find("scoring", SCORING, self._scorer.works, "choices are drawn, not weighed") != "none":
                    return self._choose_scored(prompts, choices, n, temperature, seeds)
            except NoFirstTokenError as error:
                self._client.say(f"{error}: after an empty prompt choices are drawn, not weighed")
        self._find("structured", STRUCTURED, self._keeps_choices, "choices are read from free text")
        draws = n if n is not None else self.samples if temperature > 0 else 1

        def draw(i: int, k: int) -> tuple[int, int]:
            return self._draw(prompts[i], choices[i], temperature, None if seeds is None else derive_seed(seeds[i], k))

        out = []
        for options, drawn in zip(choices, self._map(draw, len(prompts), draws)):
            tokens = sum(used for _, used in drawn)
            if n is not None:
                out.append([Choice(options[k], k, math.nan, tokens) for k, _ in drawn])
                continue
            hits, equal, prior = Counter(options[k] for k, _ in drawn), Counter(options), float(temperature > 0)
            shares = [(hits[o] / equal[o] + prior / len(options)) / (draws + prior) for o in options]
            logp = [math.log(share) if share else -math.inf for share in shares]
            out.append([Choice(option, k, logp[k], tokens) for k, option in enumerate(options)])
        return out

    def _choose_scored(
        self, prompts: Sequence[str], choices: Sequence[Sequence[str]], n: int | None, temperature: float, seeds: Any
    ) -> list[list[Choice]]:
        """`choose` by the log-probability of each whole choice and the newline after it."""
        jobs = [(i, t) for i in range(len(prompts)) for t in self._scorer.requests(prompts[i], choices[i])]
        paths: list[list[Scored]] = [[] for _ in prompts]
        tokens = [0] * len(prompts)
        for (i, _), [(found, used)] in zip(jobs, self._map(lambda j, _: self._scorer.score(jobs[j][1]), len(jobs), 1)):
            paths[i] += found
            tokens[i] += used
        out = []
        for i, options in enumerate(choices):
            logp = self._scorer.distribution(paths[i], options, temperature)
            out.append(pick(options, logp, n, None if seeds is None else seeds[i], tokens[i]))
        return out

    def _draw(self, prompt: str, options: Sequence[str], temperature: float, seed: int | None) -> tuple[int, int]:
        """The index of one choice, and the tokens its requests took."""
        guided, tokens = self.structured != "none", 0
        if any("\n" in option for option in options):  # an answer ends with its line
            options = [json.dumps(option, ensure_ascii=False)[1:-1] for option in options]
        for attempt in range(guided + 1 + self.parse_retries):
            way = self.structured if attempt < guided else "none"
            heat = temperature if attempt <= guided else temperature or 1.0  # at 0 the same miss would come again
            try:
                answer = self._pick(prompt, options, way, heat, None if seed is None else derive_seed(seed, attempt))
            except ServerError as error:
                if way == "none" or error.status not in REFUSED | BROKEN:
                    raise
                choice = None  # this list of choices is too long for the server, or too odd
                self._give_up(way, error.status)
            else:
                self._failed = 0 if way != "none" else self._failed
                tokens += answer.tokens
                choice = None if answer.text is None else match(answer.text, options)
            with self._lock:
                self.misses += choice is None
                self.parsed += choice is not None and way == "none"
            if choice is not None:
                self._count_action(None)
                return choice, tokens
        thought = answer.withheld or "(a thought without an answer)"
        self._count_action(thought if answer.text is None else answer.text)
        return random.Random(None if seed is None else derive_seed(seed, "fallback")).randrange(len(options)), tokens

    def _give_up(self, way: str, status: int | None) -> None:
        """Note a structured request that was refused; where the server keeps failing at them, send no more."""
        with self._lock:
            self._failed += status in BROKEN
            if often := self._failed >= 3:
                self.structured = "none"
        which = "requests" if often else "some lists of choices"
        self._client.say(f"answers {status} to {which} with `{way}`: choices are read from free text there")

    def _count_action(self, unread: str | None) -> None:
        """Count a choice; `unread`: the last answer, where the choice is drawn at random as none could be read."""
        with self._lock:
            self.asked += 1
            self._asked += 1
            if unread is not None:
                self.fallbacks += 1
                self._at_random += 1
                self._unread.append(repr(" ".join(unread.split())[:80]))
            drawn, asked = self._at_random, self._asked
        if asked >= ENOUGH:  # fewer are judged at the end of a stage
            seen = f", but with {', '.join(self._unread)}"
            check_random(drawn, asked, self._client.where, f"{seen}; take another model, or another")

    def _pick(
        self, prompt: str, options: Sequence[str], way: str, temperature: float, seed: int | None, probe: bool = False
    ) -> Reply:
        """One answer, restricted to `options` by `way`; they are listed in the prompt where that helps."""
        lines = "\n".join(options)
        if self.endpoint == "chat" and not probe:
            prompt = f"{prompt}\n\nAnswer with exactly one of these lines and nothing else:\n{lines}"
        elif way == "none":  # the prompt's end is what is continued, so the list goes before it
            prompt = f"The next line is one of these:\n{lines}\n\n{prompt}"
        stop = None if way == "json_schema" or (way == "none" and self.endpoint == "chat") else "\n"
        fields = STRUCTURED[way](list(dict.fromkeys(options))) if way != "none" else {}
        size = max(len(o.encode()) for o in options) + 32  # no option has more tokens than bytes
        answer = self._ask(prompt, stop, seed, fields, None if probe else "", max_tokens=size, temperature=temperature)
        if way != "json_schema" or answer.text is None:
            return answer
        try:
            choice = json.loads(answer.text)["choice"]
        except (ValueError, TypeError, KeyError):
            choice = None
        return Reply(choice if isinstance(choice, str) else "", answer.tokens)

    def _ask(
        self, prompt: str, stop: str | None, seed: int | None, extra: Any = None, memory: str | None = "", **body: Any
    ) -> Reply:
        """One answer, cut before `stop`; its text is None where it holds only a thought that did not end.

        Raises ServerError where a thought that the server keeps apart left no room for an answer, several times.
        """
        chat = self.endpoint == "chat"
        path, body = self._to(prompt, {"model": self.model, "top_p": 1.0, **body, **self.extra, **(extra or {})})
        tokens = tries = 0
        while tries < THINKING_TRIES:
            # A thought has many lines: the server must not stop at the first of them.
            cut = None if chat and self._thinks else stop
            again = seed if seed is None or not tries else derive_seed(seed, tries)
            short = None if again is None else again >> 32  # 31 bits: what every server takes
            reply = self._client.read(self._client.post(path, {"stop": cut, "seed": short, **body}, memory))
            tokens += reply.tokens
            text = reply.text
            if reply.withheld:
                kind, _, words = reply.withheld.partition(": ")
                self._client.say(f"withholds answers, which count as misses: {kind}", words)
                return Reply(None, tokens, withheld=reply.withheld)
            if chat and reply.thought:
                self._thinks, self._aloud = True, self._aloud or not reply.apart
                if text is None and cut:
                    continue
            if self._aloud and reply.cut and not reply.thought:
                text = None  # begun by the server's template, the thought has no opening mark
            if text is not None or not reply.apart:
                return Reply(text.split(stop)[0] if stop and text else text, tokens, reply.thought)
            tries += 1
        raise ServerError(
            f"{self._client.where} answered {tries} times with a thought only, at max_tokens={body.get('max_tokens')}; "
            'turn thinking off, as in extra={"chat_template_kwargs":{"enable_thinking":false}} or '
            'extra={"reasoning_effort":"low"}, or give it room, as in extra={"max_tokens":4000}'
        )

    def _map(self, work: Callable[[int, int], T], items: int, n: int) -> list[list[T]]:
        """`work(i, k)` for each item i and sample k < n; the first failure is raised, and nothing is begun after it."""
        failures: list[Exception] = []

        def one(i: int, k: int) -> Any:
            try:
                return None if failures else work(i, k)
            except Exception as error:
                failures.append(error)

        with ThreadPoolExecutor(self.concurrency) as pool:
            found = list(pool.map(one, [i for i in range(items) for _ in range(n)], list(range(n)) * items))
        if failures:
            raise failures[0]
        return [found[i * n : (i + 1) * n] for i in range(items)]

    def _plain(self) -> Any:
        """The answer to a request that any server understands."""
        body = {"model": self.model, "max_tokens": 1, **self.extra}
        body |= {"max_tokens": 1} if body["max_tokens"] else {}
        return self._client.post(*self._to("1 2 3", body))

    def _to(self, prompt: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Path and body of a request; as long as the endpoint is not known, it is "completions"."""
        if self.endpoint == "chat":
            return "/chat/completions", {**body, "messages": [{"role": "user", "content": prompt}]}
        return "/completions", {**body, "prompt": prompt}

    def _find_endpoint(self) -> None:
        with self._lock:
            if self.endpoint != "auto":
                return
            try:
                self._client.read(self._plain())
                self.endpoint = "completions"
            except ServerError as error:
                # a 403 of the API itself, not of a firewall before it
                if error.status not in NO_ENDPOINT and not (error.status == 403 and '"error"' in error.answer):
                    raise
                self.endpoint = "chat"
                self._client.say(f"answers {error.status} to completions: endpoint=chat is used")

    def _find(self, setting: str, ways: Iterable[str], works: Callable[[str], bool], otherwise: str) -> str:
        """The value of `setting`; where it is "auto", the first of `ways` that works here, else "none".

        Where the server fails at a way but not at a plain request, one line says so, and what is done instead.
        Raises ServerError where it fails at that as well.
        """
        with self._lock:
            if getattr(self, setting) != "auto":
                return getattr(self, setting)
            broken, found = [], "none"
            for way in ways:
                try:
                    if works(way):
                        found = way
                        break
                except ServerError as error:
                    if error.status not in REFUSED | BROKEN:
                        raise
                    broken += [f"`{way}`"] * (error.status in BROKEN)
            if broken:
                self._plain()
                instead = otherwise if found == "none" else f"`{found}` is used"
                self._client.say(f"fails at requests with {', '.join(broken)}: {instead}")
            if setting == "structured" and found == "none":
                self._client.say(f"takes no structured choices: structured=none, {otherwise}")
            setattr(self, setting, found)
            return found

    def _keeps_choices(self, way: str) -> bool:
        return self._pick("A word:", WORDS, way, 1.0, None, probe=True).text in WORDS

    def _keeps_schema(self, way: str) -> bool:
        fields = SCHEMAS[way](PROBE)
        answer = self._ask("A word:", None, None, fields, None, max_tokens=96, temperature=0.0).text
        try:
            return json.loads(answer or "") == PROBE_ANSWER
        except ValueError:
            return False

    def _only_model(self) -> str:
        listed = self._client.get("/models")
        try:
            names = [model["id"] for model in listed["data"]]
        except (TypeError, LookupError):
            raise self._client.no_answer(listed) from None
        if len(names) == 1:
            return names[0]
        url = self._client.base_url
        raise ValueError(f"{url} serves {', '.join(names) or 'no model'}; name one: {url}#MODEL")
