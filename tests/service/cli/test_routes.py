"""`turnout route` as a user's shell shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cli.routes import shadow_lines, status_lines
from service.rollouts import moves
from service.store.database import Database
from suites.rollouts import Arm, Rules, StepInput, Tally, decide_step
from tests.service.cli.projects import PROMPT, Project

NAME = "support.triage"
FILE = "prompts/support/triage.prompt.yml"
OLD, NEW = f"{NAME}@1+model-a", f"{NAME}@2+model-a"


@pytest.fixture
def routed(workspace: Project) -> Project:
    """Two versions; the first has all the traffic."""
    workspace.write_all()
    workspace.json("push", "--local")
    workspace.write(FILE, PROMPT.replace("Route the ticket.", "Kindly route the ticket."))
    workspace.json("push", "--local")
    route(workspace, "set", f"{OLD}=100", "-m", "the first")
    return workspace


def route(project: Project, *arguments: str) -> str:
    code, out, err = project.run("route", NAME, *arguments, "--local")
    assert code == 0, err
    return out


def refused(project: Project, *arguments: str) -> str:
    code, _, err = project.run("route", NAME, *arguments, "--local")
    assert code == 2
    return err


def test_shadows_are_told_in_lines_that_a_window_holds() -> None:
    one = {
        "shadow": NEW, "answered": OLD, "requests": 120, "both_failed": 1, "only_shadow_failed": 2,
        "only_answered_failed": 3, "shadow_ms": 1234.5678, "answered_ms": 99.5, "shadow_usd": 0.001234, "answered_usd": None,
        "compared": 50, "same_output": 48, "p_value": 0.5,
    }  # fmt: skip

    assert shadow_lines([one]) == [
        f"{NEW} beside {OLD}: 120 requests",
        "  failed: both 1, only the shadow 2, only who answered 3 (p 0.5)",
        "  took: the shadow 1235 ms, 0.001234 USD; who answered 99.5 ms",
        "  the same text: 48 of 50 recorded",
    ]


def test_set_shows_shares_and_how_the_route_asks(routed: Project) -> None:
    toned = PROMPT.replace("variables:", "variables:\n  tone: {type: string, default: kind}").replace(
        "{{ ticket }}", "{{ ticket }}{{ tone }}"
    )
    routed.write(FILE, toned)
    routed.json("push", "--local")
    shadow = f"{NAME}@3+model-a"
    out = route(routed, "set", f"{OLD}=90", f"{NEW}=10", "--fallback", OLD, "--shadow", shadow, "--sticky",
                "variables:ticket, tone", "-m", "a tenth")  # fmt: skip

    assert f"    90.0%  {OLD}\n    10.0%  {NEW}\n  fallbacks: {OLD}\n  shadows: {shadow}\n" in out
    assert '  sticky: {"variables": ["ticket", "tone"]}' in out

    shown = route(
        routed, "set", f"{OLD}=100", "--fallback", "none", "--shadow", "none", "--sticky", "default", "-m", "all"
    )
    assert "fallbacks" not in shown
    assert "sticky" not in shown


def test_shares_may_be_planned_one_after_another_and_end_with_the_next_set(routed: Project) -> None:
    route(routed, "set", f"{NEW}=100", "--at", "2099-01-02T00:00:00Z", "-m", "then all")
    out = route(routed, "set", f"{NEW}=50", f"{OLD}=50", "--at", "2099-01-01T01:00:00+01:00", "-m", "first half")

    assert f"   100.0%  {OLD}\n" in out
    first, second = (line for line in out.splitlines() if line.startswith("  from "))
    assert first == f"  from 2099-01-01 00:00:00 UTC: 50% {NEW}, 50% {OLD}"
    assert second == f"  from 2099-01-02 00:00:00 UTC: 100% {NEW}"
    assert "from 2099" not in route(routed, "set", f"{OLD}=100", "-m", "by hand")


def test_a_rollout_is_begun_shown_paused_and_aborted(routed: Project) -> None:
    route(routed, "rollout", NEW, "--steps", "10,100", "--rule", "margin=0.05", "-m", "a kinder one")

    out = route(routed)
    assert "  rollout running: 0 of 100 units a variant\n  step 1 of 2: [10%] → 100%\n" in out
    assert f"  candidate        0 units       0 bad  {NEW}\n" in out
    assert "  evidence to promote: 1 of 20\n  evidence to roll back: 1 of 20\n" in out
    assert routed.json("route", NAME, "status", "--local")["rules"]["margin"] == 0.05

    route(routed, "pause", "-m", "over lunch")
    assert "  rollout paused: over lunch\n" in route(routed, "status")
    route(routed, "resume")
    route(routed, "abort", "-m", "enough")
    code, _, err = routed.run("route", NAME, "--watch", "--local")
    assert (code, "rollout aborted: enough" in err) == (0, True)
    assert routed.json("route", NAME, "--watch", "--local")["state"] == "aborted"


def test_explain_says_who_gets_what_and_why(routed: Project) -> None:
    route(routed, "set", f"{OLD}=50", f"{NEW}=50", "--sticky", "variables:ticket", "-m", "halves")

    out = route(routed, "explain", "-v", "ticket=I was charged twice")
    found = routed.json("route", NAME, "explain", "-v", "ticket=I was charged twice", "--local")
    assert out.startswith(f"{found['variant']} (revision 2, by variables)\n  point ")
    assert f"  {0.0:>9.4f} to {50.0:>9.4f}  {OLD}\n" in out
    assert route(routed, "explain", "--user", "jane").startswith("no variant in particular")


def test_history_undo_and_promote_are_as_they_were(routed: Project) -> None:
    route(routed, "rollout", NEW, "-m", "try")
    assert [item["percent"] for item in routed.json("route", NAME, "promote", "--local")["variants"]] == [25.0, 75.0]
    assert routed.json("route", NAME, "undo", "--local")["rollout"]["paused"].startswith("a person went back")
    assert [one["action"] for one in routed.json("route", NAME, "history", "--local")] == [
        "undo", "promote", "rollout", "set"
    ]  # fmt: skip


def test_the_evidence_of_a_step_is_computed_anew(routed: Project, tmp_path: Path) -> None:
    given = StepInput(candidate=NEW, incumbent=OLD, step=0, steps=(5, 100), share=5, rules=Rules(),
                      candidate_units=Arm(good=3, bad=3), incumbent_units=Arm(good=90), bad_blocks=((3, 0),),
                      candidate_settled=Tally(), incumbent_settled=Tally(), split=(0, 0))  # fmt: skip
    content = {
        "about": "step",
        "given": given.model_dump(mode="json"),
        "decision": decide_step(given).model_dump(mode="json"),
    }
    database = Database(f"sqlite:///{tmp_path / 'home' / 'turnout.db'}")
    evidence_id = moves.note(database, NAME, 1, "roll_back", NEW, content)
    database.close()

    found = routed.json("evidence", str(evidence_id), "--verify", "--local")
    assert (found["verified"], found["checked"], found["content"]["route_revision"]) == (
        True,
        ["digest", "decision"],
        1,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fly",), "no action 'fly'"),
        (("set", OLD), "write VARIANT=PERCENT"),
        (("set", f"{OLD}=100", "--at", "tomorrow", "-m", "x"), "is no time"),
        (("set", f"{OLD}=100", "--at", "2099-01-01T00:00", "-m", "x"), "has no time zone"),
        (("set", f"{OLD}=100", "--sticky", "moon", "-m", "x"), "sticky"),
        (("rollout", "-m", "x"), "name the one VARIANT"),
        (("rollout", NEW, "--steps", "a,b", "-m", "x"), "write 5,25,100"),
        (("rollout", NEW, "--rule", "margin", "-m", "x"), "write NAME=VALUE"),
        (("rollout", NEW, "--rule", "moon=1", "-m", "x"), "moon"),
        (("explain", "-v", "ticket"), "key=value"),
        (
            ("rollout", NEW, "--rule", "bogus=1", "-m", "x"),
            "--rule bogus: there is no such rule; there are margin, latency_budget_ms",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_fix(routed: Project, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(routed, *arguments)


def test_a_route_without_a_rollout_says_so_and_not_why_its_shares_were_set() -> None:
    assert status_lines({"state": "none", "reason": "try"}) == ["  no rollout is under way"]


def test_a_status_is_told_in_a_few_lines() -> None:
    arm = {"units": 25, "bad": 5, "bad_share": 0.2}
    status = {
        "state": "rolled_back", "reason": "clear harm", "step": 1, "steps": [5, 25, 100], "is_verified": False,
        "candidate": "b", "incumbent": "a", "units": {"candidate": arm, "incumbent": {**arm, "bad": 0, "bad_share": 0.0}},
        "e_promote": 0.0123, "promote_at": 20.0, "e_roll_back": 1234.5, "roll_back_at": 40.0, "e_split": 1.0, "split_at": 1000.0,
    }  # fmt: skip

    assert status_lines(status) == [
        "  rollout rolled back: clear harm",
        "  step 2 of 3: 5% → [25%] → 100%",
        "  candidate       25 units       5 bad (20.0%)  b",
        "  incumbent       25 units       0 bad (0.0%)  a",
        "  evidence to promote: 0.0123 of 20",
        "  evidence to roll back: 1.23e+03 of 40",
        "  evidence of a broken split: 1 of 1000",
    ]
