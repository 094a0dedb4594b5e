from __future__ import annotations

from pathlib import Path

import pytest

from longshore_runtime import limits


@pytest.mark.parametrize(
    ("texts", "limit"),
    [
        (["1073741824"], 1024**3),
        (["max"], None),
        (["9223372036854771712"], None),  # how version 1 says that there is none
        (["536870912", "1073741824"], 512 * 1024**2),
        ([], None),
    ],
)
def test_the_limit_is_that_of_the_control_group(
    texts: list[str], limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / str(number) for number in range(2)]
    for place, text in zip(places, texts, strict=False):
        place.write_text(f"{text}\n")
    monkeypatch.setattr(limits, "_MEMORY", tuple(places))
    monkeypatch.setattr(limits, "read_memory", lambda: 16 * 1024**3)
    assert limits.read_memory_limit() == limit


def test_the_machine_has_memory() -> None:
    assert 256 * 1024**2 < limits.read_memory() < 1024**5


@pytest.mark.parametrize(
    ("second", "first", "cores"),
    [
        ("max 100000", None, None),
        ("250000 100000", None, 2.5),
        (None, ("150000", "100000"), 1.5),
        (None, ("-1", "100000"), None),  # how version 1 says that there is none
        (None, None, None),
    ],
)
def test_the_cores_are_those_of_the_control_group(
    second: str | None, first: tuple[str, str] | None, cores: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if second:
        (tmp_path / "cpu.max").write_text(f"{second}\n")
    places = (tmp_path / "quota", tmp_path / "period")
    for place, text in zip(places, first or (), strict=False):
        place.write_text(f"{text}\n")
    monkeypatch.setattr(limits, "_CPU", tmp_path / "cpu.max")
    monkeypatch.setattr(limits, "_CPU_1", places)
    assert limits.read_cpu_limit() == cores


@pytest.mark.parametrize(("granted", "cores"), [(None, 3.0), (2.5, 2.5), (16.0, 3.0)])
def test_there_are_as_many_cores_as_may_be_used(granted: float | None, cores: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 5})
    monkeypatch.setattr(limits, "read_cpu_limit", lambda: granted)
    assert limits.count_cores() == cores
