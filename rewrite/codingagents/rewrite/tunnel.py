"""CORE: CONNECT through an HTTP proxy, sans-I/O: the request that asks for a tunnel, and whether the answer grants it.

Nothing but the target's name goes to the proxy: no credential, no header of a client, no name of the software. The
answer is read strictly, and must end where its head ends: the first byte inside the tunnel is the client's (TLS), so
a proxy that says more does not speak CONNECT. Knows no sockets; `dial` sends and reads.
"""

from __future__ import annotations

import re

MAX_ANSWER = 8192  # bytes of the proxy's answer head; a refusal's body is not read
_START = b"HTTP/1."
_NOT_VALID = "the proxy's answer is not valid HTTP/1.1"
# RFC 9112 4 and 5, without folded lines: what every proxy in use sends.
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_FIELD_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")


class TunnelError(Exception):
    """No tunnel. `code` is a key of `answers.ANSWERS`; the text holds nothing but numbers that the proxy chose."""

    def __init__(self, code: str, detail: str) -> None:
        """Fail for `code`."""
        super().__init__(detail)
        self.code = code


def request(host: str, port: int) -> bytes:
    """Return the whole request for a tunnel to `host`, a name or an IP literal without brackets."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("ascii")


class Answer:
    """The proxy's answer, as it comes."""

    def __init__(self) -> None:
        """Start before its first byte."""
        self._data = b""

    def feed(self, data: bytes) -> bool:
        """Add `data` (b"" is the end of the stream); True once the tunnel stands, `TunnelError` once it never will."""
        if not data:
            raise TunnelError("proxy_failed", "the proxy closed the connection before it answered")
        self._data += data
        end = self._data.find(b"\r\n\r\n", 0, MAX_ANSWER + 4)
        if end < 0:
            if not self._data.startswith(_START[: len(self._data)]):  # TLS, say: the rest would never come
                raise TunnelError("proxy_failed", _NOT_VALID)
            if len(self._data) > MAX_ANSWER:
                raise TunnelError("proxy_failed", f"the proxy's answer has a head over {MAX_ANSWER} bytes")
            return False
        first, *fields = self._data[:end].split(b"\r\n")
        matched = _STATUS_LINE.fullmatch(first)
        if matched is None or not all(_FIELD_LINE.fullmatch(field) for field in fields):
            raise TunnelError("proxy_failed", _NOT_VALID)
        status = int(matched[1])
        if status // 100 != 2:
            raise TunnelError("proxy_refused", f"the proxy answered {status}")
        if len(self._data) > end + 4:
            raise TunnelError("proxy_failed", "the proxy sent data into the tunnel before the client did")
        return True
