"""Guards of the repository's layout. Imports nothing of the project, so that it still runs where imports are broken.

Run this file first: a stray `__init__.py` in one portion hides the other four at run time, and mypy reports success.
"""

import ast
import fnmatch
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ["trust", "rewrite", "proxies", "supervisor", "launcher"]
IMPORT_ROOT = "codingagents"
MAX_MODULE_LINES = 500

# Calls that start or wait for a process, by module; a whole module is banned where the value is None.
SPAWNERS: dict[str, frozenset[str] | None] = {
    "subprocess": None,
    "multiprocessing": None,
    "pty": None,
    "os": frozenset(
        {
            *("fork", "forkpty", "popen", "system", "posix_spawn", "posix_spawnp"),
            *("wait", "wait3", "wait4", "waitid", "waitpid"),
            *(f"spawn{how}" for how in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
        }
    ),
    "asyncio": frozenset({"create_subprocess_exec", "create_subprocess_shell"}),
    "trio": frozenset({"run_process", "lowlevel.open_process"}),
}
# A stub's children, in which it tries what is forbidden, are its own, and gone before it becomes the role.
# git for a workspace runs before there is a session, or when its last process has ended.
SPAWN_HOMES = (
    *("supervisor/processes.py", "supervisor/attempts.py"),
    *("supervisor/task_parent.py", "supervisor/task_keeper.py"),
    *("launcher/engines/", "launcher/workspace_git.py"),
)
# Tasks' own processes are made, and awaited, by the parent of all of them and each one's keeper, which have no others.
# The zygote clones by a raw system call and has no wait to steal: it needs no entry in SPAWN_HOMES.

EXECS = {"os": frozenset(f"exec{how}" for how in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe"))}
# An exec replaces the process and hides what ran before it, so each place that does it is listed.
EXEC_HOMES = (
    *("supervisor/processes.py", "supervisor/confine.py", "supervisor/task_command.py"),
    "supervisor/role_layers.py",  # tries execs that fail
    *("launcher/container_side.py", "rewrite/foreground.py"),
)


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder / IMPORT_ROOT).rglob("*.py"))


def inside(path: Path, homes: tuple[str, ...]) -> bool:
    name = str(path.relative_to(path.parents[[p.name for p in path.parents].index(IMPORT_ROOT)]))
    return any(name == home or (home.endswith("/") and name.startswith(home)) for home in homes)


def uses(source: str, banned: dict[str, frozenset[str] | None]) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every import or attribute of `source` that `banned` lists, whatever it is renamed to."""
    tree = ast.parse(source)
    names: dict[str, str] = {}  # local name -> dotted name
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
                if top in banned and banned[top] is None:
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                names[alias.asname or alias.name] = dotted
                if is_banned(dotted, banned):
                    yield node.lineno, dotted
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            head, _, tail = ast.unparse(node).partition(".")
            if head in names and is_banned(f"{names[head]}.{tail}", banned):
                yield node.lineno, f"{names[head]}.{tail}"


def is_banned(dotted: str, banned: dict[str, frozenset[str] | None]) -> bool:
    top, _, rest = dotted.partition(".")
    if top not in banned:
        return False
    calls = banned[top]
    return calls is None or rest in calls


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_portion_has_no_init_module(folder: str) -> None:
    """An `__init__` of any kind (.py, .pyi, .so) would make this folder the whole namespace."""
    assert [path.name for path in (ROOT / folder / IMPORT_ROOT).glob("__init__*")] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_portion_holds_exactly_its_folder(folder: str) -> None:
    """Another package under the same portion would ship twice or shadow its sibling."""
    assert {path.name for path in (ROOT / folder / IMPORT_ROOT).iterdir()} - {"__pycache__"} == {folder}
    assert {path.name for path in (ROOT / folder).iterdir()} - {"__pycache__", "ruff.toml"} == {IMPORT_ROOT}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_package_is_typed_and_imports_nothing_by_itself(folder: str) -> None:
    """`__init__.py` is a docstring only, so that one part never pulls in another's event loop."""
    package = ROOT / folder / IMPORT_ROOT / folder
    assert (package / "py.typed").is_file()
    body = ast.parse((package / "__init__.py").read_text()).body
    assert len(body) == 1
    assert ast.get_docstring(ast.Module(body=body, type_ignores=[]))


def test_the_folder_lists_in_pyproject_agree() -> None:
    """A folder missing in one list is built at a wrong path, left out of the wheel, or not type-checked."""
    settings = pyproject()
    hatch = settings["tool"]["hatch"]["build"]
    assert hatch["dev-mode-dirs"] == FOLDERS
    assert hatch["targets"]["wheel"]["only-include"] == [f"{folder}/{IMPORT_ROOT}" for folder in FOLDERS]
    assert hatch["targets"]["wheel"]["sources"] == FOLDERS
    assert hatch["targets"]["sdist"]["only-include"][: len(FOLDERS)] == FOLDERS
    assert settings["tool"]["mypy"]["files"][: len(FOLDERS)] == FOLDERS
    assert settings["tool"]["mypy"]["mypy_path"][: len(FOLDERS)] == FOLDERS
    assert settings["tool"]["ruff"]["src"][: len(FOLDERS)] == FOLDERS
    assert settings["tool"]["coverage"]["run"]["source_pkgs"] == [f"{IMPORT_ROOT}.{folder}" for folder in FOLDERS]
    assert settings["tool"]["importlinter"]["root_packages"] == [f"{IMPORT_ROOT}.{folder}" for folder in FOLDERS]


def test_the_supervisor_knows_its_version() -> None:
    """It ships into containers as bare folders, where no metadata of the distribution tells it."""
    source = (ROOT / "supervisor" / IMPORT_ROOT / "supervisor" / "boot.py").read_text()
    assert re.findall(r'(?m)^VERSION: Final = "(.*)"$', source) == [pyproject()["project"]["version"]]


def test_mypy_is_told_files_and_not_packages() -> None:
    """With `packages` mypy checks one portion of the namespace and reports success."""
    mypy = pyproject()["tool"]["mypy"]
    assert "packages" not in mypy
    assert "modules" not in mypy
    assert mypy["namespace_packages"]
    assert mypy["explicit_package_bases"]
    assert not re.search(r"mypy\s.*-p\b", (ROOT / "Makefile").read_text())


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_a_requirement_file_is_hashed_and_names_no_registry(path: Path) -> None:
    """Which index serves the files is the machine's choice; which bytes are installed is ours."""
    text = path.read_text()
    entries = [
        entry
        for entry in re.split(r"(?<!\\)\n", re.sub(r"(?m)^\s*#.*\n", "", text))
        if entry.strip() and entry[0] != " "
    ]
    assert entries
    for entry in entries:
        assert re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z,]+\])?==\S+", entry), f"not pinned: {entry[:60]}"
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), f"no hash: {entry[:60]}"
    assert "://" not in text
    assert not re.search(r"(?m)^\s*(-i\b|-f\b|--index-url|--extra-index-url|--find-links|--trusted-host)", text)


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.in")), ids=lambda path: path.name)
def test_a_requirement_source_names_no_registry(path: Path) -> None:
    """The sources are as free of a place as what is compiled from them."""
    assert not re.search(r"://|--index-url|--extra-index-url|--find-links", path.read_text())


