"""Several pods that serve one model together, as far as it goes without several pods."""

from __future__ import annotations

import pytest

from longshore_runtime.errors import LongshoreError
from longshore_runtime.serve.group import Group, read_group


def variables(leader: str, size: str, index: str) -> dict[str, str]:
    return {"LWS_LEADER_ADDRESS": leader, "LWS_GROUP_SIZE": size, "LWS_WORKER_INDEX": index, "OTHER": "1"}


def test_a_pod_knows_which_of_its_group_it_is() -> None:
    assert read_group({}) is None
    assert read_group(variables("m-0.m.ns", "1", "0")) is None
    leader, worker = (read_group(variables("m-0.m.ns", "3", index)) for index in ("0", "2"))
    assert (leader, worker) == (Group("m-0.m.ns", 3, 0), Group("m-0.m.ns", 3, 2))
    assert leader
    assert worker
    assert (leader.leads, worker.leads) == (True, False)


@pytest.mark.parametrize(("size", "index"), [("2", "2"), ("2", ""), ("two", "0"), ("2", "-1"), ("0", "0")])
def test_pods_that_are_not_numbered_do_not_start(size: str, index: str) -> None:
    with pytest.raises(
        LongshoreError, match=f"are not numbered: .*LWS_GROUP_SIZE='{size}', LWS_WORKER_INDEX='{index}'; set all"
    ):
        read_group(variables("m-0.m.ns", size, index))
