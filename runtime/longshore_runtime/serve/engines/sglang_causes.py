"""Why SGLang ended, read from its last output: its own messages as its source has them, 0.5.23, with what to do."""

from __future__ import annotations

from collections.abc import Sequence

from longshore_runtime.errors import EngineFailed
from longshore_runtime.serve.engines.last_words import Cause, explain
from longshore_runtime.serve.engines.vllm_causes import COMMON, first_error

_ARGUMENTS = "correct the engine arguments, those of the version (serve.yaml) or your own"
_SMALLER = "use a larger device, more of them, or a smaller --context-length"

CAUSES = (
    Cause(
        "unsupported-architecture",
        r"Model architectures \[(?P<what>[^\]]+)\] are not supported",
        "it does not support the architecture {what}",
        "serve it with a newer SGLang or another engine",
    ),
    Cause(
        "unsupported-architecture",
        r"has model type `(?P<what>[^`]+)` but Transformers does not recognize",
        "its Transformers library does not know the model type '{what}'",
        "use a newer runtime image, or check model_type in config.json",
    ),
    Cause("wrong-argument", r"error: unrecognized arguments: (?P<what>.+)", "it does not know the argument {what}", _ARGUMENTS),
    Cause(
        "wrong-argument", r"error: argument (?P<what>\S+?):? (?P<more>.+)", "its argument {what} is wrong: {more}", _ARGUMENTS
    ),
    Cause(
        "context-too-long",
        r"User-specified context_length \((?P<what>\d+)\) is greater than the derived context_length \((?P<more>\d+)\)",
        "--context-length {what} is more than the model's {more}",
        "ask for no more than the model was trained for",
    ),
    Cause(
        "bad-quantization",
        r"Unknown quantization method: (?P<what>\S+?)\. ",
        "it does not know the quantization {what}",
        "use another export of the model, or correct --quantization",
    ),
    Cause(
        "bad-quantization",
        r"Quantization method specified in the model config \((?P<what>[^)]*)\) does not match [^(]*\((?P<more>[^)]*)\)",
        "the model is quantized with {what}, and {more} was asked for",
        "leave out --quantization: it is read from the model",
    ),
    Cause(
        "bad-quantization",
        r"The quantization method (?P<what>\S+) is not supported for the current GPU\. (?P<more>.*capability: \d+\.)",
        "the GPU is too old for the quantization {what} ({more})",
        "use a newer GPU or another export of the model",
    ),
    Cause(
        "wrong-adapter",
        r"LoRA adapter (?P<what>\S+) with rank (?P<more>\d+) is incompatible with the current LoRA memory pool",
        "the adapter {what}, of rank {more}, has more than was prepared for",
        "give a larger --max-lora-rank, and name its modules in --lora-target-modules",
    ),
    Cause(
        "wrong-adapter",
        r"Failed to load (?:LoRA adapter )?(?P<what>\S+) because (?P<more>LoRA serving [^\n]+|it is [^\n]+)",
        "the adapter {what} cannot be served: {more}",
        "merge it into the model, or serve it with another engine",
    ),
    Cause(
        "out-of-memory",
        r"Not enough memory\. (?P<what>Please try to increase --mem-fraction-static)",
        "the weights leave no room for a KV cache",
        "use a larger device or more of them, or a larger --mem-fraction-static",
    ),
    Cause(
        "out-of-memory",
        r"(?P<what>Capture cuda graph failed: [^\n]*out of memory)",
        "the CUDA graphs have no room ({what})",
        "give a smaller --mem-fraction-static, 0.8 or 0.7, or a smaller --cuda-graph-max-bs-decode",
    ),
    Cause(
        "out-of-memory",
        r"(?P<what>\S*OutOfMemoryError|CUDA out of memory|DefaultCPUAllocator: can't allocate memory)",
        "the device's memory is too small ({what})",
        _SMALLER,
    ),
    Cause(
        "killed",
        r"(?P<what>died during initialization \(exit code: -9\)|crashed with exit code -9|the engine was ended by SIGKILL)",
        "it was killed, most likely for the memory that it took",
        "give the pod more memory: weights pass through it on their way to a GPU",
    ),
    Cause(
        "no-weights", r"(?P<what>Cannot find any model weights)", "there are no weights in the folder", "push the model again"
    ),
    Cause(
        "port-in-use",
        r"(?P<what>Port is already in use|[Aa]ddress already in use)",
        "its port is in use",
        "choose another with --port",
    ),
    *COMMON,
)


def diagnose(output: Sequence[str]) -> EngineFailed:
    """One sentence, what to do, and the cause's name."""
    return explain("SGLang", CAUSES, output, first_error(output))
