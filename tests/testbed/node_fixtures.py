"""pytest's way to the node and its images, as a plugin: `testbed.node_fixtures` in the top conftest.py.

A machine that cannot run a node, or build its images, skips the tests that want one and says what is missing; in CI that is
a failure.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from longshore import __version__
from testbed import images
from testbed import node as real
from testbed.build import BuildFailed, Missing
from testbed.fixtures import do_without


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "node: runs pods on a real node, as root (set by itself on tests that use one)")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _wants(item, "node"):
            item.add_marker("node")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: the first build takes minutes, which no test's time limit should count."""
    if session.config.option.collectonly or not any(_wants(item, "node") or _wants(item, "image") for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    visible = capture.global_and_fixture_disabled() if capture else contextlib.nullcontext()
    with visible, contextlib.suppress(Missing, BuildFailed):  # the fixtures meet them again, and report them
        real.build()
        images.archives(images.SERVED, __version__)


@pytest.fixture(scope="session")
def image() -> images.Image:
    """The storage initializer's image."""
    try:
        return images.archive("storage-initializer", __version__)
    except Missing as missing:
        do_without(str(missing))


@pytest.fixture
def node_can_run() -> None:
    """For tests that start a node themselves."""
    try:
        real.build()
    except Missing as missing:
        do_without(str(missing))


@pytest.fixture(scope="module")
def node() -> Iterator[real.Node]:
    """A cluster with KServe, one real node and our images on it; `longshore render --images` takes their `TAG_PREFIX`.

    One for each module: a machine can have one at a time, and what runs on it wants all of the machine.
    """
    try:
        real.build()
        cluster = real.Node(images.archives(images.SERVED, __version__))
    except Missing as missing:
        do_without(str(missing))
    with cluster:
        yield cluster


@pytest.fixture
def node_namespace(node: real.Node) -> Iterator[str]:
    """A fresh namespace on the node's cluster; gone, with its pods, before the next test wants the machine's cores."""
    name = f"test-{os.urandom(4).hex()}"
    node.kubectl("create", "namespace", name)
    yield name
    node.kubectl("delete", "inferenceservices", "--all", f"--namespace={name}")
    node.kubectl("delete", "pods", "--all", f"--namespace={name}", "--timeout=110s", timeout=120)
    node.kubectl("delete", "namespace", name, "--wait=false")


def _wants(item: pytest.Item, fixture: str) -> bool:
    return fixture in getattr(item, "fixturenames", ())
