from __future__ import annotations

from typing import Any

import pytest

from longshore.cli.placement import read_placement
from longshore_runtime.manifest import ScalingDefaults, Serving

NOTHING = dict.fromkeys(("service_account", "prometheus", "scale_query", "gpus", "least", "most", "scale_on", "scale_target"))
WISH = Serving(gpus=2, scaling=ScalingDefaults(min=2, max=6, metric="cpu", target=50))


@pytest.mark.parametrize(
    ("serving", "options", "expected"),
    [
        (Serving(), {}, (1, 1, 1, "queue", None)),
        (Serving(), {"least": 2}, (1, 2, 2, "queue", None)),
        (Serving(), {"most": 4}, (1, 1, 4, "queue", None)),
        (WISH, {}, (2, 2, 6, "cpu", 50)),
        (WISH, {"gpus": 0}, (0, 2, 6, "cpu", 50)),
        (WISH, {"least": 8}, (2, 8, 8, "cpu", 50)),
        (WISH, {"most": 1}, (2, 1, 1, "cpu", 50)),
        (WISH, {"least": 3, "most": 2}, (2, 3, 2, "cpu", 50)),  # which is for `check_scaling` to refuse
        (WISH, {"scale_on": "queue"}, (2, 2, 6, "queue", None)),
        (WISH, {"scale_target": 60}, (2, 2, 6, "cpu", 60)),
        (Serving(scaling=ScalingDefaults(min=0, max=3)), {}, (1, 0, 3, "queue", None)),
    ],
)
def test_options_override_what_the_version_wishes(
    serving: Serving, options: dict[str, Any], expected: tuple[int, int, int, str, int | None]
) -> None:
    placement = read_placement(serving, **({"namespace": "n", "images": "i"} | NOTHING | options))
    scaling = placement.scaling
    assert (placement.gpus, scaling.least, scaling.most, scaling.signal, scaling.target) == expected
