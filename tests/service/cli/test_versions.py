"""list, log, show, diff, blame and label as a user's shell shows them."""

from __future__ import annotations

import io
import json
import subprocess
from typing import Any

import pytest

from tests.service.cli.projects import PROMPT, Project

NAME = "support.triage"
FILE = "prompts/support/triage.prompt.yml"
KINDER = PROMPT.replace("Route the ticket.", "Kindly route the ticket.")


@pytest.fixture
def pushed(workspace: Project) -> Project:
    """Two versions: the second is kinder, described and tagged."""
    workspace.write_all()
    workspace.json("push", "-m", "the first", "--local")
    workspace.write(FILE, KINDER + "name: Ticket triage\ndescription: Sends a ticket to a queue\ntags: [support]\n")
    workspace.json("push", "-m", "be kind", "--local")
    return workspace


def shown(project: Project, *arguments: str) -> str:
    code, out, err = project.run(*arguments, "--local")
    assert code == 0, err
    return out


# ---------------------------------------------------------------------------- list


def test_list_shows_what_a_search_finds(pushed: Project) -> None:
    pushed.write("prompts/other.prompt.yml", "model: model-a\nmessages: [{role: user, content: Hello.}]\n")
    pushed.json("push", "--local")

    assert [entry["name"] for entry in pushed.json("list", "--local")] == ["other", NAME]
    assert [entry["name"] for entry in pushed.json("list", "KIND queue", "--local")] == [NAME]
    assert [entry["name"] for entry in pushed.json("list", "--tag", "support", "--model", "model-a", "--local")] == [
        NAME
    ]
    assert pushed.json("list", "--label", "staging", "--local") == []
    table = shown(pushed, "list", "kindly")
    assert "Sends a ticket to a queue" in table
    assert shown(pushed, "list", "nothing-is-like-this") == "no prompt is like that\n"


def test_list_of_an_empty_registry_says_what_to_do(workspace: Project) -> None:
    assert shown(workspace, "list") == "no prompts yet: turnout push makes them\n"
    assert workspace.json("list", "--local") == []


def test_list_reads_every_page(workspace: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        workspace.write(f"prompts/p{number}.prompt.yml", "model: m\nmessages: [{role: user, content: Hello.}]\n")
    workspace.write("turnout.yaml", "models: {m: {engine: fake}}\n")
    workspace.json("push", "--local")
    monkeypatch.setattr("service.cli.versions.PAGE", 2)

    assert [entry["name"] for entry in workspace.json("list", "--local")] == ["p0", "p1", "p2", "p3", "p4"]


# ---------------------------------------------------------------------------- log


def test_log_shows_labels_beside_versions_and_how_their_runs_did(pushed: Project) -> None:
    pushed.json("label", NAME, "staging", "1", "--local")
    pushed.json("run", NAME, "--prompt", f"{NAME}@1", "--local")

    log = shown(pushed, "log", NAME)

    assert log.startswith(f"{NAME}: staging → 1, latest → 2\n")
    [second, first] = [line for line in log.splitlines() if "the first" in line or "be kind" in line]
    assert "latest" in second
    assert "staging" in first
    assert "with model-a: 100% (34% to 100%, 2 of 2)" in log
    assert [version["version"] for version in pushed.json("log", NAME, "-n", "1", "--local")["versions"]] == [2]
    assert pushed.run("log", "no.such", "--local")[0] == 2


def git(project: Project, *arguments: str) -> None:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=project.folder, check=True, capture_output=True)


def test_a_push_from_git_records_author_commit_and_subject_and_what_is_not_committed(workspace: Project) -> None:
    workspace.write_all()
    workspace.write("prompts/dirty.prompt.yml", PROMPT)
    git(workspace, "init", "-b", "main")
    git(workspace, "add", ".")
    git(workspace, "commit", "-m", "Route by queue\n\nAnd more.")
    workspace.write("prompts/dirty.prompt.yml", KINDER)
    workspace.write("prompts/new.prompt.yml", PROMPT)
    workspace.json("push", "--local")

    def known(name: str) -> dict[str, Any]:
        version: dict[str, Any] = workspace.json("log", name, "--local")["versions"][0]
        return version

    clean = known(NAME)
    assert (clean["git_author"], clean["git_branch"]) == ("Ada <ada@example.com>", "main")
    assert (clean["message"], clean["git_dirty"], len(clean["git_sha"])) == ("Route by queue", False, 40)
    assert [(known(name)["git_dirty"], known(name)["message"]) for name in ("dirty", "new")] == [(True, None)] * 2
    assert f"{clean['git_sha'][:9]}+" in shown(workspace, "log", "dirty")
    log = shown(workspace, "log", NAME)
    assert "Ada <ada@example.com>" in log
    assert clean["git_sha"][:9] + "+" not in log


