"""The stage files: what a crash may do to them, and what it may not."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armap_lite.storage import store
from armap_lite.storage.store import JsonlStore, read_jsonl, write_atomic

texts = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["\u2028", "\x85", "\n", "é"]
)  # Cs: surrogates
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
records = st.lists(
    st.dictionaries(texts, values, max_size=3).flatmap(lambda d: texts.map(lambda id: {**d, "id": id})),
    max_size=6,
    unique_by=lambda record: record["id"],
)


@contextmanager
def largest_file(size: int):
    """No file may grow beyond `size` bytes: what a full disk looks like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write(path: Path, items: list[dict]) -> bytes:
    with JsonlStore(path) as items_store:
        for item in items:
            items_store.append(item)
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(items=records, data=st.data())
def test_a_file_cut_anywhere_keeps_its_whole_lines_and_ends_as_if_uninterrupted(tmp_path_factory, items, data):
    folder = tmp_path_factory.mktemp("store")
    whole = write(folder / "whole.jsonl", items)
    assert list(read_jsonl(folder / "whole.jsonl")) == items
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    path = folder / "cut.jsonl"
    path.write_bytes(cut)
    kept = cut[: cut.rfind(b"\n") + 1]
    survivors = items[: kept.count(b"\n")]
    assert list(read_jsonl(path)) == survivors
    assert path.read_bytes() == cut  # reading changes nothing
    with JsonlStore(path) as resumed:
        assert path.read_bytes() == kept
        assert resumed.ids == {item["id"] for item in survivors}
        resumed.extend(items)
    assert path.read_bytes() == whole


def test_lines_are_compact_unicode_in_the_given_order(tmp_path):
    raw = write(tmp_path / "new" / "a.jsonl", [{"z": [1, 2.5], "id": "ü\u2028\n"}])
    assert raw == '{"z":[1,2.5],"id":"ü\u2028\\n"}\n'.encode()


WRITER = """
import sys, time
from armap_lite.storage.store import JsonlStore
with JsonlStore(sys.argv[1]) as store:
    for i in range(400):
        if str(i) not in store.ids:
            store.append({"id": str(i), "text": "x" * (i * 37 % 5000)})
            time.sleep(0.001)  # so that no machine is done before it is killed
"""


def test_kills_at_random_moments_lose_and_double_nothing(tmp_path):
    root = Path(store.__file__).parents[2]
    path, calm = tmp_path / "killed.jsonl", tmp_path / "calm.jsonl"
    subprocess.run([sys.executable, "-c", WRITER, calm], cwd=root, check=True)
    rng, before, midway = random.Random(0), b"", 0
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], cwd=root)
        while writer.poll() is None and (not path.exists() or path.stat().st_size <= len(before)):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        writer.kill()
        midway += writer.wait() == -signal.SIGKILL
        after = path.read_bytes()
        assert after.startswith(before[: before.rfind(b"\n") + 1])
        before = after
    assert midway >= 2
    subprocess.run([sys.executable, "-c", WRITER, path], cwd=root, check=True)
    assert path.read_bytes() == calm.read_bytes()


def test_an_id_comes_once_and_is_text(tmp_path):
    path = tmp_path / "a.jsonl"
    with JsonlStore(path) as items:
        items.append({"id": "a"})
        with pytest.raises(ValueError, match="'id' 'a' is there already"):
            items.append({"id": "a", "more": 1})
        for bad in ({"name": "b"}, {"id": 3}):
            with pytest.raises(ValueError, match=r"'id' is (None|3)"):
                items.append(bad)
        items.extend([{"id": "a", "more": 1}, {"id": "b"}])
        assert items.ids == {"a", "b"}
    assert path.read_bytes() == b'{"id":"a"}\n{"id":"b"}\n'


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {1, 2}, "\ud800"])
def test_a_record_that_is_not_plain_json_changes_nothing(tmp_path, bad):
    with JsonlStore(tmp_path / "a.jsonl") as items:
        with pytest.raises((ValueError, TypeError)):
            items.append({"id": "a", "x": bad})
        assert "a" not in items.ids
        items.append({"id": "a", "x": 0})
    assert (tmp_path / "a.jsonl").read_bytes() == b'{"id":"a","x":0}\n'


@pytest.mark.parametrize("tail", [b"\0" * 9, b'{"id":"b"', b'{"id":"b\n', b"\0\0\0\n", b'{"id":"\xc3\n'])
def test_a_torn_last_line_is_cut_off(tmp_path, tail):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id":"a"}\n' + tail)
    assert list(read_jsonl(path)) == [{"id": "a"}]
    with JsonlStore(path) as items:
        assert items.ids == {"a"}
    assert path.read_bytes() == b'{"id":"a"}\n'


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (b'{"id":', "line 2 is not JSON"),
        (b"", "line 2 is not JSON"),
        (b"[1]", "line 2 is .* not a JSON object"),
        (b'{"name":"b"}', "line 2: 'id' is None"),
        (b'{"id":"a","x":1}', "line 2: 'id' 'a' is there already"),
    ],
)
def test_a_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path, second, message):
    path = tmp_path / "a.jsonl"
    raw = b'{"id":"a"}\n' + second + b'\n{"id":"c"}\n{"id":"torn'
    path.write_bytes(raw)
    for _ in range(2):  # a failed opening holds no lock
        with pytest.raises(ValueError, match=message) as error:
            JsonlStore(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert path.read_bytes() == raw


def test_one_writer_at_a_time_and_any_number_of_readers(tmp_path):
    path = tmp_path / "a.jsonl"
    root = Path(store.__file__).parents[2]
    with JsonlStore(path) as items:
        items.append({"id": "0"})
        with pytest.raises(RuntimeError, match=r"a.jsonl is being written by another"):
            JsonlStore(path)
        other = subprocess.run(
            [sys.executable, "-c", WRITER, path], cwd=root, capture_output=True, text=True, encoding="utf-8"
        )
        assert other.returncode == 1 and "is being written by another" in other.stderr
        assert list(read_jsonl(path)) == [{"id": "0"}]
        items.append({"id": "1"})
    with JsonlStore(path) as items:
        assert items.ids == {"0", "1"}


def test_a_line_that_finds_no_room_is_taken_back(tmp_path):
    path = tmp_path / "a.jsonl"
    with JsonlStore(path) as items:
        items.append({"id": "a"})
        with largest_file(100), pytest.raises(OSError, match=r"no room for a line of .* bytes"):
            items.append({"id": "b", "x": "x" * 200})
        assert path.read_bytes() == b'{"id":"a"}\n' and "b" not in items.ids
        items.append({"id": "b"})
    assert path.read_bytes() == b'{"id":"a"}\n{"id":"b"}\n'


def test_write_atomic_is_all_or_nothing(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_atomic(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        write_atomic(path, "x" * 1000)
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(path.parent) == ["a.json"]


def test_write_atomic_leaves_the_old_file_where_it_is_killed(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old", encoding="utf-8")
    code = "import os, signal; os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
    code += f"from armap_lite.storage.store import write_atomic; write_atomic({str(path)!r}, 'new')"
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(store.__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL and path.read_text(encoding="utf-8") == "old"
    mask = os.umask(0o022)
    os.umask(mask)
    write_atomic(path, json.dumps({}))
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask  # others may read a report
