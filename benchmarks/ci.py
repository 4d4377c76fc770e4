"""From `git push` to the comment: three changed prompts of 200 cases each, on an endpoint that answers at once.

Every second is our own or git's: no runner is waited for, and Turnout is installed already. A round is what the action
does, in its order: push, checkout of the merge, `turnout check`, `turnout gate --local --affected` in an empty
TURNOUT_HOME (600 cases on both sides, so 1,200 completions), `turnout comment` to a server on this machine that stands
for api.github.com. The second round's comment is an update of the first's.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

ROUNDS = 5
PROMPTS = 3
OTHERS = 7  # prompts with a suite that do not change
CASES = 200
ROOT = Path(__file__).parents[1]
PROMPT = """\
model: bench
modelParameters: {temperature: 0, max_tokens: 12}
variables: {ticket: {type: string}}
messages:
  - {role: system, content: "Route the ticket to a queue. Edition EDITION."}
  - {role: user, content: "{{ ticket }}"}
"""


class Took(NamedTuple):
    """A stage: by the clock, and of the processor, which a busy machine changes less."""

    seconds: float
    cpu_s: float


class Comments(BaseHTTPRequestHandler):
    """The comments of one pull request; `server.rows` holds them."""

    server: Any

    def _answer(self, status: int, data: Any) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer(403, {}) if self.path == "/user" else self._answer(200, self.server.rows)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))["body"]
        self.server.rows[:] = [{"id": 1, "body": body, "user": {"login": "bot", "type": "Bot"}, "html_url": "x"}]
        self._answer(201, self.server.rows[0])

    do_PATCH = do_POST  # noqa: N815 - the name that http.server looks for

    def log_message(self, *arguments: Any) -> None:
        """Nothing on stderr."""


def measure() -> dict[str, Any]:
    """Medians of `ROUNDS` in seconds, by stage and in all."""
    endpoint = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.suites.endpoint", "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    github = ThreadingHTTPServer(("127.0.0.1", 0), Comments)
    github.rows = []  # type: ignore[attr-defined]  # what the handlers share
    thread = threading.Thread(target=github.serve_forever)
    thread.start()
    try:
        assert endpoint.stdout is not None
        port = int(endpoint.stdout.readline())
        with tempfile.TemporaryDirectory() as folder:
            rounds = _rounds(Path(folder), port, github)
    finally:
        github.shutdown()
        thread.join()
        github.server_close()
        endpoint.terminate()
        endpoint.wait()
    asked = {
        "changed_prompts": PROMPTS,
        "cases_each": CASES,
        "completions": PROMPTS * CASES * 2,
        "suites": PROMPTS + OTHERS,
    }
    figures = {"seconds": _medians(rounds, 0), "cpu_seconds": _medians(rounds, 1)}
    return {"rounds": ROUNDS, **asked, **figures}


def _medians(rounds: list[dict[str, Took]], figure: int) -> dict[str, float]:
    """Of each stage, and of the whole rounds."""
    stages = {name: round(statistics.median(each[name][figure] for each in rounds), 3) for name in rounds[0]}
    return {**stages, "total": round(statistics.median(sum(t[figure] for t in each.values()) for each in rounds), 3)}


def _rounds(folder: Path, port: int, github: Any) -> list[dict[str, Took]]:
    _git(folder, "init", "-q", "--bare", "-b", "main", "origin.git")
    _git(folder, "clone", "-q", "origin.git", "author")
    author = folder / "author"
    _project(author, port)
    _commit(author)
    _git(author, "push", "-q", "origin", "HEAD:main")
    base = _git(author, "rev-parse", "HEAD")
    _git(author, "checkout", "-q", "-b", "more")
    return [_round(folder, base, number, github) for number in range(ROUNDS)]


def _project(author: Path, port: int) -> None:
    for name in ("prompts", "suites/cases"):
        (author / name).mkdir(parents=True)
    (author / "turnout.yaml").write_text(
        f"models: {{bench: {{engine: openai, base_url: 'http://127.0.0.1:{port}/v1'}}}}\n"
    )
    for number in range(PROMPTS + OTHERS):
        (author / f"prompts/p{number}.prompt.yml").write_text(PROMPT.replace("EDITION", "0"))
        (author / f"suites/p{number}.suite.yml").write_text(
            f"prompt: p{number}\nthresholds: {{pass_rate: 0.9}}\ntests: [file://cases/p{number}.jsonl]\n"
        )
        asserted = [{"type": "contains", "value": "billing"}, {"type": "contains", "value": "queue"}]
        cases = [{"vars": {"ticket": f"{number}: bill no {case}"}, "assert": asserted} for case in range(CASES)]
        (author / f"suites/cases/p{number}.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))


def _round(folder: Path, base: str, number: int, github: Any) -> dict[str, Took]:
    author, job = folder / "author", folder / f"job-{number}"
    for changed in range(PROMPTS):
        (author / f"prompts/p{changed}.prompt.yml").write_text(PROMPT.replace("EDITION", str(number + 1)))
    _commit(author)
    head = _git(author, "rev-parse", "HEAD")
    job.mkdir()
    environment = _environment(job, base, head, github.server_port)
    reports = ("--markdown", str(job / "t.md"), "--json-file", str(job / "t.json"))
    seconds = {
        "push": _timed(["git", "push", "-q", "origin", "more"], author, environment),
        "checkout": _timed(
            ["git", "clone", "-q", "--branch", "more", "origin.git", f"job-{number}/work"], folder, environment
        ),
        "check": _timed(_turnout("check", "--sarif", str(job / "t.sarif")), job / "work", environment),
        "gate": _timed(
            _turnout("gate", "--local", "--affected", "--junit", str(job / "t.xml"), *reports),
            job / "work",
            environment,
        ),
        "comment": _timed(
            _turnout("comment", str(job / "t.md"), "--json-file", str(job / "t.json")), job / "work", environment
        ),
    }
    answer = json.loads((job / "t.json").read_text())
    assert answer["verdict"] == "pass", answer
    assert [entry["paired"] for entry in answer["suites"]] == [CASES] * PROMPTS
    assert len(github.rows) == 1, "one comment, updated"
    assert head[:7] in github.rows[0]["body"], "it is of this push"
    return seconds


def _environment(job: Path, base: str, head: str, port: int) -> dict[str, str]:
    """That of a job of GitHub Actions on a pull request."""
    sides = {"base": {"ref": "main", "sha": base}, "head": {"sha": head, "repo": {"full_name": "acme/bot"}}}
    (job / "event.json").write_text(json.dumps({"pull_request": {"number": 7, **sides}}))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TURNOUT_", "GITHUB_"))}
    return kept | {
        "TURNOUT_HOME": str(job / "home"),
        "PYTHONPATH": str(ROOT),
        "GITHUB_EVENT_NAME": "pull_request",
        "GITHUB_EVENT_PATH": str(job / "event.json"),
        "GITHUB_REPOSITORY": "acme/bot",
        "GITHUB_API_URL": f"http://127.0.0.1:{port}",
        "GITHUB_TOKEN": "of-the-job",
    }


def _turnout(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "service.cli.main", *arguments]


def _timed(command: list[str], folder: Path, environment: dict[str, str]) -> Took:
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Took(time.perf_counter() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _commit(author: Path) -> None:
    _git(author, "add", ".")
    _git(author, "commit", "-q", "-m", "one more")


def _git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
