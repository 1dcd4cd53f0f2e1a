"""Fields of JSON bodies, and the rules that values keep wherever they come from. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NoReturn
from uuid import UUID

from raftreg.core.durations import parse_duration
from raftreg.errors import InvalidRequest
from raftreg.model import KV_TTL_MS_MAX, KV_TTL_MS_MIN, ServiceAddress, Status, Weights

META_PAIRS_MAX = 64
META_KEY_CHARS_MAX = 128
META_VALUE_CHARS_MAX = 512
NAME_BYTES_MAX = 1024
WEIGHT_MAX = 65_535
PORT_MAX = 65_535

_FOLD_CHARS_MAX = 64  #: longer names are none of ours, and would fill the cache
_META_KEY = re.compile(r"[a-zA-Z0-9_-]+\Z")


def fold(name: str) -> str:
    """The form in which field names are compared: `Service_Name` gives `servicename`."""
    return _folded(name) if len(name) <= _FOLD_CHARS_MAX else name.replace("_", "").lower()


@lru_cache(maxsize=1024)  # the same few names come with every body
def _folded(name: str) -> str:
    return name.replace("_", "").lower()


class Fields:
    """One JSON object of a body, read field by field, whatever the case of its keys.

    Args:
        value: The decoded object; None counts as an empty one.
        where: Its place in the body, for messages; "" for the body itself.

    Raises:
        InvalidRequest: It is no object.
    """

    def __init__(self, value: object, where: str = "") -> None:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise InvalidRequest(
                f"Request decode failed: {where or 'the body'} must be a JSON object, "
                f"got {_kind(value)}"
            )
        self._where = where
        self._values: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        for name, item in value.items():
            folded = fold(name)
            self._values[folded] = item
            self._names[folded] = name

    def __contains__(self, name: str) -> bool:
        return self._values.get(fold(name)) is not None

    def refuse_unknown(self, known: frozenset[str]) -> None:
        """Refuses an object that holds a field that is not among the (folded) known ones.

        Raises:
            InvalidRequest: Naming the field as it was sent.
        """
        for folded, name in self._names.items():
            if folded not in known:
                raise InvalidRequest(f'Request decode failed: json: unknown field "{name}"')

    def get(self, *names: str) -> Any:
        """The first of the named fields that is set, undecoded; None when there is none."""
        for name in names:
            value = self._values.get(fold(name))
            if value is not None:
                return value
        return None

    def text(self, *names: str, default: str = "") -> str:
        """A string."""
        value = self.get(*names)
        if value is None:
            return default
        if not isinstance(value, str):
            self._wrong(names[0], "a string", value)
        return value

    def integer(self, *names: str, default: int = 0, low: int = -(1 << 63)) -> int:
        """A whole number of at least `low` and below 2**64."""
        value = self.get(*names)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 1 << 64:
            self._wrong(names[0], "a whole number", value)
        return value

    def boolean(self, *names: str, default: bool = False) -> bool:
        """True or false."""
        value = self.get(*names)
        if value is None:
            return default
        if not isinstance(value, bool):
            self._wrong(names[0], "true or false", value)
        return value

    def duration_s(self, *names: str, default: float = 0.0) -> float:
        """A duration in seconds, from text or nanoseconds; empty text counts as absent."""
        value = self.get(*names)
        if value is None or value == "":
            return default
        try:
            return parse_duration(value)
        except InvalidRequest as error:
            raise InvalidRequest(
                f"Request decode failed: {self._path(names[0])}: {error.message}"
            ) from error

    def texts(self, *names: str) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(
            item if isinstance(item, str) else self._wrong(names[0], "a list of strings", item)
            for item in self.items(*names)
        )

    def text_map(self, *names: str) -> dict[str, str]:
        """An object of strings."""
        value = self.get(*names)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            self._wrong(names[0], "an object of strings", value)
        return dict(value)

    def mapping(self, *names: str) -> dict[str, Any]:
        """A JSON object, as it came."""
        value = self.get(*names)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._wrong(names[0], "an object", value)
        return dict(value)

    def items(self, *names: str) -> list[Any]:
        """A list, as it came."""
        value = self.get(*names)
        if value is None:
            return []
        if not isinstance(value, list):
            self._wrong(names[0], "a list", value)
        return list(value)

    def fields(self, *names: str) -> Fields | None:
        """An object to be read further, None when it is absent."""
        value = self.get(*names)
        return None if value is None else Fields(value, self._path(names[0]))

    def _path(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def _wrong(self, name: str, wanted: str, value: object) -> NoReturn:
        raise InvalidRequest(
            f"Request decode failed: {self._path(name)} must be {wanted}, got {_kind(value)}"
        )


def _kind(value: object) -> str:
    """JSON's name for a value."""
    match value:
        case bool():
            return "a boolean"
        case None:
            return "null"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


