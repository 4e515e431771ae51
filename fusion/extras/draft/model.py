"""The draft model: one layer that reads the target's last hidden states and the tokens chosen after them.

At place t it knows the target's hidden state f_t and the embedding e of the token that was chosen from it, and says two things
of place t + 1: a state that the target's own frozen head turns into a distribution (`predict`), and a guess of the hidden state
itself (`regress`), which it reads in place of the target's at its next step.

Source: FSPAD, Gui et al. 2024, arXiv:2408.15562, on EAGLE-2 (Li et al. 2024, arXiv:2406.16858). Details of the layer (bias-free
projections, SiLU, rotary positions, one head width for all) are those of a Llama layer, a guess for other targets.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from fusion.core.text_files import read_object

WEIGHTS, SHAPE = "draft.safetensors", "draft.json"


@dataclass(frozen=True)
class DraftShape:
    """Sizes of a draft's layer."""

    width: int
    """Of the target's hidden states."""
    heads: int
    inner: int
    """Of both gated layers."""
    theta: float = 10000.0
    """Base of the rotary positions."""

    @classmethod
    def from_target(cls, target: Any) -> DraftShape:
        """One layer of the target's own sizes, where its configuration tells them. Head width is even, for rotations."""
        config, width = target.config.get_text_config(), target.get_input_embeddings().weight.shape[1]
        heads = getattr(config, "num_attention_heads", None) or 1
        heads = heads if width % (2 * heads) == 0 else 1
        inner = getattr(config, "intermediate_size", None) or 4 * width
        return cls(width, heads, int(inner))


class Draft(nn.Module):
    """The draft described above. It holds no weights of the target."""

    def __init__(self, shape: DraftShape):
        super().__init__()
        d, m = shape.width, shape.inner
        self.shape = shape
        self.mix = nn.Linear(2 * d, d)
        self.sample_norm, self.attention_norm, self.out_norm = (nn.RMSNorm(d, eps=1e-6) for _ in range(3))
        self.sample_gate, self.sample_up = (nn.Linear(d, m, bias=False) for _ in range(2))
        self.sample_down = nn.Linear(m, d, bias=False)
        self.query, self.key, self.value, self.project = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(d, m, bias=False) for _ in range(2))
        self.down = nn.Linear(m, 2 * d, bias=False)

    def forward(
        self, embedded: Float[Tensor, "B T D"], features: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T D"]]:
        """`predict` and `regress` of the place after each. No place sees a later one, so padding on the right is harmless."""
        mixed = self.mix(torch.cat([embedded, features], dim=-1))
        # feature sampling: the token that was really chosen says which of the feature's many meanings holds
        h = mixed + self.sample_down(silu(self.sample_gate(embedded)) * self.sample_up(self.sample_norm(mixed)))
        h = h + self._attend(self.attention_norm(h))
        inner = self.out_norm(h)
        # partial alignment: one half answers for the distribution, the other for the state, each with the residual
        predict, regress = self.down(silu(self.gate(inner)) * self.up(inner)).chunk(2, dim=-1)
        return h + predict, h + regress

    def _attend(self, h: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = (
            layer(h).unflatten(-1, (self.shape.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        seen = scaled_dot_product_attention(
            rotated(q, self.shape.theta), rotated(k, self.shape.theta), v, is_causal=True
        )
        return self.project(seen.transpose(1, 2).flatten(-2))


def rotated(x: Float[Tensor, "B A T C"], theta: float) -> Float[Tensor, "B A T C"]:
    """Pairs of entries turned by angles that grow with the place: products of two depend on their distance alone."""
    half = x.shape[-1] // 2
    speed = theta ** -(torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * speed
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    one, two = x[..., :half], x[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)


def save(draft: Draft, folder: Path, **metadata: Any) -> None:
    """Write a draft into a folder, with metadata that JSON can hold."""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in draft.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    (folder / SHAPE).write_text(json.dumps({"shape": asdict(draft.shape), **metadata}, indent=1))


def load(folder: Path) -> Draft:
    """The draft in a folder, in evaluation mode. Raises FileNotFoundError where there is none."""
    if not (folder / SHAPE).is_file():
        raise FileNotFoundError(
            f"{folder} holds no draft model (no {SHAPE}); `fusion draft MODEL --out {folder}` makes one."
        )
    draft = Draft(DraftShape(**read_object(folder / SHAPE)["shape"]))
    draft.load_state_dict(load_file(folder / WEIGHTS))
    return draft.eval()
