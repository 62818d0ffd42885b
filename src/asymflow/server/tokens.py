"""Tokens of people: made and revoked while a server runs, and kept as hashes only.

They are in a file of the data folder. As long as that file is there every call needs a token, also
when all of them are revoked: otherwise the last revocation would open the server to everybody.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from asymflow.core.errors import FileFormatError, InputError
from asymflow.io.files import replacing

NAME = "tokens.json"
HELD = "asymflow.token"
"""The token of a call, in its scope."""
_LOCK = "tokens.lock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_log = logging.getLogger("asymflow.server")


@dataclass(frozen=True, slots=True)
class Token:
    """A token, of which only hashes are kept.

    Attributes:
        name: of the person, who owns what is made with it.
        created: seconds since 1970.
        token: SHA-256 of it.
        cookie: SHA-256 of the cookie that browsers get for it.
    """

    name: str
    created: float
    token: str
    cookie: str


_TOKENS = TypeAdapter(tuple[Token, ...])


class Tokens:
    """The tokens of a data folder, read again whenever their file has changed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._lock = threading.Lock()
        self._state: tuple[int, int, int] | None = None
        self._problem = ""
        self._by_hash: dict[str, Token] = {}
        self._held: frozenset[Token] = frozenset()

    @property
    def required(self) -> bool:
        """Whether tokens were ever made here."""
        return self._path.exists()

    def find(self, token: str) -> Token | None:
        """The entry of a token."""
        return self._found(f"token {_hash(token)}")

    def find_cookie(self, cookie: str) -> Token | None:
        """The entry of the token that a cookie was given for."""
        return self._found(f"cookie {_hash(cookie)}")

    def holds(self, token: Token) -> bool:
        """Whether a token is still valid."""
        with self._lock:
            self._renew()
            return token in self._held

    def _found(self, key: str) -> Token | None:
        with self._lock:
            self._renew()
            return self._by_hash.get(key)

    def _renew(self) -> None:
        try:
            stat = self._path.stat()
            state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except FileNotFoundError:
            state = None
        if state == self._state:
            return
        self._by_hash, self._held = {}, frozenset()
        if state is not None:
            try:
                held = _read(self._path)
            except (FileFormatError, OSError) as error:  # nobody is let in meanwhile
                if str(error) != self._problem:  # once, and not at every call
                    _log.error("the tokens cannot be read", extra={"reason": str(error)})
                self._problem = str(error)
                if isinstance(error, OSError):  # it may be opened the next time
                    return
                held = ()
            else:
                self._problem = ""
            self._held = frozenset(held)
            for each in held:
                self._by_hash[f"token {each.token}"] = each
                self._by_hash[f"cookie {each.cookie}"] = each
        self._state = state


def add(folder: Path, name: str) -> str:
    """Make a token and return it; it is shown only this once.

    Raises:
        InputError: the name is not possible, or has a token.
        FileFormatError: the file is damaged.
        OSError: it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:80]!r} cannot be the name of a token. Take up to 64 letters, digits, dots, "
            "dashes and underscores, beginning with a letter or a digit."
        )
    token = secrets.token_urlsafe(32)
    with _changing(folder) as found:
        if name in found:
            raise InputError(
                f"{name} has a token. To change it, revoke it first: asymflow token revoke {name}. "
                "What was made with it stays."
            )
        found[name] = Token(name, time.time(), _hash(token), _hash(cookie_of(token)))
    return token


def revoke(folder: Path, name: str) -> None:
    """Make the token of a name invalid at once; what was made with it stays.

    Raises:
        InputError: there is none.
        FileFormatError: the file is damaged.
        OSError: it cannot be written.
    """
    with _changing(folder) as found:
        if found.pop(name, None) is None:
            known = ", ".join(found) or "none"
            raise InputError(f"There is no token of the name {name[:80]!r}. There is {known}.")


def names(folder: Path) -> tuple[Token, ...]:
    """All tokens, oldest first.

    Raises:
        FileFormatError: the file is damaged.
    """
    path = folder / NAME
    return _read(path) if path.exists() else ()


def cookie_of(token: str) -> str:
    """A cookie value that does not reveal the token: browsers send it to every port of a host."""
    return hmac.new(token.encode(), b"asymflow studio cookie", hashlib.sha256).hexdigest()


@contextmanager
def _changing(folder: Path) -> Generator[dict[str, Token]]:
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / _LOCK):
        found = {each.name: each for each in names(folder)}
        yield found
        text = json.dumps([asdict(each) for each in found.values()], indent=1)
        with replacing(folder / NAME) as file:
            file.write(text.encode())


def _read(path: Path) -> tuple[Token, ...]:
    try:
        return _TOKENS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise FileFormatError(
            f"{path} is damaged, and no token is valid. Put that of a backup in its place, or "
            "remove it and make tokens anew: asymflow token add NAME."
        ) from error


def _hash(text: str) -> str:
    # Tokens are random and long: a slow hash would protect nothing more.
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