def status_of(text: str) -> Status | None:
    """Reads a check's status; None for the empty text.

    Raises:
        InvalidRequest: It is none of the three.
    """
    if not text:
        return None
    try:
        return Status(text)
    except ValueError:
        raise InvalidRequest(
            f"Bad check status {text[:32]!r}: it must be passing, warning or critical"
        ) from None


def name_of(text: str, what: str) -> str:
    """A name that fits a row, a URL and a log line."""
    if len(text.encode()) > NAME_BYTES_MAX:
        raise InvalidRequest(f"Invalid {what}: longer than {NAME_BYTES_MAX} bytes")
    # Most names are printable, which is told much faster than that no character is a control.
    if not text.isprintable() and any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise InvalidRequest(f"Invalid {what}: it holds a control character")
    return text


def node_id_of(text: str) -> str:
    """A node id in its canonical form; "" stays empty. Raises InvalidRequest."""
    if not text:
        return ""
    try:
        return str(UUID(text))
    except ValueError:
        raise InvalidRequest(f"Bad node ID {text[:64]!r}: it must be a UUID") from None


def port_of(port: int) -> int:
    """A TCP or UDP port, 0 for none. Raises InvalidRequest."""
    if not 0 <= port <= PORT_MAX:
        raise InvalidRequest(f"Invalid Port {port}: it must be between 0 and {PORT_MAX}")
    return port


def key_ttl_ms_of(seconds: float, shown: str) -> int:
    """The TTL of a key in milliseconds.

    Args:
        seconds: As it was given.
        shown: The same as it was written, for the message.

    Raises:
        InvalidRequest: It is shorter than a second or longer than a year.
    """
    if not KV_TTL_MS_MIN <= round(seconds * 1000) <= KV_TTL_MS_MAX:
        raise InvalidRequest(f"Invalid ttl {shown[:32]!r}: it must be between 1s and 8784h")
    return round(seconds * 1000)


def service_address_of(text: str) -> str:
    """An address or a host name; "any address" can't be called by anybody."""
    name_of(text, "service address")
    try:
        unusable = ip_address(text).is_unspecified
    except ValueError:
        return text
    if unusable:
        raise InvalidRequest("Invalid service address")
    return text


def weights_of(fields: Fields) -> Weights:
    """`Weights` of a service, 1 and 1 by default. Raises InvalidRequest."""
    given = fields.fields("Weights")
    if given is None:
        return Weights()
    weights = Weights(given.integer("Passing", default=1), given.integer("Warning", default=1))
    if weights.passing < 1:
        raise InvalidRequest("Invalid Weights: Passing must be greater than 0")
    if weights.warning < 0:
        raise InvalidRequest("Invalid Weights: Warning must be greater or equal than 0")
    if max(weights.passing, weights.warning) > WEIGHT_MAX:
        raise InvalidRequest(f"Invalid Weights: they must be at most {WEIGHT_MAX}")
    return weights


def tagged_addresses_of(fields: Fields) -> dict[str, ServiceAddress]:
    """`TaggedAddresses` of a service. Raises InvalidRequest."""
    addresses = {}
    for tag, value in fields.mapping("TaggedAddresses").items():
        item = Fields(value, f"TaggedAddresses.{tag}")
        addresses[tag] = ServiceAddress(
            service_address_of(item.text("Address")), port_of(item.integer("Port"))
        )
    return addresses


def meta_of(meta: dict[str, str], owner: str) -> dict[str, str]:
    """Holds metadata to Consul's limits."""
    if len(meta) > META_PAIRS_MAX:
        raise InvalidRequest(
            f"Invalid {owner} Meta: a {owner.lower()} can't hold more than {META_PAIRS_MAX} pairs"
        )
    for key, value in meta.items():
        if not _META_KEY.match(key) or len(key) > META_KEY_CHARS_MAX:
            raise InvalidRequest(
                f"Invalid {owner} Meta: key {key[:META_KEY_CHARS_MAX]!r} must be 1 to "
                f"{META_KEY_CHARS_MAX} characters of A-Z a-z 0-9 _ -"
            )
        if len(value) > META_VALUE_CHARS_MAX:
            raise InvalidRequest(
                f"Invalid {owner} Meta: the value of {key!r} is longer than "
                f"{META_VALUE_CHARS_MAX} characters"
            )
    return meta
