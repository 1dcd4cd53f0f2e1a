"""Catalog and health reads at an agent: from its view if the client allows it, else a server's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

from aiohttp import web

from raftreg.clock import Clock
from raftreg.core.catalog import Catalog
from raftreg.errors import NoLeader
from raftreg.http.cache_control import NO_CONTROL, read_cache_control
from raftreg.http.delta_queries import can_follow, catalog_follower
from raftreg.http.delta_streams import DeltaStreams, Followed, wants_events
from raftreg.http.discovery import ReadHead, discovery_routes, query_of
from raftreg.http.params import Consistency, ReadOptions, read_options
from raftreg.http.service_pages import service_pages_routes
from raftreg.http.watch import RenderedCache, WatchHub
from raftreg_agent.view import CatalogView

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: What an answer says of the view's age has no finer grain: so answers can share their bytes.
HEAD_S = 0.005
_NO_HEAD = (float("-inf"), ReadHead())


class ViewSource:
    """A `CatalogSource` over the agent's view.

    Args:
        view: The view.
        datacenter: This datacenter.
        clock: Source of time.
        rng: Source of jitter.
    """

    def __init__(self, view: CatalogView, datacenter: str, clock: Clock, rng: Random) -> None:
        self.datacenter = datacenter
        self.rendered = RenderedCache()
        self.hub: WatchHub = view.hub
        self._view = view
        self._clock = clock
        self._rng = rng
        self._resets = view.resets_total
        self._heads: dict[tuple[Consistency, bool], tuple[float, ReadHead]] = {}

    async def ready(self, options: ReadOptions) -> None:
        """The view is as new as it is; its age is said."""
        del options
        if not self._view.ready.is_set():
            raise NoLeader("No cluster leader: this agent has not seen the catalog yet")

    def catalog(self) -> Catalog:
        """The view's catalog."""
        if self._resets != self._view.resets_total:
            self._resets = self._view.resets_total
            self.rendered.clear()
        return self._view.catalog

    def head(self, options: ReadOptions) -> ReadHead:
        """Says how old the view is, to a few milliseconds."""
        form = (options.consistency, options.cached)
        now_s = self._clock.monotonic()
        made_at_s, head = self._heads.get(form, _NO_HEAD)
        if now_s - made_at_s >= HEAD_S:
            head = self._head(options)
            self._heads[form] = (now_s, head)
        return head

    def _head(self, options: ReadOptions) -> ReadHead:
        age_s = self._view.age_s or 0.0
        return ReadHead(
            known_leader=self._view.leader_known,
            last_contact_ms=int(age_s * 1000),
            effective="stale" if options.consistency is Consistency.STALE else "",
            cache_age_s=age_s if options.cached else None,
        )

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock.monotonic()

    def jitter(self) -> float:
        """A share in [0, 1)."""
        return self._rng.uniform(0.0, 1.0)


def agent_discovery_routes(
    view: CatalogView, source: ViewSource, ask_server: Handler, streams_max: int
) -> list[web.RouteDef]:
    """The read endpoints: over the view for ?cached and ?stale, everything else at a server.

    Streams of events always come from the view, which is fed by such a stream itself.

    Args:
        view: The view.
        source: Reads of it.
        ask_server: Hands a request on.
        streams_max: Streams of events at once.
    """
    followed = Followed(
        hub=source.hub,
        ready=source.ready,
        epoch=lambda: view.epoch,
        newest=lambda: view.catalog.index,
    )
    follow = catalog_follower(DeltaStreams(followed, streams_max), source)
    return [
        web.route(
            route.method,
            route.path,
            _chosen(view, route.handler, ask_server, streams=can_follow(route.path)),
        )
        for route in (*discovery_routes(source, follow), *service_pages_routes(source))
    ]


def _chosen(view: CatalogView, from_view: object, ask_server: Handler, *, streams: bool) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        if streams and wants_events(request):
            return await from_view(request)  # type: ignore[no-any-return, operator]
        options = read_options(query_of(request))
        control = NO_CONTROL
        if options.cached:
            control = read_cache_control(request.headers.get("Cache-Control", ""))
        age_s = view.age_s or 0.0
        usable = view.ready.is_set() and allows(options, age_s) and control.takes(age_s)
        # Only servers hold coordinates to sort by; an answer in no order is better than none.
        if not usable or options.near:
            try:
                return await ask_server(request)
            except NoLeader:
                if not usable and not (view.ready.is_set() and control.takes_if_error(age_s)):
                    raise
        return await from_view(request)  # type: ignore[no-any-return, operator]

    return handle


def allows(options: ReadOptions, age_s: float) -> bool:
    """Tells whether the client takes an answer of this age."""
    if options.cached:
        return options.max_age_s is None or age_s <= options.max_age_s
    return options.consistency is Consistency.STALE
