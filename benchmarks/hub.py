"""A hub that costs next to nothing: nginx with what a Hugging Face hub says of a model, and the model's files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.throttle import run_throttle
from testbed.control_plane import free_ports
from testbed.daemons import Daemons
from testbed.packages import search_path

COMMIT = "0123456789" * 4
NGINX = """
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  sendfile on;
  keepalive_requests 1000000;
  default_type application/octet-stream;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@contextmanager
def serve_hub(model: Path, rate: int | None) -> Iterator[str]:
    """A hub with the model as `org/m`, behind a line of `rate` bytes a second where there is one; yields its endpoint."""
    (port,) = free_ports(1)
    with contextlib.closing(Daemons()) as daemons, tempfile.TemporaryDirectory(prefix="longshore-hub-") as folder:
        api, files = Path(folder) / "api/models/org/m", Path(folder) / "org/m/resolve"
        for place in (api / "revision", api / "tree", files):
            place.mkdir(parents=True)
        (api / "revision/main").write_text(json.dumps({"sha": COMMIT}))
        (api / "tree" / COMMIT).write_text(json.dumps([describe(path) for path in sorted(model.iterdir())]))
        (files / COMMIT).symlink_to(model)
        config = daemons.folder / "nginx.conf"
        config.write_text(NGINX.format(folder=daemons.folder, port=port, root=folder))
        nginx = shutil.which("nginx", path=search_path()) or ""
        daemons.start("nginx", nginx, "-g", "daemon off;", "-c", config, "-p", daemons.folder, PATH=search_path())
        daemons.await_ready("nginx", (daemons.folder / "nginx.pid").exists)
        if rate is None:
            yield f"http://127.0.0.1:{port}"
        else:
            with run_throttle("127.0.0.1", ("127.0.0.1", port), rate) as endpoint:
                yield endpoint


def describe(path: Path) -> dict[str, Any]:
    """What a hub's listing says of a file, all of them being large ones to it."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    return {"type": "file", "path": path.name, "size": size, "oid": "", "lfs": {"oid": digest, "size": size}}
