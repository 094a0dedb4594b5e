from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.fleet.names import HOST_LIMIT, label_value, service_name
from longshore_runtime.errors import LongshoreError

models = st.from_regex(r"([a-z0-9]{1,20}/)?[a-z0-9]([-a-z0-9.]{0,30}[a-z0-9])?", fullmatch=True)
labels = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,60}[A-Za-z0-9])?", fullmatch=True)
namespaces = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)


@given(models, labels, namespaces)
def test_every_version_has_a_legal_name(model: str, version: str, namespace: str) -> None:
    name = service_name(model, version, namespace)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(f"{name}-predictor-{namespace}") <= HOST_LIMIT


@given(st.tuples(models, labels), st.tuples(models, labels))
def test_two_versions_never_share_a_name(first: tuple[str, str], second: tuple[str, str]) -> None:
    if first != second:
        assert service_name(*first, "default") != service_name(*second, "default")


@pytest.mark.parametrize(
    ("model", "version", "name"),
    [
        ("smollm2", "1", "smollm2-1"),
        ("llama-3", "7", "llama-3-7"),
        ("llama", "3-7", "llama-3-7-d853895e"),
        ("llama3.1", "v1.2", "llama3-1-v1-2-6752d9f8"),
        ("4bit", "1", "m-4bit-1-fa9b7cc8"),
    ],
)
def test_names_are_plain_where_they_can_be(model: str, version: str, name: str) -> None:
    assert service_name(model, version, "default") == name


def test_a_namespace_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(LongshoreError, match="too long"):
        service_name("m", "1", "n" * 63)


def test_labels_tell_a_namespace_from_a_dot() -> None:
    assert len({label_value("a/b"), label_value("a.b"), label_value("a-b")}) == 3
