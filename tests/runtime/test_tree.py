from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from longshore_runtime import tree
from longshore_runtime.errors import LongshoreError, NotFound, Refused


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_files_are_found_in_order_and_tools_own_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "b.json", "a/z", "a/b/c", ".gitattributes", "A.md")
    write(tmp_path, ".git/HEAD", ".cache/huggingface/x", ".DS_Store", "a/.DS_Store", ".longshore/manifest.json", "lost+found/x")
    assert [file.path for file in tree.scan(tmp_path)] == [".gitattributes", "A.md", "a/b/c", "a/z", "b.json"]


def test_names_are_composed_whatever_the_disk_has(tmp_path: Path) -> None:
    name = "café.json"
    write(tmp_path, unicodedata.normalize("NFD", name))
    (file,) = tree.scan(tmp_path)
    assert file.path == name
    assert file.location.read_bytes() == unicodedata.normalize("NFD", name).encode()


def test_a_link_inside_the_tree_is_the_file_it_names(tmp_path: Path) -> None:
    write(tmp_path, "real")
    (tmp_path / "alias").symlink_to("real")
    assert [(file.path, file.size) for file in tree.scan(tmp_path)] == [("alias", 4), ("real", 4)]


def hostile(kind: str, root: Path) -> None:
    match kind:
        case "link out":
            (root / "x").symlink_to("/etc/hostname")
        case "link up":
            (root / "x").symlink_to("../outside")
        case "link to folder":
            (root / "folder").mkdir()
            (root / "x").symlink_to("folder")
        case "dangling":
            (root / "x").symlink_to("nothing")
        case "loop":
            (root / "x").symlink_to("x")
        case "pipe":
            os.mkfifo(root / "x")
        case "not utf-8":
            (root / os.fsdecode(b"x\xff")).write_bytes(b"")
        case "newline":
            (root / "x\ny").write_bytes(b"")
        case "case":
            write(root, "x", "X")


@pytest.mark.parametrize(
    "kind", ["link out", "link up", "link to folder", "dangling", "loop", "pipe", "not utf-8", "newline", "case"]
)
def test_what_cannot_be_pushed_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "model"
    root.mkdir()
    hostile(kind, root)
    with pytest.raises(Refused) as caught:
        tree.scan(root)
    assert "x" in caught.value.message
    assert caught.value.hint


def test_a_missing_directory_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not a directory"):
        tree.scan(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(LongshoreError, match="is not a directory"):
        tree.scan(tmp_path / "file")
