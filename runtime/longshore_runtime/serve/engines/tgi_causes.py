"""Why text-generation-inference ended, read from its last output: its own messages as its source has them, 3.3.5."""

from __future__ import annotations

from collections.abc import Sequence

from longshore_runtime.errors import EngineFailed
from longshore_runtime.serve.engines.last_words import Cause, explain
from longshore_runtime.serve.engines.vllm_causes import COMMON, first_error

_ARGUMENTS = "correct the engine arguments, those of the version (serve.yaml) or your own"

CAUSES = (
    Cause(
        "unsupported-architecture",
        r"Unsupported model type (?P<what>\S+)",
        "it does not support the model type {what}",
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
        r"error: unexpected argument '(?P<what>[^']+)'",
        "it does not know the argument {what}",
        _ARGUMENTS,
    ),
    Cause(
        "wrong-argument",
        r"error: invalid value '(?P<more>[^']*)' for '(?P<what>--[\w-]+)",
        "its argument {what} cannot be '{more}'",
        _ARGUMENTS,
    ),
    Cause("wrong-argument", r"ArgumentValidation\(\"(?P<what>[^\"]+)\"\)", "an argument is wrong: {what}", _ARGUMENTS),
    Cause(
        "too-few-gpus",
        r"NotEnoughCUDADevices\(\"(?P<what>[^\"]+)\"\)",
        "it was told to use more GPUs than it sees ({what})",
        "ask for as many: --gpus N, or leave the division to the launcher",
    ),
    Cause(
        "wrong-adapter",
        r"Adapter '(?P<what>[^']+)' is not compatible with model '[^']*'\. (?P<more>Architectures differ: [^\n]+?)\. Use",
        "the adapter {what} is for another model ({more})",
        "serve it on the base that it was made for",
    ),
    Cause(
        "out-of-memory",
        r"Not enough memory to handle (?P<what>\d+) prefill tokens",
        "the weights leave no room for prompts of {what} tokens",
        "give a smaller --max-batch-prefill-tokens or --max-input-tokens, or a larger device",
    ),
    Cause(
        "out-of-memory",
        r"(?P<what>\S*OutOfMemoryError|CUDA out of memory)",
        "the device's memory is too small ({what})",
        "use a larger device, more of them, or a smaller --max-total-tokens",
    ),
    Cause(
        "killed",
        r"(?P<what>Shard process was signaled to shutdown with signal 9|the engine was ended by SIGKILL)",
        "it was killed, most likely for the memory that it took",
        "give the pod more memory: weights pass through it on their way to a GPU",
    ),
    Cause(
        "no-weights",
        r"No local weights found in \S+ with extension (?P<what>\S+)",
        "the folder holds no weights in {what} files",
        "push the model with its .safetensors files",
    ),
    Cause(
        "wrong-weights",
        r"weight (?P<what>\S+) does not exist",
        "the weights lack {what} and perhaps more",
        "config.json and the weights do not belong together: download the model again",
    ),
    Cause(
        "port-in-use", r"(?P<what>[Aa]ddress already in use)", "a port of its own is in use", "choose another --prometheus-port"
    ),
    *COMMON,
)


def diagnose(output: Sequence[str]) -> EngineFailed:
    """One sentence, what to do, and the cause's name."""
    return explain("text-generation-inference", CAUSES, output, first_error(output))
