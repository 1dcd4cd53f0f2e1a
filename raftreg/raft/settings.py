"""Settings of a replica, and what they are made into."""

from __future__ import annotations

from pathlib import Path

import msgspec

from raftreg.errors import ConfigurationError
from raftreg.raft.compaction import CompactionLimits
from raftreg.raft.node import Timing
from raftreg.raft.peers import TransportLimits
from raftreg.raft.security import Security

RAFT_PORT = 8300


class ReplicaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replica lives and whom it talks to.

    Attributes:
        name: Name of the server (its node name).
        data_dir: Directory of this replica alone.
        bind_host, bind_port: Where the Raft listener is.
        advertise_host: Host that peers use, when it is not `bind_host`.
        http_address: "host:port" of this server's HTTP API as others reach it.
        datacenter: Peers of another datacenter are refused.
        bootstrap_expect: Size of a new cluster, or None to join one; with neither `seeds` nor a
            size, a cluster of one.
        seeds: "host[:port]" of servers to find the cluster by; the own one is passed over.
        encrypt_key_file: File with the shared key.
        ca_file, cert_file, key_file: PEM files for mutual TLS.
    """

    name: str
    data_dir: str
    bind_host: str
    bind_port: int = RAFT_PORT
    advertise_host: str = ""
    http_address: str = ""
    datacenter: str = "dc1"
    bootstrap_expect: int | None = None
    seeds: tuple[str, ...] = ()
    encrypt_key_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    timing: Timing = Timing()
    limits: CompactionLimits = CompactionLimits()
    transport: TransportLimits = TransportLimits()

    @property
    def expect(self) -> int:
        """Size of the new cluster to wait for; 0: only join."""
        if self.bootstrap_expect is not None:
            return self.bootstrap_expect
        return 0 if self.seeds else 1

    def security(self) -> Security:
        """How this server proves itself to its peers.

        Raises:
            ConfigurationError: Files are missing, unreadable or contradict each other.
        """
        tls = (self.cert_file, self.key_file, self.ca_file)
        if any(tls) and self.encrypt_key_file:
            raise ConfigurationError("give either an encrypt_key_file or certificates, not both")
        if any(tls):
            if not all(tls):
                raise ConfigurationError("mutual TLS needs ca_file, cert_file and key_file")
            return Security.mutual_tls(*tls, datacenter=self.datacenter)
        if self.encrypt_key_file:
            return Security.shared_key(_read_key(Path(self.encrypt_key_file)))
        return Security.plain()


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(
            f"encrypt_key_file {path} can't be read: {error.strerror}"
        ) from error
