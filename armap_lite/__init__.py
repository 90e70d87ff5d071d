"""ARMAP as notebooks and one small package; README.md beside this file says what is where."""

import atexit
import gc
import os

# OpenMP's threads spin while they wait for one that has no core; after so many turns they sleep. Read when torch is
# loaded; the Makefile sets it for all kernels. See tests/bench/waiting_threads.py.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# PyTorch and transformers are a million objects that stay to the end. Python's collector looks through them again and
# again while they are imported (0.9 of 4.8 s of CPU), and once more when the process ends (1.2 of 1.4 s).
gc.set_threshold(50_000, 20, 20)
atexit.register(gc.freeze)
