"""One comment of a pull or merge request: what it says, that it is found again, and what a forge may answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.cli.commenting import FORK, read_told, with_name
from service.cli.forge_notes import ATTEMPTS, Forge, NotAllowed, notes_of
from service.cli.forges import Change, change_of
from service.errors import CannotRun
from tests.service.cli.projects import Project

SHA, OTHER = "1" * 40, "2" * 40
BODY = "<!-- turnout:gate -->\n## it passed\n"
PULL = {
    "number": 7,
    "base": {"ref": "main", "sha": SHA, "repo": {"full_name": "acme/bot"}},
    "head": {"ref": "more", "sha": OTHER, "repo": {"full_name": "acme/bot"}},
}
GITHUB = Change("github", "pull_request", "acme/bot", number=7, head=OTHER)
GITLAB = Change("gitlab", "pull_request", "42", number=7, head=OTHER)


class Api:
    """A forge's comments over HTTP: as GitHub has them, or GitLab, which calls the author otherwise."""

    def __init__(self, kind: str = "github", own: str | None = None) -> None:
        self.own = own
        self.is_github = kind == "github"
        self.rows: list[dict[str, Any]] = []
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda request: None
        self.lost_answers = 0

    def add(self, body: str, author: str, kind: str = "User") -> int:
        who = {"user": {"login": author, "type": kind}} if self.is_github else {"author": {"username": author}}
        self.rows.append({"id": len(self.rows) + 1, "body": body, "html_url": f"https://x/{len(self.rows) + 1}", **who})
        return len(self.rows)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append((request.method, request.url.path))
        early = self.before(request)
        if early is not None:
            return early
        if request.url.path.endswith("/user"):
            name = "login" if self.is_github else "username"
            return httpx.Response(200, json={name: self.own}) if self.own else httpx.Response(403, json={})
        if request.method == "GET":
            page, size = (int(request.url.params[name]) for name in ("page", "per_page"))
            return httpx.Response(200, json=self.rows[(page - 1) * size : page * size])
        body = json.loads(request.content)["body"]
        if request.method == "POST":
            found = self.rows[self.add(body, self.own or "github-actions[bot]", "Bot") - 1]
        else:
            found = self.rows[int(request.url.path.rpartition("/")[2]) - 1]
            found["body"] = body
        if self.lost_answers:
            self.lost_answers -= 1
            return httpx.Response(502)
        return httpx.Response(200 if request.method != "POST" else 201, json=found)

    def notes(self, change: Change = GITHUB) -> Forge:
        tokens = {"GITHUB_TOKEN": "t", "TURNOUT_GITLAB_TOKEN": "t"}
        return notes_of(change, tokens, httpx.MockTransport(self))


# ---------------------------------------------------------------------------- which comment


@pytest.mark.parametrize(("kind", "change", "own"), [("github", GITHUB, None), ("gitlab", GITLAB, "project_bot")])
def test_the_first_push_writes_a_comment_and_the_next_one_changes_it(
    kind: str, change: Change, own: str | None
) -> None:
    api = Api(kind, own)
    api.add("looks good", "ann")
    api.notes(change).put(BODY)
    api.notes(change).put(BODY.replace("passed", "failed"))
    assert [row["body"] for row in api.rows] == ["looks good", BODY.replace("passed", "failed")]


def test_the_comment_is_found_behind_more_than_a_page_of_others() -> None:
    api = Api()
    for number in range(230):
        api.add(f"comment {number}", "ann")
    api.notes().put(BODY)
    api.add("and one more", "ann")
    api.notes().put(BODY + "again\n")
    assert len(api.rows) == 232
    assert api.rows[230]["body"] == BODY + "again\n"


def test_a_person_who_writes_the_marker_is_not_overwritten() -> None:
    api = Api()
    api.add(BODY, "mallory")
    api.notes().put(BODY + "new\n")
    assert [row["body"] for row in api.rows] == [BODY, BODY + "new\n"]


def test_with_a_persons_token_it_is_that_persons_comment() -> None:
    api = Api(own="ann")
    api.add(BODY, "github-actions[bot]", "Bot")
    api.notes().put(BODY + "new\n")
    api.notes().put(BODY + "newer\n")
    assert [row["body"] for row in api.rows] == [BODY, BODY + "newer\n"]


def test_gates_of_other_names_have_comments_of_their_own() -> None:
    api = Api()
    api.notes().put(with_name(BODY, "gate"))
    api.notes().put(with_name(BODY, "nightly"))
    api.notes().put(with_name(BODY + "x", "gate"))
    assert [row["body"].partition("\n")[0] for row in api.rows] == ["<!-- turnout:gate -->", "<!-- turnout:nightly -->"]


