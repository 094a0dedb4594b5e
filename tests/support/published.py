"""Well-known models as their makers published them: the hyper-parameters of each model card's config.json, typed in by hand.

`total` is the count of parameters that the hub shows for the safetensors of the model, or the exact sum of the model
card; where only rounded figures are published (in billions), those. `cache` is bytes per token in 16 bits, reckoned by
hand from the same card (2 × layers that remember everything × KV heads × head size × 2); those of DeepSeek-V3, Qwen2.5-72B
and Llama-3.1-405B are printed in arXiv 2505.09343, table 1. `gpus` is what the fit should choose, by kind of GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from longshore_runtime.serve.fit.config import Config
from longshore_runtime.serve.fit.geometry import Geometry
from longshore_runtime.serve.fit.reading import make_geometry

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
MXFP4 = {"quant_method": "mxfp4"}


@dataclass(frozen=True)
class Published:
    """`active` in billions as published, with (`embeds`) or without the embedding's parameters."""

    card: str
    config: dict[str, Any]
    total: float
    cache: int
    active: float = 0.0
    embeds: bool = True
    gpus: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.card.partition("/")[2]

    def geometry(self) -> Geometry:
        return make_geometry(Config(self.config))


def dense(model_type: str, architecture: str, shape: tuple[int, ...], **more: Any) -> dict[str, Any]:
    """A config.json: `shape` is hidden, intermediate, layers, heads, KV heads, vocabulary, context."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    values = dict(zip((*names, "vocab_size", "max_position_embeddings"), shape, strict=True))
    base = {"architectures": [architecture], "model_type": model_type, "torch_dtype": "bfloat16", "tie_word_embeddings": False}
    return base | values | more


def llama(*shape: int, **more: Any) -> dict[str, Any]:
    return dense("llama", "LlamaForCausalLM", shape, **more)


def qwen2(*shape: int, **more: Any) -> dict[str, Any]:
    return dense("qwen2", "Qwen2ForCausalLM", shape, use_sliding_window=False, sliding_window=131072, **more)


def qwen3(*shape: int, **more: Any) -> dict[str, Any]:
    return dense("qwen3", "Qwen3ForCausalLM", shape, head_dim=128, **more)


def qwen3_moe(*shape: int, width: int, **more: Any) -> dict[str, Any]:
    experts = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": width, "decoder_sparse_step": 1}
    return dense("qwen3_moe", "Qwen3MoeForCausalLM", shape, head_dim=128, mlp_only_layers=[], **experts, **more)


def mistral(*shape: int, **more: Any) -> dict[str, Any]:
    return dense("mistral", "MistralForCausalLM", shape, sliding_window=None, **more)


def mixtral(*shape: int) -> dict[str, Any]:
    experts = {"num_local_experts": 8, "num_experts_per_tok": 2}
    return dense("mixtral", "MixtralForCausalLM", shape, sliding_window=None, **experts)


def gemma2(*shape: int, head_dim: int) -> dict[str, Any]:
    config = dense("gemma2", "Gemma2ForCausalLM", shape, head_dim=head_dim, sliding_window=4096)
    return {key: value for key, value in config.items() if key != "tie_word_embeddings"}


def gemma3(*shape: int, head_dim: int, window: int = 1024) -> dict[str, Any]:
    """The language model alone; the larger ones have a tower for images besides."""
    more = {"head_dim": head_dim, "sliding_window": window, "sliding_window_pattern": 6, "tie_word_embeddings": True}
    return dense("gemma3_text", "Gemma3ForCausalLM", shape, **more)


def gpt_oss(layers: int, experts: int) -> dict[str, Any]:
    kinds = ["sliding_attention", "full_attention"] * (layers // 2)
    more = {"head_dim": 64, "num_local_experts": experts, "num_experts_per_tok": 4, "attention_bias": True}
    shape = (2880, 2880, layers, 64, 8, 201088, 131072)
    window = {"sliding_window": 128, "layer_types": kinds, "quantization_config": MXFP4}
    return dense("gpt_oss", "GptOssForCausalLM", shape, **more, **window)


def deepseek(model_type: str, *shape: int, **more: Any) -> dict[str, Any]:
    architecture = {"deepseek_v2": "DeepseekV2ForCausalLM"}.get(model_type, "DeepseekV3ForCausalLM")
    latent = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "moe_layer_freq": 1}
    return dense(model_type, architecture, shape, **latent, **more)


V3 = {"q_lora_rank": 1536, "num_experts_per_tok": 8, "moe_intermediate_size": 2048, "n_shared_experts": 1}

MODELS = (
    Published(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        llama(576, 1536, 30, 9, 3, 49152, 8192, tie_word_embeddings=True),
        134_515_008,
        23_040,
    ),
    Published("meta-llama/Llama-2-70b-hf", llama(8192, 28672, 80, 64, 8, 32000, 4096), 68_976_648_192, 327_680),
    Published(
        "meta-llama/Llama-3.2-1B",
        llama(2048, 8192, 16, 32, 8, 128256, 131072, head_dim=64, tie_word_embeddings=True),
        1_235_814_400,
        32_768,
    ),
    Published(
        "meta-llama/Llama-3.2-3B",
        llama(3072, 8192, 28, 24, 8, 128256, 131072, head_dim=128, tie_word_embeddings=True),
        3_212_749_824,
        114_688,
    ),
    Published("meta-llama/Llama-3.1-8B", llama(4096, 14336, 32, 32, 8, 128256, 131072), 8_030_261_248, 131_072),
    Published("meta-llama/Llama-3.1-70B", llama(8192, 28672, 80, 64, 8, 128256, 131072), 70_553_706_496, 327_680),
    Published("meta-llama/Llama-3.1-405B", llama(16384, 53248, 126, 128, 8, 128256, 131072), 405_853_388_800, 516_096),
    Published("Qwen/Qwen2.5-0.5B", qwen2(896, 4864, 24, 14, 2, 151936, 32768, tie_word_embeddings=True), 494_032_768, 12_288),
    Published("Qwen/Qwen2.5-7B", qwen2(3584, 18944, 28, 28, 4, 152064, 131072), 7_615_616_512, 57_344),
    Published("Qwen/Qwen2.5-14B", qwen2(5120, 13824, 48, 40, 8, 152064, 131072), 14_770_033_664, 196_608),
    Published("Qwen/Qwen2.5-32B", qwen2(5120, 27648, 64, 40, 8, 152064, 131072), 32_763_876_352, 262_144),
    Published("Qwen/Qwen2.5-72B", qwen2(8192, 29568, 80, 64, 8, 152064, 131072), 72_706_203_648, 327_680),
    Published(
        "Qwen/Qwen2.5-72B-Instruct-AWQ", qwen2(8192, 29696, 80, 64, 8, 152064, 32768, quantization_config=AWQ), 72.96e9, 327_680
    ),
    Published("Qwen/Qwen3-0.6B", qwen3(1024, 3072, 28, 16, 8, 151936, 40960, tie_word_embeddings=True), 596_049_920, 114_688),
    Published("Qwen/Qwen3-8B", qwen3(4096, 12288, 36, 32, 8, 151936, 40960), 8_190_735_360, 147_456),
    Published("Qwen/Qwen3-32B", qwen3(5120, 25600, 64, 64, 8, 151936, 40960), 32_762_123_264, 262_144),
    Published("Qwen/Qwen3-30B-A3B", qwen3_moe(2048, 6144, 48, 32, 4, 151936, 40960, width=768), 30_532_122_624, 98_304, 3.3),
    Published(
        "Qwen/Qwen3-235B-A22B", qwen3_moe(4096, 12288, 94, 64, 4, 151936, 40960, width=1536), 235_093_634_560, 192_512, 22
    ),
    Published(
        "Qwen/Qwen3-235B-A22B-FP8",
        qwen3_moe(4096, 12288, 94, 64, 4, 151936, 40960, width=1536, quantization_config=FP8),
        *(235_093_634_560, 192_512, 22),
    ),
    Published("mistralai/Mistral-7B-v0.3", mistral(4096, 14336, 32, 32, 8, 32768, 32768), 7_248_023_552, 131_072),
    Published(
        "mistralai/Mistral-Nemo-Base-2407",
        mistral(5120, 14336, 40, 32, 8, 131072, 131072, head_dim=128),
        12_247_782_400,
        163_840,
    ),
    Published(
        "mistralai/Mistral-Small-24B-Base-2501",
        mistral(5120, 32768, 40, 32, 8, 131072, 32768, head_dim=128),
        23_572_403_200,
        163_840,
    ),
    Published(
        "mistralai/Mistral-Large-Instruct-2407",
        mistral(12288, 28672, 88, 96, 8, 32768, 131072, head_dim=128),
        122_610_069_504,
        360_448,
    ),
    Published("mistralai/Mixtral-8x7B-v0.1", mixtral(4096, 14336, 32, 32, 8, 32000, 32768), 46_702_792_704, 131_072, 12.9),
    Published("mistralai/Mixtral-8x22B-v0.3", mixtral(6144, 16384, 56, 48, 8, 32768, 65536), 140_630_071_296, 229_376, 39),
    Published("google/gemma-2-2b", gemma2(2304, 9216, 26, 8, 4, 256000, 8192, head_dim=256), 2_614_341_888, 53_248),
    Published("google/gemma-2-9b", gemma2(3584, 14336, 42, 16, 8, 256000, 8192, head_dim=256), 9_241_705_984, 172_032),
    Published("google/gemma-2-27b", gemma2(4608, 36864, 46, 32, 16, 256000, 8192, head_dim=128), 27_227_128_320, 188_416),
    Published(
        "google/gemma-3-1b-it", gemma3(1152, 6912, 26, 4, 1, 262144, 32768, head_dim=256, window=512), 999_885_952, 4_096
    ),
    Published("google/gemma-3-27b-it (text)", gemma3(5376, 21504, 62, 32, 16, 262208, 131072, head_dim=128), 27.0e9, 81_920),
    Published(
        "microsoft/Phi-3-mini-128k-instruct",
        dense("phi3", "Phi3ForCausalLM", (3072, 8192, 32, 32, 32, 32064, 131072), sliding_window=262144),
        *(3_821_079_552, 393_216),
    ),
    Published(
        "microsoft/phi-4", dense("phi3", "Phi3ForCausalLM", (5120, 17920, 40, 40, 10, 100352, 16384)), 14_659_507_200, 204_800
    ),
    Published(
        "microsoft/Phi-3.5-MoE-instruct",
        dense(
            *("phimoe", "PhiMoEForCausalLM", (4096, 6400, 32, 32, 8, 32064, 131072)),
            num_local_experts=16,
            num_experts_per_tok=2,
            attention_bias=True,
            lm_head_bias=True,
        ),
        *(41_873_153_344, 131_072, 6.6),
    ),
    Published("openai/gpt-oss-20b", gpt_oss(24, 32), 20_914_757_184, 24_576, 3.61, False),
    Published("openai/gpt-oss-120b", gpt_oss(36, 128), 116_829_156_672, 36_864, 5.13, False),
    Published(
        "deepseek-ai/DeepSeek-V2-Lite",
        deepseek(
            *("deepseek_v2", 2048, 10944, 27, 16, 16, 102400, 163840),
            q_lora_rank=None,
            n_routed_experts=64,
            num_experts_per_tok=6,
            moe_intermediate_size=1408,
            n_shared_experts=2,
            first_k_dense_replace=1,
        ),
        *(15_706_484_224, 31_104, 2.4, False),
    ),
    Published(
        "deepseek-ai/DeepSeek-V3",
        deepseek(
            *("deepseek_v3", 7168, 18432, 61, 128, 128, 129280, 163840),
            **{**V3, "n_routed_experts": 256, "first_k_dense_replace": 3, "quantization_config": FP8},
        ),
        *(671e9, 70_272, 37),
    ),
    Published(
        "moonshotai/Kimi-K2-Instruct",
        deepseek(
            *("kimi_k2", 7168, 18432, 61, 64, 64, 163840, 131072),
            **{**V3, "n_routed_experts": 384, "first_k_dense_replace": 1, "quantization_config": FP8},
        ),
        *(1_026e9, 70_272, 32),
    ),
    Published(
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        dense(
            *("qwen3_next", "Qwen3NextForCausalLM", (2048, 5120, 48, 16, 2, 151936, 262144)),
            head_dim=256,
            num_experts=512,
            num_experts_per_tok=10,
            moe_intermediate_size=512,
            shared_expert_intermediate_size=512,
            full_attention_interval=4,
            decoder_sparse_step=1,
            linear_num_value_heads=32,
            linear_num_key_heads=16,
            linear_key_head_dim=128,
            linear_value_head_dim=128,
            linear_conv_kernel_dim=4,
        ),
        *(79_674_391_296, 24_576, 3.9),
    ),
    Published(
        "CohereForAI/c4ai-command-r-v01",
        {
            key: value
            for key, value in dense("cohere", "CohereForCausalLM", (8192, 22528, 40, 64, 64, 256000, 131072)).items()
            if key[:4] != "tie_"
        },
        *(34_980_831_232, 1_310_720),
    ),
    Published("01-ai/Yi-34B", llama(7168, 20480, 60, 56, 8, 64000, 4096), 34_388_917_248, 245_760),
    Published(
        "allenai/OLMo-2-1124-7B",
        dense("olmo2", "Olmo2ForCausalLM", (4096, 11008, 32, 32, 32, 100352, 4096)),
        7_298_617_344,
        524_288,
    ),
    Published(
        "meta-llama/Llama-4-Scout-17B-16E (text)",
        dense(
            *("llama4_text", "Llama4ForCausalLM", (5120, 8192, 48, 40, 8, 202048, 10485760)),
            head_dim=128,
            intermediate_size_mlp=16384,
            num_local_experts=16,
            num_experts_per_tok=1,
            interleave_moe_layer_step=1,
            attention_chunk_size=8192,
        ),
        *(107.77e9, 49_152, 17),
    ),
)
