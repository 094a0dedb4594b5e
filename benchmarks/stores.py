"""The data of `make bench-pull`, and the servers that stand for stores and hubs.

nginx is never the bottleneck: it sends files, and its listings and documents are files as well. What it cannot do, wait before
the first byte as a store far away does, a small server of our own does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from longshore import Registry
from support.models import make_model
from testbed.certificate import make_certificate
from testbed.control_plane import free_ports
from testbed.daemons import Daemons
from testbed.packages import search_path

MIB = 1024**2
FIRST_BYTE, RATE = 0.03, 90_000_000
"""Seconds before an answer, and bytes per second of a connection, as stores that are far away have them."""

_COMMIT = "0" * 40
_LARGE = ".safetensors"


def make_data(data: Path, size: int) -> Path:
    """A pushed version below `models/`, and the same files without our metadata below `plain/`; a listing of each."""
    model = make_model(data / "plain/tree", shards=4, elements=size * MIB // 2)
    root = data / "models"
    tree = Path(Registry(root.as_uri()).push(model, "m:1").version.uri.removeprefix("file://"))
    shutil.rmtree(model)
    model.mkdir()
    for file in tree.iterdir():
        if file.is_file():
            os.link(file, model / file.name)
    for bucket, prefix in (("models", tree.relative_to(root)), ("plain", Path("tree"))):
        files = sorted(path for path in (data / bucket / prefix).rglob("*") if path.is_file())
        contents = "".join(
            f"<Contents><Key>{escape(str(file.relative_to(data / bucket)))}</Key><Size>{file.stat().st_size}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;0&quot;</ETag><StorageClass>STANDARD</StorageClass>"
            "</Contents>"
            for file in files
        )
        text = (
            f"<Name>{bucket}</Name><Prefix>{prefix}/</Prefix><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{contents}"
        )
        (data / f"{bucket}.xml").write_text(
            f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{text}'
            "</ListBucketResult>"
        )
    (data / "address").write_text(f"s3://models/{tree.relative_to(root)}")
    shutil.copyfile(tree / ".longshore/manifest.json", data / "manifest.json")
    return data


@contextlib.contextmanager
def serve(data: Path, core: str) -> Iterator[dict[str, str]]:
    """The servers, on one core: their endpoints (`http`, `https`, `far`) and the file of their authority."""
    plain, secure, far = free_ports(3)
    with contextlib.closing(Daemons()) as daemons:
        certificate = make_certificate(daemons.folder / "certificate", ["127.0.0.1"])
        config = daemons.folder / "nginx.conf"
        config.write_text(nginx_config(data, daemons.folder, plain, secure, str(certificate.certificate), str(certificate.key)))
        nginx = shutil.which("nginx", path=search_path()) or ""
        pinned = [shutil.which("taskset") or "", "--cpu-list", core]
        daemons.start("nginx", *pinned, nginx, "-c", config, "-p", daemons.folder, PATH=search_path())
        paths = os.pathsep.join(sys.path)
        daemons.start("far", *pinned, sys.executable, "-m", "benchmarks.stores", str(data), str(far), PYTHONPATH=paths)
        for port in (plain, secure, far):
            _wait_for(port)
        yield {
            "http": f"http://127.0.0.1:{plain}",
            "https": f"https://127.0.0.1:{secure}",
            "far": f"http://127.0.0.1:{far}",
            "authority": str(certificate.authority),
        }


def _wait_for(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


def nginx_config(data: Path, folder: Path, plain: int, secure: int, certificate: str, key: str) -> str:
    listings = "".join(
        f"location = /{bucket} {{ default_type application/xml; alias {data}/{bucket}.xml; }}\n"
        f"location = /{bucket}/ {{ default_type application/xml; alias {data}/{bucket}.xml; }}\n"
        for bucket in ("models", "plain")
    )
    return f"""\
