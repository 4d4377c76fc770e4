"""The decoder layers of Llama, Mistral and Qwen2 over packed tokens, with LoRAs beside the base weights.

The formulas are those that transformers computes for these families: RMSNorm (Zhang and Sennrich, 2019), rotary positions
(Su et al., 2021), grouped queries (Ainslie et al., 2023), SwiGLU (Shazeer, 2020), LoRA (Hu et al., 2021). Tokens of all
rows stand one behind the other, so that no product is spent on padding; weights are the network's own tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  torch's documentation and users call it so
from torch import Tensor

from service.engine.products import added_product, packed, product

_FAMILIES = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"}
_STATIC_POSITIONS = {"default", "linear", "llama3", "yarn"}  # others depend on how long the longest row is


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer of the base model, weight (out, in), by the name that adapters know it by."""

    name: str
    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class Block:
    """Linear layers of the same input; `joined` is all of them in one, where their weights were laid out anew.

    One product in place of three is asked of a machine's threads once: on a virtual machine to wake them may take as long
    as the product.
    """

    parts: tuple[Linear, ...]
    joined: Linear | None = None

    @property
    def widths(self) -> list[int]:
        return [len(one.weight) for one in self.parts]


@dataclass(frozen=True, slots=True)
class Low:
    """A linear layer's LoRA of rank r.

    Its A is the columns from `start` to `end` of `a` (in, Σ r), which its block's layers share: thin products cost by
    their number. `b` (r, out) has the scaling in it.
    """

    a: Tensor
    start: int
    end: int
    b: Tensor


Lora = Mapping[str, Low]  # by a linear layer's name


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer."""

    attention_norm: Tensor  # (C,)
    qkv: Block
    o: Block
    mlp_norm: Tensor  # (C,)
    gate_up: Block
    down: Block

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self.qkv, self.o, self.gate_up, self.down


@dataclass(frozen=True, slots=True)
class Shape:
    """Heads that ask, groups that share keys and values, and the width of each."""

    heads: int
    groups: int
    width: int
    scale: float
    epsilon: float


@dataclass(frozen=True, slots=True)
class Laid:
    """An adapter over some of the tokens, which stand one behind the other."""

    where: slice
    lora: Lora


@dataclass(frozen=True, slots=True)
class Turns:
    """Cosines and sines of rotary positions for each token, [T, 1, D / 2]: the other half of a head has the same."""

    cos: Tensor
    sin: Tensor

    def at(self, tokens: Tensor) -> Turns:
        return Turns(self.cos[tokens], self.sin[tokens])


class Decoder:
    """A network of transformers, read into the parts that are written out here; its tensors are not copied before `pack`."""

    def __init__(self, network: Any) -> None:
        body, config = network.model, network.config
        attention = body.layers[0].self_attn
        width = int(attention.head_dim)
        groups = attention.k_proj.out_features // width
        epsilon = float(body.norm.variance_epsilon)
        self.shape = Shape(config.num_attention_heads, groups, width, float(attention.scaling), epsilon)
        self.layers = [_layer(layer, f"model.layers.{index}") for index, layer in enumerate(body.layers)]
        self.head = Block((Linear("lm_head", network.lm_head.weight, network.lm_head.bias),))
        self.norm: Tensor = body.norm.weight
        self.embeddings: Tensor = body.embed_tokens.weight
        self.is_packed = False
        self._rotary = body.rotary_emb

    @property
    def blocks(self) -> list[Block]:
        """All that an adapter may be laid over."""
        return [*(block for layer in self.layers for block in layer.blocks), self.head]

    def pack(self) -> None:
        """Lay the linear layers' weights out anew, as products read them fastest: as much memory again, of our own."""
        *others, last = self.layers  # the last one's queries are asked for apart
        self.layers = [*(_packed_layer(one, _packed(one.qkv)) for one in others)]
        self.layers.append(_packed_layer(last, _packed_apart(last.qkv)))
        self.head = _packed(self.head)
        self.is_packed = True

    def turns(self, positions: Tensor) -> Turns:
        """Of the positions [T] of packed tokens."""
        cos, sin = self._rotary(self.embeddings, position_ids=positions[None])
        half = self.shape.width // 2
        return Turns(cos[0, :, None, :half], sin[0, :, None, :half])

    def queries(self, layer: Layer, h: Tensor, turns: Turns, laid: Sequence[Laid]) -> Tensor:
        """h [T, C] to [T, heads, D], turned to their positions."""
        (q,) = products(h, Block(layer.qkv.parts[:1]), laid)
        return turned(q.view(len(h), self.shape.heads, -1), turns)

    def keys_values(self, layer: Layer, h: Tensor, turns: Turns, laid: Sequence[Laid]) -> tuple[Tensor, Tensor]:
        """h [T, C] to keys and values [T, groups, D]; the keys turned."""
        found = products(h, Block(layer.qkv.parts[1:]), laid)
        k, v = (each.view(len(h), self.shape.groups, -1) for each in found)
        return turned(k, turns), v

    def heads(self, layer: Layer, h: Tensor, turns: Turns, laid: Sequence[Laid]) -> tuple[Tensor, Tensor, Tensor]:
        """`queries` and `keys_values` together."""
        q, k, v = (each.view(len(h), -1, self.shape.width) for each in products(h, layer.qkv, laid))
        return turned(q, turns), turned(k, turns), v

    def after_attention(self, layer: Layer, x: Tensor, attended: Tensor, laid: Sequence[Laid]) -> Tensor:
        """x [T, C] and what its heads saw [T, heads × D] to the layer's output. x is not to be read again."""
        x = add_product(x, attended, layer.o, laid)
        h = normed(x, layer.mlp_norm, self.shape.epsilon)
        gate, up = products(h, layer.gate_up, laid)
        return add_product(x, F.silu(gate, inplace=True) * up, layer.down, laid)  # in one piece again

    def logits(self, x: Tensor, laid: Sequence[Laid]) -> Tensor:
        """x [T, C] to [T, vocabulary], in fp32 or wider."""
        (found,) = products(normed(x, self.norm, self.shape.epsilon), self.head, laid)
        return found if found.dtype == torch.float64 else found.float()


