"""JSON over HTTP to one OpenAI-compatible server: its key, retries, errors, and the fields that it takes."""

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import openai

from armap_lite.llms.fields import SCHEMAS, STRUCTURED
from armap_lite.llms.replies import Reply, hidden_status, read, refused

WAY_OUT = {
    401: "put a key that is valid there into the environment variable {api_key_env}",
    403: "put a key that is valid there into the environment variable {api_key_env}",
    404: "check the model's name, and that the URL ends in /v1",
    429: "lower concurrency={concurrency}, or raise retries={retries}",
    500: "look at the server's log, or raise retries={retries}",
}
# Fields that no server has to know. What follows where one is refused is decided by ServerLM.
PROBED = {*STRUCTURED, *SCHEMAS, "prompt_logprobs"}
_ESSENTIAL = {"model", "prompt", "messages"} | PROBED
LONGEST_WAIT = 60  # seconds, as openai's client has it
MOVED = "x-moved-to"
REFUSED = {400, 404, 405, 415, 422}  # the server does not have this endpoint, field or value
BROKEN = {500, 501}  # it has, and fails at it
_NEGOTIABLE = {400, 409, 415, 422, 500, 501}
_LOST = {
    "seed": "answers are not repeatable",
    "temperature": "answers are drawn at the server's own temperature",
    "stop": "answers are longer than needed, and cut here",
    "max_tokens": "answers may be longer than needed",
    "top_p": "the server's own holds",
}


class ServerError(RuntimeError):
    """The server cannot be reached or did not answer as asked: one line that names URL, status and way out."""

    def __init__(self, message: str, status: int | None = None, answer: str = ""):
        super().__init__(message)
        self.status = status
        self.answer = answer  # what the server said, in one line


class UnreadableAnswersError(ServerError):
    """Too many actions were drawn at random, because the model's answers named none."""


