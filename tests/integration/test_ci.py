"""The action's own shell in a real git repository, with event files as GitHub writes them and an API that stands for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.actions import Runner, bare_environment

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
NAMES = ("a", "b", "c", "d")
CONFIG = "models:\n  table: {engine: fake, answers: {charged: billing, password: account}, default: other}\n"
PAID = "models:\n  table: {engine: openai, base_url: 'http://127.0.0.1:9/v1', api_key_env: PAID_KEY}\n"
PROMPT = """\
model: table
variables: {ticket: {type: string}}
messages: [{role: system, content: Route the ticket.}, {role: user, content: "TEXT{{ ticket }}"}]
"""
SUITE = """\
prompt: NAME
tests:
  - {vars: {ticket: "I was charged twice"}, assert: [{type: equals, value: billing}], must_pass: true}
  - {vars: {ticket: "I forgot my password"}, assert: [{type: equals, value: account}], must_pass: true}
"""


class Api(BaseHTTPRequestHandler):
    """api.github.com as far as comments go; the comments and the next status are the server's."""

    server: Server

    def _answer(self, status: int, data: Any) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> str:
        assert self.headers["authorization"] == "Bearer token-of-the-job"
        body: str = json.loads(self.rfile.read(int(self.headers["content-length"])))["body"]
        return body

    def do_GET(self) -> None:
        if self.path == "/user":
            self._answer(403, {"message": "Resource not accessible by integration"})
        else:
            assert self.path == "/repos/acme/bot/issues/7/comments?per_page=100&page=1"
            self._answer(200, self.server.comments)

    def do_POST(self) -> None:
        body = self._body()
        if self.server.reads_only:
            self._answer(403, {"message": "Resource not accessible by integration"})
            return
        number = len(self.server.comments) + 1
        user = {"login": "github-actions[bot]", "type": "Bot"}
        made = {"id": number, "body": body, "user": user, "html_url": f"https://github.test/acme/bot/pull/7#{number}"}
        self.server.comments.append(made)
        self._answer(201, made)

    def do_PATCH(self) -> None:
        found = self.server.comments[int(self.path.rpartition("/")[2]) - 1]
        found["body"] = self._body()
        self._answer(200, found)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name of the base class
        """Nothing on stderr."""


class GitLabApi(Api):
    """The notes of merge request 7 of project 42, for the account of one project access token."""

    def _note(self) -> str:
        assert self.headers["private-token"] == "token-of-the-project"
        note: str = json.loads(self.rfile.read(int(self.headers["content-length"])))["body"]
        return note

    def do_GET(self) -> None:
        if self.path == "/user":
            self._answer(200, {"username": "project_42_bot"})
        else:
            assert self.path == "/projects/42/merge_requests/7/notes?per_page=100&page=1"
            self._answer(200, self.server.comments)

    def do_POST(self) -> None:
        number = len(self.server.comments) + 1
        made = {"id": number, "body": self._note(), "author": {"username": "project_42_bot"}}
        self.server.comments.append(made)
        self._answer(201, made)

    def do_PUT(self) -> None:
        found = self.server.comments[int(self.path.rpartition("/")[2]) - 1]
        found["body"] = self._note()
        self._answer(200, found)


class Server(ThreadingHTTPServer):
    comments: list[dict[str, Any]]
    reads_only = False


@pytest.fixture
def github() -> Iterator[Server]:
    yield from _served(Api)


@pytest.fixture
def gitlab() -> Iterator[Server]:
    yield from _served(GitLabApi)


