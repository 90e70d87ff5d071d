"""Any environment behind an OpenEnv server (https://github.com/meta-pytorch/OpenEnv), by its URL.

The client is here and not that of the package `openenv`, which needs another Pillow than this one: the protocol is four
kinds of JSON messages over one WebSocket for each episode under way.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar

from armap_lite.envs.base import SimulatorError
from armap_lite.envs.gymnasium import ContractError, GymnasiumEnvironment, GymnasiumJudge
from armap_lite.storage.assets import how_to_install


def address(url: str) -> str:
    """One spelling of a server's URL. Raises ContractError where it has no scheme."""
    if not (found := re.fullmatch(r"(?i)(?:http|ws)(s?)://([^/?]+)([^?]*?)/*(\?.*)?", url)):
        other = f"http://{url.rpartition('://')[2] or 'localhost:8000'}"
        raise ContractError(f"url {url!r} is no server's address; write {other!r}")
    return f"http{found[1].lower()}://{found[2].lower()}{found[3]}{found[4] or ''}"


class Session:
    """A session on the server at `url`, with Gymnasium's `reset` and `step`. Raises SimulatorError without a server.

    An observation is the server's JSON object, `info` its metadata. `seconds`: the longest that an answer may take.
    """

    def __init__(self, url: str, seconds: float = 60.0):
        try:
            from websockets.sync.client import connect
        except ImportError as error:
            raise SimulatorError(f"an OpenEnv server needs an extra: {how_to_install('openenv')}") from error

        self.url, _, query = address(url).partition("?")  # messages have no query: it may hold a token
        socket = re.sub("^http", "ws", self.url) + "/ws" + f"?{query}" * bool(query)
        self.seconds, self._stack, deadline = seconds, contextlib.ExitStack(), time.monotonic() + seconds
        while True:
            try:
                self.socket = self._stack.enter_context(connect(socket, open_timeout=seconds, max_size=None))
                answer = self._ask({"type": "state"})
            except Exception as error:
                raise SimulatorError(f"no OpenEnv server answers at {self.url} ({error}); is it running?") from error
            if "CAPACITY_REACHED" not in repr(answer):
                break
            self.close()
            if time.monotonic() > deadline:
                way = f"it answered {answer}; end other clients, or start it with a larger max_concurrent_envs"
                raise SimulatorError(f"{self.url} is at capacity: {way}")
            time.sleep(0.05)  # the session that was closed last is still ending
        self._data({"type": "state"}, answer)

    def reset(self, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        answer = self._play({"type": "reset", "data": {"seed": seed}})
        return answer["observation"], answer.get("metadata") or {}

    def step(self, action: Mapping[str, Any]) -> tuple[dict[str, Any], float | None, bool, bool, dict[str, Any]]:
        answer = self._play({"type": "step", "data": dict(action)}, "reward", "done")
        return answer["observation"], answer["reward"], answer["done"], False, answer.get("metadata") or {}

    def close(self) -> None:
        self._stack.close()

    def _play(self, message: Mapping[str, Any], *needed: str) -> dict[str, Any]:
        return self._data(message, self._ask(message), "observation", *needed)

    def _data(self, message: Mapping[str, Any], answer: Any, *needed: str) -> dict[str, Any]:
        """What `answer` holds. Ends the session and raises SimulatorError where it lacks what is `needed`."""
        data = answer.get("data") if isinstance(answer, dict) and answer.get("type") != "error" else None
        if not isinstance(data, dict) or not data.keys() >= {*needed}:
            self.close()
            expected = f"with {answer!r:.300}; expected {', '.join(needed) or 'an object'}"
            raise SimulatorError(f"the server at {self.url} answered {message} {expected}")
        return data

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        try:
            with contextlib.suppress(Exception):  # a server that is full says so and closes: `recv` has the message
                self.socket.send(json.dumps(message))
            return json.loads(self.socket.recv(timeout=self.seconds))
        except BaseException:
            self.close()
            raise


class OpenEnvironment(GymnasiumEnvironment):
    """A world on the server at `url`, put into words by a subclass: see `GymnasiumEnvironment`.

    Actions are the JSON objects that the server's `step` takes. A server may serve one session only, so all of this
    process share one: whoever starts an episode ends the session of the one before, who will replay.
    """

    url: str
    max_concurrent_episodes = 1
    # By URL: the world that uses the session, and the session, which lives on when a world is dropped without `close`.
    _sessions: ClassVar[dict[str, tuple[weakref.ref[OpenEnvironment], Session]]] = {}

    def make(self) -> Session:
        url = address(getattr(self, "url", ""))
        server = url.partition("?")[0]  # whatever the token
        if server in self._sessions:
            world, session = self._sessions.pop(server)
            (world() or session).close()  # a world also ends its session
        self._sessions[server] = weakref.ref(self), Session(url)
        return self._sessions[server][1]

    def fork(self) -> OpenEnvironment:
        return self


class OpenEnvJudge(GymnasiumJudge, OpenEnvironment):
    """The return of an episode, played once more: `class MyJudge(OpenEnvJudge, MyEnvironment): ...`."""
