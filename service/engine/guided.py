"""Answers that must be of a given form: choices among labels, JSON Schemas, regular expressions, grammars.

llguidance says for each token which may come next. Schemas and patterns come from strangers: what they may take in time
and memory is bounded by counts of its own work, so that a refusal is the same on every machine.

A choice is made by a tree of the choices' tokens, as the tokenizer writes them: at each place where choices part ways,
the likeliest token that goes on with one of them is taken (or one is drawn in proportion, with a temperature), and as
soon as one choice is left that is the answer. Choices that differ in their first token take the pass over the prompt
and nothing else.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import copy
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, grammar_from
from torch import Tensor

from prompts.errors import BadInput
from service.engine.asks import GuideSpec
from service.engine.unheld import MOST_PATTERN, unheld

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

MOST_BYTES = 64 << 10  # of a schema, a pattern, a grammar
HELD = 64  # compiled guides
# Counts of llguidance's own work. With these, and a bound of patterns' lengths, which it does not count, the worst found
# here took 1.4 s to compile and 60 ms for a token.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=20_000,  # one to two kB each
    max_grammar_size=100_000,
    verbose_errors=False,
)
_WITHIN = re.compile(r"%json\s*")  # before a JSON Schema in a grammar of Lark's form
# Blanks between the parts of a JSON text: as models write it, on one line or indented, and never without end.
_JSON: JsonCompileOptions = {"whitespace_flexible": True, "whitespace_pattern": r"[ ]|\n[ ]{0,24}"}


class Guide(Protocol):
    """What an answer may go on with. Belongs to one answer; used by the model's thread."""

    def allowed(self, width: int) -> Tensor:
        """[width] of bool: the tokens that may come next, at least one. Raises BadInput where that takes too much."""
        ...

    def take(self, token: int) -> bool:
        """`token` comes next; gives whether the answer is whole with it."""
        ...

    def whole(self) -> tuple[int, ...] | None:
        """The tokens of the answer where no token is left open, else None."""
        ...


# ------------------------------------------------------------------------------------------------ by llguidance


class Vocabulary:
    """The tokens of a model as bytes, and as llguidance needs them. Made when first needed: that takes most of a second."""

    def __init__(self, tokenizer: Any, width: int, stop_ids: Sequence[int]) -> None:
        backend = copy(tokenizer.backend_tokenizer)
        backend.no_padding()
        backend.no_truncation()
        ends, width = list(stop_ids), max(width, len(tokenizer))
        read = LLTokenizer(backend.to_str(), n_vocab=width, eos_token=ends, slices=[])
        self._texts = [bytes(read.decode_bytes([token])) for token in range(width)]
        self.guiding = LLTokenizer(TokenizerWrapper(_Plain(backend, self._texts, ends[0])), eos_token=ends)

    def text(self, token: int) -> bytes:
        """The bytes that `token` adds to a text."""
        return self._texts[token]


class _Plain:
    """A tokenizer by which the text of a special token is text, as an answer's is: a guide may force it.

    llguidance's own reading of a tokenizer makes it the special token, which then fits no guide. `backend` is changed.
    """

    bos_token_id = None

    def __init__(self, backend: Any, tokens: Sequence[bytes], eos_token_id: int) -> None:
        backend.encode_special_tokens = True  # as text
        self._backend = backend
        self.tokens = tokens
        self.eos_token_id = eos_token_id
        written = set(backend.get_vocab(with_added_tokens=True).values())
        written -= {token for token, added in backend.get_added_tokens_decoder().items() if added.special}
        self.special_token_ids = [token for token in range(len(tokens)) if token not in written]  # no answer's text

    def __call__(self, text: bytes) -> list[int]:
        return list(self._backend.encode(text.decode("utf-8"), add_special_tokens=False).ids)