def _served(kind: type[Api]) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), kind)
    server.comments = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Checkout:
    """A bare origin, an author's clone of it, and what a runner checks out of a pull request."""

    def __init__(self, folder: Path, github: Server) -> None:
        self.folder, self.github = folder, github
        self.author, self.workspace = folder / "author", folder / "workspace"
        git(folder, "init", "-q", "--bare", "-b", "main", "origin.git")
        git(folder, "clone", "-q", "origin.git", "author")
        self.write("turnout.yaml", CONFIG)
        for name in NAMES:
            self.write(f"prompts/{name}.prompt.yml", PROMPT.replace("TEXT", ""))
            self.write(f"suites/{name}.suite.yml", SUITE.replace("NAME", name))
        self.base = self.commit()
        git(self.author, "push", "-q", "origin", "HEAD:main")
        git(self.author, "checkout", "-q", "-b", "more")

    def write(self, name: str, text: str) -> None:
        path = self.author / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self) -> str:
        git(self.author, "add", ".")
        git(self.author, "commit", "-q", "-m", "one more")
        return git(self.author, "rev-parse", "HEAD")

    def push(self) -> str:
        """Push the branch, and check out its merge with main, as GitHub makes one for each push; returns the head."""
        head = self.commit()
        git(self.author, "push", "-q", "origin", "more")
        shutil.rmtree(self.workspace, ignore_errors=True)
        git(self.folder, "clone", "-q", "origin.git", "workspace")
        git(self.workspace, "checkout", "-q", "--detach", "origin/main")
        git(self.workspace, "merge", "-q", "--no-ff", "-m", "merge", "origin/more")
        return head

    def run(self, name: str, event: dict[str, Any], **inputs: str) -> tuple[int, Runner]:
        """One job of the action on what is checked out."""
        job = self.folder / f"job-{len(list(self.folder.glob('job-*')))}"
        job.mkdir()
        (job / "event.json").write_text(json.dumps(event))
        venv = self._environment(job)
        environment = {
            **bare_environment(),
            "PATH": f"{venv / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "RUNNER_TEMP": str(job),
            "RUNNER_OS": "Linux",
            "RUNNER_ARCH": "X64",
            "GITHUB_EVENT_NAME": name,
            "GITHUB_EVENT_PATH": str(job / "event.json"),
            "GITHUB_REPOSITORY": "acme/bot",
            "GITHUB_RUN_ID": "9",
            "GITHUB_API_URL": f"http://127.0.0.1:{self.github.server_port}",
        }
        action = Runner.of_file(
            ROOT / "action.yml",
            workspace=self.workspace,
            environment=environment,
            contexts={"github": {"action_path": str(ROOT), "token": "token-of-the-job", "event": event}},
            folder=job,
            used={"cache": {"cache-hit": "true"}},
        )
        return action.run(**inputs), action

    def _environment(self, job: Path) -> Path:
        """A runner's `python`; Turnout is where the action's cache would have put it: linked there by that `python`."""
        found = job / "tools"
        (found / "bin").mkdir(parents=True)
        turnout = found / "bin" / "turnout"
        turnout.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m service.cli.main "$@"\n')
        turnout.chmod(0o755)
        python = found / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        hasher = found / "bin" / "cut"  # the last word of the cache's key: the environment is named by it
        hasher.write_text(
            f'#!/bin/sh\nkey=$(/usr/bin/cut "$@"); ln -sfn "{found}" "$RUNNER_TEMP/turnout-$key"; echo "$key"\n'
        )
        hasher.chmod(0o755)
        return found


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def pull_request(base: str, head: str, repository: str = "acme/bot") -> dict[str, Any]:
    """The parts of GitHub's `pull_request` event that its documentation promises and that a gate may read."""
    home = {"id": 1, "full_name": "acme/bot", "fork": False, "default_branch": "main"}
    other = {**home, "full_name": repository, "fork": repository != "acme/bot"}
    user = {"login": "ann", "id": 2, "type": "User"}
    return {
        "action": "synchronize",
        "number": 7,
        "pull_request": {
            "number": 7,
            "state": "open",
            "title": "Kinder prompts $(touch /tmp/never)",
            "user": user,
            "base": {"label": "acme:main", "ref": "main", "sha": base, "repo": home, "user": user},
            "head": {"label": "ann:more", "ref": "more", "sha": head, "repo": other, "user": user},
            "merge_commit_sha": None,
            "draft": False,
        },
        "repository": home,
        "sender": user,
    }


@pytest.fixture
def checkout(tmp_path: Path, github: Server) -> Checkout:
    return Checkout(tmp_path, github)


