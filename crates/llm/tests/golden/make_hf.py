#!/usr/bin/env python3
"""Writes tests/golden/hf/<case>/: tiny random models of every architecture as Hugging Face folders, and what
transformers computes with them.

    pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6
    python3 make_hf.py [CASE...]

Each folder holds what a model folder holds (config.json, model.safetensors or shards with their index,
generation_config.json), and beside it
* expected.json: `tokens` (ids of one sequence), `layer_count`, `embedding_length`, `vocab_size`;
* expected.bin: little-endian f32, first the hidden state after each layer (layer, token, value) before the final norm,
  then the logits (token, vocabulary).
Computed in float32 with attn_implementation="eager" from the files as written: a model stored in 16 bits was rounded
before. Names and forms of config.json follow what the hub holds: transformers below 5 wrote `rope_theta` and
`rope_scaling`, 5 writes `rope_parameters`; cases marked "new" keep the latter.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent / "hf"
TOKENS = 24
VOCAB = 96

SIZES = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
)


def rope(theta=10000.0, kind="default", **rest):
    return dict(rope_parameters=dict(rope_theta=theta, rope_type=kind, **rest))


def sizes(**changes):
    found = {**SIZES, **changes}
    return {key: value for key, value in found.items() if value != "absent"}


# name: (config class, settings, stored type, options)
CASES = {
    "llama": ("LlamaConfig", sizes(head_dim=16, **rope()), "float32", {}),
    "llama-bias": (
        "LlamaConfig",
        sizes(head_dim=16, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, **rope()),
        "bfloat16",
        {},
    ),
    "llama-linear": (
        "LlamaConfig",
        sizes(num_key_value_heads=1, tie_word_embeddings=True, **rope(kind="linear", factor=4.0)),
        "bfloat16",
        {},
    ),
    "llama-llama3": (
        "LlamaConfig",
        sizes(
            num_attention_heads=2,
            num_key_value_heads=1,
            **rope(
                500000.0,
                "llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=1024,
            ),
            max_position_embeddings=8192,
        ),
        "bfloat16",
        {},
    ),
    "llama-yarn": (
        "LlamaConfig",
        sizes(
            num_attention_heads=2,
            **rope(
                kind="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=4.0, beta_slow=0.05
            ),
        ),
        "bfloat16",
        {"new": True},
    ),
    "mistral": (
        "MistralConfig",
        sizes(head_dim=16, sliding_window=8, **rope(1000000.0)),
        "bfloat16",
        {},
    ),
    "qwen2": (
        "Qwen2Config",
        sizes(tie_word_embeddings=True, use_sliding_window=False, **rope(1000000.0)),
        "bfloat16",
        {"shards": True},
    ),
    "qwen2-yarn": (
        "Qwen2Config",
        sizes(
            num_attention_heads=2,
            num_key_value_heads=1,
            use_sliding_window=False,
            max_position_embeddings=4096,
            **rope(1000000.0, "yarn", factor=4.0, original_max_position_embeddings=1024),
        ),
        "bfloat16",
        {},
    ),
    "qwen3": ("Qwen3Config", sizes(head_dim=16, tie_word_embeddings=True, **rope(1000000.0)), "float32", {}),
    "phi2": (
        "PhiConfig",
        sizes(
            num_attention_heads=2,
            num_key_value_heads=2,
            layer_norm_eps=1e-5,
            **rope(partial_rotary_factor=0.5),
        ),
        "bfloat16",
        {},
    ),
    "phi3": (
        "Phi3Config",
        sizes(sliding_window=8, original_max_position_embeddings=128, **rope()),
        "bfloat16",
        {},
    ),
    "phi3-longrope": (
        "Phi3Config",
        sizes(
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            original_max_position_embeddings=16,
            **rope(
                kind="longrope",
                partial_rotary_factor=0.75,
                short_factor=[1.0, 1.05, 1.1, 1.2, 1.3, 1.4],
                long_factor=[1.1, 1.5, 2.0, 3.0, 5.0, 7.5],
                original_max_position_embeddings=16,
            ),
        ),
        "bfloat16",
        {},
    ),
    "gemma2": (
        "Gemma2Config",
        sizes(
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=8,
            attn_logit_softcapping=4.0,
            final_logit_softcapping=5.0,
            tie_word_embeddings=True,
            **rope(),
        ),
        "float32",
        {},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        sizes(
            num_hidden_layers=7,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=8,
            tie_word_embeddings=True,
            rope_parameters={
                "full_attention": dict(rope_theta=1000000.0, rope_type="linear", factor=8.0),
                "sliding_attention": dict(rope_theta=10000.0, rope_type="default"),
            },
        ),
        "bfloat16",
        {},
    ),
    "gemma3-scale": (
        "Gemma3TextConfig",
        sizes(
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            query_pre_attn_scalar=24,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
            tie_word_embeddings=True,
            rope_parameters={
                "full_attention": dict(rope_theta=1000000.0, rope_type="default"),
                "sliding_attention": dict(rope_theta=10000.0, rope_type="default"),
            },
        ),
        "bfloat16",
        {"new": True},
    ),
    "gpt2": (
        "GPT2Config",
        dict(
            vocab_size=VOCAB,
            n_positions=64,
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_inner=64,
            bos_token_id=1,
            eos_token_id=2,
            tie_word_embeddings=True,
        ),
        "float32",
        {},
    ),
    "gptneox": (
        "GPTNeoXConfig",
        sizes(
            num_attention_heads=2,
            num_key_value_heads="absent",
            use_parallel_residual=True,
            **rope(partial_rotary_factor=0.25),
        ),
        "float16",
        {},
    ),
    "gptneox-serial": (
        "GPTNeoXConfig",
        sizes(
            num_attention_heads=2,
            num_key_value_heads="absent",
            use_parallel_residual=False,
            hidden_act="gelu",
            **rope(partial_rotary_factor=1.0),
        ),
        "float16",
        {},
    ),
    "olmo2": ("Olmo2Config", sizes(**rope(500000.0)), "bfloat16", {}),
    "olmoe": (
        "OlmoeConfig",
        sizes(
            intermediate_size=32,
            num_key_value_heads=4,
            num_experts=8,
            num_experts_per_tok=2,
            norm_topk_prob=False,
            **rope(),
        ),
        "bfloat16",
        {"shards": True},
    ),
    "qwen2moe": (
        "Qwen2MoeConfig",
        sizes(
            intermediate_size=64,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=64,
            num_experts=4,
            num_experts_per_tok=2,
            norm_topk_prob=False,
            decoder_sparse_step=1,
            mlp_only_layers=[],
            use_sliding_window=False,
            **rope(1000000.0),
        ),
        "bfloat16",
        {},
    ),
}


def randomise(model, generator):
    """Weights large enough for sharp attention, norms around 1 (around 0 where the model adds 1), biases not 0."""
    gemma = "Gemma" in type(model).__name__
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        norm = "norm" in name or ".ln_" in name or "layernorm" in name
        if name.endswith("bias"):
            value = 0.3 * noise
        elif norm:
            value = 0.3 * noise + (0.0 if gemma else 1.0)
        elif parameter.dim() == 1:
            value = 0.3 * noise
        elif "embed" in name or "wte" in name or "wpe" in name:
            value = 0.7 * noise
        else:
            value = noise * (1.5 / parameter.shape[-1] ** 0.5)
        parameter.data.copy_(value)


def old_form(config):
    """`rope_parameters` and `dtype` as transformers below 5 wrote them."""
    config["torch_dtype"] = config.pop("dtype")
    parameters = config.pop("rope_parameters", None)
    if parameters is None:
        return
    if "full_attention" in parameters:
        config["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        parameters = parameters["full_attention"]
        config.pop("layer_types", None)
        config["sliding_window_pattern"] = 6
    parameters = dict(parameters)
    neox = config["model_type"] == "gpt_neox"
    config["rotary_emb_base" if neox else "rope_theta"] = parameters.pop("rope_theta")
    partial = parameters.pop("partial_rotary_factor", None)
    if partial is not None:
        config["rotary_pct" if neox else "partial_rotary_factor"] = partial
    config["rope_scaling"] = None if parameters["rope_type"] == "default" else parameters


def write_model(folder, kind, settings, stored, options, generator):
    config = getattr(transformers, kind)(**settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    randomise(model, generator)
    model = model.to(getattr(torch, stored))
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size="16KB" if options.get("shards") else "5GB")
    if not options.get("new"):
        path = folder / "config.json"
        found = json.loads(path.read_text())
        old_form(found)
        path.write_text(json.dumps(found, indent=2) + "\n")


def expected(folder, generator):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    layers = next(m for n, m in model.named_modules() if n in ("model.layers", "gpt_neox.layers", "transformer.h"))
    states = []
    for layer in layers:
        layer.register_forward_hook(lambda _m, _i, out: states.append(out[0] if isinstance(out, tuple) else out))
    tokens = torch.randint(3, VOCAB, (1, TOKENS), generator=generator)
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits
    # Not a flat distribution, or nothing is tested; and one that depends on the first token too.
    other = tokens.clone()
    other[0, 0] = 3 if int(tokens[0, 0]) != 3 else 4
    with torch.no_grad():
        moved = (model(other, use_cache=False).logits - logits).abs().amax(dim=(0, 2))
    states = [s.reshape(TOKENS, -1).float().numpy() for s in states[: len(layers)]]
    (folder / "expected.bin").write_bytes(
        b"".join(np.ascontiguousarray(s, "<f4").tobytes() for s in [*states, logits[0].numpy()])
    )
    (folder / "expected.json").write_text(
        json.dumps(
            dict(
                layer_count=len(layers),
                embedding_length=states[0].shape[1],
                vocab_size=VOCAB,
                tokens=tokens[0].tolist(),
            )
        )
        + "\n"
    )
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(
        f"{folder.name:16} {size:7} bytes, logits {float(logits.min()):.2f} to {float(logits.max()):.2f}, "
        f"first token moves the last logits by {float(moved[-1]):.3f}"
    )


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for index, (name, (kind, settings, stored, options)) in enumerate(CASES.items()):
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        generator = torch.Generator().manual_seed(1000 + index)
        write_model(HERE / name, kind, settings, stored, options, generator)
        expected(HERE / name, generator)


if __name__ == "__main__":
    main()
