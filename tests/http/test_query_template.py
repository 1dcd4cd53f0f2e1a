"""Templates of prepared queries."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.errors import InvalidRequest
from raftreg.http.query_template import RENDERED_CHARS_MAX, check_template, render
from raftreg.model import (
    PreparedQuery,
    QueryFailover,
    QueryService,
    QueryTarget,
    QueryTemplate,
)

texts = st.text(max_size=30)
pieces = st.sampled_from(
    [
        *("${name.full}", "${name.prefix}", "${name.suffix}", "${match(0)}", "${match(1)}"),
        *("${ match( 7 ) }", "${agent.segment}", "$${", "$", "}", "a", "-", "é"),
    ]
)
good_texts = st.lists(pieces, max_size=8).map("".join)


def template(
    text: str = "${name.full}", *, name: str = "", regexp: str = "", **fields: Any
) -> PreparedQuery:
    """A template whose service is called by a text."""
    return PreparedQuery(
        id="1",
        name=name,
        service=QueryService(service=text, **fields),
        template=QueryTemplate(type="name_prefix_match", regexp=regexp),
    )


def filled(text: str, asked: str, **fields: Any) -> str:
    """A text with a name filled in."""
    return render(template(text, **fields), asked).service.service


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${name.full}", "geo-db-customer-primary"),
        ("${name.prefix}", "geo-db"),
        ("x${name.suffix}y", "x-customer-primaryy"),
        ("${match(0)}", "geo-db-customer-primary"),
        ("${match(1)}.${match(2)}", "customer.primary"),
        ("a${match(3)}b", "ab"),
        ("${ name.full }", "geo-db-customer-primary"),
        ("${match( 1 )}", "customer"),
        ("$${name.full}", "${name.full}"),
        ("$$${match(2)}", "$${match(2)}"),
        ("$ {} $x", "$ {} $x"),
        ("${agent.segment}", ""),
        ("plain", "plain"),
    ],
)
def test_what_stands_for_what(text: str, expected: str) -> None:
    """As the documentation of Consul has it."""
    regexp = r"^geo-db-(.*?)-([^\-]+?)$"
    asked = "geo-db-customer-primary"
    assert filled(text, asked, name="geo-db", regexp=regexp) == expected


def test_all_texts_of_a_service_are_filled() -> None:
    """Names, lists, and the values of maps (not their keys)."""
    text = "${name.full}"
    query = PreparedQuery(
        id="1",
        service=QueryService(
            service=text,
            failover=QueryFailover(
                datacenters=(text,),
                targets=(QueryTarget(service=text, datacenter=text, peer=text),),
            ),
            ignore_check_ids=(text,),
            near=text,
            tags=("", text),
            node_meta={text: text},
            service_meta={"k": text},
        ),
        template=QueryTemplate(type="name_prefix_match"),
    )
    assert render(query, "n").service == QueryService(
        service="n",
        failover=QueryFailover(
            datacenters=("n",), targets=(QueryTarget(service="n", datacenter="n", peer="n"),)
        ),
        ignore_check_ids=("n",),
        near="n",
        tags=("", "n"),
        node_meta={text: "n"},
        service_meta={"k": "n"},
    )


def test_what_does_not_match_is_empty() -> None:
    """Also a group that took no part in a match; empty tags can be dropped."""
    assert filled("${match(0)}", "b", regexp="^a$") == ""
    assert filled("${match(1)}${match(2)}", "b", regexp="(a)?(b)?") == "b"
    query = template(tags=("${match(1)}", "t"), regexp="^a(.)$")
    assert render(query, "b").service.tags == ("", "t")
    dropping = QueryTemplate(type="name_prefix_match", regexp="^a(.)$", remove_empty_tags=True)
    kept = PreparedQuery(id="1", service=query.service, template=dropping)
    assert render(kept, "b").service.tags == ("t",)


def test_the_prefix_is_compared_without_letter_case() -> None:
    """As names are."""
    assert filled("${name.suffix}", "GEO-x", name="geo") == "-x"


def test_a_query_that_is_no_template_stays() -> None:
    """Even if its texts look like one."""
    query = PreparedQuery(id="1", service=QueryService(service="${name.full}"))
    check_template(query)
    assert render(query, "x") is query


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (template("${name}"), r"in Service.Service: '\$\{name\}' is none of"),
        (template("${match(x)}"), "is none of"),
        (template("${match(-1)}"), "is none of"),
        (template("${1 + 1}"), "is none of"),
        (template("a${name.full"), "expected '}'"),
        (template(tags=("a", "${x}")), r"Service.Tags\[1\]"),
        (template(node_meta={"zone": "${x}"}), r"Service.NodeMeta\[zone\]"),
        (template(failover=QueryFailover(targets=(QueryTarget(peer="${x}"),))), "Targets"),
        (template(regexp="("), "Bad Regexp: .*missing"),
        (
            PreparedQuery(
                id="1", service=QueryService(service="a"), template=QueryTemplate(type="other")
            ),
            "Bad Template.Type 'other'",
        ),
    ],
)
def test_bad_templates_are_refused(query: PreparedQuery, reason: str) -> None:
    """When they are written, so that none fails when it is executed."""
    with pytest.raises(InvalidRequest, match=reason):
        check_template(query)


@given(good_texts, texts, texts, st.sampled_from(["", "(.)(.)?", "^$", "[a-z]+(-)"]))
def test_what_was_let_through_can_be_rendered(
    text: str, name: str, asked: str, regexp: str
) -> None:
    """For any name; the length of what comes out is bounded."""
    query = template(text, name=name, regexp=regexp)
    check_template(query)
    assert len(render(query, asked).service.service) <= RENDERED_CHARS_MAX


@given(texts, texts)
def test_nothing_raises_but_a_refusal(text: str, asked: str) -> None:
    """Neither the check nor the rendering of what was never checked (of another version)."""
    query = template(text, regexp=text)
    with contextlib.suppress(InvalidRequest):
        check_template(query)
    render(query, asked)


@given(st.text(alphabet="ab${}", max_size=12), st.text(max_size=8))
def test_prefix_and_suffix_make_the_whole(prefix: str, rest: str) -> None:
    """Of a name that begins with the prefix."""
    asked = prefix + rest
    assert filled("${name.prefix}${name.suffix}", asked, name=prefix) == asked


def test_a_rendered_text_is_cut() -> None:
    """A long name in many places can't fill the memory."""
    assert len(filled("${name.full}" * 300, "n" * 1024)) == RENDERED_CHARS_MAX
