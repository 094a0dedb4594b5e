"""vLLM's own loader, which waits for weights that are still arriving: shard by shard, each when it is there and right.

Until then the folder that vLLM was started on has only the headers of the files, so that whatever reads more of one without
waiting fails. Methods as of vLLM 0.30 to 0.32.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from vllm.logger import init_logger
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from longshore_runtime.arrivals import ARRIVALS, Arrivals

logger = init_logger("vllm.longshore")

_INTERVAL = 0.05
_SAFE = ".safetensors"


class WaitingLoader(DefaultModelLoader):
    """`--load-format longshore`; for other models than the one that is arriving, `--load-format auto`."""

    def __init__(self, load_config: Any) -> None:
        super().__init__(dataclasses.replace(load_config, load_format="auto", use_tqdm_on_load=False))
        self._arrivals = Arrivals(Path(os.environ[ARRIVALS])).update()
        self._only: str | None = None

    def load_weights(self, model: Any, model_config: Any) -> None:
        """Load what arrives. Returns when all of it is verified, used or not: only then may the model answer."""
        mine = self._arrives(model_config.model)
        if mine and not hasattr(DefaultModelLoader, "_get_weights_iterator"):
            self._wait_for_all()
        super().load_weights(model, model_config)
        if mine:
            self._wait_for_all()

    def _prepare_weights(self, model_name_or_path: str, *args: Any, **kwargs: Any) -> tuple[str, list[str], bool, str]:
        """The files to load, of which the headers must be there; of other kinds than safetensors, the files themselves."""
        if self._arrives(model_name_or_path) and not list(Path(model_name_or_path).glob(f"*{_SAFE}")):
            self._wait_for_all()
        folder, files, safe, index = super()._prepare_weights(model_name_or_path, *args, **kwargs)
        return folder, [self._only] if self._only else files, safe, index

    def _get_weights_iterator(self, source: Any) -> Generator[tuple[str, Any], None, None]:
        """The tensors, file by file."""
        folder, files, safe, _ = self._prepare_weights(
            source.model_or_path,
            source.subfolder,
            source.revision,
            source.fall_back_to_pt,
            source.allow_patterns_overrides,
        )
        if not self._arrives(source.model_or_path):
            yield from super()._get_weights_iterator(source)
            return
        chosen = source.is_unused_weight is not None or self._encoder_only_lm_prefixes is not None
        if not safe or chosen or self.load_config.model_loader_extra_config:
            self._wait_for_all()
            yield from super()._get_weights_iterator(source)
            return
        for number, file in enumerate(sorted(files), 1):
            self._wait_for({os.path.relpath(file, self._arrivals.preview)})
            logger.info("Shard %d/%d has arrived: %s", number, len(files), os.path.relpath(file, folder))
            self._only = file
            try:
                yield from super()._get_weights_iterator(source)
            finally:
                self._only = None

    def _arrives(self, folder: str) -> bool:
        return self._arrivals.preview is not None and Path(folder) == Path(self._arrivals.preview)

    def _wait_for(self, files: set[str]) -> None:
        if self._arrivals.verdict or files <= self._arrivals.files:
            return
        logger.info("Waiting for weights: %s", ", ".join(sorted(files)))
        while not files <= self._arrivals.files and self._arrivals.verdict is None:
            self._look()

    def _wait_for_all(self) -> None:
        while self._arrivals.verdict is None:
            self._look()

    def _look(self) -> None:
        time.sleep(_INTERVAL)
        if self._arrivals.update().error is not None:
            raise RuntimeError(f"the weights did not arrive: {self._arrivals.error}")
