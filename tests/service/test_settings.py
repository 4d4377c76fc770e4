from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import BadFile, BadInput
from service.errors import BadSetting
from service.pool import ModelPool, price_of
from service.settings import OpenAISpec, Settings, find_project_file, load_settings
from tests.service.conftest import make_settings

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Settings of a turnout.yaml with this text, and of these variables."""

    def load(text: str = "", **environ: str) -> Settings:
        (tmp_path / "turnout.yaml").write_text(text)
        return load_settings({"TURNOUT_HOME": str(tmp_path / "home"), **environ}, tmp_path)

    return load


def test_without_any_file_everything_has_its_default(tmp_path: Path) -> None:
    settings = load_settings({"TURNOUT_HOME": str(tmp_path / "home")}, tmp_path)

    assert (settings.server.host, settings.server.port, settings.server.workers) == ("127.0.0.1", 8600, 1)
    assert settings.database_url == f"sqlite:///{tmp_path}/home/turnout.db"
    assert settings.jobs_url == f"sqlite:///{tmp_path}/home/jobs.db"
    assert list(settings.models) == ["smollm2-135m"]
    assert settings.project == tmp_path
    assert not (tmp_path / "home").exists()


def test_home_is_a_folder_of_the_user_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert load_settings({}, tmp_path).home == tmp_path / ".turnout"


def test_the_nearest_file_upwards_is_the_project(load: Load, tmp_path: Path) -> None:
    load("server: {port: 1}")
    below = tmp_path / "prompts" / "support"
    below.mkdir(parents=True)

    settings = load_settings({"TURNOUT_HOME": "/nowhere"}, below)

    assert find_project_file(below) == tmp_path / "turnout.yaml"
    assert (settings.project, settings.server.port) == (tmp_path, 1)


def test_a_file_is_read_whole(load: Load) -> None:
    settings = load("""
server: {host: 127.0.0.1, port: 9000, allowed_hosts: [a.example], max_body_bytes: 2048, workers: 2}
storage: {url: "postgresql://u@/db"}
retention: {request_days: 7}
models:
  gpt: {engine: openai, base_url: "https://api.example.com/v1/", api_key_env: KEY, price: {input_per_mtok: 1, output_per_mtok: 2}}
  big: {engine: vllm, base_url: "http://gpu:8000/v1", model: org/big, tunable: true, source: "hf:org/big", adapter_dir: /a}
  fake: {engine: fake, default: "yes"}
