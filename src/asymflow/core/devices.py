"""Devices that networks run on: the CPU, a CUDA GPU, or Apple's GPU (mps).

The tests run on the CPU. mps has no float64 and is untested: it is used only when it is
requested by name, and listed as untested.
"""

from __future__ import annotations

import torch

from asymflow.core.errors import InputError


def choose(name: str | None = None) -> torch.device:
    """The device of that name; by default a CUDA GPU if there is one, else the CPU.

    Raises:
        InputError: this machine cannot use it.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"The device {name!r} cannot be used on this machine: {reason}. Try --device cpu."
        ) from error
    return device


def available() -> list[str]:
    """Every device of this machine, with its name where it has one."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(count))]
    return [*found, "mps (untested)"] if torch.backends.mps.is_available() else found


def count(name: str | None) -> int:
    """The GPUs that a name without a number stands for, None too; 0 for others."""
    if name not in (None, "cuda") or not torch.cuda.is_available():
        return 0
    return torch.cuda.device_count()


def name(device: torch.device) -> str:
    """The device with the name of its hardware, where that is known."""
    if device.type != "cuda":
        return str(device)
    return f"{device} {torch.cuda.get_device_name(device)}"


def free_bytes(device: torch.device) -> int | None:
    """Memory that a network call could get; None where it is unknown.

    What PyTorch caches counts as free.
    """
    if device.type != "cuda":
        return None
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


def synchronize(device: torch.device) -> None:
    """Wait for all work queued on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def synchronize_all() -> None:
    """Wait for all work queued on GPUs by this process."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()


def release_memory() -> None:
    """Return memory cached by PyTorch to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the machine has instructions to multiply it, else float32."""
    cpu = torch.cpu.get_capabilities()
    if device.type == "cuda" or cpu.get("amx_bf16", False) or cpu.get("avx512_bf16", False):
        return torch.bfloat16
    return torch.float32
