from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from asymflow.core import devices
from asymflow.core.errors import InputError


def test_the_cpu_is_chosen_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.choose() == torch.device("cpu")
    assert devices.choose("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["nonsense", "meta"])
def test_a_device_that_cannot_be_used_is_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' cannot be used on this machine"):
        devices.choose(name)


def test_mps_is_never_chosen_for_anybody_and_listed_as_untested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.choose().type == "cpu"
    assert devices.available() == ["cpu", "mps (untested)"]


def test_waiting_and_releasing_ask_the_device_that_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def note(device: torch.device) -> None:
        asked.append(str(device))

    monkeypatch.setattr(torch.mps, "synchronize", lambda: asked.append("mps"))
    monkeypatch.setattr(torch.cuda, "synchronize", note)
    for name in ("cpu", "cuda:1", "mps"):
        devices.synchronize(torch.device(name))
    assert asked == ["cuda:1", "mps"]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    devices.synchronize_all()
    assert asked == ["cuda:1", "mps", "mps"]


def test_free_memory_includes_what_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(value: object) -> Callable[[torch.device], object]:
        return lambda device: value

    cuda = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "memory_reserved", of(500))
    monkeypatch.setattr(torch.cuda, "memory_allocated", of(300))
    monkeypatch.setattr(torch.cuda, "mem_get_info", of((1000, 8000)))
    monkeypatch.setattr(torch.cuda, "get_device_name", of("H200"))
    assert devices.free_bytes(cuda) == 1200
    assert devices.name(cuda) == "cuda:1 H200"


def test_the_memory_of_other_devices_is_unknown() -> None:
    assert devices.free_bytes(torch.device("cpu")) is None
    assert devices.name(torch.device("cpu")) == "cpu"
