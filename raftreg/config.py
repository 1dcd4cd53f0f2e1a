"""Settings of the processes, and where they come from: flags over environment over TOML file.

A field of a struct below is at once a flag (`--http-port`), an environment variable
(`RAFTREG_HTTP_PORT`) and a TOML key (`http_port`, or `http-port`); a field of a nested struct is
`RAFTREG_DNS_ONLY_PASSING` and `only_passing` in the table `[dns]`. Lists are separated by commas or
spaces in a variable, and so are tables (`web=30,*=5`). Durations are numbers of seconds (`_s`),
sizes numbers of bytes (`_bytes`).
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import socket
import tomllib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
import psutil

from raftreg.errors import ConfigurationError

ENV_PREFIX = "RAFTREG_"
HTTP_PORT_DEFAULT = 8500
RAFT_PORT_DEFAULT = 8300
DNS_PORT_DEFAULT = 8600
CONFIG_FILE_BYTES_MAX = 1 << 20

#: 0 takes any free port; only where settings are made in code (tests), `load` refuses it.
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
#: As `Port`; -1 turns the listener off.
OptionalPort = Annotated[int, msgspec.Meta(ge=-1, le=65_535)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Ttl = Annotated[int, msgspec.Meta(ge=0, le=2_147_483_647)]
Count = Annotated[int, msgspec.Meta(ge=1)]
#: One to 128 letters, digits, "_", "-" and "." that neither begin nor end with "-" or ".".
Label = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?$")
]


class DnsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How names are answered.

    Attributes:
        domain: Domain that is answered with authority, without the final dot.
        alt_domain: A second one; answers to it stay in it.
        datacenter: Own datacenter; set from the process's settings.
        node_ttl_s, service_ttl_s: TTL of answers, in seconds.
        service_ttl: TTL of answers about some services, in seconds, by name; `web-*` stands for
            all names that begin so, the longest such prefix counts, `*` is for all the others.
        soa_refresh_s, soa_retry_s, soa_expire_s, soa_min_ttl_s: Of the SOA record; the last one
            is how long resolvers may remember that a name is not there.
        only_passing: Leave out instances with a warning too.
        node_meta_txt: Add the meta data of nodes to answers about nodes and to SRV.
        udp_answer_limit: Most answers to a UDP query without EDNS0.
        udp_bytes_max: Longest UDP answer, whatever the client would take.
        a_record_limit: Most addresses in an answer about a service; 0: no limit.
        enable_truncate: Set TC on UDP answers that were cut, so that clients ask again by TCP.
        disable_compression: Write every name out in full.
        allow_stale: Answer from what is here; else each answer is confirmed with the leader.
        max_stale_s: Oldest state to answer from without asking the leader, in seconds.
        recursors: "host[:port]" of resolvers for other domains; none: REFUSED.
        recursor_strategy: Whom to ask first: the first of the list, or any.
        recursor_timeout_s: How long one recursor may take.
        recursions_max: Queries that wait for recursors at once; more get SERVFAIL.
        tcp_connections_max: Open TCP connections; more are closed at once.
        tcp_queries_max: Queries of one connection that wait for an answer at once.
        tcp_idle_s: Seconds after which an idle TCP connection is closed.
    """

    domain: str = "consul"
    alt_domain: str = ""
    datacenter: str = "dc1"
    node_ttl_s: Ttl = 0
    service_ttl_s: Ttl = 0
    service_ttl: dict[str, Ttl] = {}
    soa_refresh_s: Ttl = 3600
    soa_retry_s: Ttl = 600
    soa_expire_s: Ttl = 86_400
    soa_min_ttl_s: Ttl = 0
    only_passing: bool = False
    node_meta_txt: bool = True
    udp_answer_limit: Count = 3
    udp_bytes_max: Annotated[int, msgspec.Meta(ge=512, le=65_467)] = 4_096
    a_record_limit: Annotated[int, msgspec.Meta(ge=0)] = 0
    enable_truncate: bool = False
    disable_compression: bool = False
    allow_stale: bool = True
    max_stale_s: Seconds = 315_360_000.0
    recursors: tuple[str, ...] = ()
    recursor_strategy: Literal["sequential", "random"] = "sequential"
    recursor_timeout_s: Seconds = 2.0
    recursions_max: Count = 512
    tcp_connections_max: Count = 256
    tcp_queries_max: Count = 64
    tcp_idle_s: Seconds = 10.0


class ExternalCheckSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Checks of hosts without an agent, run by the servers.

    Attributes:
        enabled: Run them. Whoever may write to the catalog then decides where servers connect to.
        checks_max: Checks that this server runs at most.
        in_flight_max: Probes at once.
        probes_per_s_max: Probes begun in a second.
    """

    enabled: bool = False
    checks_max: Count = 10_000
    in_flight_max: Count = 128
    probes_per_s_max: Count = 500


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the HTTP API.

    Attributes:
        body_bytes_max: Largest body besides a KV value (512 KiB) and a snapshot.
        snapshot_bytes_max: Largest snapshot that is restored.
        watchers_max: Blocking queries that wait at once; more are refused (429).
        write_timeout_s, read_timeout_s: How long a write, a read may wait for the cluster. While
            no leader is in reach, a write is refused after 4 s: nothing was proposed.
        keepalive_s: Seconds after which an idle connection is closed.
        short_way: Answer the most frequent requests from bytes, in front of the HTTP framework
            (docs/adr/0011); without it they take the plain road, where the answers are the same.
    """

    body_bytes_max: Count = 1 << 20
    snapshot_bytes_max: Count = 1 << 30
    watchers_max: Count = 100_000
    write_timeout_s: Seconds = 10.0
    read_timeout_s: Seconds = 5.0
    keepalive_s: Seconds = 75.0
    short_way: bool = True


class _Process(msgspec.Struct, frozen=True, kw_only=True):
    """What every process of raftreg knows.

    Attributes:
        node: Name of this host in the registry (default: its host name).
        data_dir: Directory that this process alone writes to.
        bind: Address of this host in the registry; servers listen on it for their peers.
        advertise: Address that other hosts use, when it is not `bind`.
        client: Address that HTTP and DNS listen on.
        join: Servers to find the cluster by.
        config_dir: Directory with service and check definitions (`*.json`).
        enable_script_checks: Let definitions run programs on this host.
        renew_s, lease_ttl_s: How often the host's lease is renewed, how long it lasts.
        recursors: Resolvers for names outside the domain.
    """

    node: Label = ""
    data_dir: str = ""
    bind: str = "127.0.0.1"
    advertise: str = ""
    client: str = "127.0.0.1"
    http_port: Port = HTTP_PORT_DEFAULT
    dns_port: OptionalPort = DNS_PORT_DEFAULT
    datacenter: Label = "dc1"
    join: tuple[str, ...] = ()
    config_dir: str = ""
    enable_script_checks: bool = False
    renew_s: Seconds = 1.0
    lease_ttl_s: Seconds = 3.0
    recursors: tuple[str, ...] = ()
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    dns: DnsSettings = DnsSettings()
    http: HttpLimits = HttpLimits()

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "node", self.node or _host_name())
        dns = msgspec.structs.replace(
            self.dns,
            datacenter=self.datacenter,
            recursors=self.recursors or self.dns.recursors,
        )
        msgspec.structs.force_setattr(self, "dns", dns)

    @property
    def address(self) -> str:
        """The address of this host as others know it (no port)."""
        return self.advertise or self.bind

    @property
    def local_http(self) -> str:
        """Where this process reaches its own HTTP listener, as host:port."""
        return join_host_port(reachable(self.client), self.http_port)

    @property
    def public_http(self) -> str:
        """Where other hosts reach the HTTP listener, if they can at all, as host:port."""
        host = self.address if is_wildcard(self.client) else self.client
        return join_host_port(host, self.http_port)


class AgentSettings(_Process, frozen=True, kw_only=True):
    """Settings of `raftreg agent`; `join` holds HTTP addresses of servers (default port 8500).

    Attributes:
        server: True for the agent inside a server process: its member row says so.
        raft_port: Port of that server's Raft listener, for its member row; 0 on a plain agent.
    """

    server: bool = False
    raft_port: Port = 0


