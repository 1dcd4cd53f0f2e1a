"""The pure parts of `raftreg template`: rendering, gathering of changes, what is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.errors import ConfigurationError
from raftreg_cli.template import engine, spec
from raftreg_cli.template.engine import Complete, Failed, Template, Waiting
from raftreg_cli.template.gather import Gather
from raftreg_cli.template.queries import (
    Instance,
    Key,
    Nodes,
    Query,
    Service,
    ServiceName,
    Services,
    Tree,
    Weights,
)


def instance(number: int, **more: Any) -> Instance:
    """An instance of "web"."""
    fields: dict[str, Any] = {
        "id": f"web-{number}",
        "name": "web",
        "address": f"10.0.0.{number}",
        "port": 8000 + number,
        "tags": ("blue",),
        "meta": {},
        "weights": Weights(1, 1),
        "weight": 1,
        "status": "passing",
        "node": "host",
        "node_address": "10.0.0.100",
        "node_meta": {},
        "datacenter": "dc1",
    }
    return Instance(**(fields | more))


def template(directory: Path, text: str, **variables: str) -> Template:
    """A template with this text."""
    source = directory / "source.j2"
    source.write_text(text)
    return Template(source, variables)


def rendered(directory: Path, text: str, answers: dict[Query, Any], **variables: str) -> str:
    """The text that a template makes of answers that are all there."""
    found = template(directory, text, **variables).render(answers)
    assert isinstance(found, Complete), found
    return found.text.decode()


def failed(directory: Path, text: str, answers: dict[Query, Any] | None = None) -> str:
    """What is said of a template that can't be rendered."""
    found = template(directory, text).render(answers or {})
    assert isinstance(found, Failed), found
    return found.message


def test_a_template_shows_what_it_asks_for(tmp_path: Path) -> None:
    """Services, instances, nodes, keys, trees and variables, with Jinja's usual means."""
    answers: dict[Query, Any] = {
        Services(): (ServiceName("db", ()), ServiceName("web", ("blue", "http"))),
        Service("web"): (instance(1), instance(2, weight=3)),
        Nodes(): (),
        Key("port"): b"80",
        Key("none"): None,
        Key("json"): b'{"a": [1, 2]}',
        Tree("app/"): {"a": b"1", "b/c": b"2"},
    }
    text = (
        "{% for one in services(tag='http') %}\n"
        "{{ one.name }} {{ one.tags | join('+') }}\n"
        "{% for i in service(one.name) %}\n"
        "  {{ i.address }}:{{ i.port }} weight={{ i.weight }}\n"
        "{% endfor %}\n"
        "{% endfor %}\n"
        "{{ kv('port') | int + 1 }} {{ kv('none', 'default') }} "
        "{{ (kv('json') | fromjson).a[1] }}\n"
        "{% for key, value in kv_tree('app/').items() %}{{ key }}={{ value }};{% endfor %}\n"
        "\n{{ env('HOME') }} {{ env('MISSING', 'x') }} {{ nodes() | length }}\n"
    )
    assert rendered(tmp_path, text, answers, HOME="/root") == (
        "web blue+http\n"
        "  10.0.0.1:8001 weight=1\n"
        "  10.0.0.2:8002 weight=3\n"
        "81 default 2\n"
        "a=1;b/c=2;\n"
        "/root x 0\n"
    )


def test_questions_are_found_one_after_the_other(tmp_path: Path) -> None:
    """A question that depends on the answer to another is asked once that is there."""
    made = template(tmp_path, "{% for i in service(kv('which')) %}{{ i.port }}{% endfor %}")
    answers: dict[Query, Any] = {}
    found = made.render(answers)
    assert found == Waiting(frozenset({Key("which")}), frozenset({Key("which")}))
    answers[Key("which")] = b"web"
    both: frozenset[Query] = frozenset({Key("which"), Service("web")})
    assert made.render(answers) == Waiting(both, frozenset({Service("web")}))
    answers[Service("web")] = (instance(1),)
    assert made.render(answers) == Complete(b"8001", both)


def test_missing_answers_are_no_failure(tmp_path: Path) -> None:
    """What goes wrong only because an answer is not there yet is not reported."""
    made = template(tmp_path, "{{ service('web')[0].port }} {{ kv('a') }}")
    assert isinstance(made.render({}), Waiting)


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    """Of the template itself, or of what it includes; in any way it may fail."""
    where = tmp_path / "source.j2"
    assert failed(tmp_path, "a\n\n{{ nothing.at.all }}").startswith(f"{where}:3: 'nothing' is")
    assert failed(tmp_path, "{{ kv('k') }}", {Key("k"): None}).startswith(
        f"{where}:1: there is no key 'k'"
    )
    assert "is no text" in failed(tmp_path, "{{ kv('k') }}", {Key("k"): b"\xff"})
    assert f"{where}:2: division by zero" in failed(tmp_path, "\n{{ 1 / 0 }}")
    assert "MISSING" in failed(tmp_path, "{{ env('MISSING') }}")
    (tmp_path / "part.j2").write_text("x\n{{ undefined_here }}")
    assert f"{tmp_path / 'part.j2'}:2: " in failed(tmp_path, "{% include 'part.j2' %}")
    with pytest.raises(ConfigurationError, match=r"source\.j2:2: "):
        template(tmp_path, "\n{% if %}")
    with pytest.raises(ConfigurationError, match="there is no template"):
        Template(tmp_path / "absent.j2", {})


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ service.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ kv_tree('a').update({'x': 1}) }}",
        "{{ range(10 ** 9) | list }}",
        "{% include '../outside.j2' %}",
    ],
)
def test_the_sandbox_holds(tmp_path: Path, text: str) -> None:
    """A template can't reach Python's inside, change answers, or files outside of its folder."""
    (tmp_path / "outside.j2").write_text("secret")
    inner = tmp_path / "inner"
    inner.mkdir()
    failed(inner, text, {Tree("a"): {}})


