"""CORE: decides one exec from what was read of it. Pure: no I/O, no clock. Total: every call gets a verdict.

First matching rule wins. A denial is *firm* only where the kernel would refuse the program by itself (Landlock
outside its trees, with the memfd route closed); every other denial is *advisory*, since the kernel reads the tracee's
memory again after the decision (seccomp_unotify(2)). A rule is marked by what its path can match, when it is loaded;
a record by the program or interpreter that was meant, and never firmer than its rule.

Where what the agent starts is routed to the task runner (`Routes`), rules that name no role do not allow it anything:
they are about tasks. It may execute what its client needs, and what a rule for `agent` allows; with an environment that
loads other code into it, which a project's settings may choose, nothing: that code would run as the agent.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from codingagents.rewrite import places
from codingagents.rewrite.specs import ExecRule, ExecSpec
from codingagents.supervisor.exec_routes import OwnProgram, Routes
from codingagents.trust.events import PolicyRule
from codingagents.trust.vocabulary import Firmness, Role

UNROUTED: Final = "unrouted"  # the reason of what should have gone to the task runner
# Variables that ld.so(8), the C library (iconv's modules, locales), OpenSSL (engines, for node and Copilot) and Bun, on
# which Claude Code runs, take code from, where they are not empty; with BUN_INSPECT from a port. Copilot runs what it
# finds in the directories that its own three name; it sets them itself, to places in its home.
_AT_HOME: Final = rb"(?=.{1,200}\Z)%b(?:/(?!\.\.?(?:/|\Z))[^/]+)*\Z" % re.escape(places.AGENT_HOME.encode())
_LOADING: Final = re.compile(
    rb"(LD_[^=]*|GCONV_PATH|LOCPATH|OPENSSL_CONF|BUN_OPTIONS|BUN_INSPECT[^=]*)(?:=.|\Z)"
    rb"|(NODE_PATH|NODE_OPTIONS)=(?!--max-old-space-size=\d{1,9}\Z)."
    rb"|(COPILOT_(?:CLI_DIST_DIR|PKG_CACHE_HOME|CACHE_HOME))=(?!" + _AT_HOME + rb").",
    re.DOTALL,
)
_NODE: Final = b"NODE_"  # begins those that node alone takes code from


class Verdict(msgspec.Struct, frozen=True):
    """What to answer, which rule said so and how firm it is."""

    allow: bool
    rule: str
    reason: str
    firmness: Firmness
    missing: bool = False  # there is no such program: answer as the kernel would


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule, ready to match; `text` is how it reads in records, `why` says what makes it advisory ("": firm)."""

    allow: bool
    text: str
    pattern: re.Pattern[bytes]
    role: str | None
    argv: tuple[bytes, ...]
    why: str

    @property
    def firmness(self) -> Firmness:
        """What stands behind its denials at best."""
        return _firmness(not self.why)

    def matches(self, role: Role, paths: Iterable[bytes], argv: Sequence[bytes]) -> bool:
        """Say whether the rule covers an exec by `role` of any of `paths`."""
        if self.role is not None and self.role != role:
            return False
        if self.argv and tuple(argv[: len(self.argv)]) != self.argv:
            return False
        return any(map(self.pattern.fullmatch, paths))


def loads_code(variable: bytes) -> bytes:
    """Return the name of an environment's `NAME=VALUE`, or of its beginning, if by it code is loaded; else b""."""
    found = _LOADING.match(variable)
    return (found[1] or found[2] or found[3]) if found else b""


def first_of(loading: Iterable[bytes]) -> bytes:
    """Return of what `loads_code` found the one to decide by: one that every program heeds, before one of node's."""
    return min(loading, key=lambda name: name.startswith(_NODE), default=b"")


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


def why_advisory(
    rule: ExecRule, trees: Sequence[str], *, landlock: bool, memfd_closed: bool, files: Collection[str] = ()
) -> str:
    """Say why nothing but the trap stands behind a rule; "" where the kernel itself refuses all that it can match.

    `files` are those of `trees` that are files, below which nothing can lie.
    """
    if rule.action == "allow":
        return "an allow rule enforces nothing"
    if rule.argv:
        return "argv can be changed after the decision"
    if not landlock:
        return "Landlock does not hold"
    if not memfd_closed:
        return "a program in memory could be executed past Landlock"
    pattern = glob_pattern(rule.path)
    file = next((file for file in files if pattern.fullmatch(_bytes(file))), None)
    if file is not None:
        return f"it can match {file}, which Landlock lets be executed"
    tree = next((tree for tree in trees if tree not in files and _may_lie_inside(rule.path, tree)), None)
    return "" if tree is None else f"it can match below {tree}, where Landlock lets everything be executed"


def rule_text(rule: ExecRule) -> str:
    """Return how a rule reads in records; two that differ never read alike."""
    text = f"{rule.action} {_word(rule.path)}"
    if rule.role is not None:
        text += f" role={_word(rule.role)}"
    if rule.argv:
        text += f" argv={json.dumps(rule.argv)}"
    return text


def _word(text: str) -> str:
    plain = text.isprintable() and not {" ", '"'} & {*text} and text
    return text if plain else json.dumps(text)


