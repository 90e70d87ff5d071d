"""Folders such as those of reward models, replaced as a whole; files of others in them are never deleted."""

import contextlib
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

MODEL = {"reward.json", "weights.safetensors", "training.json"}  # what the folder of a reward model holds
STARTED = "started.json"  # what marks the folder of a training run
LOCK = "lock"
OURS = ("best", ".best.*", "last.ckpt*", "attempt-*", "metrics.csv", "events.out.tfevents.*")  # of a training run


def log_of(out: Path) -> Path:
    """The folder of curves and checkpoints that belongs to the reward model `out`.

    Raises ValueError if training would replace something other than a reward model, or write into a foreign folder.
    """
    check_named(out)
    if out.exists() and not (out.is_dir() and _names(out) <= MODEL):
        raise ValueError(f"{out} holds something other than a reward model; give a new folder, or move that one away")
    log = out.with_name(f"{out.name}-training")
    if log.exists() and not (log.is_dir() and ((log / STARTED).is_file() or _names(log) <= {LOCK})):
        raise ValueError(f"{log} is needed for checkpoints, and training did not make it; give another name than {out}")
    return log


def _names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def check_named(folder: Path) -> None:
    """Raise ValueError for a folder that cannot be replaced by its name, such as "."."""
    if folder.name in ("", ".."):
        raise ValueError(f"{str(folder)!r} is no name of a new folder; give one, such as my_model")


def check_new(folder: Path) -> None:
    """Raise ValueError for a folder that is not empty, and for one that `check_named` refuses."""
    check_named(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already; give a new folder, or delete that one")


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the lock of training `out`; if another process has it, say so and wait."""
    log = log_of(out)
    log.mkdir(parents=True, exist_ok=True)
    lock = FileLock(log / LOCK)
    with contextlib.suppress(NotImplementedError):  # a file system without locks
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{out} is being trained by another process; waiting for it", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def clear(log: Path) -> None:
    """Delete what an earlier training run left in `log`."""
    for file in (file for pattern in OURS for file in log.glob(pattern)):
        shutil.rmtree(file) if file.is_dir() else file.unlink()


def gather_curves(log: Path) -> None:
    """Make one metrics.csv of those of all attempts; of a step that was done twice the last counts."""
    import pandas as pd

    files = [file for file in sorted(log.glob("attempt-*/metrics.csv")) if file.stat().st_size]
    curves = pd.concat([pd.read_csv(file) for file in files])
    curves.groupby("step", as_index=False).last().to_csv(log / "metrics.csv", index=False)
    for file in files:
        shutil.rmtree(file.parent)


def beside(folder: Path) -> Path:
    """A name next to `folder` that nothing else has, for what takes its place or makes room for it."""
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which then takes the place of `folder`; where the block raises, it is removed."""
    part = beside(folder)
    part.mkdir(parents=True)
    try:
        yield part
        replace(folder, part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace(folder: Path, new: Path) -> None:
    """Put the folder `new` in the place of `folder`, which stays whole until then."""
    old = beside(folder)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
