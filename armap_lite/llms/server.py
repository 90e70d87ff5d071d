"""A language model behind an OpenAI-compatible URL: vLLM, llama.cpp, `transformers serve`, or a hosted one."""

import json
import math
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from armap_lite.llms import fields
from armap_lite.llms.answers import ENOUGH, check_random
from armap_lite.llms.base import Choice, Completion, LanguageModel
from armap_lite.llms.choices import check_request, draw
from armap_lite.llms.client import BROKEN, REFUSED, Client, ServerError
from armap_lite.llms.match import match
from armap_lite.llms.replies import Reply
from armap_lite.llms.spec import refuse_keys
from armap_lite.rng import derive_seed

T = TypeVar("T")
AT_ONCE = 32  # texts whose log-probabilities one request asks for
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
            ("structured", structured, ("auto", "none", *fields.STRUCTURED)),
            ("scoring", scoring, ("auto", "none", *fields.SCORING)),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; use one of {', '.join(known)}")
        counts = {"concurrency": (concurrency, 1), "retries": (retries, 0), "parse_retries": (parse_retries, 0)}
        for name, (number, least) in {**counts, "samples": (samples, 1)}.items():
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
        self._unread: deque[str] = deque(maxlen=3)
        self._thinks = self._aloud = False  # whether the model was seen to think before it answers, and in its content
        self._failed = 0  # structured requests in a row at which the server failed
        self._lock = threading.Lock()
        self.name = self.model = model or self._client.only_model()
        self._client.where += f"#{self.model}"

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
        """Raises ServerError. `schema` is handed on where the server heeds it, except with structured="none"."""
        check_request(prompts, temperature, seeds)
        self._find_endpoint()
        shape = None
        if schema is not None:
            way = self._find("schemas", fields.SCHEMAS, self._keeps_schema, "none is sent")
            shape = fields.SCHEMAS[way](schema) if way != "none" else None

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
        """With decoding="sequence" and `scoring`, the distribution is exactly `LocalLM`'s.

        Else the server restricts the answer token by token (`structured`). Where it cannot, the choices are listed in
        the prompt and the answer is read (`match`), asked again on a miss, and drawn uniformly after the last: see
        `parsed`, `misses` and `fallbacks`. Raises UnreadableAnswersError where too many are, and ServerError.

        A drawn choice has the log-probability nan, but for n=None, where it is estimated as
        (hits + 1/len(choices)) / (samples + 1). `tokens`: of all requests for this prompt, on each of its choices.
        """
        check_request(prompts, temperature, seeds, choices)
        self._find_endpoint()
        if decoding == "sequence" and self.endpoint == "completions":
            try:
                way = self._find("scoring", fields.SCORING, self._gives_logprobs, "choices are drawn, not weighed")
                if way != "none":
                    return self._choose_scored(prompts, choices, n, temperature, seeds)
            except fields.NoFirstTokenError as error:
                self._client.say(f"{error}: after an empty prompt choices are drawn, not weighed")

        def keeps(way: str) -> bool:
            return self._pick("A word:", fields.WORDS, way, 1.0, None, probe=True).text in fields.WORDS

        self._find("structured", fields.STRUCTURED, keeps, "choices are read from free text")
        draws = n if n is not None else self.samples if temperature > 0 else 1

        def ask(i: int, k: int) -> tuple[int, int]:
            return self._draw(prompts[i], choices[i], temperature, None if seeds is None else derive_seed(seeds[i], k))

        out = []
        for options, drawn in zip(choices, self._map(ask, len(prompts), draws)):
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
        texts = [[f"{p}{option}\n" for option in dict.fromkeys(options)] for p, options in zip(prompts, choices)]
        jobs = [(i, some[at : at + AT_ONCE]) for i, some in enumerate(texts) for at in range(0, len(some), AT_ONCE)]

        def score(j: int, _: int) -> tuple[list[fields.Scored], int]:
            data = self._logprobs(jobs[j][1])
            try:
                return fields.given(data, len(jobs[j][1])), self._client.read(data).tokens
            except ValueError as error:
                raise self._client.no_answer(error) from None

        paths: list[list[fields.Scored]] = [[] for _ in prompts]
        tokens = [0] * len(prompts)
        for (i, _), [(found, used)] in zip(jobs, self._map(score, len(jobs), 1)):
            paths[i] += found
            tokens[i] += used
        out = []
        for i, options in enumerate(choices):
            weight = dict(zip(dict.fromkeys(options), fields.weights(paths[i])))
            if max(weight.values()) == -math.inf:
                raise self._client.no_answer(f"the log-probability -inf of each of {len(weight)} choices")
            logits = [weight[option] for option in options]
            out.append(draw(options, logits, temperature, n, None if seeds is None else seeds[i], tokens[i]))
        return out

    def _logprobs(self, texts: list[str]) -> Any:
        """The server's answer with the log-probabilities of `texts`; it also generates a token, which is not read."""
        body = {"temperature": 1.0, **self.extra, "prompt_logprobs": 0, "max_tokens": 1}
        return self._post(texts, body, "prompt_logprobs")

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
                with self._lock:
                    self._failed += error.status in BROKEN
                    if often := self._failed >= 3:  # no more are sent
                        self.structured = "none"
                which = f"{'requests' if often else 'some lists of choices'} with `{way}`"
                self._client.say(f"answers {error.status} to {which}: choices are read from free text there")
            else:
                self._failed = 0 if way != "none" else self._failed
                tokens += answer.tokens
                choice = None if answer.text is None else match(answer.text, options)
            with self._lock:
                self.misses += choice is None
                self.parsed += choice is not None and way == "none"
            if choice is not None:
                break
        with self._lock:
            self.asked += 1
            if choice is None:
                self.fallbacks += 1
                unread = answer.text if answer.text is not None else answer.withheld or "(a thought without an answer)"
                self._unread.append(repr(" ".join(unread.split())[:80]))
            drawn, asked = self.fallbacks, self.asked
        if asked >= ENOUGH:  # fewer are judged at the end of a stage
            seen = f", but with {', '.join(self._unread)}"
            check_random(drawn, asked, self._client.where, f"{seen}; take another model, or another")
        if choice is None:
            choice = random.Random(None if seed is None else derive_seed(seed, "fallback")).randrange(len(options))
        return choice, tokens

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
        extra = fields.STRUCTURED[way](list(dict.fromkeys(options))) if way != "none" else {}
        size = max(len(o.encode()) for o in options) + 32  # no option has more tokens than bytes
        answer = self._ask(prompt, stop, seed, extra, None if probe else "", max_tokens=size, temperature=temperature)
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
        body = {"top_p": 1.0, **body, **self.extra, **(extra or {})}
        tokens = tries = 0
        while tries < THINKING_TRIES:
            # A thought has many lines: the server must not stop at the first of them.
            cut = None if chat and self._thinks else stop
            again = seed if seed is None or not tries else derive_seed(seed, tries)
            short = None if again is None else again >> 32  # 31 bits: what every server takes
            reply = self._client.read(self._post(prompt, {"stop": cut, "seed": short, **body}, memory))
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

        def one(place: int) -> Any:
            try:
                return None if failures else work(*divmod(place, n))
            except Exception as error:
                failures.append(error)

        with ThreadPoolExecutor(self.concurrency) as pool:
            found = list(pool.map(one, range(items * n)))
        if failures:
            raise failures[0]
        return [found[i * n : (i + 1) * n] for i in range(items)]

    def _plain(self) -> Any:
        """The answer to a request that any server understands."""
        body = {"max_tokens": 1, **self.extra}
        return self._post("1 2 3", {**body, "max_tokens": body["max_tokens"] and 1})

    def _post(self, prompt: str | list[str], body: dict[str, Any], memory: str | None = "") -> Any:
        """The answer to a request; as long as the endpoint is not known, it is "completions"."""
        body = {"model": self.model, **body}
        if self.endpoint == "chat":
            body["messages"] = [{"role": "user", "content": prompt}]
            return self._client.post("/chat/completions", body, memory)
        return self._client.post("/completions", {**body, "prompt": prompt}, memory)

    def _find_endpoint(self) -> None:
        with self._lock:
            if self.endpoint != "auto":
                return
            try:
                self._client.read(self._plain())
                self.endpoint = "completions"
            except ServerError as error:
                # a 403 of the API itself, not of a firewall before it
                if error.status not in REFUSED | {410, 501} and not (error.status == 403 and '"error"' in error.answer):
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

    def _gives_logprobs(self, way: str) -> bool:
        try:
            return all(len(path) > 1 for path in fields.given(self._logprobs(["A word: zq7\n", "A word: xv9\n"]), 2))
        except ValueError:
            return False

    def _keeps_schema(self, way: str) -> bool:
        extra = fields.SCHEMAS[way](fields.PROBE)
        answer = self._ask("A word:", None, None, extra, None, max_tokens=96, temperature=0.0).text
        try:
            return json.loads(answer or "") == fields.PROBE_ANSWER
        except ValueError:
            return False
