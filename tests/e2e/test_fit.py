"""The fit, held against what the real engine reports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from longshore_runtime.pull.sources.file import FileSource
from longshore_runtime.serve.fit.memory import Batch, lay_out
from longshore_runtime.serve.fit.parallel import Split
from longshore_runtime.serve.fit.reading import read_geometry
from support.command import CommandLine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]
CACHE, CONTEXT = 256 * 1024**2, 4096


def test_the_cache_holds_the_tokens_that_the_engine_reports(longshore: CommandLine, smollm2: Path) -> None:
    options = [f"--kv-cache-memory-bytes={CACHE}", f"--max-model-len={CONTEXT}"]
    done = longshore("run", smollm2, "--prompt", "hi", "--max-tokens", "2", "--verbose", "--", *options, timeout=300)
    assert done.code == 0, done.err
    reported = re.search(
        r"KV cache size: ([\d,]+) tokens, Maximum concurrency for 4,096 tokens per request: ([\d.]+)x", done.err
    )
    assert reported, done.err
    pool = lay_out(read_geometry(FileSource(smollm2.as_uri())), Split(), Batch(2048, 128))
    assert pool
    assert pool.tokens(CACHE, CONTEXT) == pytest.approx(int(reported[1].replace(",", "")), rel=0.05)
    assert pool.sequences(CACHE, CONTEXT) == pytest.approx(float(reported[2]), rel=0.05)
