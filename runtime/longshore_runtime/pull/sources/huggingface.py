"""`hf://`: a model on the Hugging Face hub or a mirror of it.

The revision is resolved to a commit once, and every request names that commit. The hub publishes a SHA-256 of
every large file and git's name of every small one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

from longshore_runtime.errors import LongshoreError, NotFound, StoreFailed
from longshore_runtime.pull.sources.hub import HubSource, check_endpoint, make_entry, not_understood, parse_address
from longshore_runtime.pull.sources.port import Entry
from longshore_runtime.web import Web, origin_of

ENDPOINT = "https://huggingface.co"
PAGES = 1000
"""Of a listing, each of up to a thousand files: more is no model."""

_NEXT_PAGE = re.compile(r'<([^>]*)>;\s*rel="?next"?')
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HuggingFaceSource(HubSource):
    """Reads one commit of `hf://OWNER/MODEL[:REVISION]`; HF_ENDPOINT and HF_TOKEN are those of the hub's own tools."""

    def __init__(self, uri: str, environment: Mapping[str, str] = os.environ) -> None:
        self._address = parse_address(uri, "hf")
        self.uri = uri
        self._endpoint = check_endpoint(environment.get("HF_ENDPOINT") or ENDPOINT, "HF_ENDPOINT")
        self._token = find_token(environment)
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        self._web = Web(self._endpoint, headers, self._explain)

    @cached_property
    def _commit(self) -> str:
        wanted = self._address.revision or "main"
        found, _ = self._web.read_json(self._api(f"revision/{quote(wanted, safe='')}"), self.uri)
        commit = found.get("sha") if isinstance(found, dict) else None
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise not_understood(self.uri, f"the commit {commit!r}")
        return commit

    @property
    def revision(self) -> str:
        return self._commit

    def _list(self) -> Iterator[Entry]:
        page: str | None = self._api(f"tree/{self._commit}") + "?recursive=true&expand=false"
        seen: set[str] = set()
        while page:
            if page in seen or len(seen) >= PAGES:
                raise not_understood(self.uri, "it has no end")
            seen.add(page)
            found, headers = self._web.read_json(page, self.uri)
            if not isinstance(found, list):
                raise not_understood(self.uri, "it is not a list")
            for item in found:
                if (entry := self._read_item(item)) is not None:
                    yield entry
            page = self._next_page(page, headers)

    def _read_item(self, item: Any) -> Entry | None:
        try:
            if item["type"] != "file":
                return None
            large = item.get("lfs") or {}
            return make_entry(item["path"], large.get("size", item["size"]), large.get("oid"), item["oid"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise not_understood(self.uri, error) from error

    def _next_page(self, page: str, headers: Mapping[str, str]) -> str | None:
        found = _NEXT_PAGE.search(headers.get("Link", ""))
        following = urljoin(page, found[1]) if found else None
        if following and origin_of(following) != origin_of(self._endpoint):
            raise not_understood(self.uri, "it goes on elsewhere")
        return following

    def _api(self, what: str) -> str:
        return f"{self._endpoint}/api/models/{self._address.repository}/{what}"

    def _file(self, path: str) -> str:
        return f"{self._endpoint}/{self._address.repository}/resolve/{self._commit}/{quote(path)}"

    def _explain(self, name: str, status: int, headers: Mapping[str, str]) -> LongshoreError:
        page, code = f"{self._endpoint}/{self._address.repository}", headers.get("X-Error-Code", "")
        token = "set HF_TOKEN" if self._token is None else "use the HF_TOKEN of an account that may"
        if code == "GatedRepo":
            return StoreFailed(f"{self.uri} is gated: its owner asks for your consent first", f"accept at {page}, and {token}")
        if code == "RevisionNotFound":
            return NotFound(f"{self.uri} does not exist: the model has no such revision", f"see {page}/commits/main")
        if code == "EntryNotFound" or (status == 404 and code != "RepoNotFound"):
            return NotFound(f"{name} does not exist", f"see {page}")
        if headers.get("X-Error-Message", "").startswith("Invalid credentials"):
            return StoreFailed(f"the hub does not accept the token for {name}", "renew HF_TOKEN, or unset it for public models")
        if code == "RepoNotFound" or status == 401:
            return NotFound(f"{self.uri} does not exist, or not for this account", f"check {page}; if it is private, {token}")
        if status == 403:
            return StoreFailed(f"the hub denies {name}", f"look at {page}, and {token}")
        return StoreFailed(f"the hub refused {name} with status {status}", f"look at {page}")


def find_token(environment: Mapping[str, str]) -> str | None:
    """The hub's token: from HF_TOKEN, or where `hf auth login` leaves it."""
    named = environment.get("HF_TOKEN") or environment.get("HUGGING_FACE_HUB_TOKEN")
    if not named:
        cache = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or "/") / ".cache"
        home = Path(environment.get("HF_HOME") or Path(cache) / "huggingface")
        try:
            named = Path(environment.get("HF_TOKEN_PATH") or home / "token").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
    token = named.strip()
    if not token.isascii() or not token.isprintable():
        raise LongshoreError("HF_TOKEN is not a token: it holds characters that none has", "copy it again")
    return token or None