class ServerSettings(_Process, frozen=True, kw_only=True):
    """Settings of `raftreg server`; `join` holds Raft addresses of servers (default port 8300).

    Attributes:
        raft_port: Port for peers, on `bind`.
        bootstrap_expect: Size of a new cluster: wait for that many servers, then start it.
        encrypt_key_file: File with the key that all servers share (at least 16 bytes).
        ca_file, cert_file, key_file: PEM files for mutual TLS among servers.
        election_timeout_s: Shortest and longest time without a leader before an election.
        reap_after_s: Seconds after which a host that stayed critical is forgotten (72 h).
        raft_snapshot_threshold: Log entries after which a snapshot is made.
        raft_trailing_logs: Log entries kept below a snapshot for servers a little behind.
    """

    raft_port: Port = RAFT_PORT_DEFAULT
    bootstrap_expect: Annotated[int, msgspec.Meta(ge=1, le=15)] | None = None
    encrypt_key_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    election_timeout_s: tuple[Seconds, Seconds] = (0.4, 0.8)
    reap_after_s: Seconds = 72 * 3600.0
    raft_snapshot_threshold: Count = 50_000
    raft_trailing_logs: Count = 2_000
    external_checks: ExternalCheckSettings = ExternalCheckSettings()

    def agent(self) -> AgentSettings:
        """Settings of the agent inside this server process."""
        return _as_agent(self, str(Path(self.data_dir) / "agent"), self.raft_port)


class DevSettings(_Process, frozen=True, kw_only=True):
    """Settings of `raftreg dev`: one server in memory, with its agent."""

    external_checks: ExternalCheckSettings = ExternalCheckSettings()

    def server(self, data_dir: str) -> ServerSettings:
        """The same as settings of a server; `data_dir` is for the agent's files."""
        own = {
            "data_dir": data_dir,
            "bootstrap_expect": 1,
            "external_checks": self.external_checks,
        }
        return ServerSettings(**{**_shared(self), **own})


_T = TypeVar("_T", bound=_Process)


def load(
    kind: type[_T],
    *,
    flags: Mapping[str, object],
    env: Mapping[str, str],
    file: Path | None = None,
) -> _T:
    """Builds the settings of a process.

    Args:
        kind: One of the structs above.
        flags: Field to value as given on the command line; None and () mean not given.
        env: Environment; only names that begin with `RAFTREG_` are read.
        file: TOML file; None reads none.

    Raises:
        ConfigurationError: A value can't be used; the text names it and where it came from.
    """
    table = _read_toml(file) if file else {}
    where = f"in {file}" if file else ""
    values = _collect(kind, table, env, ENV_PREFIX, where)
    for name, value in flags.items():
        if value is not None and value != ():
            values[name] = _convert(value, _hints(kind)[name], f"--{name.replace('_', '-')}")
    settings = kind(**values)
    return _checked(settings)


def env_name(field: str) -> str:
    """The environment variable of a field."""
    return ENV_PREFIX + field.upper()


def is_wildcard(host: str) -> bool:
    """Tells whether an address means every interface."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Tells whether an address is of this host only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable(host: str) -> str:
    """The address to connect to for a listener on `host`."""
    if not is_wildcard(host):
        return host
    return "::1" if ":" in host else "127.0.0.1"


def join_host_port(host: str, port: int) -> str:
    """Writes "host:port", with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(text: str, default_port: int) -> tuple[str, int]:
    """Reads "host", "host:port", "[v6]:port" or a bare IPv6 address.

    Raises:
        ConfigurationError: There is no host, or the port is none.
    """
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?", text)
    plain = re.fullmatch(r"([^:\s/]+)(?::(\d+))?", text)
    match = bracketed or plain
    if match is None:
        if text.count(":") > 1 and re.fullmatch(r"[0-9A-Fa-f:.]+", text):
            return text, default_port
        raise ConfigurationError(f"{text!r} is no address: write HOST or HOST:PORT")
    port = int(match[2]) if match[2] else default_port
    if not 0 < port <= 65_535:
        raise ConfigurationError(f"{text!r}: a port is between 1 and 65535")
    return match[1], port


def _shared(settings: _Process) -> dict[str, Any]:
    return {field: getattr(settings, field) for field in _Process.__struct_fields__}


def _as_agent(settings: _Process, data_dir: str, raft_port: int) -> AgentSettings:
    own = {
        "data_dir": data_dir,
        "join": (settings.local_http,),
        "server": True,
        "raft_port": raft_port,
    }
    return AgentSettings(**{**_shared(settings), **own})


def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _collect(
    kind: type, table: Mapping[str, object], env: Mapping[str, str], prefix: str, where: str
) -> dict[str, Any]:
    """Values of a struct from its TOML table, then from the environment over it."""
    hints = _hints(kind)
    table = {key.replace("-", "_"): value for key, value in table.items()}
    _refuse_unknown(table, hints, where)
    values: dict[str, Any] = {}
    for name, hint in hints.items():
        variable = prefix + name.upper()
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            nested = table.get(name, {})
            if not isinstance(nested, dict):
                raise ConfigurationError(f"{name} {where}: write a table, [{name}]")
            values[name] = hint(**_collect(hint, nested, env, variable + "_", f"[{name}] {where}"))
        elif variable in env:
            values[name] = _convert(_from_text(env[variable], hint), hint, variable, text=True)
        elif name in table:
            values[name] = _convert(table[name], hint, f"{name} {where}")
    return values


