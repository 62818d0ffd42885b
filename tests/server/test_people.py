"""Several people on one server: what one makes the others neither see nor delete."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from asymflow.cli import main
from asymflow.core.errors import FileFormatError, InputError
from asymflow.server import tokens
from asymflow.server.tokens import Tokens
from tests.helpers import wait_until

from .conftest import SMALL, Running, Serve, Slow

OPERATOR = "the-operators-own-token"
PNG = {"Content-Type": "image/png"}


@dataclass(frozen=True)
class Person:
    """Somebody with a token, and what is theirs."""

    name: str
    http: httpx.Client

    def ask(self, server: Running, prompt: str, **more: Any) -> dict[str, Any]:
        answer = self.http.post("/api/jobs", json={"prompt": prompt, **SMALL, **more})
        assert answer.status_code == 202, answer.text
        id = answer.json()["id"]

        def over() -> bool:
            return self.http.get(f"/api/jobs/{id}").json()["state"] == "done"

        wait_until(over, within=20, what=f"the end of {prompt}")
        return self.http.get(f"/api/jobs/{id}").json()


@pytest.fixture
def server(serve: Serve) -> Running:
    return serve(token=OPERATOR)


@pytest.fixture
def people(server: Running, tmp_path: Path) -> Generator[tuple[Person, Person, Person]]:
    """Two with tokens, and the operator."""
    with ExitStack() as stack:

        def person(name: str, token: str) -> Person:
            headers = {"Authorization": f"Bearer {token}"}
            client = httpx.Client(base_url=server.url, headers=headers, timeout=30)
            return Person(name, stack.enter_context(client))

        made = [person(name, tokens.add(tmp_path / "data", name)) for name in ("anna", "ben")]
        yield made[0], made[1], person("", OPERATOR)


def test_no_call_finds_what_is_somebody_elses(
    server: Running, people: tuple[Person, Person, Person]
) -> None:
    anna = people[0]
    job = anna.ask(server, "a secret fox", n=2)
    first, second = (picture["id"] for picture in job["pictures"])
    png = anna.http.get(f"/api/pictures/{first}/file").content
    upload = anna.http.post("/api/uploads", content=png, headers=PNG).json()["id"]
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", f"/api/jobs/{job['id']}", {}),
        ("DELETE", f"/api/jobs/{job['id']}", {}),
        ("GET", f"/api/jobs/{job['id']}/events", {}),
        ("GET", f"/api/jobs/{job['id']}/preview/0", {}),
        ("GET", f"/api/uploads/{upload}", {}),
        ("GET", f"/api/pictures/{first}", {}),
        ("GET", f"/api/pictures/{first}/file", {}),
        ("GET", f"/api/pictures/{first}/file?format=webp", {}),
        ("GET", f"/api/pictures/zip?ids={first}", {}),
        ("GET", f"/api/pictures/{first}/svg", {}),
        ("GET", f"/api/pictures/{first}/rendered", {}),
        ("GET", f"/api/pictures/{first}/restored", {}),
        ("POST", f"/api/pictures/{first}/restored", {"content": png, "headers": PNG}),
        ("DELETE", f"/api/pictures/{first}", {}),
        ("DELETE", f"/api/pictures/{first}?forever=1", {}),
        ("POST", f"/api/pictures/{first}/restore", {}),
        ("POST", "/api/jobs", {"json": {"prompt": "a", "image": upload, **SMALL}}),
        ("POST", "/api/jobs", {"json": {"prompt": "a", "parent": first, **SMALL}}),
    ]
    with_ids = {path for path in server.app.openapi()["paths"] if "{id}" in path}
    tried = {path.replace(first, "{id}").replace(upload, "{id}") for _, path, _ in calls}
    tried = {path.replace(job["id"], "{id}").partition("?")[0] for path in tried}
    tried = {path.replace("preview/0", "preview/{slot}") for path in tried}
    models = {"/api/models/{id}/measure", "/v1/models/{id}"}  # are everybody's
    assert with_ids - models - tried == set(), "a call with an id that this test does not know"
    for other in people[1:]:
        for method, path, more in calls:
            answer = other.http.request(method, path, **more)
            assert answer.status_code == 404, (method, path, answer.text)
            assert "fox" not in answer.text
        for path in ("delete", "restore", "favourite"):
            answer = other.http.post(f"/api/pictures/{path}", json={"ids": [first]}).json()
            assert (answer["pictures"], answer["missing"]) == ([], [first])
    after = anna.http.get(f"/api/pictures/{first}").json()
    assert (after["deleted"], after["favourite"]) == (False, False)
    assert {each["id"] for each in anna.http.get("/api/pictures").json()["pictures"]} == {
        first,
        second,
    }


def test_lists_have_only_what_is_ones_own(
    server: Running, people: tuple[Person, Person, Person]
) -> None:
    jobs = {each.name: each.ask(server, f"a fox of {each.name or 'none'}") for each in people}
    for each in people:
        mine = jobs[each.name]["pictures"][0]["id"]
        each.http.delete(f"/api/pictures/{mine}")
        trash = each.http.get("/api/pictures?trash=1").json()["pictures"]
        assert [picture["id"] for picture in trash] == [mine]
    anna, ben, operator = people
    assert anna.http.delete("/api/trash").json() == {"deleted": 1}
    for each in (ben, operator):
        assert len(each.http.get("/api/pictures?trash=1").json()["pictures"]) == 1
        each.http.post(
            f"/api/pictures/{jobs[each.name]['pictures'][0]['id']}/restore"
        ).raise_for_status()
        found = each.http.get("/api/pictures?q=fox").json()["pictures"]
        assert [picture["job"] for picture in found] == [jobs[each.name]["id"]]
        listed = each.http.get("/api/jobs").json()["jobs"]
        assert [job["id"] for job in listed] == [jobs[each.name]["id"]]
        packed = each.http.get("/api/pictures/zip").content
        assert packed.count(b"PK\x01\x02") == 1


@pytest.mark.parametrize("path", ["/api/events", "/api/events?steps=true&previews=true"])
def test_streams_have_only_what_is_ones_own(
    server: Running, people: tuple[Person, Person, Person], slow: Slow, path: str
) -> None:
    anna, ben, _ = people
    slow.gate.clear()
    before = anna.http.post("/api/jobs", json={"prompt": "a fox", **SMALL}).json()["id"]
    heard: list[str] = []
    with ben.http.stream("GET", path) as stream:
        lines = stream.iter_lines()
        next(lines)
        after = anna.http.post("/api/jobs", json={"prompt": "an owl", **SMALL}).json()["id"]
        mine = ben.http.post("/api/jobs", json={"prompt": "a cat", **SMALL}).json()["id"]
        slow.gate.set()
        for line in lines:
            heard.append(line)
            if mine in line and '"state":"done"' in line.replace(" ", ""):
                break
    text = "\n".join(heard)
    assert mine in text
    assert before not in text
    assert after not in text


def test_keys_limits_and_records_are_ones_own(
    server: Running, people: tuple[Person, Person, Person]
) -> None:
    anna, ben, operator = people
    key = {"Idempotency-Key": "the same"}
    body = {"prompt": "a fox", **SMALL}
    made = [each.http.post("/api/jobs", json=body, headers=key).json()["id"] for each in people]
    assert len(set(made)) == 3
    other = ben.http.post("/api/jobs", json={**body, "prompt": "an owl"}, headers=key)
    assert other.status_code == 409  # of his own request
    nothing = {"Idempotency-Key": ""}
    made = [each.http.post("/api/jobs", json=body, headers=nothing).json()["id"] for each in people]
    made += [anna.http.post("/api/jobs", json=body, headers=nothing).json()["id"]]
    assert len(set(made)) == 4  # an empty key is none
    start = anna.ask(server, "a cat")["pictures"][0]["id"]
    job = anna.ask(server, "a dog", parent=start, strength=0.5)
    png = anna.http.get(job["pictures"][0]["url"]).content
    mine, his = (
        each.http.post("/api/settings", content=png, headers=PNG).json() for each in (anna, ben)
    )
    assert mine["request"]["parent"] == start
    assert (his["request"]["parent"], his["differs"]) == (None, ["image"])
    assert [each.http.get("/api/info").json()["user"] for each in (anna, operator)] == ["anna", ""]


def test_only_the_operator_measures(people: tuple[Person, Person, Person]) -> None:
    anna, _, operator = people
    assert anna.http.get("/api/info").json()["can_measure"] is False
    for method in ("POST", "DELETE"):
        answer = anna.http.request(method, "/api/models/asymflow/measure")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "operators_only")
    assert operator.http.delete("/api/models/asymflow/measure").status_code == 404


def test_the_web_ui_shows_nothing_of_others(
    server: Running, people: tuple[Person, Person, Person], slow: Slow
) -> None:
    anna, ben, _ = people
    slow.gate.clear()
    anna.http.post("/api/jobs", json={"prompt": "a fox", **SMALL})
    told = ben.http.get("/sdapi/v1/progress").json()
    assert told["state"]["job_count"] == 0
    slow.gate.set()


def test_tokens_come_and_go_while_the_server_runs(server: Running, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    token = tokens.add(folder, "anna")
    with httpx.Client(base_url=server.url) as browser:
        assert browser.get("/api/info").status_code == 401
        answer = browser.get(f"/?token={token}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert token not in answer.headers["set-cookie"]
        assert browser.get("/api/info").json()["user"] == "anna"
        basic = base64.b64encode(f"me:{token}".encode()).decode()
        answer = httpx.get(
            f"{server.url}/sdapi/v1/options", headers={"Authorization": f"Basic {basic}"}
        )
        assert answer.status_code == 200
        tokens.revoke(folder, "anna")
        assert browser.get("/api/info").status_code == 401
    assert server.http.get("/api/info").status_code == 200  # the operator's


def read_to_the_end(lines: Iterable[str], within: float = 10) -> None:
    """Read a stream that says that it is alive; it has to end in so many seconds."""
    until = time.monotonic() + within
    for _ in lines:
        assert time.monotonic() < until, "the stream goes on"


def test_a_stream_ends_with_its_token(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asymflow.server.streams._QUIET", 0.05)
    token = tokens.add(tmp_path / "data", "anna")
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.stream("GET", f"{server.url}/api/events", headers=headers, timeout=10) as stream:
        lines = stream.iter_lines()
        next(lines)
        tokens.revoke(tmp_path / "data", "anna")
        read_to_the_end(lines)


def test_the_stream_of_a_job_ends_with_its_token(
    server: Running, tmp_path: Path, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asymflow.server.streams._QUIET", 0.05)
    headers = {"Authorization": f"Bearer {tokens.add(tmp_path / 'data', 'anna')}"}
    slow.gate.clear()
    url = f"{server.url}/api/jobs"
    asked = httpx.post(url, json={"prompt": "a fox", **SMALL}, headers=headers).json()
    url = f"{url}/{asked['id']}/events"
    with httpx.stream("GET", url, headers=headers, timeout=10) as stream:
        lines = stream.iter_lines()
        next(lines)
        tokens.revoke(tmp_path / "data", "anna")
        read_to_the_end(lines)  # while the job has not ended
    slow.gate.set()


def test_at_home_nobody_needs_a_token_until_there_are_some(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    job = server.over(server.ask("a fox")["id"])
    assert server.http.get("/api/info").json()["has_token"] is False
    tokens.add(tmp_path / "data", "anna")
    assert server.http.get("/api/pictures").status_code == 401
    tokens.revoke(tmp_path / "data", "anna")
    assert server.http.get("/api/pictures").status_code == 401  # the last one opens nothing
    (tmp_path / "data" / tokens.NAME).unlink()
    pictures = server.http.get("/api/pictures").json()["pictures"]
    assert [picture["job"] for picture in pictures] == [job["id"]]


def test_wrong_tokens_are_slowed_down(server: Running) -> None:
    def tried(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.get(f"{server.url}/api/info", headers=headers).status_code

    answers = [tried("wrong") for _ in range(30)]
    assert answers[:20] == [401] * 20
    assert answers[-1] == 429
    assert tried(OPERATOR) == 429  # or a right guess would be told from a wrong one
    wait_until(lambda: tried(OPERATOR) == 200, within=10, what="the end of the wait")


def test_only_hashes_are_kept(tmp_path: Path) -> None:
    token = tokens.add(tmp_path, "anna")
    kept = (tmp_path / tokens.NAME).read_text("utf-8")
    assert token not in kept
    assert tokens.cookie_of(token) not in kept
    found = Tokens(tmp_path)
    assert found.find(token) == found.find_cookie(tokens.cookie_of(token)) != None  # noqa: E711
    assert found.find(kept) is found.find("") is None
    with pytest.raises(InputError, match="has a token"):
        tokens.add(tmp_path, "anna")
    for name in ("", "../x", "a b", "x" * 65, "-x"):
        with pytest.raises(InputError, match="cannot be the name"):
            tokens.add(tmp_path, name)
    with pytest.raises(InputError, match=r"no token.*anna"):
        tokens.revoke(tmp_path, "ben")


def test_a_damaged_file_lets_nobody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    token = tokens.add(tmp_path, "anna")
    found = Tokens(tmp_path)
    assert found.find(token)
    time.sleep(0.01)
    (tmp_path / tokens.NAME).write_text("[{]")
    assert found.required
    assert found.find(token) is found.find(token) is None
    assert [record.reason for record in caplog.records] == [  # pyright: ignore
        f"{tmp_path / tokens.NAME} is damaged, and no token is valid. Put that of a backup in its "
        "place, or remove it and make tokens anew: asymflow token add NAME."
    ]
    with pytest.raises(FileFormatError, match="damaged"):
        tokens.names(tmp_path)


def test_a_file_that_cannot_be_opened_is_said_once_and_tried_at_every_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tokens.add(tmp_path, "anna")
    found, reads = Tokens(tmp_path), 0

    def unreadable(path: Path) -> tuple[tokens.Token, ...]:
        nonlocal reads
        reads += 1
        raise PermissionError(13, "Permission denied", str(path))

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(tokens, "_read", unreadable)
            assert found.find(token) is found.find(token) is None
        assert found.find(token)
        time.sleep(0.01)
        (tmp_path / tokens.NAME).touch()  # changed, so that it is read again
    assert reads == 4
    assert ["Permission denied" in record.reason for record in caplog.records] == [  # pyright: ignore
        True,
        True,
    ]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str) -> tuple[int, Any]:
        code = main.run(["token", *arguments, "--data", str(tmp_path), "--json"])
        printed = capsys.readouterr().out
        return code, json.loads(printed) if printed else None

    code, made = told("add", "anna")
    assert code == 0
    assert Tokens(tmp_path).find(made["token"]) is not None
    assert [each["name"] for each in told("list")[1]["tokens"]] == ["anna"]
    assert told("add", "anna")[0] == 2
    assert told("revoke", "anna")[1]["revoked"] == "anna"
    assert Tokens(tmp_path).find(made["token"]) is None
    assert told("revoke", "anna")[0] == 2
