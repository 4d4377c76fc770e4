from __future__ import annotations

import time

import pytest

from finetune.data import Example, flags_of
from finetune.data.personal import findings, quotable


def kinds(text: str) -> list[tuple[str, str]]:
    return [(found.kind, text[found.start : found.end]) for found in findings(text)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("write to Ann.Lee+x@mail.acme.co.uk, please", "e-mail address", "Ann.Lee+x@mail.acme.co.uk"),
        ("IBAN GB82 WEST 1234 5698 7654 32 IS mine", "IBAN", "GB82 WEST 1234 5698 7654 32"),
        ("DE89370400440532013000", "IBAN", "DE89370400440532013000"),
        ("card 4111 1111 1111 1111, thanks", "payment card", "4111 1111 1111 1111"),
        ("amex 378282246310005", "payment card", "378282246310005"),
        ("SSN 078-05-1120.", "US social security number", "078-05-1120"),
        ("from 81.2.69.142.", "IP address", "81.2.69.142"),
        ("from 2a02:6b8::2:242!", "IP address", "2a02:6b8::2:242"),
        ("ring +44 (0)20 7946 0958 today", "phone number", "+44 (0)20 7946 0958"),
        ("at 618-226-1460 now", "phone number", "618-226-1460"),
        ("0489 25 37 29", "phone number", "0489 25 37 29"),
        ("Call me at 668 5702", "phone number", "668 5702"),
    ],
)
def test_personal_data_is_found_by_its_form(text, kind, value):
    assert kinds(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "ann@example.com, bob@host.test",
        "4111 1111 1111 1112",  # Luhn fails
        "order 9999999999999995",  # Luhn holds, no issuer
        "GB82 WEST 1234 5698 7654 33",  # the remainder is not 1
        "000-12-3456 and 666-12-3456 and 912-12-3456",
        "127.0.0.1, 192.168.1.4, 192.0.2.7, 999.1.1.1, v1.2.3, 12:30:45",
        "it costs 1,250,000.50 on 2024-03-17 or 17.03.2024, order 1234567",
        "0.12345678 of 1234567890123",
    ],
)
def test_what_only_looks_like_it_is_not(text):
    assert kinds(text) == []


def test_flags_say_where_and_never_repeat_the_value():
    key = "sk-proj-" + "a1B2c3D4e5F6g7H8" * 3
    flags = flags_of([Example({"t": "Hi"}, "x"), Example({"t": {"mail": "ann@acme.io"}}, f"use {key}")])
    assert [(flag.index, flag.place, flag.group, flag.kind, flag.shown) for flag in flags] == [
        (1, "vars.t", "personal", "e-mail address", "an… (11 characters)"),
        (1, "expected", "secret", "OpenAI key", "sk… (56 characters)"),
    ]


def test_what_is_quoted_holds_no_finding():
    assert quotable("from ann@acme.io to 81.2.69.142", 80) == "from [e-mail address] to [IP address]"
    assert quotable("a" * 10, 5) == "aaaa…"
    assert quotable("a\ud800b", 5) == "a?b"


def test_many_findings_take_no_more_than_linear_time():
    started_s = time.process_time()
    assert len(findings("ann@acme.io " * 20_000)) == 20_000
    assert time.process_time() - started_s < 10


def test_surer_kinds_win_where_findings_overlap():
    assert kinds("call 4111 1111 1111 1111 or ann+4111111111111111@acme.io") == [
        ("payment card", "4111 1111 1111 1111"),
        ("e-mail address", "ann+4111111111111111@acme.io"),
    ]


@pytest.mark.parametrize("end", ["", "\n-----END RSA PRIVATE KEY-----"])
def test_of_a_private_key_nothing_is_quoted(end):
    text = f"use -----BEGIN RSA PRIVATE KEY-----\nMIIEow{'q7Zx' * 9}{end}"
    assert quotable(text, 200) == "use [private key]"
