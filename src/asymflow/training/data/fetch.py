"""Fetch pinned npm packages into a cache and verify them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from asymflow.core.errors import AsymflowError
from asymflow.io.files import replacing
from asymflow.models.embedded.styles import Package

PUBLIC_REGISTRY = "https://registry.npmjs.org/"
TIMEOUT_S = 60
CHUNK_BYTES = 1 << 20


class DownloadError(AsymflowError):
    """A package could not be fetched, or differs from the pinned one."""


def fetch(package: Package, cache: Path) -> Path:
    """Return the verified `.tgz` of a package, downloading it to `cache` if absent.

    Uses `npm pack` if npm is installed, which respects the user's registry, proxy and credentials;
    otherwise HTTPS.

    Raises:
        DownloadError: the registry cannot be reached, lacks the version, or serves
            bytes whose SHA-512 differs from the pinned one.
    """
    target = cache / "packages" / f"{_flat(package.name)}-{package.version}.tgz"
    if target.is_file() and integrity(target) == package.integrity:
        return target
    with tempfile.TemporaryDirectory(prefix="asymflow-") as folder:
        npm = shutil.which("npm")
        if npm is not None:
            found = _npm_pack(npm, package, Path(folder))
        else:
            found = _https_get(package, Path(folder))
        actual = integrity(found)
        if actual != package.integrity:
            raise DownloadError(
                f"{package.name} {package.version} has integrity {actual}, but "
                f"{package.integrity} is pinned: the registry served other bytes. "
                "Retry, or set NPM_CONFIG_REGISTRY to a registry you trust."
            )
        with found.open("rb") as source, replacing(target) as file:
            shutil.copyfileobj(source, file, CHUNK_BYTES)
    return target


def integrity(path: Path) -> str:
    """npm's integrity string, `sha512-<base64>`, of a file."""
    digest = hashlib.sha512()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return "sha512-" + base64.b64encode(digest.digest()).decode()


def registry() -> str:
    """URL of the npm registry for HTTPS, with a trailing slash."""
    for variable in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if url := os.environ.get(variable):
            return url.rstrip("/") + "/"
    return PUBLIC_REGISTRY


def _flat(name: str) -> str:
    return name.removeprefix("@").replace("/", "-")


def _npm_pack(npm: str, package: Package, folder: Path) -> Path:
    spec = f"{package.name}@{package.version}"
    command = [npm, "pack", spec, "--ignore-scripts", "--silent", "--pack-destination", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    tarballs = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(tarballs) != 1:
        raise DownloadError(
            f"`npm pack {spec}` failed with status {done.returncode}: "
            f"{done.stderr.strip() or 'npm gave no reason'}. "
            "Check the network and `npm config get registry`, then run the build again; "
            "packages already fetched are kept."
        )
    return tarballs[0]


def _https_get(package: Package, folder: Path) -> Path:
    metadata_url = f"{registry()}{package.name.replace('/', '%2f')}/{package.version}"
    target = folder / "package.tgz"
    try:
        with urllib.request.urlopen(metadata_url, timeout=TIMEOUT_S) as reply:
            metadata: dict[str, Any] = json.load(reply)
        tarball = urllib.request.urlopen(metadata["dist"]["tarball"], timeout=TIMEOUT_S)
        with tarball as reply, target.open("wb") as file:
            shutil.copyfileobj(reply, file, CHUNK_BYTES)
    except (OSError, ValueError, KeyError) as error:  # URLError is an OSError
        raise DownloadError(
            f"cannot download {package.name} {package.version} from {metadata_url}: {error}. "
            "Check the network or set NPM_CONFIG_REGISTRY, then run the build again; "
            "packages already fetched are kept."
        ) from error
    return target
