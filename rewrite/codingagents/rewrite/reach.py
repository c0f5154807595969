"""CORE: which addresses a helper dials. A name that resolves into the machine or its own network is refused.

Names are resolved by whoever dials, once, and the address that was judged is the one that is dialed, so that a second
answer of the resolver (DNS rebinding) is never asked for.
"""

from __future__ import annotations

import ipaddress
from typing import Literal

Reach = Literal["public", "any", "loopback"]
_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
# An IPv6 address that only wraps an IPv4 one goes where that one goes: NAT64, RFC 6052.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")  # all that IANA has given out for the internet, RFC 4291 2.4
_AZURE = ipaddress.ip_address("168.63.129.16")  # its metadata service: public by number, never on the internet


def may_dial(address: str, reach: Reach) -> bool:
    """Say whether `address`, an IP literal, is within `reach`; what is no address is not."""
    try:
        ip = _unwrapped(ipaddress.ip_address(address.split("%", 1)[0]))
    except ValueError:
        return False
    if ip.is_multicast or ip.is_unspecified:
        return False
    if reach == "loopback":
        return ip.is_loopback
    return reach == "any" or _is_public(ip)


def _is_public(ip: _Ip) -> bool:
    return ip.is_global and ip != _AZURE and (isinstance(ip, ipaddress.IPv4Address) or ip in _UNICAST)


def _unwrapped(ip: _Ip) -> _Ip:
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(ip.packed[-4:])
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip


def is_address(host: str) -> bool:
    """Say whether `host` is an IP literal, with a zone or without, and so not a name to be resolved."""
    try:
        ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        return False
    return True


def split_host_port(text: str) -> tuple[str, int]:
    """Return host and port of a checked `HOST:PORT`, the brackets of an IPv6 address taken off."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
