"""GGUF to safetensors in fp32: `python -P -m service.engine.convert IN.gguf OUT_FOLDER`.

Prints lines of JSON: `{"stage": …, "share": 0.0 to 1.0}`, the last one `{"stage": "done", "converted_with": {…},
"licence": …}`. A process of its own: it needs six times the memory that serving does, and gives it back when it ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetune.plan.loading import lacking_weights
from service.engine.converting import BAD_FILE

_READ = (
    "general.license",
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.eos_token_id",
)
_CONTROL = 3  # the kind that a GGUF gives tokens like <|im_end|>


# How a vocabulary's text is cut before merging, by the name that a GGUF has for it. transformers 5.23 cuts by the names that
# it knows and else like GPT-2; these are right then, or are mended here. Source of the names: llama.cpp's llama-vocab.cpp.
_LIKE_GPT2 = frozenset({"gpt-2", "phi-2", "jina-es", "jina-de", "mpt", "olmo", "trillion", "granite-docling"})
_DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
_WHOLE_WORDS_FIRST = frozenset(
    {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "tekken"}
)
_COMPOSED = frozenset({"qwen2", "qwen35", "deepseek-r1-qwen"})


def convert(gguf: Path, folder: Path) -> None:
    """Write the model and the tokenizer of `gguf` to `folder`.

    Raises OSError, ValueError or RuntimeError where the file is damaged or of a kind that transformers does not read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    _say("tokenizer", 0.05)
    about = _metadata(gguf)
    source = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    mend_tokenizer(tokenizer, about)
    _say("weights", 0.3)
    # Without dequantize, saving and training the loaded model are refused.
    whole: dict[str, Any] = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    model, found = AutoModelForCausalLM.from_pretrained(gguf.parent, output_loading_info=True, **source, **whole)
    if lacking := lacking_weights(found):
        raise ValueError(f"its weights lack {lacking}")
    _say("writing", 0.8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    versions = {name: version(name) for name in ("gguf", "torch", "transformers")}
    _say("done", 1.0, converted_with=versions, licence=about.get("general.license"))


def _metadata(gguf: Path) -> dict[str, Any]:
    """What the file says of itself, without its tensors: texts and numbers, and the vocabulary with its kinds.

    Raises ValueError for a file that ends too early: the reader maps all that its head names.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(gguf)
    except (ValueError, IndexError) as error:
        raise ValueError(f"the file is damaged, or was not fetched whole: fetch it again ({error})") from error
    return {name: field.contents() for name in _READ if (field := reader.get_field(name)) is not None}


def mend_tokenizer(tokenizer: Any, about: Mapping[str, Any]) -> None:
    """Put right, in place, what the conversion of a byte-level vocabulary loses: `about` is the GGUF's metadata.

    SmolLM2 was trained with numbers cut into digits, Llama 3 takes a word that is a token whole before it merges, Qwen
    composes letters with their accents (NFC). Raises ValueError where the file cuts its text in a way that is not known
    here, and where a token would have another number than in the file.
    """
    from tokenizers import normalizers, pre_tokenizers

    backend, cut = tokenizer.backend_tokenizer, str(about.get("tokenizer.ggml.pre", ""))
    if about.get("tokenizer.ggml.model") == "gpt2":
        _refuse_unknown_cut(cut)
        if cut in _DIGITS_APART and "Digits" not in str(backend.pre_tokenizer):
            digits = pre_tokenizers.Digits(individual_digits=True)
            backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
        if cut in _WHOLE_WORDS_FIRST:
            backend.model.ignore_merges = True
        if cut in _COMPOSED and backend.normalizer is None:
            backend.normalizer = normalizers.NFC()
    _check_numbers(tokenizer, about)


def _refuse_unknown_cut(cut: str) -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if cut not in GGUF_PRE_TOKENIZER_SPLITS.keys() | _LIKE_GPT2 | _DIGITS_APART:
        raise ValueError(
            f"its tokenizer cuts text by {cut!r} (tokenizer.ggml.pre), which is not known here, and text cut otherwise than"
            " in training gives worse answers: take the model's safetensors"
        )


def _check_numbers(tokenizer: Any, about: Mapping[str, Any]) -> None:
    """Special tokens end answers and frame messages: each must have the number that the weights were trained with."""
    tokens, kinds = about.get("tokenizer.ggml.tokens") or [], about.get("tokenizer.ggml.token_type") or []
    for number, (text, kind) in enumerate(zip(tokens, kinds, strict=False)):
        found = tokenizer.convert_tokens_to_ids(text) if kind == _CONTROL else number
        if found != number:
            raise ValueError(f"its special token {text!r} has the number {number}, and {found} once it is converted")
    ends = about.get("tokenizer.ggml.eos_token_id")
    if ends is not None and tokenizer.eos_token_id != ends:
        raise ValueError(f"its end token has the number {ends}, and {tokenizer.eos_token_id} once it is converted")


def _say(stage: str, share: float, **more: Any) -> None:
    sys.stdout.write(json.dumps({"stage": stage, "share": share, **more}) + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Exit 2 for bad usage, `BAD_FILE` where the file is damaged or of an unknown kind, 1 where it fails of anything else."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -P -m service.engine.convert IN.gguf OUT_FOLDER\n")
        return 2
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        convert(Path(arguments[0]), Path(arguments[1]))
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return BAD_FILE if isinstance(error, ValueError | KeyError | NotImplementedError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
