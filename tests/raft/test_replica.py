"""Replicas over real sockets and files: what a server does with them, and what clients are told."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
import trustme

from raftreg.clock import SystemClock
from raftreg.errors import (
    ConfigurationError,
    InvalidRequest,
    NoLeader,
    NotFound,
    NotProposed,
    RaftregError,
    TooLarge,
    UnknownOutcome,
)
from raftreg.raft.api import RequestId, Role
from raftreg.raft.faults import DiskFailure
from raftreg.raft.replica import open_replica
from raftreg.raft.settings import ReplicaSettings
from tests.raft.replica_rig import SMALL, STEP_S, Words, cluster_in
from tests.raft.transport_rig import until


async def test_every_server_writes_and_reads(tmp_path: Path) -> None:
    """A write at any server is seen by a read that begins after it at any other."""
    async with cluster_in(tmp_path) as cluster:
        await cluster.begin("a", "b", "c")
        for number, writer in enumerate(sorted(cluster.replicas), 1):
            word = writer.encode()
            assert await cluster.replicas[writer].propose(word) == number
            for name, replica in cluster.replicas.items():
                await replica.read_index()
                assert word in cluster.words[name].words
        statuses = [replica.status() for replica in cluster.replicas.values()]
        assert sorted(status.role.value for status in statuses) == [
            "follower", "follower", "leader",
        ]  # fmt: skip
        assert len({(status.term, status.leader_id) for status in statuses}) == 1


async def test_a_leader_that_stops_hands_over(tmp_path: Path) -> None:
    """Another one leads the next term; what was written is there, writing goes on."""
    async with cluster_in(tmp_path) as cluster:
        await cluster.begin("a", "b", "c")
        leader = await cluster.leader()
        term = cluster.replicas[leader].status().term
        await cluster.replicas[leader].propose(b"before")
        await cluster.stop(leader)
        follower = cluster.replicas[cluster.followers(leader)[0]]
        assert await follower.propose(b"after") == 2
        assert follower.status().term == term + 1


async def test_after_a_kill_another_server_leads(tmp_path: Path) -> None:
    """Nothing acknowledged is lost with the leader; it comes back as a follower with all of it."""
    async with cluster_in(tmp_path) as cluster:
        await cluster.begin("a", "b", "c")
        leader = await cluster.leader()
        await cluster.replicas[leader].propose(b"before")
        await cluster.kill(leader)
        await cluster.leader()
        assert await cluster.replicas[cluster.followers(leader)[0]].propose(b"after") == 2
        await cluster.start(leader, expect=3)
        await cluster.all_have(b"after")
        assert cluster.words[leader].words == [b"before", b"after"]


async def test_a_restart_of_all_keeps_everything(tmp_path: Path) -> None:
    """Also with other addresses and ports for all of them at once, and over snapshots."""
    async with cluster_in(tmp_path, limits=SMALL) as cluster:
        await cluster.begin("a", "b", "c")
        words = [b"%d" % number for number in range(100)]
        writer = cluster.replicas["a"]
        for word in words:
            await writer.propose(word)
        await cluster.all_have(words[-1])
        for name in "abc":
            await cluster.kill(name)
        for name in "abc":
            cluster.move(name)
        for name in "abc":
            await cluster.start(name, expect=3)
        await cluster.leader()
        assert await cluster.replicas["b"].propose(b"more") == 101
        await cluster.all_have(b"more")
        assert all(known.words == [*words, b"more"] for known in cluster.words.values())
        moved = {f"{host}:{port}" for host, port in cluster.hosts.values()}
        status = cluster.replicas["b"].status
        await until(lambda: {server.address for server in status().servers} == moved, STEP_S)


async def test_a_wiped_server_comes_back_under_a_new_id(tmp_path: Path) -> None:
    """Its former self is removed, it gets a snapshot and the log, and votes again."""
    async with cluster_in(tmp_path, limits=SMALL) as cluster:
        await cluster.begin("a", "b", "c")
        lost = cluster.followers(await cluster.leader())[0]
        former = cluster.id_of(lost)
        await cluster.kill(lost)
        cluster.wipe(lost)
        writer = cluster.replicas[cluster.followers(lost)[0]]
        for number in range(80):
            await writer.propose(b"%d" % number)
        await cluster.start(lost, expect=3)
        await until(lambda: lost in cluster.voters(cluster.followers(lost)[0]), STEP_S)
        await until(lambda: cluster.words[lost].words == [b"%d" % n for n in range(80)], STEP_S)
        assert cluster.id_of(lost) != former
        await until(
            lambda: former not in {s.id for s in cluster.replicas[lost].status().servers}, STEP_S
        )


async def test_servers_are_added_removed_and_made_leader(tmp_path: Path) -> None:
    """A server that joins becomes a voter, leads when asked, and can be removed while it leads."""
    async with cluster_in(tmp_path) as cluster:
        await cluster.begin("a", "b", "c")
        cluster.place("d")
        await cluster.start("d")
        await until(lambda: cluster.voters("a") == {"a", "b", "c", "d"}, STEP_S)
        joined = cluster.id_of("d")
        follower = cluster.replicas[cluster.followers(await cluster.leader())[0]]
        assert await follower.transfer_leadership(joined) == joined
        assert await cluster.leader() == "d"
        await follower.remove_server(joined)
        await until(lambda: cluster.voters("a") == {"a", "b", "c"}, STEP_S)
        await follower.propose(b"on")
        with pytest.raises(NotFound, match="no server"):
            await follower.remove_server("nobody")
        with pytest.raises(NotFound, match="no voter"):
            await follower.transfer_leadership("nobody")


async def test_a_cut_off_leader_answers_nothing_and_steps_down(tmp_path: Path) -> None:
    """Its write is of unknown outcome, its read is refused; a later one was never proposed."""
    async with cluster_in(tmp_path) as cluster:
        await cluster.begin("a", "b", "c")
        name = await cluster.leader()
        old = cluster.replicas[name]
        restore = cluster.cut_off(name)
        with pytest.raises(UnknownOutcome, match="may still commit"):
            await old.propose(b"caught", timeout_s=0.2)
        with pytest.raises(NoLeader):
            await old.read_index(timeout_s=0.2)
        await until(lambda: old.status().role is not Role.LEADER, STEP_S)
        with pytest.raises(NoLeader):
            await old.propose(b"never", timeout_s=0.2)
        with pytest.raises(NoLeader):  # long before the time is over
            await old.propose(b"never", timeout_s=600)
        others = cluster.followers(name)
        await until(lambda: any(cluster.replicas[n].node.leads for n in others), STEP_S)
        await cluster.replicas[others[0]].propose(b"meanwhile")
        restore()
        await cluster.all_have(b"meanwhile")
        await old.read_index()
        assert b"never" not in cluster.words[name].words


async def test_a_request_id_takes_effect_once(tmp_path: Path) -> None:
    """Proposed again at another server, it has the first one's result."""
    async with cluster_in(tmp_path) as cluster:
        await cluster.begin("a", "b", "c")
        once = RequestId("client", 1, 1)
        results = [
            await replica.propose(b"once", request_id=once) for replica in cluster.replicas.values()
        ]
        assert results == [1, 1, 1]
        forgotten = RequestId("client", 2, 3)
        await cluster.replicas["a"].propose(b"two", request_id=forgotten)
        await cluster.replicas["b"].read_index()
        with pytest.raises(UnknownOutcome, match="forgotten"):
            await cluster.replicas["b"].propose(b"once", request_id=once)
        assert cluster.words["a"].words == [b"once", b"two"]


