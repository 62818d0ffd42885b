from pathlib import Path

import platformdirs
import pytest

from asymflow.io import folders


def test_the_variables_of_the_system_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setenv("XDG_DATA_HOME", "/elsewhere")
    assert folders.cache() == Path("/somewhere/asymflow")
    assert folders.studio() == Path("/elsewhere/asymflow/studio")


def test_a_studio_of_0_1_is_found_where_the_system_has_another_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    own = tmp_path / "Library" / "Application Support" / "asymflow"

    def data_path(name: str, **_: object) -> Path:
        return own.with_name(name)

    monkeypatch.setattr(platformdirs, "user_data_path", data_path)
    assert folders.studio() == own / "studio"
    earlier = tmp_path / ".local/share/asymflow/studio"
    earlier.mkdir(parents=True)
    assert folders.studio() == earlier
    (own / "studio").mkdir(parents=True)
    assert folders.studio() == own / "studio"


def test_another_place_is_not_left_for_the_usual_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "fresh"))
    (tmp_path / ".local/share/asymflow/studio").mkdir(parents=True)
    assert folders.studio() == tmp_path / "fresh/asymflow/studio"
