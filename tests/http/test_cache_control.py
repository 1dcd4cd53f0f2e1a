"""Which ages a client takes, by its Cache-Control header."""

from __future__ import annotations

import pytest

from raftreg.errors import InvalidRequest
from raftreg.http.cache_control import NO_CONTROL, read_cache_control


@pytest.mark.parametrize(
    ("text", "takes", "refuses"),
    [
        ("", [0.0, 1e9], []),
        ("no-cache, private", [0.0, 1e9], []),
        ("max-age=30", [0.0, 30.0], [30.1]),
        ("Max-Age=30 , stale-if-error=60", [30.0], [31.0]),
        ("max-age=0", [], [0.0]),
        ("must-revalidate", [], [0.0]),
        ("max-age=30, must-revalidate", [], [0.0]),
    ],
)
def test_ages_that_are_taken(text: str, takes: list[float], refuses: list[float]) -> None:
    """`max-age` bounds the age; 0 and `must-revalidate` want a server's answer."""
    control = read_cache_control(text)
    assert all(control.takes(age_s) for age_s in takes)
    assert not any(control.takes(age_s) for age_s in refuses)


def test_ages_that_are_taken_when_no_server_answers() -> None:
    """Only as `stale-if-error` says."""
    control = read_cache_control("max-age=0, stale-if-error=60")
    assert (control.takes_if_error(60.0), control.takes_if_error(60.1)) == (True, False)
    assert not NO_CONTROL.takes_if_error(0.0)


@pytest.mark.parametrize(
    "text", ["max-age=", "max-age=x", "max-age=-1", "stale-if-error=1.5", "max-age=99999999999"]
)
def test_numbers_that_are_none(text: str) -> None:
    """Are refused in Consul's words."""
    with pytest.raises(InvalidRequest, match=r"Invalid Cache-Control header\."):
        read_cache_control(text)
