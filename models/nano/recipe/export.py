"""Write the trained weights as a GGUF file that Ganglion and llama.cpp read.

usage: export.py CHECKPOINT OUT.gguf [--type q8_0|f32]     (needs PyPI: torch, numpy, gguf)
"""
import argparse
from pathlib import Path

import gguf
import numpy as np
import torch

from vocabulary import Vocabulary
from weights import to_gguf

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("checkpoint")
parser.add_argument("out")
parser.add_argument("--type", choices=("q8_0", "f32"), default="q8_0")
a = parser.parse_args()
saved = torch.load(a.checkpoint, map_location="cpu")
weights = {k: v.float().numpy() for k, v in saved["model"].items()}
shape = saved["shape"]
vocabulary = Vocabulary.load(Path(__file__).resolve().parent.parent / "vocabulary.json")

w = gguf.GGUFWriter(a.out, "llama")
w.add_name("ganglion-nano")
w.add_description("Sentences and sensor events to commands of any site; trained from scratch for Ganglion")
w.add_license("apache-2.0")
w.add_string("ganglion.prompt_form", "ganglion-1")
w.add_uint64("ganglion.training_tokens", saved["tokens"])
w.add_context_length(2048)
w.add_embedding_length(shape["hidden"])
w.add_block_count(shape["layers"])
w.add_feed_forward_length(shape["ffn"])
w.add_head_count(shape["heads"])
w.add_head_count_kv(shape["kv_heads"])
w.add_layer_norm_rms_eps(shape["epsilon"])
w.add_rope_dimension_count(shape["hidden"] // shape["heads"])
w.add_rope_freq_base(shape["rope_base"])
w.add_vocab_size(shape["vocabulary"])
w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if a.type == "q8_0" else gguf.LlamaFileType.ALL_F32)
w.add_tokenizer_model("gpt2")
w.add_tokenizer_pre("gpt-2")
w.add_token_list(vocabulary.tokens)
w.add_token_types([gguf.TokenType.CONTROL if t in ("<bos>", "<eos>") else gguf.TokenType.NORMAL for t in vocabulary.tokens])
w.add_token_merges([f"{x} {y}" for x, y in vocabulary.merges])
w.add_bos_token_id(vocabulary.bos)
w.add_eos_token_id(vocabulary.eos)
w.add_add_bos_token(True)


def add(name, value):
    if value.ndim == 1 or a.type == "f32":
        w.add_tensor(name, np.ascontiguousarray(value, dtype=np.float32))
    else:
        packed = gguf.quants.quantize(np.ascontiguousarray(value, dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
        w.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)


for name, value in to_gguf(weights, shape):
    add(name, value)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
print(a.out, Path(a.out).stat().st_size, "bytes")
