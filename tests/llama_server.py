"""A real OpenAI-compatible server (llama.cpp) on a free port of this machine; ends when its standard input closes.

python tests/llama_server.py MODEL.gguf NAME [CONTEXT]: prints its address once it answers. CONTEXT: tokens that two
requests share, 2048 by default.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from server_process import server_process


@contextmanager
def serving(model: str, name: str, context: int = 2048) -> Iterator[str]:
    """Such a server in a process of its own: its URL."""
    with server_process(__file__, model, name, str(context)) as address:
        yield f"{address}/v1"


if __name__ == "__main__":
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.model_alias = {sys.argv[2]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx, params.n_parallel = int(sys.argv[3]) if len(sys.argv) > 3 else 2048, 2
    params.warmup = False
    # more threads wait for each other at every layer, which takes seconds a token where other programs run
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
