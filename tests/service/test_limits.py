"""Sizes, names and bodies that nobody meant well, over HTTP and from the command line: told what is wrong, and served on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import BadFile, BadInput
from service.cli.project import Project, read_text
from service.cli.selecting import pairs
from service.settings import Settings, load_settings
from tests.service.cli.test_cli import CONFIG, PROMPT
from tests.service.cli.test_cli import Project as Folder
from tests.service.conftest import Service, make_settings, triage

VERSIONS = "/api/prompts/{}/versions"
MEGABYTE = "word " * 200_000
ECHO = {"echo": {"engine": "fake", "echo": True}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`triage` in production."""
    settings = make_settings(tmp_path_factory.mktemp("home"))
    settings = settings.model_copy(update={"models": settings.models | Settings.model_validate(
        {"home": settings.home, "project": settings.home, "models": ECHO}).models})  # fmt: skip
    with Service(settings).running() as service:
        service.push()
        service.produce(1)
        yield service


def send(service: Service, path: str, body: bytes | str, role: str = "author", method: str = "POST") -> Any:
    headers = {"content-type": "application/json"}
    return service.call(method, path, role, content=body, headers=headers)


def serves(service: Service) -> bool:
    body = {"model": "support.triage", "variables": {"ticket": "I was charged"}}
    answer = service.call("POST", "/v1/chat/completions", "app", json=body)
    return bool(answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"] == "billing")


# ---------------------------------------------------------------------------- sizes


@pytest.mark.integration
def test_a_prompt_of_a_megabyte_is_pushed_rendered_and_answered(service: Service) -> None:
    messages = [{"role": "system", "content": MEGABYTE}, {"role": "user", "content": "{{ ticket }}"}]
    service.push("large", triage(messages=messages, model="echo"))
    service.produce(1, "large")

    shown = service.call("POST", "/api/prompts/large/render", "app", json={"variables": {"ticket": "x"}}).json()
    body = {"model": "large", "variables": {"ticket": "x"}}
    answer = service.call("POST", "/v1/chat/completions", "app", json=body)

    assert shown["messages"] == [{"role": "system", "content": MEGABYTE}, {"role": "user", "content": "x"}]
    assert (answer.status_code, answer.json()["turnout"]["prompt"]) == (200, "large")


def test_a_default_and_a_value_of_a_megabyte_are_rendered(service: Service) -> None:
    service.push("default", triage(variables={"ticket": {"type": "string", "default": MEGABYTE}}))
    service.produce(1, "default")

    for variables, text in (({}, MEGABYTE), ({"ticket": MEGABYTE + "!"}, MEGABYTE + "!")):
        shown = service.call("POST", "/api/prompts/default/render", "app", json={"variables": variables}).json()
        assert shown["messages"][1]["content"] == text


@pytest.mark.parametrize("path", [VERSIONS.format("huge"), "/api/push"])
def test_a_prompt_over_the_limit_is_refused_before_anything_is_written(service: Service, path: str) -> None:
    huge = triage(description="é" * (2 * 1024 * 1024))
    body = huge if path != "/api/push" else {"prompts": {"fine": triage(), "huge": huge}}
    answer = service.call("POST", path, "author", json=body)

    assert answer.status_code == 400
    (fault,) = answer.json()["faults"]
    assert fault["path"] == "prompt huge"
    assert fault["message"].endswith(" bytes; a prompt may have 4,194,304")
    assert fault["fix"] == "shorten it, or raise registry.max_prompt_bytes in turnout.yaml"
    assert [service.call("GET", f"/api/prompts/{name}").status_code for name in ("huge", "fine")] == [404, 404]


def test_the_limit_is_the_setting_s(tmp_path: Path) -> None:
    with Service(make_settings(tmp_path, registry={"max_prompt_bytes": 2000})).running() as service:
        service.push("fits", triage(description="a" * 1500))
        answer = service.call("POST", VERSIONS.format("over"), "author", json=triage(description="a" * 2000))
    assert answer.status_code == 400
    assert "a prompt may have 2,000 (shorten it, or raise registry.max_prompt_bytes" in answer.json()["detail"]


def test_a_body_over_the_limit_is_told_the_limit_and_its_setting(service: Service) -> None:
    answer = service.call("POST", VERSIONS.format("huge"), "author", json=triage(description="a" * 9_000_000))

    assert answer.status_code == 413
    fix = "send it with `Content-Encoding: gzip`, send less, or raise server.max_body_bytes"
    assert answer.json()["detail"] == f"the body is larger than 8,388,608 bytes: {fix}"
    assert answer.json()["type"] == "urn:turnout:error:too_large"


# ---------------------------------------------------------------------------- names

CLIMBING = ["..", "...", "a..b", ".a", "a.", "/etc/passwd", "../x", "a/../b", "./a", "C:\\x", "a\\..\\b", "a\n", "A",
            "аdmin", "ａ", "a​b", "é", "a b", "-a", "a" * 201, "", "%2e%2e", "~", "a@1", "a:b", "con.", "a+b"]  # fmt: skip


@pytest.mark.parametrize("name", CLIMBING)
def test_a_name_that_is_none_is_refused_in_a_push_and_in_an_include(service: Service, name: str) -> None:
    pushed = service.call("POST", "/api/push", "author", json={"prompts": {name: triage()}})
    assert (pushed.status_code, pushed.json()["type"]) == (400, "urn:turnout:error:bad_name")
    assert "is no prompt name: lower-case letters" in pushed.json()["detail"]

    if name.isprintable() and "@" not in name:
        text = f"{{% include {name!r} %}}".replace("\\\\", "\\")
        included = service.call("POST", VERSIONS.format("includes"), "author",
                                json=triage(messages=[{"role": "user", "content": text + "{{ ticket }}"}]))  # fmt: skip
        assert (included.status_code, included.json()["faults"][0]["path"]) == (400, "prompt includes")
        assert "is no prompt name" in included.json()["faults"][0]["message"]
    assert service.call("GET", "/api/prompts/includes").status_code == 404


NUL_AT = [
    ("POST", "/api/push", {"prompts": {"a\0": triage()}}),
    ("POST", "/api/push", {"message": "a\0"}),
    ("POST", VERSIONS.format("x"), {**triage(), "message": "\\\0"}),
    ("PUT", "/api/prompts/x/labels/staging", {"version": 1, "reason": "\0"}),
    ("PUT", "/api/suites/x", {"prompt": "x", "tests": [{"vars": {"ticket": "\0"}}]}),
    ("POST", "/api/keys", {"role": "app", "note": "a\0b"}),
    ("POST", "/api/feedback", {"completion_id": "c", "metric": "m", "value": 1, "comment": "\0"}),
]


@pytest.mark.parametrize(("method", "path", "body"), NUL_AT)
def test_a_nul_in_what_is_kept_is_refused_with_its_place(
    service: Service, method: str, path: str, body: dict[str, Any]
) -> None:
    answer = service.call(method, path, json=body)

    assert answer.status_code == 400
    place = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode().index(b"\\u0000")
    assert answer.json()["detail"] == (
        f"the body holds a NUL (\\u0000) at byte {place}, which databases cannot keep: remove it"
    )


def test_a_nul_in_a_query_is_refused(service: Service) -> None:
    service.push()
    answer = service.call("DELETE", "/api/prompts/support.triage/labels/staging?reason=a%00b")

    assert (answer.status_code, answer.json()["detail"]) == (400, "reason: a query holds no NUL: remove it")


def test_a_nul_in_what_is_kept_nowhere_and_a_text_that_only_looks_like_one_are_data(service: Service) -> None:
    service.push()
    rendered = service.call(
        "POST", "/api/prompts/support.triage/render?version=1", json={"variables": {"ticket": "\0"}}
    )
    noted = service.call("POST", "/api/keys", json={"role": "app", "note": "\\u0000"})

    assert rendered.json()["messages"][1] == {"role": "user", "content": "\0"}
    assert noted.status_code == 201


@pytest.mark.parametrize(
    "name",
    ["%2e%2e", "%2e%2e%2fx", "..%2fx", "a%2f..%2fb", "a%5c..%5cb", "%00", "a%00b", "a%0a", "%ff", "%c0%ae%c0%ae", "C%3a%5cx",
     "%252e%252e", "a%2e%2eb", ".a", "A", "%D0%B0dmin", "%EF%BD%81", "a%20b", "a" * 201],
)  # fmt: skip
def test_a_name_that_is_none_is_refused_in_a_path(service: Service, name: str) -> None:
    for method, path in (("POST", VERSIONS), ("GET", "/api/prompts/{}"), ("POST", "/api/prompts/{}/render"),
                         ("GET", "/api/suites/{}"), ("GET", "/api/routes/{}"), ("GET", "/v1/models/{}")):  # fmt: skip
        answer = send(service, path.format(name), json.dumps(triage() if path == VERSIONS else {}), "admin", method)
        assert answer.status_code in (400, 404), (path, answer.text)
    listed = [prompt["name"] for prompt in service.call("GET", "/api/prompts").json()]
    assert all(set(each) <= set("abcdefghijklmnopqrstuvwxyz.") for each in listed)


@pytest.mark.parametrize(
    "model", ["../x", "a@../x", "a@\0", "a@b@c", "\0", "a" * 10_000, "support.triage@999999999999"]
)
def test_a_model_that_is_no_name_is_refused(service: Service, model: str) -> None:
    body = {"model": model, "variables": {"ticket": "x"}}
    answer = service.call("POST", "/v1/chat/completions", "app", json=body)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["message"]


# ---------------------------------------------------------------------------- bodies

DEEP = '{"a":' * 5000 + "1" + "}" * 5000
BODIES: dict[str, tuple[bytes | str, str]] = {
    "a key twice": ('{"variables": {"a": 1}, "variables": {"a": 2}}', "the body gives 'variables' twice in one object"),
    "a key twice within": ('{"variables": {"a": 1, "a": 2}}', "the body gives 'a' twice in one object: remove one"),
    "a key twice, once escaped": (r'{"variables": {"a": 1, "\u0061": 2}}', "the body gives 'a' twice in one object"),
    "thousands of keys twice": ("{" + '"a": 1,' * 90_000 + '"b": 2}', "the body gives 'a' twice in one object"),
    "depth of objects": ('{"variables": ' + DEEP + "}", "the body nests deeper than 100 levels at byte"),
    "depth of lists": ("[" * 100_000, "the body nests deeper than 100 levels at byte 100: flatten it"),
    "millions of values": (
        '{"variables": {"a": [' + "[]," * 1_000_000 + "1]}}",
        "the body has more than 250,000 values",
    ),
    "NaN": ('{"variables": {"a": NaN}}', "the body holds NaN, which is not JSON: send a number, or text"),
    "Infinity": ('{"variables": {"a": -Infinity}}', "the body holds -Infinity, which is not JSON"),
    "a number too large": ('{"variables": {"a": 1e999}}', "out of range"),
    "a number too long": ('{"variables": {"a": ' + "9" * 5000 + "}}", "a number of too many digits: send it as text"),
    "half a character": (r'{"variables": {"a": "\ud800"}}', "the body holds half a character"),
    "not UTF-8": (b'{"variables": {"a": "\xff"}}', "the body is not UTF-8: byte 21; send JSON as UTF-8"),
    "UTF-16": ('{"variables": {}}'.encode("utf-16"), "the body is not UTF-8: byte 0; send JSON as UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "the body is not JSON: Expecting value at line 1 column 1"),
    "a NUL byte": ('{"variables": {"a": "x\0y"}}', "the body is not JSON: Invalid control character"),
    "YAML": ("variables: {a: 1}", "the body is not JSON: Expecting value at line 1 column 1"),
    "half": ('{"variables": {"a"', "the body is not JSON: Expecting ':' delimiter at line 1 column 19"),
}


@pytest.mark.parametrize(
    "path", [VERSIONS.format("bodies"), "/api/prompts/support.triage/render", "/v1/chat/completions"]
)
@pytest.mark.parametrize(("body", "reason"), BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_plain_json_is_400_and_says_why(
    service: Service, path: str, body: bytes | str, reason: str
) -> None:
    answer = send(service, path, body)

    assert answer.status_code == 400
    found = answer.json()
    message = found["error"]["message"] if path.startswith("/v1") else found["detail"]
    assert reason in message
    assert len(message) < 300


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/mixed; boundary=x", "text/plain", ""])
@pytest.mark.parametrize("name", ["a key twice", "depth of lists", "NaN"])
def test_a_body_is_held_to_the_same_whatever_its_content_type_says(service: Service, name: str, kind: str) -> None:
    body, reason = BODIES[name]
    answer = service.call("POST", VERSIONS.format("bodies"), "author", content=body, headers={"content-type": kind})

    assert (answer.status_code, reason in answer.json()["detail"]) == (400, True)


def test_a_form_is_no_way_to_keep_a_nul(service: Service) -> None:
    body = json.dumps({**triage(), "message": "\0"})
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = service.call("POST", VERSIONS.format("formed"), "author", content=body, headers=headers)

    assert (answer.status_code, "holds a NUL" in answer.json()["detail"]) == (400, True)
    assert service.call("GET", VERSIONS.format("formed"), "author").status_code == 404


BEYOND = "99999999999999999999"  # any database's whole number


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/api/jobs/job_none/events?after={BEYOND}", 400),
        (f"/api/jobs/job_none/events?after=-{BEYOND}", 400),
        (f"/api/runs/run_none/events?after={BEYOND}", 400),
        (f"{VERSIONS.format('support.triage')}/{BEYOND}", 404),
        (f"{VERSIONS.format('support.triage')}/-{BEYOND}", 404),
        (f"/api/routes/support.triage/explain?variables={'[' * 5000}", 400),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_number_or_a_depth_that_nothing_can_hold_is_no_bug_of_ours(service: Service, path: str, status: int) -> None:
    assert service.call("GET", path, "author").status_code == status


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/api/prompts/support.triage?version=1&version=2", "version"),
        ("GET", "/api/prompts/support.triage?label=latest&label=staging", "label"),
        ("POST", "/api/prompts/support.triage/render?version=1&version=2", "version"),
        ("GET", "/api/prompts/support.triage/template?label=latest&label=staging", "label"),
        ("GET", "/api/runs?suite=a&limit=1&suite=b", "suite"),
    ],
)
def test_a_query_parameter_that_is_given_twice_is_refused(service: Service, method: str, path: str, name: str) -> None:
    answer = service.call(method, path)

    assert (answer.status_code, answer.json().get("param")) == (400, name)
    assert answer.json()["detail"] == f"the query gives {name!r} twice: remove one"
    assert serves(service)
    assert service.call("GET", "/api/prompts/bodies").status_code == 404


def test_a_body_just_within_the_limits_is_read(service: Service) -> None:
    nested = "[" * 97 + "1" + "]" * 97
    service.push("nested", triage(variables={"ticket": {}}))
    service.produce(1, "nested")
    answer = send(service, "/api/prompts/nested/render", '{"variables": {"ticket": ' + nested + "}}", "app")
    assert (answer.status_code, answer.json()["messages"][1]["content"]) == (200, nested)


def test_a_value_may_hold_what_looks_like_another_key_or_bracket(service: Service) -> None:
    text = '"a": 1, "a": 2, [[[[{{{{ \\" \\u0061' * 50
    answer = service.call("POST", "/api/prompts/support.triage/render", "app", json={"variables": {"ticket": text}})
    assert answer.json()["messages"][1]["content"] == text


# ---------------------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one good prompt."""
    project = tmp_path / "project"
    (project / "prompts/support").mkdir(parents=True)
    (project / "turnout.yaml").write_text(CONFIG)
    (project / "prompts/support/triage.prompt.yml").write_text(PROMPT)
    monkeypatch.chdir(project)
    return project


def faults(folder: Path) -> list[str]:
    """What reading the project's prompts complains about."""
    project = Project(load_settings({"TURNOUT_HOME": str(folder / "home")}, folder))
    return [str(fault) for fault in project.read_prompts(project.prompt_files()).faults]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (PROMPT.encode("utf-16"), "prompts/x.prompt.yml: not UTF-8: byte 0 (save it as UTF-8)"),
        (PROMPT.encode("utf-16-le"), "prompts/x.prompt.yml:1: the file holds a NUL byte (save it as plain UTF-8 text)"),
        (PROMPT.encode() + b"\xff", f"prompts/x.prompt.yml: not UTF-8: byte {len(PROMPT)} (save it as UTF-8)"),
        (b"model: m\n\0", "prompts/x.prompt.yml:2: the file holds a NUL byte (save it as plain UTF-8 text)"),
        (b"#" * (4 * 1024 * 1024 + 1), "prompts/x.prompt.yml: has 4,194,305 bytes; a prompt may have 4,194,304"
         " (shorten it, or raise registry.max_prompt_bytes in turnout.yaml)"),
        (b"a: [" + b"[" * 100_000, "prompts/x.prompt.yml:1: aliases or nesting unfold too far"
         " (write the values out, less deeply)"),
    ],
    ids=["UTF-16", "UTF-16 without a mark", "no UTF-8", "NUL", "too large", "too deep"],
)  # fmt: skip
def test_a_file_that_is_no_prompt_is_told_why_and_hides_no_other(folder: Path, content: bytes, fault: str) -> None:
    (folder / "prompts/x.prompt.yml").write_bytes(content)
    (folder / "prompts/y.prompt.yml").write_text("modl: 1\n")
    found = faults(folder)
    assert found[0] == fault
    assert any(each.startswith("prompts/y.prompt.yml:1: unknown key 'modl'") for each in found)


