"""What the gate catches: deliberate faults in prompts, decided by the gate on answers of the real small model.

`python -m benchmarks.mutation HOME` copies the tasks of `mutation_tasks/` into HOME, makes one version of each unchanged prompt
and then, for each edit of `edits.yaml`, runs `turnout gate SUITE --local` with that version as the baseline and the default gate
(α 0.05, margin 0.02). What an edit came to is kept in HOME: a trial that was cut short goes on where it was, and asks no answer
twice. A verdict at fewer cases is the gate's own decision (`suites.gate.decide`) on seeded draws of the same answers. Writes
`results/mutation.json` at the end; `--sizes 100 200` asks all edits with 100 cases first, so that a trial which is stopped says
something of all of them, and `--summary` tells what there is without asking anything.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.__main__ import RESULTS, conditions
from prompts.yaml_source import load_yaml
from service.cli.exits import BAD_USAGE, COULD_NOT_RUN, FAILED, INCONCLUSIVE, PASSED
from suites.gate import decide, read_evidence
from suites.policy import GateSettings
from suites.verdicts import GateInput, Side

TASKS = Path(__file__).parent / "mutation_tasks"
SIZES = (25, 50, 100, 200)
DRAWS = 20  # of cases, at each size below all of them
CONCURRENCY = 40
SETTINGS = GateSettings()  # the default, which the suites of the tasks leave as it is
Kind = Literal["faults", "inert"]
_VERDICTS = (PASSED, FAILED, INCONCLUSIVE, COULD_NOT_RUN)
_TIMEOUT_S = 3600  # of one gate, on a machine that has other things to do


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit of a task's prompt; `sent` tells of an inert one that the model is sent other text all the same."""

    kind: Kind
    task: str
    name: str
    replace: tuple[tuple[str, str], ...]
    what: str = ""
    sent: bool = False

    def applied(self, text: str) -> str:
        """The file with the edit. Raises ValueError where a text that it replaces is not there."""
        for old, new in self.replace:
            if old not in text:
                raise ValueError(f"{self.task}/{self.name}: the prompt has no {old!r}: mend edits.yaml")
            text = text.replace(old, new)
        return text


