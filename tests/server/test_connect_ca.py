"""/v1/connect/ca on a real server, with certificates checked by another implementation of X.509."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from raftreg.core.snapshot import restore, snapshot
from tests.server.conftest import Running

ROOTS, CONFIG, SIGN = (
    "/v1/connect/ca/roots",
    "/v1/connect/ca/configuration",
    "/v1/internal/connect/sign",
)


async def domain(api: Running) -> str:
    """The trust domain."""
    return str((await api.json("GET", ROOTS))["TrustDomain"])


def csr(*uris: str, key: Any = None) -> str:
    """A request for a certificate that names these."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    names = [x509.UniformResourceIdentifier(uri) for uri in uris]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    request = builder.sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


async def leaf_of(api: Running, service: str) -> Any:
    """A leaf for a service."""
    uri = f"spiffe://{await domain(api)}/ns/default/dc/dc1/svc/{service}"
    return await api.json("PUT", SIGN, json={"CSR": csr(uri)})


def verified(leaf: str, roots: list[str]) -> x509.Certificate:
    """The leaf, if a client that trusts these roots takes it.

    Raises:
        VerificationError: It does not.
    """
    chain = x509.load_pem_x509_certificates(leaf.encode())
    store = Store([x509.load_pem_x509_certificate(root.encode()) for root in roots])
    PolicyBuilder().store(store).build_client_verifier().verify(chain[0], chain[1:])
    return chain[0]


async def test_a_leaf_names_its_service_and_is_trusted(api: Running) -> None:
    """One SPIFFE id, signed by the active root, for as long as the settings say."""
    leaf = await leaf_of(api, "web")
    roots = await api.json("GET", ROOTS)
    assert roots["ActiveRootID"] == roots["Roots"][0]["ID"]
    certificate = verified(leaf["CertPEM"], [roots["Roots"][0]["RootCert"]])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [leaf["ServiceURI"]]
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert 0 <= lifetime.total_seconds() - 72 * 3600 <= 61
    assert leaf["Service"] == "web"


async def test_keys_are_nowhere_to_be_seen(api: Running) -> None:
    """Not in answers, not in what a fault would print; a snapshot has to hold them."""
    await leaf_of(api, "web")
    for path in (ROOTS, CONFIG, f"{ROOTS}?pem"):
        status, body, _ = await api.ask("GET", path)
        assert status == 200
        assert "PRIVATE" not in str(body)
    state = api.machine.state
    assert "PRIVATE" not in repr(state.connect)
    again = restore(snapshot(state))
    assert again.connect == state.connect
    assert b"PRIVATE" in b"".join(snapshot(state))


async def test_a_rotation_breaks_nobody(api: Running) -> None:
    """Old leaves are trusted by the new roots, new leaves by those who know the old root alone."""
    before = await api.json("GET", ROOTS)
    old_leaf = await leaf_of(api, "web")
    index = await api.index(ROOTS)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(api.json("GET", f"{ROOTS}?index={index}&wait=60s"))
        await api.waiting(1)
        await api.ask("PUT", CONFIG, json={"Provider": "consul", "Config": {}, "Rotate": True})
    after = waiting.result()
    assert after["ActiveRootID"] != before["ActiveRootID"]
    assert after["TrustDomain"] == before["TrustDomain"]
    assert [root["Active"] for root in after["Roots"]] == [True, False]
    assert after["Roots"][1]["RotatedOutAt"] == after["Roots"][0]["NotBefore"]
    new_leaf = await leaf_of(api, "web")
    old_root, new_root = before["Roots"][0]["RootCert"], after["Roots"][0]["RootCert"]
    verified(old_leaf["CertPEM"], [root["RootCert"] for root in after["Roots"]])
    verified(new_leaf["CertPEM"], [new_root])
    verified(new_leaf["CertPEM"], [old_root])
    with pytest.raises(VerificationError):
        verified(old_leaf["CertPEM"], [new_root])


async def test_a_root_of_one_s_own(api: Running) -> None:
    """A given root signs from then on; a key that does not belong to it is refused."""
    other = await api.json("GET", ROOTS)
    state = api.machine.state.connect
    assert state.active is not None
    mine = state.active
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mine")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(_moment(mine.not_before))
        .not_valid_after(_moment(mine.not_after))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    for root, secret in ((pem, ""), (other["Roots"][0]["RootCert"], private), ("x", private)):
        body = {"Config": {"RootCert": root, "PrivateKey": secret}}
        status, text, _ = await api.ask("PUT", CONFIG, json=body)
        assert status == 400
        assert "BEGIN" not in text
    body = {"Config": {"RootCert": pem, "PrivateKey": private, "LeafCertTTL": "1h"}}
    status, text, _ = await api.ask("PUT", CONFIG, json=body)
    assert (status, text) == (200, "")
    leaf = await leaf_of(api, "web")
    roots = await api.json("GET", ROOTS)
    verified(leaf["CertPEM"], [roots["Roots"][1]["RootCert"]])
    assert roots["Roots"][0]["RootCert"] == pem
    assert (await api.json("GET", CONFIG))["Config"]["LeafCertTTL"] == "1h0m0s"


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _moment(seconds: int) -> Any:
    import datetime  # noqa: PLC0415 - for this test alone

    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


async def test_requests_for_others_are_refused(api: Running) -> None:
    """Another trust domain or datacenter, no or several names, a weak key, no request at all."""
    own = await domain(api)
    good = f"spiffe://{own}/ns/default/dc/dc1/svc/web"
    bad = [
        csr("spiffe://evil.consul/ns/default/dc/dc1/svc/web"),
        csr(f"spiffe://{own}/ns/default/dc/dc2/svc/web"),
        csr(f"spiffe://{own}/agent/client/dc/dc1/id/x"),
        csr(good, good.replace("web", "db")),
        csr(),
        csr(good, key=ec.generate_private_key(ec.SECP192R1())),
        "nonsense",
        "",
    ]
    for request in bad:
        status, text, _ = await api.ask("PUT", SIGN, json={"CSR": request})
        assert status == 400, text
    status, _, _ = await api.ask("PUT", SIGN, data=b"x" * 20_000)
    assert status == 413


async def test_settings_are_checked(api: Running) -> None:
    """Names and lifetimes."""
    for body in (
        {"Provider": "vault"},
        {"Config": {"LeafCertTTL": "1s"}},
        {"Config": {"LeafCertTTL": "x"}},
        {"Config": {"Color": "blue"}},
        {"Config": {"PrivateKeyBits": 17}},
    ):
        status, text, _ = await api.ask("PUT", CONFIG, json=body)
        assert status == 400, text
