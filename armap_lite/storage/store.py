"""Files that survive a crash: append-only JSONL with resume, and atomic replacement of whole files."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import os
import sys
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: a second writer goes unnoticed
    fcntl = None  # type: ignore[assignment]


class JsonlStore:
    """An append-only file with one JSON object per line, each with a unique "id".

    Opening the file resumes it: whole lines stay as they are, byte for byte, and a last line that a crash tore is cut
    off. Raises ValueError for any other broken line or a repeated id, RuntimeError if another process writes here.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.ids: set[str] = set()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (O_APPEND; one write, one system call)
        try:
            self._lock()
            whole = 0
            for number, record, end in _whole_lines(self.path):
                try:
                    self._register(record)
                except ValueError as error:
                    raise ValueError(f"{self.path}, line {number}: {error}; repair it or start a new file") from error
                whole = end
            if whole < self._file.seek(0, os.SEEK_END):
                self._file.truncate(whole)
                os.fsync(self._file.fileno())
        except BaseException:
            self.close()
            raise

    def append(self, record: dict[str, Any]) -> None:
        """Write `record` as one line that is on the disk when this returns.

        Raises ValueError if its id is missing or taken, or if it is not plain JSON (no NaN); OSError if the line could
        not be written whole. In each case the file is left as it was.
        """
        line = (json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode()
        start = self._file.seek(0, os.SEEK_END)
        new = self._register(record)
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, f"no room for a line of {len(line)} bytes; free some space", str(self.path))
            os.fsync(self._file.fileno())
        except BaseException:
            self.ids.discard(new)
            self._file.truncate(start)
            raise

    def extend(self, records: Iterable[dict[str, Any]]) -> None:
        """`append` those of `records` whose ids are new."""
        for record in records:
            if record.get("id") not in self.ids:
                self.append(record)

    def close(self) -> None:
        """Release the file to other writers. Safe to call twice."""
        self._file.close()

    def __enter__(self) -> JsonlStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"{self.path} is being written by another JsonlStore; close that one or wait") from error
        except OSError:
            pass  # a file system without locks

    def _register(self, record: dict[str, Any]) -> str:
        new = record.get("id")
        if not isinstance(new, str):
            raise ValueError(f"'id' is {new!r}; every record needs a unique string there")
        if new in self.ids:
            raise ValueError(f"'id' {new!r} is there already; every record needs its own")
        self.ids.add(new)
        return new


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """The records of a JSONL file, one by one; needs no lock. A torn last line is left out.

    Raises ValueError, with the line's number, if any other line is not a JSON object.
    """
    return (record for _, record, _ in _whole_lines(Path(path)))


def has_ids(path: Path, ids: Iterable[str]) -> bool:
    """Whether the JSONL file `path` exists and holds a record with each of `ids`, which makes a stage complete."""
    return path.exists() and {record["id"] for record in read_jsonl(path)}.issuperset(ids)


def read_json(path: str | Path, way_out: str, kind: type = dict) -> Any:
    """The JSON object, or list, in `path`. Raises ValueError with its name, the fault and the `way_out`."""
    try:
        known = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is torn ({error}); {way_out}") from error
    if not isinstance(known, kind):
        raise ValueError(f"{path} holds {known!r:.40}, no JSON {'object' if kind is dict else 'list'}; {way_out}")
    return known


def write_atomic(path: str | Path, data: str | bytes) -> None:
    """Replace a whole file, so that readers see the old one or the new one, never a part. Text becomes UTF-8."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # same folder: a rename cannot cross file systems
    try:
        with open(part, "xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_memo(path: str | Path, data: str | bytes) -> None:
    """`write_atomic` for what can be computed again: if the folder is read-only or full, nothing is kept."""
    with contextlib.suppress(OSError):
        write_atomic(path, data)


def escape_unencodable_output() -> None:
    """Let standard output print any text: characters that the locale's encoding lacks are escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _whole_lines(path: Path) -> Iterator[tuple[int, dict[str, Any], int]]:
    """(line number, record, offset of its end) of each line, up to a torn last one."""
    end = 0
    with open(path, "rb") as file:  # bytes: only b"\n" ends a line, not U+2028 and its like
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError as error:
                if not file.read(1):  # a crash can also leave a last line of the right length and wrong content
                    return
                raise ValueError(f"{path}, line {number} is not JSON ({error}); repair or delete that line") from error
            if not isinstance(record, dict):
                raise ValueError(f"{path}, line {number} is {record!r:.40}, not a JSON object; is this the right file?")
            end += len(line)
            yield number, record, end


@functools.lru_cache(4096)
def caption(picture: str) -> str:
    """The alternative text stored in a picture's file; "" if none can be read."""
    from PIL import Image

    try:
        with Image.open(picture) as image:
            return str(image.info.get("Description", ""))
    except OSError:
        return ""
