import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.secrets import secret_faults

RANDOM = "Zk7Qw2Lx9Vb4Nc6Md1Rt8Ys3Hf5Jg0PaUiOe"  # 36 characters
SECRETS = {  # put together here, so that no scanner takes this file for a leak
    "OpenAI": "sk-" + RANDOM,
    "OpenAI of a project": "sk-proj-" + RANDOM + "_" + RANDOM,
    "Anthropic": "sk-ant-" + "api03-" + RANDOM,
    "AWS": "AKIA" + "Z7QW2LX9VB4NC6MD",
    "GitHub": "ghp_" + RANDOM,
    "GitHub, fine-grained": "github_pat_" + RANDOM[:22] + "_" + RANDOM + RANDOM[:23],
    "Slack": "xoxb-" + "2847561930-" + RANDOM,
    "Google": "AIza" + RANDOM[:35],
    "Stripe": "sk_live_" + RANDOM[:24],
    "Hugging Face": "hf_" + RANDOM[:34],
    "Turnout": "turnout_admin_" + (RANDOM + RANDOM)[:43],
    "JWT": "eyJ" + RANDOM[:20] + ".eyJ" + RANDOM[:20] + "." + RANDOM,
    "private key": "-----BEGIN " + "RSA PRIVATE KEY-----",
    "AWS, secret": "aws_secret_access_key = " + RANDOM + "wXyZ",
}


def levels(text):
    return [(fault.line, fault.level, fault.rule) for fault in secret_faults(text, "p.yml")]


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_well_known_secret_is_an_error_at_its_line_and_is_never_repeated(secret):
    text = f"model: m\nmessages:\n  - role: system\n    content: 'Use {secret} to log in.'\n"
    [fault] = secret_faults(text, "p.yml")
    assert (fault.line, fault.level, fault.rule) == (4, "error", "secret")
    assert RANDOM[:8] not in str(fault)
    assert secret[4:16] not in str(fault)


def test_a_fault_tells_the_kind_the_first_four_characters_and_the_length():
    [fault] = secret_faults("key: " + SECRETS["GitHub"], "p.yml")
    assert fault.message == "this looks like a secret: GitHub token ghp_… (40 characters)"


@pytest.mark.parametrize(
    "text",
    [
        "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "sk-...",
        "sk-your-key-here",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + "0" * 36,
        "a task-" + RANDOM.lower() + " and disk-usage-of-a-very-long-name-in-kebab-case-letters",
        "api_key: your_api_key_goes_here_1234",
        "api_key_env: OPENAI_API_KEY",
        "password: correct-horse-battery-staple",
        "secret_key: the_name_of_the_environment_variable",
        "access token: " + "a" * 40 + "123",
        "sha256:" + "0123456789abcdef" * 4,
        "an ordinary sentence about eyJ and AKIA, sk- and xoxb-",
    ],
)
def test_stand_ins_names_and_digests_are_no_secrets(text):
    assert levels(text) == []


@pytest.mark.parametrize("name", ["api_key", "apiKey", "api-key", "Access-Token", "client_secret", "password"])
def test_a_random_value_by_the_name_of_a_key_is_a_warning(name):
    assert levels(f"x: 1\n{name}: {RANDOM}\n") == [(2, "warning", "secret")]
    assert levels(f'{{"{name}": "{RANDOM}"}}') == [(1, "warning", "secret")]


def test_a_known_key_by_such_a_name_is_told_once():
    assert levels("api_key: " + SECRETS["OpenAI"]) == [(1, "error", "secret")]


def test_an_author_can_allow_a_line_and_a_block_of_text():
    key = SECRETS["GitHub"]
    assert levels(f"a: {key}  # turnout: allow secret\nb: {key}\n") == [(2, "error", "secret")]
    block = f"content: |  # turnout: allow secret\n  The first line\n\n    {key}\n  {key}\nother: {key}\n"
    assert levels(block) == [(6, "error", "secret")]
    assert levels(f"content: |\n  a # turnout: allow secret\n  {key}\n") == [(3, "error", "secret")]


@given(st.text(max_size=400))
def test_any_text_is_looked_through(text):
    assert all(fault.rule == "secret" for fault in secret_faults(text, "p"))


@pytest.mark.parametrize("text", ["eyJ" * 500_000, "sk-ant-" * 200_000, "password " * 200_000, "-----BEGIN " * 200_000])
def test_a_text_made_to_be_slow_is_looked_through_in_one_pass(text):
    assert levels(text) == []  # looking again from every place would take longer than a test may
