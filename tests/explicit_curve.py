"""A CA whose certificate spells its curve out in parameters, as some old and some hostile ones do.

`cryptography` writes named curves only: its certificate is taken apart, given the other spelling, and signed again.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from codingagents.trust.der import fields
from pki import Issued

# SEC 2, section 2.4.2: secp256r1.
_P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_G = (
    "046B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296"
    "4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5"
)
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_EC_PUBLIC_KEY = bytes.fromhex("06072A8648CE3D0201")
_PRIME_FIELD = bytes.fromhex("06072A8648CE3D0101")


def with_explicit_curve(issued: Issued) -> Issued:
    """The same self-signed certificate with another spelling of its key."""
    assert isinstance(issued.key, ec.EllipticCurvePrivateKey)
    named = fields(issued.der).spki
    point = issued.key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    curve = _tlv(0x30, _tlv(0x04, (_P - 3).to_bytes(32, "big")) + _tlv(0x04, _B.to_bytes(32, "big")))
    parameters = _tlv(
        0x30,
        _number(1)
        + _tlv(0x30, _PRIME_FIELD + _number(_P))
        + curve
        + _tlv(0x04, bytes.fromhex(_G))
        + _number(_N)
        + _number(1),
    )
    spelled = _tlv(0x30, _tlv(0x30, _EC_PUBLIC_KEY + parameters) + _tlv(0x03, b"\0" + point))
    old = issued.certificate.tbs_certificate_bytes
    content = old[4:]  # 0x30 0x82 and two octets of length: it has more than 255
    assert old[:2] == b"\x30\x82"
    assert content.count(named) == 1
    tbs = _tlv(0x30, content.replace(named, spelled))
    algorithm = bytes.fromhex("300A06082A8648CE3D040302")  # ecdsa-with-SHA256
    signature = _tlv(0x03, b"\0" + issued.key.sign(tbs, ec.ECDSA(hashes.SHA256())))
    return Issued(x509.load_der_x509_certificate(_tlv(0x30, tbs + algorithm + signature)), issued.key)


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 + len(octets)]) + octets + content


def _number(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))
