"""The class within which a picture's bits depend on its own request alone.

Kernels are chosen by device, instruction set, dtype, number of threads and version of PyTorch, and
each choice sums in an order of its own. Across classes pictures agree to rounding. So they do where
equal weights are read from another file: on some processors kernels round by where in memory a
tensor begins, and files are mapped into it.
"""

from __future__ import annotations

import torch

_SETS = ("amx_fp16", "amx_bf16", "amx_tile", "avx512_fp16", "avx512_bf16", "avx512_f", "avx2")
"""Instruction sets that change how matrices are multiplied, the newest first."""


def determinism(device: torch.device, dtype: str, rows: int | None) -> str:
    """The class of this process on a device.

    Args:
        device: where the network runs.
        dtype: that it runs in.
        rows: pictures of every network call, where they are padded to a fixed number.
    """
    calls = "" if rows is None else f", {rows} at a time"
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        name = found.get("cpu_name") or found.get("architecture")
        sets = "+".join(each for each in _SETS if found.get(each)) or "no vector instructions"
        where = f"cpu {name} {sets}, {torch.get_num_threads()} threads"
    elif device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    else:
        where = device.type
    return f"{where}, {dtype}, torch {torch.__version__}{calls}"
