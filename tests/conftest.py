"""For all tests: no model hub is asked, and the same examples are tried on every run."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported, so before any test module
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # tests start processes; tokenizers warns of each fork

settings.register_profile("armap-lite", deadline=None, derandomize=True)  # a slow machine is not a failure
settings.load_profile("armap-lite")
