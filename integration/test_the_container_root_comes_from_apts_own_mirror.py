"""Which mirror the container tests' root is made from, for each way in which apt can be told of one."""

from pathlib import Path

import pytest

from container_image import apt_mirror

MIRROR = "http://mirror.test/debian"
OTHER = "http://other.test/debian"


def etc_apt(directory: Path, files: dict[str, str]) -> Path:
    (directory / "sources.list.d").mkdir()
    for path, text in files.items():
        (directory / path).write_text(text)
    return directory


@pytest.mark.parametrize(
    "files",
    [
        {"sources.list": f"# deb {OTHER} trixie main\ndeb [arch=amd64 signed-by=/k] {MIRROR} trixie main contrib\n"},
        {"sources.list.d/x.list": f"deb-src {OTHER} trixie main\ndeb {MIRROR} trixie main # ours\n"},
        {
            "sources.list.d/x.sources": f"Types: deb deb-src\n# URIs: {OTHER}\nURIs: {MIRROR} {OTHER}\n"
            "Suites: trixie trixie-updates\nComponents: main\nSigned-By:\n -----BEGIN PGP-----\n .\n"
        },
        {
            "sources.list": f"deb {OTHER} trixie contrib\n",
            "sources.list.d/a.sources": f"Enabled: no\nTypes: deb\nURIs: {OTHER}\nSuites: trixie\nComponents: main\n",
            "sources.list.d/b.sources": f"Types: deb\nURIs: {OTHER}\nSuites: trixie-security\nComponents: main\n\n"
            f"Types: deb\nURIs: {MIRROR}\nSuites: trixie\nComponents: main\n",
        },
    ],
    ids=["one line", "one line in a part", "deb822", "disabled and other suites"],
)
def test_the_source_of_the_release_itself_is_taken(tmp_path: Path, files: dict[str, str]) -> None:
    assert apt_mirror("trixie", etc_apt(tmp_path, files)) == MIRROR


def test_a_list_of_mirrors_is_followed_to_its_first(tmp_path: Path) -> None:
    """As on the machines of GitHub's runners."""
    (tmp_path / "mirrors.txt").write_text(f"{MIRROR}\tpriority:1\n{OTHER}\tpriority:2\n")
    text = f"Types: deb\nURIs: mirror+file:{tmp_path}/mirrors.txt\nSuites: noble\nComponents: main universe\n"
    assert apt_mirror("noble", etc_apt(tmp_path, {"sources.list.d/ubuntu.sources": text})) == MIRROR


def test_a_machine_without_such_a_source_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no source for trixie main"):
        apt_mirror("trixie", etc_apt(tmp_path, {"sources.list": f"deb {MIRROR} bookworm main\n"}))
