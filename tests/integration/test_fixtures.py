"""Where a machine lacks what the test-bed needs, its tests skip with one line, and fail in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
WANTING = "def test_it(control_plane): pass"


@pytest.mark.parametrize(
    ("ci", "outcome", "line"),
    [
        (
            "",
            "1 skipped",
            "SKIPPED [1] test_it.py:1: neither Go 1.26.0 or newer nor uv, which would install it, is on the PATH",
        ),
        (
            "true",
            "1 error",
            "in CI nothing may be missing: neither Go 1.26.0 or newer nor uv, which would install it, is on the PATH",
        ),
    ],
    ids=["here", "in-ci"],
)
def test_a_machine_without_go(tmp_path: Path, ci: str, outcome: str, line: str) -> None:
    said = run_pytest(tmp_path, WANTING, CI=ci, PATH=str(tmp_path))
    assert outcome in said
    assert line in said


def test_a_test_that_wants_a_cluster_is_marked_so(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, WANTING + "\ndef test_other(): pass", "-m", "not cluster", "--strict-markers")
    assert "1 passed, 1 deselected" in said


def run_pytest(folder: Path, code: str, *options: str, **environment: str) -> str:
    (folder / "test_it.py").write_text(code)
    own = {"PYTHONPATH": str(TESTS), "XDG_CACHE_HOME": str(folder), "PATH": os.environ["PATH"]}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rs",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        "-p",
        "testbed.fixtures",
        *options,
    ]
    done = subprocess.run(
        [*command, "test_it.py"], cwd=folder, env=own | environment, capture_output=True, text=True, check=False
    )
    return done.stdout
