"""CORE: how a helper's own cores say no: an exception with a code of `trust.answers`. No I/O."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 -- a decision with a code, not an error of ours
    """A request or a response is refused; `code` is a key of `answers.ANSWERS`."""

    def __init__(self, code: str) -> None:
        """Refuse for `code`."""
        super().__init__(code)
        self.code = code
