"""Models of a hub: here a server of our own that speaks as much of its language, and its cache."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from tests import miniatures

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

COMMITS = {"main": 40 * "a", "smaller": 40 * "b"}
CODE = """
from pathlib import Path

from diffusers import DDIMPipeline

Path("ran").touch()


class Mine(DDIMPipeline):
    pass
"""


@dataclass(eq=False)
class Hub:
    """What the server holds, by repository and commit."""

    url: str = ""
    files: dict[tuple[str, str], Mapping[str, bytes]] = field(
        default_factory=dict[tuple[str, str], Mapping[str, bytes]]
    )
    asked: list[str] = field(default_factory=list[str])


class Handler(BaseHTTPRequestHandler):
    """`/OWNER/NAME/resolve/REVISION/PATH`, and of the API what lists the files of a revision."""

    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.handle_path(body=False)

    def do_GET(self) -> None:
        self.handle_path(body=True)

    def handle_path(self, *, body: bool) -> None:
        self.hub.asked.append(self.path)
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        api = parts[0] == "api"
        owner, name, _, revision, *rest = (parts[2:] if api else parts) + ["", "main"]
        if not api:
            rest = rest[:-2] or rest
        commit = COMMITS.get(revision, revision)
        held = self.hub.files.get((f"{owner}/{name}", commit))
        if held is None:
            code = "RepoNotFound" if commit in COMMITS.values() else "RevisionNotFound"
            self.answer(404, b'{"error": "Not found"}', {"X-Error-Code": code}, body)
        elif api:
            names = [{"rfilename": each, "path": each, "type": "file", "oid": "0", "size": len(c)}
                     for each, c in held.items()]  # fmt: skip
            about: Any = {"id": f"{owner}/{name}", "sha": commit, "siblings": names}
            found = names if parts[4:5] == ["tree"] else about
            self.answer(200, json.dumps(found).encode(), {}, body)
        elif (content := held.get("/".join(rest))) is None:
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body)
        else:
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            self.answer(200, content, {"ETag": etag, "X-Repo-Commit": commit}, body)

    def answer(self, status: int, data: bytes, headers: Mapping[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Generator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    made = Hub()

    def publish(
        name: str, path: Path, more: Mapping[str, bytes] | None = None, revision: str = "main"
    ) -> None:
        held = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
        made.files[name, COMMITS[revision]] = {**held, **(more or {})}

    ddim = miniatures.ddim_folder(folder)
    publish("me/ddim", ddim)
    publish("me/minit2i", miniatures.minit2i_folder(folder))
    said = json.dumps({"title": "Mine", "classes": ["cat", "dog", "owl"], "null": 3}).encode()
    classes = miniatures.ddim_folder(folder / "classes", num_class_embeds=4)
    publish("me/classes", classes, {"asymflow.json": said}, "smaller")
    index = json.loads((ddim / "model_index.json").read_text("utf-8"))
    own = json.dumps({**index, "_class_name": ["pipeline", "Mine"]}).encode()
    publish("me/code", ddim, {"model_index.json": own, "pipeline.py": CODE.encode()})
    latent = {**index, "_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "VAE"]}
    publish("me/latent", ddim, {"model_index.json": json.dumps(latent).encode()})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, made)) as http:
        made.url = f"http://127.0.0.1:{http.server_port}"
        Thread(target=http.serve_forever, daemon=True).start()
        yield made
        http.shutdown()


SCRIPT = """
import json, sys
from pathlib import Path
import asymflow
for ref, options in json.loads(sys.argv[1]):
    try:
        found = asymflow.load(ref, **options)
        print(json.dumps([found.name, found.card.title, list(found.card.classes),
                          Path("ran").exists()]))
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error), Path("ran").exists()]))
"""


def loaded(url: str, folder: Path, *asked: tuple[str, Mapping[str, Any]], **more: str) -> list[Any]:
    """What comes of loading these in a process of its own: the hub's address is read once."""
    environment = {
        **os.environ, "HF_ENDPOINT": url, "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": os.pathsep.join(sys.path), **more,
    }  # fmt: skip
    run = [sys.executable, "-c", SCRIPT, json.dumps(asked)]
    done = subprocess.run(
        run, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_models_of_a_hub(hub: Hub, tmp_path: Path) -> None:
    classes = ("me/classes", {"revision": "smaller"})
    ddim, named, minit2i, again, code, latent, missing, revision, option, trusted = loaded(
        hub.url, tmp_path,
        ("me/ddim", {}), classes, ("me/minit2i", {}), ("me/ddim", {"revision": 40 * "a"}),
        ("me/code", {}), ("me/latent", {}), ("me/gone", {}), ("me/ddim", {"revision": "gone"}),
        ("me/ddim", {"colour": "red"}), ("me/code", {"trust_remote_code": True}),
    )  # fmt: skip
    assert ddim[0].startswith("pipeline:")
    assert ddim[1] == "DDIM"
    assert again == ddim
    assert named[1:3] == ["Mine", ["cat", "dog", "owl"]]
    assert minit2i[0].startswith("minit2i:")
    assert code[0] == "InputError"
    assert "me/code brings its own code (pipeline/Mine)" in code[1]
    assert latent[0] == "InputError"
    assert "works on the latents of its vae" in latent[1]
    weights = [path for path in hub.asked if "me/latent" in path and "safetensors" in path]
    assert weights == []
    for found in (missing, revision):
        assert found[0] == "InputError"
        assert "is no folder here, and on the hub it cannot be reached: " in found[1]
        assert found[1].endswith("Check the name and the connection, or give the path of a folder.")
        assert found[1].count("\n") == 0
    assert option[0] == "InputError"
    assert "colour is no option of the model" in option[1]
    assert option[-1] is False  # no code has run
    assert trusted[0].startswith("pipeline:"), trusted
    assert trusted[-1] is True
    # Without a connection, what is in the cache is enough, and the rest is said.
    count = len(hub.asked)
    offline = loaded(
        hub.url, tmp_path, ("me/ddim", {}), classes, ("me/minit2i", {}), ("me/gone", {}),
        HF_HUB_OFFLINE="1",
    )  # fmt: skip
    assert [each[:3] for each in offline[:3]] == [ddim[:3], named[:3], minit2i[:3]]
    assert "on the hub it cannot be reached" in offline[3][1]
    assert len(hub.asked) == count