daemon off; worker_processes 1; user root; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{plain};
    listen 127.0.0.1:{secure} ssl;
    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
    {listings}
    {_hub_locations(data)}
    location / {{ root {data}; default_type application/octet-stream; }}
  }}
}}
"""


def _hub_locations(data: Path) -> str:
    """Both hubs' documents and files, as far as their clients ask for them to download `bench/m`."""
    files = json.loads((data / "manifest.json").read_bytes())["files"]
    info = {"id": "bench/m", "modelId": "bench/m", "sha": _COMMIT, "siblings": [{"rfilename": file["path"]} for file in files]}
    tree, listed, places = [], [], ""
    for file in files:
        path, size, sha256 = file["path"], file["size"], file["sha256"]
        large = path.endswith(_LARGE)
        name = sha256[:40] if large else _git_name((data / "plain/tree" / path).read_bytes())
        tree.append({"type": "file", "path": path, "size": size, "oid": name})
        headers = f"add_header X-Repo-Commit {_COMMIT}; add_header ETag '\"{sha256 if large else name}\"';"
        if large:
            tree[-1]["lfs"] = {"oid": sha256, "size": size, "pointerSize": 134}
            headers += f"add_header X-Linked-Etag '\"{sha256}\"'; add_header X-Linked-Size {size};"
        listed.append({"Path": path, "Name": path, "Type": "blob", "Revision": _COMMIT, "Size": size, "Sha256": sha256})
        place = f"{data}/plain/tree/{path}"
        places += f"location = /bench/m/resolve/{_COMMIT}/{path} {{ etag off; {headers} alias {place}; }}\n"
    revisions = {"RevisionMap": {"Branches": [{"Revision": "master"}], "Tags": []}}
    documents = {
        "/api/models/bench/m": info,
        "/api/models/bench/m/revision/main": info,
        f"/api/models/bench/m/tree/{_COMMIT}": tree,
        "/api/v1/models/bench/m/revisions": _answer(revisions),
        "/api/v1/models/bench/m/repo/files": _answer({"Files": listed}),
        "/api/v1/repos/internalAccelerationInfo": _answer({}),
    }
    for number, (path, content) in enumerate(documents.items()):
        (data / f"document-{number}").write_text(json.dumps(content))
        places += f"location = {path} {{ default_type application/json; alias {data}/document-{number}; }}\n"
    return places + f"location = /api/v1/models/bench/m/repo {{ root {data}/plain/tree; try_files /$arg_FilePath =404; }}\n"


def _answer(content: object) -> dict[str, object]:
    return {"Code": 200, "Success": True, "Message": "success", "Data": content}


def _git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


# -- the store that is far away --------------------------------------------------------------------


def serve_far(data: Path, port: int) -> None:
    """Answers FIRST_BYTE seconds late, and sends RATE bytes a second over each connection."""
    with socket.create_server(("127.0.0.1", port), backlog=256) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve_connection, args=(connection, data), daemon=True).start()


def _serve_connection(connection: socket.socket, data: Path) -> None:
    with contextlib.suppress(OSError), connection, connection.makefile("rb") as requests:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while line := requests.readline():
            method, target, _ = line.decode().split()
            fields = {}
            while field := requests.readline().strip():
                name, _, value = field.decode().partition(":")
                fields[name.lower()] = value.strip()
            time.sleep(FIRST_BYTE)
            _send_file(connection, data, method, target.partition("?")[0], fields.get("range", ""))


def _send_file(connection: socket.socket, data: Path, method: str, path: str, wanted: str) -> None:
    name = f"{path.strip('/')}.xml" if path.strip("/") in ("models", "plain") else path.strip("/")
    file = data / name
    if not file.is_file():
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        return
    size = file.stat().st_size
    first, last = 0, size - 1
    if wanted:
        begin, _, end = wanted.removeprefix("bytes=").partition("-")
        first, last = int(begin), min(int(end or last), last)
    head = [
        f"HTTP/1.1 {'206 Partial Content' if wanted else '200 OK'}",
        f"Content-Type: {'application/xml' if name.endswith('.xml') else 'application/octet-stream'}",
        f"Content-Length: {last - first + 1}",
        'ETag: "0"',
        "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT",
        "Accept-Ranges: bytes",
        *([f"Content-Range: bytes {first}-{last}/{size}"] if wanted else []),
    ]
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    if method == "HEAD":
        return
    with open(file, "rb") as content:
        started, sent = time.monotonic(), 0
        while sent <= last - first:
            sent += os.sendfile(connection.fileno(), content.fileno(), first + sent, min(512 * 1024, last - first + 1 - sent))
            time.sleep(max(0.0, started + sent / RATE - time.monotonic()))


if __name__ == "__main__":
    serve_far(Path(sys.argv[1]), int(sys.argv[2]))
