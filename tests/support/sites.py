"""A web server that serves files, with ranges or without, and archives to serve from it."""

from __future__ import annotations

import contextlib
import io
import ssl
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from support.hubs import Asked, Fake, Reply
from testbed.certificate import make_certificate


class FakeSite(Fake):
    """Serves `files` by path."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.endpoint = self.serve(self._answer)

    def _answer(self, asked: Asked) -> Reply:
        data = self.files.get(unquote(urlsplit(asked.path).path).lstrip("/"))
        return Reply(404) if data is None else Reply(200, data, {"Content-Type": "application/octet-stream"})


@contextlib.contextmanager
def run_site() -> Iterator[FakeSite]:
    site = FakeSite()
    try:
        yield site
    finally:
        site.stop()


@contextlib.contextmanager
def run_tls_site(folder: Path) -> Iterator[tuple[FakeSite, Path]]:
    """A site with a certificate that is its own authority, and that authority's file."""
    made = make_certificate(folder / "certificate", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    with run_site() as site:
        for server in site._servers:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        site.endpoint = site.endpoint.replace("http:", "https:")
        yield site, made.authority


def zip_of(files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], Any] = lambda _: None) -> bytes:
    """A zip of `files`; `change` may spoil each member's header before it is written."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.filename = info.orig_filename = name  # the constructor tidies names up
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, data)
    return made.getvalue()


def tar_of(files: dict[str, bytes], change: Callable[[tarfile.TarInfo], Any] = lambda _: None, mode: str = "w:gz") -> bytes:
    """A tar of `files`; `change` may spoil each member's header before it is written."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            change(info)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()
