from __future__ import annotations

from pathlib import Path

import pytest

from longshore.serving_file import Wishes, read_serving_file
from longshore_runtime.errors import LongshoreError
from longshore_runtime.manifest import ScalingDefaults, Serving, Speculation


def test_engine_and_arguments_are_read(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("engine: vllm\narguments: [--max-model-len=2048, --enable-prefix-caching]\n")
    assert read_serving_file(path).serving == Serving(arguments=("--max-model-len=2048", "--enable-prefix-caching"))
    path.write_text("")
    assert read_serving_file(path) == Wishes(Serving())
    path.write_text("{gpus: 2, arguments: [--tensor-parallel-size=2], scaling: {min: 0, max: 4, metric: queue, target: 3}}")
    scaling = ScalingDefaults(min=0, max=4, metric="queue", target=3)
    assert read_serving_file(path).serving == Serving(arguments=("--tensor-parallel-size=2",), gpus=2, scaling=scaling)


def test_how_to_guess_is_read_and_by_which_model(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("speculative: {method: eagle3, model: heads:2, tokens: 5}\n")
    assert read_serving_file(path) == Wishes(Serving(speculative=Speculation(method="eagle3", tokens=5)), None, "heads:2")
    path.write_text("speculative: {method: ngram}\n")
    assert read_serving_file(path) == Wishes(Serving(speculative=Speculation(method="ngram", tokens=3)))


def test_what_is_not_said_leaves_old_digests_alone() -> None:
    assert Serving().model_dump(exclude_none=True) == {"engine": "vllm", "arguments": ()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("engine: [", "is not valid YAML"),
        ("gpu: 1", "has a field gpu, which means nothing; did you mean gpus?"),
        ("quota: 1", "has a field quota, which means nothing; there are: engine, arguments, gpus, scaling, speculative, base"),
        ("scaling: {maxx: 1}", "has a field scaling.maxx, which means nothing; did you mean max?"),
        ("speculative: {method: draft, modell: x}", "has a field speculative.modell, which means nothing; did you mean model?"),
        ("speculative: {tokens: 2}", "speculative.method: "),
        ("speculative: {method: magic}", "speculative.method: "),
        ("speculative: {method: ngram, tokens: 0}", "speculative.tokens: "),
        ("speculative: {method: draft}", "method draft needs a second model; name it: speculative.model: MODEL:VERSION"),
        ("speculative: {method: ngram, model: m:1}", "a second model is named, and nothing asks it"),
        ("{speculative: {method: ngram}, arguments: [--speculative-config, '{}']}", "speculative and --speculative-config {};"),
        ("scaling: {metric: moon}", "scaling.metric: "),
        ("scaling: {min: -1}", "scaling.min: "),
        ("gpus: two", "gpus: "),
        ("a:\n b: [\n c", "is not valid YAML at line 3"),
        ("scaling: {min: 3, max: 2}", "contradicts itself: scaling.min 3 is more than scaling.max 2; keep one"),
        ("scaling: {min: 0, max: 2, metric: cpu}", "where there are no pods"),
        ("{gpus: 2, arguments: [-tp, '4']}", "does not follow an option"),
        ("{gpus: 2, arguments: [--tensor-parallel-size, '4']}", "spread the model over 4 GPUs and gpus is 2"),
        ("{gpus: 2, arguments: [--tensor_parallel_size=2, --pipeline-parallel-size=2]}", "over 4 GPUs and gpus is 2"),
        ("arguments: [--max-model-len=1, --max-model-len=2]", "--max-model-len=1 and --max-model-len=2"),
        ("arguments: 5", "arguments: "),
        ("- a", "content should have fields of its own; there are: engine, arguments, gpus, scaling, speculative, base"),
        ("speculative: ngram", "speculative should have fields of its own; there are: method, tokens, model"),
        ("engine: abacus", "'abacus' is not an engine"),
        ("arguments: [2048]", "arguments.0: "),
        ("arguments: ['2048']", "'2048' does not follow an option"),
    ],
)
def test_what_no_engine_could_follow_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    with pytest.raises(LongshoreError) as caught:
        read_serving_file(path)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LongshoreError, match=r"cannot read .*serve.yaml: No such file"):
        read_serving_file(tmp_path / "serve.yaml")