def test_a_staged_change_is_not_in_the_commit_either(workspace: Project) -> None:
    workspace.write_all()
    git(workspace, "init", "-b", "main")
    git(workspace, "add", ".")
    git(workspace, "commit", "-m", "first")
    workspace.write(FILE, KINDER)
    git(workspace, "add", ".")
    workspace.json("push", "-m", "mine", "--local")

    [version] = workspace.json("log", NAME, "--local")["versions"]
    assert (version["git_dirty"], version["message"]) == (True, "mine")


def labelled(workspace: Project, branch: str = "main") -> str:
    """A committed prompt whose file names the label `staging`; returns its text."""
    workspace.write_all()
    text = PROMPT + "labels: [staging]\n"
    workspace.write(FILE, text)
    git(workspace, "init", "-b", branch)
    git(workspace, "add", ".")
    git(workspace, "commit", "-m", "first")
    return text


GITHUB_JOB = {"GITHUB_EVENT_PATH": "event.json", "GITHUB_SHA": "SHA", "GITHUB_REF": "refs/heads/trunk"}
GITLAB_JOB = {"GITLAB_CI": "true", "CI_COMMIT_SHA": "SHA", "CI_DEFAULT_BRANCH": "trunk", "CI_COMMIT_BRANCH": "trunk"}


