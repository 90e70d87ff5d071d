"""`python -m armap_lite`: see `pipeline/commands.py`."""

import sys

from armap_lite.pipeline.commands import main

if __name__ == "__main__":
    sys.exit(main())
