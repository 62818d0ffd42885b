"""What a data folder keeps through lost and damaged databases, other versions and full disks."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from PIL import Image

from asymflow.core.errors import FileFormatError
from asymflow.generation import pipeline
from asymflow.server import database
from asymflow.server.database import NAME
from asymflow.server.settings import Settings
from asymflow.server.store import JobRow, Store, new_id
from asymflow.server.views import Facts

from .conftest import Running, Slow, running

FACTS = Facts(prompt="a", seed=1, width=8, height=8, seconds=0.1, forwards=2)


def drawn(store: Store, job: str = "", slot: int = 0) -> str:
    """A picture in the gallery; its id."""
    id = new_id()
    store.write_picture(id, id.encode())
    store.add_picture(id, job or new_id(), slot, FACTS, listed=True)
    return id


def waiting(store: Store, id: str, **request: Any) -> None:
    row = JobRow(id, "c", "studio", "queued", 1.0, None, None, {"prompt": "a", **request}, [], None)
    store.add_job(row)


def names(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "pictures").glob("*.png")}


@contextmanager
def begun(slow: Slow, tmp_path: Path) -> Generator[Running]:
    """A server, which finds what an earlier one left."""
    settings = Settings(data=tmp_path / "data", port=0, burst=10_000, drain_seconds=0.1)
    model = pipeline.of(slow, dtype="float32", device="cpu")
    slow.gate.set()
    with running(settings, lambda: model) as found:
        yield found


@pytest.mark.parametrize("lost", ["missing", "empty", "older"])
def test_a_start_without_its_database_deletes_no_picture(tmp_path: Path, lost: str) -> None:
    store = Store(tmp_path)
    first = drawn(store)
    upload = store.add_upload(_png(), 8, 8).id
    store.close()
    older = tmp_path / "older"
    shutil.copy(tmp_path / NAME, older)
    store = Store(tmp_path)
    second = drawn(store)
    store.close()
    (tmp_path / NAME).unlink()
    if lost == "empty":
        (tmp_path / NAME).touch()
    elif lost == "older":
        shutil.copy(older, tmp_path / NAME)
    store = Store(tmp_path)
    assert names(tmp_path) == {first, second}
    known = {first} if lost == "older" else set[str]()
    assert {path.stem for path in store.strangers()} == {first, second} - known
    assert {row.id for row in store.gallery(None, 9)} == known
    assert store.upload(upload) is not None  # goes when its time is over
    store.close()


def _png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 1.0])
def test_a_damaged_database_is_named_and_no_file_touched(tmp_path: Path, share: float) -> None:
    store = Store(tmp_path)
    for number in range(300):
        waiting(store, f"job-{number:040d}")
    pictures = {drawn(store) for _ in range(20)}
    store.close()
    path = tmp_path / NAME
    data = bytearray(path.read_bytes())
    pages = len(data) // 4096
    for page in range(1, max(2, round(share * pages))):  # the first one names the file's kind
        data[4096 * page : 4096 * (page + 1)] = b"\xa5" * 4096
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"damaged.*backup.*gallery\s+import"):
        Store(tmp_path)
    assert names(tmp_path) == pictures
    path.unlink()  # as the message says
    store = Store(tmp_path)
    assert {each.stem for each in store.strangers()} == pictures
    store.close()


def test_another_server_is_told_from_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(FileFormatError, match="Another server runs"):
        Store(tmp_path)
    store.close()
    Store(tmp_path).close()


def test_a_newer_database_is_refused_whole(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / NAME)) as found:
        found.execute("PRAGMA user_version = 99")
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(FileFormatError, match="schema 99"):
        Store(tmp_path)
    assert (tmp_path / NAME).read_bytes() == before


@pytest.mark.parametrize("version", range(1, database.SCHEMA))
def test_an_older_database_is_brought_up_and_a_copy_kept(tmp_path: Path, version: int) -> None:
    picture = new_id()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / f"{picture}.png").write_bytes(b"a picture")
    with closing(sqlite3.connect(tmp_path / NAME)) as older:
        for step in database._STEPS[:version]:  # pyright: ignore[reportPrivateUsage]
            older.executescript(step)
        older.execute(f"PRAGMA user_version = {version}")
        older.execute(
            "INSERT INTO pictures (id, job, slot, created, listed, facts) "
            "VALUES (?, ?, 0, 1, 1, ?)",
            (picture, new_id(), FACTS.model_dump_json()),
        )
        older.commit()
    store = Store(tmp_path)
    assert [row.id for row in store.gallery(None, 9)] == [picture]  # of who has no token
    assert store.gallery(None, 9, owner="anna") == []
    store.close()
    with closing(sqlite3.connect(tmp_path / f"studio.schema{version}")) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (version,)
        assert copy.execute("SELECT id FROM pictures").fetchone() == (picture,)


def test_a_step_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).close()
    broken = (*database._STEPS, "CREATE TABLE more (a); CREATE TABLE jobs (b)")  # pyright: ignore[reportPrivateUsage]
    with monkeypatch.context() as patch:
        patch.setattr(database, "_STEPS", broken)
        patch.setattr(database, "SCHEMA", len(broken))
        with pytest.raises(FileFormatError):
            Store(tmp_path)
    store = Store(tmp_path)  # is as it was
    drawn(store)
    store.close()


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("jobs", "request = '{'"),
        ("jobs", "request = '[]'"),
        ("jobs", "request = json_set(request, '$.prompt', 7)"),
        ("jobs", "request = json_remove(request, '$.prompt')"),
        ("jobs", "request = json_set(request, '$.quality', 'not a name')"),
        ("jobs", "slots = 'null'"),
        ("jobs", "slots = '[{\"seed\": 1}]'"),
        ("jobs", "state = 'running', request = '{}'"),
        ("jobs", "error = '7'"),
        ("pictures", "facts = '{}'"),
        ("pictures", "facts = 'null'"),
        ("pictures", "facts = json_set(facts, '$.seconds', 'two')"),
        ("pictures", "facts = x'ff'"),
    ],
)
def test_one_bad_row_stops_nothing(slow: Slow, tmp_path: Path, table: str, change: str) -> None:
    with begun(slow, tmp_path) as server:
        done = server.over(server.ask("done before")["id"])
        slow.gate.clear()
        bad, good = server.ask("bad"), server.ask("good")
    which = f"id = '{bad['id']}'" if table == "jobs" else "true"
    with closing(sqlite3.connect(tmp_path / "data" / NAME)) as found, found:
        found.execute(f"UPDATE {table} SET {change} WHERE {which}")
        found.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")
    with begun(slow, tmp_path) as server:
        assert server.http.get("/ready").status_code == 200
        assert server.over(good["id"])["state"] == "done"
        assert server.over(server.ask("new")["id"])["state"] == "done"
        assert server.http.get("/api/jobs").status_code == 200
        gallery = server.http.get("/api/pictures").json()["pictures"]
        files = {path.stem for path in (tmp_path / "data/pictures").glob("*.png")}
        assert {each["id"] for each in done["pictures"]} <= files
        if table == "jobs":
            assert server.http.get(f"/api/jobs/{bad['id']}").status_code == 404
            assert {each["id"] for each in done["pictures"]} <= {each["id"] for each in gallery}
    with closing(sqlite3.connect(tmp_path / "data" / NAME)) as found:
        [kept] = found.execute("SELECT content FROM unreadable").fetchall()
    assert json.loads(kept[0])["id"] in (bad["id"], *(each["id"] for each in done["pictures"]))


def test_a_field_of_another_version_is_kept_and_harms_nothing(slow: Slow, tmp_path: Path) -> None:
    with begun(slow, tmp_path) as server:
        done = server.over(server.ask("done before")["id"])
        slow.gate.clear()
        plain, strange = server.ask("plain"), server.ask("strange")
    with closing(sqlite3.connect(tmp_path / "data" / NAME)) as found, found:
        found.execute("UPDATE jobs SET request = json_set(request, '$.glow', json('null'))")
        found.execute("UPDATE pictures SET facts = json_set(facts, '$.glow', 3)")
        found.execute(
            "UPDATE jobs SET request = json_set(request, '$.glow', 3) WHERE id = ?",
            (strange["id"],),
        )
    with begun(slow, tmp_path) as server:
        assert server.over(plain["id"])["state"] == "done"
        failed = server.over(strange["id"])
        assert failed["error"]["code"] == "other_version"
        assert "glow" in failed["error"]["message"]
        assert "glow" not in server.job(done["id"])["pictures"][0]
    with closing(sqlite3.connect(tmp_path / "data" / NAME)) as found:
        texts = [text for [text] in found.execute("SELECT request FROM jobs")]
        texts += [
            text
            for [text] in found.execute("SELECT facts FROM pictures WHERE job = ?", (done["id"],))
        ]
    assert all("glow" in json.loads(text) for text in texts)


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if (
        sys.platform != "linux"
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("only root may mount a small disk, on Linux")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> None:
    """Leave not a byte."""
    with (disk / "fill").open("ab", buffering=0) as file, suppress(OSError):
        for size in (65536, 512):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass


def test_a_full_disk_can_be_emptied_by_deleting(small_disk: Path) -> None:
    store = Store(small_disk / "data")
    ids = [drawn(store) for _ in range(20)]
    fill(small_disk)
    with pytest.raises(OSError, match="space"):
        drawn(store)
    [hidden] = store.hide([ids[0]], hidden=True)
    assert hidden is not None
    assert hidden.deleted is not None
    fill(small_disk)  # somebody else takes what was kept for that
    store.remove(ids[:5])
    assert not any(store.picture_path(id).exists() for id in ids[:5])
    store.close()
    (small_disk / "fill").unlink()
    store = Store(small_disk / "data")
    assert {row.id for row in store.gallery(None, 99)} == set(ids[5:])
    store.close()
    fill(small_disk)
    store = Store(small_disk / "data")  # also starts
    store.remove(ids[5:])
    store.close()


def test_room_is_made_from_what_was_deleted_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = [drawn(store) for _ in range(30)]
    for id in ids[:25]:
        store.hide([id], hidden=True)
    store.make_room(store.free() // 2)
    assert names(tmp_path) == set(ids)  # there was enough
    store.make_room(2**62)
    assert names(tmp_path) == set(ids[25:])
    store.close()


class Kills(RuleBasedStateMachine):
    """Pictures are written, noted, hidden and removed, and the process ends between two steps."""

    pictures = Bundle("pictures")

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory()
        self.folder = Path(self.home.name)
        self.store = Store(self.folder)
        self.noted: set[str] = set()
        self.backup: tuple[bytes, set[str]] | None = None
        self.lost: set[str] = set()

    @rule(target=pictures)
    def draw(self) -> str:
        id = drawn(self.store)
        self.noted.add(id)
        return id

    @rule(how=st.sampled_from(["written", "noted"]))
    def killed_while_drawing(self, how: str) -> None:
        id = new_id()
        self.store.write_picture(id, id.encode())
        if how == "noted":  # but the file has not got its name
            final = self.store.picture_path(id)
            self.store.add_picture(id, new_id(), 0, FACTS, listed=True)
            final.rename(final.with_name(f"{final.name}.pending"))
            self.noted.add(id)
        self.restart()

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Store(self.folder)

    @rule(id=pictures)
    def hide(self, id: str) -> None:
        self.store.hide([id], hidden=True)

    @rule(id=consumes(pictures))
    def remove(self, id: str) -> None:
        self.store.remove([id])
        self.noted.discard(id)

    @rule()
    def back_up(self) -> None:
        self.store.close()
        self.backup = (self.folder / NAME).read_bytes(), set(self.noted)
        self.store = Store(self.folder)

    @rule()
    def put_back(self) -> None:
        if self.backup is not None:
            self.store.close()
            (self.folder / NAME).write_bytes(self.backup[0])
            self.lost |= self.noted - self.backup[1]
            self.store = Store(self.folder)

    @invariant()
    def every_picture_is_there(self) -> None:
        for id in self.noted - self.lost:
            assert self.store.picture_path(id).read_bytes() == id.encode()
        for id in self.lost & self.noted:
            assert self.store.picture_path(id).exists()
        assert not list((self.folder / "pictures").glob("*.pending"))

    def teardown(self) -> None:
        self.store.close()
        self.home.cleanup()


TestKills = Kills.TestCase
TestKills.settings = hypothesis_settings(max_examples=25, stateful_step_count=12, deadline=None)
