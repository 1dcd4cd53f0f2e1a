"""Fallbacks: what a caller gets instead, and what it must never get."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.mesh.fallback import (
    FALLBACK_HEADER,
    Fallback,
    FallbackSettings,
    FixedAnswer,
    OtherService,
)
from raftreg.mesh.last_good import Answer, LastGood, LastGoodSettings
from raftreg.mesh.nouns import Call, MeshConfigError, Reason

GET = Call(method="GET", path="/a")
POST = Call(method="POST", path="/a")
SORRY = Answer(status=200, headers=(("content-type", "text/plain"),), body=b"sorry")
FRESH = Answer(status=200, headers=(("etag", '"1"'),), body=b"good")


def a_fallback(*steps: OtherService | FixedAnswer | LastGoodSettings) -> Fallback:
    """A fallback of these steps for the usual reasons."""
    return Fallback(FallbackSettings(steps=steps))


def test_steps_are_tried_in_order_and_the_answer_says_what_it_is() -> None:
    """The last good answer goes first where there is one, then the fixed one."""
    fallback = a_fallback(LastGoodSettings(), FixedAnswer(answer=SORRY))
    assert fallback.last_good is not None
    first = fallback.decide(GET, "/a", Reason.CIRCUIT_OPEN, 10.0)
    assert isinstance(first, Answer)
    assert first.headers == (*SORRY.headers, (FALLBACK_HEADER, "answer"))
    fallback.last_good.keep(GET, "/a", FRESH, 10.0)
    then = fallback.decide(GET, "/a", Reason.CIRCUIT_OPEN, 17.9)
    assert isinstance(then, Answer)
    assert then.body == b"good"
    assert then.headers == (("etag", '"1"'), ("age", "7"), (FALLBACK_HEADER, "last-good"))


@pytest.mark.parametrize("reason", list(Reason))
def test_only_reasons_that_are_set_fall_back(reason: Reason) -> None:
    """A denial, a bad request and an injected fault stay what they are, and can't be configured."""
    found = a_fallback(FixedAnswer(answer=SORRY)).decide(GET, "/a", reason, 0.0)
    assert (found is not None) is (reason in FallbackSettings().reasons)
    if reason in {Reason.DENIED, Reason.BAD_REQUEST, Reason.FAULT, Reason.RATE_LIMIT}:
        with pytest.raises(MeshConfigError, match=reason.value):
            FallbackSettings(reasons=frozenset({reason}))


def test_another_service_is_asked_once_and_only_when_a_repeat_is_safe() -> None:
    """Fallbacks that point at each other end; what may have been done is not done again."""
    other = OtherService(service="backup")
    fallback = a_fallback(other)
    why = Reason.UPSTREAM_FAILED
    assert fallback.decide(GET, "/a", why, 0.0, sent=True) == other
    assert fallback.decide(GET, "/a", why, 0.0, tried={"api", "backup"}) is None
    assert fallback.decide(POST, "/a", why, 0.0, sent=True) is None
    assert fallback.decide(POST, "/a", Reason.CIRCUIT_OPEN, 0.0) == other
    bold = OtherService(service="backup", even_if_sent=True)
    assert a_fallback(bold).decide(POST, "/a", why, 0.0, sent=True) == bold


@pytest.mark.parametrize(
    ("call", "status", "headers", "wanted"),
    [
        (GET, 200, {}, True),
        (Call(method="HEAD"), 200, {}, True),
        (POST, 200, {}, False),
        (GET, 500, {}, False),
        (GET, 206, {}, False),
        (GET, 200, {"set-cookie": "a=b"}, False),
        (GET, 200, {"cache-control": "max-age=5, Private"}, False),
        (GET, 200, {"cache-control": 'private="x-a"'}, False),
        (GET, 200, {"cache-control": "no-store"}, False),
        (GET, 200, {"cache-control": "max-age=5, must-revalidate"}, False),
        (GET, 200, {"cache-control": "max-age=5"}, True),
        (GET, 200, {"vary": "Accept, Accept-Encoding"}, True),
        (GET, 200, {"vary": "X-Tenant"}, False),
        (GET, 200, {"vary": "*"}, False),
        (GET, 200, {"content-length": "99999999"}, False),
        (GET, 200, {"content-length": "bad"}, True),
        (Call(method="GET", headers={"authorization": "secret"}), 200, {}, False),
        (Call(method="GET", headers={"cookie": "a=b"}), 200, {}, False),
        (Call(method="GET", headers={"range": "bytes=0-9"}), 200, {}, False),
        (Call(method="GET", headers={"cache-control": "no-store"}), 200, {}, False),
    ],
)
def test_only_good_answers_for_all_are_kept(
    call: Call, status: int, headers: dict[str, str], wanted: bool
) -> None:
    """What is of one caller, in part, or told not to be kept, is never kept."""
    assert LastGood(LastGoodSettings()).wants(call, status, headers) is wanted


