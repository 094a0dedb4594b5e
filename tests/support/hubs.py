"""Hubs on the loopback interface that their own clients accept: Hugging Face with a CDN for large files, and ModelScope."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin")
TOKEN = "hf_testing-token"


@dataclass(frozen=True)
class Asked:
    """One request that a fake was asked."""

    path: str
    headers: dict[str, str]


@dataclass
class Reply:
    """What a fake answers. A body is served with ranges; `flip` damages one byte of it."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Model:
    """A repository: the files of each commit, and which commit a name stands for."""

    commits: dict[str, dict[str, bytes]]
    names: dict[str, str]
    gated: bool = False
    private: bool = False

    def find(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.names.get(revision)


def model_of(files: dict[str, bytes], **settings: bool) -> Model:
    """A repository with one commit that main, master and v1 name."""
    commit = hashlib.sha1(repr([(path, sha256(data)) for path, data in files.items()]).encode()).hexdigest()
    return Model({commit: dict(files)}, {"main": commit, "master": commit, "v1": commit}, **settings)


class Server(ThreadingHTTPServer):
    """Clients that go away in the middle are what the tests are about."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


class Fake:
    """A server in a thread. `asked` is what it was asked, `spoil` may change a reply before it is sent."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.asked: list[Asked] = []
        self.spoil: Callable[[Asked, Reply], Reply] = lambda _, reply: reply
        self.serves_ranges = True
        self._servers: list[ThreadingHTTPServer] = []

    def serve(self, answer: Callable[[Asked], Reply]) -> str:
        """Answer requests on a port of its own; returns the address."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()})
                fake.asked.append(asked)
                self.send(fake.spoil(asked, fake.cut(answer(asked), asked)))

            do_HEAD = do_GET  # noqa: N815

            def send(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                pass

        server = Server(("127.0.0.1", 0), Handler)
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    def cut(self, reply: Reply, asked: Asked) -> Reply:
        """The range that was asked for."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
        if not wanted or reply.status != 200 or not self.serves_ranges:
            return reply
        first, last = int(wanted[1]), min(int(wanted[2] or len(reply.body)), len(reply.body) - 1)
        if first > last:
            return Reply(416, b"", {"Content-Range": f"bytes */{len(reply.body)}"})
        found = {"Content-Range": f"bytes {first}-{last}/{len(reply.body)}"}
        return Reply(206, reply.body[first : last + 1], reply.headers | found)

    def stop(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class FakeHuggingFace(Fake):
    """`/api/models`, `/resolve`, and a CDN on another port that large files are redirected to, with signed addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.page_size = 1000
        self.signatures: set[str] = set()
        self._numbers = itertools.count()
        self.endpoint, self.cdn = self.serve(self._answer), self.serve(self._answer_cdn)

    def expire(self) -> None:
        """From now on the CDN knows none of the addresses that it gave out."""
        self.signatures.clear()

    def _answer(self, asked: Asked) -> Reply:
        path = unquote(urlsplit(asked.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/(.+)", path):
            return self._api(asked, found[1], found[2], found[3])
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            return self._api(asked, found[1], "revision", "main")
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(asked, found[1], found[2], found[3])
        return Reply(404)

    def _refuse(self, asked: Asked, name: str, revision: str, *, content: bool) -> Reply | None:
        model, token = self.models.get(name), asked.headers.get("authorization")
        if token not in (None, f"Bearer {TOKEN}"):
            return Reply(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        if model is None or (model.private and token is None):
            return Reply(404 if token else 401, b"", {"X-Error-Code": "RepoNotFound"})
        if model.gated and content and token is None:
            return Reply(403, b"", {"X-Error-Code": "GatedRepo"})
        return Reply(404, b"", {"X-Error-Code": "RevisionNotFound"}) if model.find(revision) is None else None

    def _api(self, asked: Asked, name: str, what: str, revision: str) -> Reply:
        if refusal := self._refuse(asked, name, revision, content=False):
            return refusal
        model = self.models[name]
        commit = model.find(revision)
        assert commit
        files = model.commits[commit]
        if what == "revision":
            siblings = [{"rfilename": path} for path in files]
            return json_reply({"id": name, "modelId": name, "sha": commit, "siblings": siblings})
        start = int(parse_qs(urlsplit(asked.path).query).get("cursor", ["0"])[0])
        page = [self._item(path, data) for path, data in files.items()][start : start + self.page_size]
        reply = json_reply(page)
        if start + self.page_size < len(files):
            following = f"{self.endpoint}/api/models/{name}/tree/{commit}?recursive=true&cursor={start + self.page_size}"
            reply.headers["Link"] = f'<{following}>; rel="next"'
        return reply

    @staticmethod
    def _item(path: str, data: bytes) -> dict[str, Any]:
        item: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_name(data)}
        if path.endswith(LARGE):
            item["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
        return item

    def _resolve(self, asked: Asked, name: str, revision: str, path: str) -> Reply:
        if refusal := self._refuse(asked, name, revision, content=True):
            return refusal
        commit = self.models[name].find(revision)
        assert commit
        data = self.models[name].commits[commit].get(path)
        if data is None:
            return Reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_name(data)}"'}
        if not path.endswith(LARGE):
            return Reply(200, data, headers)
        signature = f"signature-{next(self._numbers)}"
        self.signatures.add(signature)
        headers |= {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
        return Reply(302, b"", headers | {"Location": f"{self.cdn}/{sha256(data)}?Signature={signature}"})

    def _answer_cdn(self, asked: Asked) -> Reply:
        parts = urlsplit(asked.path)
        if "authorization" in asked.headers:
            return Reply(400, b"a token must not come here")
        if parse_qs(parts.query).get("Signature", [""])[0] not in self.signatures:
            return Reply(403, b"expired")
        files = (data for model in self.models.values() for commit in model.commits.values() for data in commit.values())
        found = next((data for data in files if sha256(data) == parts.path.strip("/")), None)
        return Reply(404) if found is None else Reply(200, found, {"ETag": f'"{parts.path[1:]}"'})


class FakeModelScope(Fake):
    """`/api/v1/models`: a listing with SHA-256 digests, and files."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoint = self.serve(self._answer)

    def _answer(self, asked: Asked) -> Reply:
        parts = urlsplit(asked.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        found = re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/(repo/files|repo|revisions)", unquote(parts.path))
        if parts.path.startswith("/api/v1/repos/internalAccelerationInfo"):
            return json_reply({"Code": 200, "Success": True, "Data": {}})
        model = self.models.get(found[1]) if found else None
        if model is None or not found:
            return failure(404, "record not found")
        if model.private and asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return failure(403, "no permission")
        if found[2] == "revisions":
            branches = [{"Revision": name} for name in model.names]
            return json_reply({"Code": 200, "Success": True, "Data": {"RevisionMap": {"Branches": branches, "Tags": []}}})
        commit = model.find(query.get("Revision", "master"))
        if commit is None:
            return failure(404, "no such revision")
        files = model.commits[commit]
        if found[2] == "repo/files":
            listed = [self._item(commit, path, data) for path, data in files.items()]
            return json_reply({"Code": 200, "Success": True, "Message": "success", "Data": {"Files": listed}})
        data = files.get(query.get("FilePath", ""))
        return failure(404, "no such file") if data is None else Reply(200, data, {"ETag": f'"{sha256(data)}"'})

    @staticmethod
    def _item(commit: str, path: str, data: bytes) -> dict[str, Any]:
        place = {"Path": path, "Name": path.rpartition("/")[2], "Type": "blob", "Revision": commit}
        return place | {"Size": len(data), "Sha256": sha256(data), "IsLFS": path.endswith(LARGE)}


def json_reply(content: Any) -> Reply:
    return Reply(200, json.dumps(content).encode(), {"Content-Type": "application/json"})


def failure(code: int, message: str) -> Reply:
    reply = json_reply({"Code": code, "Success": False, "Message": message})
    reply.status = code
    return reply


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_name(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextlib.contextmanager
def run_huggingface() -> Iterator[FakeHuggingFace]:
    hub = FakeHuggingFace()
    try:
        yield hub
    finally:
        hub.stop()


@contextlib.contextmanager
def run_modelscope() -> Iterator[FakeModelScope]:
    hub = FakeModelScope()
    try:
        yield hub
    finally:
        hub.stop()
