"""`?cached` at an agent: how old an answer may be, and who gives it then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from raftreg.config import HttpLimits
from raftreg.core.commands import Register
from raftreg.model import Node, ServiceInstance
from tests.agent.mesh import Server, running, servers, settings_for


class Rig:
    """An agent whose view is as old as the test wants."""

    def __init__(self, app: Any, server: Server, http: aiohttp.ClientSession) -> None:
        self.app = app
        self.server = server
        self._http = http

    def grow_old(self, age_s: float) -> None:
        """Sets the time at which the view was up to date."""
        now_s = self.app.local.now()
        self.app.view._take_beat = lambda frame, address: None
        self.app.view._fresh_at_s = now_s - age_s

    async def ask(self, query: str, control: str = "") -> tuple[int, str, str]:
        """Status, `X-Cache` and `Age` of an answer."""
        url = f"http://{self.app.http_address}/v1/health/service/web{query}"
        headers = {"Cache-Control": control} if control else {}
        async with self._http.get(url, headers=headers) as answer:
            await answer.read()
            told = answer.headers
            return answer.status, told.get("X-Cache", ""), told.get("Age", "")


@asynccontextmanager
async def _rig(eventually: Any) -> AsyncIterator[Rig]:
    async with (
        aiohttp.ClientSession() as http,
        servers() as (server,),
        running(settings_for(server, http=HttpLimits(read_timeout_s=0.5))) as app,
    ):
        row = ServiceInstance(node="far", id="w", name="web", port=80)
        server.history.apply(Register(node=Node(name="far", address="10.1.1.1"), service=row))
        await eventually(lambda: app.view.catalog.instances("web"))
        yield Rig(app, server, http)


@pytest.mark.parametrize(
    ("query", "control", "from_view"),
    [
        ("?cached", "", True),
        ("?cached", "max-age=100", True),
        ("?cached", "max-age=10", False),
        ("?cached", "max-age=0", False),
        ("?cached", "must-revalidate", False),
        ("?cached&max_age=10s", "", False),
        ("?cached&max_age=100s", "", True),
        ("?stale", "must-revalidate", True),
        ("", "max-age=100", False),
    ],
)
async def test_who_answers(eventually: Any, query: str, control: str, from_view: bool) -> None:
    """The view while it is new enough for the client, else a server; the answer says which."""
    async with _rig(eventually) as rig:
        rig.grow_old(30.0)
        status, cache, age = await rig.ask(query, control)
        assert status == 200
        if "cached" in query:
            assert (cache == "HIT", bool(age)) == (from_view, from_view)
        asked = any("health" in line for line in rig.server.requests)
        assert asked is not from_view


async def test_an_old_answer_is_better_than_none(eventually: Any) -> None:
    """With `stale-if-error`, up to that age, and only while no server answers."""
    async with _rig(eventually) as rig:
        control = "max-age=0, stale-if-error=60"
        assert await rig.ask("?cached", control) == (200, "MISS", "")
        await rig.server.stop()
        rig.grow_old(30.0)
        status, cache, age_s = await rig.ask("?cached", control)
        assert (status, cache, int(age_s) >= 30) == (200, "HIT", True)
        assert (await rig.ask("?cached", "max-age=10, stale-if-error=20"))[0] == 500
        assert (await rig.ask("?cached", "max-age=0"))[0] == 500


async def test_a_header_that_can_not_be_read(eventually: Any) -> None:
    """400, when it would count."""
    async with _rig(eventually) as rig:
        assert (await rig.ask("?cached", "max-age=soon"))[0] == 400
