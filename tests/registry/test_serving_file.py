from __future__ import annotations

from pathlib import Path

import pytest

from longshore.serving_file import read_serving
from longshore_runtime.errors import LongshoreError
from longshore_runtime.manifest import Serving


def test_engine_and_arguments_are_read(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("engine: vllm\narguments: [--max-model-len=2048, --enable-prefix-caching]\n")
    assert read_serving(path) == Serving(arguments=("--max-model-len=2048", "--enable-prefix-caching"))
    path.write_text("")
    assert read_serving(path) == Serving()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("engine: [", "is not valid YAML"),
        ("gpu: 1", "gpu: Extra inputs are not permitted"),
        ("arguments: 5", "arguments: "),
        ("- a", "content: "),
        ("engine: abacus", "'abacus' is not an engine"),
        ("arguments: [2048]", "arguments.0: "),
        ("arguments: ['2048']", "'2048' does not follow an option"),
    ],
)
def test_what_no_engine_could_follow_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    with pytest.raises(LongshoreError) as caught:
        read_serving(path)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LongshoreError, match=r"cannot read .*serve.yaml: No such file"):
        read_serving(tmp_path / "serve.yaml")
