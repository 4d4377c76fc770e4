"""`turnout demo`: the whole loop as its users see it, over HTTP, on the example of this package and a real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from prompts.errors import BadInput, TurnoutError
from prompts.yaml_source import load_yaml
from service import snapshot_file
from service.cli.client import Remote, follow
from service.cli.output import bar, err, out, print_json
from service.cli.progress import Narrator
from service.cli.project import Project
from service.cli.work import RemoteWork
from service.errors import CannotRun
from service.gates import GateRequest
from service.settings import Settings, load_settings

PROMPT = "support.ticket-triage"
START_TIMEOUT_S = 60.0
ROUTE_TIMEOUT_S = 10.0
SAMPLES = 3


def example_folder() -> Path:
    """The example project: beside the packages in a checkout, inside the wheel when installed."""
    service = Path(__file__).parents[1]
    return next(p for p in (service / "examples" / "support", service.parent / "examples" / "support") if p.is_dir())


def run_demo(json_file: Path | None, as_json: bool) -> int:
    """Exit 0 only if the route moved on evidence. Raises CannotRun where the service does not start."""
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise BadInput(f"--json-file {json_file}: its folder is not there", param="--json-file")
    demo = Demo(_settings())
    err().print(f"home {demo.settings.home}", markup=False)
    demo.fetch_model()
    with demo.service() as remote:
        demo.go(remote)
    if json_file is not None:
        json_file.write_text(json.dumps(demo.report(), indent=2) + "\n")
    if as_json:
        print_json(demo.report())
    else:
        demo.show()
    return 0 if demo.moved else 1


def _settings() -> Settings:
    """The example's own settings on this home, or in a fresh folder below it where this home is in use already."""
    project = example_folder()
    home = load_settings(start=project).home
    if any((home / name).exists() for name in ("turnout.db", snapshot_file.FILE_NAME)):
        number = sum(1 for _ in home.glob("demo-*")) + 1
        home = home / f"demo-{number}"
    return load_settings({**os.environ, "TURNOUT_HOME": str(home), "TURNOUT_SERVER_PORT": "0"}, project)


