"""An HTTP server that answers by script: for faults, as a real server cannot be told to fail."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from armap_lite.llms.server import ServerLM

QUIET = {"endpoint": "completions", "structured": "none", "scoring": "none", "retries": 2}
Reply = tuple[int, dict[str, str], Any]  # status, headers, body (text, JSON, or a function of the request's JSON)
Script = Reply | Callable[[str, dict[str, Any]], Reply]  # or a reply by the request's path and JSON


class Scripted(ThreadingHTTPServer):
    """Answers with `replies` one after the other, then with the last of them again and again."""

    daemon_threads = True

    def __init__(self, *replies: Script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = list(replies)
        self.seen: list[tuple[float, str, Message, dict[str, Any]]] = []  # time, path, headers, body
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def lm(self, **options: Any) -> ServerLM:
        """A ServerLM on this server that asks for nothing on its own."""
        return ServerLM(self.url, "m", **{**QUIET, **options})


class Handler(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"  # connections are kept
    disable_nagle_algorithm = True  # else head and body of a reply are 40 ms apart

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        with self.server.lock:
            self.server.seen.append((time.monotonic(), self.path, self.headers, request))
            script = self.server.replies[0]
            if len(self.server.replies) > 1:
                del self.server.replies[0]
        status, headers, body = script(self.path, request) if callable(script) else script
        if callable(body):
            body = body(request)
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        with suppress(OSError):  # the client has given up waiting
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def scripted(*replies: Script) -> Iterator[Scripted]:
    server = Scripted(*replies)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def said(text: str | Callable[[dict], str], usage: dict | None = None) -> Reply:
    """A completion that fits both endpoints."""

    def body(request: dict) -> dict:
        words = text if isinstance(text, str) else text(request)
        message = {"role": "assistant", "content": words}
        choice = {"index": 0, "finish_reason": "stop", "text": words, "message": message}
        return {"id": "1", "object": "x", "created": 1, "model": "m", "choices": [choice], "usage": usage}

    return 200, {}, body


def chat(content: Any, finish: str = "stop", **message: Any) -> Reply:
    """A chat completion; `message`: further fields of the message."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return 200, {}, {"id": "1", "object": "chat.completion", "created": 1, "choices": [choice], "usage": usage}


def refused(status: int, body: Any) -> Reply:
    """An error answer, as it is."""
    return status, {}, body


def failed(status: int, message: str = "broken", **headers: str) -> Reply:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, {"error": {"message": message}}
