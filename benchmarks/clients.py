"""The clients that `make bench-pull` compares, as the commands that start them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from testbed.build import cache_folder, manifests
from testbed.images import ROOT

OURS, STOCK = "longshore", "kserve-storage"
HUBS = ("hf", "modelscope")

_DOWNLOAD = "import sys; d('bench/m', local_dir=sys.argv[1])"
_HUB_CLIENTS = {
    "hf": f"from huggingface_hub import snapshot_download as d; {_DOWNLOAD}",
    "modelscope": f"from modelscope_hub.compat import snapshot_download as d; {_DOWNLOAD}",
}

Command = tuple[list[str], dict[str, str]]
"""Words, to which the target is added, and the environment."""


def commands(kind: str, endpoint: str, authority: str, address: str) -> dict[str, Command]:
    """Every client for one `kind` of server, `s3` or the name of a hub, at `endpoint`.

    `authority` is the file of the one who is to be trusted, `address` that of a version.
    """
    return _hub_clients(kind, endpoint) if kind in HUBS else _s3_clients(endpoint, authority, address)


def _s3_clients(endpoint: str, authority: str, address: str) -> dict[str, Command]:
    common = _basics() | {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CA_BUNDLE": authority,
        "SSL_CERT_FILE": authority,
    }
    entry = manifests("kserve-stock") / "python/storage-initializer/scripts/initializer-entrypoint"
    packages = installed("peer-kserve-storage", ROOT / "requirements/peer-kserve-storage.txt")
    stock = {"PYTHONPATH": str(packages), "S3_ENDPOINT": endpoint.partition("//")[2], "S3_VERIFY_SSL": "1"}
    rclone = ["--s3-provider=Other", f"--s3-endpoint={endpoint}", "--s3-env-auth", f"--ca-cert={authority}"]
    return {
        OURS: ([*_python(), "-m", "longshore_runtime.pull", address], common | ours()),
        STOCK: ([*_python(), str(entry), "s3://plain/tree"], common | stock),
        "s5cmd": ([str(tool("s5cmd")), "--log=error", "cp", "s3://plain/tree/*"], common | {"S3_ENDPOINT_URL": endpoint}),
        "rclone": ([str(tool("rclone")), "copy", "--config=", "--transfers=8", *rclone, ":s3:plain/tree"], common),
    }


def _hub_clients(hub: str, endpoint: str) -> dict[str, Command]:
    common = _basics() | {"HF_ENDPOINT": endpoint, "MODELSCOPE_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    return {
        OURS: ([*_python(), "-m", "longshore_runtime.pull", f"{hub}://bench/m"], common | ours()),
        hub: ([sys.executable, "-c", _HUB_CLIENTS[hub]], common),
    }


def _basics() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir()}


def _python() -> list[str]:
    """An interpreter that sees just what PYTHONPATH names: as in the images, nothing of what the tests need."""
    return [os.path.realpath(sys.executable), "-S"]


def ours() -> dict[str, str]:
    """Where our image's packages are, and the code beside them."""
    packages = installed("storage-initializer", ROOT / "requirements/storage-initializer.txt")
    return {"PYTHONPATH": f"{ROOT / 'runtime'}:{packages}"}


def tool(name: str) -> Path:
    """The program itself: one of the wheels starts it from Python."""
    folder = installed("peer-tools", ROOT / "requirements/peer-tools.txt")
    return next(found for found in (folder / name / "bin" / name, folder / "bin" / name) if found.exists())


def installed(name: str, pins: Path) -> Path:
    """A folder in the cache with the packages of a file of pins."""
    folder: Path = cache_folder() / f"{name}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:16]}"
    if not folder.exists():
        draft = Path(tempfile.mkdtemp(dir=cache_folder(), prefix=".draft-"))
        uv = [shutil.which("uv") or "uv", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--compile-bytecode"]
        subprocess.run([*uv, "--python", sys.executable, "--target", str(draft), "--requirement", str(pins)], check=True)
        draft.rename(folder)
    return folder