@dataclass
class Demo:
    """What happened so far."""

    settings: Settings
    seconds: dict[str, float] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def result(self) -> dict[str, Any]:
        return self.job.get("result") or {}

    @property
    def moved(self) -> bool:
        return self.result.get("verdict") == "pass" and bool(self.result.get("route"))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 2)

    def fetch_model(self) -> None:
        """The weights: from the cache, or fetched, checked and converted once."""
        from service.engine import weights
        from service.tuning.material import model_source

        source = model_source(self.settings, "smollm2-135m")
        with self.phase("model"), bar("model") as advance:
            weights.pull(
                source, weights.default_cache_dir(), lambda note, share: advance(round(share * 100), 100, note)
            )

    @contextmanager
    def service(self) -> Iterator[Remote]:
        """`turnout serve` as a child, on a free port."""
        home = self.settings.home
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        environment = {**os.environ, "TURNOUT_HOME": str(home)}
        log_path = home / "service.log"
        with self.phase("start"), log_path.open("wb") as log:
            command = [sys.executable, "-P", "-m", "service.cli.main", "serve", "--port", "0"]
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command, cwd=self.settings.project, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                url = _wait_until_ready(process, log_path)
            except BaseException:
                process.kill()
                raise
        os.environ["TURNOUT_URL"] = url
        os.environ.pop("TURNOUT_API_KEY", None)
        err().print(f"service at {url}, its log in {log_path}", markup=False)
        try:
            yield Remote(self.settings)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()

    def go(self, remote: Remote) -> None:
        """Push, ask, gate, tune, ask again."""
        project = Project(self.settings)
        sources, suites = project.check()
        prompts = {name: source.document.data for name, source in sources.items()}
        origin = {"message": "the demo's example", "moves_labels": False}
        work = RemoteWork(remote)
        with self.phase("push"):
            written = work.push(prompts, {suite.name: suite.suite.as_data() for suite in suites}, origin)
            body = {"version": 1, "reason": "the demo starts with the prompt alone"}
            remote.call("PUT", f"/api/prompts/{PROMPT}/labels/production", body=body)
        err().print(f"pushed {', '.join(entry['name'] for entry in written)}", markup=False)
        samples = _samples(self.settings.project)
        with self.phase("requests_before"):
            self.answers = [
                {"ticket": ticket, "right": right, "before": _ask(remote, ticket)} for ticket, right in samples
            ]
        with self.phase("gate"), bar("held-out, before") as advance:
            self.gate = work.gate(GateRequest(suites=(PROMPT,), candidate=(f"{PROMPT}@1",), fallback=True), advance)
        for reason in self.gate["reasons"]:
            err().print(f"gate {self.gate['verdict']}: {reason}", markup=False)
        self._tune(remote)
        with self.phase("requests_after"):
            self._wait_for_route(remote)
            for answer in self.answers:
                answer["after"] = _ask(remote, answer["ticket"])

    def _tune(self, remote: Remote) -> None:
        started = self.gate["suites"][0].get("fallback")
        if started is None or started["job_id"] is None:
            err().print(started["reason"] if started else "the suite met its thresholds: nothing to tune")
            return
        marks = [("plan", time.perf_counter())]

        def on_event(event: dict[str, Any]) -> None:
            name = _PHASES.get(event["type"])
            if name:
                marks.append((name, time.perf_counter()))
            narrator.narrate(event)

        with self.phase("finetune"), bar("fine-tune") as advance:
            narrator = Narrator(advance)
            self.job = follow(remote, started["job_id"], on_event)
        for (name, began), (_, ended) in zip(marks, [*marks[1:], ("", time.perf_counter())], strict=True):
            self.seconds[name] = round(self.seconds.get(name, 0.0) + ended - began, 2)
        if self.job["status"] != "succeeded":
            raise CannotRun(f"the fine-tune {self.job['status']}: {self.job['error']}")

    def _wait_for_route(self, remote: Remote) -> None:
        """A replica serves a new revision within a second; the demo shows what is served after it."""
        revision = (self.result.get("routed") or {}).get("revision", 0)
        deadline = time.monotonic() + ROUTE_TIMEOUT_S
        while time.monotonic() < deadline:
            if (_complete(remote, self.answers[0]["ticket"])["turnout"]["route_revision"] or 0) >= revision:
                return
            time.sleep(0.1)
        raise CannotRun(f"revision {revision} of the route is not served after {ROUTE_TIMEOUT_S:g} s")

    def report(self) -> dict[str, Any]:
        """CONTRACT's JSON."""
        names = ("variant", "passed", "total", "pass_rate", "ci95", "p50_ms")
        sides = {side: self.result.get(side) or {} for side in ("before", "after")}
        return {
            **{side: {name: found.get(name) for name in names} if found else None for side, found in sides.items()},
            "verdict": self.result.get("verdict") or self.gate.get("verdict"),
            "reasons": self.result.get("reasons", self.gate.get("reasons", [])),
            "evidence_id": self.result.get("evidence_id"),
            "route": self.result.get("route") or [],
            "seconds": self.seconds,
            "requests": self.answers,
            "home": str(self.settings.home),
        }

    def show(self) -> None:
        """One table, and where to look further."""
        from rich.table import Column, Table
        from rich.text import Text

        report = self.report()
        shown = Table("", Column("variant", overflow="fold"), "passed", "pass rate", "95%", "p50 ms")
        for name in ("before", "after"):
            row = report[name]
            if row is not None:
                low, high = row["ci95"]
                cells = (row["variant"], f"{row['passed']}/{row['total']}", f"{row['pass_rate']:.1%}")
                shown.add_row(name, *cells, f"{low:.1%} … {high:.1%}", f"{row['p50_ms']:.0f}")
        out().print(shown)
        for answer in report["requests"]:
            said = f"before {answer['before']!r}, after {answer.get('after')!r}, right is {answer['right']!r}"
            out().print(Text(f"{answer['ticket'][:60]!r}: {said}"))
        shares = ", ".join(f"{item['percent']:g}% {item['variant']}" for item in report["route"])
        verdict = f"{report['verdict']}: {'; '.join(report['reasons'])}"
        out().print(Text(f"{verdict}\nevidence {report['evidence_id']}\nroute {shares or 'did not move'}"))
        out().print(Text(f"look around: TURNOUT_HOME={report['home']} turnout serve"))
        if not self.moved:
            out().print(Text("nothing moved: the evidence did not say so", style="yellow"))


_PHASES = {"planned": "train", "adapter": "dev", "dev": "heldout", "decided": "route"}


def _wait_until_ready(process: subprocess.Popen[bytes], log_path: Path) -> str:
    """The URL that the service logged, once it answers. Raises CannotRun with the end of its log."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        text = log_path.read_text("utf-8", "replace")
        found = next((word for word in text.split() if word.startswith("url=http")), None)
        if found is not None:
            url = found.removeprefix("url=")
            try:
                if httpx.get(f"{url}/health/ready", timeout=1.0).status_code == 200:
                    return url
            except httpx.HTTPError:
                pass
        time.sleep(0.05)
    raise CannotRun(f"the service did not start: {log_path.read_text('utf-8', 'replace')[-500:]}")


def _samples(project: Path) -> list[tuple[str, str]]:
    """A few held-out tickets with their right queue, to send as an application would."""
    path = project / "suites" / "support" / "cases" / "heldout.jsonl"
    cases = [load_yaml(line, str(path)).data for line in path.read_text("utf-8").splitlines()[: SAMPLES * 7 : 7]]
    return [(case["vars"]["ticket"], case["assert"][0]["value"]) for case in cases]


def _ask(remote: Remote, ticket: str) -> str:
    """The answer's text."""
    return str(_complete(remote, ticket)["choices"][0]["message"]["content"])


def _complete(remote: Remote, ticket: str) -> dict[str, Any]:
    """One completion, as any OpenAI client asks for it."""
    body = {"model": PROMPT, "variables": {"ticket": ticket}, "user": ticket[:20]}
    try:
        answer: dict[str, Any] = remote.call("POST", "/v1/chat/completions", body=body)
        return answer
    except TurnoutError as error:
        raise CannotRun(f"the service did not answer a completion: {error}") from error
