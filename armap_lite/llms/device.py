"""Where a model runs, and in which number format."""

from __future__ import annotations

import torch


def pick(device: str = "auto", dtype: str = "auto") -> tuple[torch.device, torch.dtype]:
    """The device and dtype to load a model with.

    `device`: "auto" (CUDA where there is one, else the CPU), or a torch name such as "cuda:1".
    `dtype`: "float32", "bfloat16", "float16", or "auto": bfloat16 on CUDA and on a CPU that computes in it, else
    float32. Raises ValueError for any other dtype.
    """
    where = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    if dtype == "auto":
        return where, torch.bfloat16 if where.type == "cuda" or _cpu_has_bfloat16() else torch.float32
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"unknown dtype {dtype!r}; use 'auto', 'float32', 'bfloat16' or 'float16'")
    return where, getattr(torch, dtype)


def _cpu_has_bfloat16() -> bool:
    # torch keeps these two private; a CPU without the instructions emulates bfloat16, slower than float32
    probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(probe() for probe in probes if probe)