async def test_many_writers_at_once_on_all_servers(tmp_path: Path) -> None:
    """All are answered, each takes effect once, and all servers agree on the order."""
    async with cluster_in(tmp_path, limits=SMALL) as cluster:
        await cluster.begin("a", "b", "c")
        replicas = list(cluster.replicas.values())
        words = [b"%d" % number for number in range(300)]
        results = await asyncio.gather(
            *(replicas[n % 3].propose(word) for n, word in enumerate(words))
        )
        assert sorted(results) == list(range(1, 301))
        await asyncio.gather(*(replica.read_index() for replica in replicas))
        lists = [known.words for known in cluster.words.values()]
        assert lists[0] == lists[1] == lists[2]
        assert sorted(lists[0]) == sorted(words)


async def test_questions_reach_the_leader(tmp_path: Path) -> None:
    """From any server; an error of the answerer comes back as one."""

    async def answer(payload: bytes) -> bytes:
        if payload == b"wrong":
            raise InvalidRequest("not that")
        return payload.upper()

    async with cluster_in(tmp_path) as cluster:
        await cluster.begin("a", "b", "c")
        for replica in cluster.replicas.values():
            replica.on_question(answer)
        for replica in cluster.replicas.values():
            assert await replica.ask_leader(b"q") == b"Q"
            with pytest.raises(RaftregError, match="not that"):
                await replica.ask_leader(b"wrong")