def test_one_comment_is_written_and_then_updated_and_three_of_four_suites_are_gated(
    checkout: Checkout, github: Server
) -> None:
    for name in "abc":
        checkout.write(f"prompts/{name}.prompt.yml", PROMPT.replace("TEXT", "charged: "))
    head = checkout.push()
    code, action = checkout.run("pull_request", pull_request(checkout.base, head))
    assert code == 1, action.steps["gate"].said
    assert action.output("verdict") == "fail"
    assert len(action.output("evidence-id").split()) == 3

    [comment] = github.comments
    assert comment["body"].startswith("<!-- turnout:gate -->\n")
    assert "gated&#58; 3 of 4 suites" in comment["body"]
    assert f"Turnout at {head[:7]} · [job](https://github.com/acme/bot/actions/runs/9)" in comment["body"]
    assert "I forgot my password" in comment["body"]
    reports = Path(action.steps["prepare"].outputs["reports"])
    suites = {suite.get("name") for suite in ET.parse(reports / "turnout.xml").getroot()}  # noqa: S314 - our own
    assert suites == {"changes", "a", "b", "c"}
    assert json.loads((reports / "turnout.sarif").read_text())["version"] == "2.1.0"
    assert "Turnout at" in (action.folder / "summary.md").read_text()
    assert not Path("/tmp/never").exists()

    for name in "abc":
        checkout.write(f"prompts/{name}.prompt.yml", PROMPT.replace("TEXT", "Ticket: "))
    second = checkout.push()
    code, action = checkout.run("pull_request", pull_request(checkout.base, second))
    assert (code, action.output("verdict")) == (0, "pass")
    [comment] = github.comments
    assert f"Turnout at {second[:7]}" in comment["body"]
    assert head[:7] not in comment["body"]


def test_what_main_did_meanwhile_is_no_change_of_the_branch(checkout: Checkout, github: Server) -> None:
    checkout.write("prompts/a.prompt.yml", PROMPT.replace("TEXT", "Ticket: "))
    checkout.commit()
    git(checkout.author, "checkout", "-q", "main")
    checkout.write("prompts/d.prompt.yml", PROMPT.replace("TEXT", "Now: "))
    checkout.commit()
    git(checkout.author, "push", "-q", "origin", "main")
    git(checkout.author, "checkout", "-q", "more")
    checkout.write("README.md", "more\n")
    head = checkout.push()
    code, _ = checkout.run("pull_request", pull_request(checkout.base, head))
    assert code == 0
    assert "gated&#58; 1 of 4 suites" in github.comments[0]["body"]


def test_a_fork_without_secrets_is_told_and_fails(checkout: Checkout, github: Server) -> None:
    checkout.write("turnout.yaml", PAID)
    head = checkout.push()
    github.reads_only = True
    code, action = checkout.run("pull_request", pull_request(checkout.base, head, "mallory/bot"))
    assert (code, action.output("verdict")) == (2, "absent"), action.steps["gate"].said
    summary = (action.folder / "summary.md").read_text()
    for told in (action.steps["report"].said, summary):
        assert "This change comes from a fork, and jobs of forks get no secrets" in told
        assert "A skipped gate counts as failed" in told
    assert "PAID&#95;KEY" in summary
    assert github.comments == []


def test_a_fork_whose_gate_needs_no_secrets_passes_and_has_its_verdict_in_the_summary(
    checkout: Checkout, github: Server
) -> None:
    checkout.write("README.md", "nothing that matters\n")
    head = checkout.push()
    github.reads_only = True
    code, action = checkout.run("pull_request", pull_request(checkout.base, head, "mallory/bot"))
    assert (code, action.output("verdict"), github.comments) == (0, "pass", [])
    summary = (action.folder / "summary.md").read_text()
    assert "nothing to gate" in summary
    assert "No comment was written" in summary


def test_a_merge_group_is_gated_against_its_base_without_a_comment(checkout: Checkout, github: Server) -> None:
    checkout.write("prompts/a.prompt.yml", PROMPT.replace("TEXT", "charged: "))
    head = checkout.push()
    event = {"action": "checks_requested", "merge_group": {"base_sha": checkout.base, "head_sha": head}}
    code, action = checkout.run("merge_group", event)
    assert (code, action.output("verdict"), github.comments) == (1, "fail", [])
    assert "a merge group has no pull request" in action.steps["report"].said


