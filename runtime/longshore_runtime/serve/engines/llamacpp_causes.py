"""Why llama.cpp's server ended, read from its last output: its own messages, builds of September 2026, with what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from longshore_runtime.errors import EngineFailed
from longshore_runtime.serve.engines.last_words import Cause, explain

_SMALLER = "give the pod more memory, or a smaller --ctx-size or --parallel; on a GPU fewer --n-gpu-layers"
_AGAIN = "pull the model again, verified: longshore verify REFERENCE"
_ARGUMENTS = "correct the engine arguments, those of the version (serve.yaml) or your own"

CAUSES = (
    Cause(
        "unsupported-architecture",
        r"unknown model architecture: '(?P<what>[^']*)'",
        "it does not know the architecture '{what}'",
        "serve it with a newer llama.cpp",
    ),
    Cause(
        "unsupported-architecture",
        r"unknown (?P<what>pre-tokenizer type|tokenizer)(?: in model file)?: '(?P<more>[^']*)'",
        "it does not know the {what} '{more}'",
        "serve it with a newer llama.cpp, or convert the model again",
    ),
    Cause("wrong-argument", r"error: invalid argument: (?P<what>.+)", "it does not know the argument {what}", _ARGUMENTS),
    Cause(
        "wrong-argument",
        r'error while handling argument "(?P<what>[^"]+)": (?P<more>.+)',
        "its argument {what} is wrong: {more}",
        _ARGUMENTS,
    ),
    Cause(
        "wrong-adapter",
        r"failed to apply lora adapter: (?P<what>.+)",
        "an adapter cannot be used: {what}",
        "convert it with llama.cpp's convert_lora_to_gguf.py, for the base that is served",
    ),
    Cause(
        "damaged-weights",
        r"(?P<what>tensor '[^']+' data is not within the file bounds|invalid magic characters: '[^']*'"
        r"|failed to read (?:key-value pairs|tensor info|header))",
        "the file of weights is damaged or cut short ({what})",
        _AGAIN,
    ),
    Cause(
        "bad-quantization",
        r"tensor '(?P<what>[^']+)' has invalid ggml type (?P<more>\d+)",
        "the tensor {what} is quantized in a way that it does not know (type {more})",
        "serve it with a newer llama.cpp, or quantize the model again",
    ),
    Cause(
        "wrong-weights",
        r"(?:check_tensor_dims: |missing )tensor '(?P<what>[^']+)'(?P<more>[^\n]*)",
        "the weights are not those of this architecture: the tensor {what} is missing or has another shape",
        "convert the model again with the llama.cpp that serves it",
    ),
    Cause("no-weights", r"failed to open GGUF file '(?P<what>[^']+)'", "there is no file {what}", "push the model again"),
    Cause(
        "out-of-memory",
        r"insufficient memory \(attempted to allocate (?P<what>[\d.]+ MB)\)",
        "memory was not enough: there were no {what} more",
        _SMALLER,
    ),
    Cause(
        "out-of-memory",
        r"(?P<what>cudaMalloc failed: out of memory|CUDA error: out of memory|failed to allocate \w+ buffer|std::bad_alloc)",
        "memory was not enough ({what})",
        _SMALLER,
    ),
    Cause(
        "killed",
        r"the engine was ended by SIG(?P<what>KILL)",
        "it was killed, most likely for the memory that it took",
        "give the pod more memory: as much as the weights, and the KV cache",
    ),
    Cause(
        "no-device",
        r"the engine was ended by SIG(?P<what>ILL)",
        "this machine's processor lacks instructions that it was built for",
        "use a build for this kind of machine",
    ),
    Cause(
        "no-device",
        r"(?P<what>no CUDA-capable device|CUDA driver version is insufficient|no kernel image is available)",
        "it finds no GPU that it can use ({what})",
        "give the pod a GPU, with a driver that the image's CUDA accepts",
    ),
    Cause(
        "port-in-use",
        r"(?P<what>couldn't bind HTTP server socket|[Aa]ddress already in use)",
        "its port is in use",
        "choose another with --port",
    ),
    Cause(
        "not-installed",
        r"error: (?P<what>this xllamacpp cannot be used: .+)",
        "{what}",
        "install the extra engine-llamacpp, with the pinned version, or put llama-server on the PATH",
    ),
)

_LEVEL = re.compile(r"^[\d.]+ E (?:\w+ +)?")


def diagnose(output: Sequence[str]) -> EngineFailed:
    """One sentence, what to do, and the cause's name; the first cause in the table whose message is there."""
    error = next((_LEVEL.sub("", line) for line in output if _LEVEL.match(line)), None)
    last = next((line.strip() for line in reversed(output) if line.strip()), "it said nothing")
    return explain("llama.cpp", CAUSES, output, error or last)
