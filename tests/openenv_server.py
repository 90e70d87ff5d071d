"""The shelf of tests/shelf.py behind an OpenEnv server on a free port of this machine; ends with its standard input.

python tests/openenv_server.py [FOLDER [noise]]: prints its address once it answers. FOLDER: where the package `openenv`
is installed (`pip install --target FOLDER openenv`; it needs another Pillow than this project). Then it is that
package's server, else a few lines that speak its protocol. Either way it serves one session, the default of OpenEnv.
"""

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from server_process import server_process


@contextmanager
def serving(folder: str | None = None, noise: bool = False) -> Iterator[str]:
    """Such a server in a process of its own: its URL."""
    with server_process(__file__, folder or "", "noise" if noise else "") as address:
        yield address


def plain(shelf: Any) -> None:
    """Answers in the protocol of OpenEnv, as its package 0.10.0 does."""
    from websockets.sync.server import serve

    one = threading.Semaphore(1)

    def session(connection: Any) -> None:
        if not one.acquire(blocking=False):
            data = {"message": "Server at capacity: 1/1", "code": "CAPACITY_REACHED"}
            connection.send(json.dumps({"type": "error", "data": data}))
            return
        world = shelf()
        try:
            for text in connection:
                message = json.loads(text)
                if message["type"] == "state":
                    answer = {"type": "state", "data": {"episode_id": None, "step_count": 0}}
                else:
                    try:
                        reset = message["type"] == "reset"
                        found = world.reset(**message["data"]) if reset else world.step(message["data"]["move"])
                        reward, done = (None, False) if reset else (found[1], found[2])
                        answer = {"observation": found[0], "reward": reward, "done": done}
                        answer = {"type": "observation", "data": answer}
                    except KeyError as error:
                        answer = {"type": "error", "data": {"message": str(error), "code": "EXECUTION_ERROR"}}
                connection.send(json.dumps(answer))
        finally:
            one.release()

    with serve(session, "127.0.0.1", 0) as server:
        print(f"http://127.0.0.1:{server.socket.getsockname()[1]}", flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()


def packaged(shelf: Any) -> None:
    """The same world by the package's own classes and server."""
    import uvicorn
    from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app

    class Move(Action):
        move: str

    class Seen(Observation):
        jar: str
        at: int
        held: str
        mission: str

    class World(Environment):
        def __init__(self) -> None:
            super().__init__()
            self.shelf = shelf()

        def reset(self, seed: int | None = None, **options: Any) -> Seen:
            return Seen(**self.shelf.reset(seed=seed)[0])

        def step(self, action: Move, **options: Any) -> Seen:
            seen, reward, done, *_ = self.shelf.step(action.move)
            return Seen(**seen, reward=reward, done=done)

        @property
        def state(self) -> State:
            return State()

    listener = socket.create_server(("127.0.0.1", 0))
    app = create_fastapi_app(World, Move, Seen)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    folder, noise = [*sys.argv[1:], "", ""][:2]
    sys.path[1:1] = [folder] if folder else []

    from shelf import Shelf

    (packaged if folder else plain)(lambda: Shelf(noise=bool(noise)))
