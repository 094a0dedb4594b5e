"""The images of our Dockerfile, built without a registry, as archives that outlive a run.

`archive("runtime-cpu")` is the whole interface for ours, `node_archive()` for what a node needs besides. An archive's name
holds a hash of everything that it was made from. The base of all images is this machine's own distribution, bootstrapped
from the mirror that its apt uses; Python packages come from where its pip takes them.

The engine's environment (gigabytes) is not copied into the runtime's image. It is mounted at `ENGINE`, at build and in the
pod, read-only; its interpreter where that lies on this machine, since the environment links to it. See `engine_mounts()`. The
bytecode is compiled before, as the Dockerfile would.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from testbed.build import BuildFailed, Missing, binary, cache_folder, locked, timed
from testbed.packages import need, search_path

ROOT = Path(__file__).parents[2]
TAG_PREFIX = "testbed.longshore.dev"
"""The registry, which does not exist, that our images are named under: `longshore render --images` of a test."""

PAUSE = f"{TAG_PREFIX}/pause:1"
COREDNS = f"{TAG_PREFIX}/coredns:1"
SERVED = ("storage-initializer", "runtime-cpu")
"""Those that a served version's pod runs, on a node without GPUs."""

ENGINE = Path("/opt/engine")
"""Where containers find the engine's environment, wherever this checkout lies."""

_ARCHITECTURES = "LlamaForCausalLM"
"""Those that the runtime's image has vLLM look at; all of them would take a minute for each image."""

_BASE = f"{TAG_PREFIX}/base:1"
_ENGINE_BASE = f"{TAG_PREFIX}/engine-base:1"
_BASE_PACKAGES = ("ca-certificates", "libgomp1", "libnuma1", "libstdc++6", "python3", "python3-pip")
"""An interpreter, pip for the stages that install, and the libraries that PyTorch and vLLM link to."""

_NOT_IN_BASE = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/lib/apt/lists", "var/cache", "var/log", "etc/apt")
_KEPT = 4
"""Archives of one image that are kept; what was built longest ago goes."""


@dataclass(frozen=True)
class Image:
    """An image in a docker-archive."""

    archive: Path

    @property
    def tag(self) -> str:
        tag: str = self._manifest()["RepoTags"][0]
        return tag

    @property
    def config(self) -> dict[str, Any]:
        """User, Env, Entrypoint and so on."""
        with tarfile.open(self.archive) as outer:
            content: dict[str, Any] = json.load(_member(outer, self._manifest()["Config"]))
        config: dict[str, Any] = content["config"]
        return config

    def unpacked_size(self) -> int:
        """Bytes of all files in all layers."""
        total = 0
        with tarfile.open(self.archive) as outer:
            for layer in self._manifest()["Layers"]:
                with tarfile.open(fileobj=_member(outer, layer)) as inner:
                    total += sum(entry.size for entry in inner)
        return total

    def unpack(self, folder: Path) -> None:
        """Write the files of all layers. For images whose layers delete nothing of those below."""
        with tarfile.open(self.archive) as outer:
            for layer in self._manifest()["Layers"]:
                with tarfile.open(fileobj=_member(outer, layer)) as inner:
                    inner.extractall(folder, filter="tar")

    def _manifest(self) -> dict[str, Any]:
        with tarfile.open(self.archive) as outer:
            (only,) = json.load(_member(outer, "manifest.json"))
        manifest: dict[str, Any] = only
        return manifest


def archive(target: str, version: str = "test") -> Image:
    """The image of a target of our Dockerfile, tagged `TAG_PREFIX/TARGET:VERSION`, built now if nothing like it is there."""
    return archives([target], version)[0]


def archives(targets: Iterable[str], version: str = "test") -> list[Image]:
    """Several at once: those that must be built share the layer of their base."""
    need("buildah", "debootstrap", "mount")
    made_from = f"{_context_key()} {version} {_engine_base()} {_ARCHITECTURES}"
    wanted = {target: _place(target, made_from) for target in targets}
    with locked(_folder() / "build.lock"):
        absent = [target for target, place in wanted.items() if not place.exists()]
        if absent:
            base = _base()
            with TemporaryDirectory(prefix="longshore-images-") as scratch:
                workshop = _Workshop(Path(scratch))
                workshop.make_base(base)
                for target in absent:
                    workshop.build_target(target, f"{TAG_PREFIX}/{target}:{version}", wanted[target])
    return [Image(place) for place in wanted.values()]


def node_archive() -> Image:
    """An image with the programs that a node runs in pods of its own: what holds a pod's namespaces, and DNS.

    One image serves as both; `PAUSE` and `COREDNS` are its names.
    """
    need("buildah", "mount")
    programs = {name: binary(name) for name in ("pause", "coredns")}
    place = _place("node", " ".join(str(path) for path in programs.values()))
    with locked(_folder() / "build.lock"):
        if not place.exists():
            with TemporaryDirectory(prefix="longshore-images-") as scratch:
                _Workshop(Path(scratch)).build_node(programs, place)
    return Image(place)


