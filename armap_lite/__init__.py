"""ARMAP as notebooks and one small package; README says what is where."""

import os

# OpenMP's threads spin while they wait for each other. Where anything else wants a core (a browser, JupyterLab itself),
# two spinning threads are slower than one: 20 to 28 GFLOPS in a product of matrices, 68 with threads that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded; the Makefile sets it for all kernels
