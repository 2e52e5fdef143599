"""Keys on disk: files that only we can read, and the register of whom a cluster admits.

* ``KeyStore`` is the head's directory of keys: the cluster's own pair, and a durable register of whom it admits.
* ``Register`` is the reading side of that register: the head reads the store's own, any other node a copy that the GCS
  keeps up to date. Every process of a host reads the same file, at each handshake, so that a revocation holds for all
  of them at once.
* ``KeyFile`` is what somebody who joins has to have.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import zmq
from zmq.utils import z85

from actorlib.transport import limits
from actorlib.transport.newcomers import Newcomers, NotHeardOf

ROLES = ("node", "driver")
HEAD = "head"
KEY_BYTES = 32
REGISTER_VERSION = 1
GOES_IN_NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class AccessError(Exception):
    """A key, a key file or the register can't be used; the message says what to do."""


class KeyPair(NamedTuple):
    """A CURVE key pair, each half 40 characters of Z85. The secret stays out of logs and tracebacks."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r}, secret=...)"


def new_key_pair() -> KeyPair:
    return KeyPair(*zmq.curve_keypair())


class Identity(NamedTuple):
    """Whose key it is. ``name`` arrives with every message of a connection as its ``User-Id``."""

    name: str
    role: str


class KeyFile(NamedTuple):
    """What somebody who joins has to have: their own keys, and the public key of the cluster that they will meet."""

    path: Path
    name: str
    role: str
    keys: KeyPair
    server: bytes

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KeyFile:
        """Read a key file.

        Raises:
            AccessError: It is not there, others can read it, or it is no key file.
        """
        entry = load_private(Path(path), limits.key_file_bytes_max)
        try:
            keys = key_pair(entry)
            return cls(Path(path), str(entry["name"]), str(entry["role"]), keys, public_key(entry["server"]))
        except (KeyError, TypeError, ValueError) as error:
            raise AccessError(f"{path} is no key file of actorlib, or it is damaged ({error!r})") from None


class Key(NamedTuple):
    """An entry of the register. Times in seconds since 1970; ``revoked_at`` 0.0: it is in force."""

    name: str
    role: str
    public: str
    created_at: float
    revoked_at: float


# -- files -------------------------------------------------------------------------------------------------------------
def _check_private(path: Path, status: os.stat_result) -> None:
    mode = status.st_mode & 0o777
    if mode & 0o077:
        wanted = "700" if path.is_dir() else "600"
        raise AccessError(f"{path} is open to others (mode {mode:04o}); close it with: chmod {wanted} {path}")
    if status.st_uid not in (os.geteuid(), 0):
        raise AccessError(f"{path} belongs to user {status.st_uid}, and this process runs as {os.geteuid()}")


def load_private(path: Path, bytes_max: int) -> dict[str, Any]:
    """The JSON object in a file that only we can read. What was checked is what is read: one file descriptor."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise AccessError(f"can't read {path}: {error.strerror}") from None
    with open(fd, "rb") as file:
        _check_private(path, os.fstat(fd))
        data = file.read(bytes_max + 1)
    try:
        value = json.loads(data) if len(data) <= bytes_max else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise AccessError(f"{path} holds nothing that actorlib has written, or it is damaged")
    return value


