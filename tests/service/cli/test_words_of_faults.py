"""No fault of an author's file comes without a fix, and none speaks of what Turnout is made of."""

from __future__ import annotations

import re
from pathlib import Path

import pydantic
import pytest

from prompts.errors import BadFile, Fault
from prompts.wording import ANY_FIX
from service.cli.project import Project
from service.settings import load_settings

# Lines that are bad in place of what a good file has there, by the kind of file; `CASE` is the first of a suite's tests.
PROMPT = [
    "model: 5", "model: [a]", "model: {a: 1}", "messages: 5", "messages: [5]",
    "messages: [{role: robot, content: x}]", "messages: [{role: user}]", "messages: [{role: user, content: 5}]",
    "messages: [{role: user, content: {a: 1}}]", "messages: [{role: user, content: [5]}]",
    "messages: [{role: user, content: [{type: imag}]}]", "labels: production", "labels: [5]", "labels: ['Bad Label']",
    "labels: {a: 1}", "variables: {t: {type: strin}}", "variables: [t]", "variables: t", "variables: {t: 5}",
    "variables: {t: {type: string, maxLength: x}}", "variables: {'a-b': {type: string}}", "modelParameters: 5",
    "modelParameters: {temperature: hot}", "modelParameters: {temperature: 9}", "modelParameters: {max_tokens: 1.5}",
    "modelParameters: {max_tokens: 0}", "modelParameters: {foo: 1}", "modelParameters: {stop: 5}",
    "responseFormat: xml", "responseFormat: json_schema", "responseFormat: 5", "jsonSchema: 5", "jsonSchema: '{'",
    "name: 5", "name: []", "description: 5", "tags: x", "tags: [5]", "notes: [1]", "repair: 9", "repair: x",
    "examples: 5", "examples: [5]", "placeholders: [h]", "placeholders: {h: 5}",
    "placeholders: {h: {maxMessages: x}}", "tools: 5", "tools: [5]", "toolChoice: 5", "toolChoice: maybe",
    "testData: 5", "testData: [5]", "evaluators: 5", "evaluators: [{name: a}]",
    "evaluators: [{name: a, string: {x: 1}}]", "modl: x", "messages:", "messages: []", "labels:", "variables:",
]  # fmt: skip
SUITE = [
    "prompt: 5", "prompt: hello.capital@2", "prompt: Hello", "prompt: [a]", "prompt:", "thresholds: 5",
    "thresholds: [1]", "thresholds: {pass_rate: 90}", "thresholds: {pass_rate: high}",
    "thresholds: {p95_latency_ms: -1}", "thresholds: {cost_per_1k_usd: x}", "thresholds: {metrics: 5}",
    "thresholds: {metrics: {a: 9}}", "thresholds: {tags: [a]}", "thresholds: {passrate: 1}", "gate: 5",
    "gate: {alpha: x}", "gate: {on: scores}", "gate: {min_cases: 0}", "gate: {min_cases: x}", "gate: {margin: [1]}",
    "repeat: x", "repeat: 0", "repeat: 1.5", "pass_k: x", "pass_k: 3", "repeat: 2\npass_k: 3",
    "schedule: '61 3 * * *'", "schedule: '@daily'", "schedule: 5", "schedule: [a]", "schedule: ''", "defaultTest: 5",
    "defaultTest: [1]", "defaultTest: {assert: 5}", "defaultTest: {vars: 5}", "defaultTest: {options: 5}",
    "defaultTest: {threshold: x}", "fallback: never", "fallback: 5", "fallback: {when: sometimes}",
    "fallback: {when: 5}", "fallback: {base_model: 5}", "fallback: {rollout: 5}", "fallback: {rollout: [x]}",
    "fallback: {rollout: []}", "fallback: {recipe: 5}", "fallback: {recipe: {lr: x}}",
    "fallback: {recipe: {rank: 0.5}}", "fallback: {recipe: {seed: }}", "fallback: {recipe: {epoch: 3}}",
    "fallback: {budget: 5}", "fallback: {budget: {attempts: 9}}",
    "fallback: {budget: {attempts: x}}", "fallback: {budget: {minutes: x}}", "training: 5", "training: {examples: 5}",
    "training: {examples: [5]}", "training: {examples: [{vars: 5, expected: x}]}",
    "training: {examples: [{vars: {}, expected: 5}]}", "training: {examples: [{expected: a}]}", "judge: 5",
    "judge: {model: 5}", "judge: {votes: 2}", "judge: {votes: x}", "judge: {floor: 5}", "judge: {floor: {}}",
    "judge: {floor: {kappa: 2}}", "judge: {calibration: 5}", "judge: {calibration: [{output: 5, label: maybe}]}",
    "description: 5", "tests: 5", "tests: [5]", "tests: x", "tests: []", "tests:",
]  # fmt: skip
CASE = [
    "vars: 5", "vars: [a]", "assert: 5", "assert: {a: 1}", "assert: [5]", "assert: [{type: equals}]",
    "assert: [{value: x}]", "assert: [{type: 5}]", "assert: [{type: equals, value: x, metric: 1}]",
    "assert: [{type: equals, value: x, metric: [a]}]", "assert: [{type: equals, value: x, weight: heavy}]",
    "assert: [{type: equals, value: x, weight: -1}]", "assert: [{type: equals, value: x, threshold: x}]",
    "assert: [{type: regex, value: '('}]", "assert: [{type: contains-any, value: 5}]",
    "assert: [{type: similar, value: x, threshold: 3}]", "assert: [{type: assert-set, assert: 5}]",
    "assert: [{type: assert-set}]", "assert: [{type: is-json, value: 5}]", "assert: [{type: cost, threshold: x}]",
    "assert: [{type: cost}]", "assert: [{type: latency, threshold: x}]", "assert: [{type: javascript, value: 5}]",
    "assert: [{type: llm-rubric}]", "assert: [{type: llm-rubric, value: x, provider: 5}]",
    "assert: [{type: equals, value: x, transform: 5}]", "assert: [{type: equals, value: x, config: 5}]",
    "assert: [{type: contains-json, value: {type: strin}}]", "must_pass: 5", "must_pass: 'yes'", "must_pass:",
    "description: 5", "tags: x", "tags: [5]", "metadata: 7", "cluster: 5", "skip: 5",
    "skip: [1]", "threshold: x", "threshold: 5", "options: 5", "options: {transform: 5}",
    "options: {disableVarExpansion: x}", "placeholders: 5", "placeholders: {h: 5}", "asert: []", "options: {foo: 1}",
    "provider: x",
]  # fmt: skip
CONFIG = [
    "server: 5", "server: {port: x}", "server: {port: 99999}", "server: {port: [1]}", "server: {host: 5}",
    "server: {allowed_hosts: a}", "server: {allowed_hosts: [5]}", "server: {workers: 99}", "server: {drain_s: x}",
    "storage: {url: 5}", "storage: x", "retention: {request_days: 0}", "retention: {request_days: x}",
    "recording: {durable: yes}", "recording: {durable: 5}", "recording: {spool_mb: x}",
    "registry: {protected_labels: production}", "registry: {protected_labels: ['B d']}",
    "registry: {max_prompt_bytes: 1}", "assertions: {python_dirs: x}", "assertions: {python_dirs: [5]}",
    "assertions: []", "fine_tuning: {organization: 'A b'}", "fine_tuning: {models: [a]}",
    "fine_tuning: {models: {'!': a}}", "fine_tuning: {models: {a: 5}}", "models: [a]", "models: x", "models: {a: 5}",
    "models: {a: }", "models: {A: {engine: fake}}", "models: {a: {}}", "models: {a: {engine: nope}}",
    "models: {a: {engine: 5}}", "models: {a: {engine: local}}", "models: {a: {engine: local, source: 5}}",
    "models: {a: {engine: local, source: x, device: tpu}}", "models: {a: {engine: local, source: x, threads: 0}}",
    "models: {a: {engine: local, source: x, chat_template: ''}}", "models: {a: {engine: openai}}",
    "models: {a: {engine: openai, base_url: 5}}", "models: {a: {engine: openai, base_url: 'ftp://x'}}",
    "models: {a: {engine: openai, base_url: 'http://x:99999'}}",
    "models: {a: {engine: openai, base_url: 'http://x', price: 5}}",
    "models: {a: {engine: openai, base_url: 'http://x', price: {input_per_mtok: x}}}",
    "models: {a: {engine: openai, base_url: 'http://x', timeout_s: 0}}",
    "models: {a: {engine: openai, base_url: 'http://x', timeout_s: x}}",
    "models: {a: {engine: openai, base_url: 'http://x', tunable: x}}",
    "models: {a: {engine: openai, base_url: 'http://x', tunable: true}}",
    "models: {a: {engine: openai, base_url: 'http://x', timeouts: 5}}",
    "models: {a: {engine: openai, base_url: 'http://x', timeouts: {total_s: 3}, timeout_s: 4}}",
    "models: {a: {engine: openai, base_url: 'http://x', retries: {times: x}}}",
    "models: {a: {engine: openai, base_url: 'http://x', retries: {foo: x}}}",
    "models: {a: {engine: openai, base_url: 'http://x', hedge_after_ms: x}}",
    "models: {a: {engine: openai, base_url: 'http://x', breaker: 5}}",
    "models: {a: {engine: openai, base_url: 'http://x', concurrency: x}}",
    "models: {a: {engine: openai, base_url: 'http://x', api_key_env: not a name}}",
    "models: {a: {engine: fake, answers: 5}}", "models: {a: {engine: fake, answers: {a: 5}}}",
    "models: {a: {engine: fake, answers: {a: []}}}", "models: {a: {engine: fake, default: 5}}",
    "models: {a: {engine: fake, echo: maybe}}", "models: {a: {engine: fake, latency_s: x}}", "home: x", "project: x",
    "projct: x", "hom: x", "servr: {}", "zzz: 1", "models: {a: {engine: fake, context_tokens: 0}}",
]  # fmt: skip
WARNED = {"modelParameters: {foo: 1}", "evaluators: [{name: a}]", "evaluators: [{name: a, string: {x: 1}}]"}
FINE = {"variables:", "recording: {durable: yes}", "messages: [{role: user, content: [{type: imag}]}]"}
GOOD = {
    "prompt": ["model: fake", 'messages: [{role: user, content: "{{ t }} it"}]', "variables: {t: {type: string}}"],
    "suite": ["prompt: a", "tests: [{vars: {t: a}, assert: [{type: equals, value: x}]}]"],
    "case": ["vars: {t: a}", "assert: [{type: equals, value: x}]"],
    "config": ["models: {fake: {engine: fake}}"],
}
OURS = re.compile(
    r"instance of|dictionary|tuple|valid (list|string|integer|number|boolean)|<class|NoneType|pydantic"
    r"|\b(dict|str|int|float|bool)\b|(list|literal)\[|found (list|str|int)\b|[Ii]nput should|Value error"
)


