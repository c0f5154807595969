"""ENTRY: what a Python proxy is when nobody wrote its hot path: an aiohttp handler and a `ClientSession`; a peer.

    python aiohttp_handler.py PORT UPSTREAM_PORT ROOT_PEM SERVER_NAME      BEARER and TOKEN from the environment

Runs in the environment of `requirements/bench.txt` and imports nothing of the project.
"""

# mypy: disable-error-code="import-not-found"
# The environment of mypy has no aiohttp.

import os
import ssl
import sys
from collections.abc import AsyncIterator, Mapping

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from multidict import CIMultiDict

_HOP_BY_HOP = ("Connection", "Keep-Alive", "Transfer-Encoding", "TE", "Trailer", "Upgrade")
_BEARER = f"Bearer {os.environ['BEARER']}"
_TOKEN = f"Bearer {os.environ['TOKEN']}"


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict:
    kept = CIMultiDict(headers)
    for name in _HOP_BY_HOP:
        kept.popall(name, None)
    return kept


async def _relay(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Authorization") != _BEARER:
        raise web.HTTPUnauthorized
    headers = _end_to_end(request.headers)
    headers["Authorization"] = _TOKEN
    headers["Host"] = request.app["name"]
    body = request.content if request.body_exists else None
    async with request.app["session"].request(
        request.method, request.app["origin"] + request.path_qs, headers=headers, data=body, allow_redirects=False
    ) as theirs:
        ours = web.StreamResponse(status=theirs.status, reason=theirs.reason, headers=_end_to_end(theirs.headers))
        await ours.prepare(request)
        async for data in theirs.content.iter_any():
            await ours.write(data)
        await ours.write_eof()
        return ours


async def _session(app: web.Application) -> AsyncIterator[None]:
    context = ssl.create_default_context(cafile=app["root"])
    async with ClientSession(
        connector=TCPConnector(ssl=context, limit=0),
        timeout=ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept-Encoding", "Content-Type"),
    ) as session:
        app["session"] = session
        yield


def main() -> None:
    """Serve until a signal."""
    port, upstream, root, name = sys.argv[1:]
    app = web.Application(client_max_size=1 << 40)
    app["root"], app["name"], app["origin"] = root, name, f"https://127.0.0.1:{upstream}"
    app.cleanup_ctx.append(_session)
    app.router.add_route("*", "/{path:.*}", _relay)
    web.run_app(app, host="127.0.0.1", port=int(port), access_log=None, print=None)


if __name__ == "__main__":
    main()