def test_a_push_to_main_is_gated_against_what_was_there(checkout: Checkout, github: Server) -> None:
    checkout.write("README.md", "nothing that matters\n")
    head = checkout.push()
    event = {"ref": "refs/heads/main", "before": checkout.base, "after": head, "repository": {"default_branch": "main"}}
    code, action = checkout.run("push", event)
    assert (code, action.output("verdict"), action.output("evidence-id")) == (0, "pass", "")
    assert "nothing to gate" in (action.folder / "summary.md").read_text()


def test_a_bad_file_fails_with_its_fault_in_the_comment(checkout: Checkout, github: Server) -> None:
    checkout.write("prompts/a.prompt.yml", PROMPT.replace("model: table", "modle: table"))
    head = checkout.push()
    code, action = checkout.run("pull_request", pull_request(checkout.base, head))
    assert (code, action.output("verdict")) == (2, "absent")
    assert "prompts/a.prompt.yml" in github.comments[0]["body"]
    assert "no verdict" in github.comments[0]["body"]


def test_a_token_that_may_not_comment_fails_a_branch_of_the_repository(checkout: Checkout, github: Server) -> None:
    checkout.write("README.md", "nothing that matters\n")
    head = checkout.push()
    github.reads_only = True
    code, action = checkout.run("pull_request", pull_request(checkout.base, head))
    assert (code, action.output("verdict")) == (4, "pass")
    assert "pull-requests: write" in action.steps["report"].said


def test_a_gate_that_was_killed_is_an_absent_verdict(checkout: Checkout, github: Server) -> None:
    checkout.write("prompts/a.prompt.yml", PROMPT.replace("TEXT", "Ticket: "))
    head = checkout.push()
    code, action = checkout.run("pull_request", pull_request(checkout.base, head), suites="suites/none.suite.yml")
    assert (code, action.output("verdict")) == (2, "absent")
    assert "An absent verdict counts as failed" in github.comments[0]["body"]


# ---------------------------------------------------------------------------- GitLab


def gitlab_job(checkout: Checkout, gitlab: Server, head: str, **more: str) -> tuple[int, str]:
    """The script of the GitLab template, as its runner gives it to bash; its exit code and what it said."""
    job = yaml.safe_load((ROOT / "examples/ci/gitlab.yml").read_text("utf-8"))["turnout"]
    tools = checkout._environment(Path(tempfile.mkdtemp(dir=checkout.folder)))
    environment = {
        **bare_environment(),
        "PATH": f"{tools / 'bin'}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "GITLAB_CI": "true",
        "CI_API_V4_URL": f"http://127.0.0.1:{gitlab.server_port}",
        "CI_MERGE_REQUEST_IID": "7",
        "CI_MERGE_REQUEST_PROJECT_ID": "42",
        "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "42",
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": checkout.base,
        "CI_COMMIT_SHA": head,
        "TURNOUT_HOME": str(checkout.folder / "home"),
        "TURNOUT_GITLAB_TOKEN": "token-of-the-project",
        **more,
    }
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", "\n".join(job["script"])],
        cwd=checkout.workspace, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_gitlabs_note_is_written_and_then_updated(checkout: Checkout, gitlab: Server) -> None:
    checkout.write("prompts/a.prompt.yml", PROMPT.replace("TEXT", "charged: "))
    code, said = gitlab_job(checkout, gitlab, checkout.push())
    assert code == 1, said
    checkout.write("prompts/a.prompt.yml", PROMPT.replace("TEXT", "Ticket: "))
    head = checkout.push()
    code, said = gitlab_job(checkout, gitlab, head)
    assert code == 0, said
    [note] = gitlab.comments
    assert f"Turnout at {head[:7]}" in note["body"]
    assert "gated&#58; 1 of 4 suites" in note["body"]
    assert (checkout.workspace / "turnout.xml").is_file()


def test_a_job_of_gitlab_without_its_token_fails_and_names_it(checkout: Checkout, gitlab: Server) -> None:
    checkout.write("README.md", "nothing that matters\n")
    code, said = gitlab_job(checkout, gitlab, checkout.push(), TURNOUT_GITLAB_TOKEN="")
    assert code == 4
    assert "there is no TURNOUT_GITLAB_TOKEN: make a project access token" in said
