"""vLLM's last words. Marked `seen` are lines that vLLM 0.32 printed when it was provoked; the others are from its source."""

from __future__ import annotations

import pytest

from longshore_runtime.serve.engines.vllm_causes import CAUSES, diagnose

CORE = "(EngineCore pid=23534) ERROR 11-21 16:46:22 [core.py:1510] "
FAILED = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"

SEEN = [
    (
        "  Value error, Model architectures ['FancyNewForCausalLM'] are not supported for now. They are: A",
        "unsupported-architecture",
        "it does not support the architecture 'FancyNewForCausalLM'",
    ),
    (
        "The checkpoint you are trying to load has model type `fancynew` but Transformers does not recognize this",
        "unsupported-architecture",
        "does not know the model type 'fancynew'",
    ),
    ("api_server.py: error: unrecognized arguments: --no-such 1", "wrong-argument", "does not know the argument --no-such 1"),
    (
        "api_server.py: error: argument --max-model-len: invalid human_readable_int_or_auto value: 'abc'",
        "wrong-argument",
        "its argument --max-model-len is wrong: invalid human_readable_int_or_auto value: 'abc'",
    ),
    (
        "KeyError: 'invalid tool call parser: nope (chose from { apertus,cohere_command3 })'",
        "wrong-argument",
        "it has no tool call parser nope",
    ),
    (
        "KeyError: \"Reasoning parser 'nope' not found. Available parsers: cohere_command3, cohere_command4\"",
        "wrong-argument",
        "it has no parser nope",
    ),
    (
        (
            "  Value error, User-specified max_model_len (99999999) is greater than the derived max_model_len "
            "(max_position_embeddings=8192.0 or model_max_length=None in model's config.json). To allow overriding this"
        ),
        "context-too-long",
        "--max-model-len 99999999 is more than the model's 8192",
    ),
    (
        "  Value error, Total number of attention heads (9) must be divisible by tensor parallel size (2). [type=value_error]",
        "wrong-division",
        "its 9 attention heads cannot be divided among 2 GPUs",
    ),
    (
        "  Value error, Unknown quantization method: nonsense. Must be one of ['awq', 'auto_awq', 'fp8'].",
        "bad-quantization",
        "it does not know the quantization nonsense",
    ),
    (
        (
            "  Value error, Quantization method specified in the model config (gptq) does not match the quantization method "
            "specified in the `quantization` argument (fp8). [type=value_error]"
        ),
        "bad-quantization",
        "the model is quantized with gptq, and fp8 was asked for",
    ),
    ("  Value error, Cannot find the config file for awq [type=value_error]", "bad-quantization", "not quantized the way"),
    (
        CORE + "ValueError: There is no module or parameter named 'layers.0.mlp.down_proj.weight' in LlamaModel. The available",
        "wrong-weights",
        "the weights hold 'layers.0.mlp.down_proj.weight', which LlamaModel does not have",
    ),
    (
        CORE + "ValueError: Following weights were not initialized from checkpoint: {'layers.30.a', 'layers.30.b'}",
        "wrong-weights",
        "the weights lack 'layers.30.a' and perhaps more",
    ),
    (
        CORE
        + "ValueError: Available memory on node 0 (18.65/23.54 GiB) on kv cache allocation is less than requested memory for "
        "kv (838.19 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or",
        "out-of-memory",
        "the machine has 18.65/23.54 GiB left and the KV cache was to have 838.19 GiB",
    ),
    (
        CORE
        + "ValueError: To serve at least one request with the model's max seq len (8192), (0.18 GiB KV cache is needed, which "
        "is larger than the available KV cache memory (0.01 GiB). Based on the available memory",
        "out-of-memory",
        "one request of full length takes 0.18 GiB of KV cache, and there are 0.01 GiB",
    ),
    ("OSError: [Errno 98] Address already in use", "port-in-use", "its port is in use"),
]

WRITTEN = [
    (
        (
            "ValueError: Target and draft model should have the same vocabulary size. Target model vocab_size=152064. "
            "Draft model vocab_size=151936. Using models with different tokenizers can cause"
        ),
        "wrong-draft",
        "the model has a vocabulary of 152064 tokens and its draft one of 151936",
    ),
    ("ValueError: Loading it requires you to execute the configuration file in that repo", "remote-code", "not run unasked"),
    (
        "ValueError: World size (4) is larger than the number of available GPUs (1) in this node.",
        "too-few-gpus",
        "it was told to use 4 GPUs and sees 1",
    ),
    (
        (
            "ValueError: The quantization method modelopt is not supported for the current GPU. Minimum capability: 89. "
            "Current capability: 75."
        ),
        "bad-quantization",
        "the GPU is too old for this quantization method modelopt (Minimum capability: 89.",
    ),
    ("ValueError: awq quantization is currently not supported in cpu.", "bad-quantization", "awq is not supported on cpu"),
    ("RuntimeError: Found no NVIDIA driver on your system.", "no-device", "it finds no GPU that it can use"),
    ("CUDA error: no kernel image is available for execution on the device", "no-device", "a kind that this build has no code"),
    (
        "ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired GPU memory utilization (0.92",
        "out-of-memory",
        "something else uses the device's memory (3.1/79.2 GiB are free)",
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "out-of-memory",
        "the device's memory is too small",
    ),
    (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': -9}",
        "killed",
        "its process EngineCore_DP0 was killed",
    ),
    ("RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO", "nccl", "cannot talk to each other"),
    (
        "RuntimeError: unable to write to file </torch_1>: ... unable to mmap 64 bytes from file </x>",
        "shared-memory",
        "too small",
    ),
    ("safetensors_rust.SafetensorError: Error while deserializing header: invalid", "damaged-weights", "a file of weights is"),
    ("RuntimeError: Cannot find any model weights with `/mnt/models`", "no-weights", "holds no weights that it can read"),
    ("OSError: [Errno 30] Read-only file system: '/home/x/.cache'", "read-only", "it may not write to /home/x/.cache"),
    ("OSError: [Errno 28] No space left on device", "disk-full", "a disk is full"),
]


@pytest.mark.parametrize(("line", "cause", "sentence"), SEEN + WRITTEN, ids=lambda value: value[:40])
def test_last_words_have_a_cause_a_sentence_and_what_to_do(line: str, cause: str, sentence: str) -> None:
    error = diagnose(["INFO something", CORE + "Traceback (most recent call last):", line, FAILED])
    assert error.cause == cause
    assert sentence in error.message
    assert "\n" not in str(error)
    assert error.hint


def test_every_cause_in_the_table_has_a_line() -> None:
    assert {cause.name for cause in CAUSES} == {cause for _, cause, _ in SEEN + WRITTEN}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (["Traceback (most recent call last):", CORE + "KeyError: 'strange'", FAILED], "vLLM ended: 'strange'"),
        (
            ["x.StrictDataclassError: Class validation error for validator 'v':", "    ValueError: hidden size is wrong."],
            "vLLM ended: Class validation error for validator 'v': ValueError: hidden size is wrong.",
        ),
        (["last words", ""], "vLLM ended: last words"),
        ([], "vLLM ended: it said nothing"),
    ],
)
def test_what_is_not_in_the_table_is_quoted(output: list[str], message: str) -> None:
    error = diagnose(output)
    assert (error.cause, error.message) == ("unknown", message)
    assert error.hint
