from __future__ import annotations

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