def is_known(network: Any) -> bool:
    """Whether each part of a network of transformers is of the shape written out here."""
    config = network.config
    if type(network).__name__ not in _FAMILIES or not type(network).__module__.startswith("transformers.models."):
        return False
    scaling = getattr(config, "rope_parameters", None) or {}
    if config.hidden_act != "silu" or scaling.get("rope_type", "default") not in _STATIC_POSITIONS:
        return False
    inner = (part for layer in network.model.layers for part in layer.modules() if not list(part.children()))
    kinds = {type(part).__name__ for part in inner}
    return kinds <= {"Linear", "SiLUActivation", "SiLU", *(f"{name[:-11]}RMSNorm" for name in _FAMILIES)}


def _layer(layer: Any, name: str) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    qkv, o, gate_up, down = (
        Block(tuple(_linear(parent, f"{name}.{called}", part) for part in parts))
        for parent, called, parts in (
            (attention, "self_attn", ("q_proj", "k_proj", "v_proj")),
            (attention, "self_attn", ("o_proj",)),
            (mlp, "mlp", ("gate_proj", "up_proj")),
            (mlp, "mlp", ("down_proj",)),
        )
    )
    return Layer(layer.input_layernorm.weight, qkv, o, layer.post_attention_layernorm.weight, gate_up, down)


def _packed_layer(layer: Layer, qkv: Block) -> Layer:
    return replace(layer, qkv=qkv, o=_packed(layer.o), gate_up=_packed(layer.gate_up), down=_packed(layer.down))


def _packed(block: Block) -> Block:
    """Joined and laid out anew; the parts stay what they are, which is no memory of our own.

    In these families all of a block have a bias, or none.
    """
    weights = [one.weight for one in block.parts]
    biases = [one.bias for one in block.parts if one.bias is not None]
    weight = packed(torch.cat(weights) if len(weights) > 1 else weights[0])
    return replace(block, joined=Linear("", weight, torch.cat(biases) if biases else None))


def _packed_apart(block: Block) -> Block:
    return Block(tuple(replace(one, weight=packed(one.weight)) for one in block.parts))


def _linear(parent: Any, name: str, part: str) -> Linear:
    module = getattr(parent, part)
    return Linear(f"{name}.{part}", module.weight, module.bias)


# ------------------------------------------------------------------------------------------------ products


def products(x: Tensor, block: Block, laid: Iterable[Laid]) -> list[Tensor]:
    """For each layer of a block x Wᵀ + bias, and + x A B where an adapter is laid."""
    if block.joined is not None:
        outs = list(torch.split(product(x, block.joined.weight, block.joined.bias), block.widths, -1))
    else:
        outs = [product(x, of.weight, of.bias) for of in block.parts]
    _lay(outs, x, block, laid)
    return outs


def add_product(into: Tensor, x: Tensor, block: Block, laid: Iterable[Laid]) -> Tensor:
    """The same of a block of one layer added to `into`, which is not to be read again."""
    of = block.joined or block.parts[0]
    out = added_product(into, x, of.weight)
    if of.bias is not None:
        out.add_(of.bias)
    _lay([out], x, block, laid)
    return out


def _lay(outs: Sequence[Tensor], x: Tensor, block: Block, laid: Iterable[Laid]) -> None:
    for over in laid:
        lows = [(out, over.lora[of.name]) for out, of in zip(outs, block.parts, strict=True) if of.name in over.lora]
        if not lows:
            continue
        first = lows[0][1].start
        low = x[over.where] @ lows[0][1].a[:, first : lows[-1][1].end]
        for out, one in lows:
            out[over.where].addmm_(low[:, one.start - first : one.end - first], one.b)


def normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMSNorm of x [T, C]: computed in fp32 where x is narrower, as transformers does."""
    if x.dtype in (torch.bfloat16, torch.float16):
        wide = x.float()
        narrow: Tensor = weight * (wide * wide.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()).to(x.dtype)
        return narrow
    mean_square: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    return (x * mean_square.add_(epsilon).rsqrt_()).mul_(weight)


def turned(heads: Tensor, turns: Turns) -> Tensor:
    """Rotary positions of [T, heads, D], into new memory."""
    out = torch.empty_like(heads)
    first, second = torch.tensor_split(heads, 2, dim=-1)
    one, other = torch.tensor_split(out, 2, dim=-1)
    torch.mul(first, turns.cos, out=one).addcmul_(second, turns.sin, value=-1)
    torch.mul(second, turns.cos, out=other).addcmul_(first, turns.sin)
    return out