class Guides:
    """Compiled guides, the least recently used dropped first. Used from any thread."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._held: OrderedDict[GuideSpec, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, spec: GuideSpec) -> None:
        """Have `spec` ready. May take a second. Raises BadInput for what is no such thing, or takes too much."""
        with self._lock:
            if spec in self._held:
                self._held.move_to_end(spec)
                return
        matcher = self._compiled(spec)
        with self._lock:
            self._held[spec] = matcher
            while len(self._held) > HELD:
                self._held.popitem(last=False)

    def guide(self, spec: GuideSpec) -> Guide:
        """A guide for one answer. Raises BadInput as `compile`, which it does where nobody did before."""
        self.compile(spec)
        with self._lock:
            return _Matched(self._held[spec].deep_copy(), spec)

    def _compiled(self, spec: GuideSpec) -> LLMatcher:
        if len(spec.text.encode("utf-8", "replace")) > MOST_BYTES:
            raise BadInput(f"the {_NAMES[spec.kind]} is longer than {MOST_BYTES:,} bytes: shorten it", param=spec.param)
        try:
            matcher = LLMatcher(self._vocabulary.guiding, _grammar(spec), limits=_LIMITS, log_level=0)
        except ValueError as error:
            raise _refused(spec, str(error)) from error
        if matcher.is_error():
            raise _refused(spec, matcher.get_error())
        matcher.compute_bitmask()  # some faults show only here
        if matcher.is_error():
            raise _refused(spec, matcher.get_error())
        matcher.reset()
        return matcher


_NAMES = {"json": "JSON Schema", "regex": "regular expression", "grammar": "grammar", "choice": "choice"}


def _grammar(spec: GuideSpec) -> str:
    why = next(filter(None, map(unheld, _schemas(spec))), None) or _too_long(spec)
    if why is not None:
        raise _refused(spec, why)
    if spec.kind != "json":
        return str(grammar_from("regex" if spec.kind == "regex" else "cfg", spec.text))
    schema = json.loads(spec.text)
    return LLMatcher.grammar_from_json_schema(json.dumps({} if schema is True else schema), overrides=_JSON)


def _too_long(spec: GuideSpec) -> str | None:
    """What to say of a pattern that is too long, or of a line of a grammar, which may be one; None where none is."""
    lines = {"regex": [spec.text], "grammar": spec.text.splitlines()}.get(spec.kind, [])
    longest = max(map(len, lines), default=0)
    what = "it" if spec.kind == "regex" else "a line"
    return f"{what} has {longest:,} characters, allowed are {MOST_PATTERN:,}" if longest > MOST_PATTERN else None


def _schemas(spec: GuideSpec) -> Iterator[Any]:
    """The JSON Schema that `spec` is, or those within a grammar."""
    if spec.kind == "json":
        yield json.loads(spec.text)
    elif spec.kind == "grammar":
        for found in _WITHIN.finditer(spec.text):
            with suppress(ValueError, RecursionError):  # what is no JSON is a literal's text, or refused as such
                yield json.JSONDecoder().raw_decode(spec.text, found.end())[0]


# What llguidance says that nobody who asks can act on, and what is told in its place.
_SAYS = (
    (re.compile(r"\s*<non-verbose/>|\s*Enable '\w+' option[^.;]*\.?"), ""),
    (re.compile(r"NoExtensionBias"), "no text fits it"),
)


def _refused(spec: GuideSpec, why: str) -> BadInput:
    fix = "change it, or serve the model with vLLM" if spec.kind == "json" else "change it"
    for said, told in _SAYS:
        why = said.sub(told, why)
    message = f"the {_NAMES[spec.kind]} cannot guide an answer: {' '.join(why.split())[:300].rstrip('.')}; {fix}"
    return BadInput(message, param=spec.param)


class _Matched:
    """A guide by llguidance."""

    def __init__(self, matcher: LLMatcher, spec: GuideSpec) -> None:
        self._matcher = matcher
        self._spec = spec

    def allowed(self, width: int) -> Tensor:
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise _refused(self._spec, self._matcher.get_error())
        return torch.from_numpy(np.unpackbits(bits, bitorder="little")[:width].astype(bool))

    def take(self, token: int) -> bool:
        if not self._matcher.consume_token(token):
            raise _refused(self._spec, self._matcher.get_error())
        return bool(self._matcher.is_stopped())

    def whole(self) -> tuple[int, ...] | None:
        return None


# ------------------------------------------------------------------------------------------------ choices


class ChoiceGuide:
    """A guide to one of several answers, given as their tokens with the end of the turn last."""

    def __init__(self, choices: Sequence[Sequence[int]]) -> None:
        self._choices = list(dict.fromkeys(map(tuple, choices)))
        self._depth = 0

    def allowed(self, width: int) -> Tensor:
        mask = torch.zeros(width, dtype=torch.bool)
        mask[[choice[self._depth] for choice in self._choices]] = True
        return mask

    def take(self, token: int) -> bool:
        self._choices = [choice for choice in self._choices if choice[self._depth] == token]
        self._depth += 1
        return len(self._choices[0]) == self._depth

    def whole(self) -> tuple[int, ...] | None:
        return self._choices[0] if len(self._choices) == 1 else None