class Client:
    """Requests to the server at `url`, with the settings of `ServerLM`.

    They are repeated with exponential backoff and jitter, or after what Retry-After says. A field that the server
    refuses by name is renamed or left out from then on.
    """

    def __init__(self, url: str, api_key_env: str, concurrency: int, timeout: float, retries: int):
        parts = urlsplit(url)
        self.base_url = url.partition("?")[0].rstrip("/")
        self.where = self.base_url  # for messages; without the query
        self.api_key_env, self.concurrency, self.timeout, self.retries = api_key_env, concurrency, timeout, retries
        self._lock = threading.Lock()
        self._fields: dict[tuple[str, str, Any], str | None] = {}  # (kind, field, value or None) -> its name there
        self._notes: set[str] = set()
        here = re.fullmatch(r"(?:.*\.)?localhost|127\..*|::1?|0\.0\.0\.0", parts.hostname or "")
        try:
            http = openai.DefaultHttpxClient(
                event_hooks={"request": [self._sign], "response": [self._settle]},
                trust_env=not here,  # no proxy knows this machine's ports
            )
        except (ValueError, ImportError) as error:
            raise ServerError(_proxy_trouble(url, error)) from None
        self._client = openai.OpenAI(
            base_url=self.base_url,
            api_key="none",  # `_sign` puts the real one on each request
            timeout=timeout,
            max_retries=retries,
            default_query=dict(parse_qsl(parts.query)),
            http_client=http,
        )

    def only_model(self) -> str:
        """The name of the server's model. Raises ServerError, and ValueError where it has none or several."""
        listed = self._call(self._client.get, "/models")
        try:
            names = [model["id"] for model in listed["data"]]
        except (TypeError, LookupError):
            raise self.no_answer(listed) from None
        if len(names) == 1:
            return names[0]
        raise ValueError(f"{self.base_url} serves {', '.join(names) or 'no model'}; name one: {self.base_url}#MODEL")

    def post(self, path: str, body: Mapping[str, Any], memory: str | None = "") -> Any:
        """The JSON that answers `body`, whose fields that are None are not sent. Raises ServerError.

        Each field that an error answer names is left out in turn, and that is kept only where the request succeeds at
        last. `memory`: the kind of request it is kept for, as odd fields or values may be what the server objects to;
        None: it is not kept.
        """
        tried: dict[tuple[str, str, Any], str | None] = {}
        notes, kind = [], f"{path} {memory or ''}"
        while True:  # ends: each round takes one of the names that were sent away
            sent = _fitted(kind, body, self._fields | tried)
            try:
                answer = self._call(self._client.post, path, body=sent)
                break
            except ServerError as error:
                found = refused(error.answer, sent.keys() - _ESSENTIAL) if error.status in _NEGOTIABLE else None
                if found is None:
                    raise
            name, new = found
            if new is not None and _key(kind, new, sent[name]) in self._fields | tried:
                new = None  # both names are refused
            tried[_key(kind, name, sent[name])] = new
            shown = f"{name}={sent[name]}" if name == "temperature" else name
            # a server's default may be another temperature than 1
            lost = _LOST.get("max_tokens" if name.startswith("max_") else name, "it is left out")
            notes.append(f"takes `{shown}` under the name `{new}`" if new else f"does not take `{shown}`: {lost}")
        if memory is not None:
            with self._lock:
                self._fields = {**self._fields, **tried}
            for note in notes:
                self.say(note)
        return answer

    def say(self, what: str, example: str = "") -> None:
        """Tell on stderr what is special about this server, once, with the first `example` of it."""
        with self._lock:
            if what not in self._notes:
                self._notes.add(what)
                print(f"{self.where} {what}" + f" ({self.clean(example)[:200]})" * bool(example), file=sys.stderr)

    def key(self) -> str:
        return os.environ.get(self.api_key_env, "").strip()

    def _sign(self, request: Any) -> None:
        # the key meets the request only here; where a redirect leads elsewhere it does not go along
        if self.key() and str(request.url).startswith(str(self._client.base_url)):
            request.headers["Authorization"] = f"Bearer {self.key()}"

    def _settle(self, response: Any) -> None:
        """Give an error sent with status 200 its own status, and mark failures that another try would only repeat.

        A redirect that would turn a POST into a GET is not followed.
        """
        if response.request.method == "POST" and response.status_code in (301, 302, 303):
            place = response.request.url.join(response.headers.pop("location", "")).copy_with(query=None)
            response.headers[MOVED] = re.sub(r"/(?:chat/)?completions/?$", "", str(place))
            return
        if response.status_code == 200:
            response.read()
            response.status_code = hidden_status(response.text) or 200
        status = response.status_code
        final = 400 <= status < 500 and status not in (408, 429)  # the client would send a 409 again as well
        if status in (500, 501) and int(response.request.headers.get("x-stainless-retry-count", 0)):
            final = bool(PROBED & json.loads(response.request.content or b"{}").keys())  # another way is taken instead
        if final or (status >= 400 and self._wait(response) > self.timeout):
            response.headers["x-should-retry"] = "false"

    def _wait(self, response: Any) -> float:
        """The seconds that the server asks to wait before the next try; 0 where it does not."""
        return self._client._parse_retry_after_header(response.headers) or 0.0

    def _call(self, send: Callable[..., str], path: str, **body: Any) -> Any:
        """The JSON that `send` gets from `path`; whatever goes wrong becomes one ServerError."""
        try:
            return json.loads(send(path, cast_to=str, **body))
        except (openai.OpenAIError, ValueError) as error:  # ValueError: no JSON
            failure = self._explain(error)
        raise failure  # here, so that no trace leads to the request and its headers

    def _explain(self, error: Exception) -> ServerError:
        if not isinstance(error, openai.APIConnectionError | openai.APIStatusError):
            return self.no_answer(getattr(error, "doc", str(error)))
        where, status, answer = self.where, getattr(error, "status_code", None), ""
        tries = f"tries: {int(error.request.headers.get('x-stainless-retry-count', 0)) + 1}"
        if isinstance(error, openai.APITimeoutError):
            text = f"{where} gave no answer within {self.timeout} s ({tries}); raise timeout, or lower concurrency"
        elif isinstance(error, openai.APIConnectionError):
            text = f"cannot reach {where} ({tries}): {error.__cause__}; start the server, or check host and port"
        else:
            headers, answer = error.response.headers, self.clean(error.response.text)
            way_out = WAY_OUT.get(min(error.status_code, 500), "the request was refused, so it was not sent again")
            if MOVED in headers:
                way_out = f"it has moved to {headers[MOVED]}: put that into the model's URL"
            elif self._wait(error.response) > min(LONGEST_WAIT, self.timeout):
                way_out = "that is too long to wait for here: start again after that time, and what is done is kept"
            tries += f", Retry-After: {headers['retry-after']}" if "retry-after" in headers else ""
            text = f"{where} answered {status} ({tries}): {answer[:300] or 'nothing'}; {way_out.format(**vars(self))}"
        return ServerError(self.clean(text)[:900], status, answer)

    def read(self, data: Any) -> Reply:
        """The answer in `data`. Raises ServerError where there is none."""
        try:
            return read(data)
        except ValueError as error:
            raise self.no_answer(error) from None

    def no_answer(self, said: object) -> ServerError:
        return ServerError(
            f"{self.base_url} sent no OpenAI answer but {self.clean(str(said))[:300]!r}; "
            "is this the URL of an OpenAI-compatible server, ending in /v1?"
        )

    def clean(self, text: str) -> str:
        """One line without the key, which a server or a library may quote."""
        text = re.sub(r"Bearer [^'\"]+", "Bearer ***", text)
        text = text.replace(self.key(), "***") if self.key() else text
        return " ".join(text.split())


def _fitted(kind: str, body: Mapping[str, Any], known: Mapping[Any, str | None]) -> dict[str, Any]:
    """`body` with the names that the server takes."""
    fitted: dict[str, Any] = {}
    for field, value in body.items():
        name: str | None = field
        while name is not None and (key := _key(kind, name, value)) in known:
            name = known[key]
        if value is not None and name is not None and (name == field or name not in body):
            fitted[name] = value
    return fitted


def _key(kind: str, name: str, value: Any) -> tuple[str, str, Any]:
    """What one refusal is about: a field, but of temperature one value, as some servers refuse only some of them."""
    return kind, name, value if name == "temperature" else None


def _proxy_trouble(url: str, error: Exception) -> str:
    kinds = ("all_proxy", "https_proxy", "http_proxy")
    found = {name: value for name, value in os.environ.items() if value and name.lower() in kinds}
    odd = {name: value for name, value in found.items() if not value.startswith(("http://", "https://"))}
    shown = ", ".join(f"{name}={value}" for name, value in (odd or found).items())
    shown = re.sub(r"//[^/@\s]*@", "//***@", shown) or "this machine"  # without a password
    why = " ".join(str(error).split())
    return f"cannot reach {url.partition('?')[0]} by the proxy of {shown}: {why}; unset it, or name an http:// proxy"
