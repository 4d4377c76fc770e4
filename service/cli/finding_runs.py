"""Which stored run is meant: by its id, by a version of a prompt, or by a git revision of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from service.cli.client import Client
    from service.cli.project import Project
    from service.cli.work import Work

MOST_RUNS = 500  # that are looked through, newest first
GIT, RUN = "git:", "run:"


@dataclass(frozen=True)
class Found:
    """One run as the API shows it; `origin` says what was asked for, where that is not in the variant."""

    run: dict[str, Any] = field(repr=False)
    origin: str = ""

    @property
    def run_id(self) -> str:
        return str(self.run["run_id"])

    @property
    def variant(self) -> str:
        return str(self.run["variant"])

    @property
    def suite(self) -> str:
        return str(self.run["suite"])

    def notes(self, letter: str) -> Iterator[str]:
        """What makes the run less than one of all cases, each asked once."""
        if self.run["status"] != "finished":
            yield f"{letter} has not finished: what it has is compared"
        if "filter" in self.run:
            yield f"{letter} asked some of the cases only"
        if self.run.get("rerun", {}).get("asks") == "failed":
            yield f"{letter} is a re-run: cases that had not passed got a second chance"
        if "compared" in self.run:
            yield f"{letter} was compared with other variants: what its cases came to depends on their answers"


@dataclass
class Finder:
    """Finds runs; with `ask` it runs what has no finished run."""

    work: Work
    project: Project
    client: Client
    suite: str | None = None
    given: str | None = None
    ask: bool = False

    @classmethod
    def at(cls, suite: str | None, *, local: bool, ask: bool) -> Finder:
        """For the project and the service of the working folder, or those of the suite's file."""
        from service.cli.client import connect
        from service.cli.project import Project
        from service.cli.work import connect_work
        from service.settings import load_settings, project_of

        settings = load_settings(start=project_of([Path(suite)] if suite and Path(suite).is_file() else []))
        work, project = connect_work(settings, local=local), Project(settings)
        return cls(work, project, connect(settings, local=local), suite_named(suite) if suite else None, suite, ask)

    def both(self, a: str, b: str) -> tuple[Found, Found]:
        """Two runs, of one suite where a version could mean several. Raises BadInput or NotFound with what to do."""
        runs = [self._by_id(text) for text in (a, b)]
        suites = [found.suite.partition("@")[0] for found in runs if found]
        if self.suite is None and suites:
            self.suite = suites[0]
        if self.suite is None:
            self.suite = self._shared(a, b)
        first, second = (found or self._by_version(text) for found, text in zip(runs, (a, b), strict=True))
        return first, second

    def _by_id(self, text: str) -> Found | None:
        """The run of this id; None where the text means a version."""
        from prompts.errors import BadInput
        from service.cli.selecting import id_in_path

        run_id = text.removeprefix(RUN)
        if run_id == text and ("@" in text or text.startswith(GIT) or "_" not in text):
            return None
        run = self.work.run_of(id_in_path("run", run_id))
        if "passed" not in run:
            raise BadInput(
                f"{run_id} is {run['status']} and has no figures yet: compare it when it has ended", param="a"
            )
        return Found(run)

    def _by_version(self, text: str) -> Found:
        prefix, origin = self._variant(text)
        found = next(self._runs(prefix, self.suite), None)
        if found is None and self.ask:
            found = self._asked(prefix)
        if found is None:
            self._refuse(text, prefix)
        return Found(found, origin)

    def _variant(self, text: str) -> tuple[str, str]:
        """How the variants of this version begin, and where it comes from; a whole variant means itself."""
        if text.startswith(GIT):
            return self._at_revision(text)
        if "+" in text:
            return text, ""
        from prompts.errors import BadInput
        from service.cli.revisions import git
        from service.cli.selecting import version_in
        from service.errors import NotFound

        try:
            chosen = version_in(self.client, text)
        except NotFound as error:
            commit = f"{text}^{{commit}}"
            if git(self.project.root, "rev-parse", "--verify", "--quiet", "--end-of-options", commit, check=False):
                raise BadInput(f"{error}: the revision of git is {GIT}{text}", param="a") from error
            raise
        shown = f"{chosen['name']}@{chosen['version']}"
        return f"{shown}+", "" if text == shown else text

    def _at_revision(self, text: str) -> tuple[str, str]:
        """The prompt of the suite as it was at a git revision, as a draft: the same content is the same version."""
        from prompts.errors import BadInput
        from service.cli.baselines import commit_of, push_revision

        if self.suite is None:
            raise BadInput(f"{text}: of which suite? add --suite SUITE", param="suite")
        name = str(self.work.suite(self._suite_version())["prompt"])
        commit = commit_of(self.project, text.removeprefix(GIT), text)
        pushed = push_revision(self.work, self.project, name, commit, text)
        if pushed is None:
            raise BadInput(f"{text}: the prompt {name} was not there then", param="a")
        return f"{pushed}+", f"{text}, {commit[:7]}"

    def _suite_version(self) -> str:
        """The suite as a selector of the registry: where a file was named and something is to be asked, as it is on disk."""
        if self.given is None or not Path(self.given).is_file():
            return self.suite or ""
        from service.cli.testing import plan_suites, push_plans

        versions = push_plans(self.work, self.project, plan_suites(self.work, self.project, [self.given], ()))
        return versions.get(("suite", self.suite or "")) or self.suite or ""

    def _runs(self, prefix: str, suite: str | None) -> Iterator[dict[str, Any]]:
        """Finished runs of all cases of the variants that begin so, newest first."""
        params = {"limit": MOST_RUNS, **({"suite": suite} if suite else {})}
        for run in self.client.call("GET", "/api/runs", params=params):
            fits = run["variant"].startswith(prefix) if prefix.endswith("+") else run["variant"] == prefix
            if fits and run["status"] == "finished" and "filter" not in run:
                yield run

    def _shared(self, a: str, b: str) -> str:
        """The suite of the newest runs that both versions have."""
        from prompts.errors import BadInput

        first, second = (
            [run["suite"].partition("@")[0] for run in self._runs(self._variant(text)[0], None)] for text in (a, b)
        )
        shared: str | None = next((suite for suite in first if suite in second), None)
        if shared is None:
            told = f"{a} has finished runs of {_names(first)}, {b} of {_names(second)}"
            raise BadInput(
                f"{told}: name a suite that both are run by (--suite), with --run to ask it now", param="suite"
            )
        return shared

    def _asked(self, prefix: str) -> dict[str, Any]:
        """Run the suite on this version now; what was answered before comes from the cache."""
        from service.cli.output import bar
        from service.gates import RunRequest

        version, _, model = prefix.partition("+")
        request = RunRequest(suite=self._suite_version(), prompt=version, model=model.partition("+")[0] or None)
        with bar(f"{self.suite} {version}") as advance:
            run = self.work.run(request, advance)
        return self.work.run_of(run["run_id"])

    def _refuse(self, text: str, prefix: str) -> NoReturn:
        from prompts.errors import BadInput

        version = prefix.partition("+")[0]
        told = f"{text}: {version} has no finished run of {self.suite} among the newest {MOST_RUNS}"
        raise BadInput(f"{told}: add --run, or: turnout run {self.suite} --prompt {version}", param="a")


def _names(suites: list[str]) -> str:
    return ", ".join(sorted(set(suites))) or "no suite"


def suite_named(text: str) -> str:
    """The name of a suite that is given by its file or by its name; a version of it is dropped."""
    from prompts.names import check_name
    from service.settings import load_settings, project_of
    from suites.files import suite_name

    if Path(text).is_file():
        return suite_name(Path(text), load_settings(start=project_of([Path(text)])).project)
    return check_name(text.partition("@")[0])
