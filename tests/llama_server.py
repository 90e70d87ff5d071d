"""A real OpenAI-compatible server (llama.cpp) on a free port of this machine; ends when its standard input closes.

python tests/llama_server.py MODEL.gguf NAME [CONTEXT]: prints its address once it answers. CONTEXT: tokens that two
requests share, 2048 by default.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def serving(model: str, name: str, context: int = 2048) -> Iterator[str]:
    """Such a server in a process of its own: its URL. It ends with the block, whatever happens to it."""
    command, pipe = [sys.executable, __file__, model, name, str(context)], subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
    ) as server:
        assert server.stdin and server.stdout
        try:
            address = server.stdout.readline().strip()
            assert address, f"{__file__} ended with status {server.wait(10)}; run it by hand to see why"
            yield f"{address}/v1"
        finally:
            server.stdin.close()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


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
