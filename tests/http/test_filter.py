"""The filter language: what holds, what is refused, and that nothing else can happen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.errors import InvalidRequest
from raftreg.http.filter import DEPTH_MAX, EXPRESSION_CHARS_MAX, MATCHES_MAX, compile_filter
from raftreg.http.filter_fields import HEALTH_ENTRY

ENTRY = {
    "Node": {
        "Node": "n1",
        "ID": "",
        "Address": "10.0.0.1",
        "Datacenter": "dc1",
        "Meta": {"zone": "a", "a.b": "dot"},
        "TaggedAddresses": None,
    },
    "Service": {
        "ID": "web-1",
        "Service": "web",
        "Tags": ["v1", "canary"],
        "Meta": None,
        "Port": 80,
        "EnableTagOverride": False,
        "Weights": {"Passing": 1, "Warning": 1},
        "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 80}},
    },
    "Checks": [
        {"CheckID": "alive", "Status": "passing", "Output": 'said "ok"\n'},
        {"CheckID": "slow", "Status": "critical", "Output": ""},
    ],
}


def holds(text: str) -> bool:
    """Whether the expression holds for `ENTRY`."""
    return compile_filter(text, HEALTH_ENTRY)(ENTRY)


@pytest.mark.parametrize(
    "text",
    [
        "Service.Port == 80",
        "Service.Port==80",
        'Service.Port == "0x50"',
        "Service.Port != 81",
        "Service.EnableTagOverride == false",
        "Node.Meta.zone == a",
        'Node.Meta["a.b"] == "dot"',
        'Node.Meta[ "zone" ] == `a`',
        'Node.ID == ""',
        "Service.Meta is empty",
        "Node.TaggedAddresses is empty",
        "Node.Meta is not empty",
        "canary in Service.Tags",
        '"canary" in Service.Tags',
        "Service.Tags contains canary",
        "v2 not in Service.Tags",
        "Service.Tags not contains v2",
        "zone in Node.Meta",
        'Node.Address contains "0.0"',
        "Service.ID matches `^web-[0-9]+$`",
        "Service.ID not matches `^api`",
        "Service.TaggedAddresses.lan.Port == 80",
        "Service.Weights.Passing == 1",
        "Checks is not empty",
        "Checks.Status == critical",
        r'Checks.Output == "said \"ok\"\n"',
    ],
)
def test_what_holds(text: str) -> None:
    """Every operator, every kind of field, values bare, quoted and raw."""
    assert holds(text)
    assert not holds(f"not ({text})")
    assert holds(f"not not ( {text} )")


def test_no_filter() -> None:
    """The empty expression lets everything pass."""
    assert holds("")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Service.Meta.team == x", False),
        ("Service.Meta.team != x", True),
        ("x in Service.Meta", False),
        ("Node.Meta.rack matches `.*`", False),
        ("Node.Meta.rack not matches `.*`", True),
    ],
)
def test_a_key_that_is_missing(text: str, expected: bool) -> None:
    """It equals nothing, and differs from everything."""
    assert holds(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Node.Node == x and Node.Node == x or Node.Node == n1", True),
        ("Node.Node == n1 or Node.Node == n1 and Node.Node == x", True),
        ("(Node.Node == n1 or Node.Node == n1) and Node.Node == x", False),
        ("not Node.Node == n1 and Node.Node == x", False),
        ("not (Node.Node == n1 and Node.Node == x)", True),
        ("(Node.Node == n1)and(Service.Port == 80)", True),
        ("\tNode.Node\n==\r\nn1 ", True),
    ],
)
def test_precedence(text: str, expected: bool) -> None:
    """`or` binds weaker than `and`, `and` weaker than `not`; space does not matter."""
    assert holds(text) is expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Rack == 1", 'Selector "Rack" is not valid'),
        ("Node.Node.x == 1", 'Selector "Node.Node.x" is not valid'),
        ("Service.Port is empty", 'Invalid match operator "Is Empty" for selector "Service.Port"'),
        ("Service.Tags == x", "Invalid match operator"),
        ("Service == x", "Invalid match operator"),
        ("Service.Port == many", 'Failed to coerce value "many"'),
        ("Service.EnableTagOverride == perhaps", "Failed to coerce"),
        ("Service.ID matches `(`", "Failed to compile regular expression"),
        ("(Service.Port == 1", r"1:19 \(18\): Unmatched parentheses"),
        ("Service.Port == 1)", "the end was expected"),
        ("Service.Port == 1 and", "the end was expected"),
        ("Service.Port", "an operator was expected"),
        ('Service.ID == "x', "Unterminated string literal"),
        (r'Service.ID == "\q"', r"invalid escape"),
        ("Node.Meta[zone] == a", "Invalid index"),
        ('Node.Meta["zone" == a', "Unclosed index expression"),
        ('"x" in 7', "Invalid selector"),
        ("Service.ID == 12abc", "a selector or a value was expected"),
        ("\nService.ID ==\n!", r"3:1 \(15\)"),
        ("x" * (EXPRESSION_CHARS_MAX + 1), "at most"),
        ("(" * (DEPTH_MAX + 1), "levels of parentheses"),
        (" or ".join(["ID==1"] * (MATCHES_MAX + 1)), "match expressions"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    """The error tells what was wrong, and where."""
    with pytest.raises(InvalidRequest, match=reason):
        holds(text)


def test_a_pattern_can_not_stall_a_server() -> None:
    """A pattern that takes a backtracking engine for ever is answered; a vast one is refused."""
    row = {**ENTRY, "Service": {**ENTRY["Service"], "ID": "a" * 50_000 + "!"}}  # type: ignore[dict-item]
    assert not compile_filter("Service.ID matches `^(a+)+$`", HEALTH_ENTRY)(row)
    with pytest.raises(InvalidRequest, match="Failed to compile"):
        holds("Service.ID matches `((a{1000}){1000}){1000}`")


_WORDS = st.sampled_from(
    [
        *("Node.Node", "Service.Tags", "==", "!=", "in", "not", "is", "empty", "and", "or"),
        *("matches", "contains", '"x"', "`y`", "80", "[", "]", ".", '"', "\\", " ", "\n", "é"),
        *("(", ")"),
    ]
)


@given(st.lists(_WORDS, max_size=20).map(" ".join) | st.lists(_WORDS, max_size=20).map("".join))
def test_any_text_is_a_filter_or_a_clear_error(text: str) -> None:
    """Nothing else than the one error leaves the parser, and a filter gives a truth value."""
    said = "Failed to create boolean expression evaluator: "
    value: object = None
    try:
        value = holds(text)
    except InvalidRequest as error:
        said = error.message
    assert value in {True, False, None}
    assert said.startswith("Failed to create boolean expression evaluator: ")