def peer_archive(name: str, dockerfile: Path, files: Mapping[str, Path]) -> Image:
    """Somebody else's image, `TAG_PREFIX/NAME:1`, to compare with; its stages name our bases as PYTHON_BASE and RUNTIME_BASE.

    `files` are what it finds in its context, by their names there.
    """
    need("buildah", "debootstrap", "mount")
    content = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (dockerfile, *files.values())]
    place = _place(name, f"{content} {_BASE_PACKAGES} {platform.machine()} {_distribution()[0]} {_engine_base()}")
    with locked(_folder() / "build.lock"):
        if not place.exists():
            base = _base()
            with TemporaryDirectory(prefix="longshore-images-") as scratch:
                workshop = _Workshop(Path(scratch))
                workshop.make_base(base)
                workshop.build_peer(f"{TAG_PREFIX}/{name}:1", dockerfile, files, place)
    return Image(place)


def engine_mounts() -> dict[Path, Path]:
    """Which folders of this machine go where: the environment that runs the tests, with the engine, and its interpreter."""
    interpreter = Path(sys.base_prefix).resolve()
    if interpreter.is_relative_to("/tmp"):
        raise Missing(f"the interpreter {interpreter} lies below /tmp, which every pod has for itself: use another (PYTHON=…)")
    return {Path(sys.prefix): ENGINE, interpreter: interpreter}


class _Workshop:
    """buildah with a store of its own, which goes with the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pip = folder / "pip.conf"

    def make_base(self, base: Path) -> None:
        """Know the two bases by name: the slim one and the one whose Python has the engine."""
        self._build(_BASE, f"FROM scratch\nADD {base.name} /\n", context=base.parent)
        self._build(_ENGINE_BASE, _engine_base(), context=self._folder)

    def build_target(self, target: str, tag: str, place: Path) -> None:
        """Build one target of our Dockerfile into an archive."""
        arguments = [f"--target={target}", f"--file={ROOT / 'Dockerfile'}", f"--ignorefile={ROOT / '.dockerignore'}"]
        arguments += [*self._bases(), *self._pip_mounts()]
        if target in ("runtime", "runtime-cpu"):
            compile_engine()
            python = f"{sys.version_info.major}.{sys.version_info.minor}"
            arguments += [f"--build-arg=ARCHITECTURES={_ARCHITECTURES}", f"--build-arg=RUNTIME_PYTHON={python}"]
            arguments += [f"--volume={here}:{there}:ro" for here, there in engine_mounts().items()]
        with timed(f"building the image {target}"):
            self._buildah("bud", "--pull-never", f"--tag={tag}", *arguments, str(ROOT))
            self._export(tag, place)

    def build_peer(self, tag: str, dockerfile: Path, files: Mapping[str, Path], place: Path) -> None:
        """Build the image of a peer into an archive."""
        context = self._folder / "context"
        context.mkdir()
        for name, path in files.items():
            shutil.copy(path, context / name)
        with timed(f"building the image {tag}"):
            arguments = [f"--tag={tag}", f"--file={dockerfile}", *self._bases(), *self._pip_mounts()]
            self._buildah("bud", "--pull-never", *arguments, str(context))
            self._export(tag, place)

    def build_node(self, programs: dict[str, Path], place: Path) -> None:
        """Build the image of pause and CoreDNS."""
        for name, program in programs.items():
            shutil.copy2(program, self._folder / name)
        self._build(PAUSE, 'FROM scratch\nCOPY pause coredns /\nENTRYPOINT ["/pause"]\n', context=self._folder)
        self._export(PAUSE, place)

    def _bases(self) -> list[str]:
        engines = [f"--build-arg={name}={_ENGINE_BASE}" for name in ("RUNTIME_BASE", "RUNTIME_CPU_BASE")]
        return [f"--build-arg=PYTHON_BASE={_BASE}", *engines]

    def _build(self, tag: str, text: str, context: Path) -> None:
        dockerfile = self._folder / "Dockerfile"
        dockerfile.write_text(text)
        self._buildah("bud", "--pull-never", f"--tag={tag}", f"--file={dockerfile}", str(context))

    def _export(self, tag: str, place: Path) -> None:
        draft = self._folder / "image.tar"
        self._buildah("push", tag, f"docker-archive:{draft}:{tag}")
        shutil.move(draft, place.with_suffix(".draft"))
        place.with_suffix(".draft").replace(place)
        name = place.name.rpartition("-")[0]
        for old in sorted(_folder().glob(f"{name}-*.tar"), key=lambda path: -path.stat().st_mtime)[_KEPT:]:
            old.unlink()

    def _pip_mounts(self) -> list[str]:
        """The machine's pip configuration for the stages that install, with the files that it names; none of it is kept."""
        config = _pip_configuration()
        with open(self._pip, "w") as file:
            config.write(file)
        named = [Path(word) for option in ("cert", "find-links") for word in config.get("global", option, fallback="").split()]
        present = [path for path in named if path.is_absolute() and path.exists()]
        return [f"--volume={self._pip}:/etc/pip.conf:ro", *(f"--volume={path}:{path}:ro" for path in present)]

    def _buildah(self, *arguments: str) -> None:
        store = [f"--root={self._folder / 'store'}", f"--runroot={self._folder / 'run'}", "--storage-driver=vfs"]
        environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "PATH": search_path(), "TMPDIR": str(self._folder)}
        _run("buildah", *store, *arguments, environment=environment)


