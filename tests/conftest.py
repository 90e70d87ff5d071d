"""For all tests: no model hub is asked, the same examples are tried on every run, and what takes longest is first."""

import os
import signal

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported, so before any test module
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # tests start processes; tokenizers warns of each fork
if "PYTEST_XDIST_WORKER" in os.environ:  # a process for each core is at work: more threads would wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: every child would ignore it as well
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("armap-lite", deadline=None, derandomize=True)  # a slow machine is not a failure
settings.load_profile("armap-lite")

# Minutes each, in few tests. Where files run side by side (see the Makefile), none of them may be the last to begin.
LONG = ("stage_files", "resume", "leakage", "llm_hindsight_run", "browser", "train_process", "own_environment")
LONG += ("training", "course", "complete", "scienceworld", "vision")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)
