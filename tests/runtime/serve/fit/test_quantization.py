from __future__ import annotations

from typing import Any

import pytest

from longshore_runtime.serve.fit.config import Config
from longshore_runtime.serve.fit.geometry import Quantization
from longshore_runtime.serve.fit.quantization import read_quantization

INT4 = {"num_bits": 4, "group_size": 128, "type": "int", "strategy": "group"}
FLOAT8 = {"num_bits": 8, "type": "float", "strategy": "channel"}


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, Quantization("awq", 4 + 20 / 128, 128)),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1, "desc_act": True}, Quantization("gptq", 8.0)),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, Quantization("fp8", 8.0, 128)),
        ({"quant_method": "fbgemm_fp8"}, Quantization("fbgemm_fp8", 8.0)),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, Quantization("mxfp4", 4.25)),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, Quantization("bitsandbytes", 4.5)),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, Quantization("bitsandbytes", 8.0)),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": INT4}}},
            Quantization("compressed-tensors", 4.125, 128),
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": FLOAT8}}},
            Quantization("compressed-tensors", 8.0),
        ),
        ({"quant_method": "compressed_tensors"}, Quantization("compressed-tensors", 8.0)),
        ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}, Quantization("modelopt_fp4", 4.5)),
        ({"quant_method": "something-new"}, Quantization("something-new", 8.0)),
        ({"strange": 1}, Quantization("unknown", 8.0)),
    ],
)
def test_methods_as_config_json_writes_them(written: dict[str, Any], found: Quantization) -> None:
    assert read_quantization(Config({"quantization_config": written})) == found
    assert read_quantization(Config({"text_config": {"quantization_config": written}})) == found


def test_plain_weights_are_not_packed() -> None:
    assert read_quantization(Config({"torch_dtype": "bfloat16"})) is None
    assert read_quantization(Config({"quantization_config": None})) is None
