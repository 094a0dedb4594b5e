"""`modelscope://`: a model on ModelScope or a mirror of it.

ModelScope names no commit for a listing, so files are asked for by the branch or tag; the SHA-256 that the
listing gives of each file pins the content: what was changed in between is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from longshore_runtime.errors import LongshoreError, NotFound, Refused, StoreFailed
from longshore_runtime.pull.sources.hub import HubSource, check_endpoint, make_entry, not_understood, parse_address
from longshore_runtime.pull.sources.port import Entry
from longshore_runtime.web import Web

ENDPOINT = "https://www.modelscope.cn"
LISTING_LIMIT = 3000
"""Files that ModelScope lists at most; it cuts longer listings without a word."""


class ModelScopeSource(HubSource):
    """Reads `modelscope://OWNER/MODEL[:REVISION]`; MODELSCOPE_ENDPOINT and MODELSCOPE_API_TOKEN are those of its own tools."""

    def __init__(self, uri: str, environment: Mapping[str, str] = os.environ) -> None:
        self._address = parse_address(uri, "modelscope")
        self.uri = uri
        self._endpoint = check_endpoint(environment.get("MODELSCOPE_ENDPOINT") or ENDPOINT, "MODELSCOPE_ENDPOINT")
        self._revision = self._address.revision or "master"
        self._token = environment.get("MODELSCOPE_API_TOKEN", "").strip() or None
        if self._token and not (self._token.isascii() and self._token.isprintable() and ";" not in self._token):
            raise LongshoreError("MODELSCOPE_API_TOKEN is not a token: it holds characters that none has", "copy it again")
        # Older interfaces know the token as a cookie, newer ones as a header.
        headers = {"Authorization": f"Bearer {self._token}", "Cookie": f"m_session_id={self._token}"} if self._token else {}
        self._web = Web(self._endpoint, headers, self._explain)

    @property
    def revision(self) -> str:
        return self._revision

    def _list(self) -> Iterator[Entry]:
        asked = urlencode({"Revision": self._revision, "Recursive": "True"})
        found, _ = self._web.read_json(f"{self._api()}/repo/files?{asked}", self.uri)
        if isinstance(found, dict) and found.get("Code", 200) != 200:
            raise self._explain(self.uri, found["Code"] if isinstance(found["Code"], int) else 400, {})
        try:
            items = found["Data"]["Files"] or []
            if len(items) >= LISTING_LIMIT:
                raise Refused(f"{self.uri} has more files than ModelScope lists ({LISTING_LIMIT})", "pull it from elsewhere")
            entries = [self._read_item(item) for item in items if item["Type"] != "tree"]
        except (KeyError, TypeError, ValueError) as error:
            raise not_understood(self.uri, error) from error
        yield from entries

    @staticmethod
    def _read_item(item: Any) -> Entry:
        return make_entry(item["Path"], item["Size"], item.get("Sha256") or None)

    def _api(self) -> str:
        return f"{self._endpoint}/api/v1/models/{self._address.repository}"

    def _file(self, path: str) -> str:
        asked = urlencode({"Revision": self._revision, "FilePath": path}, quote_via=quote)
        return f"{self._api()}/repo?{asked}"

    def _explain(self, name: str, status: int, headers: Mapping[str, str]) -> LongshoreError:
        page = f"{self._endpoint}/models/{self._address.repository}"
        token = "set MODELSCOPE_API_TOKEN" if self._token is None else "use the MODELSCOPE_API_TOKEN of an account that may"
        if status in (401, 403):
            return StoreFailed(f"ModelScope denies {name}", f"look at {page}, and {token}")
        if status == 404:
            return NotFound(f"{name} does not exist, or not for this account", f"check {page}; if it is private, {token}")
        return StoreFailed(f"ModelScope refused {name} with status {status}", f"look at {page}")
