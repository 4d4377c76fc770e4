"""A fast tokenizer's `tokenizer.json` as a GGUF holds a vocabulary.

llama.cpp knows two kinds of byte-pair encoding: `gpt2` over bytes written as letters, with a pre-tokenizer that it knows
by name, and `llama` over pieces of SentencePiece, which it joins by their scores. What is neither is refused: tokens
that are cut otherwise than in training would cost accuracy without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import gguf
from gguf import TokenType

from finetune import adapter
from prompts.errors import BadInput

_CASES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_ENDS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {  # llama.cpp's names of the patterns that cut a text to words
    _CASES + r"\p{N}{1,3}" + _ENDS: "llama-bpe",
    _CASES + r"\p{N}" + _ENDS: "qwen2",
    _TEKKEN: "tekken",
}
_SPACE = "▁"
_ADDED_SCORE = -1000.0
_IDS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unk", "pad_token": "pad"}


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF holds of a tokenizer. `scores` for `llama` alone, `merges` and `pre` for `gpt2`."""

    kind: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]
    special_ids: Mapping[str, int]
    adds_bos: bool
    adds_space: bool
    chat_template: str

    def write(self, writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model(self.kind)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores:
            writer.add_token_scores(self.scores)
        if self.merges:
            writer.add_token_merges(self.merges)
        for kind, number in self.special_ids.items():
            getattr(writer, f"add_{kind}_token_id")(number)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(False)
        if self.kind == "llama":
            writer.add_add_space_prefix(self.adds_space)
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def read_vocabulary(base_folder: Path, size: int) -> Vocabulary:
    """The vocabulary of a model whose embeddings have `size` rows. Raises BadInput for a tokenizer of another kind."""
    path = base_folder / "tokenizer.json"
    if not path.is_file():
        _refuse("no tokenizer.json (save the tokenizer with save_pretrained)")
    held = json.loads(path.read_bytes())
    model = held["model"]
    if model.get("type") != "BPE":
        _refuse(f"a tokenizer of type {model.get('type')!r}")
    pieces = bool(model.get("byte_fallback"))
    tokens, types = _tokens(held, size, pieces=pieces)
    return Vocabulary(
        kind="llama" if pieces else "gpt2",
        pre="default" if pieces else _pre(held),
        tokens=tokens,
        types=types,
        scores=_scores(held, tokens) if pieces else (),
        merges=() if pieces else tuple(" ".join(pair) for pair in _pairs(model)),
        special_ids=_special_ids(base_folder, held),
        adds_bos=_adds_bos(path),
        adds_space=pieces and _adds_space(held),
        chat_template=adapter.chat_template(base_folder),
    )


def _refuse(what: str) -> NoReturn:
    raise BadInput(f"the base model has {what}: no GGUF of it can be written; use --format merged", param="format")


def _pairs(model: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """Merges, which are pairs or, in older files, one text with a space."""
    return (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])


def _tokens(held: Mapping[str, Any], size: int, *, pieces: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The text and the type of every id; rows of the embeddings that no token has are marked as unused."""
    by_id = {number: text for text, number in held["model"]["vocab"].items()}
    kinds = {number: _kind(text, pieces=pieces) for number, text in by_id.items()}
    for token in held["added_tokens"]:
        by_id[token["id"]] = token["content"]
        kinds[token["id"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    if pieces and (unknown := held["model"].get("unk_token")) in held["model"]["vocab"]:
        kinds[held["model"]["vocab"][unknown]] = TokenType.UNKNOWN
    if by_id and max(by_id) >= size:
        _refuse(f"a token with the id {max(by_id)} and {size} embeddings")
    tokens = tuple(by_id.get(number, f"[PAD{number}]") for number in range(size))
    return tokens, tuple(int(kinds.get(number, TokenType.UNUSED)) for number in range(size))


def _kind(text: str, *, pieces: bool) -> TokenType:
    is_byte = pieces and len(text) == 6 and text.startswith("<0x") and text.endswith(">")
    return TokenType.BYTE if is_byte else TokenType.NORMAL


def _pre(held: Mapping[str, Any]) -> str:
    """llama.cpp's name of the pre-tokenizer."""
    normalizer = held.get("normalizer")
    if normalizer is not None and normalizer.get("type") != "NFC":
        _refuse(f"a normalizer of type {normalizer.get('type')!r} in its tokenizer")
    steps = _steps(held.get("pre_tokenizer"))
    match [step["type"] for step in steps]:
        case ["ByteLevel"] if _is_plain(steps[0], regex=True):
            return "gpt-2"
        case ["Digits", "ByteLevel"] if steps[0]["individual_digits"] and _is_plain(steps[1], regex=True):
            return "smollm"
        case ["Split", "ByteLevel"] if _is_plain(steps[1], regex=False):
            pattern = steps[0]["pattern"].get("Regex", "")
            if pattern in _SPLITS and steps[0]["behavior"] == "Isolated" and not steps[0]["invert"]:
                return _SPLITS[pattern]
    _refuse(f"a pre-tokenizer that llama.cpp has no name for ({json.dumps(held.get('pre_tokenizer'))[:300]})")


def _steps(pre_tokenizer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if pre_tokenizer is None:
        return []
    return list(pre_tokenizer["pretokenizers"]) if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def _is_plain(step: Mapping[str, Any], *, regex: bool) -> bool:
    return not step.get("add_prefix_space") and step.get("use_regex", True) is regex


def _scores(held: Mapping[str, Any], tokens: Sequence[str]) -> tuple[float, ...]:
    """SentencePiece's order of joins, of the order of the merges: the earlier a piece is made, the higher its score."""
    rank: dict[str, int] = {}
    for number, (left, right) in enumerate(_pairs(held["model"])):
        rank.setdefault(left + right, number)
    added = {token["content"] for token in held["added_tokens"]}
    last = float(len(rank))
    return tuple(_ADDED_SCORE if text in added else -float(rank.get(text, last)) for text in tokens)


def _adds_space(held: Mapping[str, Any]) -> bool:
    normalizer, pre = held.get("normalizer") or {}, held.get("pre_tokenizer") or {}
    if pre.get("type") == "Metaspace":
        return bool(pre.get("prepend_scheme", "always") != "never")
    if pre:
        _refuse(f"a pre-tokenizer of type {pre.get('type')!r} before its pieces")
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    return any(step.get("type") == "Prepend" and step.get("prepend") == _SPACE for step in steps)


def _special_ids(base_folder: Path, held: Mapping[str, Any]) -> dict[str, int]:
    config = json.loads((base_folder / "tokenizer_config.json").read_bytes())
    ids = {**held["model"]["vocab"], **{token["content"]: token["id"] for token in held["added_tokens"]}}
    named = {kind: config.get(name) for name, kind in _IDS.items()}
    texts = {kind: text.get("content") if isinstance(text, dict) else text for kind, text in named.items()}
    return {kind: ids[text] for kind, text in texts.items() if text in ids}


def _adds_bos(path: Path) -> bool:
    """Whether the tokenizer puts its first special token before every text: asked of the tokenizer itself."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    plain, whole = tokenizer.encode("a", add_special_tokens=False).ids, tokenizer.encode("a").ids
    return len(whole) > len(plain) and whole[-len(plain) :] == plain
