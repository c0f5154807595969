"""A name server whose answer to the same question changes, and a mount namespace in which it is the resolver's.

with Dns(folder, ["127.0.0.2", "127.0.0.3"]) as dns:
    subprocess.run([*dns.prefix, …])     # every name is 127.0.0.2 at first, and then 127.0.0.3
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

_ADDRESS = "127.0.0.77"
_A = 1  # the type of an IPv4 address (RFC 1035 3.2.2)


class Dns:
    """Answers each question of an IPv4 address with the next of `answers`, and then always with the last."""

    def __init__(self, folder: Path, answers: Sequence[str]) -> None:
        self.asked = 0  # for IPv4 addresses
        self._answers = answers
        resolv = folder / "resolv.conf"
        resolv.write_text(f"nameserver {_ADDRESS}\n")
        command = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        self.prefix = ("unshare", "--mount", "sh", "-c", command, str(resolv))

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((_ADDRESS, 53))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (_ADDRESS, 53))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, client = self._socket.recvfrom(512)
            if not data:
                return
            self._socket.sendto(self._answer(data), client)

    def _answer(self, data: bytes) -> bytes:
        end = data.index(b"\0", 12) + 5  # the one question: a name, its type, its class
        (kind,) = struct.unpack_from(">H", data, end - 4)
        address = b""
        if kind == _A:
            address = socket.inet_aton(self._answers[min(self.asked, len(self._answers) - 1)])
            self.asked += 1
        record = struct.pack(">HHHIH", 0xC00C, _A, 1, 0, 4) + address if address else b""
        return data[:2] + struct.pack(">HHHHH", 0x8180, 1, bool(address), 0, 0) + data[12:end] + record