@dataclass(frozen=True, slots=True)
class Trial:
    """A project in a folder, and what each edit came to there: `found/TASK-NAME-CASES.json`."""

    home: Path

    def prepare(self, tasks: Sequence[str]) -> dict[str, str]:
        """Copy the tasks and push the unchanged prompts; returns `NAME@N` of each."""
        shutil.copytree(TASKS, self.project, dirs_exist_ok=True)
        self.found.mkdir(parents=True, exist_ok=True)
        done = self.turnout("push", "--local", "--json")
        if done.returncode != PASSED:
            raise RuntimeError(f"the unchanged prompts cannot be pushed: {done.stderr}")
        pushed = json.loads(done.stdout)
        return {
            one["name"]: f"{one['name']}@{one['version']}"
            for one in pushed
            if one["name"] in tasks and one["kind"] == "prompt"
        }

    @property
    def project(self) -> Path:
        return self.home / "project"

    @property
    def found(self) -> Path:
        return self.home / "found"

    def file(self, edit: Edit, cases: int) -> Path:
        return self.found / f"{edit.task}-{edit.name}-{cases}.json"

    def turnout(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command in the project, whatever it comes to."""
        python_path = {"PYTHONPATH": str(Path(__file__).parents[1])}
        environment = {**os.environ, **python_path, "TURNOUT_HOME": str(self.home / "state"), "NO_COLOR": "1"}
        return subprocess.run(
            [sys.executable, "-m", "service.cli.main", *arguments],
            cwd=self.project, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def cut_suite(self, task: str, cases: int) -> None:
        """Leave the suite of the project its first `cases` cases."""
        lines = (TASKS / "suites" / "cases" / f"{task}.jsonl").read_text("utf-8").splitlines(keepends=True)
        (self.project / "suites" / "cases" / f"{task}.jsonl").write_text("".join(lines[:cases]), "utf-8")

    def ask(self, edit: Edit, baseline: str, cases: int) -> dict[str, Any]:
        """The gate's verdict on one edit, its evidence with it; or what `check` says of the file. Written to `found`."""
        prompt = self.project / "prompts" / f"{edit.task}.prompt.yml"
        unchanged = (TASKS / "prompts" / prompt.name).read_text("utf-8")
        prompt.write_text(edit.applied(unchanged), "utf-8")
        try:
            self.cut_suite(edit.task, cases)
            outcome = self._outcome(edit, baseline)
        finally:
            prompt.write_text(unchanged, "utf-8")
        file = self.file(edit, cases)
        file.with_suffix(".new").write_text(json.dumps(outcome), "utf-8")
        file.with_suffix(".new").replace(file)
        return outcome

    def _outcome(self, edit: Edit, baseline: str) -> dict[str, Any]:
        suite = f"suites/{edit.task}.suite.yml"
        done = self.turnout(
            "gate", suite, "--local", "--json", "--baseline", baseline, "--concurrency", str(CONCURRENCY)
        )
        if done.returncode in _VERDICTS:
            answer = json.loads(done.stdout)
            evidence_id = answer["suites"][0]["evidence_id"]
            record = json.loads(self.turnout("evidence", evidence_id, "--local", "--json").stdout)
            return {"verdict": answer["verdict"], "reasons": answer["reasons"], "evidence": record["content"]}
        checked = self.turnout("check", f"prompts/{edit.task}.prompt.yml", suite)
        if done.returncode != BAD_USAGE or checked.returncode != BAD_USAGE:
            raise RuntimeError(
                f"{edit.name}: gate exit {done.returncode}, check exit {checked.returncode}: {done.stderr}"
            )
        return {"verdict": "refused", "reasons": checked.stderr.strip().splitlines()[:1], "evidence": None}


def edits() -> list[Edit]:
    """All edits, faults first."""
    file = TASKS / "edits.yaml"
    data = load_yaml(file.read_text("utf-8"), str(file)).data
    kinds: tuple[Kind, ...] = ("faults", "inert")
    return [
        Edit(kind, **{**given, "replace": tuple((old, new) for old, new in given["replace"])})
        for kind in kinds
        for given in data[kind]
    ]


# ---------------------------------------------------------------------------- what it came to


def of_some(given: GateInput, case_ids: frozenset[str]) -> GateInput:
    """The same gate, had the suite been these cases."""
    sides = {"candidate": given.candidate, "baseline": given.baseline}
    return given.model_copy(update={role: _side_of(side, case_ids) for role, side in sides.items() if side})


def _side_of(side: Side, case_ids: frozenset[str]) -> Side:
    return side.model_copy(update={"outcomes": {i: status for i, status in side.outcomes.items() if i in case_ids}})


def verdicts_at(given: GateInput, cases: int, draws: int = DRAWS) -> dict[str, float]:
    """The share of each verdict over seeded draws of `cases` cases; of all of them there is one."""
    every = sorted(given.candidate.outcomes)
    rng = random.Random(cases)  # noqa: S311 - no secret
    chosen = [every] if cases == len(every) else [rng.sample(every, cases) for _ in range(draws)]
    found = [decide(of_some(given, frozenset(ids))).verdict for ids in chosen]
    return {verdict: found.count(verdict) / len(found) for verdict in sorted(set(found))}


def row_of(edit: Edit, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """What is reported of one edit: the verdict on all the cases it was asked, and the shares at each smaller size."""
    about = {
        "task": edit.task,
        "edit": edit.name,
        **({"what": edit.what} if edit.what else {}),
        "verdict": outcome["verdict"],
    }
    if edit.kind == "inert":
        about["sent"] = edit.sent
    if outcome["evidence"] is None:
        return {**about, "refused": outcome["reasons"][0], "at": {str(size): {"refused": 1.0} for size in SIZES}}
    evidence = read_evidence(outcome["evidence"])
    given, cases = evidence.given, len(evidence.given.candidate.outcomes)
    rates = [round(side.pass_rate or 0.0, 3) for side in (given.baseline, given.candidate) if side]
    return {
        **about,
        "cases": cases,
        "pass_rate": {"unchanged": rates[0], "edited": rates[-1]},
        "broken": len(evidence.decision.newly_broken),
        "mended": len(evidence.decision.newly_mended),
        "loss": round((len(evidence.decision.newly_broken) - len(evidence.decision.newly_mended)) / cases, 3),
        "p_value": evidence.decision.p_value,
        "at": {str(size): verdicts_at(given, size) for size in SIZES if size <= cases},
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By size, how many of these edits are stopped: refused by check, failed by the gate, or left inconclusive."""
    return {
        str(size): {"edits": len(at), **{name: round(sum(a.get(name, 0.0) for a in at), 2) for name in _NAMES}}
        for size in SIZES
        if (at := [row["at"][str(size)] for row in rows if str(size) in row["at"]])
    }


_NAMES = ("refused", "fail", "inconclusive", "could_not_run", "pass")


def figures(trial: Trial, given: Sequence[Edit]) -> dict[str, Any]:
    """Everything that was found so far; `missing_at_all_cases` names the edits that were not asked with all the cases.

    `faults_that_cost` are those which lost more than the margin on the cases asked, and those that were refused: what is
    left are mistakes that this model does not mind. They are told apart by the same answers, so what they cost is luck in part.
    """
    rows: dict[Kind, list[dict[str, Any]]] = {"faults": [], "inert": []}
    missing = []
    for edit in given:
        outcome = next(
            (json.loads(f.read_text()) for size in reversed(SIZES) if (f := trial.file(edit, size)).exists()), None
        )
        if outcome is not None:
            rows[edit.kind].append(row_of(edit, outcome))
        if outcome is None or not (outcome["evidence"] is None or trial.file(edit, SIZES[-1]).exists()):
            missing.append(f"{edit.task}/{edit.name}")
    by_bytes = {sent: [row for row in rows["inert"] if row["sent"] is sent] for sent in (False, True)}
    return {
        "model": "smollm2-135m",
        "gate": {"alpha": SETTINGS.alpha, "margin": SETTINGS.margin},
        "draws": DRAWS,
        "faults": summary(rows["faults"]),
        "faults_that_cost": summary([row for row in rows["faults"] if row.get("loss", 1.0) > SETTINGS.margin]),
        "inert_same_text_sent": summary(by_bytes[False]),
        "inert_other_text_sent": summary(by_bytes[True]),
        "missing_at_all_cases": missing,
        "rows": rows,
    }


def run(trial: Trial, given: Sequence[Edit], sizes: Sequence[int]) -> Iterator[str]:
    """Ask what was not asked yet, all edits at one size and then at the next; tells each as it ends."""
    baselines = trial.prepare(sorted({edit.task for edit in given}))
    for size in sizes:
        for edit in given:
            refused = any(is_refused(trial.file(edit, other)) for other in SIZES)
            if not refused and not trial.file(edit, size).exists():
                outcome = trial.ask(edit, baselines[edit.task], size)
                yield f"{size} {edit.kind} {edit.task}/{edit.name}: {outcome['verdict']}; {'; '.join(outcome['reasons'])}"


def is_refused(file: Path) -> bool:
    """Whether an edit was asked before and is no prompt at all: at every size."""
    return file.exists() and json.loads(file.read_text())["evidence"] is None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, help="a folder that keeps the trial")
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=[SIZES[-1]])
    parser.add_argument("--summary", action="store_true", help="ask nothing; tell what there is")
    arguments = parser.parse_args()
    trial, given, before = Trial(arguments.home.absolute()), edits(), conditions()
    if not arguments.summary:
        for line in run(trial, given, arguments.sizes):
            print(line, flush=True)
    text = json.dumps({"conditions": before, **figures(trial, given)}, indent=2)
    (RESULTS / "mutation.json").write_text(text + "\n", "utf-8")
    print(json.dumps({key: value for key, value in json.loads(text).items() if key != "rows"}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
