"""CORE: decides one exec from what was read of it. Pure: no I/O, no clock. Total: every call gets a verdict.

First matching rule wins. A denial is *firm* only where the kernel would refuse the program by itself (Landlock
outside its trees, with the memfd route closed); every other denial is *advisory*, since the kernel reads the tracee's
memory again after the decision (seccomp_unotify(2)). A rule is marked by what its path can match, when it is loaded;
a record by the program that was meant, and never firmer than its rule.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from codingagents.rewrite.specs import ExecRule, ExecSpec
from codingagents.trust.vocabulary import Firmness, Role


class Verdict(msgspec.Struct, frozen=True):
    """What to answer, which rule said so and how firm it is."""

    allow: bool
    rule: str
    reason: str
    firmness: Firmness
    missing: bool = False  # there is no such program: answer as the kernel would


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule, ready to match; `text` is how it reads in records."""

    allow: bool
    text: str
    pattern: re.Pattern[bytes]
    role: str | None
    argv: tuple[bytes, ...]
    firmness: Firmness

    def matches(self, role: Role, paths: Iterable[bytes], argv: Sequence[bytes]) -> bool:
        """Say whether the rule covers an exec by `role` of any of `paths`."""
        if self.role is not None and self.role != role:
            return False
        if self.argv and tuple(argv[: len(self.argv)]) != self.argv:
            return False
        return any(map(self.pattern.fullmatch, paths))


def glob_pattern(glob: str) -> re.Pattern[bytes]:
    """Compile a path glob: `*` and `?` (one byte) stay inside a component, `**` crosses them, all else is literal.

    Matching takes at most quadratic time however many wildcards there are, since paths are chosen by whom the rules are
    against: wildcards are lazy, and what a later wildcard could make up for is never tried again (atomic groups).
    """
    first, *others = map(_segment, glob.split("**"))
    if not others:
        return re.compile(first, re.DOTALL)
    crossing = b"".join(b"(?>.*?" + segment + b")" for segment in others[:-1])
    return re.compile(b"(?>" + first + b")" + crossing + b".*" + others[-1], re.DOTALL)


def _segment(glob: str) -> bytes:
    """Return the expression for a glob without `**`."""
    return b"/".join(map(_component, glob.split("/")))


def _component(glob: str) -> bytes:
    first, *others = (
        b"[^/]".join(re.escape(_bytes(literal)) for literal in piece.split("?")) for piece in glob.split("*")
    )
    if not others:
        return first
    return first + b"".join(b"(?>[^/]*?" + piece + b")" for piece in others[:-1]) + b"[^/]*?" + others[-1]


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
    trees: tuple[bytes, ...]  # beneath which Landlock lets files be executed
    confined: bool  # Landlock holds, and memfds, which it does not see, cannot be executed

    @classmethod
    def compile(cls, spec: ExecSpec, trees: Sequence[str], *, landlock: bool, memfd_closed: bool) -> ExecPolicy:
        """Compile `spec`; `trees` are those that Landlock holds to, symlinks already resolved."""
        rules = tuple(
            CompiledRule(
                allow=rule.action == "allow",
                text=f"{rule.action} {rule.path}" + (f" role={rule.role}" if rule.role else ""),
                pattern=glob_pattern(rule.path),
                role=rule.role,
                argv=tuple(_bytes(part) for part in rule.argv),
                firmness=firmness_of(rule, trees, landlock=landlock, memfd_closed=memfd_closed),
            )
            for rule in spec.rules
        )
        return cls(
            enforce=spec.mode == "enforce",
            rules=rules,
            trees=tuple(_bytes(tree) for tree in trees),
            confined=landlock and memfd_closed,
        )

    def decide(
        self,
        role: Role,
        path: bytes,
        resolved: bytes | None,
        argv: Sequence[bytes],
        *,
        interpreters: Sequence[bytes] = (),
    ) -> Verdict:
        """Return the verdict for one exec: `path` as written and absolute, `resolved` where it leads.

        A deny rule covers the path as written, without its dots, and as resolved: any of them suffices. An allow rule
        covers only what the path leads to, or `/usr/../tmp/x` and a symlink would pass as what they are not.
        """
        normal = b"/" + posixpath.normpath(path).lstrip(b"/")
        leads_to = normal if resolved is None else resolved
        names = (path, normal, leads_to)
        for rule in self.rules:
            if rule.matches(role, (leads_to,) if rule.allow else names, argv):
                firm = rule.firmness is Firmness.FIRM and self._kernel_refuses(resolved)
                return Verdict(rule.allow, rule.text, "rule matched", _firmness(firm))
        if self.enforce and resolved is None:
            # A search along PATH goes on after ENOENT and stops at EPERM.
            return Verdict(False, "", "nothing there", Firmness.ADVISORY, missing=True)
        if self.enforce:
            return Verdict(False, "", "no rule allows it", _firmness(self._kernel_refuses(resolved)))
        return Verdict(True, "", "observe mode" if resolved is not None else "nothing there", Firmness.ADVISORY)

    def _kernel_refuses(self, resolved: bytes | None) -> bool:
        """Say whether Landlock forbids this very program; of one that is not there, nothing can be said."""
        return self.confined and resolved is not None and not any(_is_inside(resolved, tree) for tree in self.trees)


def _is_inside(path: bytes, tree: bytes) -> bool:
    return path == tree or path.startswith(tree.rstrip(b"/") + b"/")


def _firmness(firm: bool) -> Firmness:
    return Firmness.FIRM if firm else Firmness.ADVISORY


def _bytes(text: str) -> bytes:
    """Return a path or argument of the configuration as the kernel has it (`os.fsencode`, without `os`)."""
    return text.encode("utf-8", "surrogateescape")