def test_a_byte_order_mark_before_a_prompt_is_passed_over(folder: Path) -> None:
    (folder / "prompts/x.prompt.yml").write_bytes(b"\xef\xbb\xbf" + PROMPT.encode())
    assert faults(folder) == []


@pytest.mark.parametrize("name", ["a..b", ".a", "A", "é", "a b", "ａ", "a" * 201, "x\\y", "-a", "a@1"])
def test_a_file_whose_name_is_none_is_told_to_be_renamed(folder: Path, name: str) -> None:
    (folder / f"prompts/{name}.prompt.yml").write_text(PROMPT)
    (found,) = faults(folder)
    assert "is no prompt name: lower-case letters, digits, _ and -" in found
    assert found.endswith("(rename the file)")


def test_a_link_that_leads_out_of_the_project_is_refused_unread(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.prompt.yml").write_text("model: the secret\n")
    (folder / "prompts/x.prompt.yml").symlink_to(tmp_path / "secret.prompt.yml")
    (found,) = faults(folder)
    assert found.startswith("prompts/x.prompt.yml: is a link that leads out of the project, to ")
    assert found.endswith("(put a copy there)")
    assert "the secret" not in found


def test_a_folder_that_leads_out_of_the_project_is_not_entered(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/z.prompt.yml").write_text("modl: 1\n")
    (folder / "prompts/out").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert faults(folder) == []


def test_a_value_given_to_a_command_in_another_encoding_is_refused() -> None:
    assert pairs(["v=é 🙂"]) == {"v": "é 🙂"}
    with pytest.raises(BadInput, match="-v v: the value is not UTF-8: give it as UTF-8 text"):
        pairs(["v=x\udcff"])  # as Python reads the byte FF of a command line


def test_a_device_is_no_file() -> None:
    with pytest.raises(BadFile, match=r"x\.prompt\.yml: is no file \(name a file\)"):
        read_text(Path("/dev/zero"), "x.prompt.yml", 1000)


@pytest.mark.integration
def test_check_push_and_render_refuse_with_exit_code_2_and_write_nothing(tmp_path: Path) -> None:
    project = Folder(tmp_path)
    project.write("prompts/large.prompt.yml", f"model: model-a\nmessages: [{{role: user, content: '{MEGABYTE}'}}]\n")
    assert project.turnout("check").returncode == 0
    assert len(project.json("render", "large", "--local")["messages"][0]["content"]) == 1_000_000
    assert {entry["name"] for entry in project.json("push", "--local")} == {"large", "support.triage"}

    project.write("prompts/huge.prompt.yml", PROMPT + "description: " + "a" * (4 * 1024 * 1024) + "\n")
    project.write("prompts/fine.prompt.yml", PROMPT)
    for command in (["check"], ["push", "--local"]):
        done = project.turnout(*command)
        assert done.returncode == 2
        assert "raise registry.max_prompt_bytes in turnout.yaml" in done.stderr
    assert project.turnout("log", "fine", "--local").returncode == 2
    for selector in ("../x", "a..b", "/etc/passwd", "a@../b", "A"):
        done = project.turnout("render", selector, "--local")
        assert (done.returncode, "is no " in done.stderr) == (2, True)


_PEAK = """
import json, pathlib
from service.api.strict_json import check_json
def peak_kib():
    return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
body = json.dumps({"tests_jsonl": '{"vars": {"a": "x"}}\\n' * 100_000}).encode()
before_kib = peak_kib()
check_json(body)
print((peak_kib() - before_kib) * 1024 // len(body))
"""


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is told by Linux")
def test_looking_through_a_long_text_takes_no_room_for_each_of_its_escapes() -> None:
    done = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8  # times the bytes of the body; 29 where each escape is remembered