def written(kind: str, line: str = "") -> str:
    """A good file of a kind with `line` in place of the one that begins with the same key."""
    kept = [good for good in GOOD[kind] if good.partition(":")[0] != line.partition(":")[0]]
    return "\n".join([*kept, *([line] if line else [])])


def faults_of(folder: Path, kind: str, line: str) -> list[Fault]:
    """The faults of a project one of whose files has a bad line; warnings of its good files aside."""
    tests = "prompt: a\ntests:\n  - " + written("case", line).replace("\n", "\n    ") if kind == "case" else None
    texts = {one: written(one, line if kind == one else "") for one in ("prompt", "suite", "config")}
    for name in ("prompts", "suites"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "prompts/a.prompt.yml").write_text(texts["prompt"])
    (folder / "suites/a.suite.yml").write_text(tests or texts["suite"])
    (folder / "turnout.yaml").write_text(texts["config"])
    try:
        settings = load_settings({"TURNOUT_HOME": str(folder / "home")}, folder)
    except BadFile as error:
        return list(error.faults)
    return list(Project(settings).examine().faults)


def records(kind: type[pydantic.BaseModel] = pydantic.BaseModel) -> set[str]:
    """The names of all records that files are read as."""
    return {kind.__name__} | {name for below in kind.__subclasses__() for name in records(below)}


