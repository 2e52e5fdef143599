"""What the processes of one host need to be part of a cluster: their keys, whom to admit, the address to bind.

The node writes it once into its session's directory (0700, the file 0600); its workers, its GCS and the drivers that
join it read it there, so that no secret is ever on a command line or in an environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from actorlib.transport import limits
from actorlib.transport.drivers.access import Access
from actorlib.transport.drivers.keys import KeyFile, KeyPair, Register, key_pair, load_private, public_key, save_private
from actorlib.transport.endpoint import Endpoint


class Credentials(NamedTuple):
    """See the module's docstring."""

    keys: KeyPair
    cluster: bytes  # the public key of the head
    register: Path
    ip: str  # of this host, where its processes bind
    is_copy: bool  # the register is one: what it says may lag behind the head's

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Credentials:
        """Read what ``save`` wrote. Raises AccessError."""
        entry = load_private(Path(path), limits.key_file_bytes_max)
        return cls(
            key_pair(entry),
            public_key(entry["cluster"]),
            Path(entry["register"]),
            str(entry["ip"]),
            bool(entry["is_copy"]),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        save_private(
            Path(path),
            {
                "public": self.keys.public.decode(),
                "secret": self.keys.secret.decode(),
                "cluster": self.cluster.decode(),
                "register": str(self.register),
                "ip": self.ip,
                "is_copy": self.is_copy,
            },
        )

    def with_key(self, file: KeyFile) -> Credentials:
        """The same host, under a key of one's own."""
        return self._replace(keys=file.keys)

    def open(self) -> tuple[Access, Register]:
        """For one loop. The register's ``refresh`` ends the connections of keys that have gone."""
        register = Register(self.register, self.cluster)
        access = Access(self.keys, register.identify_or_wait if self.is_copy else register.identify)
        register.on_revoked = access.drop
        return access, register

    def inbox(self, local: str, port: int = 0) -> str:
        """The endpoint of a process that binds both at a local socket and over TCP."""
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return str(Endpoint(local, f"tcp://{host}:{port or '*'}", ""))
