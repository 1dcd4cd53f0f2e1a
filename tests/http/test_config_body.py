"""Bodies of configuration entries: whatever is sent, it is read or refused."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from raftreg.core.entries import KINDS
from raftreg.core.entry_rules import entry_refusal
from raftreg.errors import RaftregError
from raftreg.http import json
from raftreg.http.config_body import config_entry
from raftreg.http.config_render import config_entry_json

names = st.sampled_from(
    [
        *("Name", "name", "Meta", "Routes", "routes", "Match", "HTTP", "Destination", "Splits"),
        *("Weight", "Subsets", "v1", "Filter", "Failover", "Targets", "Redirect", "Service"),
        *("ConnectTimeout", "connect_timeout", "Sources", "Action", "Permissions", "Listeners"),
        *("Port", "Services", "Config", "Namespace", "PathRegex", "Methods", "LoadBalancer"),
    ]
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "10s", "1m", "web", "*", "default", "allow", "GET", "a == b", "("]),
    st.text(max_size=4),
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(list(KINDS)), st.dictionaries(names, values, max_size=5))
def test_a_body_is_read_or_refused(kind: str, body: dict[str, Any]) -> None:
    """By one of our errors, or by the rules with a text, and never in any other way."""
    try:
        entry = config_entry({"Kind": kind, "Name": "web", **body})
    except RaftregError:
        return
    assert entry_refusal(entry) != ""
    # What came out can be shown, sent back, and means the same.
    shown = json.loads(json.dumps(config_entry_json(entry)))
    if kind != "inline-certificate":
        again = config_entry(shown)
        assert config_entry_json(again) == config_entry_json(entry)
