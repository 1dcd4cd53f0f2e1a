from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.generator import requests
from bench.generator.jobs import AnyJob, DnsJob, Job, WatchJob, percentile, tally_of
from bench.generator.questions import fault, question

VALUES = st.lists(st.floats(0, 1e6), min_size=1).map(sorted)


@given(VALUES, st.floats(0, 1))
def test_percentile_is_one_of_the_values_and_splits_them(values: list[float], share: float) -> None:
    """A percentile is a value that occurred, and about that share is not above it."""
    found = percentile(values, share)
    assert found in values
    below = sum(value < found for value in values)
    not_above = sum(value <= found for value in values)
    assert below <= share * len(values) + 1
    assert not_above >= share * (len(values) - 1) - 0.5


def test_percentiles_of_a_known_list() -> None:
    """The median is the middle, the 100th percentile the largest, nothing gives nothing."""
    values = [float(n) for n in range(1, 102)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [
        1.0,
        51.0,
        100.0,
        101.0,
    ]
    assert percentile([], 0.5) == 0.0


def test_tally_sums_up() -> None:
    """Rate and latencies come from the answers within the measurement, whatever their order."""
    tally = tally_of([0.003, 0.001, 0.002], {}, 1.5, 7, 0.25)
    assert (tally.answers, tally.per_s, tally.answers_total) == (3, 2.0, 7)
    assert (tally.p50_ms, tally.max_ms) == pytest.approx((2.0, 3.0))


@pytest.mark.parametrize(
    "job",
    [
        Job(kind="get", address="127.0.0.1:1", connections=2),
        DnsJob(address="127.0.0.1:1", name="a.", rdtype="A"),
        WatchJob(address="127.0.0.1:1", path="/", change_address="127.0.0.1:2"),
    ],
)
def test_job_survives_the_pipe(job: AnyJob) -> None:
    """The generator's process gets the job that was meant."""
    assert msgspec.json.decode(msgspec.json.encode(job), type=AnyJob) == job


def test_unknown_kinds_are_refused() -> None:
    """A slip in a scenario is an error, not an idle run."""
    job = Job(kind="gett", address="127.0.0.1:1", connections=1)
    with pytest.raises(ValueError, match="gett"):
        requests.messages_of(job, 0)
    with pytest.raises(ValueError, match="gett"):
        requests.filling(job)


@given(st.integers(1, 700))
def test_catalog_fill_makes_every_node_before_its_instances(instances: int) -> None:
    """Every instance is registered once with its check, on a node that exists by then, in
    transactions that are not too large.
    """
    nodes: set[str] = set()
    services, checks = [], []
    for request in requests.catalog_fill("h:1", instances):
        operations = orjson.loads(request.partition(b"\r\n\r\n")[2])
        assert len(operations) <= requests.OPERATIONS_MAX
        for operation in operations:
            match operation:
                case {"Node": {"Node": {"Node": name}}}:
                    nodes.add(name)
                case {"Service": {"Node": name, "Service": {"ID": service}}}:
                    assert name in nodes
                    services.append(service)
                case {"Check": {"Check": {"Node": name, "ServiceID": service}}}:
                    assert name in nodes
                    checks.append(service)
                case other:
                    pytest.fail(f"what is {other}?")
    assert len(set(services)) == len(services) == instances
    assert checks == services


def test_question_is_what_a_resolver_sends() -> None:
    """The query asks for what was meant, has its id, and no EDNS0."""
    message = dns.message.from_wire(question("web.service.consul.", "SRV", 7))
    assert (message.id, message.edns) == (7, -1)
    assert str(message.question[0]) == "web.service.consul. IN SRV"


def test_fault_tells_good_answers_from_others() -> None:
    """Only an answer that holds records counts."""
    query = dns.message.from_wire(question("web.service.consul.", "A", 7))
    good = dns.message.make_response(query)
    assert fault(good.to_wire()) == "empty"
    good.answer.append(dns.rrset.from_text("web.service.consul.", 0, "IN", "A", "10.0.0.1"))
    assert fault(good.to_wire()) is None
    good.set_rcode(dns.rcode.NXDOMAIN)
    assert fault(good.to_wire()) == "rcode 3"
    assert fault(query.to_wire()) == "no answer"
    assert fault(b"") == "no answer"
