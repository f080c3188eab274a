"""The network: a Llama-style decoder (RMSNorm, rotary positions, grouped-query attention, SwiGLU, separate head)."""
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
    rope_base: float = 500000.0
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
        self.head = Linear(shape.hidden, shape.vocabulary, bias=False)
        for name, p in self.named_parameters():
            if "embed" in name:
                nn.init.normal_(p)
            elif name.endswith(("out.weight", "down.weight")):
                nn.init.zeros_(p)  # every block starts as the identity
            elif p.dim() == 2:
                nn.init.normal_(p, std=0.8 * p.shape[1] ** -0.5)
        self.start_as_copier()
        self.head.weight.data.copy_(0.05 * self.embed.weight)

    @torch.no_grad()
    def start_as_copier(self):
        """Write an induction circuit into the first two layers (Olsson et al., 2022), which training then refines.

        The job is copying names that were never seen, and a small model finds that circuit only after millions of tokens.
        Layer 0 fetches the tokens one and two places back; layer 1 looks for a place whose predecessor is the present token
        (head group 0), or whose second predecessor is the present predecessor (group 1), and adds the token found there.
        """
        s, e = self.shape, self.embed.weight
        dim, half, group = s.head_dim, s.head_dim // 2, s.heads // s.kv_heads
        theta = s.rope_base ** (-torch.arange(half) / half)
        fast = torch.nonzero(theta > 0.03).flatten()  # these dimensions know distance
        slow = torch.nonzero(theta < 0.002).flatten()  # these know content over a whole context
        constant = 4.0
        e[:, 0] = constant

        def basis():
            full, _ = torch.linalg.qr(torch.randn(s.hidden - 1, s.hidden - 1))
            return torch.cat((torch.zeros(1, s.hidden - 1), full)).T  # orthonormal rows without the constant's column

        rows = basis()
        token = [rows[:dim], rows[:dim]]  # what is fetched: the token's embedding, projected
        place = [rows[dim:2 * dim], rows[2 * dim:3 * dim]]  # where it is kept
        first, second = self.layers[0], self.layers[1]
        kv = s.kv_heads * dim
        k_at, v_at = s.hidden, s.hidden + kv
        for back in range(2):
            amplitude = 6.2 / 3.9
            k = torch.zeros(dim, s.hidden)
            k[fast, 0] = amplitude
            first.qkv.weight[k_at + back * dim:k_at + (back + 1) * dim] = k
            first.qkv.weight[v_at + back * dim:v_at + (back + 1) * dim] = token[back]
            q = torch.zeros(dim, s.hidden)
            q[fast, 0] = amplitude * torch.cos((back + 1) * theta[fast])
            q[fast + half, 0] = -amplitude * torch.sin((back + 1) * theta[fast])
            for head in range(back * group, (back + 1) * group):
                first.qkv.weight[head * dim:(head + 1) * dim] = q
            head = back * group
            first.out.weight[:, head * dim:(head + 1) * dim] = 2.0 * place[back].T
        pairs = torch.cat((slow, slow + half))
        strength = 1.75 * (36 / len(pairs)) ** 0.5
        for which, (query, key) in enumerate(((token[0], place[0]), (place[0], place[1]))):
            q, k = torch.zeros(dim, s.hidden), torch.zeros(dim, s.hidden)
            q[pairs], k[pairs] = strength * query[:len(pairs)], strength * key[:len(pairs)]
            second.qkv.weight[k_at + which * dim:k_at + (which + 1) * dim] = k
            copied = rows[(which * dim):(which + 1) * dim] if which == 0 else rows[-dim:]
            second.qkv.weight[v_at + which * dim:v_at + (which + 1) * dim] = copied
            for head in range(which * group, (which + 1) * group):
                second.qkv.weight[head * dim:(head + 1) * dim] = q
            head = which * group
            second.out.weight[:, head * dim:(head + 1) * dim] = 8.0 * copied.T

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
