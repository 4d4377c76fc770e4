from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import BadFile, Fault
from prompts.formats.prompt_yml import load_prompt
from prompts.redaction import is_secret, redacted, secrets_in, without_secrets
from prompts.wording import shorten
from tests.prompts.test_secrets import RANDOM, SECRETS


@pytest.mark.parametrize("kind", sorted(SECRETS))
def test_what_looks_like_a_secret_is_taken_out_and_the_rest_stays(kind):
    shown = redacted(f"before {SECRETS[kind]} after  # turnout: allow secret")

    assert RANDOM[:10] not in shown
    assert "BEGIN" not in shown
    assert shown.startswith("before ")
    assert "[secret: " in shown


def test_a_private_key_is_taken_out_up_to_its_end():
    begin, end = "-----BEGIN " + "RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"

    assert redacted(f"a {begin}\nMIIB\n{end} b {begin}\nMIIC") == "a [secret: private key] b [secret: private key]"


@given(st.text(max_size=400))
def test_a_text_without_secrets_stays_as_it_is(text):
    if not list(secrets_in(text)):
        assert redacted(text) == text


# ---------------------------------------------------------------------------- keys by themselves

HEXADECIMAL = [  # of 32 digits, as many keys are: the entropy of some is that of a text
    "f1f836f99eee3692f09e2e8c662248b4", "9f86d081884c7d659a2feaa0c55ad015", "77b7f87977aa4f7a9b3ab7a7f7a79b6a",
]  # fmt: skip


@pytest.mark.parametrize(
    "value", [*list(SECRETS.values())[:-2], RANDOM, RANDOM[:24], *HEXADECIMAL, HEXADECIMAL[0].upper(), "x_" + RANDOM]
)
def test_a_value_by_itself_is_known_as_a_key_by_its_looks(value):
    assert is_secret(value)


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY", "KEY", "_k2", "OPENAI_API_KEY_FOR_TEAM_2024_V2", "AZURE_OPENAI_KEY_EU_WEST_1", "mistralKey7",
        "openaiApiKeyForTheWholeTeam2024", "K8S_CLUSTER_GPT4O_KEY_EU1",
    ],
)  # fmt: skip
def test_a_name_of_a_variable_is_no_key(name):
    assert not is_secret(name)


def test_hexadecimal_digits_by_the_name_of_a_key_are_one():
    assert redacted(f"api_key: {HEXADECIMAL[0]}") == "api_key: [secret: value that looks like a key]"


# ---------------------------------------------------------------------------- messages

LOGIN = "[secret: login]"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("'postgresql://u:hunter2@h/db' is none", f"'postgresql://{LOGIN}@h/db' is none"),
        ("postgresql://u:hun/ter2@h/db", f"postgresql://{LOGIN}@h/db"),
        ("found 'postgresql://u:hun/te@r:2@h:5432/db'", f"found 'postgresql://{LOGIN}@h:5432/db'"),
        ("postgresql://u:hun ter 2@h/db", f"postgresql://{LOGIN}@h/db"),
        ("https://hunter2@h/v1", f"https://{LOGIN}@h/v1"),
        ("found 'user:hunter2@llm.example/v1'", f"found '{LOGIN}@llm.example/v1'"),
        ("found ['user:hunter2@[::1]:80', 'http://a:hunter2@b']", f"found ['{LOGIN}@[::1]:80', 'http://{LOGIN}@b']"),
        ("found 'postgresql://user:hunter2hunter2…", f"found 'postgresql://{LOGIN}…"),
        ("'postgresql://user:hunter2hun': no such file", f"'postgresql://{LOGIN}': no such file"),
        ("host=h password=hunter2 dbname=x", "host=h password=[secret: password] dbname=x"),
        ("https://h/v1?a=1&api_key=hunter2&b=2", "https://h/v1?a=1&api_key=[secret: password]&b=2"),
        ("found {'password': 'hunter2', 'user': 'u'}", "found {'password': '[secret: password]', 'user': 'u'}"),
        ("'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIx' is no label", "'[secret: part of a key]' is no label"),
        ("found 'sk-proj-" + RANDOM[:20] + "…", "found '[secret: part of a key]…"),
    ],
)  # fmt: skip
def test_a_message_repeats_no_password_and_no_part_of_a_key(message, shown):
    assert without_secrets(message) == shown
    assert without_secrets(shown) == shown


