"""Certificates of the mesh: roots, cross-signed roots, and leaves for services.

X.509 by RFC 5280; identities by SPIFFE's X509-SVID
(https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md): one URI, no subject needed,
`digitalSignature` for leaves, `keyCertSign` and `cRLSign` for authorities.
"""

from __future__ import annotations

import datetime

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from raftreg.core.connect_ca import Root, SecretText
from raftreg.core.spiffe import ServiceIdentity, parse_service
from raftreg.errors import InvalidRequest

SKEW_S = 60  #: clocks of others may be behind by so much
RSA_BITS_MIN = 2048
PEM_BYTES_MAX = 64 * 1024

_CURVES: dict[int, type[ec.EllipticCurve]] = {256: ec.SECP256R1, 384: ec.SECP384R1}
_PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class Leaf(msgspec.Struct, frozen=True):
    """A certificate of a service.

    Attributes:
        certificate: PEM: the leaf, and behind it the root cross-signed by the root before.
        serial: In hex with colons.
        valid_after, valid_before: Seconds since the epoch.
    """

    certificate: str
    serial: str
    identity: ServiceIdentity
    valid_after: int
    valid_before: int


def new_root(
    cluster_id: str, *, now_s: float, ttl_s: float, bits: int = 256, previous: Root | None = None
) -> Root:
    """Makes a root with a new key.

    Args:
        cluster_id: Names the trust domain.
        now_s: Seconds since the epoch.
        ttl_s: Its lifetime in seconds.
        bits: Size of the curve: 256 or 384.
        previous: The active root, which signs the new one as well.
    """
    key = ec.generate_private_key(_CURVES[bits]())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"raftreg CA {cluster_id.partition('-')[0]}")]
    )
    uri = x509.UniformResourceIdentifier(f"spiffe://{cluster_id}.consul")
    certificate = (
        _builder(subject, key.public_key(), now_s, now_s + ttl_s)
        .issuer_name(subject)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _root(certificate, key, previous)


def given_root(certificate_pem: str, key_pem: str, *, previous: Root | None = None) -> Root:
    """Takes a root that was made elsewhere.

    Raises:
        InvalidRequest: It is no authority's certificate, or the key does not belong to it.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        key = serialization.load_pem_private_key(key_pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The text of the error may tell of the key: it is not handed on.
        raise InvalidRequest("RootCert and PrivateKey must be PEM, the key unencrypted") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.key_size not in _CURVES:
        raise InvalidRequest("PrivateKey must be an EC key on P-256 or P-384")
    if _raw(certificate.public_key()) != _raw(key.public_key()):
        raise InvalidRequest("PrivateKey does not belong to RootCert")
    if not _is_authority(certificate):
        raise InvalidRequest(
            "RootCert is no certificate of an authority (basicConstraints CA, keyUsage keyCertSign)"
        )
    return _root(certificate, key, previous)


def sign_leaf(
    root: Root, csr_pem: str, *, trust_domain: str, datacenter: str, now_s: float, ttl_s: float
) -> Leaf:
    """Signs the request of a service's certificate.

    Raises:
        InvalidRequest: It is no request, or not for a service of this trust domain and datacenter.
    """
    csr = _request(csr_pem)
    identity = _identity(csr)
    if (identity.trust_domain, identity.datacenter) != (trust_domain, datacenter):
        raise InvalidRequest(
            f"SPIFFE ID in CSR is of another place: {identity.trust_domain}, "
            f"{identity.datacenter}; this is {trust_domain}, {datacenter}"
        )
    key = _signing_key(root)
    issuer = x509.load_pem_x509_certificate(root.certificate.encode())
    ends_s = min(now_s + ttl_s, root.not_after)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.service[:64])])
    public_key = csr.public_key()
    assert isinstance(public_key, _PublicKey)
    certificate = (
        _builder(subject, public_key, now_s, ends_s)
        .issuer_name(issuer.subject)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            ),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Leaf(
        certificate=_pem(certificate) + root.cross_signed,
        serial=colons(certificate.serial_number.to_bytes(20)),
        identity=identity,
        valid_after=_epoch(certificate.not_valid_before_utc),
        valid_before=_epoch(certificate.not_valid_after_utc),
    )


def colons(data: bytes) -> str:
    """Bytes as certificates show them: `0a:1b:…`."""
    return data.hex(":")


# -- parts -----------------------------------------------------------------------------------------


def _root(
    certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, previous: Root | None
) -> Root:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return Root(
        id=colons(certificate.fingerprint(hashes.SHA1())),
        name="Raftreg CA Root Cert",
        serial=certificate.serial_number % (1 << 63),
        certificate=_pem(certificate),
        key=SecretText(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode()
        ),
        signing_key_id=colons(identifier.digest),
        not_before=_epoch(certificate.not_valid_before_utc),
        not_after=_epoch(certificate.not_valid_after_utc),
        cross_signed="" if previous is None else _cross_signed(certificate, previous),
        key_bits=key.curve.key_size,
    )


def _cross_signed(certificate: x509.Certificate, previous: Root) -> str:
    """The new root's name and key under the signature of the root before it."""
    issuer = x509.load_pem_x509_certificate(previous.certificate.encode())
    key = _signing_key(previous)
    ends = min(certificate.not_valid_after_utc, issuer.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(issuer.subject)
        .public_key(certificate.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(ends)
    )
    for extension in certificate.extensions:
        if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
            builder = builder.add_extension(extension.value, critical=extension.critical)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
    )
    return _pem(builder.sign(key, hashes.SHA256()))


def _builder(
    subject: x509.Name, public_key: _PublicKey, starts_s: float, ends_s: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(starts_s - SKEW_S))
        .not_valid_after(_moment(ends_s))
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _request(csr_pem: str) -> x509.CertificateSigningRequest:
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        sound = csr.is_signature_valid
        public_key = csr.public_key()
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InvalidRequest(f"CSR can't be read: {str(error)[:200]}") from error
    if not sound:
        raise InvalidRequest("CSR is not signed by its own key")
    if isinstance(public_key, rsa.RSAPublicKey):
        strong = public_key.key_size >= RSA_BITS_MIN
    else:
        strong = isinstance(public_key, ed25519.Ed25519PublicKey) or (
            isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.key_size >= 256
        )
    if not strong:
        raise InvalidRequest("the key in CSR must be EC of 256 bits, Ed25519, or RSA of 2048 bits")
    return csr


def _identity(csr: x509.CertificateSigningRequest) -> ServiceIdentity:
    try:
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if len(uris) != 1 or len(names) != 1:
            raise InvalidRequest("CSR must name one URI, and nothing else")
        return parse_service(uris[0])
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise InvalidRequest(f"CSR holds no SPIFFE ID of a service: {str(error)[:200]}") from error


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return False
    return constraints.ca and usage.key_cert_sign


def _signing_key(root: Root) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(root.key.value.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _raw(key: object) -> bytes:
    assert hasattr(key, "public_bytes")
    raw: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return raw


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _epoch(moment: datetime.datetime) -> int:
    return int(moment.timestamp())
