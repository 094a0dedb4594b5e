"""Why vLLM ended, read from its last output: a table of its own messages, as of 0.32, with what to do about each."""

from __future__ import annotations

import re
from collections.abc import Sequence

from longshore_runtime.errors import EngineFailed
from longshore_runtime.serve.engines.last_words import KEPT, Cause, explain

_SMALLER = "use a larger device, more of them, or a smaller --max-model-len"
_UNPACKED = "config.json and the weights do not belong together: download the model again"
_ARGUMENTS = "correct the engine arguments, those of the version (serve.yaml) or your own"

CAUSES = (
    Cause(
        "unsupported-architecture",
        r"Model architectures \[(?P<what>[^\]]+)\] are not supported",
        "it does not support the architecture {what}",
        "serve it with a newer vLLM or another engine",
    ),
    Cause(
        "unsupported-architecture",
        r"has model type `(?P<what>[^`]+)` but Transformers does not recognize",
        "its Transformers library does not know the model type '{what}'",
        "use a newer runtime image, or check model_type in config.json",
    ),
    Cause(
        "remote-code",
        r"(?P<what>requires you to execute the configuration file|contains custom code which must be executed"
        r"|[sS]etting `trust_remote_code=True`|pass the argument `trust_remote_code=True`)",
        "the model brings Python code of its own, which is not run unasked",
        "read the code; if you trust it: --trust-remote-code",
    ),
    Cause(
        "wrong-argument",
        r"error: unrecognized arguments: (?P<what>.+)",
        "it does not know the argument {what}",
        _ARGUMENTS,
    ),
    Cause(
        "wrong-argument", r"error: argument (?P<what>\S+?):? (?P<more>.+)", "its argument {what} is wrong: {more}", _ARGUMENTS
    ),
    Cause(
        "wrong-argument",
        r"invalid (?P<what>tool call|reasoning) parser: (?P<more>\S+)",
        "it has no {what} parser {more}",
        "name one that it has, or leave it to the launcher",
    ),
    Cause(
        "wrong-argument",
        r"(?:Reasoning|Tool) parser '(?P<more>[^']+)' not found",
        "it has no parser {more}",
        "name one that it has, or leave it to the launcher",
    ),
    Cause(
        "context-too-long",
        r"User-specified max_model_len \((?P<what>\d+)\) is greater than the derived max_model_len \([^=]*=(?P<more>\d+)",
        "--max-model-len {what} is more than the model's {more}",
        "ask for no more than the model was trained for",
    ),
    Cause(
        "wrong-division",
        r"Total number of attention heads \((?P<what>\d+)\) must be divisible by tensor parallel size \((?P<more>\d+)\)",
        "its {what} attention heads cannot be divided among {more} GPUs",
        "see what can: longshore fit REFERENCE --gpu NAME",
    ),
    Cause(
        "wrong-draft",
        r"Target and draft model should have the same vocabulary size\. Target model vocab_size=(?P<what>\d+)\. "
        r"Draft model vocab_size=(?P<more>\d+)",
        "the model has a vocabulary of {what} tokens and its draft one of {more}",
        "name a draft of the same family, or leave speculative out",
    ),
    Cause(
        "too-few-gpus",
        r"World size \((?P<what>\d+)\) is larger than the number of available GPUs \((?P<more>\d+)\)",
        "it was told to use {what} GPUs and sees {more}",
        "ask for as many: --gpus N, or leave the division to the launcher",
    ),
    Cause(
        "bad-quantization",
        r"Unknown quantization method: (?P<what>\S+?)\.? ",
        "it does not know the quantization {what}",
        "use another export of the model, or correct --quantization",
    ),
    Cause(
        "bad-quantization",
        r"Quantization method specified in the model config \((?P<what>[^)]*)\) does not match .*\((?P<more>[^)]*)\)\.",
        "the model is quantized with {what}, and {more} was asked for",
        "leave out --quantization: it is read from the model",
    ),
    Cause(
        "bad-quantization",
        r"(?P<what>Cannot find the config file for \w+)",
        "the model is not quantized the way that was asked for ({what})",
        "leave out --quantization: it is read from the model",
    ),
    Cause(
        "bad-quantization",
        r"(?P<what>[Qq]uantization (?:method \S+|scheme)) is not supported for the current GPU\. "
        r"(?P<more>.*?capability: \d+\.)",
        "the GPU is too old for this {what} ({more})",
        "use a newer GPU or another export of the model",
    ),
    Cause(
        "bad-quantization",
        r"(?P<what>\w+) quantization is (?:currently )?not supported (?:in|on|for) (?P<more>\w+)",
        "the quantization {what} is not supported on {more}",
        "use another export of the model, or another kind of device",
    ),
    Cause(
        "no-device",
        r"(?P<what>Found no NVIDIA driver|Failed to infer device type|No CUDA GPUs are available"
        r"|NVIDIA driver on your system is too old)",
        "it finds no GPU that it can use ({what})",
        "give the pod a GPU, with a driver that the image's CUDA accepts",
    ),
    Cause(
        "no-device",
        r"(?P<what>no kernel image is available for execution on the device)",
        "the GPU is of a kind that this build has no code for",
        "use a runtime image that was built for it",
    ),
    Cause(
        "out-of-memory",
        r"(?P<what>\d[\d.]* GiB) KV cache is needed, which is larger than the available KV cache memory \((?P<more>[^)]*)\)",
        "one request of full length takes {what} of KV cache, and there are {more}",
        _SMALLER,
    ),
    Cause(
        "out-of-memory",
        r"Free memory on device \S* \((?P<what>[^)]*)\) on startup is less than desired",
        "something else uses the device's memory ({what} are free)",
        "give the pod a device of its own, or a smaller --gpu-memory-utilization",
    ),
    Cause(
        "out-of-memory",
        r"Available memory on node \d+ \((?P<what>[^)]*)\) on kv cache\s+allocation is less than requested memory for kv "
        r"\((?P<more>[^)]*)\)",
        "the machine has {what} left and the KV cache was to have {more}",
        "give the pod more memory, or a smaller --kv-cache-memory-bytes",
    ),
    Cause(
        "out-of-memory",
        r"(?P<what>\S*OutOfMemoryError|CUDA out of memory|No available memory for the cache blocks"
        r"|DefaultCPUAllocator: can't allocate memory)",
        "the device's memory is too small ({what})",
        _SMALLER,
    ),
    Cause(
        "killed",
        r"Failed core proc\(s\): \{'(?P<what>\w+)': -9\}",
        "its process {what} was killed, most likely for the memory that it took",
        "give the pod more memory: weights pass through it on their way to a GPU, and on a CPU stay there",
    ),
    Cause(
        "nccl",
        r"(?P<what>NCCL error[^\n]{0,120}|nccl(?:UnhandledCudaError|SystemError|InternalError|RemoteError)[^\n]{0,120})",
        "its GPUs cannot talk to each other ({what})",
        "set NCCL_DEBUG=INFO to see why; often /dev/shm is too small, or the GPUs are not connected",
    ),
    Cause(
        "shared-memory",
        r"(?P<what>unable to (?:open|allocate|write|mmap) (?:\d+ bytes from file|shared memory)[^\n]{0,80}|Bus error)",
        "its shared memory is too small ({what})",
        "give /dev/shm of the pod a larger sizeLimit",
    ),
    Cause("port-in-use", r"(?P<what>[Aa]ddress already in use)", "its port is in use", "choose another with --port"),
    Cause(
        "wrong-weights",
        r"weights were not initialized from checkpoint: \{(?P<what>[^,}]+)",
        "the weights lack {what} and perhaps more",
        _UNPACKED,
    ),
    Cause(
        "wrong-weights",
        r"There is no module or parameter named (?P<what>'[^']+') in (?P<more>\w+)",
        "the weights hold {what}, which {more} does not have",
        _UNPACKED,
    ),
    Cause(
        "damaged-weights",
        r"SafetensorError: (?P<what>[^\n]+)",
        "a file of weights is damaged ({what})",
        "pull the model again, verified: longshore verify REFERENCE",
    ),
    Cause(
        "no-weights",
        r"(?P<what>Cannot find any model weights)",
        "the folder holds no weights that it can read",
        "push the model with its .safetensors files",
    ),
    Cause(
        "read-only",
        r"(?:Read-only file system|Permission denied): '(?P<what>[^']+)'",
        "it may not write to {what}",
        "mount something writable there, or point it elsewhere with an environment variable",
    ),
    Cause(
        "disk-full",
        r"(?P<what>No space left on device)",
        "a disk is full",
        "make the volume of its caches larger, or /dev/shm",
    ),
)

