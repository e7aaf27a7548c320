"""The network of the built-in model: a Llama, written so that its tensors are the file's tensors.

Shapes and names follow GGUF's `llama` architecture. Rotary embedding rotates the pairs
(2i, 2i+1), as the `llama` architecture of GGUF does, so that nothing is permuted on export.
The output matrix is the token embedding (tied), so the file holds no `output.weight`.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Config:
    n_vocab: int = 1024
    n_ctx: int = 1024
    d_model: int = 192
    n_layers: int = 4
    n_heads: int = 6
    n_kv_heads: int = 2
    d_ffn: int = 384
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self):
        return self.d_model // self.n_heads

    def to_dict(self):
        return asdict(self)


def rope_tables(config, n_positions):
    """cos and sin, each [n_positions, head_dim / 2]."""
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    angle = torch.outer(torch.arange(n_positions, dtype=torch.float64), config.rope_base**-half)
    return angle.cos().float(), angle.sin().float()


def rotate(x, cos, sin):
    """Rotates the pairs (2i, 2i+1) of x [batch, heads, positions, head_dim]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class RmsNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        d_kv = c.n_kv_heads * c.head_dim
        self.config = c
        self.attn_norm = RmsNorm(c.d_model, c.norm_eps)
        self.attn_q = nn.Linear(c.d_model, c.d_model, bias=False)
        self.attn_k = nn.Linear(c.d_model, d_kv, bias=False)
        self.attn_v = nn.Linear(c.d_model, d_kv, bias=False)
        self.attn_output = nn.Linear(c.d_model, c.d_model, bias=False)
        self.ffn_norm = RmsNorm(c.d_model, c.norm_eps)
        self.ffn_gate = nn.Linear(c.d_model, c.d_ffn, bias=False)
        self.ffn_up = nn.Linear(c.d_model, c.d_ffn, bias=False)
        self.ffn_down = nn.Linear(c.d_ffn, c.d_model, bias=False)

    def forward(self, x, cos, sin, cache=None):
        c, (b, t, _) = self.config, x.shape
        h = self.attn_norm(x)
        q = self.attn_q(h).view(b, t, c.n_heads, c.head_dim).transpose(1, 2)
        k = self.attn_k(h).view(b, t, c.n_kv_heads, c.head_dim).transpose(1, 2)
        v = self.attn_v(h).view(b, t, c.n_kv_heads, c.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            if cache:
                k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
            cache[:] = [k, v]
        group = c.n_heads // c.n_kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
        x = x + self.attn_output(a.transpose(1, 2).reshape(b, t, -1))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Llama(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.token_embd = nn.Embedding(config.n_vocab, config.d_model)
        self.blk = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.output_norm = RmsNorm(config.d_model, config.norm_eps)
        cos, sin = rope_tables(config, config.n_ctx)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        nn.init.normal_(self.token_embd.weight, std=0.05)
        for name, p in self.named_parameters():
            if p.ndim == 2 and "token_embd" not in name:
                nn.init.normal_(p, std=p.shape[1] ** -0.5)
            if name.endswith(("attn_output.weight", "ffn_down.weight")):
                # Residual branches start small, so that depth does not swell the stream.
                p.data.mul_((2 * config.n_layers) ** -0.5)

    def forward(self, ids, caches=None, start=0):
        """ids [batch, positions] -> hidden states after the last norm [batch, positions, d_model]."""
        t = ids.shape[1]
        x = self.token_embd(ids)
        cos, sin = self.cos[start : start + t], self.sin[start : start + t]
        for i, block in enumerate(self.blk):
            x = block(x, cos, sin, None if caches is None else caches[i])
        return self.output_norm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.token_embd.weight)

    @torch.no_grad()
    def generate(self, ids, n_max, stop_ids, temp=0.0, generator=None):
        """One continuation of the list `ids`, greedy when temp is 0; the stop token is not returned."""
        caches = [[] for _ in self.blk]
        out, step = [], torch.tensor([ids])
        position = 0
        while len(out) < n_max and position + step.shape[1] <= self.config.n_ctx:
            logits = self.logits(self(step, caches, position)[:, -1]).float()[0]
            position += step.shape[1]
            if temp > 0:
                token = torch.multinomial(torch.softmax(logits / temp, 0), 1, generator=generator).item()
            else:
                token = logits.argmax().item()
            if token in stop_ids:
                return out, "stop"
            out.append(token)
            step = torch.tensor([[token]])
        return out, "length"
