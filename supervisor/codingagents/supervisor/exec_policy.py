"""CORE: decides one exec from what was read of it. Pure: no I/O, no clock. Total: every call gets a verdict.

First matching rule wins. A denial is *firm* only where the kernel would refuse the program by itself (Landlock
outside its trees, with the memfd route closed); every other denial is *advisory*, since the kernel reads the tracee's
memory again after the decision (seccomp_unotify(2)).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from codingagents.rewrite.specs import ExecRule, ExecSpec
from codingagents.trust.vocabulary import Firmness, Role


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to answer, which rule said so and how firm it is."""

    allow: bool
    rule: str
    reason: str
    firmness: Firmness


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule, ready to match; `text` is how it reads in records."""

    allow: bool
    text: str
    pattern: re.Pattern[bytes]
    role: str | None
    argv: tuple[bytes, ...]
    firmness: Firmness

    def matches(self, role: Role, path: bytes, resolved: bytes | None, argv: Sequence[bytes]) -> bool:
        """Say whether the rule covers an exec.

        A deny rule covers the path as written, without its dots, and as resolved: any of them suffices. An allow rule
        covers only what the path leads to, or `/usr/../tmp/x` and a symlink would pass as what they are not.
        """
        if self.role is not None and self.role != role:
            return False
        if self.argv and tuple(argv[: len(self.argv)]) != self.argv:
            return False
        normal = posixpath.normpath(path)
        candidates = (resolved if resolved is not None else normal,) if self.allow else (path, normal, resolved)
        return any(self.pattern.fullmatch(candidate) for candidate in candidates if candidate is not None)


def glob_pattern(glob: str) -> re.Pattern[bytes]:
    """Compile a path glob: `*` and `?` stay inside a component, `**` crosses them, all else is literal."""
    wildcards = {"**": b".*", "*": b"[^/]*", "?": b"[^/]"}
    tokens = re.split(r"(\*\*|\*|\?)", glob)
    pieces = [wildcards.get(token) or re.escape(token.encode("utf-8", "surrogateescape")) for token in tokens]
    return re.compile(b"".join(pieces), re.DOTALL)


def _may_lie_inside(glob: str, tree: str) -> bool:
    """Say whether some path of `glob` can lie beneath `tree`."""
    literal = re.split(r"[*?]", glob, maxsplit=1)[0]
    tree = tree.rstrip("/")
    if literal != glob and (tree + "/").startswith(literal):
        return True
    return literal == tree or literal.startswith(tree + "/")


def firmness_of(rule: ExecRule, trees: Sequence[str], *, landlock: bool, memfd_closed: bool) -> Firmness:
    """Say what stands behind a deny rule. argv can be changed after the decision, so a rule on argv is advisory."""
    outside = not any(_may_lie_inside(rule.path, tree) for tree in trees)
    if rule.action == "deny" and outside and landlock and memfd_closed and not rule.argv:
        return Firmness.FIRM
    return Firmness.ADVISORY


@dataclass(frozen=True, slots=True)
class ExecPolicy:
    """The compiled policy of one session; `enforce` denies what no rule covers."""

    enforce: bool
    rules: tuple[CompiledRule, ...]

    @classmethod
    def compile(cls, spec: ExecSpec, trees: Sequence[str], *, landlock: bool, memfd_closed: bool) -> ExecPolicy:
        """Compile `spec`; `trees` are those that Landlock holds to, symlinks already resolved."""
        rules = tuple(
            CompiledRule(
                allow=rule.action == "allow",
                text=f"{rule.action} {rule.path}" + (f" role={rule.role}" if rule.role else ""),
                pattern=glob_pattern(rule.path),
                role=rule.role,
                argv=tuple(part.encode("utf-8", "surrogateescape") for part in rule.argv),
                firmness=firmness_of(rule, trees, landlock=landlock, memfd_closed=memfd_closed),
            )
            for rule in spec.rules
        )
        return cls(enforce=spec.mode == "enforce", rules=rules)

    def decide(self, role: Role, path: bytes, resolved: bytes | None, argv: Sequence[bytes]) -> Verdict:
        """Return the verdict for one exec."""
        for rule in self.rules:
            if rule.matches(role, path, resolved, argv):
                return Verdict(rule.allow, rule.text, "rule matched", rule.firmness)
        if self.enforce:
            return Verdict(False, "", "no rule allows it", Firmness.ADVISORY)
        return Verdict(True, "", "observe mode" if resolved is not None else "nothing there", Firmness.ADVISORY)
