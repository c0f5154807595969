"""docs/trust.md, from refusal to working: each command of it is run, at a terminal where it needs one."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import re
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pki
from foreground_rig import one_request
from trust_clerk import Clerk

DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "trust.md").read_text()
ROOT = pki.make_root("Lab Root")
AUTHORITY = ROOT.issue_ca("Lab CA")
LEAF = AUTHORITY.issue(("localhost",))
REPLY = b'{"jsonrpc":"2.0","id":1,"result":{}}'


class Replies(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(REPLY)))
        self.end_headers()
        self.wfile.write(REPLY)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def server(folder: Path) -> Iterator[int]:
    """An MCP server of few words, with a certificate of the private CA; its root is not sent."""
    (folder / "server.pem").write_text(LEAF.chain_pem + LEAF.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    # Each connection does its handshake in its own thread, or one that is refused would hold up the next.
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replies) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
        listening.handle_error = lambda *_: None  # type: ignore[method-assign]  # refusals are what is wanted
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening.server_port
        listening.shutdown()
        thread.join()


def said(name: str) -> list[str]:
    """Return the lines that the document has of a step, commands left out."""
    (block,) = re.findall(rf"```text walkthrough-{name}\n(.*?)```", DOCUMENT, re.DOTALL)
    return [line for line in block.splitlines() if not line.startswith("$ ")]


def command(name: str) -> list[str]:
    (line,) = re.findall(rf"```text walkthrough-{name}\n\$ coding-agents trust (.*?)\n", DOCUMENT)
    found: list[str] = line.split()
    return found


def test_two_commands_lead_from_refusal_to_working(tmp_path: Path) -> None:
    """What the refusal names is what helps, and each step says what the document says that it does."""
    clerk = Clerk(tmp_path, ROOT)
    (toml,) = re.findall(r"```toml\n(.*?)```", DOCUMENT.partition("## From refusal to working")[2], re.DOTALL)[:1]
    with server(tmp_path) as port:
        clerk.write(toml.replace(":8443", f":{port}"))
        status, text, shown = one_request(clerk.config, "docs")
        assert status == 502
        (refusal,) = said("refusal")
        assert refusal in shown
        remedy = refusal.partition("; ")[2]
        assert remedy in text

        check = clerk.run(*command("check"))
        assert f"coding-agents trust {' '.join(command('check'))}" in remedy
        assert check.returncode == 1
        assert [line for line in said("check") if line not in check.stdout] == []

        digits = hashlib.sha256(AUTHORITY.der).hexdigest()[:16]
        assert f"coding-agents trust {' '.join(command('add'))}".replace("docs-ca", "NAME") in remedy
        code, shown = clerk.on_a_terminal(digits, *command("add"))
        assert code == 0, shown
        plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
        assert [line for line in said("add") if line not in plain] == []

        status, text, shown = one_request(clerk.config, "docs")
        assert (status, text.encode()) == (200, REPLY)
        assert [line for line in said("works") if line not in shown] == []
        assert clerk.run(*command("check")).returncode == 0
