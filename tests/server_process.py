"""A server of the tests in a process of its own, which prints its address and ends with its standard input."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def server_process(script: str, *arguments: str) -> Iterator[str]:
    """The address that `script` prints once it answers. The server ends with the block, whatever happens to it."""
    command, pipe = [sys.executable, script, *arguments], subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
    ) as server:
        assert server.stdin and server.stdout
        try:
            address = server.stdout.readline().strip()
            assert address, f"{script} ended with status {server.wait(10)}; run it by hand to see why"
            yield address
        finally:
            server.stdin.close()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
