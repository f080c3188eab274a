"""The network: a Llama-style decoder (RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied head)."""
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass
class Shape:
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 768
    vocabulary: int = 1536
    rope_base: float = 10000.0
    epsilon: float = 1e-5

    @property
    def head_dim(self):
        return self.hidden // self.heads


def rotate(x, cos, sin):
    """x is (B, H, T, D); pairs are (i, i + D/2), quick here; `export.py` reorders rows to GGUF's interleaved llama layout."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Linear(nn.Linear):
    """Weights stay float32 for the optimiser; the product runs in the activations' type."""

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype))


class RMSNorm(nn.RMSNorm):
    def forward(self, x):
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Layer(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.shape = s
        kv = s.kv_heads * s.head_dim
        self.attn_norm = RMSNorm(s.hidden, eps=s.epsilon)
        self.qkv = Linear(s.hidden, s.hidden + 2 * kv, bias=False)
        self.out = Linear(s.hidden, s.hidden, bias=False)
        self.ffn_norm = RMSNorm(s.hidden, eps=s.epsilon)
        self.gate_up = Linear(s.hidden, 2 * s.ffn, bias=False)
        self.down = Linear(s.ffn, s.hidden, bias=False)

    def forward(self, x, cos, sin, mask):
        s = self.shape
        batch, length, _ = x.shape
        kv = s.kv_heads * s.head_dim
        q, k, v = self.qkv(self.attn_norm(x)).split((s.hidden, kv, kv), dim=-1)
        q = rotate(q.view(batch, length, s.heads, s.head_dim).transpose(1, 2), cos, sin)
        k = rotate(k.view(batch, length, s.kv_heads, s.head_dim).transpose(1, 2), cos, sin)
        v = v.view(batch, length, s.kv_heads, s.head_dim).transpose(1, 2)
        repeat = s.heads // s.kv_heads
        # Queries of one group share their keys: (B, KV, repeat * T, D). Plain products beat the fused CPU kernel's backward pass.
        q = q.reshape(batch, s.kv_heads, repeat * length, s.head_dim)
        scores = (q * s.head_dim**-0.5) @ k.mT
        scores = (scores.view(batch, s.kv_heads, repeat, length, length) + mask[:, None]).softmax(-1)
        y = (scores.view(batch, s.kv_heads, repeat * length, length) @ v).view(batch, s.heads, length, s.head_dim)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, s.hidden))
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Decoder(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden, eps=shape.epsilon)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                scale = 0.02 if "embed" in name else p.shape[1] ** -0.5 * 0.8
                if name.endswith(("out.weight", "down.weight")):
                    scale /= math.sqrt(2 * shape.layers)
                nn.init.normal_(p, std=scale)

    def tables(self, positions):
        """cos, sin as (B, 1, T, D/2) for positions (B, T)."""
        half = self.shape.head_dim // 2
        inverse = self.shape.rope_base ** (-torch.arange(half, dtype=torch.float32, device=positions.device) / half)
        angle = positions[:, None, :, None].float() * inverse
        return angle.cos(), angle.sin()

    def forward(self, ids, positions, mask, dtype):
        cos, sin = (t.to(dtype) for t in self.tables(positions))
        x = self.embed(ids).to(dtype)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.norm(x)


def event_mask(segments, dtype):
    """Additive mask (B, 1, T, T): causal, and an event sees the site's prefix (segment 0) and itself only."""
    length = segments.shape[1]
    q, k = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    allowed = causal & ((k == 0) | (k == q))
    return torch.zeros(allowed.shape, dtype=dtype, device=segments.device).masked_fill(~allowed, float("-inf"))[:, None]
