"""What the kernel says of the other end of a unix socket."""

import os
import socket

from codingagents.trust.linux import peer_of_unix_socket


def test_the_peer_of_a_unix_socket_is_who_connected_it() -> None:
    """Also where it has gone since: the kernel wrote it down at connect."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        assert peer_of_unix_socket(ours) == os.getuid()
