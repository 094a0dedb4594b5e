"""The table in docs/fit.md, made from the published models: `PYTHONPATH=tests python -m support.fit_table` writes it anew."""

from __future__ import annotations

from pathlib import Path

from longshore_runtime.serve.fit import memory
from longshore_runtime.serve.fit.catalogue import CATALOGUE
from longshore_runtime.serve.fit.plan import Fit, fit
from support.published import MODELS, Published

DOCUMENT = Path(__file__).parents[2] / "docs" / "fit.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
GPUS = ("l4", "a100-80g", "h100", "h200")
GIB = 1024**3


def make_table() -> str:
    """One row per model: parameters, weights, attention, cache per token, and how it goes onto each GPU."""
    header = ["model", "parameters (B)", "active", "weights (GiB)", "attention", "cache (B/token)", *GPUS]
    rows = [header, ["---"] + ["---:"] * 3 + ["---", "---:"] + ["---"] * len(GPUS), *map(_row, MODELS)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(model: Published) -> list[str]:
    geometry = model.geometry()
    active = f"{geometry.active / 1e9:.2f}" if geometry.active < geometry.parameters else ""
    facts = [model.name, f"{geometry.parameters / 1e9:.2f}", active, f"{geometry.weights.total / GIB:.1f}"]
    facts += [geometry.attention, f"{memory.cache_per_token(geometry):,}"]
    return facts + [_cell(fit(geometry, CATALOGUE[name])) for name in GPUS]


def _cell(found: object) -> str:
    """`4×2 EP, 32k`: tensor × pipeline, expert parallelism, thousands of tokens of context."""
    if not isinstance(found, Fit):
        return "–"
    split = found.split
    stages = f"×{split.pipeline}" if split.pipeline > 1 else ""
    return f"{split.tensor}{stages}{' EP' if split.whole_experts else ''}, {round(found.context / 1024)}k"


def written(text: str) -> str:
    """The table as the document has it."""
    return text.partition(BEGIN)[2].partition(END)[0].strip() + "\n"


if __name__ == "__main__":
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{make_table()}\n{END}{rest.partition(END)[2]}")
