"""Plans travel through a hub: here a server of our own that speaks as much of its language."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import asymflow
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import Plan
from asymflow.integrations.diffusers import hub

pytest.importorskip("diffusers")

Make = Callable[..., Any]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PLAN = plan_of(uniform(3), name="mine")


@dataclass(eq=False)
class Hub:
    """What the server holds, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    asked: list[str] = field(default_factory=list[str])
    tokens: set[str | None] = field(default_factory=set[str | None])
    refuses: bool = False


class Handler(BaseHTTPRequestHandler):
    """`/OWNER/NAME/resolve/REVISION/PATH`, and of the API what creating and committing takes."""

    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.note()
        if self.hub.refuses:
            self.answer(401, {"error": "Invalid token"})
        elif self.path == "/api/repos/create":
            self.answer(200, {"url": f"{self.hub.url}/me/model"})
        elif "/preupload/" in self.path:
            paths = [each["path"] for each in json.loads(body)["files"]]
            modes = [
                {"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths
            ]
            self.answer(200, {"files": modes})
        else:
            assert self.path.startswith("/api/models/me/model/commit/main")
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.hub.files[line["value"]["path"]] = content
            made = {"commitUrl": f"{self.hub.url}/me/model/commit/{COMMIT}", "commitOid": COMMIT}
            if "create_pr=1" in self.path:
                made["pullRequestUrl"] = f"{self.hub.url}/me/model/discussions/1"
            self.answer(200, made)

    def do_HEAD(self) -> None:
        self.file(body=False)

    def do_GET(self) -> None:
        self.file(body=True)

    def file(self, *, body: bool) -> None:
        self.note()
        _, _, path = self.path.partition(f"/resolve/{self.path.split('/')[4]}/")
        found = self.hub.files.get(path)
        if found is None:
            self.answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}, body)
        else:
            etag = f'"{hashlib.sha1(found).hexdigest()}"'
            self.answer(200, found, {"ETag": etag, "X-Repo-Commit": COMMIT}, body)

    def note(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        self.hub.tokens.add(self.headers.get("Authorization"))

    def answer(
        self, status: int, said: Any, headers: dict[str, str] | None = None, body: bool = True
    ) -> None:
        data = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def server() -> Generator[Hub]:
    found = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, found)) as http:
        found.url = f"http://127.0.0.1:{http.server_port}"
        Thread(target=http.serve_forever, daemon=True).start()
        yield found
        http.shutdown()


@pytest.fixture
def push(server: Hub) -> Callable[..., str]:
    return partial(hub.push, endpoint=server.url, token="secret")


@pytest.fixture
def pull(server: Hub, tmp_path: Path) -> Callable[..., Plan]:
    return partial(hub.pull, endpoint=server.url, cache_dir=tmp_path, token="secret")


def test_a_plan_goes_and_comes_back(
    server: Hub, push: Callable[..., str], pull: Callable[..., Plan]
) -> None:
    assert push(PLAN, "me/model") == f"{server.url}/me/model/commit/{COMMIT}"
    assert set(server.files) == {"asymflow/plan.json"}
    assert pull("me/model") == PLAN
    push(PLAN, "me/model", name="fast")
    assert pull("me/model", name="fast") == PLAN
    assert server.tokens == {"Bearer secret"}


def test_a_pull_request_is_answered_with_its_address(server: Hub, push: Callable[..., str]) -> None:
    assert push(PLAN, "me/model", create_pr=True) == f"{server.url}/me/model/discussions/1"


def test_local_files_only_asks_nobody(
    server: Hub, push: Callable[..., str], pull: Callable[..., Plan]
) -> None:
    push(PLAN, "me/model")
    count = len(server.asked)
    with pytest.raises(InputError, match=r"No plan asymflow/plan\.json was found in 'me/model'"):
        pull("me/model", local_files_only=True)
    assert len(server.asked) == count
    pull("me/model")
    count = len(server.asked)
    assert pull("me/model", local_files_only=True) == PLAN
    assert len(server.asked) == count


def test_what_the_hub_refuses_is_said(
    server: Hub, push: Callable[..., str], pull: Callable[..., Plan]
) -> None:
    with pytest.raises(InputError, match=r"No plan asymflow/none\.json .* 'me/model': .*404"):
        pull("me/model", name="none")
    with pytest.raises(InputError, match="cannot be written to 'one/two/three'"):
        push(PLAN, "one/two/three")
    for name in ("../../plan", "", "a/b"):
        with pytest.raises(InputError, match="cannot be the name of a plan"):
            push(PLAN, "me/model", name=name)
    server.refuses = True
    with pytest.raises(InputError, match=r"cannot be written to 'me/model': .*401.*token="):
        push(PLAN, "me/model")


def test_where_there_is_no_hub_it_is_said() -> None:
    with pytest.raises(InputError, match=r"cannot be written to 'me/model': .*refused"):
        hub.push(PLAN, "me/model", endpoint="http://127.0.0.1:9")


def test_other_files_are_no_plans(server: Hub, pull: Callable[..., Plan]) -> None:
    server.files["asymflow/plan.json"] = b"import os"
    with pytest.raises(FileFormatError, match=r"'me/model' holds no plan as asymflow/plan\.json"):
        pull("me/model")


def test_accelerate_takes_the_name_of_a_repository(
    unconditional: Make, server: Hub, pull: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(PLAN, "me/model", endpoint=server.url)
    hub.push(plan_of(uniform(5), name="other"), "me/model", name="other", endpoint=server.url)
    monkeypatch.setattr(hub, "pull", pull)
    pipe = unconditional()
    assert asymflow.accelerate(pipe, "me/model").asymflow_plan == PLAN
    with pytest.raises(InputError, match="no plan called 'other' beside this model"):
        asymflow.accelerate(pipe, "other")
    pipe.register_to_config(_name_or_path="me/model")  # as if it had been loaded from there
    assert asymflow.accelerate(pipe, "other").asymflow_plan.name == "other"


def test_an_accelerated_pipeline_is_pushed_with_its_plan(
    unconditional: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By diffusers' own method, which saves to a folder first."""
    from diffusers.utils import hub_utils

    sent: dict[str, set[str]] = {}

    def create_repo(repo_id: str, **_: Any) -> Any:
        return type("Repo", (), {"repo_id": repo_id})

    def upload_folder(repo_id: str, folder_path: str, **_: Any) -> str:
        root = Path(folder_path)
        sent[repo_id] = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        return repo_id

    class Card:
        def save(self, path: str) -> None:
            Path(path).write_text("")

    def card(*_: Any, **__: Any) -> Card:
        return Card()

    monkeypatch.setattr(hub_utils, "create_repo", create_repo)
    monkeypatch.setattr(hub_utils, "upload_folder", upload_folder)
    monkeypatch.setattr(hub_utils, "load_or_create_model_card", card)
    monkeypatch.setattr(hub_utils, "populate_model_card", card)
    asymflow.accelerate(unconditional(), PLAN).push_to_hub("me/model")
    assert {"asymflow/plan.json", "model_index.json"} <= sent["me/model"]
    assert not any(name.endswith((".bin", ".py", ".pkl")) for name in sent["me/model"])
