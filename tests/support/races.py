"""Processes that all want the same at the same moment."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from longshore import Registry
from longshore_runtime.errors import Refused

PATIENCE = 120


def run_race(racer: Callable[..., list[bool]], count: int, *arguments: Any) -> list[list[bool]]:
    """Run `racer(number, barrier, *arguments)` in `count` processes; for each of its rounds, who won."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        barrier = manager.Barrier(count, timeout=PATIENCE)
        with context.Pool(count) as pool:
            outcomes = pool.starmap(racer, [(number, barrier, *arguments) for number in range(count)], chunksize=1)
    return [list(one) for one in zip(*outcomes, strict=True)]


def push_one_version(number: int, barrier: Barrier, root: str, models: list[Path], rounds: int) -> list[bool]:
    """In each round, push other bytes than all others as the same version; whoever loses is told the winner's digest."""
    registry, won = Registry(root, identity=f"racer-{number}"), []
    for round_ in range(rounds):
        barrier.wait()
        try:
            won.append(registry.push(models[number], f"m:{round_}").created)
        except Refused as refused:
            if registry.resolve(f"m:{round_}").digest not in refused.message:
                raise AssertionError(f"the winner is not named: {refused}") from refused
            won.append(False)
    return won


def move_one_alias(number: int, barrier: Barrier, root: str, versions: int, rounds: int) -> list[bool]:
    """In each round, move the alias from where all have seen it to a version of one's own."""
    registry, won = Registry(root, identity=f"racer-{number}"), []
    for _ in range(rounds):
        seen = registry.current("m", "prod").version
        target = str((int(seen) + 1 + number) % versions)
        barrier.wait()
        try:
            won.append(registry.promote("m", "prod", target, expected=seen).by == f"racer-{number}")
        except Refused:
            won.append(False)
        barrier.wait()
    return won