# ---------------------------------------------------------------------------- what a forge may answer


def test_an_answer_that_is_lost_doubles_no_comment() -> None:
    api = Api()
    api.lost_answers = 1
    slept: list[float] = []
    api.notes().put(BODY, slept.append)
    assert (len(api.rows), slept) == (1, [1.0])


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_forge_that_fails_is_asked_again_and_then_told(status: int) -> None:
    api = Api()
    api.before = lambda request: httpx.Response(status, headers={"retry-after": "3"} if status == 429 else {})
    slept: list[float] = []
    with pytest.raises(CannotRun, match=f"took no comment in {ATTEMPTS} attempts: GET /user: HTTP {status}"):
        api.notes().put(BODY, slept.append)
    assert slept == ([3.0, 3.0, 3.0] if status == 429 else [1.0, 2.0, 4.0])


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>a proxy</html>"), httpx.Response(200, json=["x"])])
@pytest.mark.parametrize("path", ["/user", "/comments"])
def test_what_is_no_forges_api_is_told_and_no_fault_of_ours(answer: httpx.Response, path: str) -> None:
    api = Api()
    wrong = answer if path == "/user" else httpx.Response(200, text=answer.text.replace("[", "{").replace("]", "}"))
    api.before = lambda request: wrong if request.url.path.endswith(path) else None
    with pytest.raises(CannotRun, match="is it a forge's API"):
        api.notes().put("<!-- x -->")


def test_a_connection_that_breaks_is_tried_again() -> None:
    api = Api()
    broken = iter([True, True])

    def once(request: httpx.Request) -> None:
        if next(broken, False):
            raise httpx.ConnectError("no route")

    api.before = once
    api.notes().put(BODY, lambda pause_s: None)
    assert len(api.rows) == 1


def test_a_token_that_may_only_read_is_told_with_the_fix() -> None:
    api = Api()
    api.before = lambda request: httpx.Response(403, json={}) if request.method == "POST" else None
    with pytest.raises(NotAllowed, match="permissions: pull-requests: write"):
        api.notes().put(BODY)


@pytest.mark.parametrize(("change", "fix"), [(GITHUB, "no GITHUB_TOKEN"), (GITLAB, "CI_JOB_TOKEN may write no notes")])
def test_no_token_is_told_with_where_it_comes_from(change: Change, fix: str) -> None:
    with pytest.raises(NotAllowed, match=fix):
        notes_of(change, {"CI_JOB_TOKEN": "x"})


# ---------------------------------------------------------------------------- what a job was started for


def github(tmp_path: Path, name: str, event: Any) -> Change:
    path = tmp_path / "event.json"
    path.write_text(json.dumps(event))
    environ = {"GITHUB_EVENT_PATH": str(path), "GITHUB_EVENT_NAME": name, "GITHUB_REPOSITORY": "acme/bot"}
    found = change_of({**environ, "GITHUB_RUN_ID": "9"})
    assert found is not None
    return found


def test_a_pull_request_is_compared_with_its_branch_or_the_commit_of_the_event(tmp_path: Path) -> None:
    change = github(tmp_path, "pull_request", {"pull_request": PULL})
    assert change.bases == ("origin/main", SHA)
    assert (change.kind, change.number, change.head, change.is_fork) == ("pull_request", 7, OTHER, False)
    assert change.run_url == "https://github.com/acme/bot/actions/runs/9"


@pytest.mark.parametrize("repository", [{"full_name": "mallory/bot"}, None])
def test_a_pull_request_of_another_repository_or_of_none_is_from_a_fork(tmp_path: Path, repository: Any) -> None:
    pull = {**PULL, "head": {**PULL["head"], "repo": repository}}  # type: ignore[dict-item]
    assert github(tmp_path, "pull_request", {"pull_request": pull}).is_fork


@pytest.mark.parametrize(
    ("event", "bases"),
    [
        ({"ref": "refs/heads/main", "before": SHA, "after": OTHER}, (SHA,)),
        ({"ref": "refs/heads/more", "before": SHA, "after": OTHER}, (SHA,)),
        ({"ref": "refs/heads/more", "before": "0" * 40, "after": OTHER}, ("origin/main",)),
        ({"ref": "refs/heads/more", "before": SHA, "after": OTHER, "forced": True}, ("origin/main",)),
        ({"ref": "refs/heads/main", "before": SHA, "after": OTHER, "forced": True}, (SHA,)),
        ({"ref": "refs/heads/main", "before": "0" * 40, "after": OTHER}, ()),
    ],
)
def test_a_push_is_compared_with_what_was_there(tmp_path: Path, event: dict[str, Any], bases: tuple[str, ...]) -> None:
    change = github(tmp_path, "push", {**event, "repository": {"default_branch": "main"}})
    assert (change.bases, change.number) == (bases, None)


