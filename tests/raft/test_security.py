"""The handshake and the sealed frames, as bytes: no socket."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.errors import ConfigurationError
from raftreg.raft.security import (
    AuthenticationFailed,
    Channel,
    Handshake,
    Mode,
    NameCheck,
    Security,
    Side,
)

_KEY = b"0123456789abcdef"
_NONCES = {Side.DIALLER: b"d" * 32, Side.LISTENER: b"l" * 32}


def _handshake(
    side: Side, key: bytes | None = _KEY, *, name: str = "", nonce: bytes = b""
) -> Handshake:
    return Handshake(
        side=side,
        mode=Mode.PLAIN if key is None else Mode.SHARED_KEY,
        self_id=name or side.value,
        key=key,
        nonce=nonce or _NONCES[side],
    )


def _deliver(sender: Handshake, receiver: Handshake) -> None:
    payloads = sender.outgoing[:]
    sender.outgoing.clear()
    for payload in payloads:
        receiver.receive(payload)


def _run(dialler: Handshake, listener: Handshake) -> None:
    for _ in range(2):
        _deliver(dialler, listener)
        _deliver(listener, dialler)


def _channels() -> tuple[Channel, Channel]:
    dialler, listener = _handshake(Side.DIALLER), _handshake(Side.LISTENER)
    _run(dialler, listener)
    assert dialler.channel is not None
    assert listener.channel is not None
    return dialler.channel, listener.channel


@pytest.mark.parametrize("key", [None, _KEY])
def test_both_sides_learn_the_proved_id_of_the_other(key: bytes | None) -> None:
    """After the handshake each side has a channel and knows who is there."""
    dialler, listener = _handshake(Side.DIALLER, key), _handshake(Side.LISTENER, key)
    _run(dialler, listener)
    assert (dialler.peer_id, listener.peer_id) == ("listener", "dialler")
    assert dialler.channel is not None
    assert listener.channel is not None
    assert bytes(listener.channel.open(dialler.channel.seal(7, b"body")[4:])) == b"\x07body"
    assert bytes(dialler.channel.open(listener.channel.seal(8, b"")[4:])) == b"\x08"


def test_another_key_is_refused_by_the_listener_before_it_proves_anything() -> None:
    """A stranger gets a greeting from the listener, and nothing computed from the key."""
    dialler, listener = _handshake(Side.DIALLER, b"another key 1234"), _handshake(Side.LISTENER)
    _deliver(dialler, listener)
    _deliver(listener, dialler)
    with pytest.raises(AuthenticationFailed, match="shared key"):
        _deliver(dialler, listener)
    assert listener.outgoing == []
    assert listener.channel is None


def test_a_listener_without_the_key_is_refused_by_the_dialler() -> None:
    """The proof is mutual: a made-up proof of the listener ends the handshake."""
    dialler, listener = _handshake(Side.DIALLER), _handshake(Side.LISTENER)
    _deliver(dialler, listener)
    _deliver(listener, dialler)
    with pytest.raises(AuthenticationFailed):
        dialler.receive(b"\x00" * 32)
    assert dialler.channel is None


def test_a_dialler_cannot_be_fooled_with_its_own_bytes() -> None:
    """Greeting or proof sent back to their author prove nothing."""
    dialler = _handshake(Side.DIALLER)
    greeting = dialler.outgoing[0]
    with pytest.raises(AuthenticationFailed, match="own nonce"):
        dialler.receive(greeting)
    dialler, listener = _handshake(Side.DIALLER), _handshake(Side.LISTENER)
    _deliver(dialler, listener)
    _deliver(listener, dialler)
    with pytest.raises(AuthenticationFailed):
        dialler.receive(dialler.outgoing[0])


def test_a_recorded_handshake_is_worthless_against_a_fresh_nonce() -> None:
    """Replaying all that a real dialler said does not let anybody in."""
    dialler, listener = _handshake(Side.DIALLER), _handshake(Side.LISTENER)
    recorded = dialler.outgoing[:]
    _deliver(dialler, listener)
    _deliver(listener, dialler)
    recorded += dialler.outgoing
    again = _handshake(Side.LISTENER, nonce=b"m" * 32)
    again.receive(recorded[0])
    with pytest.raises(AuthenticationFailed):
        again.receive(recorded[1])


@given(st.integers(0, 45), st.integers(1, 255))
def test_any_change_of_a_greeting_on_the_way_ends_the_handshake(at: int, flip: int) -> None:
    """Magic, version, mode, nonce and id are all bound into the proofs."""
    dialler, listener = _handshake(Side.DIALLER), _handshake(Side.LISTENER)
    greeting = bytearray(dialler.outgoing.pop())
    greeting[at % len(greeting)] ^= flip
    dialler.outgoing.append(bytes(greeting))
    with pytest.raises(AuthenticationFailed):
        _run(dialler, listener)
    assert listener.channel is None


def test_the_side_is_bound_into_the_proof() -> None:
    """Two listeners relayed to each other do not authenticate."""
    one, two = _handshake(Side.LISTENER, name="a"), _handshake(Side.DIALLER, name="b")
    _deliver(two, one)
    swapped = _handshake(Side.LISTENER, name="b", nonce=_NONCES[Side.DIALLER])
    greeting = one.outgoing.pop()
    swapped.receive(greeting)
    two.receive(greeting)
    with pytest.raises(AuthenticationFailed):
        swapped.receive(two.outgoing.pop())


@given(st.binary(max_size=200))
def test_garbage_is_no_greeting(data: bytes) -> None:
    """No bytes make a handshake raise anything but AuthenticationFailed."""
    with pytest.raises(AuthenticationFailed):
        _handshake(Side.LISTENER).receive(data)


def test_modes_and_versions_that_differ_are_named() -> None:
    """The log of both sides can tell what is set up differently."""
    dialler, listener = _handshake(Side.DIALLER, None), _handshake(Side.LISTENER)
    with pytest.raises(AuthenticationFailed, match="mode plain, this server shared_key"):
        _deliver(dialler, listener)
    with pytest.raises(AuthenticationFailed, match="mode shared_key, this server plain"):
        _deliver(listener, _handshake(Side.DIALLER, None))
    greeting = bytearray(_handshake(Side.DIALLER).outgoing[0])
    greeting[4] = 9
    with pytest.raises(AuthenticationFailed, match="version 9, this server 1"):
        _handshake(Side.LISTENER).receive(bytes(greeting))


def test_nothing_is_taken_after_the_end_or_after_a_failure() -> None:
    """A handshake that is over stays over."""
    dialler, listener = _handshake(Side.DIALLER), _handshake(Side.LISTENER)
    greeting = dialler.outgoing[0]
    _run(dialler, listener)
    with pytest.raises(AuthenticationFailed):
        listener.receive(greeting)
    failed = _handshake(Side.LISTENER)
    with pytest.raises(AuthenticationFailed):
        failed.receive(b"HTTP")
    with pytest.raises(AuthenticationFailed):
        failed.receive(greeting)


@given(st.data())
def test_a_sealed_frame_with_any_bit_changed_is_refused(data: st.DataObject) -> None:
    """The MAC covers kind and body."""
    sealing, opening = _channels()
    frame = bytearray(sealing.seal(0, data.draw(st.binary(max_size=40)))[4:])
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(AuthenticationFailed):
        opening.open(bytes(frame))


@pytest.mark.parametrize("order", [[0, 0], [1], [0, 2], [0, 1, 0]])
def test_replayed_dropped_and_reordered_frames_are_refused(order: list[int]) -> None:
    """Frames are accepted once and in the order in which they were sealed."""
    sealing, opening = _channels()
    frames = [sealing.seal(0, b"%d" % number)[4:] for number in range(3)]
    *accepted, refused = order
    for number in accepted:
        opening.open(frames[number])
    with pytest.raises(AuthenticationFailed):
        opening.open(frames[refused])


def test_frames_cannot_be_sent_back_nor_moved_to_another_connection() -> None:
    """Each direction of each connection has a key of its own."""
    sealing, _ = _channels()
    frame = sealing.seal(0, b"body")[4:]
    with pytest.raises(AuthenticationFailed):
        sealing.open(frame)
    dialler = _handshake(Side.DIALLER, nonce=b"x" * 32)
    listener = _handshake(Side.LISTENER)
    _run(dialler, listener)
    assert listener.channel is not None
    with pytest.raises(AuthenticationFailed):
        listener.channel.open(frame)


@pytest.mark.parametrize("size", [1, 15, 16])
def test_a_frame_without_room_for_its_mac_is_refused(size: int) -> None:
    """There is no frame of MAC alone."""
    _, opening = _channels()
    with pytest.raises(AuthenticationFailed):
        opening.open(bytes(size))


def test_a_sealed_frame_says_its_length() -> None:
    """The length prefix counts payload and MAC."""
    sealing, _ = _channels()
    frame = sealing.seal(0, b"body")
    assert struct.unpack(">I", frame[:4])[0] == len(frame) - 4 == 1 + 4 + 16


def test_a_short_key_is_refused_with_advice() -> None:
    """Fifteen bytes are too few, and the message says how to make a key."""
    with pytest.raises(ConfigurationError, match=r"at least 16.*openssl rand"):
        Security.shared_key(b"x" * 15)


def test_the_key_is_in_no_repr() -> None:
    """Neither the settings nor a handshake show the key."""
    security = Security.shared_key(_KEY)
    shown = repr(security) + str(security) + repr(security.handshake(Side.DIALLER, "a"))
    assert _KEY.decode() not in shown
    assert repr(security) == "Security(mode=shared_key)"


def test_each_handshake_has_a_fresh_nonce() -> None:
    """Two greetings of the same server differ."""
    security = Security.shared_key(_KEY)
    first, second = (security.handshake(Side.DIALLER, "a").outgoing[0] for _ in range(2))
    assert first != second


@pytest.mark.parametrize("name", ["", "x" * 129])
def test_an_id_that_fits_no_greeting_is_refused(name: str) -> None:
    """Ids have 1 to 128 bytes."""
    with pytest.raises(ConfigurationError, match="1 to 128"):
        Security.plain().handshake(Side.DIALLER, name)


@pytest.mark.parametrize("missing", ["cert.pem", "ca.pem"])
def test_tls_files_that_are_missing_are_named(tmp_path: Path, missing: str) -> None:
    """The error says which file can't be used."""
    for name in {"cert.pem", "key.pem", "ca.pem"} - {missing}:
        (tmp_path / name).write_text("not a certificate")
    with pytest.raises(ConfigurationError, match=r"cannot use the .*\.pem"):
        Security.mutual_tls(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("check", "names", "accepted"),
    [
        (NameCheck.ROLE, ["server.dc1.raftreg"], True),
        (NameCheck.ROLE, ["SERVER.dc1.raftreg", "x"], True),
        (NameCheck.ROLE, ["n1"], False),
        (NameCheck.ROLE, ["server.dc2.raftreg"], False),
        (NameCheck.ROLE, ["agent.dc1.raftreg"], False),
        (NameCheck.ROLE_OR_NODE, ["N1"], True),
        (NameCheck.ROLE_OR_NODE, ["n2"], False),
        (NameCheck.ROLE_OR_NODE, [], False),
        (NameCheck.NONE, [], True),
    ],
)
def test_names_in_certificates(check: NameCheck, names: list[str], accepted: bool) -> None:
    """A certificate must carry the role, or the node name where that is allowed."""
    security = Security(Mode.MUTUAL_TLS, name_check=check)
    certificate = {"subjectAltName": tuple(("DNS", name) for name in names)}
    if accepted:
        security.check_certificate(certificate, "n1")
    else:
        with pytest.raises(AuthenticationFailed, match="needs one of"):
            security.check_certificate(certificate, "n1")
