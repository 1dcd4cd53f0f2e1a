"""The description of the API: whole, well-formed, and served."""

from __future__ import annotations

import aiohttp
import schemathesis

from raftreg.http.openapi import undescribed
from tests.cli.conftest import Dev
from tests.openapi.document import application, document

#: What agents and servers say to each other is no part of the API.
BETWEEN_OURSELVES = ("/v1/internal/",)
PUBLIC_ALL_THE_SAME = ("/v1/internal/ui/",)


def test_every_route_is_described() -> None:
    """Whoever adds a route says what it takes and gives."""
    silent = [
        name
        for name in undescribed(application().router.routes())
        if not name.split()[1].startswith(BETWEEN_OURSELVES)
        or name.split()[1].startswith(PUBLIC_ALL_THE_SAME)
    ]
    assert silent == []


def test_the_document_is_well_formed() -> None:
    """It holds to OpenAPI 3.1, every reference leads somewhere, every operation has its own id."""
    made = document()
    schemathesis.openapi.from_dict(made).validate()
    ids = [each["operationId"] for path in made["paths"].values() for each in path.values()]
    assert len(set(ids)) == len(ids)
    schemas = made["components"]["schemas"]
    assert schemas["KVJson"]["properties"]["Value"] == {
        "anyOf": [{"type": "string"}, {"type": "null"}]
    }


async def test_it_is_served(dev: Dev) -> None:
    """A running server serves it as JSON, with its own version."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://{dev.http}/v1/openapi.json") as answer,
    ):
        served = await answer.json()
    assert served["openapi"].startswith("3.1.")
    assert served["paths"].keys() == document()["paths"].keys()