""")  # fmt: skip

    assert (settings.server.port, settings.server.allowed_hosts, settings.server.workers) == (9000, ("a.example",), 2)
    assert settings.database_url == settings.jobs_url == "postgresql://u@/db"
    assert settings.retention.request_days == 7
    assert sorted(settings.models) == ["big", "fake", "gpt", "smollm2-135m"]
    gpt = settings.model("gpt")
    assert isinstance(gpt, OpenAISpec)
    assert (gpt.base_url, gpt.is_tunable, settings.model("big").is_tunable) == (
        "https://api.example.com/v1",
        False,
        True,
    )
    price = price_of(settings, "gpt")
    assert price is not None
    assert price_of(settings, "fake") is None


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("servr: {port: 1}", 1, "servr"),
        ("server: {prt: 1}", 1, "prt"),
        ("server:\n  port: 1\n  hots: a", 3, "hots"),
        ("server: {port: 70000}", 1, "port"),
        ("server: {port: text}", 1, "port"),
        ("retention: {request_days: 0}", 1, "request_days"),
        ("models:\n  a: {engine: none}", 2, "engine"),
        ("models:\n  a: {engine: local}", 2, "source"),
        ("models:\n  a: {engine: fake, answer: 1}", 2, "answer"),
        ("models:\n  A b: {engine: fake}", 2, "A b"),
        ("models:\n  a: {engine: openai, base_url: 'ftp://a'}", 2, "base_url"),
        ("models:\n  a: {engine: openai, base_url: 'a.example/v1'}", 2, "base_url"),
        ("models:\n  a: {engine: openai, base_url: 'https://user:pw@a.example/v1'}", 2, "without a user"),
        ("models:\n  a: {engine: openai, base_url: 'https://a.example/v1?key=1'}", 2, "query"),
        ("models:\n  a: {engine: openai, base_url: 'https://a.example/v1', api_key: sk-1}", 2, "api_key"),
        ("models:\n  a: {engine: vllm, base_url: 'http://a/v1', tunable: true}", 2, "tunable"),
        ("models:\n  a: {engine: openai, base_url: 'http://a/v1', price: {input_per_mtok: -1, output_per_mtok: 1}}", 2,
         "input_per_mtok"),
        ("server: [1]", 1, "server"),
        ("models: [1]", 1, "models"),
        ("- a list", 1, ""),
        ("server: {port: 1}\nserver: {port: 2}", 2, "server"),
        ("server: {port: 1", 2, "not valid YAML"),
    ],
)  # fmt: skip
def test_a_bad_file_is_told_with_its_line_and_its_key(load: Load, text: str, line: int, said: str) -> None:
    with pytest.raises(BadFile) as caught:
        load(text)

    faults = [fault for fault in caught.value.faults if said in str(fault)]
    assert faults, caught.value
    assert any(fault.line == line for fault in faults), faults
    assert faults[0].path.endswith("turnout.yaml")


def test_all_faults_are_told_together(load: Load) -> None:
    with pytest.raises(BadFile) as caught:
        load("server: {prt: 1, port: -1}\nretention: {days: 1}\nmodels:\n  a: {engine: local}")

    assert {fault.line for fault in caught.value.faults} == {1, 2, 4}
    assert len(caught.value.faults) == 4


def test_no_secret_of_a_url_is_repeated_in_an_error(load: Load) -> None:
    with pytest.raises(BadFile) as caught:
        load("models:\n  a: {engine: openai, base_url: 'https://user:hunter2@a.example/v1'}")

    assert "hunter2" not in str(caught.value)


# ---------------------------------------------------------------------------- the environment


@pytest.mark.parametrize(
    ("name", "value", "path", "read"),
    [
        ("TURNOUT_SERVER_HOST", "::1", "server.host", "::1"),
        ("TURNOUT_SERVER_PORT", "9100", "server.port", 9100),
        ("TURNOUT_SERVER_ALLOWED_HOSTS", "a.example, b.example", "server.allowed_hosts", ("a.example", "b.example")),
        ("TURNOUT_SERVER_MAX_BODY_BYTES", "4096", "server.max_body_bytes", 4096),
        ("TURNOUT_SERVER_WORKERS", "0", "server.workers", 0),
        ("TURNOUT_STORAGE_URL", "postgresql://u@/db", "storage.url", "postgresql://u@/db"),
        ("TURNOUT_STORAGE_JOBS_URL", "sqlite:////x.db", "storage.jobs_url", "sqlite:////x.db"),
        ("TURNOUT_RETENTION_REQUEST_DAYS", "3", "retention.request_days", 3),
        ("TURNOUT_ASSERTIONS_PYTHON_DIRS", "checks,/srv/x", "assertions.python_dirs", (Path("checks"), Path("/srv/x"))),
    ],
)
def test_every_setting_is_also_read_from_the_environment_which_goes_first(
    load: Load, name: str, value: str, path: str, read: Any
) -> None:
    settings = load("server: {port: 1, host: localhost}\nretention: {request_days: 9}", **{name: value})

    section, _, field = path.partition(".")
    assert getattr(getattr(settings, section), field) == read


def test_a_setting_of_the_environment_leaves_those_beside_it(load: Load) -> None:
    settings = load("server: {port: 1, host: localhost}", TURNOUT_SERVER_PORT="2")

    assert (settings.server.port, settings.server.host) == (2, "localhost")


def test_a_bad_value_of_the_environment_is_refused(load: Load) -> None:
    with pytest.raises(BadInput, match=r"TURNOUT_SERVER_PORT: server\.port: expected a whole number, found 'eighty'"):
        load("server: {host: localhost}", TURNOUT_SERVER_PORT="eighty")


FAKE = "{engine: fake, default: %s}"


@pytest.mark.parametrize(
    "text",
    [
        '{"b": {"engine": "fake", "default": "env"}, "c": {"engine": "fake", "default": "env"}}',
        "b: {engine: fake, default: env}\nc:\n  engine: fake\n  default: env\n",
    ],
)
def test_models_of_the_environment_are_laid_over_those_of_the_file(load: Load, text: str) -> None:
    settings = load(f"models:\n  a: {FAKE % 'file'}\n  b: {FAKE % 'file'}\n", TURNOUT_MODELS=text)

    answers = {alias: getattr(spec, "default", None) for alias, spec in settings.models.items()}
    assert answers == {"smollm2-135m": None, "a": "file", "b": "env", "c": "env"}


@pytest.mark.parametrize("text", ["", "  ", "{}", "null"])
def test_no_models_in_the_environment_leave_those_of_the_file(load: Load, text: str) -> None:
    assert sorted(load(f"models: {{a: {FAKE % 'x'}}}", TURNOUT_MODELS=text).models) == ["a", "smollm2-135m"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[a]", "TURNOUT_MODELS:1: expected aliases and their models (write a mapping in JSON or YAML"),
        ("gpt-4o", "TURNOUT_MODELS:1: expected aliases and their models"),
        ('{"a": ', "TURNOUT_MODELS:2: not valid YAML"),
        ("b: {engine: fake}\nb: {engine: fake}", "TURNOUT_MODELS:2: duplicate key 'b'"),
        ("b:\n  engine: fakes", "TURNOUT_MODELS:1: models.b: engine 'fakes' is none of fake, local, openai, vllm"),
        ("b:\n  engine: openai", "TURNOUT_MODELS:1: 'models.b.base_url' is missing (add `base_url:`)"),
        (
            "b:\n  engine: fake\n  defualt: x",
            "TURNOUT_MODELS:3: unknown key 'models.b.defualt' (did you mean 'default'?)",
        ),
        ("B: {engine: fake}", "TURNOUT_MODELS:1: models.B: 'B' has characters that may not stand here"),
    ],
)
def test_faults_of_models_in_the_environment_name_the_variable_and_hide_no_others(
    load: Load, text: str, told: str
) -> None:
    with pytest.raises(BadFile) as caught:
        load("server: {prt: 1}\nmodels: {b: {engine: fake}}", TURNOUT_MODELS=text)

    assert told in str(caught.value)
    assert "turnout.yaml:1: unknown key 'server.prt'" in str(caught.value)
    assert len(caught.value.faults) == 2


def told(caught: pytest.ExceptionInfo[BadFile]) -> list[tuple[str, int, str]]:
    return [(Path(fault.path).name, fault.line, fault.message) for fault in caught.value.faults]


ELSEWHERE = "retention: {request_days: 0}\nserver: "
FAULT_ELSEWHERE = ("turnout.yaml", 1, "retention.request_days: expected 1 or more, found 0")


@pytest.mark.parametrize(("written", "found"), [("5", "5"), ("[]", "[]"), ("0", "0"), ("''", "''"), ("[1]", "[1]")])
def test_a_section_that_is_none_is_told_with_its_line_whatever_the_environment_lays_over_it(
    load: Load, written: str, found: str
) -> None:
    for environ, more in (({}, []), ({"TURNOUT_SERVER_HOST": "h"}, []), ({"TURNOUT_SERVER_PORT": "eighty"}, [
        ("TURNOUT_SERVER_PORT", 0, "server.port: expected a whole number, found 'eighty'"),
    ])):  # fmt: skip
        with pytest.raises(BadFile) as caught:
            load(ELSEWHERE + written, **environ)
        wrong = ("turnout.yaml", 2, f"server: expected keys and values, found {found}")
        assert sorted(told(caught)) == sorted([FAULT_ELSEWHERE, wrong, *more])


def test_models_that_are_none_hide_no_fault_elsewhere(load: Load) -> None:
    with pytest.raises(BadFile) as caught:
        load(ELSEWHERE + "{prt: 1}\nmodels: 5\nhome: x", TURNOUT_MODELS="b: {engine: fakes}", TURNOUT_SERVER_PORT="x")

    assert sorted(told(caught)) == [
        ("TURNOUT_MODELS", 1, "models.b: engine 'fakes' is none of fake, local, openai, vllm"),
        ("TURNOUT_SERVER_PORT", 0, "server.port: expected a whole number, found 'x'"),
        FAULT_ELSEWHERE,
        ("turnout.yaml", 2, "unknown key 'server.prt'"),
        ("turnout.yaml", 3, "models: expected keys and values, found 5"),
        ("turnout.yaml", 4, "unknown key 'home'"),
    ]


@pytest.mark.parametrize("text", ["- a list", "server: {port: 1", "a text", "{"])
def test_a_file_that_is_none_hides_no_fault_of_the_environment(load: Load, text: str) -> None:
    with pytest.raises(BadFile) as caught:
        load(text, TURNOUT_MODELS="b: {engine: fakes}", TURNOUT_SERVER_PORT="eighty")

    assert sorted(name for name, _, _ in told(caught)) == ["TURNOUT_MODELS", "TURNOUT_SERVER_PORT", "turnout.yaml"]


def test_what_does_not_go_together_in_a_model_hides_no_fault_beside_it(load: Load) -> None:
    both = "timeout_s: 4, timeouts: {total_s: 3, connect_s: 0}"
    up = f"{{engine: vllm, base_url: 'ftp://x', prise: 1, {both}, tunable: true, source: 5}}"
    with pytest.raises(BadFile) as caught:
        load(f"models:\n  up: {up}\n  b: {{engine: fakes}}")

    assert [(line, message.partition(", found")[0]) for _, line, message in told(caught)] == [
        (2, "models.up.base_url: no address of a model's server"),
        (2, "models.up.source: expected a text"),
        (2, "models.up.timeout_s: timeout_s and timeouts.total_s are the same setting"),
        (2, "models.up.timeouts.connect_s: expected more than 0"),
        (2, "models.up.tunable: needs engine: vllm, its weights' `source` and an `adapter_dir`"),
        (2, "unknown key 'models.up.prise'"),
        (3, "models.b: engine 'fakes' is none of fake, local, openai, vllm"),
    ]


# ---------------------------------------------------------------------------- models


def test_a_model_that_is_not_there_is_told_with_those_that_are(load: Load) -> None:
    with pytest.raises(BadSetting, match=r"no model 'gpt'.*smollm2-135m") as caught:
        load("").model("gpt")
    assert caught.value.param == "model"


@pytest.mark.parametrize("value", [None, ""])
def test_a_key_that_is_not_in_the_environment_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("SOME_KEY", value)
    spec = {"engine": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "SOME_KEY"}
    pool = ModelPool(make_settings(tmp_path, models={"gpt": spec}))

    with pytest.raises(BadSetting, match="SOME_KEY, which is not set"):
        pool.get("gpt")


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("OPENAI_API_KEY", "the environment variable OPENAI_API_KEY"),
        ("KEY2", "the environment variable KEY2"),
        *(
            (name, "the environment variable that models.gpt.api_key_env names (not shown, as it may be the key")
            for name in ("qwhjkzxvbnmlpoiuytrewq", "Secret_of_mine", "_k", "OPENAI_API_KEY_")
        ),
    ],
)
def test_a_variable_is_called_by_its_name_only_where_it_is_written_as_one(name: str, called: str) -> None:
    assert an_upstream(api_key_env=name).key_variable("gpt").startswith(called)
    assert (name in an_upstream(api_key_env=name).key_variable("gpt")) == (name in called)


def test_a_model_is_made_once(tmp_path: Path) -> None:
    pool = ModelPool(make_settings(tmp_path))

    assert pool.get("model-a") is pool.get("model-a")
    assert pool.get("model-a") is not pool.get("model-b")


def test_a_key_written_twice_hides_no_other_fault(load: Load) -> None:
    with pytest.raises(BadFile) as caught:
        load("home: x\nserver: {port: none}\nserver: {}\nstorage: {urls: x}\n")
    assert [fault.message.partition(":")[0] for fault in caught.value.faults] == [
        "unknown key 'home'", "server.port", "duplicate key 'server'", "unknown key 'storage.urls'",
    ]  # fmt: skip


def an_upstream(**more: object) -> OpenAISpec:
    return OpenAISpec.model_validate({"engine": "openai", "base_url": "http://up/v1", **more})


def test_how_a_model_is_guarded_has_defaults_and_each_part_may_be_said() -> None:
    spec = an_upstream(timeouts={"first_token_s": 5}, retries={"times": 0}, hedge_after_ms=300)
    assert (spec.timeout_s, spec.timeouts.connect_s, spec.timeouts.first_token_s) == (60.0, 10.0, 5.0)
    assert (spec.retries.times, spec.retries.max_wait_s, spec.hedge_after_ms) == (0, 8.0, 300)
    assert an_upstream().retries.times == 2
    with pytest.raises(ValueError, match=r"retries.tries\n  Extra inputs"):
        an_upstream(retries={"tries": 3})


def test_the_total_of_timeouts_is_timeout_s() -> None:
    assert an_upstream(timeouts={"total_s": 300}).timeout_s == 300
    assert an_upstream(timeouts={"total_s": 300}, timeout_s=300).timeout_s == 300
    with pytest.raises(ValueError, match="are the same setting"):
        an_upstream(timeouts={"total_s": 300}, timeout_s=20)
    with pytest.raises(ValueError, match=r"1 validation error for OpenAISpec\ntimeouts\.total_s\n.*greater than 0"):
        an_upstream(timeouts={"total_s": 0})


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"(?i)port"):
        an_upstream(base_url="http://up:99999/v1")


# ---------------------------------------------------------------------------- secrets

RANDOM = "Zk7Qw2Lx9Vb4Nc6Md1Rt8Ys3Hf5Jg0PaUiOe"  # as random as a key, and nobody's
PASTED = [
    "sk-proj-" + RANDOM,
    "sk-" + RANDOM,
    "hf_" + RANDOM,
    RANDOM,
    "AKIA" + "Z7QW2LX9VB4NC6MD",
    "f1f836f99eee3692f09e2e8c662248b4",
    "two words",
    "9KEY",
    "",
    "K\n",
]


@pytest.mark.parametrize("pasted", PASTED)
@pytest.mark.parametrize("engine", ["openai", "vllm"])
@pytest.mark.parametrize("by", ["file", "environment"])
def test_a_key_in_place_of_the_name_of_its_variable_is_refused_and_never_repeated(
    load: Load, pasted: str, engine: str, by: str
) -> None:
    models = json.dumps({"up": {"api_key_env": pasted, "engine": engine, "base_url": "http://127.0.0.1:9/v1"}})
    with pytest.raises(BadFile) as caught:
        load(*([f"models: {models}"] if by == "file" else []), **({} if by == "file" else {"TURNOUT_MODELS": models}))

    [fault] = caught.value.faults
    assert "models.up.api_key_env: " in fault.message
    assert "the name of the variable that holds the key, such as OPENAI_API_KEY" in fault.fix
    assert len(pasted) < 5 or pasted[:8] not in str(caught.value)


@pytest.mark.parametrize("value", [f"[{PASTED[0]}]", f"{{a: {PASTED[0]}}}", "5"])
def test_what_is_no_text_in_place_of_a_variables_name_is_not_repeated_either(load: Load, value: str) -> None:
    with pytest.raises(BadFile) as caught:
        load(f"models: {{up: {{engine: openai, base_url: 'http://up/v1', api_key_env: {value}}}}}")

    assert RANDOM[:8] not in str(caught.value)
    assert "expected the name of an environment variable" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"models: {{up: {{api_key_env: {PASTED[0]}, engine: vllm, base_url: 'http://u', timeout_s: 1, timeouts: {{total_s: 2}}"
        + "}}",
        f"models: {{up: {{engine: {PASTED[0]}}}}}",
        f"models: {{up: {{engine: openai, base_url: 'https://u/v1?key={PASTED[0]}'}}}}",
        f"models: {{up: {{engine: openai, base_url: 'https://u/v1?key=hunter2-{RANDOM}'}}}}",
        f"models: {{up: {{engine: openai, base_url: 'http://u/v1', tunable: {PASTED[0]}}}}}",
        f"models: [{PASTED[0]}]",
        f"server: {PASTED[0]}",
    ],
)
def test_no_fault_of_the_settings_repeats_a_key(load: Load, text: str) -> None:
    with pytest.raises(BadFile) as caught:
        load(text)

    assert RANDOM[:8] not in str(caught.value)


LOGINS = [
    "storage: 'postgresql://user:{0}{0}{0}{0}@host/db'",
    "storage: ['postgresql://user:{0}{0}{0}@host/db']",
    "storage: 'postgresql://u:pa/{0}@h/db'",
    "models: 'postgresql://u:{0}@h/db'",
    "models: ['postgresql://u:{0}@h/db']",
    "postgresql://u:{0}@h/db",
    "- postgresql://u:{0}@h/db",
    "models: {{up: {{engine: openai, base_url: 'user:{0}@llm.example/v1'}}}}",
    "models: {{up: {{engine: openai, base_url: 'https://u:{0}/x@llm.example/v1'}}}}",
    "models: {{up: {{engine: 'https://u:{0}@llm.example/v1'}}}}",
    "models: {{'https://u:{0}@llm.example/v1': {{engine: fake}}}}",
    "fine_tuning: {{organization: 'https://u:{0}{0}{0}@llm.example/v1'}}",
    "registry: {{protected_labels: ['https://u:{0}{0}{0}@llm.example/v1']}}",
]


@pytest.mark.parametrize("text", LOGINS)
def test_no_fault_of_the_settings_repeats_a_password_or_its_beginning(load: Load, text: str) -> None:
    with pytest.raises(BadFile) as caught:
        load(text.format("letMeIn2Day"))

    assert "letme" not in str(caught.value).casefold()


def test_a_key_in_a_list_of_the_settings_is_repeated_neither_as_what_is_wrong_nor_as_its_fix(load: Load) -> None:
    with pytest.raises(BadFile) as caught:
        load(f"registry: {{protected_labels: {PASTED[4]}}}\nserver: {{allowed_hosts: {PASTED[0]}}}")

    assert len(caught.value.faults) == 2
    assert PASTED[4] not in str(caught.value)
    assert RANDOM[:8] not in str(caught.value)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "_k", "Key2", "OPENAI_API_KEY_FOR_TEAM_2024_V2"])
def test_a_name_of_a_variable_is_one(name: str) -> None:
    assert an_upstream(api_key_env=name).api_key_env == name


@pytest.mark.parametrize(("key", "fix"), [("hom", "known here: "), ("projct", "known here: "), ("servr", "'server'")])
def test_an_unknown_key_is_never_told_to_be_one_that_may_not_be_written(load: Load, key: str, fix: str) -> None:
    with pytest.raises(BadFile) as caught:
        load(f"{key}: x")

    [fault] = caught.value.faults
    assert fix in fault.fix
    assert "home" not in fault.fix
    assert "project" not in fault.fix
