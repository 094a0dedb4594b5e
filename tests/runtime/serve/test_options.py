from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore_runtime.errors import LongshoreError
from longshore_runtime.serve.options import flatten, group_options, merge_options

names = st.sampled_from(["--a", "--b", "--c-d", "--no-a", "--c_d=1"])
layers = st.lists(st.tuples(names, st.lists(st.sampled_from(["x", "1", "-1"]), max_size=2)), max_size=5).map(
    lambda options: [token for name, values in options for token in (name, *values)]
)


@given(layers)
def test_grouping_loses_nothing(tokens: list[str]) -> None:
    assert flatten(group_options(tokens)) == tokens


@given(layers, layers)
def test_the_later_layer_wins_whole(first: list[str], second: list[str]) -> None:
    one, two = group_options(first), group_options(second)
    merged = merge_options(one, two)
    said = {option.name for option in two}
    assert [option for option in merged if option.name in said] == two
    assert [option for option in merged if option.name not in said] == [option for option in one if option.name not in said]


@pytest.mark.parametrize("spelling", ["--enforce-eager", "--enforce_eager", "--no-enforce-eager", "--enforce-eager=1"])
def test_spellings_of_one_option_have_one_name(spelling: str) -> None:
    assert group_options([spelling])[0].name == "enforce-eager"


def test_a_value_without_an_option_is_refused() -> None:
    with pytest.raises(LongshoreError, match="'1024' does not follow an option"):
        group_options(["1024"])