@pytest.mark.parametrize(
    "message",
    [
        "write http(s)://host[:port]/path, without a user, password or query",
        "http://127.0.0.1:8600/v1: HTTP 404, http://[::1]:8600 and http://HOST:PORT/v1",
        "'http://{{ host }}:{{ port }}/' and https://medium.com/@someone",
        "file://checks/queue.py:get_assert is not run, nor path:a/b, run:r1 or git:main@{1}",
        "hf:org/name@main: no such revision; mailto:someone@example.org",
        "support.triage@production and support.triage@2+ollama/llama3:8b",
        "prompts/a.prompt.yml:3: unknown key 'token'; models.up.api_key_env: expected the name",
        "missing variable ASIA-PACIFIC-2024-report, ghost-writer-for-the-team-2024, sk-learn-models-2024",
        "this looks like a secret: GitHub token ghp_… (40 characters)",
        "write {password: …}, or `-v token=VALUE`",
    ],
)
def test_a_message_keeps_what_is_no_secret(message):
    assert without_secrets(message) == message


@given(st.text(alphabet="ab1:/@?=&'\"[]. …\n", max_size=60).map(lambda text: f"sk-{text}://{text}password={text}"))
def test_what_is_taken_out_once_stays_as_it_is(text):
    once = without_secrets(text)
    assert without_secrets(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "eyJ" * 300_000, "sk-ant-" * 100_000, "a:" * 300_000 + "@", ":" * 300_000 + "@a", "://" * 300_000 + "@", "@" * 300_000,
        "x://a:" * 100_000, "'password': " * 50_000, "?" * 300_000 + "key=", ("'" + "-a" * 50) * 5_000, "'" + "a-" * 300_000,
    ],
)  # fmt: skip
def test_a_message_made_to_be_slow_is_looked_through_in_one_pass(text):
    begin = process_time()
    without_secrets(text)
    assert process_time() - begin < 5  # looking again from every place would take minutes


@pytest.mark.parametrize("limit", [20, 40, 60, 80, 200])
@pytest.mark.parametrize(
    "value",
    [
        f"postgresql://user:{RANDOM * 3}@host/db",
        f"user:{RANDOM * 3}@host/db",
        f"a text of some length before {SECRETS['OpenAI of a project']}",
        "x" * 4_090 + " " + SECRETS["GitHub"],
        [f"postgresql://user:{RANDOM * 3}@host/db"],
        {"url": f"postgresql://user:{RANDOM * 3}@host/db"},
    ],
    ids=str.__class__,
)
def test_a_value_is_cut_only_after_its_secrets_are_taken_out(value, limit):
    shown = shorten(value, limit)
    assert RANDOM[:4] not in shown
    assert len(shown) <= limit


# ---------------------------------------------------------------------------- faults


@pytest.mark.parametrize("secret", list(SECRETS.values())[:-2])
def test_no_fault_repeats_a_secret_whoever_words_it(secret):
    fault = Fault("a.yml", 1, f"{secret} is no label", f"write [{secret}], in brackets")

    assert secret not in str(fault)
    assert fault.message.endswith(" is no label")
    assert fault.fix.startswith("write [")


@pytest.mark.parametrize(
    "line",
    [
        "labels: {}", "labels: [{}]", "modelParameters: {{temperature: {}}}", "{}: 1",
        "responseFormat: {}", "variables: {{a: {{type: {}}}}}", "variables: {{{}: {{}}}}", "toolChoice: {}", "examples: {}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("secret", [SECRETS["AWS"], SECRETS["OpenAI of a project"], SECRETS["JWT"], SECRETS["GitHub"]])
def test_no_fault_of_a_prompt_repeats_a_secret(line, secret):
    with pytest.raises(BadFile) as caught:
        load_prompt(f"model: m\nmessages: [{{role: user, content: x}}]\n{line.format(secret)}\n", "a.prompt.yml", "a")

    assert secret[4:16] not in str(caught.value)