@pytest.mark.parametrize(
    ("job", "is_detached", "kept"),
    [
        (GITHUB_JOB, False, None),
        (GITHUB_JOB, True, None),
        (GITLAB_JOB, True, None),
        ({**GITLAB_JOB, "CI_COMMIT_BRANCH": "feat"}, True, "branch feat is not the default one"),
        ({**GITLAB_JOB, "CI_COMMIT_BRANCH": ""}, True, "no branch is checked out"),  # a tag, a merge request
        ({**GITHUB_JOB, "GITHUB_REF": "refs/pull/7/merge"}, True, "no branch is checked out"),
        ({**GITHUB_JOB, "GITHUB_SHA": "0" * 40}, True, "no branch is checked out"),  # not the commit that is here
        ({**GITHUB_JOB, "GITHUB_EVENT_PATH": "none.json"}, False, "branch trunk is not the default one"),
        ({}, False, "branch trunk is not the default one"),
    ],
)
def test_a_ci_job_says_which_branch_is_the_default_one_and_which_it_is_of(
    workspace: Project, monkeypatch: pytest.MonkeyPatch, job: dict[str, str], is_detached: bool, kept: str | None
) -> None:
    labelled(workspace, branch="trunk")
    workspace.write("event.json", json.dumps({"repository": {"default_branch": "trunk"}}))
    if is_detached:
        git(workspace, "checkout", "-q", "--detach")
    told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=workspace.folder, check=True, capture_output=True)
    for name in ("GITHUB_EVENT_PATH", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in job.items():
        monkeypatch.setenv(name, told.stdout.decode().strip() if value == "SHA" else value)

    [entry] = [each for each in workspace.json("push", "--local") if each["kind"] == "prompt"]
    assert entry["labels"] == ([] if kept else ["staging"])
    assert entry["labels_kept"] == ({"staging": kept} if kept else {})
    if kept is None:
        assert workspace.json("log", NAME, "--local")["versions"][0]["git_branch"] == "trunk"


def test_a_label_in_a_file_moves_only_to_what_is_committed_on_the_default_branch(workspace: Project) -> None:
    text = labelled(workspace)
    workspace.write(FILE, text.replace("Route", "Kindly route"))

    [entry, _] = workspace.json("push", "--local")
    assert (entry["version"], entry["labels"]) == (1, [])
    assert entry["labels_kept"] == {"staging": "the file is not committed"}
    assert f"{NAME}@staging not moved: the file is not committed\n" in shown(workspace, "push")
    assert workspace.run("label", NAME, "staging", "--local")[0] == 2

    git(workspace, "commit", "-am", "kinder")
    [entry, _] = workspace.json("push", "--local")
    assert (entry["created"], entry["labels"], entry["labels_kept"]) == (False, ["staging"], {})
    assert workspace.json("label", NAME, "staging", "--local")["version"] == 1

    git(workspace, "checkout", "-b", "feat")
    assert f"{NAME}@staging not moved: branch feat is not the default one\n" in shown(workspace, "push")


def test_a_label_does_not_move_where_what_the_file_includes_is_not_committed(workspace: Project) -> None:
    workspace.write_all()
    workspace.write("prompts/tone.prompt.yml", "model: model-a\nmessages: [{role: system, content: Be brief.}]\n")
    include = PROMPT.replace("Route the ticket.", "{% include 'tone' %}") + "labels: [staging]\n"
    workspace.write(FILE, include)
    git(workspace, "init", "-b", "main")
    git(workspace, "add", ".")
    git(workspace, "commit", "-m", "first")
    workspace.write("prompts/tone.prompt.yml", "model: model-a\nmessages: [{role: system, content: Be loud.}]\n")

    assert workspace.json("push", "--local")[0]["labels_kept"] == {"staging": "the file is not committed"}


def test_a_file_outside_prompts_moves_its_label_only_as_committed(workspace: Project) -> None:
    text = labelled(workspace)
    workspace.write("more/extra.prompt.yml", text)
    assert workspace.json("push", "more", "--local")[0]["labels_kept"] == {"staging": "the file is not committed"}

    git(workspace, "add", ".")
    git(workspace, "commit", "-m", "more")
    assert workspace.json("push", "more", "--local")[0]["labels"] == ["staging"]


def test_without_git_a_label_in_a_file_moves(workspace: Project) -> None:
    workspace.write_all()
    workspace.write(FILE, PROMPT + "labels: [staging]\n")

    assert f"\n{NAME}@staging → 1\n" in shown(workspace, "push")


def test_push_shows_what_is_new_with_short_digests_and_counts_the_rest(pushed: Project) -> None:
    pushed.write("prompts/other.prompt.yml", "model: model-a\nmessages: [{role: user, content: Hello.}]\n")

    out = shown(pushed, "push")

    assert out.endswith("1 new, 2 unchanged\n")
    assert NAME not in out
    digest = pushed.json("show", "other@1", "--local")["digest"]
    assert (digest[:19] in out, digest in out) == (True, False)
    assert shown(pushed, "push") == "0 new, 3 unchanged\n"


def test_a_file_with_a_protected_label_is_warned_of_refused_by_name_and_moves_after_its_gate(
    workspace: Project,
) -> None:
    workspace.write_all()
    workspace.write(FILE, PROMPT + "labels:\n  - staging\n  - production\n")

    [fault] = workspace.json("check")["faults"]
    assert (fault["path"], fault["line"], fault["rule"], fault["level"]) == (FILE, 9, "protected-label", "warning")
    assert fault["message"].startswith("the label 'production' is protected")
    code, _, err = workspace.run("push", "-m", "no reason to go without a gate", "--local")
    assert code == 2
    assert (
        err.split()
        == (
            f"error: nothing was pushed: the file of {NAME} names the label 'production', which is protected, and"
            f" {NAME}@1+model-a has no passing gate: take it out of `labels`, push, run `turnout gate`, then"
            f" `turnout label {NAME} production VERSION`"
        ).split()
    )
    assert workspace.run("show", f"{NAME}@1", "--local")[0] == 2

    assert workspace.run("gate", "--local")[0] == 0
    assert workspace.json("push", "--local")[0]["labels"] == ["staging", "production"]
    assert workspace.json("label", NAME, "production", "--local")["version"] == 1


# ---------------------------------------------------------------------------- show


def test_show_tells_author_commit_and_message(workspace: Project) -> None:
    labelled(workspace)
    workspace.write(FILE, KINDER)
    workspace.json("push", "-m", "be kind", "--local")

    version = workspace.json("show", f"{NAME}@1", "--local")
    at = version["created_at"][:16].replace("T", " ")
    said = f"by Ada <ada@example.com>  {at}  commit {version['git_sha'][:9]}+  branch main  be kind\n"
    assert said in shown(workspace, "show", f"{NAME}@1")
    assert f"@1  {version['git_sha'][:9]}+  Ada" in shown(workspace, "blame", f"{NAME}@1")


def test_what_names_no_label_and_finds_no_production_is_told_of_latest(pushed: Project) -> None:
    hint = f"; the newest is {NAME}@latest (for `run` and `finetune` with --prompt, for `gate` with --candidate)"
    for command in ("show", "blame"):
        code, _, err = pushed.run(command, NAME, "--local")
        assert (code, hint in " ".join(err.split())) == (2, True)
    assert hint in " ".join(pushed.run("run", NAME, "--local")[2].split())
    assert "the newest is" not in pushed.run("show", f"{NAME}@staging", "--local")[2]


def test_control_characters_are_shown_as_escapes_by_every_command(workspace: Project) -> None:
    workspace.write_all()
    hostile = 'name: "red \\e[31m \\a bell"\ndescription: "back \\b \\x9b"\ntags: ["t\\e"]\nnotes: "n\\r"\n'
    workspace.write(FILE, KINDER.replace("Kindly", "Kindly \\e[2J") + hostile)
    workspace.json("push", "-m", "why \x1b]0;title\a", "--local")
    workspace.write(FILE, PROMPT)
    workspace.json("push", "-m", "plain", "--local")
    workspace.json("label", NAME, "staging", "1", "-m", "so \x1b[1m", "--local")

    commands = (("list",), ("log", NAME), ("show", f"{NAME}@1"), ("show", f"{NAME}@1", "--markdown"),
                ("diff", NAME, "1", "2"), ("blame", f"{NAME}@1"), ("label", NAME, "staging", "--history"),
                ("show", f"{NAME}@1", "--json"), ("check",), ("no-such\x1b[1m",))  # fmt: skip
    for command in commands:
        local = () if command[0] in ("check", "no-such\x1b[1m") else ("--local",)
        _, out, err = workspace.run(*command, *local)
        assert [sign for sign in out + err if not sign.isprintable() and sign not in "\n\u2028"] == [], command
    page = shown(workspace, "show", f"{NAME}@1", "--markdown")
    assert page.startswith("# red \\x1b\\[31m \\x07 bell\n")
    assert "red \\x1b[31m \\x07 bell\nback \\x08 \\x9b\nt\\x1b\nn\\r\n" in shown(workspace, "show", f"{NAME}@1")
    assert "so \\x1b[1m" in shown(workspace, "label", NAME, "staging", "--history")


def test_a_text_within_a_text_of_styles_or_a_table_is_escaped_too(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    from service.cli.output import err, out

    shown = Table("a wide column")
    shown.add_row("\x1b")
    err().print(Text("styled \x1b[31m", style="red"))
    out().print(shown)

    said = capsys.readouterr()
    assert said.err == "styled \\x1b[31m\n"
    assert "│ \\x1b          │" in said.out
    assert "\x1b" not in said.out


def test_show_gives_all_that_is_served_and_what_is_known(pushed: Project) -> None:
    out = shown(pushed, "show", f"{NAME}@2")

    for said in (f"{NAME}@2  sha256:", "Ticket triage", "Sends a ticket to a queue", "support",
                 "--- system\nKindly route the ticket.", "--- user\n{{ ticket }}", '--- variables: {"ticket"'):  # fmt: skip
        assert said in out


def test_show_shows_slots_parts_examples_and_notes(workspace: Project) -> None:
    workspace.write("turnout.yaml", "models: {m: {engine: fake}}\n")
    workspace.write(
        "prompts/rich.prompt.yml",
        "model: m\nnotes: Fails on refunds.\nplaceholders: {history: {}}\nvariables: {q: {type: string}}\n"
        "messages:\n  - {placeholder: history}\n  - role: user\n    content: [{type: text, text: 'See {{ q }}'}]\n"
        "examples: [{vars: {q: a}, expected: b}]\n",
    )
    workspace.json("push", "--local")

    out = shown(workspace, "show", "rich@1")

    for said in (
        "Fails on refunds.",
        "--- placeholder\nhistory",
        "--- user\n(text)\nSee {{ q }}",
        '--- examples: [{"vars"',
    ):
        assert said in out


def test_show_markdown_is_the_prompts_page(pushed: Project) -> None:
    page = shown(pushed, "show", f"{NAME}@2", "--markdown")

    assert page.startswith(f"# Ticket triage\n\n`{NAME}@2` · `latest` · model `model-a`")
    assert "| 1 | 20" in page
    assert pushed.json("show", f"{NAME}@2", "--markdown", "--local") == {"markdown": page}
    code, _, err = pushed.run("show", NAME, "--markdown", "--local")
    assert (code, "its labels are none, and latest" in err) == (2, True)


# ---------------------------------------------------------------------------- diff


def test_diff_marks_the_words_that_changed(pushed: Project) -> None:
    pushed.write(FILE, KINDER.replace("maxLength: 400", "maxLength: 500").replace("model: model-a", "model: model-b"))
    pushed.write("turnout.yaml", "models: {model-a: {engine: fake}, model-b: {engine: fake}}\n")
    pushed.json("push", "--local")

    assert shown(pushed, "diff", NAME, "1", "latest") == (
        "--- message 1 [system] changed\n"
        "[-Route-]{+Kindly route+} the ticket.\n"
        "variables.ticket.maxLength: 400 → 500\n"
        'model: "model-a" → "model-b"\n'
    )
    assert shown(pushed, "diff", NAME, "1", "1") == "the same content\n"
    assert pushed.json("diff", NAME, "1", "2", "--local").keys() == {
        "name", "a", "b", "messages", "message_changes", "fields", "changes", "same",
    }  # fmt: skip


def test_diff_with_variables_shows_what_both_render(pushed: Project) -> None:
    out = shown(pushed, "diff", NAME, "1", "2", "-v", "ticket=late")

    assert out.endswith("\nrendered:\n--- message 1 [system] changed\n[-Route-]{+Kindly route+} the ticket.\n")
    found = pushed.json("diff", NAME, "1", "2", "-v", "ticket=late", "--local")
    assert found["rendered"]["a"][1] == {"role": "user", "content": "late"}
    code, _, err = pushed.run("diff", NAME, "1", "2", "-v", "tickets=late", "--local")
    assert (code, "unexpected variable 'tickets'" in err) == (2, True)


def test_a_long_stretch_that_stays_is_cut_and_colours_need_a_terminal() -> None:
    from rich.console import Console

    from service.cli.versions import _marked

    spans = [
        {"kind": "added", "text": "new\n"},
        {"kind": "same", "text": "".join(f"line {number}\n" for number in range(20))},
        {"kind": "removed", "text": "old"},
    ]
    assert _marked(spans, plain=True).plain == (
        "{+new\n+}line 0\nline 1\nline 2\nline 3\n… 12 lines …\nline 16\nline 17\nline 18\nline 19\n[-old-]"
    )
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", no_color=False)
    console.print(_marked(spans, plain=False))
    written = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO, as given
    assert "\x1b[1;32mnew" in written
    assert "{+" not in written


# ---------------------------------------------------------------------------- blame


def test_blame_puts_the_version_before_each_line(pushed: Project) -> None:
    lines = shown(pushed, "blame", f"{NAME}@latest").splitlines()

    assert [line.split("  ")[0] for line in lines] == ["@2", "@1"]
    assert lines[0].endswith("  be kind    [system] Kindly route the ticket.")
    assert lines[1].endswith("[user] {{ ticket }}")
    found = pushed.json("blame", f"{NAME}@1", "--local")
    assert [line["version"] for line in found["lines"]] == [1, 1]


# ---------------------------------------------------------------------------- label


def test_a_label_is_moved_shown_undone_and_removed(pushed: Project) -> None:
    assert shown(pushed, "label", NAME, "staging", "1") == f"{NAME}@staging → 1 (revision 1)\n"
    assert pushed.json("label", NAME, "staging", "2", "--if-revision", "1", "-m", "kinder", "--local")["revision"] == 2
    assert shown(pushed, "label", NAME, "staging") == f"{NAME}@staging → 2 (revision 2)\n"
    assert shown(pushed, "label", NAME, "staging", "--undo") == f"{NAME}@staging → 1 (revision 3)\n"
    assert shown(pushed, "label", NAME, "staging", "--remove") == f"{NAME}@staging is gone\n"
    history = pushed.json("label", NAME, "staging", "--history", "--local")
    assert [(move["to_version"], move["reason"], move["undoes"]) for move in history] == [
        (None, None, None),
        (1, None, 2),
        (2, "kinder", None),
        (1, None, None),
    ]
    assert "kinder" in shown(pushed, "label", NAME, "staging", "--history")
    assert pushed.run("label", NAME, "staging", "--local")[0] == 2


def test_a_label_that_moved_meanwhile_stays_where_it_is(pushed: Project) -> None:
    pushed.json("label", NAME, "staging", "1", "--if-revision", "0", "--local")

    for arguments in (
        ("2", "--if-revision", "0"),
        ("--undo", "--if-revision", "9"),
        ("--remove", "--if-revision", "9"),
    ):
        code, _, err = pushed.run("label", NAME, "staging", *arguments, "--local")
        assert (code, "is at revision 1: read it again" in err) == (2, True)
    assert pushed.json("label", NAME, "staging", "--local")["version"] == 1


def test_label_does_one_thing_at_a_time(pushed: Project) -> None:
    for arguments in (("1", "--undo"), ("--remove", "--history")):
        code, _, err = pushed.run("label", NAME, "staging", *arguments, "--local")
        assert (code, "give one of VERSION, --undo, --remove and --history" in err) == (2, True)


def test_undo_of_production_takes_the_route_back(pushed: Project) -> None:
    for version in ("1", "2"):
        pushed.json("label", NAME, "production", version, "-m", "try", "--local")

    assert pushed.json("label", NAME, "production", "--undo", "--local")["version"] == 1
    route = pushed.json("route", NAME, "--local")
    assert route["variants"] == [{"variant": f"{NAME}@1+model-a", "percent": 100.0}]
