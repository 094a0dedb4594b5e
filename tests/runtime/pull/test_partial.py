"""Files of which only what is published of the whole is known, written and judged in any order, by several at once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longshore_runtime.digests import Checksum, crc64nvme
from longshore_runtime.pull.judged import HashedFile, JudgedFile, SummedFile
from longshore_runtime.pull.partial import PartialFile
from longshore_runtime.pull.transfer import Chunk

CHUNK = 1000
DATA = random.Random(4).randbytes(9 * CHUNK + 7)
PARTS = (2500, 2500, 2500, 1507)
SUMS = b"".join(zlib.crc32(DATA[at : at + 2500]).to_bytes(4, "big") for at in range(0, len(DATA), 2500))
"""Of parts that do not end where chunks do."""

CHUNKS = [Chunk("x", offset, min(CHUNK, len(DATA) - offset)) for offset in range(0, len(DATA), CHUNK)]


KINDS = {
    "sha256": Checksum("sha256", hashlib.sha256(DATA).hexdigest()),
    "crc64nvme": Checksum("crc64nvme", f"{crc64nvme(DATA):016x}"),
    "crc32 in parts": Checksum("crc32", f"{zlib.crc32(SUMS):08x}", PARTS),
}


@pytest.fixture(params=KINDS, scope="module")
def checksum(request: pytest.FixtureRequest) -> Checksum:
    """What is published of the file."""
    return KINDS[request.param]


def open_file(folder: Path, checksum: Checksum) -> JudgedFile:
    places = [folder / name for name in ("partial", "final", "journal")]
    kind = SummedFile if checksum.joins else HashedFile
    return kind(*places, len(DATA), len(CHUNKS), checksum, direct=False)


def bring(file: JudgedFile, chunk: Chunk, data: bytes = DATA, breaks: int = 0) -> bool:
    """What a worker does with a chunk; returns what `finish_chunk` says. Several attempts break off before one does not."""
    buffer, content = memoryview(bytearray(chunk.length)), memoryview(data)[chunk.offset : chunk.offset + chunk.length]
    if file.has(chunk, buffer):
        return file.finish_chunk(chunk, buffer)
    with file.receiving(chunk) as begin:
        if begin:
            for last in (*range(0, 300 * breaks, 300), len(content)):
                intake = begin()
                for at in range(0, last, 300):
                    intake.take(content[at : min(at + 300, last)])
            assert intake.finish()
        else:
            buffer[:] = content
            file.write(chunk, buffer)
    return file.finish_chunk(chunk, None if begin else buffer)


@given(st.permutations(CHUNKS))
@settings(max_examples=30)
def test_in_whatever_order_chunks_come_the_file_is_judged_once(checksum: Checksum, order: list[Chunk]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = open_file(Path(folder), checksum)
        for chunk in order:
            assert not (Path(folder) / "final").exists()
            assert bring(file, chunk)
        assert (Path(folder) / "final").read_bytes() == DATA
        assert [path.name for path in Path(folder).iterdir()] == ["final"]


def test_what_broke_off_is_begun_anew(checksum: Checksum, tmp_path: Path) -> None:
    file = open_file(tmp_path, checksum)
    assert all(bring(file, chunk, breaks=breaks) for breaks, chunk in enumerate(CHUNKS))
    assert (tmp_path / "final").read_bytes() == DATA


def test_whoever_gives_a_chunk_up_leaves_its_turn_to_others(checksum: Checksum, tmp_path: Path) -> None:
    file = open_file(tmp_path, checksum)
    for chunk in CHUNKS:
        with contextlib.suppress(KeyError), file.receiving(chunk) as begin:
            if begin:
                begin().take(memoryview(b"wrong"))
            raise KeyError
        assert bring(file, chunk)
    assert (tmp_path / "final").read_bytes() == DATA


def test_a_chunk_in_its_turn_is_hashed_while_it_arrives(tmp_path: Path) -> None:
    file = open_file(tmp_path, KINDS["sha256"])
    with file.receiving(CHUNKS[0]) as first, file.receiving(CHUNKS[1]) as second:
        assert first
        assert second is None, "its turn comes later"


@pytest.mark.parametrize("attempt", range(10))
def test_several_workers_may_bring_chunks_at_once(checksum: Checksum, tmp_path: Path, attempt: int) -> None:
    file, order = open_file(tmp_path, checksum), list(CHUNKS)
    random.Random(attempt).shuffle(order)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda chunk: bring(file, chunk), order))
    assert (tmp_path / "final").read_bytes() == DATA


@given(st.permutations(CHUNKS), st.integers(0, len(DATA) - 1))
@settings(max_examples=30)
def test_one_wrong_byte_anywhere_leaves_nothing(checksum: Checksum, order: list[Chunk], place: int) -> None:
    wrong = DATA[:place] + bytes([DATA[place] ^ 1]) + DATA[place + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        file = open_file(Path(folder), checksum)
        said = [bring(file, chunk, wrong) for chunk in order]
        assert said.count(False) == 1
        assert list(Path(folder).iterdir()) == []


@given(st.permutations(CHUNKS), st.integers(0, len(CHUNKS)), st.booleans())
@settings(max_examples=30)
def test_what_was_written_before_is_used_and_judged(checksum: Checksum, order: list[Chunk], count: int, damage: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = open_file(folder, checksum)
        for chunk in order[:count]:
            before.write(chunk, memoryview(DATA)[chunk.offset : chunk.offset + chunk.length])
        before.close()
        damaged = damage and count > 0
        if damaged:
            with open(folder / "partial", "r+b") as file:
                file.seek(order[0].offset)
                file.write(bytes([DATA[order[0].offset] ^ 1]))
        after = open_file(folder, checksum)
        assert [chunk for chunk in order if after.has(chunk, memoryview(bytearray(chunk.length)))] == order[:count]
        said = [bring(after, chunk) for chunk in CHUNKS]
        assert (False in said) == damaged
        assert (folder / "final").exists() != damaged


@pytest.mark.parametrize("notes", ["", "junk", "sha256:00 1\n0\n", "HEADING\n0\n1000", "HEADING\nx\n-5\n99999999999\n"])
def test_a_journal_of_something_else_is_not_followed(checksum: Checksum, tmp_path: Path, notes: str) -> None:
    open_file(tmp_path, checksum).close()
    heading = (tmp_path / "journal").read_text().strip()
    (tmp_path / "journal").write_text(notes.replace("HEADING", heading))
    file = open_file(tmp_path, checksum)
    had = [chunk.offset for chunk in CHUNKS if file.has(chunk, memoryview(bytearray(chunk.length)))]
    assert had == ([0] if "HEADING\n0" in notes else [])
    assert all(bring(file, chunk) for chunk in CHUNKS) != bool(had), "the hole was taken for a chunk, and found out"


def test_the_page_cache_is_written_to_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, sizes = random.Random(5).randbytes(1_000_003), []
    write = os.pwrite

    def watch(descriptor: int, data: memoryview, offset: int) -> int:
        sizes.append(len(data))
        return write(descriptor, data[: len(data) // 2 or 1], offset)  # as a disk may

    monkeypatch.setattr(os, "pwrite", watch)
    file = PartialFile(tmp_path / "partial", tmp_path / "final", len(content) + 7, 1, direct=False)
    file.write_piece(7, memoryview(content))
    file.complete()
    assert (tmp_path / "final").read_bytes() == bytes(7) + content
    assert max(sizes) == 128 * 1024
