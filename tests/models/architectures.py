"""Every causal architecture of transformers, tiny: built from its configuration class."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

WINDOW = 16  # tokens that a layer sees where it has a window
CONTEXT = 128
NAMES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
NOT_BUILT = {
    "gemma3n": "its vision tower needs timm; its text model is gemma3n_text",
    "gemma4_assistant": "drafts for another model, from that model's hidden states",
    "gemma4_unified_assistant": "drafts for another model, from that model's hidden states",
    "musicgen": "continues music, from codebooks",
    "musicgen_melody": "continues music, from codebooks",
}
_SIZES = {
    32: "hidden_size n_embd d_model emb_dim embedding_size word_embed_proj_dim embedding_dim "
    "input_embedding_size output_embedding_size mamba_d_ssm lru_width attention_hidden_size "
    "hidden_size_global",
    48: "intermediate_size intermediate_size_mlp dense_intermediate_size feed_forward_size dff "
    "ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner dim_ff ffn_hidden_size d_inner",
    WINDOW: "sliding_window sliding_window_size window_size attention_window_size local_attention "
    "attention_chunk_size moe_intermediate_size shared_expert_intermediate_size kv_lora_rank "
    "shared_intermediate_size moe_shared_expert_intermediate_size expert_ffn_hidden_size "
    "shared_experts_intermediate_size q_lora_rank router_hidden_size mamba_d_head mamba_headdim "
    "mamba_head_dim index_n_heads qk_head_dim",
    8: "head_dim kv_channels d_head dim_head attention_head_size attention_head_dim v_head_dim "
    "qk_nope_head_dim qk_rope_head_dim linear_key_head_dim linear_value_head_dim linear_head_dim "
    "mamba_d_state mamba_chunk_size chunk_size state_size ssm_state_size query_pre_attn_scalar "
    "index_head_dim index_topk",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads attention_heads "
    "encoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads num_experts "
    "num_local_experts n_routed_experts moe_num_experts linear_num_value_heads linear_num_heads "
    "mamba_n_heads mamba_num_heads mamba_dt_rank time_step_rank rotary_dim laurel_rank "
    "hidden_size_per_layer_input",
    2: "num_key_value_heads num_experts_per_tok num_experts_per_token moe_topk moe_k "
    "linear_num_key_heads n_mamba_heads num_hidden_layers n_layer n_layers num_layers "
    "decoder_layers encoder_layers num_encoder_layers num_decoder_layers",
    1: "n_group n_groups topk_group num_expert_group mamba_n_groups mamba_ngroups "
    "first_k_dense_replace num_dense_layers n_shared_experts max_window_layers eos_token_id",
    0: "pad_token_id bos_token_id",
    CONTEXT: "max_position_embeddings n_positions n_ctx max_seq_len context_length "
    "max_target_positions",
}
_SIZE_OF = {name: size for size, names in _SIZES.items() for name in names.split()}
_SIZE_OF |= {"is_decoder": True, "use_sliding_window": True}
_KINDS = ("layer_types", "mlp_layer_types", "layers_block_type", "block_types", "indexer_types")
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_LINEAR_AND_FULL = {"layer_types": ["linear_attention", "full_attention"]}
_HYBRID = {
    "num_hidden_layers": 4,
    "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
}
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_QWEN4 = {  # sparse attention by blocks, and embeddings of n-grams
    **{"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8},
    **{"indexer_compress_ratio": 2, "ple_layer_ids": [1], "ple_embed_dim": 32},
    **{"ngram_vocab_size_base": 50, "heads_per_ngram": 2, "split_ngram_parts": 1},
    "make_ngram_vocab_size_divisible_by": 8,
}
_DOTS3 = {"head_dim": 16, "per_layer_config": {}}
_MORE: dict[str, dict[str, Any]] = {  # what the sizes do not say, or what fits together otherwise
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 50},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": _ROPE, "full_attention": _ROPE},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 16, "moe_top_k": 2},
    },
    "dots3_note": {
        "text_config": _DOTS3,
        "vision_config": {
            **{"adapter_in_dim": 32, "adapter_out_dim": 32},
            "mlp_layer_types": ["dense", "sparse"],
        },
        "audio_config": {
            **{"adapter_input_size": 32, "adapter_out_dim": 32},
            **{"downsample_hidden_size": 8, "feature_size": 8},
        },
    },
    "dots3_note_text": _DOTS3,
    "falcon_h1": {"mamba_d_head": 8},
    "gemma3n_text": {
        **{"num_hidden_layers": 4, "num_kv_shared_layers": 2},
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": _LINEAR_AND_FULL,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"head_dim": 16},
    "qwen4_exp": {"text_config": _QWEN4},
    "qwen4_exp_text": _QWEN4,
    "reformer": {
        **{"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 16]},
        **{"attn_layers": ["local", "lsh"], "num_buckets": 4, "hash_seed": 0},
    },
    "roc_bert": {
        **{"pronunciation_embed_dim": 8, "pronunciation_vocab_size": 50},
        **{"shape_embed_dim": 8, "shape_vocab_size": 50},
    },
    "xlstm": {"chunk_size": 16, "num_heads": 2},
    "xmod": {"default_language": "en_XX"},
    "zamba": _HYBRID | {"attention_head_dim": 16, "attention_hidden_size": 64},
    "zamba2": _HYBRID | {"adapter_rank": 4},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny(name: str, vocabulary: int) -> PreTrainedModel:
    """A model of an architecture: fp32, a layer of each kind, weights so large that each tells."""
    kind = CONFIG_MAPPING[name]
    config = kind(**_merged(_sized(kind(), vocabulary), _MORE.get(name, {})))
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    assert parameters < 10e6, f"{name} has {parameters} parameters: name its sizes"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


def _sized(config: PreTrainedConfig, vocabulary: int) -> dict[str, Any]:
    """The small sizes of what a configuration has, and of the configurations in it."""
    names = {field.name for field in fields(config)}
    sizes = {name: size for name, size in _SIZE_OF.items() if name in names}
    sizes |= {name: vocabulary for name in names if name.startswith("vocab_size")}
    if "kv_lora_rank" in names:  # keys and values of all heads are made from a few numbers
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    listed = {name: list(dict.fromkeys(vars(config).get(name) or ())) for name in _KINDS}
    if depth := max(map(len, listed.values())):
        depth = max(depth, 2)
        sizes |= {name: (kinds * depth)[:depth] for name, kinds in listed.items() if kinds}
        sizes |= {name: depth for name in _DEPTHS if name in names}
    inner = {n: c for n, c in vars(config).items() if isinstance(c, PreTrainedConfig)}
    return sizes | {name: _sized(part, vocabulary) for name, part in inner.items()}


def _merged(sizes: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    both = {n for n in more if isinstance(more[n], dict) and isinstance(sizes.get(n), dict)}
    return sizes | more | {name: _merged(sizes[name], more[name]) for name in both}
