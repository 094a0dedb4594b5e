"""Why TensorRT-LLM ended, read from its last output: its own messages as its source has them, 1.3.0rc3, with what to do."""

from __future__ import annotations

from collections.abc import Sequence

from longshore_runtime.errors import EngineFailed
from longshore_runtime.serve.engines.last_words import Cause, explain
from longshore_runtime.serve.engines.vllm_causes import COMMON, first_error

_ARGUMENTS = "correct the engine arguments, those of the version (serve.yaml) or your own"
_SMALLER = "use a larger device, more of them, or a smaller --max_seq_len, --max_num_tokens or --max_batch_size"
_EXPORT = "use another export of the model, or serve it with vllm"
_DIVISION = "choose another --tensor_parallel_size or --moe_expert_parallel_size, or leave the division to the launcher"

CAUSES = (
    Cause(
        "unsupported-architecture",
        r"Unknown architecture for AutoModel\w+: (?P<what>\S+)",
        "it does not support the architecture {what}",
        "serve it with another engine",
    ),
    Cause(
        "unsupported-architecture",
        r"has model type `(?P<what>[^`]+)` but Transformers does not recognize",
        "its Transformers library does not know the model type '{what}'",
        "serve it with another engine, or check model_type in config.json",
    ),
    Cause(
        "wrong-argument",
        r"error: the settings in (?P<what>\S+) cannot be used: (?P<more>[^\n]+)",
        "the settings in {what} cannot be used: {more}",
        "correct the file that --config names",
    ),
    Cause("wrong-argument", r"No such option:? '?(?P<what>--?[\w-]+)", "it does not know the argument {what}", _ARGUMENTS),
    Cause(
        "wrong-argument",
        r"Error: Invalid value for '(?P<what>--[\w-]+)'[^:\n]*: (?P<more>[^\n]+)",
        "its argument {what} is wrong: {more}",
        _ARGUMENTS,
    ),
    Cause(
        "wrong-argument",
        r"Error: (?P<what>Got unexpected extra argument[^\n]*|Option '[^\n]* requires an argument\.)",
        "its arguments are wrong: {what}",
        _ARGUMENTS,
    ),
    Cause(
        "wrong-argument",
        r"LLM got invalid argument: (?P<what>\w+)",
        "it has no setting {what}",
        "correct the file that --config names",
    ),
    Cause(
        "too-few-gpus",
        r"Only (?P<what>\d+) GPUs are available, but (?P<more>\d+) are required",
        "it was told to use {more} GPUs and sees {what}",
        "ask for as many: --gpus N, or leave the division to the launcher",
    ),
    Cause("no-device", r"(?P<what>No GPU devices found on the node)", "it sees no GPU", "ask for one: --gpus 1"),
    Cause(
        "wrong-division",
        r"(?P<what>(?:in|out)_features \d+) must be divisible by tp_size (?P<more>\d+)",
        "a layer ({what}) cannot be divided among {more} GPUs",
        _DIVISION,
    ),
    Cause(
        "wrong-division",
        r"num_experts \((?P<what>\d+)\) must be divisible by moe_ep_size \((?P<more>\d+)\)",
        "{what} experts cannot be divided among {more} GPUs",
        _DIVISION,
    ),
    Cause(
        "wrong-division",
        r"(?P<what>moe_tp_size \* moe_ep_size \* moe_cluster_size must equal to moe_world_size, but got [^\n]+)",
        "the experts are divided among other GPUs than the layers ({what})",
        _DIVISION,
    ),
    Cause(
        "bad-quantization",
        r"Unsupported (?P<what>(?:quant_bits|quant_mode|group_size|\w+_quant_strategy): [^.\n]+)",
        "it cannot read weights that are quantized in this way ({what})",
        _EXPORT,
    ),
    Cause(
        "bad-quantization",
        r"(?P<what>FP8_BLOCK_SCALES only supports block_size=\(128, ?128\))",
        "it reads FP8 weights in blocks of 128 by 128 alone",
        _EXPORT,
    ),
    Cause(
        "out-of-memory",
        r"due to insufficient GPU memory\.\s+The following component could not be created: (?P<what>[^\n]+)",
        "the device's memory is too small (for {what})",
        _SMALLER,
    ),
    Cause(
        "out-of-memory",
        r"(?P<what>Impossible to fit in any sequence in kvCache)",
        "the weights leave no room for a KV cache",
        "use a larger device or more of them, or a smaller --max_num_tokens",
    ),
    Cause(
        "out-of-memory",
        r"(?P<what>\S*OutOfMemoryError|CUDA out of memory)",
        "the device's memory is too small ({what})",
        _SMALLER,
    ),
    Cause(
        "killed",
        r"(?P<what>the engine was ended by SIGKILL)",
        "it was killed, most likely for the memory that it took",
        "give the pod more memory: weights pass through it on their way to a GPU",
    ),
    Cause("no-weights", r"No weight files found in (?P<what>\S+)\.", "there are no weights in {what}", "push the model again"),
    Cause(
        "port-in-use",
        r"(?P<what>Failed to bind socket to \S+: [^\n]*in use|[Aa]ddress already in use)",
        "its port is in use",
        "start it again: the relay looks for another",
    ),
    *COMMON,
    Cause(
        "killed",
        r"(?P<what>Executor worker died during initialization)",
        "a worker ended without a word, most likely for the memory that it took",
        "give the pod more memory, and see its output for what MPI says",
    ),
)


def diagnose(output: Sequence[str]) -> EngineFailed:
    """One sentence, what to do, and the cause's name."""
    return explain("TensorRT-LLM", CAUSES, output, first_error(output))
