from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.reference import Reference, parse_reference
from longshore_runtime.errors import LongshoreError

DIGEST = "0123456789abcdef" * 4
models = st.from_regex(r"([a-z0-9]{1,5}/)?[a-z0-9]([-a-z0-9.]{0,9}[a-z0-9])?", fullmatch=True).filter(
    lambda name: not {"versions", "aliases", "trees", "signatures", "events"} & set(name.split("/"))
)
labels = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,9}[A-Za-z0-9])?", fullmatch=True)


@given(models, labels, st.sampled_from(["", "version", "alias", "digest"]))
def test_what_is_written_is_read_again(model: str, label: str, kind: str) -> None:
    fields = {kind: DIGEST if kind == "digest" else label} if kind else {}
    reference = Reference(model, **fields)
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=30))
def test_any_text_is_a_reference_or_an_error_with_advice(text: str) -> None:
    try:
        read = str(parse_reference(text))
    except LongshoreError as error:
        read = text if error.hint else "no advice"
    assert read == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Model",
        "a/b/c",
        "/a",
        "a/",
        "-a",
        "a-",
        "a_b",
        "../a",
        "a:",
        "a@",
        "a:b:c",
        "a:b@c",
        "a@b:c",
        "a:../b",
        "a:b/c",
        "a@sha256:",
        "a@sha256:0123",
        f"a@sha256:{DIGEST.upper()}",
        "versions",
        "team/trees",
        "x" * 64,
        "a:" + "x" * 64,
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(LongshoreError):
        parse_reference(text)
