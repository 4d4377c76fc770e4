"""Which suites a change can affect, in a real git repository."""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.service.cli.projects import Project

CONFIG = """\
server: {port: 8600}
models:
  model-a: {engine: fake, default: billing}
  model-b: {engine: fake, default: billing}
  judge: {engine: fake, default: "yes"}
"""
PROMPT = """\
model: MODEL
variables: {ticket: {type: string}}
messages: [{role: user, content: "INCLUDE {{ ticket }}"}]
"""
TONE = "model: model-a\nmessages: [{role: system, content: Be short.}]\n"
CASE = {"vars": {"ticket": "charged"}, "assert": [{"type": "equals", "value": "billing"}]}
SUITE = "prompt: NAME\nthresholds: {pass_rate: 0.5}\ntests: [file://cases/NAME.jsonl]\n"


@pytest.fixture
def repository(workspace: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Two prompts that share a tone, one beside them, and a suite with a file of cases for each."""
    for name in ("GITHUB_EVENT_PATH", "GITHUB_REPOSITORY", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)
    workspace.write("turnout.yaml", CONFIG)
    workspace.write("prompts/tone.prompt.yml", TONE)
    workspace.write("prompts/a.prompt.yml", prompt("model-a", "{% include 'tone' %}"))
    workspace.write("prompts/b.prompt.yml", prompt("model-b", "{% include 'tone' %}"))
    workspace.write("prompts/c.prompt.yml", prompt("model-b"))
    for name in "abc":
        workspace.write(f"suites/{name}.suite.yml", SUITE.replace("NAME", name))
        workspace.write(f"suites/cases/{name}.jsonl", json.dumps(CASE) + "\n")
    git(workspace, "init", "-q", "-b", "main")
    commit(workspace)
    return workspace


def prompt(model: str, include: str = "") -> str:
    return PROMPT.replace("MODEL", model).replace("INCLUDE", include)


def git(project: Project, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    subprocess.run(["git", *identity, *arguments], cwd=project.folder, check=True, capture_output=True)


def commit(project: Project) -> None:
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "one more")


def gated(project: Project, *more: str, exit_code: int = 0) -> tuple[list[str], dict[str, Any]]:
    """The suites that a gate ran, and its answer."""
    answer = project.json("gate", "--local", "--affected", "--against", "main", *more, exit_code=exit_code)
    return [entry["suite"] for entry in answer["suites"]], answer


@pytest.mark.parametrize(
    ("path", "text", "suites"),
    [
        ("prompts/a.prompt.yml", prompt("model-a", "Now: {% include 'tone' %}"), {"a": ["prompts/a.prompt.yml"]}),
        ("prompts/tone.prompt.yml", TONE.replace("short", "kind"), {key: ["prompts/tone.prompt.yml"] for key in "ab"}),
        ("suites/b.suite.yml", SUITE.replace("NAME", "b").replace("0.5", "0.6"), {"b": ["suites/b.suite.yml"]}),
        ("suites/cases/c.jsonl", json.dumps(CASE) + "\n\n", {"c": ["suites/cases/c.jsonl"]}),
        (
            "turnout.yaml",
            CONFIG.replace("model-b: {engine: fake, default: billing}", "model-b: {engine: fake, default: billing!}"),
            {key: ["model model-b"] for key in "bc"},
        ),
        ("turnout.yaml", CONFIG.replace("8600", "8601"), {}),
        ("turnout.yaml", CONFIG + "assertions: {python_dirs: [checks]}\n", {key: ["turnout.yaml"] for key in "abc"}),
        ("README.md", "What this is.\n", {}),
    ],
)
def test_of_all_suites_those_that_depend_on_what_changed_are_gated(
    repository: Project, path: str, text: str, suites: dict[str, list[str]]
) -> None:
    repository.write(path, text)
    code, out, err = repository.run("gate", "--local", "--affected", "--against", "main", "--json")
    answer = json.loads(out)

    assert code in (0, 1), err
    assert [entry["suite"] for entry in answer["suites"]] == list(suites)
    assert answer["affected"]["suites"] == suites
    assert answer["affected"]["changed"] == [path]
    assert answer["affected"]["untested"] == []


def test_both_sides_come_from_git_and_no_label_moves(repository: Project) -> None:
    repository.write("prompts/a.prompt.yml", prompt("model-a", "Now: {% include 'tone' %}"))
    [entry] = gated(repository)[1]["suites"]

    assert entry["origins"]["candidate"] == "working tree"
    assert entry["origins"]["baseline"].startswith("git:")
    assert entry["baseline"] != entry["candidate"]
    log = repository.json("log", "a", "--local")
    assert (len(log["versions"]), log["labels"]) == (2, {})


def test_a_suite_whose_judge_is_another_model_is_gated(repository: Project) -> None:
    judged = (
        "prompt: c\njudge: {model: judge}\ntests: [{vars: {ticket: x}, assert: [{type: llm-rubric, value: kind}]}]\n"
    )
    repository.write("suites/c.suite.yml", judged)
    commit(repository)
    repository.write("turnout.yaml", CONFIG.replace('default: "yes"', 'default: "no"'))
    out = json.loads(repository.run("gate", "--local", "--affected", "--against", "HEAD", "--json")[1])
    assert out["affected"]["suites"] == {"c": ["model judge"]}


def test_the_model_that_is_asked_instead_is_looked_at(repository: Project) -> None:
    repository.write("turnout.yaml", CONFIG.replace('default: "yes"', 'default: "no"'))
    assert gated(repository, "--model", "model-a")[0] == []
    code, out, _ = repository.run("gate", "--local", "--affected", "--against", "main", "--model", "judge", "--json")
    assert (code, list(json.loads(out)["affected"]["suites"])) == (1, ["a", "b", "c"])


def test_cases_that_are_gone_from_a_pattern_affect_its_suite(repository: Project) -> None:
    repository.write(
        "suites/deep/many.suite.yml", "prompt: c\nthresholds: {pass_rate: 0.5}\ntests: [file://m/*.jsonl]\n"
    )
    for name in ("one", "two"):
        case = {**CASE, "vars": {"ticket": name}}
        repository.write(f"suites/deep/m/{name}.jsonl", json.dumps(case) + "\n")
    commit(repository)
    (repository.folder / "suites/deep/m/two.jsonl").unlink()
    answer = repository.json("gate", "--local", "--affected", "--against", "HEAD")
    assert answer["affected"]["suites"] == {"deep.many": ["suites/deep/m/two.jsonl"]}


def test_a_prompt_with_faults_or_none_at_all_stops_its_suites_gate(repository: Project) -> None:
    repository.write("prompts/c.prompt.yml", "modle: x\n")
    code, _, err = repository.run("gate", "--local", "--affected", "--against", "main")
    assert (code, "modle" in err) == (2, True)
    (repository.folder / "prompts/c.prompt.yml").unlink()
    code, _, err = repository.run("gate", "--local", "--affected", "--against", "main")
    assert (code, "prompts/c.prompt.yml is not there" in err) == (2, True)


def test_a_project_in_a_folder_of_its_repository_is_looked_at_alone(
    workspace: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "xy":
        workspace.write(f"{name}/turnout.yaml", CONFIG)
        workspace.write(f"{name}/prompts/c.prompt.yml", prompt("model-b"))
        workspace.write(f"{name}/suites/c.suite.yml", SUITE.replace("NAME", "c"))
        workspace.write(f"{name}/suites/cases/c.jsonl", json.dumps(CASE) + "\n")
    git(workspace, "init", "-q", "-b", "main")
    commit(workspace)
    workspace.write("y/prompts/c.prompt.yml", prompt("model-b", "Now:"))
    for name, changed in (("x", []), ("y", ["prompts/c.prompt.yml"])):
        monkeypatch.chdir(workspace.folder / name)
        assert gated(workspace)[1]["affected"]["changed"] == changed


def test_another_tools_file_is_gated_whatever_changed_since_what_it_reads_is_not_known(repository: Project) -> None:
    tests = "tests: [{vars: {ticket: charged}, assert: [{type: contains, value: billing}]}]\n"
    config = f"prompts: ['Route {{{{ticket}}}}']\nproviders: [model-a]\n{tests}"
    repository.write("promptfooconfig.yaml", config)
    commit(repository)
    asked = (
        "gate",
        "promptfooconfig.yaml",
        "--local",
        "--affected",
        "--against",
        "HEAD",
        "--provider",
        "model-a=model-a",
    )
    assert repository.json(*asked)["suites"] == []
    repository.write("notes.txt", "that it may read\n")
    assert [*repository.json(*asked)["affected"]["suites"].values()] == [["notes.txt"]]


def test_with_a_baseline_the_ref_only_tells_what_changed(repository: Project) -> None:
    repository.write("prompts/c.prompt.yml", prompt("model-b", "Now:"))
    suites, answer = gated(repository, "--baseline", "none")
    assert (suites, answer["suites"][0]["baseline"]) == (["c"], None)


def test_what_git_ignores_below_suites_is_new_all_the_same(repository: Project) -> None:
    repository.write(".gitignore", "*.jsonl\n")
    repository.write("suites/cases/more.jsonl", json.dumps(CASE) + "\n")
    repository.write("suites/c.suite.yml", SUITE.replace("cases/NAME", "cases/more").replace("NAME", "c"))
    commit(repository)
    assert repository.json("gate", "--local", "--affected", "--against", "HEAD")["affected"]["suites"] == {
        "c": ["suites/cases/more.jsonl"]
    }


def test_nothing_affected_is_a_pass_that_says_so_everywhere(repository: Project, tmp_path: Path) -> None:
    repository.write("README.md", "What this is.\n")
    junit, comment, saved = (tmp_path / name for name in ("j.xml", "c.md", "a.json"))
    files = ("--junit", str(junit), "--markdown", str(comment), "--json-file", str(saved))
    suites, answer = gated(repository, *files)

    said = "nothing to gate: 1 file changed since main"
    assert (suites, answer["verdict"]) == ([], "pass")
    assert answer["reasons"][0].startswith(said)
    assert comment.read_text().startswith("<!-- turnout:gate -->\n## ✅ Turnout: nothing to gate\n")
    assert "1 file changed since main" in comment.read_text()
    root = ET.parse(junit).getroot()  # noqa: S314 - our own
    assert (root.get("tests"), root.get("failures")) == ("1", "0")
    assert said in (root.findtext("testsuite/testcase/system-out") or "")
    assert json.loads(saved.read_text()) == answer
    page, sheet = tmp_path / "p.html", tmp_path / "s.csv"
    files = ("--html", str(page), "--csv", str(sheet))
    assert "pass: nothing to gate" in repository.run("gate", "--local", "--affected", "--against", "main", *files)[1]
    assert said in page.read_text()
    assert len(sheet.read_text().splitlines()) == 1


def test_a_changed_prompt_without_a_suite_is_told_and_can_fail_the_gate(repository: Project, tmp_path: Path) -> None:
    repository.write("prompts/loose.prompt.yml", prompt("model-a", "{% include 'tone' %}"))
    commit(repository)
    repository.write("prompts/tone.prompt.yml", TONE.replace("short", "kind"))
    answer = repository.json("gate", "--local", "--affected", "--against", "HEAD")
    assert answer["affected"]["prompts"] == ["a", "b", "loose", "tone"]
    assert answer["affected"]["untested"] == ["loose"]
    assert answer["verdict"] == "pass"
    assert "prompt loose changed, or what it includes, and no suite tests it: write one" in " ".join(answer["notes"])

    junit, comment = tmp_path / "j.xml", tmp_path / "c.md"
    files = ("--junit", str(junit), "--markdown", str(comment))
    strict = ("gate", "--local", "--affected", "--require-suites", "--against", "HEAD")
    failed = repository.json(*strict, *files, exit_code=1)
    assert failed["verdict"] == "fail"
    assert [entry["verdict"] for entry in failed["suites"]] == ["pass", "pass"]
    assert "loose" in failed["reasons"][-1]
    assert comment.read_text().startswith("<!-- turnout:gate -->\n## ❌ Turnout: a changed prompt has no suite\n")
    assert comment.read_text().count("turnout:gate") == 1
    root = ET.parse(junit).getroot()  # noqa: S314 - our own
    assert root.get("failures") == "1"
    assert int(root.get("tests") or 0) == len(root.findall(".//testcase"))
    assert root.find("testsuite[@name='changes']/testcase[@name='a suite for loose']/failure") is not None


def test_only_a_prompt_without_a_suite_changed(repository: Project, tmp_path: Path) -> None:
    repository.write("prompts/loose.prompt.yml", prompt("model-a"))
    assert gated(repository)[1]["verdict"] == "pass"
    comment = tmp_path / "c.md"
    suites, answer = gated(repository, "--require-suites", "--markdown", str(comment), exit_code=1)
    assert (suites, answer["verdict"]) == ([], "fail")
    assert "no suite tests it" in comment.read_text()
    assert "nothing to gate</h" not in comment.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--affected",), "add --against REF, such as origin/main"),
        (("--require-suites",), "add --affected"),
        (("--affected", "--against", "nowhere"), "git knows no commit 'nowhere' here"),
        (("--affected", "--against", "main", "--candidate", "a@1"), "a@1 names a version"),
    ],
)
def test_what_has_no_sense_is_refused_with_the_fix(repository: Project, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = repository.run("gate", "--local", *arguments)
    assert code == 2
    assert said in err


def test_the_base_is_that_of_the_ci_job(repository: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    base = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository.folder, capture_output=True, text=True, check=True
    )
    repository.write("prompts/c.prompt.yml", prompt("model-b", "Now:"))
    commit(repository)
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"merge_group": {"base_sha": base.stdout.strip(), "head_sha": "1" * 40}}))
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    monkeypatch.setenv("GITHUB_EVENT_NAME", "merge_group")
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/bot")

    answer = repository.json("gate", "--local", "--affected")
    assert answer["affected"]["suites"] == {"c": ["prompts/c.prompt.yml"]}
    assert answer["affected"]["commit"] == base.stdout.strip()


def test_a_hook_of_git_that_names_its_repository_hides_no_baseline_of_a_project_in_a_folder(
    repository: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = repository.folder
    repository.write("bot/turnout.yaml", CONFIG)
    for name in ("prompts", "suites"):
        (root / name).rename(root / "bot" / name)
    commit(repository)
    git(repository, "worktree", "add", "-q", "-b", "wt", "linked")  # of which git tells its hooks where its files are
    bot = root / "linked/bot"
    (bot / "prompts/a.prompt.yml").write_text(prompt("model-a", "Now: {% include 'tone' %}"))
    monkeypatch.chdir(bot)
    monkeypatch.setenv("GIT_DIR", str(root / ".git/worktrees/linked"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(root / ".git/worktrees/linked/index"))
    suites, answer = gated(repository)

    assert suites == ["a"]
    assert answer["affected"]["changed"] == ["prompts/a.prompt.yml"]
    assert answer["suites"][0]["origins"]["baseline"].startswith("git:")


def changes_a(project: Project) -> None:
    """Prompt `a` is another in the working tree, wherever its file lies: gated alone, against what it was."""
    path = project.folder / "prompts/a.prompt.yml"
    path.write_text(prompt("model-a", "Now: {% include 'tone' %}"))
    suites, answer = gated(project)
    assert suites == ["a"]
    assert answer["affected"]["changed"] == ["prompts/a.prompt.yml"]
    assert answer["suites"][0]["origins"]["baseline"].startswith("git:")
    assert answer["suites"][0]["candidate"] != answer["suites"][0]["baseline"]


@pytest.mark.parametrize("target", ["src/prompts", "../shared"])
def test_a_folder_of_prompts_that_is_a_link_is_followed_on_both_sides(
    repository: Project, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    root = repository.folder
    bot = root / "bot"
    bot.mkdir()
    for name in ("turnout.yaml", "suites", "prompts"):
        (root / name).rename(bot / name)
    (bot / target).parent.mkdir(exist_ok=True)
    (bot / "prompts").rename(bot / target)
    (bot / "prompts").symlink_to(target)
    commit(repository)
    monkeypatch.chdir(bot)
    changes_a(Project(bot, repository._capsys))


@pytest.fixture
def with_submodule(repository: Project) -> Project:
    """The same with its prompts in a submodule."""
    library = Project(repository.folder / "library", repository._capsys)
    (repository.folder / "prompts").rename(library.folder)
    git(library, "init", "-q", "-b", "main")
    commit(library)
    git(repository, "rm", "-q", "-r", "--cached", "prompts")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.folder), "prompts")
    (repository.folder / ".gitignore").write_text("library\n")
    commit(repository)
    return repository


@pytest.mark.parametrize("is_committed", [False, True])
def test_prompts_of_a_submodule_are_gated_against_what_it_was_then(with_submodule: Project, is_committed: bool) -> None:
    if is_committed:
        git(with_submodule, "checkout", "-q", "-b", "change")
        with_submodule.write("prompts/a.prompt.yml", prompt("model-a", "Then: {% include 'tone' %}"))
        commit(Project(with_submodule.folder / "prompts", with_submodule._capsys))
        commit(with_submodule)
    changes_a(with_submodule)


def test_a_link_to_prompts_of_a_submodule_is_followed_into_what_it_was_then(with_submodule: Project) -> None:
    git(with_submodule, "mv", "prompts", "shared")
    (with_submodule.folder / "prompts").symlink_to("shared")
    commit(with_submodule)
    changes_a(with_submodule)


def test_prompts_of_a_submodule_that_its_commit_has_not_move_no_label(with_submodule: Project) -> None:
    with_submodule.write("prompts/a.prompt.yml", prompt("model-a").replace("variables", "labels: [staging]\nvariables"))
    with_submodule.json("push", "--local")
    assert "staging" not in with_submodule.json("log", "a", "--local")["labels"]


def test_a_broken_submodule_elsewhere_hinders_neither_a_push_nor_a_gate(with_submodule: Project) -> None:
    library = str(with_submodule.folder / "library")
    git(with_submodule, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library, "vendor")
    commit(with_submodule)
    (with_submodule.folder / "vendor/.git").write_text("gitdir: ../.git/modules/gone\n")
    with_submodule.write("prompts/a.prompt.yml", prompt("model-a", "Now: {% include 'tone' %}"))

    assert "a" in {entry["name"] for entry in with_submodule.json("push", "--local")}
    with_submodule.json("gate", "--local", "--against", "main", "suites/a.suite.yml")


def test_a_submodule_without_the_commit_of_then_is_told_by_name(with_submodule: Project) -> None:
    inner = Project(with_submodule.folder / "prompts", with_submodule._capsys)
    git(inner, "checkout", "-q", "--orphan", "new")
    git(inner, "commit", "-q", "-m", "anew")
    git(inner, "update-ref", "-d", "refs/heads/main")
    git(inner, "update-ref", "-d", "refs/remotes/origin/main")
    git(inner, "update-ref", "-d", "refs/remotes/origin/HEAD")
    for more in (("reflog", "expire", "--expire=now", "--all"), ("gc", "-q", "--prune=now")):
        git(inner, *more)
    answer = with_submodule.json("gate", "--local", "--affected", "--against", "main", exit_code=2)
    assert "the submodule prompts was at" in answer["error"]["message"]
    assert "git submodule update --init" in answer["error"]["message"]


def test_a_partial_clone_that_cannot_fetch_the_baseline_is_no_gate_without_one(
    repository: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(repository, "config", "uploadpack.allowFilter", "true")
    git(repository, "checkout", "-q", "-b", "change")
    repository.write("prompts/a.prompt.yml", prompt("model-a", "Now: {% include 'tone' %}"))
    commit(repository)
    clone = repository.folder.parent / "clone"
    git(repository, "clone", "-q", "--filter=blob:none", f"file://{repository.folder}", str(clone))
    repository.folder.rename(repository.folder.parent / "away")
    monkeypatch.chdir(clone)
    answer = repository.json("gate", "--local", "--affected", "--against", "origin/main", exit_code=2)
    assert "promisor remote" in answer["error"]["message"]
