"""Fetching, against a registry on this machine."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asymflow.models.embedded.styles import KEYWORDS, NAMES, STYLES, Package
from asymflow.training.data import fetch as module
from asymflow.training.data.fetch import DownloadError, fetch, integrity, registry

CONTENT = b"not really a tarball"


class Registry(ThreadingHTTPServer):
    """Serves one package's metadata and tarball, and remembers what was asked."""

    asked: list[str]
    content: bytes


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Registry)
        self.server.asked.append(self.path)
        if self.path == "/@scope%2fthing/1.0.0":
            host, port = self.server.server_address[:2]
            tarball = f"http://{host}:{port}/files/thing-1.0.0.tgz"
            body = json.dumps({"dist": {"tarball": tarball}}).encode()
        elif self.path == "/files/thing-1.0.0.tgz":
            body = self.server.content
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    server = Registry(("127.0.0.1", 0), Handler)
    server.asked, server.content = [], CONTENT
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(module.shutil, "which", lambda name: None)  # pyright: ignore
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def package(tmp_path: Path) -> Package:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return Package("@scope/thing", "1.0.0", integrity(path))


def test_integrity_is_npms_form(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    known = (
        "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+"
        "SfaPg=="
    )
    assert integrity(tmp_path / "empty") == known


def test_fetches_once(server: Registry, package: Package, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    path = fetch(package, cache)
    assert path.read_bytes() == CONTENT
    assert path == cache / "packages" / "scope-thing-1.0.0.tgz"
    asked = list(server.asked)
    assert len(asked) == 2
    assert fetch(package, cache) == path
    assert server.asked == asked  # the second time nothing was asked


def test_damaged_cache_is_fetched_again(server: Registry, package: Package, tmp_path: Path) -> None:
    path = fetch(package, tmp_path)
    path.write_bytes(CONTENT[:5])
    assert fetch(package, tmp_path).read_bytes() == CONTENT


def test_other_bytes_are_refused(server: Registry, package: Package, tmp_path: Path) -> None:
    server.content = b"something else"
    with pytest.raises(DownloadError, match="other bytes"):
        fetch(package, tmp_path)
    assert not list(tmp_path.rglob("*.tgz"))


def test_missing_version_says_where_it_looked(
    server: Registry, package: Package, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError, match=r"2\.0\.0 from http://127.*404"):
        fetch(replace(package, version="2.0.0"), tmp_path)


def test_npm_is_used_where_installed(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "npm"
    npm.write_text(
        "#!/bin/sh\n"
        f'[ "$2" = "@scope/thing@1.0.0" ] || {{ echo "no such version: $2" >&2; exit 1; }}\n'
        f'for last; do :; done; cp {tmp_path}/content "$last/scope-thing-1.0.0.tgz"\n'
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(shutil.which('sh') or '/bin/sh').parent}")
    assert fetch(package, tmp_path / "cache").read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="no such version: @scope/thing@3"):
        fetch(replace(package, version="3"), tmp_path / "cache")


def test_registry_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    monkeypatch.delenv("npm_config_registry", raising=False)
    assert registry() == module.PUBLIC_REGISTRY
    monkeypatch.setenv("npm_config_registry", "https://example.org/npm")
    assert registry() == "https://example.org/npm/"


def test_every_package_is_pinned() -> None:
    packages = [NAMES, KEYWORDS, *(style.package for style in STYLES)]
    assert len({package.name for package in packages}) == len(packages)
    assert all(package.integrity.startswith("sha512-") for package in packages)


def test_licences_are_open_and_not_share_alike() -> None:
    assert {style.licence for style in STYLES} <= {"MIT", "Apache-2.0", "CC-BY-4.0"}
    assert len({style.id for style in STYLES}) == len(STYLES)
    assert all(style.licence in style.notice and style.upstream in style.notice for style in STYLES)