def test_a_merge_request_of_gitlab() -> None:
    environ = {
        "GITLAB_CI": "true",
        "CI_MERGE_REQUEST_IID": "7",
        "CI_MERGE_REQUEST_PROJECT_ID": "42",
        "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "43",
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": SHA,
        "CI_COMMIT_SHA": OTHER,
    }
    assert change_of(environ) == Change("gitlab", "pull_request", "42", (SHA,), OTHER, 7, True)
    assert change_of({"HOME": "/"}) is None


# ---------------------------------------------------------------------------- what is told


def test_an_absent_verdict_is_said_with_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "gate.log"
    log.write_text("error: model gpt needs its key <b>\n")
    told = read_told(tmp_path / "none.md", tmp_path / "none.json", [log], GITHUB)
    assert told.verdict == "absent"
    assert "no verdict" in told.text
    assert "An absent verdict counts as failed" in told.text
    assert "needs its key &#60;b&#62;" in told.text
    assert FORK not in told.text


def test_a_log_of_long_lines_and_of_other_encodings_makes_a_comment_that_a_forge_takes(tmp_path: Path) -> None:
    log = tmp_path / "gate.log"
    log.write_bytes(b"@" * 70_000 + b"\n" + b"@" * 499 + b"\n" + 18 * (b"*" * 5_000 + b"\n") + b"last: caf\xe9\n")
    fork = Change("github", "pull_request", "acme/bot", number=7, is_fork=True)
    told = read_told(tmp_path / "none.md", tmp_path / "none.json", [log], fork)
    assert "caf\ufffd" in told.text
    assert len(told.text) < 60_000


def test_half_an_answer_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"verdict": "pass", ')
    (tmp_path / "a.md").write_text(BODY)
    told = read_told(tmp_path / "a.md", tmp_path / "a.json", [], GITHUB)
    assert (told.verdict, "it passed" in told.text) == ("absent", False)


def test_a_fork_is_told_why_its_gate_could_not_run(tmp_path: Path) -> None:
    fork = Change("github", "pull_request", "acme/bot", number=7, is_fork=True)
    (tmp_path / "a.md").write_text(BODY)
    (tmp_path / "a.json").write_text(json.dumps({"verdict": "could_not_run", "suites": []}))
    assert FORK in read_told(tmp_path / "a.md", tmp_path / "a.json", [], fork).text
    (tmp_path / "a.json").write_text(json.dumps({"verdict": "pass", "suites": []}))
    assert FORK not in read_told(tmp_path / "a.md", tmp_path / "a.json", [], fork).text


def test_outputs_and_summary_are_written_though_nothing_can_be_commented(
    workspace: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"merge_group": {"base_sha": SHA, "head_sha": OTHER}}))
    for name, value in {"EVENT_PATH": event, "EVENT_NAME": "merge_group", "REPOSITORY": "acme/bot"}.items():
        monkeypatch.setenv(f"GITHUB_{name}", str(value))
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    workspace.write("t.md", BODY)
    suites = [{"evidence_id": "ev_1"}, {"evidence_id": "ev_2\nverdict=pass"}]
    workspace.write("t.json", json.dumps({"verdict": "fail", "suites": suites}))

    answer = workspace.json("comment", "t.md", "--json-file", "t.json")
    assert (answer["comment"], answer["reason"]) == (None, "a merge group has no pull request to comment on")
    assert (tmp_path / "outputs").read_text() == "verdict=fail\nevidence-id=ev_1 ev_2verdictpass\n"
    assert "## it passed" in (tmp_path / "summary").read_text()


def test_an_event_without_a_change_is_told_as_such(workspace: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    event = workspace.write("event.json", "{}")
    for name, value in {"EVENT_PATH": event, "EVENT_NAME": "workflow_dispatch", "REPOSITORY": "acme/bot"}.items():
        monkeypatch.setenv(f"GITHUB_{name}", str(value))
    workspace.write("t.md", BODY)
    assert workspace.json("comment", "t.md")["reason"] == "this event has no pull request to comment on"


@pytest.mark.parametrize(
    ("arguments", "said"), [((), "no job of GitHub Actions or GitLab CI"), (("--name", "a -->"), "write letters")]
)
def test_what_cannot_be_a_comment_exits_with_2(
    workspace: Project, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    for name in ("GITHUB_EVENT_PATH", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)
    if arguments:
        monkeypatch.setenv("GITLAB_CI", "true")
    code, _, err = workspace.run("comment", "t.md", *arguments)
    assert code == 2
    assert said in err
