"""An upstream server in a container of its own: TLS, a bearer token, a record of what arrived. Standard library only.

`python3 -I upstream.py DIRECTORY PORT…`: DIRECTORY holds chain.pem, key.pem and token.sha256; the record is written to
DIRECTORY/record.jsonl, one line a connection. It knows the token's hash only, and answers 401 to any other.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import sys
import threading
from pathlib import Path

PATIENCE = 20.0


def serve(directory: Path, port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "chain.pem", directory / "key.pem")
    token_hash = (directory / "token.sha256").read_text()
    record = os.open(directory / "record.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    listener = socket.create_server(("127.0.0.1", port))
    print(port, flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=talk, args=(connection, context, token_hash, record, port), daemon=True).start()


def talk(raw: socket.socket, context: ssl.SSLContext, token_hash: str, record: int, port: int) -> None:
    raw.settimeout(PATIENCE)
    data, status = b"", 0
    try:
        with context.wrap_socket(raw, server_side=True) as connection:
            while (size := request_size(data)) is None or len(data) < size:
                piece = connection.recv(65536)
                if not piece:
                    return
                data += piece
            bearer = next(
                (line[22:] for line in data.split(b"\r\n") if line.lower().startswith(b"authorization: bearer ")), b""
            )
            status = 200 if hashlib.sha256(bearer).hexdigest() == token_hash else 401
            body = json.dumps({"upstream": "reached", "status": status}).encode()
            head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
    except OSError:
        pass  # a client that refuses us is a result, and recorded as 0 bytes
    finally:
        os.write(record, json.dumps({"port": port, "bytes": len(data), "status": status}).encode() + b"\n")


def request_size(data: bytes) -> int | None:
    """Return the bytes of head and body together, once the head is there."""
    head, end, _ = data.partition(b"\r\n\r\n")
    if not end:
        return None
    lengths = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return len(head) + 4 + int(lengths[0] if lengths else b"0")


if __name__ == "__main__":
    for number in sys.argv[2:]:
        threading.Thread(target=serve, args=(Path(sys.argv[1]), int(number)), daemon=True).start()
    threading.Event().wait()
