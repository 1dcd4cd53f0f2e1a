"""Configuration entries, and the intentions in them, as JSON. Pure."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from raftreg.core.entries import PROXY_DEFAULTS, SERVICE_DEFAULTS
from raftreg.core.entries.access import Permission
from raftreg.core.entries.common import Pairs
from raftreg.core.intentions import Intention
from raftreg.model import ConfigEntry

Json = dict[str, Any]
#: Objects that Consul always shows in these kinds, be they empty.
_ALWAYS = ("TransparentProxy", "MeshGateway", "Expose")
#: Never shown: whoever may read entries need not be able to stand for a service.
_SECRETS = {"inline-certificate": ("PrivateKey",)}


class IntentionJson(TypedDict):
    """An intention; `ID` and times are there when it was written by id."""

    ID: NotRequired[str]
    Description: NotRequired[str]
    SourceNS: str
    SourceName: str
    DestinationNS: str
    DestinationName: str
    SourceType: str
    Action: NotRequired[str]
    Permissions: NotRequired[list[Permission]]
    Meta: Pairs
    Precedence: int
    CreatedAt: NotRequired[str]
    UpdatedAt: NotRequired[str]
    CreateIndex: int
    ModifyIndex: int


def config_entry_json(entry: ConfigEntry) -> Json:
    """An entry of /v1/config."""
    out: Json = {"Kind": entry.kind, "Name": entry.name}
    if entry.kind in (SERVICE_DEFAULTS, PROXY_DEFAULTS):
        out |= {field: {} for field in _ALWAYS}
    out |= entry.body
    for field in _SECRETS.get(entry.kind, ()):
        if out.get(field):
            out[field] = "hidden"
    return out | {"CreateIndex": entry.create_index, "ModifyIndex": entry.modify_index}


def intention_json(intention: Intention) -> IntentionJson:
    """An intention of /v1/connect/intentions."""
    out = IntentionJson(
        SourceNS="default",
        SourceName=intention.source,
        DestinationNS="default",
        DestinationName=intention.destination,
        SourceType="consul",
        Meta=intention.meta,
        Precedence=intention.precedence,
        CreateIndex=intention.create_index,
        ModifyIndex=intention.modify_index,
    )
    if intention.id:
        out["ID"] = intention.id
        out["CreatedAt"], out["UpdatedAt"] = intention.created, intention.updated
    if intention.description:
        out["Description"] = intention.description
    if intention.action:
        out["Action"] = intention.action
    if intention.permissions:
        out["Permissions"] = list(intention.permissions)
    return out
