"""How many lines of Python the method and the whole package have: `python tests/bench/size.py`

The method: the top-level files, reward/, planners/, and the contracts (envs/base.py, envs/hindsight.py, llms/base.py).
"""

import argparse
import json
import platform
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "armap_lite"
CONTRACTS = ("envs/base.py", "envs/hindsight.py", "llms/base.py")
TARGET = {"method": 3_000, "package": 10_500}


def main() -> None:
    lines: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE)
        n = len(path.read_text(encoding="utf-8").splitlines())
        folder = place.parts[0] if len(place.parts) > 1 else "top level"
        method = folder in ("top level", "reward", "planners") or place.as_posix() in CONTRACTS
        lines.update({folder: n, "package": n, "method": n * method})
    for name, n in lines.most_common():
        print(f"{n:6} {name}" + (f" (target: {TARGET[name]})" if name in TARGET else ""))
    result = {"name": "size", "ratio": round(lines["package"] / TARGET["package"], 2), "versus": "the package's target"}
    print(json.dumps({**result, "unit": "lines", "device": platform.machine(), "details": lines}))


if __name__ == "__main__":
    formatter = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=formatter).parse_args()
    main()
