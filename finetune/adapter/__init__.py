"""Adapter folders: what a training job gives, what may be loaded, and what is made of it for others.

```
adapter_config.json          PEFT's, as peft and vLLM read it
adapter_model.safetensors    the weights, under PEFT's names
README.md                    the card, written anew when more is known of the adapter
turnout-adapter.json         the manifest, written last: digests, base, lineage, recipe, scores, canary
```
"""

from __future__ import annotations

from finetune.adapter.checking import is_complete, named_in, tensor_header, verify
from finetune.adapter.digests import (
    base_digest,
    chat_template,
    chat_template_digest,
    check_base,
    code_version,
    describe_base,
    tokenizer_digest,
)
from finetune.adapter.folders import check_name, install, remove, size_bytes, write, write_card
from finetune.adapter.manifest import CARD, CONFIG, MANIFEST, MODEL_MANIFEST, WEIGHTS, Base, Canary, Manifest

__all__ = [
    "CARD",
    "CONFIG",
    "MANIFEST",
    "MODEL_MANIFEST",
    "WEIGHTS",
    "Base",
    "Canary",
    "Manifest",
    "base_digest",
    "chat_template",
    "chat_template_digest",
    "check_base",
    "check_name",
    "code_version",
    "describe_base",
    "install",
    "is_complete",
    "named_in",
    "remove",
    "size_bytes",
    "tensor_header",
    "tokenizer_digest",
    "verify",
    "write",
    "write_card",
]
