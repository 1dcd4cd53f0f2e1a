"""What a filter may ask of the rows of each endpoint.

The tables stand in Consul's documentation under each endpoint, for example
https://developer.hashicorp.com/consul/api-docs/health#filtering-2; names are those of the rendered
rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

_EQUALITY: Final = frozenset({"Equal", "Not Equal"})
_EMPTINESS: Final = frozenset({"Is Empty", "Is Not Empty"})
_MEMBERSHIP: Final = frozenset({"In", "Not In"})
_MATCHING: Final = frozenset({"Matches", "Not Matches"})


class Field(msgspec.Struct, frozen=True):
    """A field of a row: what can be asked of it, and what is inside."""

    operators: ClassVar[frozenset[str]] = frozenset()

    def inner(self, name: str) -> Field | None:
        """The field of that name inside this one; None where there is none."""
        del name
        return None


class Text(Field, frozen=True):
    """A text."""

    operators: ClassVar = _EQUALITY | _MEMBERSHIP | _MATCHING


class Integer(Field, frozen=True):
    """A whole number."""

    operators: ClassVar = _EQUALITY


class Bool(Field, frozen=True):
    """True or false."""

    operators: ClassVar = _EQUALITY


class Texts(Field, frozen=True):
    """A list of texts."""

    operators: ClassVar = _EMPTINESS | _MEMBERSHIP


class TextMap(Field, frozen=True):
    """A map with texts as keys; `value` is what each holds."""

    operators: ClassVar = _EMPTINESS | _MEMBERSHIP
    value: Field = Text()

    def inner(self, name: str) -> Field | None:
        """Any key may be asked for."""
        return self.value


class Struct(Field, frozen=True):
    """Named fields."""

    fields: tuple[tuple[str, Field], ...]

    def inner(self, name: str) -> Field | None:
        """By its name, as it is rendered."""
        return dict(self.fields).get(name)


class Records(Field, frozen=True):
    """A list of structs; a match holds where any one of them matches."""

    operators: ClassVar = _EMPTINESS
    record: Struct

    def inner(self, name: str) -> Field | None:
        """A field of the records."""
        return self.record.inner(name)


def struct(**fields: Field) -> Struct:
    """A struct with these fields."""
    return Struct(tuple(fields.items()))


def _prefixed(prefix: str, fields: Mapping[str, Field]) -> dict[str, Field]:
    return {prefix + name: field for name, field in fields.items()}


_WEIGHTS = struct(Passing=Integer(), Warning=Integer())
_ADDRESSES = TextMap(value=struct(Address=Text(), Port=Integer()))
_PROXY = struct(
    DestinationServiceName=Text(),
    DestinationServiceID=Text(),
    LocalServiceAddress=Text(),
    LocalServicePort=Integer(),
    Mode=Text(),
    MeshGateway=struct(Mode=Text()),
    Upstreams=Records(
        record=struct(
            Datacenter=Text(),
            DestinationName=Text(),
            DestinationNamespace=Text(),
            DestinationType=Text(),
            LocalBindAddress=Text(),
            LocalBindPort=Integer(),
        )
    ),
)
_CONNECT = struct(Native=Bool())

NODE: Final = struct(
    Address=Text(),
    Datacenter=Text(),
    ID=Text(),
    Meta=TextMap(),
    Node=Text(),
    TaggedAddresses=TextMap(),
)

_SERVICE: Final[dict[str, Field]] = {
    "Address": Text(),
    "Connect": _CONNECT,
    "EnableTagOverride": Bool(),
    "ID": Text(),
    "Kind": Text(),
    "Meta": TextMap(),
    "Port": Integer(),
    "Proxy": _PROXY,
    "TaggedAddresses": _ADDRESSES,
    "Tags": Texts(),
    "Weights": _WEIGHTS,
}

#: Instances as agents and /v1/catalog/node give them.
SERVICE: Final = struct(Service=Text(), **_SERVICE)

#: Rows of /v1/catalog/service and, before they are summed up, of /v1/catalog/services.
CATALOG_SERVICE: Final = struct(
    Address=Text(),
    Datacenter=Text(),
    ID=Text(),
    Node=Text(),
    NodeMeta=TextMap(),
    TaggedAddresses=TextMap(),
    ServiceName=Text(),
    **_prefixed("Service", _SERVICE),
)

CHECK: Final = struct(
    CheckID=Text(),
    Name=Text(),
    Node=Text(),
    Notes=Text(),
    Output=Text(),
    ServiceID=Text(),
    ServiceName=Text(),
    ServiceTags=Texts(),
    Status=Text(),
    Type=Text(),
)

#: Entries of /v1/health/service.
HEALTH_ENTRY: Final = struct(Node=NODE, Service=SERVICE, Checks=Records(record=CHECK))