def test_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the text nor the number of questions grows without bound."""
    monkeypatch.setattr(engine, "TEXT_BYTES_MAX", 1000)
    assert "longer than 1000 bytes" in failed(tmp_path, "{% for i in range(999) %}xx{% endfor %}")
    answers: dict[Query, Any] = {Key(f"k{i}"): b"" for i in range(engine.QUERIES_MAX + 1)}
    text = f"{{% for i in range({len(answers)}) %}}{{{{ kv('k' ~ i) }}}}{{% endfor %}}"
    assert "different questions" in failed(tmp_path, text, answers)


@pytest.mark.parametrize(
    ("value", "host", "label"),
    [
        ("10.0.0.1", True, False),
        ("fd00::1", True, False),
        ("web", True, True),
        ("a_b-c", True, True),
        ("web.example.org.", True, False),
        ("1.1.1.1; return", False, False),
        ("fe80::1%;x", False, False),
        ("a\nb", False, False),
        ("", False, False),
        ("-a", False, False),
        ("x" * 64, False, False),
    ],
)
def test_what_may_stand_in_a_configuration(
    tmp_path: Path, value: str, host: bool, label: bool
) -> None:
    """`is host` and `is dns_label` keep out what could be mistaken for syntax."""
    text = "{{ kv('v') is host }} {{ kv('v') is dns_label }}"
    assert rendered(tmp_path, text, {Key("v"): value.encode()}) == f"{host} {label}"


@given(
    st.floats(0, 2),
    st.floats(0, 10),
    st.lists(st.floats(0, 3), min_size=1, max_size=30),
)
def test_a_burst_is_one_rendering_and_never_late(
    min_s: float, more_s: float, gaps_s: list[float]
) -> None:
    """Due a quiet `min_s` after the last change, or `max_s` after the first, whichever is first."""
    wait = spec.Wait(min_s, min_s + more_s)
    gather, now, first, last = Gather(wait), 0.0, None, 0.0
    for gap_s in gaps_s:
        now += gap_s
        if gather.take(now):
            assert first is not None
            assert now >= min(last + wait.min_s, first + wait.max_s)
            first = None
        gather.changed(now)
        first, last = now if first is None else first, now
        assert gather.due_at == pytest.approx(min(last + wait.min_s, first + wait.max_s))
    assert gather.due_at is not None
    assert gather.take(gather.due_at)
    assert not gather.take(now + 1000), "nothing is due twice"


def test_options_become_specs() -> None:
    """IN:OUT:COMMAND, with a command that is split as a shell would, and run by none."""
    (found,) = spec.from_options(["a.j2:/x/b:nginx -s 'a b' $HOME"], "nginx -t -c {}")
    assert (found.source, found.destination) == (Path("a.j2"), Path("/x/b"))
    assert found.command == ("nginx", "-s", "a b", "$HOME")
    assert found.check == ("nginx", "-t", "-c", "{}")
    assert spec.wait("2s", "--wait") == spec.Wait(2, 8)
    assert spec.wait("100ms:1m", "--wait") == spec.Wait(0.1, 60)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[template]]\nsource = 'a'", "destination"),
        ("[[template]]\nsource = 'a'\ndestination = 'b'\ncomand = ['x']", "comand"),
        ("[[template]]\nsource = 'a'\ndestination = 'b'\nmode = '99'", "mode"),
        ("[[template]]\nsource = ''\ndestination = 'b'", "source"),
        ("[[template]]\nsource = 'a'\ndestination = 'b'\ncommand_timeout_s = -1", "timeout"),
        ("template = []", "template"),
        ("wait = '2s:1s'\n[[template]]\nsource = 'a'\ndestination = 'b'", "MIN:MAX"),
        ("wait = 'soon'\n[[template]]\nsource = 'a'\ndestination = 'b'", "soon"),
        ("= 3", "line 1"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(tmp_path: Path, text: str, said: str) -> None:
    """The error names the file and what is wrong in it."""
    file = tmp_path / "template.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        spec.from_file(file)
    assert str(file) in caught.value.message
    assert said in caught.value.message


@pytest.mark.parametrize(
    "templates", [[], ["only-in"], ["a:"], ["a:b:'"], ["a:x", "b:x"], ["a:b", "c:./b"], ["a:a"]]
)
def test_what_can_not_be_done_is_refused(templates: list[str]) -> None:
    """Nothing to do, a text without OUT, one file written twice, a template over itself."""
    with pytest.raises(ConfigurationError):
        spec.checked(spec.from_options(templates, ""))
