"""`turnout compare` and `turnout trend` on stored runs."""

from __future__ import annotations

import csv
import subprocess
import webbrowser
from pathlib import Path

import pytest

from tests.service.cli.projects import Project

CONFIG = "models: {m: {engine: fake, echo: true, price: {input_per_mtok: 1, output_per_mtok: 2}}}\n"
PROMPT = "model: m\nvariables: {t: {type: string}}\nmessages: [{role: user, content: '{{ t }}'}]\n"
FILE = "suites/say.suite.yml"
ROWS = "".join(
    f'  - {{vars: {{t: "a{n}"}}, tags: [odd], assert: [{{type: equals, value: "a{n}", metric: says}}]}}\n'
    for n in range(5)
)
SUITE = f'prompt: say\ntests:\n{ROWS}  - {{vars: {{t: "<b>x"}}, assert: [{{type: equals, value: "new <b>x", metric: says}}]}}\n'


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(workspace: Project) -> Project:
    """Production echoes and is committed; the working tree says `new` before it. Neither was run yet."""
    workspace.write("turnout.yaml", CONFIG)
    workspace.write("prompts/say.prompt.yml", PROMPT)
    workspace.write(FILE, SUITE)
    git(workspace.folder, "init")
    git(workspace.folder, "add", ".")
    git(workspace.folder, "commit", "-m", "one")
    workspace.json("push", "--local")
    workspace.json("label", "say", "production", "1", "--reason", "first", "--local")
    workspace.write("prompts/say.prompt.yml", PROMPT.replace("'{{ t }}'", "'new {{ t }}'"))
    workspace.json("push", "--local")
    return workspace


@pytest.fixture
def two_runs(project: Project) -> tuple[str, str]:
    first = project.json("run", "say", "--prompt", "say@1", "--local", exit_code=1)
    second = project.json("run", "say", "--prompt", "say@2", "--local", exit_code=1)
    return first["run_id"], second["run_id"]


def test_two_runs_are_compared_case_by_case(project: Project, two_runs: tuple[str, str]) -> None:
    answer = project.json("compare", *two_runs, "--local")

    assert (answer["a"]["variant"], answer["b"]["variant"]) == ("say@1+m", "say@2+m")
    assert (answer["paired"], len(answer["broken"]), len(answer["mended"])) == (6, 5, 1)
    assert answer["difference"] == pytest.approx(-4 / 6)
    assert answer["p_value"] == pytest.approx(2 * 7 / 64)
    assert answer["metrics"]["says"]["difference"] == pytest.approx(-4 / 6)
    assert answer["tags"]["odd"]["b_pass_rate"] == 0.0
    assert answer["drift"]["cost_per_1k_usd"]["ratio"] > 1
    assert {"p50_ms", "p95_ms"} <= answer["drift"].keys()
    flip = answer["flips"][0]
    assert (flip["title"], flip["change"], flip["expected"]) == ("case 1: a0", "broken", "equals: a0")
    assert (flip["a"]["output"], flip["b"]["output"]) == ("a0", "new a0")


def test_versions_labels_and_variants_mean_their_newest_finished_run(
    project: Project, two_runs: tuple[str, str]
) -> None:
    for a, b in (("say@1", "say@2"), ("say@production", "say@2+m"), (f"run:{two_runs[0]}", "say@latest")):
        answer = project.json("compare", a, b, "--local")
        assert (answer["a"]["run_id"], answer["b"]["run_id"]) == two_runs


def test_a_git_revision_is_the_prompt_as_it_was(project: Project, two_runs: tuple[str, str]) -> None:
    answer = project.json("compare", "git:main", "say@2", "--suite", FILE, "--local")

    assert answer["a"]["run_id"] == two_runs[0]
    assert answer["a"]["origin"].startswith("git:main, ")
    code, _, err = project.run("compare", "main", "say@2", "--suite", FILE, "--local")
    assert (code, err.strip()) == (2, "error: no prompt 'main': the revision of git is git:main")
    assert "git:" not in project.run("compare", "nothing", "say@2", "--suite", FILE, "--local")[2]


def test_what_has_no_run_is_refused_with_the_command_and_run_on_demand(project: Project) -> None:
    project.json("run", "say", "--prompt", "say@1", "--local", exit_code=1)
    code, _, err = project.run("compare", "git:main", "say@2", "--suite", FILE, "--local")
    assert code == 2
    assert "say@2 has no finished run of say among the newest 500: add --run, or: turnout run say --prompt say@2" in (
        " ".join(err.split())
    )
    answer = project.json("compare", "git:main", "say@2", "--suite", FILE, "--run", "--local")
    assert answer["paired"] == 6


def test_a_version_without_a_suite_in_common_is_refused(project: Project) -> None:
    code, _, err = project.run("compare", "say@1", "say@2", "--local")
    assert code == 2
    assert "say@1 has finished runs of no suite, say@2 of no suite: name a suite" in " ".join(err.split())
    assert project.run("compare", "git:main", "git:main", "--local")[0] == 2
    assert project.run("compare", "run_none", "say@1", "--local")[0] == 2


