"""ARMAP as notebooks and one small package; README says what is where."""

import os

# OpenMP's threads spin while they wait for each other. Where anything else wants a core (a browser, a class on one
# server) they often wait for one that has no core: after so many turns they sleep. See tests/bench/waiting_threads.py.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # read when torch is loaded; the Makefile sets it for all kernels