def test_an_answer_is_given_only_for_what_it_was_an_answer_to() -> None:
    """Method, query and the headers that answers vary by tell answers apart."""
    cache = LastGood(LastGoodSettings())
    german = Call(method="GET", path="/a", headers={"accept-language": "de"})
    cache.keep(german, "/a?x=1", FRESH, 0.0)
    assert cache.get(german, "/a?x=1", 1.0) is not None
    assert cache.get(german, "/a?x=2", 1.0) is None
    assert cache.get(GET, "/a?x=1", 1.0) is None
    head = Call(method="HEAD", path="/a", headers={"accept-language": "de"})
    assert cache.get(head, "/a?x=1", 1.0) is None
    personal = Call(
        method="GET", path="/a", headers={"accept-language": "de", "authorization": "me"}
    )
    assert cache.get(personal, "/a?x=1", 1.0) is None


def test_a_caller_may_be_told_apart_on_purpose() -> None:
    """With the header among those that vary, each caller has its own last good answer."""
    cache = LastGood(LastGoodSettings(vary_by=("authorization",)))
    mine, yours = (Call(method="GET", headers={"authorization": who}) for who in ("me", "you"))
    assert cache.wants(mine, 200, {"vary": "Authorization"})
    cache.keep(mine, "/", FRESH, 0.0)
    assert cache.get(mine, "/", 0.0) is not None
    assert cache.get(yours, "/", 0.0) is None


def test_when_room_is_short_the_least_recently_used_goes() -> None:
    """An answer that was given lately stays longer than one that was only kept lately."""
    cache = LastGood(LastGoodSettings(entries_max=2))
    cache.keep(GET, "/a", FRESH, 0.0)
    cache.keep(GET, "/b", FRESH, 1.0)
    assert cache.get(GET, "/a", 2.0) is not None
    cache.keep(GET, "/c", FRESH, 3.0)
    assert cache.get(GET, "/b", 4.0) is None
    assert cache.get(GET, "/a", 4.0) is not None


def test_age_counts_from_the_origin_and_ends() -> None:
    """An answer tells its whole age; past the limit it is gone, and its room with it."""
    cache = LastGood(LastGoodSettings(age_s_max=60.0))
    lines = (("age", "30"), ("connection", "close"), ("content-length", "4"), ("etag", '"1"'))
    cache.keep(GET, "/a", Answer(headers=lines, body=b"good"), 100.0)
    kept = cache.get(GET, "/a", 110.0)
    assert kept is not None
    assert kept.headers == (("etag", '"1"'), ("age", "40"))
    assert cache.get(GET, "/a", 160.1) is None
    assert (len(cache), cache.size_bytes) == (0, 0)


@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 3000), st.floats(0, 20)),
        max_size=60,
    )
)
def test_it_holds_the_latest_of_what_it_holds_within_its_bounds(
    steps: list[tuple[bool, int, int, float]],
) -> None:
    """Never more entries or bytes than set, and never an answer but the last one kept."""
    settings = LastGoodSettings(
        age_s_max=50.0, body_bytes_max=2000, total_bytes_max=6000, entries_max=4
    )
    cache = LastGood(settings)
    last: dict[str, tuple[float, bytes]] = {}
    now_s = 0.0
    for number, (keeps, path, size, gap_s) in enumerate(steps):
        now_s += gap_s
        target = f"/{path}"
        if keeps:
            body = b"%06d" % number + b"." * size
            cache.keep(GET, target, Answer(body=body), now_s)
            last[target] = (now_s, body)
            small = len(body) <= settings.body_bytes_max
            assert (cache.get(GET, target, now_s) is not None) is small
        elif (found := cache.get(GET, target, now_s)) is not None:
            since_s, body = last[target]
            assert found.body == body
            assert now_s - since_s <= settings.age_s_max
        assert len(cache) <= settings.entries_max
        assert cache.size_bytes <= settings.total_bytes_max


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: OtherService(service=""), "service"),
        (lambda: FixedAnswer(answer=Answer(status=99)), "status"),
        (lambda: FixedAnswer(answer=Answer(headers=(("a", "b\r\nc: d"),))), "headers"),
        (lambda: FixedAnswer(answer=Answer(body=b"." * 2_000_000)), "body"),
        (lambda: FallbackSettings(steps=(LastGoodSettings(), LastGoodSettings())), "last-good"),
        (lambda: FallbackSettings(steps=(FixedAnswer(answer=SORRY),) * 9), "steps"),
        (lambda: LastGoodSettings(total_bytes_max=10), "total_bytes_max"),
        (lambda: LastGoodSettings(vary_by=("Accept",)), "vary_by"),
    ],
)
def test_bad_settings_are_refused_by_field(make: Callable[[], object], named: str) -> None:
    """What could do harm, or grow without bound, is refused naming the field."""
    with pytest.raises(MeshConfigError, match=named):
        make()
