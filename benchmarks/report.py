"""What every benchmark prints: a table, then one line for each goal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they must be; the first is on the left, numbers are on the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        first, *others = (
            text.ljust(width) if not at else text.rjust(width) for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())


def print_goal(name: str, value: float, relation: Literal[">=", "<="], target: float, unit: str = "") -> None:
    """`goal: NAME VALUE (>= or <= TARGET) met|missed`."""
    met = value >= target if relation == ">=" else value <= target
    print(f"goal: {name} {value:.4g}{unit} ({relation} {target:g}{unit}) {'met' if met else 'missed'}")
