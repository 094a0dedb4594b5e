"""pytest's way to the test-bed, as a plugin: `pytest_plugins = ["testbed.fixtures"]` in the top conftest.py.

A machine that cannot have a control plane skips the tests that want one and says what is missing; in CI that is a failure.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from testbed import control_plane as plane
from testbed.build import BuildFailed, Missing
from testbed.cluster import EXISTING, Cluster
from testbed.fake_prometheus import FakePrometheus


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cluster: needs a Kubernetes cluster (set by itself on tests that use one)")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _wants_cluster(item):
            item.add_marker("cluster")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: the first build takes many minutes, which no test's time limit should count."""
    wanted = any(map(_wants_cluster, session.items))
    if not wanted or session.config.option.collectonly or EXISTING in os.environ:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    visible = capture.global_and_fixture_disabled() if capture else contextlib.nullcontext()
    with visible, contextlib.suppress(Missing, BuildFailed):  # the fixture meets them again, and reports them
        plane.build()


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    """A cluster with KServe and KEDA: our own, or the one that LONGSHORE_TEST_KUBECONFIG names."""
    try:
        cluster = plane.open_cluster()
    except Missing as missing:
        do_without(str(missing))
    with cluster:
        yield cluster


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """A fresh namespace, deleted afterwards."""
    name = f"test-{os.urandom(4).hex()}"
    control_plane.kubectl("create", "namespace", name)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def prometheus(control_plane: Cluster) -> Iterator[FakePrometheus]:
    """A Prometheus that says what the test sets, where the cluster can reach it."""
    if not control_plane.on_this_machine:
        pytest.skip(f"the cluster of {EXISTING} cannot reach this machine's loopback")
    with FakePrometheus() as server:
        yield server


def _wants_cluster(item: pytest.Item) -> bool:
    return "control_plane" in getattr(item, "fixturenames", ())


def do_without(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"in CI nothing may be missing: {reason}", pytrace=False)
    pytest.skip(reason)