@pytest.mark.parametrize(("kind", "lines"), [("prompt", PROMPT), ("suite", SUITE), ("case", CASE), ("config", CONFIG)])
def test_no_fault_is_without_a_fix_or_speaks_of_classes(tmp_path: Path, kind: str, lines: list[str]) -> None:
    ours = re.compile(r"\b(" + "|".join(name for name in sorted(records()) if re.search("[a-z][A-Z]", name)) + r")\b")
    wrong = []
    for line in lines:
        faults = faults_of(tmp_path, kind, line)
        assert any(fault.level == "error" for fault in faults) or line in WARNED | FINE, line
        for fault in faults:
            has_fix = fault.fix and fault.fix != ANY_FIX
            said = f"{fault.message} ({fault.fix})"
            if not has_fix or OURS.search(said) or ours.search(said):
                wrong.append(f"{line!r}: {fault}")
    assert wrong == []


@pytest.mark.parametrize(
    ("kind", "line", "message", "fix"),
    [
        ("prompt", "model: 5", "model: expected a text, found 5", 'write "5", in quotes'),
        ("prompt", "messages: [{role: robot, content: x}]",
         "messages.0.role: expected one of system, developer, user, assistant or tool, found 'robot'",
         "write system, developer, user, assistant or tool"),
        ("prompt", "labels: production", "labels: expected a list, found 'production'", "write [production], in brackets"),
        ("prompt", "variables: {t: {type: strin}}", "variables.t: type 'strin' is none of JSON Schema's",
         "did you mean 'string'?"),
        ("suite", 'schedule: "61 3 * * *"', "schedule: '61' is no minute, found '61 3 * * *'",
         "write *, a number from 0 to 59, a range a-b or a step /n"),
        ("suite", 'schedule: "@daily"',
         "schedule: a schedule has five fields (minute hour day month weekday), this has 1, found '@daily'",
         'write "0 0 * * *", in quotes'),
        ("suite", "fallback: {when: sometimes}",
         "fallback.when: expected one of thresholds_missed or never, found 'sometimes'",
         "write thresholds_missed or never"),
        ("suite", "fallback: never", "fallback: expected keys and values, found 'never'", "write {when: never}"),
        ("suite", "thresholds: 5", "thresholds: expected keys and values, found 5",
         "write keys and values: pass_rate, p95_latency_ms, cost_per_1k_usd, metrics, tags"),
        ("suite", "prompt: hello.capital@2",
         "prompt: 'hello.capital@2' is no prompt name: lower-case letters, digits, _ and -, with dots between parts, at most"
         " 200 characters",
         "write hello.capital: which version is tested is said where the suite is run"),
        ("case", "assert: [{type: equals, value: x, metric: 1}]",
         "tests.0.assert.0.metric: expected a text, found 1", 'write "1", in quotes'),
        ("prompt", "jsonSchema: 5", "jsonSchema: expected keys and values or a text, found 5",
         'write `key: value` lines, or {key: value}, or write "5", in quotes'),
        ("config", "models: {a: 5}", "models.a: expected keys and values, found 5", "write keys and values: engine"),
        ("config", "models: {a: {engine: openai, base_url: 'http://x', api_kye_env: K}}",
         "unknown key 'models.a.api_kye_env'", "did you mean 'api_key_env'?"),
        ("prompt", "messages: [{role: user, content: x, placeholder: h}]",
         "'messages.0.content' does not go with `placeholder`", "remove one of the two, or write two items"),
        ("prompt", "messages: [{role: user, contnt: x}]", "unknown key 'messages.0.contnt'", "did you mean 'content'?"),
        ("prompt", "messages: [{placeholdr: h}]", "unknown key 'messages.0.placeholdr'", "did you mean 'placeholder'?"),
        ("prompt", "messages: []", "messages: expected at least 1 item, found []",
         "write its items on lines after `- `: {role: …, content: …}"),
        ("prompt", "messages: hi", "messages: expected a list, found 'hi'",
         "write its items on lines after `- `: {role: …, content: …}"),
        ("prompt", "messages: [5]", "messages.0: expected keys and values, found 5",
         "write keys and values: role, content, or placeholder"),
        ("prompt", "model: ''", "model: a text is needed, found ''", "fill it in"),
        ("config", "models: {fake: {engine: fake, answers: {a: []}}}",
         "models.fake.answers.a: expected a text or at least 1 item, found []",
         "write one text, in quotes, or fill it in, or leave the key out"),
        ("prompt", "tools: find", "tools: expected a list, found 'find'",
         "write its items in [ ], or on lines after `- `"),
        ("prompt", "labels: [5]", "labels.0: expected a text, found 5",
         "write lower-case letters, digits, _, . and -, first a letter; `latest` is left out"),
        ("suite", "fallback: {rollout: x}", "fallback.rollout: expected a list, found 'x'",
         "write its items in [ ], or on lines after `- `"),
        ("suite", "schedule: 5", "schedule: expected a text, found 5", 'write "0 3 * * *", in quotes'),
        ("suite", "gate: {max_error_share: x}", "gate.max_error_share: a share lies between 0 and 1, found 'x'",
         "write 0.02 for 2%"),
        ("config", "models: {a: {engine: local, source: x, device: gpu}}",
         "models.a.device: expected one of auto, cpu, cuda or mps, found 'gpu'", "did you mean 'cuda'?"),
        ("config", "models: {a: {engine: local, source: x, device: cud}}",
         "models.a.device: expected one of auto, cpu, cuda or mps, found 'cud'", "did you mean 'cuda'?"),
        ("config", "models: {a: {engine: openai, base_url: 5}}", "models.a.base_url: expected a text, found 5",
         "write http(s)://host[:port]/path, without a user, password or query; a key is named by `api_key_env`"),
        ("config", "server: {workers: 99}", "server.workers: expected 16 or less, found 99", "write 16 or less"),
    ],
)  # fmt: skip
def test_the_fix_tells_what_to_write(tmp_path: Path, kind: str, line: str, message: str, fix: str) -> None:
    assert (message, fix) in [(fault.message, fault.fix) for fault in faults_of(tmp_path, kind, line)]