def _refuse_unknown(table: Mapping[str, object], known: Iterable[str], where: str) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"unknown setting {name!r} {where}{hint}")


def _from_text(text: str, hint: object) -> object:
    """A value as an environment variable holds it; lists are split, the rest `_convert` reads."""
    if get_origin(hint) is tuple:
        return [part for part in re.split(r"[,\s]+", text) if part]
    if get_origin(hint) is dict:
        pairs = (part.partition("=") for part in re.split(r"[,\s]+", text) if part)
        return {name: value for name, _, value in pairs}
    if text == "" and type(None) in get_args(hint):
        return None
    if bool in (hint, *get_args(hint)):
        return text.lower()
    return text


def _convert(value: object, hint: object, source: str, *, text: bool = False) -> Any:
    """Checks a value; with `text`, it came as text and may stand for a number or a truth value."""
    try:
        return msgspec.convert(value, type=_plain(hint), strict=not text)
    except msgspec.ValidationError as problem:
        raise ConfigurationError(f"{source.strip()}: {value!r} can't be used: {problem}") from None


def _plain(hint: object) -> Any:
    return Union[get_args(hint)] if get_origin(hint) is types.UnionType else hint  # noqa: UP007


def _read_toml(file: Path) -> dict[str, object]:
    try:
        data = file.read_bytes()
    except OSError as problem:
        raise ConfigurationError(f"can't read {file}: {problem.strerror}") from None
    if len(data) > CONFIG_FILE_BYTES_MAX:
        raise ConfigurationError(f"{file} is larger than {CONFIG_FILE_BYTES_MAX} bytes")
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigurationError(f"{file} is no TOML file: {problem}") from None


def _checked(settings: _T) -> _T:
    """Rules that cover more than one field."""
    if is_wildcard(settings.bind) and not settings.advertise:
        settings = msgspec.structs.replace(settings, advertise=_only_address(settings.bind))
    if settings.http_port == 0:
        raise ConfigurationError("http_port 0 can't be used: others have to know the port")
    if settings.lease_ttl_s <= settings.renew_s:
        raise ConfigurationError(
            f"lease_ttl_s ({settings.lease_ttl_s:g}) must be longer than renew_s "
            f"({settings.renew_s:g}): a lease is renewed before it ends"
        )
    if isinstance(settings, ServerSettings):
        _check_server(settings)
    elif isinstance(settings, AgentSettings):
        _check_agent(settings)
    return settings


def _check_server(settings: ServerSettings) -> None:
    _require_data_dir(settings)
    shortest, longest = settings.election_timeout_s
    if longest < shortest:
        raise ConfigurationError(
            f"election_timeout_s ({shortest:g}, {longest:g}): the first is the shorter one"
        )
    tls = (settings.ca_file, settings.cert_file, settings.key_file)
    if any(tls) and not all(tls):
        raise ConfigurationError("mutual TLS needs ca_file, cert_file and key_file, all three")
    if any(tls) and settings.encrypt_key_file:
        raise ConfigurationError("give encrypt_key_file or certificates, not both")
    for address in settings.join:
        split_host_port(address, RAFT_PORT_DEFAULT)


def _check_agent(settings: AgentSettings) -> None:
    _require_data_dir(settings)
    if not settings.join:
        raise ConfigurationError(
            "an agent needs a server: give --join ADDR[:HTTPPORT], RAFTREG_JOIN or `join`"
        )
    for address in settings.join:
        split_host_port(address, HTTP_PORT_DEFAULT)


def _require_data_dir(settings: _Process) -> None:
    if not settings.data_dir:
        raise ConfigurationError(
            "a data directory is needed: give --data-dir DIR, RAFTREG_DATA_DIR or `data_dir`"
        )


def _host_name() -> str:
    return socket.gethostname().split(".")[0] or "localhost"


def _only_address(bind: str) -> str:
    """The one address of this host that others can use; guessing between several would be wrong."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == family and not is_loopback(entry.address) and "%" not in entry.address
    ]
    if len(found) != 1:
        seen = ", ".join(sorted(found)) or "none"
        raise ConfigurationError(
            f"bind is {bind}: say with --advertise ADDR which address other hosts use "
            f"(found here: {seen})"
        )
    return found[0]