def save_private(path: Path, value: dict[str, Any]) -> None:
    """Write a file so that a power cut leaves the old one or the new one, on disk when this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(json.dumps(value, indent=1).encode() + b"\n")
            file.flush()
            os.fsync(fd)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def public_key(text: object) -> bytes:
    key = str(text).encode("ascii")
    if len(key) != 40 or len(z85.decode(key)) != KEY_BYTES:
        raise ValueError("not a CURVE key")
    return key


def key_pair(entry: dict[str, Any]) -> KeyPair:
    pair = KeyPair(public_key(entry["public"]), public_key(entry["secret"]))
    if zmq.curve_public(pair.secret) != pair.public:
        raise ValueError("the public key is not that of the secret one")
    return pair


# -- whom a cluster admits ---------------------------------------------------------------------------------------------
class Register:
    """Whom a cluster admits, read from a file that somebody else may replace at any time. Any thread.

    ``identify`` and ``refresh`` read it again when it has changed; ``on_revoked(name)`` is called once for each key
    that has gone, by whichever thread notices.

    Args:
        path: The file; that there is none yet means that nobody but the head is admitted.
        cluster: The public key of the head, which is always admitted.
    """

    def __init__(self, path: Path, cluster: bytes, on_revoked: Callable[[str], object] | None = None) -> None:
        self.path = path
        self.cluster = cluster
        self.on_revoked = on_revoked
        self.keys: dict[str, Key] = {}
        self._lock = threading.RLock()
        self._signature: tuple[int, ...] = ()
        self._allowed: dict[bytes, Identity] = {}
        self._revoked: set[bytes] = set()
        self._newcomers = Newcomers()
        self.refresh()

    def allowed(self) -> dict[bytes, Identity]:
        self.refresh()
        return dict(self._allowed)

    def identify(self, public: bytes) -> Identity | None:
        self.refresh()
        return self._allowed.get(public)

    def identify_or_wait(self, public: bytes) -> Identity | None:
        """Like ``identify``, where the file is a copy that may lag behind.

        Raises:
            NotHeardOf: The key may be a new one.
        """
        found = self.identify(public)
        with self._lock:
            is_new = found is None and public not in self._revoked
            if is_new and self._newcomers.may_try_again(time.monotonic(), public):
                raise NotHeardOf
        return found

    def refresh(self) -> tuple[str, ...]:
        """Look whether the file has changed; the names revoked since the last look."""
        with self._lock:
            before = {identity.name for identity in self._allowed.values()}
            self._read()
            revoked = tuple(sorted(before - {identity.name for identity in self._allowed.values()}))
        if self.on_revoked is not None:
            for name in revoked:
                self.on_revoked(name)
        return revoked

    def _read(self) -> None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            if self._signature:
                raise AccessError(f"{self.path} has gone; nobody new is admitted until it is back") from None
            self._allowed = {self.cluster: Identity(HEAD, HEAD)}
            return
        signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        if signature == self._signature:
            return
        value = load_private(self.path, limits.key_register_bytes_max)
        if value.get("version") != REGISTER_VERSION:
            raise AccessError(f"{self.path} is of version {value.get('version')}; this is {REGISTER_VERSION}")
        try:
            keys = {entry[0]: Key(*entry) for entry in value["keys"]}
            allowed = {public_key(k.public): Identity(k.name, k.role) for k in keys.values() if not k.revoked_at}
            revoked = {public_key(k.public) for k in keys.values() if k.revoked_at}
        except (LookupError, TypeError, ValueError) as error:
            raise AccessError(f"{self.path} is damaged ({error!r}); nobody new is admitted") from None
        self.keys = keys
        self._allowed = {self.cluster: Identity(HEAD, HEAD), **allowed}
        self._revoked = revoked
        self._signature = signature

    def write(self, keys: dict[str, Key]) -> None:
        """Replace the file as a whole; on disk when this returns."""
        save_private(self.path, {"version": REGISTER_VERSION, "keys": [*keys.values()]})


# -- the head's keys ---------------------------------------------------------------------------------------------------
class KeyStore:
    """The keys of a cluster, in a directory of the head's. Any thread; several processes may hold the same one.

    The register is a file that is replaced as a whole, under a lock between processes. ``identify`` and ``refresh``
    read it again when it has changed, so that a key that another process revokes is refused from the next handshake
    on; ``on_revoked(name)`` is called once for each, by whichever thread notices (``refresh`` is for the heartbeat).

    Example:
        >>> store = KeyStore(directory)
        >>> file = store.new("gpu-7", "node")  # copy file.path to that machine
        >>> store.revoke("gpu-7")
    """

    def __init__(self, directory: str | os.PathLike[str], on_revoked: Callable[[str], object] | None = None) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(self.directory, self.directory.stat())
        self._cluster = self._load_cluster_key()
        self.register = Register(self.directory / "register.json", self._cluster.public, on_revoked)

    def cluster_key(self) -> KeyPair:
        """The pair that the head serves with; made when the store is."""
        return self._cluster

    def new(self, name: str, role: str) -> KeyFile:
        """Make a key and its file, ``NAME.key``, readable by us only.

        Raises:
            AccessError: The name was used before (also by a key that was revoked), or it can't be one.
        """
        if not GOES_IN_NAMES.fullmatch(name) or name in (HEAD, "cluster"):
            raise AccessError(f"{name!r} can't name a key: letters, digits and . _ - only, 64 at most, not 'head'")
        if role not in ROLES:
            raise AccessError(f"a key is for one of {', '.join(ROLES)}, not for {role!r}")
        with self._alone():
            self.refresh()
            if name in self.register.keys:
                raise AccessError(f"there was a key named {name!r} already; choose a name that was never used")
            if len(self.register.keys) >= limits.access_keys_max:
                raise AccessError(f"the register is full: {limits.access_keys_max} keys")
            pair = new_key_pair()
            file = KeyFile(self.directory / f"{name}.key", name, role, pair, self._cluster.public)
            entry = {"name": name, "role": role, "public": pair.public.decode(), "secret": pair.secret.decode()}
            save_private(file.path, {**entry, "server": self._cluster.public.decode()})
            self.register.write({**self.register.keys, name: Key(name, role, pair.public.decode(), time.time(), 0.0)})
            return file

    def list(self) -> tuple[Key, ...]:
        """All keys there ever were, in the order made."""
        self.refresh()
        return tuple(self.register.keys.values())

    def revoke(self, name: str) -> None:
        """Refuse that key from now on. On disk when this returns; doing it twice is doing it once.

        Raises:
            AccessError: There is no key of that name.
        """
        with self._alone():
            self.refresh()
            key = self.register.keys.get(name)
            if key is None:
                raise AccessError(f"there is no key named {name!r}")
            if not key.revoked_at:
                self.register.write({**self.register.keys, name: key._replace(revoked_at=time.time())})
            (self.directory / f"{name}.key").unlink(missing_ok=True)
        self.refresh()

    def allowed(self) -> dict[bytes, Identity]:
        """Whom to admit, by public key; the head itself is among them."""
        return self.register.allowed()

    def identify(self, public: bytes) -> Identity | None:
        """Whose key that is; None if it is nobody's, or was revoked. For ``ZapHandler``."""
        return self.register.identify(public)

    def refresh(self) -> tuple[str, ...]:
        """Look whether the register has changed; the names revoked since the last look."""
        return self.register.refresh()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Alone among threads and processes."""
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _load_cluster_key(self) -> KeyPair:
        path = self.directory / "cluster.key"
        with self._alone():
            if not path.exists():
                pair = new_key_pair()
                save_private(path, {"public": pair.public.decode(), "secret": pair.secret.decode()})
        try:
            return key_pair(load_private(path, limits.key_file_bytes_max))
        except (LookupError, TypeError, ValueError) as error:
            raise AccessError(f"{path} is damaged ({error!r}); put it back from a copy") from None
