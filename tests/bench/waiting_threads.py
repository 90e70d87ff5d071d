"""What spinning threads cost where something else wants a core too: `python tests/bench/waiting_threads.py`

The product of matrices of the embedded model's size, on all cores, in a process of its own: with OpenMP's threads
spinning while they wait for each other (the default) and going to sleep soon (`GOMP_SPINCOUNT`, what armap_lite sets);
alone, and beside a neighbour that keeps one core busy, as a browser or another notebook does. GFLOPS, median of nine.
"""

import argparse
import json
import os
import platform
import subprocess
import sys

WORK = """
import statistics, time, torch
a, x, found = torch.randn(576, 576), torch.randn(512, 576), []
for _ in range(9):
    start = time.perf_counter()
    for _ in range(100):
        x @ a
    found.append(100 * 2 * 512 * 576 * 576 / (time.perf_counter() - start) / 1e9)
print(statistics.median(found))
"""


def gflops(turns: str | None, busy: bool) -> float:
    env = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    env |= {"GOMP_SPINCOUNT": turns} if turns else {}
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        return float(subprocess.run([sys.executable, "-c", WORK], env=env, capture_output=True, check=True).stdout)
    finally:
        if neighbour:
            neighbour.kill()
            neighbour.wait()


def main() -> None:
    found = {}
    for busy in (False, True):
        for turns in (None, "10000"):
            name = f"{'sleeping' if turns else 'spinning'}, {'beside a busy neighbour' if busy else 'alone'}"
            found[name] = round(gflops(turns, busy), 1)
            print(f"{found[name]:6.1f} GFLOPS  {name}", flush=True)
    ratio = found["sleeping, beside a busy neighbour"] / found["spinning, beside a busy neighbour"]
    result = {"name": "waiting_threads", "ratio": round(ratio, 2), "versus": "spinning, beside a busy neighbour"}
    device = f"{os.cpu_count()} cores of {platform.machine()}"
    print(json.dumps({**result, "unit": "GFLOPS", "device": device, "details": found}))


if __name__ == "__main__":
    formatter = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=formatter).parse_args()
    main()
