"""Who may talk to us over TCP: keys, the handler that ZeroMQ asks about each of them, and what strangers can cost.

Everything on TCP is CURVE; every node and every driver has a key pair of its own, so that one can be revoked. Local
sockets (``ipc://``) carry none of this: the 0700 directory that they lie in guards them.

* ``KeyStore`` is the head's directory of keys: the cluster's own pair, and a durable register of whom it admits.
* ``ZapHandler`` answers libzmq's question about each connection (RFC 27, ZAP), and denies by default.
* ``Access`` is what ``drivers/sockets.py`` is given: it puts CURVE on each TCP socket before it binds or connects.

Why a handler of our own: pyzmq's admits NULL clients on a socket that forgot CURVE, and CURVE without a handler admits
any key. Why a thread of its own: a handshake must be answered also while nobody drives the loop or a handler of the
loop takes long, and a third socket in the loop's poll would cost every turn a microsecond for what happens once a
connection. The thread sleeps in poll until somebody knocks.

If the handler is dead, nobody gets in: the domain is enforced, so libzmq refuses what it can't ask about.

Strangers. Before it has proved a key, a connection can make libzmq buffer one frame of up to MAXMSGSIZE (measured: 200
MiB sent, 200 MiB held, where the limit allowed it), for as long as HANDSHAKE_IVL. So both are set, far below what local
sockets have, and ``Handshakes`` bounds how many such connections there are at a time.

Revocation. libzmq has no call that ends one session of a socket that binds. So the TCP connections that may be the
revoked key's (those from the addresses that it was seen at) are shut down under libzmq: their peers dial again by
themselves, sessions go on where they were, and the revoked one meets the handler.
"""

from __future__ import annotations

import enum
import fcntl
import ipaddress
import itertools
import json
import os
import re
import socket as sockets
import struct
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import zmq
from zmq.utils import z85

from actorlib.transport import limits

DOMAIN = b"actorlib"
ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
ROLES = ("node", "driver")
HEAD = "head"
KEY_BYTES = 32
REGISTER_VERSION = 1
GOES_IN_NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ROLE_PROPERTY = "X-Role"
MONITOR_EVENT = struct.Struct("=HI")
_guard_numbers = itertools.count(1)


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
        entry = _load_private(Path(path), limits.key_file_bytes_max)
        try:
            keys = _key_pair(entry)
            return cls(Path(path), str(entry["name"]), str(entry["role"]), keys, _public(entry["server"]))
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


def _load_private(path: Path, bytes_max: int) -> dict[str, Any]:
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


def _save_private(path: Path, value: dict[str, Any]) -> None:
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


def _public(text: str) -> bytes:
    key = text.encode("ascii")
    if len(key) != 40 or len(z85.decode(key)) != KEY_BYTES:
        raise ValueError("not a CURVE key")
    return key


def _key_pair(entry: dict[str, Any]) -> KeyPair:
    pair = KeyPair(_public(entry["public"]), _public(entry["secret"]))
    if zmq.curve_public(pair.secret) != pair.public:
        raise ValueError("the public key is not that of the secret one")
    return pair


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

    def __init__(
        self, directory: str | os.PathLike[str], on_revoked: Callable[[str], None] | None = None
    ) -> None:
        self.directory = Path(directory)
        self.on_revoked = on_revoked
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(self.directory, self.directory.stat())
        self._register = self.directory / "register.json"
        self._lock = threading.RLock()
        self._signature: tuple[int, ...] = ()
        self._keys: dict[str, Key] = {}
        self._allowed: dict[bytes, Identity] = {}
        self._cluster = self._load_cluster_key()
        self.refresh()

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
        with self._changing():
            if name in self._keys:
                raise AccessError(f"there was a key named {name!r} already; choose a name that was never used")
            if len(self._keys) >= limits.access_keys_max:
                raise AccessError(f"the register is full: {limits.access_keys_max} keys")
            pair = new_key_pair()
            file = KeyFile(self.directory / f"{name}.key", name, role, pair, self._cluster.public)
            entry = {"name": name, "role": role, "public": pair.public.decode(), "secret": pair.secret.decode()}
            _save_private(file.path, {**entry, "server": self._cluster.public.decode()})
            self._save({**self._keys, name: Key(name, role, pair.public.decode(), time.time(), 0.0)})
            return file

    def list(self) -> list[Key]:
        """All keys there ever were, in the order made."""
        self.refresh()
        return [*self._keys.values()]

    def revoke(self, name: str) -> None:
        """Refuse that key from now on. On disk when this returns; doing it twice is doing it once.

        Raises:
            AccessError: There is no key of that name.
        """
        with self._changing():
            key = self._keys.get(name)
            if key is None:
                raise AccessError(f"there is no key named {name!r}")
            if not key.revoked_at:
                self._save({**self._keys, name: key._replace(revoked_at=time.time())})
            (self.directory / f"{name}.key").unlink(missing_ok=True)
        self.refresh()

    def allowed(self) -> dict[bytes, Identity]:
        """Whom to admit, by public key; the head itself is among them."""
        self.refresh()
        return dict(self._allowed)

    def identify(self, public: bytes) -> Identity | None:
        """Whose key that is; None if it is nobody's, or was revoked. For ``ZapHandler``."""
        self.refresh()
        return self._allowed.get(public)

    def refresh(self) -> list[str]:
        """Look whether the register has changed; the names revoked since the last look."""
        with self._lock:
            before = {identity.name for identity in self._allowed.values()}
            self._read()
            revoked = sorted(before - {identity.name for identity in self._allowed.values()})
        if self.on_revoked is not None:
            for name in revoked:
                self.on_revoked(name)
        return revoked

    def _read(self) -> None:
        try:
            status = self._register.stat()
            signature: tuple[int, ...] = (status.st_ino, status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            signature = (0,)
        if signature == self._signature:
            return
        keys: dict[str, Key] = {}
        if signature != (0,):
            value = _load_private(self._register, limits.key_register_bytes_max)
            if value.get("version") != REGISTER_VERSION:
                raise AccessError(f"{self._register} is of version {value.get('version')}; this is {REGISTER_VERSION}")
            try:
                keys = {entry[0]: Key(*entry) for entry in value["keys"]}
                allowed = {_public(key.public): Identity(key.name, key.role) for key in keys.values()}
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise AccessError(f"{self._register} is damaged ({error!r}); nobody new is admitted") from None
        allowed = {
            _public(key.public): Identity(key.name, key.role) for key in keys.values() if not key.revoked_at
        }
        self._keys = keys
        self._allowed = {self._cluster.public: Identity(HEAD, HEAD), **allowed}
        self._signature = signature

    def _save(self, keys: dict[str, Key]) -> None:
        _save_private(self._register, {"version": REGISTER_VERSION, "keys": [*keys.values()]})

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Alone among threads and processes, knowing the register as it is."""
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self.refresh()
            yield
        finally:
            os.close(fd)

    def _load_cluster_key(self) -> KeyPair:
        path = self.directory / "cluster.key"
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if not path.exists():
                pair = new_key_pair()
                _save_private(path, {"public": pair.public.decode(), "secret": pair.secret.decode()})
            return _key_pair(_load_private(path, limits.key_file_bytes_max))
        except (KeyError, TypeError, ValueError) as error:
            raise AccessError(f"{path} is damaged ({error!r}); restore it: every key file names its public half") from None
        finally:
            os.close(fd)
