"""SHELL: notices that the files of a session's secrets have changed, by looking at them again and again.

inotify would need a watch on each directory and says nothing about network file systems; a stat(2) a second costs
nothing. Sends nothing: the engine does, over the control channel.
"""

from __future__ import annotations

from collections.abc import Callable

from codingagents.rewrite.renewal import SecretFiles, Signature
from codingagents.rewrite.specs import RenewedSecrets
from codingagents.trust.errors import AgentError


class Renewals:
    """What a session is to be told of its secrets' files."""

    def __init__(self, files: SecretFiles, on_trouble: Callable[[str], None]) -> None:
        """Begin to watch. `on_trouble` gets one sentence for each state that cannot be used."""
        self._files = files
        self._on_trouble = on_trouble
        self._last = files.signature()
        self._judged: Signature | None = None  # the files may have changed since the session's secrets were read

    def look(self) -> RenewedSecrets | None:
        """Return the secrets that have new values, if any.

        A change is read once the files have stood still from one look to the next: whoever writes one is done then,
        and half a secret is nobody's credential.
        """
        before, self._last = self._last, self._files.signature()
        if self._last == self._judged or self._last != before:
            return None
        self._judged = self._last
        try:
            changed = self._files.changed()
        except AgentError as error:
            self._on_trouble(f"warning: the former secrets stay in use: {error}")
            return None
        return RenewedSecrets(secrets=changed) if changed else None
