from __future__ import annotations

import pytest

from longshore_runtime.serve.fit.plan import Wish
from longshore_runtime.serve.fit.wishes import read_wish


@pytest.mark.parametrize(
    ("layers", "wish"),
    [
        ([], Wish()),
        ([["--max-model-len", "4096"]], Wish(context=4096)),
        ([["--max-model-len=4096"], ["--max_model_len", "32K"]], Wish(context=32768)),
        ([["--max-model-len", "1.5k"]], Wish(context=1500)),
        ([["--max-model-len", "auto"]], Wish()),
        ([["--max-model-len"]], Wish()),
        ([["--gpu-memory-utilization=0.8", "--kv-cache-dtype", "fp8_e4m3"]], Wish(utilisation=0.8, cache_width=1)),
        ([["--gpu-memory-utilization=8", "--kv-cache-dtype", "auto"]], Wish()),
        ([["--gpu-memory-utilization=x"]], Wish()),
        ([["--tensor-parallel-size", "2"]], None),
        ([["--pipeline_parallel_size=2"]], None),
    ],
)
def test_options_are_wishes(layers: list[list[str]], wish: Wish | None) -> None:
    assert read_wish(layers) == wish


def test_the_machines_gpus_are_the_limit() -> None:
    assert read_wish([], 4) == Wish(gpus=4, per_node=4)
