from __future__ import annotations

from pathlib import Path

import pytest

from longshore_runtime.errors import InvalidModel
from longshore_runtime.serve.folder import Folder


def test_a_folder_is_read_in_parts(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"0123456789")
    (tmp_path / ".longshore").mkdir()
    (tmp_path / ".longshore" / "manifest.json").write_bytes(b"{}")
    folder = Folder(tmp_path)
    assert [(file.path, file.size) for file in folder.list_files()] == [("sub/file", 10)]
    assert (folder.read("sub/file"), folder.read("none")) == (b"0123456789", None)
    buffer = bytearray(4)
    folder.read_into("sub/file", 3, memoryview(buffer))
    assert buffer == b"3456"
    with pytest.raises(InvalidModel, match="sub/file is damaged or cut short"):
        folder.read_into("sub/file", 8, memoryview(buffer))
