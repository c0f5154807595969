"""Files of certificates, whatever is in them: certificates or a sentence, and never anything else of the file."""

import base64
import datetime

from hypothesis import given
from hypothesis import strategies as st

from codingagents.rewrite.certificates import describe, parse_certificates, to_pem
from codingagents.rewrite.overrides import Override, in_scope, parse_scope
from codingagents.trust.errors import TrustError, UsageError
from pki import Issued, make_root

WHEN = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
ROOTS = [make_root(name) for name in ("One", "Two", "Three")]
PIECES = [
    *(root.pem.encode() for root in ROOTS),
    *(root.pem.encode().replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE") for root in ROOTS),
    *(root.der for root in ROOTS),
    b"-----BEGIN CERTIFICATE-----\n",
    b"-----END CERTIFICATE-----\n",
    b"-----BEGIN PKCS7-----\n",
    b"0\x82",
    b"# text\n",
    b"\r\n",
]
files = st.lists(st.sampled_from(PIECES) | st.binary(max_size=40), max_size=6).map(b"".join)


def mutated(content: bytes, at: int, byte: int) -> bytes:
    place = at % max(len(content), 1)
    return content[:place] + bytes([byte]) + content[place + 1 :]


@given(st.builds(mutated, files, st.integers(0, 1 << 16), st.integers(0, 255)) | files)
def test_any_file_is_certificates_or_a_sentence(content: bytes) -> None:
    """Each once, each with the frame of a certificate; and they read the same again, also by what they say."""
    try:
        found = parse_certificates(content, "F")
    except TrustError as error:
        assert str(error).startswith("F")  # noqa: PT017 -- what the error says is the point
        return
    assert found
    assert len(set(found)) == len(found)
    assert parse_certificates(to_pem(found).encode(), "F") == found
    for certificate in found:
        try:
            assert describe(certificate).sha256
        except TrustError as error:
            assert "a certificate cannot be read" in str(error)  # noqa: PT017 -- likewise


@given(
    st.lists(st.sampled_from(ROOTS), min_size=1),
    st.text(st.characters(codec="utf-8", exclude_characters="-"), max_size=30),
)
def test_what_stands_between_never_changes_what_is_found(roots: list[Issued], text: str) -> None:
    """Order and first appearance count."""
    pems = [root.pem for root in roots]
    content = f"\n{text}\n".join(["", *pems, ""])
    assert parse_certificates(content.encode(), "F") == list(dict.fromkeys(root.der for root in roots))


@given(st.binary(max_size=300), st.sampled_from(["", "RSA ", "EC ", "ENCRYPTED ", "OPENSSH "]), st.booleans(), files)
def test_a_private_key_is_refused_wherever_it_stands(key: bytes, kind: str, before: bool, others: bytes) -> None:
    block = f"-----BEGIN {kind}PRIVATE KEY-----\n{base64.b64encode(key).decode()}\n-----END {kind}PRIVATE KEY-----\n"
    content = block.encode() + others if before else others + block.encode()
    try:
        parse_certificates(content, "F")
    except TrustError as error:
        assert "holds a private key" in str(error)  # noqa: PT017 -- what the error says is the point
    else:
        raise AssertionError("it was taken")


labels = st.sampled_from(["a", "b", "example", "com", "x-1", "*", "", "10", "A"])
hosts = st.lists(labels, min_size=1, max_size=4).map(".".join)


@given(hosts, hosts)
def test_a_scope_is_refused_or_covers_itself_and_what_stands_left_of_its_star(text: str, left: str) -> None:
    """And nothing that only looks like it."""
    try:
        scope = parse_scope(text)
        host = parse_scope(left)
    except UsageError:
        return
    override = Override(
        name="a", sha256="", spki="", subject="", issuer="", source="", scope=(scope,), not_after=WHEN, added=WHEN
    )
    if scope == "*":
        assert in_scope(override, host)
    elif scope.startswith("*."):
        domain = scope.removeprefix("*.")
        assert not in_scope(override, domain)
        assert in_scope(override, f"a.{domain}")
        assert in_scope(override, f"a.b.{domain}")
        assert not in_scope(override, f"a{domain}")
        assert not in_scope(override, f"{domain}.other")
    else:
        assert in_scope(override, scope)
        assert not in_scope(override, f"a.{scope}")
        assert not in_scope(override, f"a{scope}")
