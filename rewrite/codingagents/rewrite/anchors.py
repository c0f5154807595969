"""SHELL: trust anchors: the PEM stores that a configuration names, read on the host and handed to helpers as text.

`certificates` is pure. Where a store lies comes from the configuration (fixed paths, or a `ca_file`), never from the
environment: SSL_CERT_FILE and its like do not count. Does not decide which store a server uses, nor verify anything.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path

import certifi

from codingagents.rewrite.config import AnchorSource
from codingagents.rewrite.private_files import read_plain
from codingagents.rewrite.tables import Table
from codingagents.trust.errors import TrustError

MAX_STORE = 4 * 1024 * 1024  # bytes; Debian's whole bundle is about 220 kB

# RFC 7468: explanatory text may stand between the blocks, a label matches its END line.
_BLOCK = re.compile(r"-----BEGIN ([^\n]*?)-----\s(.*?)-----END \1-----", re.DOTALL)
_BEGIN = re.compile(r"-----BEGIN ")


def read_anchors(sources: Mapping[str, AnchorSource], file: str) -> dict[str, str]:
    """Return each server's store as PEM certificates; `file` is the configuration that names the stores.

    Raises `ConfigError`, or `TrustError` that names the store.
    """
    stores: dict[Path, str] = {}
    result: dict[str, str] = {}
    for server, source in sources.items():
        table = Table({}, file, f"mcp_servers.{server}.tls")
        if source.overrides:
            raise table.error("ca_overrides is not available yet; remove it")
        path = Path(source.path or certifi.where())
        if path not in stores:
            try:
                content = read_plain(path, limit=MAX_STORE)
            except FileNotFoundError:
                if source.store == "host":
                    remedy = 'which does not exist; install the package ca-certificates or use ca = "certifi"'
                    raise table.error(f"ca is the host's trust store {path}, {remedy}") from None
                raise table.error(f"ca_file is {path}, which does not exist") from None
            stores[path] = certificates(content, str(path))
        result[server] = stores[path]
    return result


def certificates(content: bytes, file: str) -> str:
    """Return the certificates in a PEM file, each once, in order and nothing else; `TrustError` names `file`.

    Refused: a private key (it must not travel with a trust store), OpenSSL's TRUSTED CERTIFICATE (its trust settings,
    rejections among them, would be lost), any other block, and a store without a certificate.
    """
    text = content.decode("ascii", "replace")  # comments may be in any encoding, the blocks are ASCII
    blocks = list(_BLOCK.finditer(text))
    if len(blocks) != len(_BEGIN.findall(text)):
        raise TrustError(f"{file}: a PEM block has no matching END line")
    found: dict[bytes, str] = {}
    for label, body in (block.groups() for block in blocks):
        _check_label(label, file)
        pem = f"-----BEGIN CERTIFICATE-----\n{body.strip()}\n-----END CERTIFICATE-----\n"
        try:
            der = ssl.PEM_cert_to_DER_cert(pem)
        except ValueError:
            raise TrustError(f"{file}: certificate {len(found) + 1} is not valid base64") from None
        found[der] = ssl.DER_cert_to_PEM_cert(der)
    if not found:
        raise TrustError(f"{file} holds no PEM certificate")
    joined = "".join(found.values())
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=joined)
    except ssl.SSLError as error:
        raise TrustError(f"{file}: a certificate cannot be parsed ({error.reason or 'unknown format'})") from None
    return joined


def _check_label(label: str, file: str) -> None:
    if label == "CERTIFICATE":
        return
    if label.endswith("PRIVATE KEY"):
        raise TrustError(f"{file} holds a private key; keep it elsewhere and give a file of certificates only")
    if label == "TRUSTED CERTIFICATE":
        raise TrustError(f"{file} holds a TRUSTED CERTIFICATE; convert it: openssl x509 -in FILE -out NEW")
    raise TrustError(f"{file} holds a PEM block {label[:40]!r}; only CERTIFICATE blocks belong in a trust store")
