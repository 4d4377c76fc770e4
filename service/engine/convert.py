"""GGUF to safetensors in fp32: `python -P -m service.engine.convert IN.gguf OUT_FOLDER`.

Prints lines of JSON: `{"stage": …, "share": 0.0 to 1.0}`, the last one `{"stage": "done", "converted_with": {…}}`. A
process
of its own: it needs six times the memory that serving does, and gives it back when it ends.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def convert(gguf: Path, folder: Path) -> None:
    """Write the model and the tokenizer of `gguf` to `folder`.

    Raises OSError, ValueError or RuntimeError where the file is damaged or of a kind that transformers does not read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    _say("tokenizer", 0.05)
    source = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    _mend_tokenizer(tokenizer)
    _say("weights", 0.3)
    # Without dequantize, saving and training the loaded model are refused.
    whole: dict[str, Any] = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, **source, **whole)
    _say("writing", 0.8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _say("done", 1.0, converted_with={name: version(name) for name in ("gguf", "torch", "transformers")})


def _mend_tokenizer(tokenizer: Any) -> None:
    """Put back the step that splits numbers into digits, which SmolLM2 was trained with and the conversion drops."""
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    if not _is_smollm(tokenizer) or "Digits" in str(backend.pre_tokenizer):
        return
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def _is_smollm(tokenizer: Any) -> bool:
    return "named SmolLM" in str(tokenizer.chat_template) and tokenizer.vocab_size == 49152


def _say(stage: str, share: float, **more: Any) -> None:
    sys.stdout.write(json.dumps({"stage": stage, "share": share, **more}) + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Exit 2 for bad usage, 1 where the file cannot be converted."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -P -m service.engine.convert IN.gguf OUT_FOLDER\n")
        return 2
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        convert(Path(arguments[0]), Path(arguments[1]))
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError, ImportError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