def test_every_exception_from_a_rule_has_its_reason_beside_it() -> None:
    """Without one nobody can tell when it may go."""
    sources = [path for folder in (*FOLDERS, "tests", "integration") for path in (ROOT / folder).rglob("*.py")]
    comment = re.compile(r"# (?:noqa|type: ignore)\b(?!: [A-Z0-9, ]+ -- \S|\[[a-z, -]+\]  # \S)")
    found = [(path, line) for path in sources for line in path.read_text().splitlines() if comment.search(line)]
    assert [(str(path.relative_to(ROOT)), line) for path, line in found if path != Path(__file__)] == []


def test_the_files_that_the_architecture_names_exist() -> None:
    """A promise whose keeper or whose attack was renamed reads as kept, and nobody finds where."""
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    folders = [ROOT, *(ROOT / folder / IMPORT_ROOT for folder in FOLDERS)]
    named = [name for name in re.findall(r"`([\w*{},/.]+)`", text) if "/" in name[1:] and name[0] != "/"]
    each = [name for one in named for name in expanded(one)]
    assert len(each) > 20
    assert [name for name in each if not any(list(folder.glob(name)) for folder in folders)] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_module_is_on_the_map(folder: str) -> None:
    """`docs/development.md` names each, by itself or by a pattern."""
    text = (ROOT / "docs" / "development.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith(f"| `{folder}/` |")]
    named = re.findall(r"`([\w*]+)`", row)
    modules = [path.stem for path in (ROOT / folder / IMPORT_ROOT / folder).glob("[!_]*.py")]
    assert modules
    assert not [module for module in modules if not any(fnmatch.fnmatchcase(module, name) for name in named)]


def expanded(name: str) -> list[str]:
    """Return what a shell makes of `a{b,c}d`."""
    head, brace, rest = name.partition("{")
    choices, _, tail = rest.partition("}")
    return [f"{head}{choice}{tail}" for choice in choices.split(",")] if brace else [name]


@pytest.mark.parametrize("path", modules(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_module_is_short_enough_to_read(path: Path) -> None:
    """Past the limit a module has two jobs."""
    assert len(path.read_text().splitlines()) <= MAX_MODULE_LINES


def marked() -> dict[str, tuple[str, ast.Module]]:
    """Return {module name: (first word of its docstring, its tree)} of all modules that are no bare package."""
    found = {}
    for path in modules():
        if path.name != "__init__.py":
            tree = ast.parse(path.read_text())
            dotted = ".".join(
                path.relative_to(path.parents[[p.name for p in path.parents].index(IMPORT_ROOT) + 1]).parts
            )
            found[dotted.removesuffix(".py")] = ((ast.get_docstring(tree) or "").partition(":")[0], tree)
    return found


def test_every_module_says_what_it_is() -> None:
    """Who changes a module must know whether it may do I/O."""
    assert {name: mark for name, (mark, _) in marked().items() if mark not in ("CORE", "SHELL", "ENTRY")} == {}


def test_the_modules_that_call_themselves_cores_are_those_that_the_import_contract_guards() -> None:
    """A core that the contract does not list could do I/O unseen."""
    contracts = {contract["name"]: contract for contract in pyproject()["tool"]["importlinter"]["contracts"]}
    listed = contracts["cores do no I/O and know no clock"]["source_modules"]
    guarded = {name for name in marked() if any(name == each or name.startswith(f"{each}.") for each in listed)}
    assert {name for name, (mark, _) in marked().items() if mark == "CORE"} == guarded


def test_a_core_imports_cores_only() -> None:
    """The contract sees what a core imports itself; through a shell of ours it could do anything."""
    modules_of_ours = marked()
    wrong = []
    for name, (mark, tree) in modules_of_ours.items():
        for node in ast.walk(tree) if mark == "CORE" else ():
            if isinstance(node, ast.ImportFrom):
                imported = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
                wrong += [(name, each) for each in imported if modules_of_ours.get(each, ("CORE",))[0] != "CORE"]
    assert wrong == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_processes_are_started_and_awaited_in_one_place(path: Path) -> None:
    """A second waiter steals exit codes: an agent that failed would be reported as 0."""
    found = [] if inside(path, SPAWN_HOMES) else list(uses(path.read_text(), SPAWNERS))
    found += [] if inside(path, EXEC_HOMES) else list(uses(path.read_text(), dict(EXECS)))
    assert found == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import subprocess", "subprocess"),
        ("import subprocess as s", "subprocess"),
        ("from subprocess import run", "subprocess.run"),
        ("import os\nos.fork()", "os.fork"),
        ("import os as o\no.waitpid(-1, 0)", "os.waitpid"),
        ("from os import wait4 as w", "os.wait4"),
        ("def f():\n    import os\n    return os.posix_spawn", "os.posix_spawn"),
        ("import trio\ntrio.lowlevel.open_process", "trio.lowlevel.open_process"),
        ("from trio import lowlevel\nlowlevel.open_process", "trio.lowlevel.open_process"),
        ("import asyncio.subprocess\nasyncio.create_subprocess_exec", "asyncio.create_subprocess_exec"),
        ("import multiprocessing.pool", "multiprocessing.pool"),
    ],
)
def test_the_search_for_spawns_finds_them(source: str, name: str) -> None:
    """The guard above is worth what this search finds."""
    assert [found for _, found in uses(source, SPAWNERS)] == [name]


@pytest.mark.parametrize("source", ["import os\nos.waitstatus_to_exitcode(0)", "import trio\ntrio.run", "x.fork()"])
def test_the_search_for_spawns_lets_others_be(source: str) -> None:
    """What only looks similar is not refused."""
    assert list(uses(source, SPAWNERS)) == []
