"""A real OpenAI-compatible server (llama.cpp) on a free port of this machine; ends when its standard input closes.

python tests/llama_server.py MODEL.gguf NAME: prints its address once it answers.
"""

import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.model_alias = {sys.argv[2]}
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_ctx, params.n_parallel = 2048, 2
params.warmup = False
# more threads wait for each other at every layer, which takes seconds a token where other programs run
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