@dataclass(frozen=True, slots=True)
class ExecPolicy:
    """The compiled policy of one session, or of its agent alone; `enforce` denies what no rule covers."""

    enforce: bool
    rules: tuple[CompiledRule, ...]
    trees: tuple[bytes, ...]  # beneath which Landlock lets files be executed
    confined: bool  # Landlock holds, and memfds, which it does not see, cannot be executed
    routed: frozenset[str] | None = None  # texts of the rules that say what remains the agent's; None: not routed
    interpreters: frozenset[bytes] = frozenset()  # what those rules' scripts may be run by

    @classmethod
    def compile(
        cls,
        spec: ExecSpec,
        trees: Sequence[str],
        *,
        landlock: bool,
        memfd_closed: bool,
        routes: Routes | None = None,
    ) -> ExecPolicy:
        """Compile `spec`; `trees` are those that Landlock holds to, symlinks already resolved.

        With `routes` the policy is the agent's, and for no other role.
        """
        files = [] if routes is None else [*routes.files, *routes.mounted]
        trees = [*trees, *([] if routes is None else routes.mounted)]

        def compiled(rule: ExecRule, text: str) -> CompiledRule:
            return CompiledRule(
                allow=rule.action == "allow",
                text=text,
                pattern=glob_pattern(rule.path),
                role=rule.role,
                argv=tuple(_bytes(part) for part in rule.argv),
                why=why_advisory(rule, trees, landlock=landlock, memfd_closed=memfd_closed, files=files),
            )

        rules = [
            compiled(rule, rule_text(rule))
            for rule in spec.rules
            if routes is None or rule.role == Role.AGENT.value or (rule.role is None and rule.action == "deny")
        ]
        own = () if routes is None else tuple(compiled(_allowing(each), routes.rule(each)) for each in routes.own)
        return cls(
            enforce=spec.mode == "enforce",
            rules=(*rules, *own),
            trees=tuple(_bytes(tree) for tree in trees),
            confined=landlock and memfd_closed,
            routed=None if routes is None else frozenset(rule.text for rule in own),
            interpreters=frozenset() if routes is None else frozenset(map(_bytes, routes.interpreters)),
        )

    def decide(
        self,
        role: Role,
        path: bytes,
        resolved: bytes | None,
        argv: Sequence[bytes],
        *,
        interpreters: Sequence[bytes] = (),
        loading: bytes = b"",
    ) -> Verdict:
        """Return the verdict for one exec: `path` as written and absolute, `resolved` where it leads.

        A deny rule covers the path as written, without its dots, and as resolved: any of them suffices. An allow rule
        covers only what the path leads to, or `/usr/../tmp/x` and a symlink would pass as what they are not.

        `interpreters` are what the kernel runs for a script, where they lead: each needs to be let through as well. A
        rule on argv does not cover them, since the kernel gives them another. `loading` is the `first_of` what
        `loads_code` found in the environment.
        """
        normal = b"/" + posixpath.normpath(path).lstrip(b"/")
        leads_to = normal if resolved is None else resolved
        verdict = self._judge(role, (path, normal, leads_to), leads_to, resolved, argv)
        own = self.interpreters if self.routed and verdict.rule in self.routed else ()
        for interpreter in interpreters:
            if not verdict.allow:
                break
            refused = self._judge(role, (interpreter,), interpreter, interpreter, ())
            if not refused.rule and interpreter in own:
                continue
            if not refused.allow:
                return msgspec.structs.replace(refused, reason=f"its interpreter: {refused.reason}")
        heeded = not loading.startswith(_NODE) or any(map(_is_node, (leads_to, *interpreters)))
        if loading and heeded and self.routed is not None and verdict.allow and verdict.rule:
            why = f"{loading.decode('ascii', 'backslashreplace')} would have other code run in it"
            return Verdict(verdict.allow and not self.enforce, verdict.rule, why, Firmness.ADVISORY)
        return verdict

    def _judge(
        self, role: Role, names: Sequence[bytes], leads_to: bytes, resolved: bytes | None, argv: Sequence[bytes]
    ) -> Verdict:
        for rule in self.rules:
            if rule.matches(role, (leads_to,) if rule.allow else names, argv):
                firm = not rule.why and self._kernel_refuses(resolved)
                return Verdict(rule.allow, rule.text, "rule matched", _firmness(firm))
        if self.enforce and resolved is None:
            # A search along PATH goes on after ENOENT and stops at EPERM.
            return Verdict(False, "", "nothing there", Firmness.ADVISORY, missing=True)
        if self.enforce:
            why = "no rule allows it" if self.routed is None else UNROUTED
            return Verdict(False, "", why, _firmness(self._kernel_refuses(resolved)))
        why = "observe mode" if self.routed is None else UNROUTED
        return Verdict(True, "", why if resolved is not None else "nothing there", Firmness.ADVISORY)

    def marks(self) -> list[PolicyRule]:
        """Return each rule as it was loaded, with what stands behind it."""
        return [PolicyRule(rule=rule.text, firmness=rule.firmness.value, why=rule.why) for rule in self.rules]

    def _kernel_refuses(self, resolved: bytes | None) -> bool:
        """Say whether Landlock forbids this very program; of one that is not there, nothing can be said."""
        return self.confined and resolved is not None and not any(is_inside(resolved, tree) for tree in self.trees)


def _allowing(own: OwnProgram) -> ExecRule:
    return ExecRule(action="allow", path=own.path, role=Role.AGENT.value, argv=own.argv)


def is_inside(path: bytes, tree: bytes) -> bool:
    """Say whether `path` is `tree` or lies below it."""
    return path == tree or path.startswith(tree.rstrip(b"/") + b"/")


def _is_node(program: bytes) -> bool:
    return posixpath.basename(program).startswith(b"node")


def _firmness(firm: bool) -> Firmness:
    return Firmness.FIRM if firm else Firmness.ADVISORY


def _bytes(text: str) -> bytes:
    """Return a path or argument of the configuration as the kernel has it (`os.fsencode`, without `os`)."""
    return text.encode("utf-8", "surrogateescape")
