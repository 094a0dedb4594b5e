"""Killing a command of the registry at one storage call after another, and looking at what that leaves. Run as a module.

`python -m support.crashes file FOLDER STRIDE all` kills at every STRIDE-th call on the file system; `… s3 FOLDER STRIDE push,gc
BUCKET SERVER-FOLDER` (only these scenarios) before and after every STRIDE-th request to the server that the environment
names. It ends with 0 and the number of points when all was well, or says what was not.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from longshore import Registry
from longshore_runtime.errors import NotFound
from support.models import make_model

EVENTS = {"open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.scandir", "os.listdir"}
DAYS = 2 * 86400.0


@dataclass
class Bench:
    """A registry to break: `folder` (and `metadata`) is where its bytes lie, `models` are directories to push."""

    root: str
    folder: Path
    metadata: Path | None
    models: list[Path]
    other: str

    opened: dict[int, Registry] = field(default_factory=dict)

    def open(self) -> Registry:
        """The registry; each process has a connection of its own."""
        process = os.getpid()
        if process not in self.opened:
            self.opened[process] = Registry(self.root, identity="ana")
        return self.opened[process]

    def copy_from(self, other: Bench) -> None:
        """Be as the other is."""
        shutil.copytree(other.folder, self.folder)
        if self.metadata and other.metadata and other.metadata.exists():
            shutil.copytree(other.metadata, self.metadata)

    def remove(self) -> None:
        for folder in (self.folder, self.metadata):
            if folder:
                shutil.rmtree(folder, ignore_errors=True)

    def age(self) -> None:
        """Make all that is there two days older to its store."""
        moment = time.time() - DAYS
        for path in self.folder.rglob("*"):
            if path.is_file():
                os.utime(path, (moment, moment))


@dataclass(frozen=True)
class Scenario:
    """`prepare` makes the state before, `act` is killed, and once it has run again `finished` must hold."""

    name: str
    prepare: Callable[[Bench], None]
    act: Callable[[Bench], None]
    finished: Callable[[Bench], bool]


def push_two(bench: Bench) -> None:
    registry = bench.open()
    for number, model in enumerate(bench.models[:2], start=1):
        registry.push(model, f"m:{number}", alias="prod")


def delete_one(bench: Bench) -> None:
    push_two(bench)
    bench.open().delete("m:1")


def litter(bench: Bench) -> None:
    """A version that was deleted long ago, a push and an upload that were never finished."""
    delete_one(bench)
    store = bench.open()._store
    store.create("m/trees/" + "0" * 64 + "/config.json", b"{}")
    store.create("m/staging/left/config.json", b"{}")
    bench.age()


def collect(registry: Registry) -> None:
    collector, found = registry.find_garbage(grace=3600)
    for garbage in found:
        registry.collect(collector, garbage)


def is_restored(bench: Bench) -> bool:
    return bench.open().resolve("m:1").version == "1"


def is_gone(bench: Bench) -> bool:
    try:
        bench.open().resolve("m:1")
    except NotFound:
        return True
    return False


SCENARIOS = [
    Scenario(
        "first push",
        lambda bench: bench.folder.mkdir(parents=True),
        lambda bench: void(bench.open().push(bench.models[0], "m:1")),
        lambda bench: bench.open().resolve("m:1").version == "1",
    ),
    Scenario(
        "next push",
        push_two,
        lambda bench: void(bench.open().push(bench.models[2], "m")),
        lambda bench: bench.open().versions("m")[-1].version == "3",
    ),
    Scenario(
        "push",
        push_two,
        lambda bench: void(bench.open().push(bench.models[2], "m:3", alias="prod")),
        lambda bench: bench.open().resolve("m@prod").version == "3",
    ),
    Scenario(
        "alias",
        push_two,
        lambda bench: void(bench.open().promote("m", "prod", "1")),
        lambda bench: bench.open().resolve("m@prod").version == "1",
    ),
    Scenario(
        "rollback",
        push_two,
        lambda bench: void(bench.open().rollback("m", "prod", to="1")),
        lambda bench: bench.open().resolve("m@prod").version == "1",
    ),
    Scenario(
        "copy",
        push_two,
        lambda bench: void(Registry(bench.other).copy("m:9", bench.open(), aliases=["prod"])),
        lambda bench: bench.open().resolve("m@prod").version == "9",
    ),
    Scenario(
        "protect",
        push_two,
        lambda bench: void(bench.open().protect("m", "prod")),
        lambda bench: bench.open().current("m", "prod").protected,
    ),
    Scenario("delete", push_two, lambda bench: is_gone(bench) or void(bench.open().delete("m:1")), is_gone),
    Scenario("undelete", delete_one, lambda bench: void(bench.open().undelete("m:1")), is_restored),
    Scenario("gc", litter, lambda bench: collect(bench.open()), lambda bench: True),
]


def void(_: object) -> None:
    """Nothing: what a command returned does not matter here."""


def check_whole(bench: Bench, what: str) -> None:
    """Every version that is found has all its bytes; every alias points to one that is found."""
    registry = bench.open()
    for label in registry.labels("m"):
        findings = registry.verify(f"m:{label}")
        assert not findings, f"{what}: m:{label}: {findings}"
    for alias in registry.aliases("m"):
        registry.resolve(f"m@{alias}")


def check_clean(bench: Bench, what: str) -> None:
    """After a collection there is nothing but what versions need."""
    registry = bench.open()
    store = registry._store
    needed = {registry.resolve(f"m:{label}").digest for label in registry.labels("m")}
    trees = set(store.list_folders("m/trees/"))
    assert trees == needed, f"{what}: trees {trees ^ needed}"
    for folder in ("m/guards/", "m/staging/", ".longshore/probes/"):
        assert not list(store.list_tree(folder)), f"{what}: {folder} is not empty"
    assert not list(store.list_unfinished()), f"{what}: something unfinished is left"


def run_and_kill(bench: Bench, scenario: Scenario, point: int, arm: Callable[[Bench, int], None]) -> bool:
    """Run the scenario's act in a process that dies at the point; returns whether it did."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            arm(bench, point)
            scenario.act(bench)
            code = 0
        except BaseException as error:
            print(f"{scenario.name} at {point}: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.WEXITSTATUS(status) == 0, f"{scenario.name}, point {point}, failed by itself"
    return killed


def kill_at_call(bench: Bench, point: int) -> None:
    """Die before the `point`-th call that touches the registry's folder."""
    calls, prefix = itertools.count(1), str(bench.folder)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and any(prefix in str(argument) for argument in arguments[:2]) and next(calls) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def kill_at_request(bench: Bench, point: int) -> None:
    """Die before the request of that number when the point is odd, after its answer when it is even."""
    from botocore.httpsession import URLLib3Session

    calls, send = itertools.count(1), URLLib3Session.send

    def count(session: URLLib3Session, request: object) -> object:
        number = next(calls)
        if 2 * number - 1 == point:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = send(session, request)
        if 2 * number == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    URLLib3Session.send = count  # type: ignore[method-assign]


def judge(bench: Bench, scenario: Scenario, point: int) -> None:
    """What the kill has left is whole, running it again finishes it, a collection clears up, be it before or after that."""
    what = f"{scenario.name} killed at {point}"
    check_whole(bench, what)
    bench.age()
    if point % 3 == 0:
        collect(bench.open())
        check_clean(bench, f"{what}, collected")
    if scenario.name != "undelete" or point % 3:  # what was collected does not come back
        scenario.act(bench)
        assert scenario.finished(bench), f"{what}: running it again does not finish it"
    check_whole(bench, f"{what}, run again")
    bench.age()
    collect(bench.open())
    check_whole(bench, f"{what}, run again, collected")
    check_clean(bench, f"{what}, run again, collected")


def run_scenario(scenario: Scenario, make_bench: Callable[[str], Bench], arm: Callable[[Bench, int], None], stride: int) -> int:
    before = make_bench(f"{scenario.name}-before")
    scenario.prepare(before)
    for points, point in enumerate(itertools.count(1 + len(scenario.name) % stride, stride)):
        bench = make_bench(f"{scenario.name}-{point}")
        bench.copy_from(before)
        killed = run_and_kill(bench, scenario, point, arm)
        judge(bench, scenario, point)
        bench.remove()
        if not killed:
            return points
    raise AssertionError


def main(kind: str, folder: Path, stride: int, names: str, bucket: str = "", server: str = "") -> None:
    models = [make_model(folder / f"model-{seed}", seed=seed, shards=1) for seed in range(4)]
    other = (folder / "other").as_uri()
    Registry(other, identity="ben").push(models[3], "m:9")

    def in_folder(name: str) -> Bench:
        place = folder / "registries" / name
        return Bench(place.as_uri(), place, None, models, other)

    def in_bucket(name: str) -> Bench:
        data, metadata = (Path(server) / part / bucket / name for part in ("data", "meta"))
        return Bench(f"s3://{bucket}/{name}", data, metadata, models, other)

    points = {}
    for scenario in SCENARIOS:
        if names != "all" and scenario.name not in names.split(","):
            continue
        if kind == "file":
            points[scenario.name] = run_scenario(scenario, in_folder, kill_at_call, stride)
        else:
            points[scenario.name] = run_scenario(scenario, in_bucket, kill_at_request, stride)
    print(sum(points.values()), points)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