def _engine_base() -> str:
    """The Dockerfile of a base whose Python is the engine's: mounted, so the way to it must be there, open to any user."""
    way = sorted({str(parent) for folder in engine_mounts().values() for parent in [folder, *folder.parents][:-1]})
    path = f"{ENGINE}/bin:/usr/local/bin:/usr/bin:/bin"
    return f"FROM {_BASE}\nRUN mkdir -p {' '.join(way)} && chmod a+rx {' '.join(way)}\nENV PATH={path}\n"


@cache
def compile_engine() -> None:
    """Have bytecode for the engine's environment, as the Dockerfile has it; what is compiled already costs little."""
    site = Path(sys.prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    with timed("compiling the engine's bytecode"):
        subprocess.run([sys.executable, "-m", "compileall", "-qq", "-j0", str(site)], capture_output=True, check=False)


def _base() -> Path:
    """The distribution's smallest system with Python, as an archive."""
    suite, mirror, components = _distribution()
    place = _place("base", f"{suite} {_BASE_PACKAGES} {_NOT_IN_BASE}")
    if not place.exists():
        with timed(f"bootstrapping {suite}"), TemporaryDirectory(prefix="longshore-base-") as scratch:
            system = Path(scratch) / "system"
            options = ["--variant=minbase", f"--components={components}", f"--include={','.join(_BASE_PACKAGES)}"]
            _run("debootstrap", *options, suite, str(system), mirror, environment=os.environ | {"PATH": search_path()})
            draft = place.with_suffix(".draft")
            with tarfile.open(draft, "w") as tar:
                tar.add(system, arcname=".", filter=_without_ballast)
            draft.replace(place)
    return place


def _without_ballast(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = entry.name.removeprefix("./")
    return None if name.startswith(tuple(f"{folder}/" for folder in _NOT_IN_BASE)) else entry


def _distribution() -> tuple[str, str, str]:
    """The codename of this machine's distribution, and a mirror of it with its components, from apt's own configuration."""
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    words = ["indextargets", "--format", "$(RELEASE) $(REPO_URI) $(COMPONENT)", "Created-By: Packages"]
    lines = [line.split() for line in _run("apt-get", *words).splitlines()]
    found = [(mirror, component) for release, mirror, component in lines if release == suite]
    if not found:
        raise Missing(f"apt has no sources for {suite or 'this distribution'}, from which to bootstrap a base image")
    mirror = found[0][0]
    return suite, mirror, ",".join(sorted({component for other, component in found if other == mirror}))


def _pip_configuration() -> configparser.RawConfigParser:
    """What pip is told on this machine, by files and by the environment, as one file."""
    home = Path.home()
    files = ["/etc/pip.conf", home / ".pip/pip.conf", home / ".config/pip/pip.conf", os.environ.get("PIP_CONFIG_FILE", "")]
    config = configparser.RawConfigParser()
    config.read([str(file) for file in files if file])
    if not config.has_section("global"):
        config.add_section("global")
    for name, value in os.environ.items():
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE":
            config.set("global", name.removeprefix("PIP_").lower().replace("_", "-"), value)
    return config


@cache
def _context_key() -> str:
    """A hash of all that the Dockerfile can see, and of the base that it starts from."""
    seen = hashlib.sha256(f"{_BASE_PACKAGES} {platform.machine()} {_distribution()[0]}".encode())
    files = [ROOT / name for name in ("Dockerfile", ".dockerignore")]
    for pattern in ("registry/longshore/**/*", "runtime/longshore_runtime/**/*", "requirements/*.txt"):
        files += sorted(path for path in ROOT.glob(pattern) if path.is_file() and "__pycache__" not in path.parts)
    for path in files:
        seen.update(f"{path.relative_to(ROOT)} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return seen.hexdigest()


def _place(name: str, made_from: str) -> Path:
    return _folder() / f"{name}-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.tar"


def _folder() -> Path:
    folder = cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _member(outer: tarfile.TarFile, name: str) -> Any:
    file = outer.extractfile(name)
    assert file
    return file


def _run(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise BuildFailed(f"{command[0]} failed: {said}")
    return done.stdout
