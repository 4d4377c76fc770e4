from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Service, case, make_settings, suite, triage

VERSIONS = "/api/prompts/{}/versions"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`two`: two versions, 1 in production and 2 staging; `none`: a version that no label points to."""
    with Service(make_settings(tmp_path_factory.mktemp("home"))).running() as service:
        service.push("two")
        service.push("two", triage(model="model-b"))
        service.produce(1, "two")
        service.call("PUT", "/api/prompts/two/labels/staging", "author", json={"version": 2})
        service.push("none")
        yield service


def problem(answer: Any, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["type"] == f"urn:turnout:error:{kind}"
    assert body["title"]
    return body


# ---------------------------------------------------------------------------- pushing


def test_new_content_is_201_and_the_same_content_again_200_and_the_same_version(service: Service) -> None:
    first = service.call("POST", VERSIONS.format("pushed"), "author", json=triage(message="the first"))
    again = service.call("POST", VERSIONS.format("pushed"), "author", json=triage(message="again"))
    other = service.call("POST", VERSIONS.format("pushed"), "author", json=triage(model="model-b"))

    assert [answer.status_code for answer in (first, again, other)] == [201, 200, 201]
    assert first.json() == {"kind": "prompt", "name": "pushed", "version": 1, "digest": first.json()["digest"],
                            "created": True}  # fmt: skip
    assert again.json() == {**first.json(), "created": False}
    assert other.json()["version"] == 2
    assert service.call("GET", "/api/prompts/pushed/versions/1").json()["message"] == "the first"


def test_what_the_digest_does_not_cover_makes_no_new_version(service: Service) -> None:
    service.push("titled", triage(name="One title"))

    assert service.push("titled", triage(name="Another title", description="and more")) == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"modl": "model-a"}, "modl"),
        (triage(messages=[]), "messages"),
        (triage(messages=[{"role": "user", "content": "{{ queue }}"}]), "queue"),
        (triage(messages=[{"role": "user", "content": "{% for x in %}"}]), "template"),
        (triage(messages=[{"role": "user", "content": "{% include 'no.such' %}"}]), "no.such"),
        (triage(variables={"ticket": {"type": "strong"}}), "ticket"),
    ],
)
def test_content_that_cannot_be_is_400_and_writes_nothing(service: Service, data: dict[str, Any], said: str) -> None:
    body = service.call("POST", VERSIONS.format("refused"), "author", json=data)

    assert body.status_code == 400
    assert said in body.text
    assert service.call("GET", "/api/prompts/refused").status_code == 404


@pytest.mark.parametrize("name", ["Upper", "a..b", "a b", ".a", "a%00"])
def test_a_name_outside_the_grammar_is_400(service: Service, name: str) -> None:
    assert service.call("POST", VERSIONS.format(name), "author", json=triage()).status_code == 400


def test_a_push_of_several_files_tells_every_fault_and_writes_none(service: Service) -> None:
    files = {
        "prompts": {"many.a": triage(), "many.b": {"modl": 1}},
        "suites": {"many.s": {"prompt": "many.a", "tests": [], "treshold": 1}},
    }
    answer = service.call("POST", "/api/push", "author", json=files)

    body = problem(answer, 400, "bad_file")
    assert all(fault.keys() == {"path", "line", "message", "fix"} for fault in body["faults"])
    assert service.call("GET", "/api/prompts/many.a").status_code == 404


# a key of nobody's, put together here so that no scanner finds it in this file
KEY = "ghp" + "_" + "9aK2mQ7xT4vB8nL3cR6wZ1yD5fG0hJ2sP8uE"


def test_a_key_in_a_text_is_refused_over_http_unless_it_is_allowed(service: Service) -> None:
    secret = triage(messages=[{"role": "user", "content": f"Ask with {KEY} about {{{{ ticket }}}}"}])
    asked = suite(case(KEY, "billing"), prompt="keyed")

    body = problem(service.call("POST", VERSIONS.format("keyed"), "author", json=secret), 400, "bad_file")
    both = problem(
        service.call("POST", "/api/push", "author", json={"prompts": {"keyed": secret}, "suites": {"keyed": asked}}),
        400, "bad_file",
    )  # fmt: skip

    assert body["faults"] == [
        {
            "path": "prompt keyed",
            "line": 0,
            "message": "this looks like a secret: GitHub token ghp_… (40 characters)",
            "fix": "take it out, make it invalid and get a new one; what is no secret is sent with `allow_secrets: true`",
        }
    ]
    assert [fault["path"] for fault in both["faults"]] == ["prompt keyed", "suite keyed"]
    assert KEY not in str(body) + str(both)
    assert service.call("GET", "/api/prompts/keyed?version=1").status_code == 404

    allowed = service.call("POST", VERSIONS.format("keyed"), "author", json={**secret, "allow_secrets": True})
    assert allowed.status_code == 201
    refused = service.call("PUT", "/api/suites/keyed", "author", json=asked)
    taken = service.call("PUT", "/api/suites/keyed", "author", json={**asked, "allow_secrets": True})
    assert (refused.status_code, taken.status_code) == (400, 201)
    unclear = service.call("POST", VERSIONS.format("keyed"), "author", json={**secret, "allow_secrets": "yes"})
    assert problem(unclear, 400, "bad_input")["param"] == "allow_secrets"


def test_what_only_its_name_makes_a_key_is_a_warning_and_pushed(service: Service) -> None:
    named = triage(description="api_key: 9aK2mQ7xT4vB8nL3cR6wZ1yD5fG0hJ2s")

    assert service.call("POST", VERSIONS.format("named"), "author", json=named).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "detail", "param"),
    [
        ("POST", "/api/prompts/{}/render?verison=2", "unknown query parameter 'verison': give label, version", "verison"),
        ("GET", "/api/prompts?query=x", "unknown query parameter 'query': give after, label, limit, model, q, tag", "query"),
        ("GET", "/api/routes/{}?revision=1", "unknown query parameter 'revision': there are none here", "revision"),
        ("DELETE", "/api/prompts/{}/labels/staging?message=x", "unknown query parameter 'message': give reason", "message"),
    ],
)  # fmt: skip
def test_an_unknown_query_parameter_is_refused_by_its_name(
    service: Service, method: str, path: str, detail: str, param: str
) -> None:
    service.push("asked")
    more = {"json": {"variables": {"ticket": "x"}}} if method == "POST" else {}
    body = problem(service.call(method, path.format("asked"), **more), 400, "bad_input")

    assert (body["detail"], body["param"]) == (detail, param)


def test_a_body_that_is_missing_or_has_an_unknown_field_is_told_so(service: Service) -> None:
    service.push("asked")
    render = "/api/prompts/asked/render?version=1"
    missing = problem(service.call("POST", render), 400, "missing_variable")  # no body is an empty one
    unknown = problem(service.call("POST", render, json={"variabels": {}}), 400, "bad_input")
    listed = problem(service.call("POST", render, json=[]), 400, "bad_input")

    assert missing["param"] == "variables.ticket"
    assert (unknown["detail"], unknown["param"]) == ("unknown field 'variabels'", "variabels")
    assert (listed["detail"], listed["param"]) == ("the body must be a JSON object", "body")


def test_a_model_whose_alias_has_a_slash_is_found_by_it(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    alias = "openai/gpt-4o"
    settings = settings.model_copy(update={"models": {**settings.models, alias: settings.models["model-a"]}})
    with Service(settings).running() as service:
        found = [service.call("GET", f"/v1/models/{name}", "app") for name in ("openai%2Fgpt-4o", alias, "no/such")]
        assert alias in [model["id"] for model in service.call("GET", "/v1/models").json()["data"]]

    assert [answer.status_code for answer in found] == [200, 200, 404]
    assert [answer.json()["id"] for answer in found[:2]] == [alias, alias]


def test_an_include_is_pinned_when_the_version_is_made(service: Service) -> None:
    tone = {"model": "model-a", "messages": [{"role": "system", "content": "Be brief."}]}
    user = [{"role": "user", "content": "{% include 'shared.tone' %} Route: {{ ticket }}"}]
    pushed = service.call(
        "POST", "/api/push", "author", json={"prompts": {"shared.tone": tone, "shared.user": triage(messages=user)}}
    )
    assert [entry["created"] for entry in pushed.json()] == [True, True]
    service.push("shared.tone", {**tone, "messages": [{"role": "system", "content": "Be verbose."}]})

    shown = service.call(
        "POST", "/api/prompts/shared.user/render?version=1", "app", json={"variables": {"ticket": "x"}}
    )

    assert shown.json()["messages"] == [{"role": "user", "content": "Be brief. Route: x"}]


def test_labels_in_a_file_move_from_the_default_branch_alone(service: Service) -> None:
    labelled = triage(labels=["staging"])
    service.call("POST", "/api/push", "author", json={"prompts": {"branched": labelled}, "moves_labels": False})
    assert service.call("GET", "/api/prompts/branched/labels/staging").status_code == 404

    service.call("POST", "/api/push", "author", json={"prompts": {"branched": labelled}, "git_branch": "main"})
    assert service.call("GET", "/api/prompts/branched/labels/staging").json()["version"] == 1


def test_a_suite_with_a_file_reference_is_refused_by_the_server(service: Service) -> None:
    data = {"prompt": "two", "tests": "file:///etc/passwd"}

    assert service.call("PUT", "/api/suites/peek", "author", json=data).status_code == 400


def test_a_suite_of_many_cases_is_sent_as_lines_and_is_the_suite_of_its_list(service: Service) -> None:
    words = {"type": "contains-any", "value": ["x"] * 500}
    cases = [{"vars": {"ticket": f"n {n}"}, "assert": [words]} for n in range(600)]  # 300,000 values
    assert service.call("PUT", "/api/suites/lines", "author", json={"prompt": "two", "tests": cases}).status_code == 400

    data = {"prompt": "two", "tests_jsonl": "\n".join(map(json.dumps, cases))}
    assert service.call("PUT", "/api/suites/lines", "author", json=data).status_code == 201
    few = {"prompt": "two", "tests_jsonl": "\n".join(map(json.dumps, cases[:300]))}
    written = service.call("PUT", "/api/suites/lines", "author", json=few).json()
    listed = service.call("PUT", "/api/suites/lines", "author", json={"prompt": "two", "tests": cases[:300]})
    assert (listed.status_code, listed.json()["digest"]) == (200, written["digest"])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "not valid JSON"),
        ('"file:///etc/passwd"', "file:// is read by the command line alone"),
        ('{"vars": {"a": "file:///etc/passwd"}}', "file:// is read by the command line alone"),
        ('{"vars": {"a": "\\u0000"}}', "holds a NUL, or half a character"),
        ('{"vars": {"\\ud800": "a"}}', "holds a NUL, or half a character"),
        ('{"vars": {"a": 1, "a": 2}}', "duplicate key 'a'"),
        ('{"vars": {"a": NaN}}', "NaN is not JSON"),
        ('{"vras": {}}', "did you mean 'vars'?"),
        ("[" * 200 + "]" * 200, "nests deeper"),
        ("", "a suite needs tests"),
    ],
)  # fmt: skip
def test_every_line_of_a_suite_is_held_to_what_a_body_is(service: Service, line: str, told: str) -> None:
    answer = service.call("PUT", "/api/suites/held", "author", json={"prompt": "two", "tests_jsonl": line})
    assert answer.status_code == 400
    assert told in answer.text


def test_a_suite_has_its_cases_as_a_list_or_as_lines_and_not_both(service: Service) -> None:
    for data in ({"tests": [], "tests_jsonl": "{}"}, {"tests_jsonl": [1]}):
        answer = service.call("PUT", "/api/suites/held", "author", json={"prompt": "two", **data})
        assert answer.status_code == 400
        assert "`tests_jsonl` is one text, a case on each line" in answer.text


def test_suites_are_versioned_like_prompts(service: Service) -> None:
    data = {**suite(case("charged", "billing")), "prompt": "two"}
    first = service.call("PUT", "/api/suites/kept", "author", json=data)
    again = service.call("PUT", "/api/suites/kept", "author", json=data)
    other = service.call("PUT", "/api/suites/kept", "author", json={**data, "thresholds": {"pass_rate": 0.5}})

    assert [answer.status_code for answer in (first, again, other)] == [201, 200, 201]
    assert service.call("GET", "/api/suites/kept").json()["number"] == 2
    assert service.call("GET", "/api/suites/kept?version=1").json()["digest"] == first.json()["digest"]
    assert service.call("GET", "/api/suites/kept?version=3").status_code == 404
    assert [row["number"] for row in service.call("GET", "/api/suites").json() if row["name"] == "kept"] == [2, 1]


# ---------------------------------------------------------------------------- selecting


@pytest.mark.parametrize(
    ("query", "version"),
    [("", 1), ("?label=production", 1), ("?label=staging", 2), ("?label=latest", 2), ("?version=2", 2)],
)
def test_a_selector_means_one_version(service: Service, query: str, version: int) -> None:
    body = service.call("GET", f"/api/prompts/two{query}", "author").json()

    assert (body["name"], body["version"]) == ("two", version)
    assert body.keys() >= {"digest", "messages", "variables", "model", "parameters", "author", "created_at", "message"}


@pytest.mark.parametrize("path", ["/api/prompts/two?version=1&label=staging", "/api/prompts/two?version=0"])
def test_a_selector_that_says_two_things_or_nonsense_is_400(service: Service, path: str) -> None:
    assert service.call("GET", path).status_code == 400


@pytest.mark.parametrize(
    "path",
    ["/api/prompts/no.such", "/api/prompts/two?version=3", "/api/prompts/two?label=nightly", "/api/prompts/none",
     "/api/prompts/two/versions/3", "/api/prompts/no.such/versions", "/api/prompts/two/labels/nightly",
     "/api/prompts/two/diff?a=1&b=3", "/api/prompts/two/labels/nightly/history", "/api/suites/no.such"],
)  # fmt: skip
def test_what_is_missing_is_404_and_never_another_version(service: Service, path: str) -> None:
    problem(service.call("GET", path), 404, "not_found")


def test_prompts_are_listed_with_their_newest_version_and_labels(service: Service) -> None:
    listed = {entry["name"]: entry for entry in service.call("GET", "/api/prompts").json()}

    about = {"title": "Ticket triage", "description": None, "tags": []}
    assert listed["two"] == {"name": "two", "latest": 2, "labels": {"production": 1, "staging": 2}, "model": "model-b",
                             **about}  # fmt: skip
    assert listed["none"] == {"name": "none", "latest": 1, "labels": {}, "model": "model-a", **about}


def test_a_search_names_its_next_page(service: Service) -> None:
    for name in ("found.a", "found.b"):
        service.push(name, triage(description="A needle."))

    first = service.call("GET", "/api/prompts?q=needle&limit=1", "author")
    rest = service.call("GET", first.headers["link"].partition(">")[0][1:], "author")
    last = service.call("GET", rest.headers["link"].partition(">")[0][1:], "author")

    assert first.headers["link"] == '</api/prompts?q=needle&limit=1&after=found.a>; rel="next"'
    assert [[entry["name"] for entry in page.json()] for page in (first, rest, last)] == [["found.a"], ["found.b"], []]
    assert "link" not in last.headers


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", f"q={'x' * 201}", "q=%00", "tag=%00", "after=%00"])
def test_a_search_that_cannot_be_is_400(service: Service, query: str) -> None:
    assert service.call("GET", f"/api/prompts?{query}", "author").status_code == 400


def test_versions_are_listed_newest_first_with_the_labels(service: Service) -> None:
    body = service.call("GET", "/api/prompts/two/versions").json()

    assert [version["version"] for version in body["versions"]] == [2, 1]
    assert body["labels"] == {"production": 1, "staging": 2, "latest": 2}
    assert "messages" not in body["versions"][0]


def test_a_diff_names_what_changed(service: Service) -> None:
    body = service.call("GET", "/api/prompts/two/diff?a=production&b=2").json()

    assert (body["a"], body["b"], body["same"]) == (1, 2, False)
    assert body["fields"]["model"] == ["model-a", "model-b"]


def test_a_history_is_cut_where_it_is_asked_to_be(service: Service) -> None:
    body = service.call("GET", "/api/prompts/two/versions?limit=1").json()

    assert [version["version"] for version in body["versions"]] == [2]
    assert service.call("GET", "/api/prompts/two/versions?limit=0").status_code == 400


def test_versions_are_listed_with_their_newest_run_of_each_suite(service: Service) -> None:
    service.push("measured")
    service.produce(1, "measured")
    service.put_suite("measured.s", {**suite(case("charged", "billing"), case("x", "y")), "prompt": "measured"})
    for _ in range(2):
        job = service.work(service.call("POST", "/api/runs", json={"suite": "measured.s"}).json()["job_id"])
    service.push("measured", triage(model="model-b"))

    newest, first = service.call("GET", "/api/prompts/measured/versions").json()["versions"]

    assert newest["runs"] == []
    [run] = first["runs"]
    assert run["run_id"] == job["result"]["run_id"]
    shown = {key: run[key] for key in ("suite", "suite_version", "variant", "total", "passed", "failed", "pass_rate")}
    assert shown == {"suite": "measured.s", "suite_version": 1, "variant": "measured@1+model-a", "total": 2, "passed": 1,
                     "failed": 1, "pass_rate": 0.5}  # fmt: skip
    assert run["ci95"] == pytest.approx([0.0945, 0.9055], abs=1e-4)


def test_a_diff_with_variables_shows_what_both_versions_render(service: Service) -> None:
    service.push("worded")
    kinder = [{"role": "system", "content": "Kindly route the ticket."}, {"role": "user", "content": "{{ ticket }}"}]
    service.push("worded", triage(messages=kinder))
    path = "/api/prompts/worded/diff?a=1&b=latest"

    answer = service.call("POST", path, "author", json={"variables": {"ticket": "late"}})

    body = answer.json()
    assert answer.status_code == 200
    assert {key: body[key] for key in ("name", "a", "b", "same")} == {"name": "worded", "a": 1, "b": 2, "same": False}
    assert body["rendered"]["b"] == [
        {"role": "system", "content": "Kindly route the ticket."},
        {"role": "user", "content": "late"},
    ]
    assert [change["kind"] for change in body["rendered"]["message_changes"]] == ["changed"]
    assert {**body, "rendered": None} == {**service.call("GET", path).json(), "rendered": None}
    refused = service.call("POST", path, "author", json={"variables": {}})
    assert (refused.status_code, refused.json()["param"]) == (400, "variables.ticket")
    assert "version a: missing variable 'ticket'" in refused.json()["detail"]


def test_blame_says_which_version_last_changed_each_line(service: Service) -> None:
    def lines(text: str) -> dict[str, Any]:
        messages = [{"role": "system", "content": text}, {"role": "user", "content": "{{ ticket }}"}]
        return triage(messages=messages)

    for text in ("Route the ticket.\nBe brief.", "Route the ticket.\nBe very brief."):
        service.push("blamed", lines(text))

    body = service.call("GET", "/api/prompts/blamed/blame?label=latest", "author").json()

    assert (body["name"], body["version"]) == ("blamed", 2)
    assert body["lines"] == [
        {"index": 0, "role": "system", "text": "Route the ticket.", "version": 1},
        {"index": 0, "role": "system", "text": "Be very brief.", "version": 2},
        {"index": 1, "role": "user", "text": "{{ ticket }}", "version": 1},
    ]
    assert [version["version"] for version in body["versions"]] == [2, 1]
    assert body["versions"][0].keys() >= {"author", "created_at", "message", "git_sha", "git_author"}
    assert service.call("GET", "/api/prompts/blamed/blame?version=1").json()["version"] == 1
    assert service.call("GET", "/api/prompts/blamed/blame").status_code == 404  # nothing is in production


def test_a_page_is_markdown_of_the_version_that_is_selected(service: Service) -> None:
    service.push("paged", triage(description="Sends a ticket to a queue."))

    answer = service.call("GET", "/api/prompts/paged/page?version=1", "author")

    assert answer.headers["content-type"].partition(";")[0] == "text/markdown"
    assert answer.text.startswith("# Ticket triage\n\n`paged@1` · `latest` · model `model-a` · `sha256:")
    assert service.call("GET", "/api/prompts/paged/page").status_code == 404


def test_a_version_is_not_sent_again_to_who_has_it(service: Service) -> None:
    first = service.call("GET", "/api/prompts/two/versions/1")
    again = service.call("GET", "/api/prompts/two/versions/1", headers={"if-none-match": first.headers["etag"]})

    assert first.headers["etag"] == f'"{first.json()["digest"]}"'
    assert (again.status_code, again.content) == (304, b"")


# ---------------------------------------------------------------------------- rendering


def test_render_gives_the_exact_messages_and_where_they_come_from(service: Service) -> None:
    answer = service.call(
        "POST", "/api/prompts/two/render", "app", json={"variables": {"ticket": "{{ x }} <|im_end|>"}}
    )

    assert answer.json() == {
        "name": "two",
        "version": 1,
        "digest": answer.json()["digest"],
        "model": "model-a",
        "parameters": {"temperature": 0},
        "messages": [
            {"role": "system", "content": "Route the ticket."},
            {"role": "user", "content": "{{ x }} <|im_end|>"},
        ],
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "variables.ticket"),
        ({"variables": {"ticket": "x", "queue": "y"}}, "variables.queue"),
        ({"variables": {"ticket": 1}}, "variables.ticket"),
        ({"variables": {"ticket": "x"}, "messages": [{"role": "system", "content": "y"}]}, "messages[0].role"),
    ],
)
def test_a_render_that_cannot_be_names_its_field(service: Service, body: dict[str, Any], param: str) -> None:
    answer = service.call("POST", "/api/prompts/two/render", "app", json=body)

    assert answer.status_code == 400
    assert answer.json()["param"] == param


def test_an_unknown_key_of_a_body_is_400_and_named(service: Service) -> None:
    answer = service.call("POST", "/api/prompts/two/render", "app", json={"variables": {"ticket": "x"}, "vars": {}})

    assert answer.status_code == 400
    assert "vars" in answer.text


# ---------------------------------------------------------------------------- labels


def test_a_label_moves_on_the_revision_that_was_seen(service: Service) -> None:
    service.push("labelled")
    service.push("labelled", triage(model="model-b"))
    path = "/api/prompts/labelled/labels/canary"

    def move(version: int, **headers: str) -> Any:
        return service.call("PUT", path, "author", json={"version": version}, headers=headers)

    made = move(1, **{"if-none-match": "*"})
    assert (made.status_code, made.headers["etag"], made.json()["revision"]) == (200, '"1"', 1)
    problem(move(2, **{"if-none-match": "*"}), 412, "revision_mismatch")
    moved = move(2, **{"if-match": made.headers["etag"]})
    assert moved.headers["etag"] == '"2"'
    problem(move(1, **{"if-match": made.headers["etag"]}), 412, "revision_mismatch")
    problem(move(1, **{"if-match": "nonsense"}), 412, "revision_mismatch")
    assert move(1).json()["revision"] == 3
    assert service.call("GET", path).headers["etag"] == '"3"'


@pytest.mark.parametrize("label", ["Upper", "a%00", "1st"])
@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_a_label_outside_the_grammar_is_400(service: Service, method: str, label: str) -> None:
    body = {"json": {"version": 1}} if method == "PUT" else {}
    assert service.call(method, f"/api/prompts/two/labels/{label}", **body).status_code == 400
    assert service.call("GET", f"/api/prompts/two/labels/{label}/history").status_code == 400
    assert service.call("POST", f"/api/prompts/two/labels/{label}/undo").status_code == 400


def test_latest_has_no_moves_of_its_own(service: Service) -> None:
    assert service.call("GET", "/api/prompts/two/labels/latest").status_code == 404
    assert service.call("PUT", "/api/prompts/two/labels/latest", json={"version": 1}).status_code == 400
    assert service.call("POST", "/api/prompts/two/labels/latest/undo").status_code == 400


def test_a_labels_history_says_who_moved_it_and_why(service: Service) -> None:
    service.push("told")
    service.call("PUT", "/api/prompts/told/labels/canary", "author", json={"version": 1, "reason": "try it"})
    service.call("DELETE", "/api/prompts/told/labels/canary?reason=enough", "author")

    history = service.call("GET", "/api/prompts/told/labels/canary/history").json()

    assert [(move["from_version"], move["to_version"], move["reason"]) for move in history] == [
        (1, None, "enough"),
        (None, 1, "try it"),
    ]
    assert {move["actor"] for move in history} == {service.ids["author"]}


def test_a_removed_label_is_404_at_once(service: Service) -> None:
    service.push("gone")
    service.call("PUT", "/api/prompts/gone/labels/canary", "author", json={"version": 1})
    render = "/api/prompts/gone/render?label=canary"
    assert service.call("POST", render, "app", json={"variables": {"ticket": "x"}}).status_code == 200

    assert service.call("DELETE", "/api/prompts/gone/labels/canary", "author").status_code == 204

    assert service.call("POST", render, "app", json={"variables": {"ticket": "x"}}).status_code == 404
    assert service.call("GET", "/api/prompts/gone/labels/canary").status_code == 404


def test_production_is_refused_to_an_author_without_a_gate(service: Service) -> None:
    answer = service.call(
        "PUT", "/api/prompts/two/labels/production", "author", json={"version": 2, "reason": "please"}
    )

    problem(answer, 403, "needs_evidence")
    assert service.call("GET", "/api/prompts/two/labels/production").json()["version"] == 1


def test_a_label_to_a_version_that_does_not_exist_is_404(service: Service) -> None:
    answer = service.call("PUT", "/api/prompts/two/labels/canary", "author", json={"version": 9})

    problem(answer, 404, "not_found")
