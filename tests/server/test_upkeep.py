"""Looking after a studio's folder from the command line, also while a server runs on it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asymflow.cli import main
from asymflow.server import upkeep
from asymflow.server.database import NAME
from asymflow.server.store import Store, new_id
from asymflow.server.views import Facts

from .conftest import Serve


def gallery(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, Any]:
    """How `asymflow gallery` ends, and what it says."""
    capsys.readouterr()
    code = main.run(["gallery", *map(str, arguments), "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else said.err


def test_a_running_server_is_backed_up_and_the_copy_serves(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    server = serve()
    first = server.over(server.ask("first", n=2)["id"])
    code, found = gallery(capsys, "backup", copy, "--data", data)
    assert (code, found["files"], found["gone"]) == (0, 2, 0)
    second = server.over(server.ask("second")["id"])
    code, found = gallery(capsys, "backup", copy, "--data", data)  # only what is new
    assert (code, found["files"]) == (0, 3)
    assert server.over(server.ask("third")["id"])["state"] == "done"  # nobody was held up

    store = Store(copy)
    ids = {row.id for row in store.gallery(None, 9)}
    assert ids == {each["id"] for job in (first, second) for each in job["pictures"]}
    for id in ids:
        theirs = server.http.get(f"/api/pictures/{id}/file?format=png").content
        assert store.picture_path(id).read_bytes()[:64] == theirs[:64]
    store.close()
    assert gallery(capsys, "check", "--data", copy)[1]["well"]


def drawn(store: Store) -> str:
    facts = Facts(prompt="a", seed=1, width=8, height=8, seconds=0.1, forwards=2)
    id = new_id()
    store.write_picture(id, id.encode())
    store.add_picture(id, new_id(), 0, facts, listed=True)
    return id


def test_what_a_killed_server_left_in_a_copy_is_not_mixed_into_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    store = Store(data)
    first = drawn(store)
    assert gallery(capsys, "backup", copy, "--data", data)[0] == 0
    killed = Store(copy)
    code, said = gallery(capsys, "backup", copy, "--data", data)
    assert code == 2
    assert "Another server runs" in said
    for _ in range(40):
        drawn(killed)
    log = (copy / f"{NAME}-wal").read_bytes()
    killed.close()
    (copy / f"{NAME}-wal").write_bytes(log)
    second = drawn(store)
    store.close()
    assert gallery(capsys, "backup", copy, "--data", data)[0] == 0
    again = Store(copy)
    assert {row.id for row in again.gallery(None, 99)} == {first, second}
    again.close()


def test_a_copy_that_is_interrupted_is_still_the_earlier_one(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    store = Store(data)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    ids = [drawn(store), drawn(store)]
    with pytest.raises(KeyboardInterrupt):
        upkeep.back_up(data, copy, interrupt)
    upkeep.back_up(data, copy, lambda done, total: None)  # goes on where it was
    assert upkeep.check(copy).missing == []
    ids += [drawn(store), drawn(store)]
    with pytest.raises(KeyboardInterrupt):
        upkeep.back_up(data, copy, lambda done, total: interrupt(done, total) if done > 2 else None)
    found = upkeep.check(copy)
    assert (found.pictures, found.missing) == (2, [])
    upkeep.back_up(data, copy, lambda done, total: None)
    assert (upkeep.check(copy).pictures, upkeep.check(copy).strangers) == (4, [])
    store.close()


def test_pictures_of_a_lost_database_are_taken_in_again(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    server = serve()
    drawn = server.over(server.ask("a fox", n=2, seed=5)["id"])["pictures"]
    with closing(sqlite3.connect(data / NAME)) as found, found:
        found.execute("DELETE FROM pictures")  # as in a database from before
    (data / "pictures" / f"{new_id()}.png").write_bytes(b"no picture")
    (data / "pictures" / "thesis.png").write_bytes(b"not ours")
    code, found = gallery(capsys, "check", "--data", data)
    assert (code, len(found["strangers"])) == (1, 3)
    code, found = gallery(capsys, "import", "--data", data)
    assert (code, len(found["taken"]), len(found["left"])) == (1, 2, 1)
    now = server.http.get("/api/pictures").json()["pictures"]
    assert {each["id"] for each in now} == {each["id"] for each in drawn}
    same = ("prompt", "seed", "width", "height", "guidance_scale", "style", "plan", "forwards")
    for each in now:
        [before] = [one for one in drawn if one["id"] == each["id"]]
        assert {key: each[key] for key in same} == {key: before[key] for key in same}
        assert server.http.get(each["url"]).status_code == 200
    assert gallery(capsys, "import", "--data", data)[1]["taken"] == []


def test_a_check_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = gallery(capsys, "check", "--data", tmp_path / "none")
    assert code == 2
    assert "There is no folder" in said
    Store(tmp_path).close()
    assert gallery(capsys, "check", "--data", tmp_path)[0] == 0
    (tmp_path / NAME).write_bytes(b"SQLite format 3\0" + bytes(5000))
    code, found = gallery(capsys, "check", "--data", tmp_path)
    assert code == 1
    assert "cannot be read" in found["problem"]
    (tmp_path / NAME).unlink()
    code, found = gallery(capsys, "check", "--data", tmp_path)
    assert code == 1
    assert "no database" in found["problem"]


def test_a_copy_goes_nowhere_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, target = tmp_path / "data", tmp_path / "thesis"
    Store(data).close()
    target.mkdir()
    (target / "chapter1.txt").write_text("precious")
    code, said = gallery(capsys, "backup", target, "--data", data)
    assert code == 2
    assert "neither empty nor an earlier copy" in said
    code, said = gallery(capsys, "backup", data, "--data", data)
    assert code == 2
    assert [path.name for path in target.iterdir()] == ["chapter1.txt"]