_ERROR = re.compile(r"(?:^|\] |\s)((?:[\w.]*\.)?[A-Z]\w*(?:Error|Exception))(?:: (.*))?$")
_PREFIX = re.compile(r"^\(\w+ pid=\d+\) (?:ERROR [\d:\- ]+\[[\w.]+:\d+\] ?)?")


_COMMON = {"remote-code", "no-device", "nccl", "shared-memory", "damaged-weights", "read-only", "disk-full"}

COMMON = tuple(cause for cause in CAUSES if cause.name in _COMMON)
"""What the libraries say that engines in Python have in common: Transformers, PyTorch, NCCL, safetensors, Python itself."""


def diagnose(output: Sequence[str]) -> EngineFailed:
    """One sentence, what to do, and the cause's name; the first cause in the table whose message is there."""
    lines = [_PREFIX.sub("", line) for line in output]
    return explain("vLLM", CAUSES, lines, first_error(lines))


def first_error(lines: Sequence[str]) -> str:
    """The message of the first exception: what follows it is how others failed because of it."""
    for index, line in enumerate(lines):
        if (found := _ERROR.search(line)) and "initialization failed" not in line:
            following = next((text.strip() for text in lines[index + 1 :] if text.strip()), "")
            message = found[2] or following
            return (f"{message} {following}" if message.endswith((":", "for ModelConfig")) else message)[:KEPT]
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")[:KEPT]
