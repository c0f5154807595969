"""The soak's upstream, a process that can be killed: asyncio over TLS, as reliable as a seed makes it.

python -I upstream.py PORT CHAIN KEY SEED

A target's query says what is wanted: /mcp?ID-KIND-COUNT. KIND "json" is one object with a length, "events" is COUNT
events in chunks, some of them late. What it does instead, now and then: reset or end the connection before or in the
middle of the answer, or never answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import sys

FATES = ["answer"] * 16 + ["reset", "end", "reset early", "silence"]


def events(name: str, count: int) -> list[bytes]:
    """Return the events that a client must get, in order."""
    return [b"data: %b %d %b\n\n" % (name.encode(), number, b"x" * (number * 37 % 400)) for number in range(count)]


def document(name: str, count: int) -> bytes:
    """Return the object that a client must get."""
    return b'{"id":"%b","pad":"%b"}' % (name.encode(), b"y" * (count * 50))


async def answer(writer: asyncio.StreamWriter, target: str, chance: random.Random) -> bool:
    """Answer one request; return whether the connection lives on."""
    name, kind, count = target.split("?")[1].split("-")
    fate = chance.choice(FATES)
    if fate == "reset early":
        return False
    if fate == "silence":
        await asyncio.sleep(5)
        return False
    if kind == "json":
        body = document(name, int(count))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        pieces = [body[:20], body[20:]]
    else:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        pieces = [b"%x\r\n%b\r\n" % (len(event), event) for event in events(name, int(count))] + [b"0\r\n\r\n"]
    stop = chance.randrange(len(pieces)) if fate in ("reset", "end") else len(pieces)
    for piece in pieces[:stop]:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(chance.choice([0, 0, 0.01, 0.1]))
    if fate == "end":
        writer.close()
    return fate == "answer"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chance: random.Random) -> None:
    """Serve one connection."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next(
                (line.split(":")[1] for line in head.split("\r\n") if line.startswith("Content-Length:")), "0"
            )
            await reader.readexactly(int(length))
            answering = asyncio.ensure_future(answer(writer, head.split(" ")[1], chance))
            gone = asyncio.ensure_future(reader.read(1))
            done, _ = await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            lives = answering in done and gone not in done and answering.exception() is None and answering.result()
            for task in (answering, gone):
                task.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)
            if not lives:
                break
    if not writer.is_closing():
        writer.transport.abort()


async def main(port: int, chain: str, key: str, seed: str) -> None:
    """Serve until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    chance = random.Random(seed)
    server = await asyncio.start_server(lambda r, w: serve(r, w, chance), "127.0.0.1", port, ssl=context)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]))