def test_suites_that_changed_are_paired_by_what_they_ask(project: Project, two_runs: tuple[str, str]) -> None:
    more = '  - {vars: {t: "z"}, assert: [{type: equals, value: z}]}\n'
    project.write(FILE, SUITE.replace("tests:\n", f"tests:\n{more}"))
    third = project.json("run", FILE, "--local", exit_code=1)
    answer = project.json("compare", two_runs[0], third["run_id"], "--local")

    assert answer["paired"] == 6
    assert answer["notes"] == [
        "A was asked by say@1, B by say@2: cases are paired by what they ask",
        "left out: 1 case only B answered",
    ]
    assert answer["flips"][0]["title"] == "case 2: a0"


def test_runs_that_share_no_case_are_refused(project: Project, two_runs: tuple[str, str]) -> None:
    project.write(FILE, 'prompt: say\ntests: [{vars: {t: "z"}, assert: [{type: equals, value: z}]}]\n')
    third = project.json("run", FILE, "--local", exit_code=1)
    code, _, err = project.run("compare", two_runs[0], third["run_id"], "--local")
    assert code == 2
    assert "share no case that both answered" in " ".join(err.split())


def test_a_run_of_some_cases_says_so(project: Project, two_runs: tuple[str, str]) -> None:
    part = project.json("run", "say", "--prompt", "say@1", "--first", "2", "--local")
    answer = project.json("compare", part["run_id"], two_runs[1], "--local")
    assert answer["notes"] == ["A asked some of the cases only", "left out: 4 cases only B answered"]


def test_reports_and_the_browser(project: Project, two_runs: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    page, sheet, comment = (project.folder / name for name in ("c.html", "c.csv", "c.md"))
    arguments = ("--html", str(page), "--csv", str(sheet), "--markdown", str(comment), "--open")
    code, out, err = project.run("compare", *two_runs, *arguments, "--local")

    assert code == 0
    assert "5 newly broken, 1 newly mended of 6 paired cases" in out
    assert opened == []  # nobody sits at a terminal
    assert f"the page is {page}" in " ".join(err.split())
    assert "new &lt;b&gt;x" in page.read_text("utf-8")
    assert len([*csv.reader(sheet.read_text("utf-8").splitlines())]) == 7
    assert comment.read_text("utf-8").startswith("<!-- turnout:compare -->\n")


def test_a_page_is_opened_for_whoever_sits_at_a_terminal(
    project: Project, two_runs: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert project.run("compare", *two_runs, "--open", "--local")[0] == 0
    [url] = opened
    page = Path(url.removeprefix("file://"))
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert page.parent.stat().st_mode & 0o077 == 0


def test_a_run_that_has_no_figures_yet_is_refused(
    project: Project, two_runs: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = {"run_id": "run_1", "variant": "say@1+m", "status": "running", "suite": "say@1"}
    monkeypatch.setattr("service.cli.work.LocalWork.run_of", lambda *_: bare)
    code, _, err = project.run("compare", "run_1", two_runs[1], "--local")
    assert code == 2
    assert "run_1 is running and has no figures yet" in " ".join(err.split())


def test_several_variants_of_a_run_name_the_command_that_compares_them(project: Project) -> None:
    _, _, err = project.run("run", "say", "--prompt", "say@1", "--prompt", "say@2", "--local")
    [command] = [line.partition("turnout ")[2] for line in err.splitlines() if line.startswith("case by case: ")]
    assert project.json(*command.split(), "--local")["paired"] == 6


def test_a_trend_is_of_the_runs_on_production(project: Project, two_runs: tuple[str, str]) -> None:
    again = project.json("run", "say", "--prompt", "say@1", "--local", exit_code=1)
    assert [run["run_id"] for run in project.json("trend", "say", "--local")["runs"]] == [two_runs[0], again["run_id"]]
    assert [run["run_id"] for run in project.json("trend", FILE, "--last", "1", "--local")["runs"]] == [again["run_id"]]
    every = project.json("trend", "say", "--all", "--local")["runs"]
    assert [run["pass_rate"] for run in every] == pytest.approx([5 / 6, 1 / 6, 5 / 6])
    assert every[0]["metrics"] == {"says": pytest.approx(5 / 6)}

    page = project.folder / "t.html"
    code, out, _ = project.run("trend", "say", "--all", "--html", str(page), "--local")
    assert code == 0
    assert "█▁█" in out
    assert "<svg" in page.read_text("utf-8")


def test_a_trend_on_a_label_that_is_not_there_says_how_to_see_all_runs(
    project: Project, two_runs: tuple[str, str]
) -> None:
    code, _, err = project.run("trend", "say", "--label", "staging", "--local")
    assert code == 2
    assert "'say@staging'" in err
    assert "--all" in err
    assert "turnout label say staging N" in err


def test_a_trend_without_runs_says_what_to_run(project: Project) -> None:
    code, _, err = project.run("trend", "say", "--local")
    assert code == 2
    assert "no finished run of say on production: turnout run say, or --all" in " ".join(err.split())