async def test_role_changes_are_told(tmp_path: Path) -> None:
    """LEADER is told when the state holds all that was committed before the term."""
    told: list[tuple[Role, int, int]] = []
    async with cluster_in(tmp_path) as cluster:
        await cluster.begin("a", "b", "c")
        leader = await cluster.leader()
        follower = cluster.followers(leader)[0]
        await cluster.replicas[leader].propose(b"x")
        words = cluster.words[follower].words
        cluster.replicas[follower].on_role_change(
            lambda role, term: told.append((role, term, len(words)))
        )
        await cluster.replicas[leader].transfer_leadership(cluster.id_of(follower))
        await until(lambda: any(role is Role.LEADER for role, _, _ in told), STEP_S)
        term = cluster.replicas[follower].status().term
        assert told == [(Role.CANDIDATE, term, told[0][2]), (Role.LEADER, term, 1)]


async def test_one_server_alone_is_a_cluster(tmp_path: Path) -> None:
    """It leads at once, keeps what it acknowledged, and refuses what is too large."""
    async with cluster_in(tmp_path, seeds=()) as cluster:
        cluster.place("a")
        alone = await cluster.start("a")
        assert await alone.propose(b"x") == 1
        assert await alone.read_index() >= 2
        with pytest.raises(TooLarge):
            await alone.propose(b"x" * 2_000_000)
        with pytest.raises(InvalidRequest):
            await alone.remove_server(cluster.id_of("a"))
        await cluster.kill("a")
        assert await (await cluster.start("a")).propose(b"y") == 2


async def test_a_failed_disk_stops_the_server_loudly(tmp_path: Path) -> None:
    """`failed` tells the fault, who waits is answered, the others go on, `stop` still cleans up."""
    async with cluster_in(tmp_path) as cluster:
        await cluster.begin("a", "b", "c")
        name = await cluster.leader()
        broken = cluster.replicas[name]
        broken._fail(DiskFailure("no space left on device"))
        assert isinstance(await broken.failed, DiskFailure)
        with pytest.raises(NotProposed):
            await broken.propose(b"x")
        with pytest.raises(NoLeader):
            await broken.read_index()
        await cluster.replicas.pop(name).stop()
        await cluster.leader()
        await cluster.replicas[cluster.followers(name)[0]].propose(b"on")
        await cluster.start(name, expect=3)
        await cluster.all_have(b"on")


async def test_a_start_that_fails_leaves_the_directory_free(tmp_path: Path) -> None:
    """A second server on one directory is refused; a taken port releases the directory again."""
    async with cluster_in(tmp_path, seeds=()) as cluster:
        cluster.place("a", "b")
        await cluster.start("a")
        host, port = cluster.hosts["a"]
        for data_dir, reason in (("a", "in use"), ("b", "address")):
            settings = ReplicaSettings(
                name="b", data_dir=str(tmp_path / data_dir), bind_host=host, bind_port=port
            )
            other = open_replica(settings, Words(), SystemClock(), random.Random(0))
            with pytest.raises(RaftregError, match=reason):
                await other.start()
            await other.stop()
        await cluster.start("b")


async def test_a_shared_key_keeps_strangers_out(tmp_path: Path) -> None:
    """Servers with the key form a cluster; one with another key does not get in."""
    for name, key in (("right", "a key of the cluster"), ("wrong", "another key, as long")):
        (tmp_path / name).write_text(key)
    async with cluster_in(tmp_path, encrypt_key_file=str(tmp_path / "right")) as cluster:
        await cluster.begin("a", "b", "c")
        cluster.place("d")
        await cluster.start("d", encrypt_key_file=str(tmp_path / "wrong"))
        with pytest.raises(NoLeader):
            await cluster.replicas["d"].propose(b"x", timeout_s=0.5)
        assert cluster.voters("a") == {"a", "b", "c"}
        await cluster.kill("d")
        cluster.wipe("d")
        await cluster.start("d")
        await until(lambda: "d" in cluster.voters("a"), STEP_S)


async def test_a_cluster_over_mutual_tls(tmp_path: Path) -> None:
    """Certificates of one authority are enough; half of the settings are refused."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    issued = authority.issue_cert("server.dc1.raftreg")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    files = {f"{kind}_file": str(tmp_path / f"{kind}.pem") for kind in ("ca", "cert", "key")}
    async with cluster_in(tmp_path, **files) as cluster:
        await cluster.begin("a", "b", "c")
        for name in "abc":
            await cluster.replicas[name].propose(name.encode())
        await cluster.all_have(b"c")
        cluster.place("d")
        with pytest.raises(ConfigurationError, match="mutual TLS needs"):
            await cluster.start("d", key_file="")
