"""Which addresses a helper dials."""

import pytest

from codingagents.rewrite.reach import may_dial, split_host_port


@pytest.mark.parametrize(
    ("address", "public", "any_", "loopback"),
    [
        ("93.184.216.34", True, True, False),
        ("2606:4700::1111", True, True, False),
        ("127.0.0.1", False, True, True),
        ("::1", False, True, True),
        ("10.1.2.3", False, True, False),
        ("172.16.0.1", False, True, False),
        ("192.168.1.1", False, True, False),
        ("169.254.169.254", False, True, False),
        ("100.64.0.1", False, True, False),
        ("198.18.0.1", False, True, False),
        ("fe80::1%eth0", False, True, False),
        ("fc00::1", False, True, False),
        ("::ffff:127.0.0.1", False, True, True),
        ("::ffff:169.254.169.254", False, True, False),
        ("64:ff9b::a9fe:a9fe", False, True, False),
        ("64:ff9b::5db8:d822", True, True, False),
        ("2002:7f00:1::", False, True, True),
        ("fec0::1", False, True, False),
        ("::7f00:1", False, True, False),
        ("4000::1", False, True, False),
        ("0.0.0.0", False, False, False),
        ("::", False, False, False),
        ("224.0.0.1", False, False, False),
        ("ff02::1", False, False, False),
        ("255.255.255.255", False, True, False),
        ("localhost", False, False, False),
        ("", False, False, False),
    ],
)
def test_the_reach_of_an_address(address: str, public: bool, any_: bool, loopback: bool) -> None:
    """An address that only wraps another goes where that one goes; what is no address is never dialed."""
    assert (may_dial(address, "public"), may_dial(address, "any"), may_dial(address, "loopback")) == (
        public, any_, loopback,
    )  # fmt: skip


def test_host_and_port_are_split_at_the_last_colon() -> None:
    """With and without brackets."""
    assert split_host_port("203.0.113.7:8443") == ("203.0.113.7", 8443)
    assert split_host_port("[2001:db8::1]:443") == ("2001:db8::1", 443)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",  # the metadata service of most clouds
        "169.254.170.2",  # of AWS containers
        "fd00:ec2::254",  # of AWS over IPv6
        "100.100.100.200",  # of Alibaba, in the shared address space
        "168.63.129.16",  # of Azure: a public address that no name on the internet has
        "192.0.0.192",  # of Oracle
        "::ffff:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::a9fe:a9fe",  # NAT64 with a prefix of one's own, RFC 8215
        "2002:a9fe:a9fe::",
    ],
)
def test_metadata_services_are_out_of_reach_unless_meant(address: str) -> None:
    """Whatever a name resolves to, no credential of the machine itself can be asked for."""
    assert not may_dial(address, "public")
    assert may_dial(address, "any")
