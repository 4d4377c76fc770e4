"""Tiny random models of several families, with tokenizers of the kinds that these have, and random adapters on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from finetune import adapter
from tests.tiny_model import CHAT_TEMPLATE, make_tiny_model

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def make_model(folder: Path, family: str) -> Path:
    """A base model of `llama`, `qwen2` (untied, biases, padded words) or `mistral` (pieces of SentencePiece)."""
    import transformers

    if family == "llama":
        return make_tiny_model(folder, teachable=False)
    tokenizer = _qwen_tokenizer() if family == "qwen2" else _piece_tokenizer()
    words = -(-(len(tokenizer) + 3) // 8) * 8
    configs = {"qwen2": transformers.Qwen2Config, "mistral": transformers.MistralConfig}
    torch.manual_seed(3)
    config = configs[family](vocab_size=words, tie_word_embeddings=False, initializer_range=0.2, **SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.float32)
    for name, param in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(param, std=0.5)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _wrapped(raw: Any, **special: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **special)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _qwen_tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    texts = [*specials, *alphabet, "he", "ll", "hell", "hello", "Ġw"]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w")]
    raw = Tokenizer(models.BPE(vocab={text: number for number, text in enumerate(texts)}, merges=merges))
    raw.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(specials)
    return _wrapped(raw, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _piece_tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"helowrd", "he", "ll", "hell"]
    texts += ["hello", "▁w", "▁hello"]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "w"), ("▁", "hello")]
    vocab = {text: number for number, text in enumerate(texts)}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    raw.add_special_tokens([AddedToken(text, normalized=False) for text in texts[:3]])
    return _wrapped(raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def make_adapter(
    folder: Path, base: Path, *, name: str = "tiny-1", std: float = 0.3, rank: int = 4, **config: Any
) -> Path:
    """A random LoRA on every linear layer of a base model, whole and verified."""
    import transformers

    held = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(7)
    tensors = {}
    for layer, module in held.named_modules():
        if layer.rpartition(".")[2] in TARGETS:
            place = f"base_model.model.{layer}"
            tensors[f"{place}.lora_A.weight"] = torch.randn(rank, module.in_features) * std
            tensors[f"{place}.lora_B.weight"] = torch.randn(module.out_features, rank) * std
    known = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "bias": "none",
             "target_modules": TARGETS, "base_model_name_or_path": base.name, "inference_mode": True}  # fmt: skip
    manifest = adapter.Manifest(name=name, base=adapter.describe_base(base))
    adapter.write(folder, save(tensors, {"format": "pt"}), {**known, **config}, manifest)
    return folder


def set_config(folder: Path, **changes: Any) -> None:
    """Change a model's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
