from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from service.engine.text import Writer


def of_bytes(tokens: Sequence[int]) -> str:
    """A tokenizer whose tokens are bytes."""
    return bytes(tokens).decode("utf-8", "replace")


WORDS = ["▁the", "▁sea", "s", "ide", "▁is", "▁wide", "."]


def of_words(tokens: Sequence[int]) -> str:
    """One that writes the blank before a word, but not at the beginning of a text."""
    return "".join(WORDS[token] for token in tokens).replace("▁", " ").removeprefix(" ")


def streamed(writer: Writer, tokens: Sequence[int]) -> tuple[str, list[str]]:
    """The parts put together, with what was left for the end, and the parts."""
    parts = []
    for count, token in enumerate(tokens, 1):
        writer.add(token)
        parts.append(writer.take())
        if writer.stopped_at is not None:
            tokens = tokens[:count]
            break
    whole = writer.end(tokens)
    return "".join(parts) + whole[writer.given :], parts


def test_parts_end_at_whole_characters() -> None:
    whole, parts = streamed(Writer(of_bytes), "aé😀b".encode())
    assert whole == "aé😀b"
    assert parts == ["a", "", "é", "", "", "", "😀", "b"]


def test_bytes_that_are_no_text_come_as_the_tokenizer_shows_them() -> None:
    for seed in range(30):
        source = random.Random(seed)  # noqa: S311  # a repeatable order, not a secret
        tokens = [source.choice([0x61, 0xC3, 0xA9, 0xF0, 0x9F, 0x98, 0x80, 0xFF, 0xEF, 0xBF, 0xBD]) for _ in range(40)]
        whole, _ = streamed(Writer(of_bytes), tokens)
        assert whole == of_bytes(tokens)


def test_blanks_between_words_are_kept() -> None:
    whole, parts = streamed(Writer(of_words), [0, 1, 2, 3, 4, 5, 6])
    assert whole == "the seaside is wide."
    assert parts[:3] == ["the", " sea", "s"]


def test_a_stop_sequence_is_cut_where_it_begins_and_never_given() -> None:
    whole, parts = streamed(Writer(of_bytes, ["\n\nEND"]), b"one\n\ntwo\n\nEND of it")
    assert whole == "one\n\ntwo"
    assert "\n\nE" not in "".join(parts)
    assert "one" in "".join(parts)


def test_the_first_of_several_stops_counts() -> None:
    writer = Writer(of_bytes, ["yz", "b"])
    whole, _ = streamed(writer, b"aabyz")
    assert whole == "aa"


def test_what_only_began_like_a_stop_is_given_at_last() -> None:
    whole, parts = streamed(Writer(of_bytes, ["END"]), b"the EN")
    assert whole == "the EN"
    assert "".join(parts) == "the "


@pytest.mark.parametrize("stop", ["é", "😀!", "b"])
def test_stops_of_several_bytes(stop: str) -> None:
    text = "xé😀!b"
    whole, _ = streamed(Writer(of_bytes, [stop]), text.encode())
    assert whole == text[: text.index(stop)]


BYTES = [f"<0x{number:02X}>" for number in range(256)]


def falling_back(tokens: Sequence[int]) -> str:
    """As SentencePiece's models of Llama 2, Mistral and Gemma: what is in no vocabulary is written as its bytes, and a run
    of bytes that is no text is shown as one replacement character for each of them."""
    from tokenizers.decoders import ByteFallback, Fuse
    from tokenizers.decoders import Sequence as Several

    return str(
        Several([ByteFallback(), Fuse()]).decode(
            [BYTES[token] if token < 256 else WORDS[token - 256] for token in tokens]
        )
    )


@pytest.mark.parametrize("text", ["hi é", "hi 你好", "a 😀!", "你 b 好 c"])
def test_a_tokenizer_that_falls_back_to_bytes_streams_whole_characters(text: str) -> None:
    whole, parts = streamed(Writer(falling_back), text.encode())
    assert whole == "".join(parts) == text
    assert "\ufffd" not in "".join(parts)


@pytest.mark.parametrize("decode", [of_bytes, falling_back])
def test_bytes_that_never_become_text_do_not_hold_a_stream_up(decode: Callable[[Sequence[int]], str]) -> None:
    whole, parts = streamed(Writer(decode), [0x61] + [0xFF] * 20)
    assert whole == "".join(parts) + "\ufffd" * 3 == "a" + "\ufffd" * 20
    assert sum(map(bool, parts)) > 10
