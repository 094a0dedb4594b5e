"""What a check can find: stable codes with a severity and advice, and the report that lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Code:
    """A kind of finding: `meaning` is what is wrong, `advice` what to do about it."""

    severity: Severity
    meaning: str
    advice: str


CODES: dict[str, Code] = {
    # files
    "name-refused": Code(
        "error", "a name, a link or a device that no version may hold", "rename, copy or remove what is named"
    ),
    "lfs-pointer": Code("error", "a Git LFS pointer lies where the file should be", "run `git lfs pull`, or download it again"),
    "pickle": Code(
        "error", "a pickle, which runs code when it is loaded", "convert weights to safetensors; remove the file otherwise"
    ),
    "native-code": Code("warning", "a program or a shared library", "remove it; no engine needs it"),
    "python-file": Code(
        "note", "Python code, which only an engine with --trust-remote-code runs", "remove it, or read it before you trust it"
    ),
    # configuration
    "config-missing": Code("error", "there is no config.json", "name the folder of a Hugging Face model"),
    "config-invalid": Code("error", "a JSON file that is none", "download or copy the file again"),
    "config-inconsistent": Code("error", "config.json contradicts itself", "correct config.json, or download it again"),
    "architecture-missing": Code("error", "config.json names no architecture", "add `architectures` to config.json"),
    "architecture-unsupported": Code(
        "error", "the engine does not know the architecture", "use a newer engine or another one, and push with --no-check"
    ),
    "architecture-fallback": Code(
        "warning", "the engine has the architecture only through a generic backend", "try it with `longshore run` first"
    ),
    "draft-model": Code("warning", "a draft model, which only speculates for another", "serve it beside the model it is for"),
    "quantization-unsupported": Code(
        "error", "the engine does not know the quantization", "use another quantization, or another engine and --no-check"
    ),
    "remote-code": Code(
        "warning", "a configuration names code to be run (`auto_map`)", "it stays unused unless the engine is told to trust it"
    ),
    "trust-remote-code": Code(
        "warning", "the serving arguments let the engine run code from the tree", "leave out --trust-remote-code if you can"
    ),
    "argument-unknown": Code(
        "error", "a serving argument that the engine does not know", "correct the serving arguments, or use a newer engine"
    ),
    "argument-owned": Code("error", "a serving argument that the runtime sets itself", "leave it out of the serving arguments"),
    "argument-secret": Code(
        "error", "a serving argument that holds a secret", "give it to the container as a variable of its environment"
    ),
    "argument-short": Code("error", "a serving argument in its short form", "write the long form"),
    # weights
    "weights-missing": Code("error", "there are no weights that an engine reads", "add the model's .safetensors files"),
    "weights-damaged": Code("error", "a weights file is cut short or no such file", "download or copy the file again"),
    "gguf-choice": Code(
        "error", "not one whole model in GGUF files", "keep the one that is to be served, whole, or name another engine"
    ),
    "weights-unread": Code("warning", "weights that the engine does not read", "remove them; they only cost space and time"),
    "index-invalid": Code("error", "the index of the shards cannot be used", "download or copy the index again"),
    "shard-missing": Code("error", "a shard is missing", "download or copy it again"),
    "tensor-missing": Code("error", "tensors are missing", "config.json and weights do not belong together: download both"),
    "tensor-duplicate": Code("error", "two shards hold a tensor of one name", "remove the shards of another version"),
    "tensor-unlisted": Code("warning", "the index leaves out tensors of a shard", "download the index and the shards again"),
    "tensor-dtype": Code("error", "a number format that no engine knows", "save the weights in another format"),
    "tensor-shape": Code(
        "error", "a tensor has not the shape that config.json says", "config.json and weights do not belong together"
    ),
    "layers-extra": Code("warning", "there are more layers than config.json says", "correct num_hidden_layers if it is wrong"),
    "shapes-unchecked": Code("note", "shapes of this family are not known here", "try it with `longshore run`"),
    # tokenizer and chat template
    "tokenizer-missing": Code("error", "there is no tokenizer", "copy the tokenizer's files beside config.json"),
    "tokenizer-invalid": Code("error", "the tokenizer cannot be read", "download or copy the file again"),
    "tokenizer-vocabulary": Code(
        "warning", "the tokenizer has more tokens than the model", "use the tokenizer that the model was trained with"
    ),
    "template-missing": Code("warning", "there is no chat template", "add chat_template.jinja, or use completions only"),
    "template-invalid": Code("error", "the chat template is not valid Jinja", "correct the template at the line named"),
    "template-fails": Code("error", "the chat template fails for a user's message", "correct the template"),
    "template-limited": Code("note", "the chat template refuses some conversations", "clients must not send such messages"),
    # adapters
    "adapter-unsupported": Code(
        "error", "the engine does not serve this kind of adapter", "merge the adapter into its base, and push that"
    ),
    "adapter-incomplete": Code("error", "an adapter's configuration leaves out what an engine must know", "save it with PEFT"),
    "adapter-shape": Code("error", "an adapter's tensors contradict its configuration", "save the adapter again"),
    "adapter-target": Code("error", "an adapter changes modules that its base has not", "name the base it was trained on"),
    "adapter-misfit": Code("error", "an adapter's tensors do not fit its base's", "name the base it was trained on"),
    "adapter-unchecked": Code("note", "an adapter was not held against a base", "name its base: --base MODEL:VERSION"),
}
"""Every code there is. They are part of the interface: scripts may rely on them."""


@dataclass(frozen=True)
class Finding:
    """One thing found: its `code`, the file it is in (None: the whole tree), and what was seen there."""

    code: str
    path: str | None
    detail: str

    @property
    def severity(self) -> Severity:
        """How bad it is: an error keeps the tree from being served, or makes it dangerous to."""
        return CODES[self.code].severity

    @property
    def advice(self) -> str:
        """What to do."""
        return CODES[self.code].advice

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}" if self.path else self.detail

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        own = {"code": self.code, "severity": self.severity, "path": self.path, "detail": self.detail}
        return {**own, "advice": self.advice}


@dataclass(frozen=True)
class Report:
    """What a check saw: `files` of `size` bytes at `source`, held against `engine` (name and version)."""

    source: str
    engine: str
    architecture: str | None
    files: int
    size: int
    findings: tuple[Finding, ...]

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    @property
    def ok(self) -> bool:
        """Whether nothing keeps the tree from being served."""
        return not self.of("error")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "source": self.source,
            "engine": self.engine,
            "architecture": self.architecture,
            "files": self.files,
            "size": self.size,
            "ok": self.ok,
            "findings": [finding.as_dict() for finding in self.findings],
        }
