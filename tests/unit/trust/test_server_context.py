"""Certificates of our own listeners, and keys that they cannot be served with."""

import os

import pytest

from codingagents.trust.errors import ConfigError
from codingagents.trust.server_context import server_context
from codingagents.trust.vocabulary import Secret
from pki import make_root

ROOT = make_root()
LEAF = ROOT.issue()


def test_the_key_is_in_memory_only() -> None:
    """And that memory is closed again."""
    before = os.listdir("/proc/self/fd")
    server_context(LEAF.chain_pem, Secret(LEAF.key_pem))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("chain", "key"),
    [("no certificate", LEAF.key_pem), (LEAF.chain_pem, "no key"), (LEAF.chain_pem, ROOT.key_pem)],
)
def test_what_does_not_fit_is_refused_without_its_text(chain: str, key: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used") as refused:
        server_context(chain, Secret(key))
    assert key not in str(refused.value)
