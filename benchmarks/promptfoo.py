"""How many of promptfoo's example configurations load, and run to the outcomes that promptfoo itself comes to.

`TURNOUT_BENCH_PROMPTFOO=FOLDER python -m benchmarks.promptfoo PEERS` reads every `promptfooconfig*.yaml` below the folder (the
`examples/` of a checkout of promptfoo). For the comparison both sides are given the same copy of a configuration: its providers
are replaced by `echo`, and assertions that a model would judge are taken out; everything else stays. promptfoo 0.121 is
installed into PEERS. Copies are written beside the originals. Prints JSON: what loads, what runs alike, and why not for the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from benchmarks.suites.peers import Peer, install_promptfoo
from prompts.errors import BadFile, Fault, TurnoutError
from prompts.formats.imported import Foreign
from prompts.formats.prompt_yml import load_prompt
from prompts.formats.writing import prompt_text
from prompts.messages import Completion, CompletionRequest
from prompts.prompt import compile_prompt
from prompts.registry import resolve
from prompts.yaml_source import load_yaml
from service.cli.foreign_texts import beside, fitting
from service.models.fake import FakeModel
from suites.assertions.embedded import EMBEDDED
from suites.assertions.judged import JUDGED
from suites.case import Case, Suite
from suites.foreign.converted import Converted, ForeignSuite, KnownModel, Wanted, counted
from suites.foreign.promptfoo import convert
from suites.foreign.promptfoo_asserts import ANY_ANSWER
from suites.results import CaseResult, Price
from suites.runner import run_suite

COPY = ".turnout-bench.json"
_NEED_MODELS = (
    JUDGED | EMBEDDED | {"moderation", "classifier", "similar", "search-rubric", "conversation-relevance", "pi"}
)
_OF_PROVIDERS = ("providers", "targets", "redteam", "tracing", "extensions", "outputPath", "sharing")
_TIMEOUT_S = 120
_ERROR = re.compile(r"(?:[A-Z]\w*Error|Error): [^\n/]{1,160}")  # up to a path of this machine


class _AnyIsEcho(dict[str, str]):
    """Every provider is `echo`; who judges is nobody."""

    def get(self, name: str, default: Any = None) -> Any:
        return "none" if name in ("grader", "embedder") else "echo"


def measure(folder: Path, peers: Path, workers: int, source: str) -> dict[str, Any]:
    """The figures of all configurations below `folder`."""
    files = sorted(file for file in folder.rglob("promptfooconfig*.y*ml") if file.is_file())
    loaded, reasons, left_out = _loaded(files, folder)
    copies = [copy for file in files if file in loaded and (copy := comparable(file)) is not None]
    peer = install_promptfoo(peers / "promptfoo")
    if peer is None:
        raise SystemExit("promptfoo cannot be installed here: is there npm and a registry?")
    with ThreadPoolExecutor(workers) as pool:
        theirs = dict(zip(copies, pool.map(lambda copy: outcomes_of_promptfoo(peer, copy), copies), strict=True))
    compared = [compare(copy, theirs[copy], folder) for copy in copies]
    return {
        "at": datetime.now(UTC).strftime("%Y-%m"),
        "promptfoo": peer.version,
        "examples": source,
        "configurations": len(files),
        "loaded": len(loaded),
        "not_loaded": dict(collections.Counter(reasons.values()).most_common()),
        "not_loaded_files": {str(file.relative_to(folder)): why for file, why in reasons.items()},
        "left_out": left_out[:60],
        **_summed(compared),
    }


def _loaded(files: list[Path], folder: Path) -> tuple[set[Path], dict[Path, str], list[str]]:
    loaded: set[Path] = set()
    reasons: dict[Path, str] = {}
    left_out = []
    for file in files:
        try:
            found = converted(file, folder)
            for each in found.suites:
                _checked(each)
            loaded.add(file)
            left_out += list(found.left_out)
        except BadFile as error:
            reasons[file] = _reason(str(error), file)
    return loaded, reasons, counted(left_out)


def converted(file: Path, folder: Path) -> Converted:
    """A configuration as the command line converts it, every provider being `echo`."""
    folders = (folder.resolve(),)
    text, read = file.read_text("utf-8"), beside(file, folders)
    foreign = Foreign(text, str(file.relative_to(folder)), "prompt", "", beside=read, fitting=fitting(file, folders))
    return convert(foreign, Wanted({"echo": KnownModel("echo", "", has_price=True, is_echo=True)}, _AnyIsEcho()))


def _checked(each: ForeignSuite) -> Suite:
    load_prompt(prompt_text(each.prompt), each.name, each.name)
    return Suite.from_data(each.suite)


def _reason(message: str, file: Path) -> str:
    """Why a file does not load, without what is special to it."""
    first = message.splitlines()[0].replace(f"{file}: ", "").removeprefix("nothing of it can be run: ")
    for sign, why in _REASONS.items():
        if sign in first:
            return why
    return first[:120]


_REASONS = {
    "made by code": "its prompts are made by code, or held by a service",
    "makes the JSON of its messages": "a template makes the JSON of the messages",
    "parts are text and images": "messages in a form that is no chat of OpenAI's",
    "fetched from a network": "its tests are fetched from a network",
    "tests that code makes": "its tests are made by code",
    "No filter named": "filters of its own, in JavaScript",
    "no provider": "it names no provider",
    "there is no such file": "it names a file that is not there",
}


# ---------------------------------------------------------------------------- both sides


def comparable(file: Path) -> Path | None:
    """The copy of a configuration that both sides run: `echo` for providers, nothing that a model judges."""
    try:
        data = load_yaml(file.read_text("utf-8"), str(file)).data
    except BadFile:
        return None
    kept = {key: value for key, value in data.items() if key not in _OF_PROVIDERS}
    copy = file.with_name(file.stem + COPY)
    copy.write_text(json.dumps({**_without_models(kept), "providers": ["echo"]}))
    return copy


def _without_models(value: Any) -> Any:
    """Data without assertions that ask models, and without the names of providers beside them."""
    if isinstance(value, list):
        return [_without_models(item) for item in value if not _asks_model(item)]
    if not isinstance(value, dict):
        return value
    return {key: _without_models(item) for key, item in value.items() if key not in ("provider", "providers")}


def _asks_model(value: Any) -> bool:
    kind = value.get("type") if isinstance(value, dict) else None
    return isinstance(kind, str) and kind.removeprefix("not-") in _NEED_MODELS


class Theirs(NamedTuple):
    """What one test came to in promptfoo: passed, failed or errored, why, and the prompt that `echo` answered with."""

    status: str
    reason: str
    output: str


def outcomes_of_promptfoo(peer: Peer, copy: Path) -> list[list[Theirs]] | str:
    """What each test of each prompt came to, in promptfoo's order; why there is nothing of it as a text."""
    out = copy.with_suffix(".out.json")
    if not out.exists():
        command = [str(peer.folder / "node_modules" / ".bin" / "promptfoo"), "eval", "-c", copy.name, "--no-cache", "--no-table",
                   "--no-progress-bar", "--no-write", "--output", out.name]  # fmt: skip
        try:
            done = subprocess.run(command, cwd=copy.parent, env=peer.environment, capture_output=True, text=True,
                                  timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"promptfoo did not end within {_TIMEOUT_S} s"
        if not out.exists():
            said = _ERROR.search(done.stderr + done.stdout)
            return f"promptfoo: {said[0] if said else 'no output'}"
    rows = json.loads(out.read_text())["results"]["results"]
    found: dict[int, list[tuple[int, Theirs]]] = collections.defaultdict(list)
    for row in rows:
        status = "passed" if row["success"] else "errored" if row.get("failureReason") == 2 else "failed"
        reason = (row.get("gradingResult") or {}).get("reason") or row.get("error") or ""
        found[row["promptIdx"]].append((row["testIdx"], Theirs(status, str(reason), _output_of(row))))
    return [[each for _, each in sorted(found[index], key=itemgetter(0))] for index in sorted(found)]


def _output_of(row: Mapping[str, Any]) -> str:
    """What `echo` answered: before any transform, where promptfoo kept that."""
    response = row.get("response") or {}
    found = response.get("raw", response.get("output", ""))
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _no_include(name: str) -> NoReturn:
    raise BadFile([Fault(name, 0, "an include of a prompt of theirs", "there is none")])


def outcomes_of_ours(each: ForeignSuite) -> list[CaseResult]:
    """What each test comes to here, in promptfoo's order."""
    suite = _checked(each)
    source = load_prompt(prompt_text(each.prompt), each.name, each.name)
    compiled = compile_prompt(resolve(source, {}, _no_include), digest="")
    echo = FakeModel.from_config({"echo": "all"})

    async def ask(case: Case, _: int) -> Completion:
        return await echo.complete(CompletionRequest(tuple(compiled.render(case.vars))))

    results: dict[int, CaseResult] = {}
    asyncio.run(
        run_suite(suite.tests, ask, price=Price(0, 0), on_result=lambda result: results.update({result.index: result}))
    )
    return [results[position] for position in each.order]


def compare(copy: Path, theirs: list[list[Theirs]] | str, folder: Path) -> dict[str, Any]:
    """How the tests of one configuration went on both sides."""
    name = str(copy.relative_to(folder)).replace(COPY, "")
    if isinstance(theirs, str):
        return {"name": name, "why": theirs if "did not end" in theirs else "promptfoo does not run it", "said": theirs}
    try:
        ours = [outcomes_of_ours(each) for each in converted(copy, folder).suites]
    except TurnoutError as error:
        return {"name": name, "why": "its copy does not load", "said": str(error)[:300]}
    if [len(tests) for tests in ours] != [len(tests) for tests in theirs]:
        counts = f"{[len(tests) for tests in ours]} tests here, {[len(tests) for tests in theirs]} there"
        return {"name": name, "why": "some of its prompts, or lists of its tests, are left out", "said": counts}
    pairs = [pair for tests, others in zip(ours, theirs, strict=True) for pair in _in_pairs(tests, others)]
    return {"name": name, "tests": len(pairs), **_paired(pairs)}


def _in_pairs(ours: list[CaseResult], theirs: list[Theirs]) -> list[tuple[CaseResult, Theirs]]:
    """Each test on both sides, by what was asked: promptfoo reads the files of a pattern in another order."""
    asked: dict[str, list[Theirs]] = collections.defaultdict(list)
    for other in theirs:
        asked[other.output].append(other)
    pairs, rest = [], []
    for mine in ours:
        same = asked.get(mine.output or "")
        if same:
            pairs.append((mine, same.pop(0)))
        else:
            rest.append(mine)
    left = [other for others in asked.values() for other in others]
    return [*pairs, *zip(rest, sorted(left, key=theirs.index), strict=True)]


def _paired(pairs: list[tuple[CaseResult, Theirs]]) -> dict[str, Any]:
    asked = [(mine, other) for mine, other in pairs if mine.status != "skipped"]
    skipped = [mine.error for mine, _ in pairs if mine.status == "skipped"]
    differing = [(mine, other) for mine, other in asked if (mine.status == "passed") != (other.status == "passed")]
    return {
        "alike": len(asked) - len(differing),
        "judged": sum(_is_judged(mine) for mine, _ in asked),
        "failed": sum(mine.status != "passed" and other.status != "passed" for mine, other in asked),
        "asked_alike": sum(mine.output == other.output for mine, other in asked),
        "skipped": len(skipped),
        "differences": [f"{mine.status} here, {other.status} there: {_said(mine, other)}" for mine, other in differing],
        "set_aside": sorted(set(skipped)),
    }


def _is_judged(mine: CaseResult) -> bool:
    """Whether the case has an assertion that some answer would fail."""
    return [one.type for one in mine.outcomes] != [ANY_ANSWER["type"]]


def _said(mine: CaseResult, other: Theirs) -> str:
    told = mine.error or "; ".join(one.reason for one in mine.outcomes if one.status != "passed")
    return f"{told[:160]} | {' '.join(other.reason.split())[:120]}"


def _summed(compared: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    run = [each for each in compared if "tests" in each]
    whole = [each for each in run if each["alike"] == each["tests"]]
    return {
        "compared": len(run),
        "same_outcomes": len(whole),
        "same_but_for_set_aside": sum(not each["differences"] for each in run) - len(whole),
        "tests": sum(each["tests"] for each in run),
        "tests_alike": sum(each["alike"] for each in run),
        "tests_that_an_answer_could_fail": sum(each["judged"] for each in run),
        "tests_that_failed_on_both": sum(each["failed"] for each in run),
        "tests_with_the_same_prompt": sum(each["asked_alike"] for each in run),
        "tests_set_aside": sum(each["skipped"] for each in run),
        "not_compared": dict(collections.Counter(each["why"] for each in compared if "why" in each).most_common()),
        "not_compared_files": {each["name"]: each["said"] for each in compared if "why" in each},
        "set_aside": dict(collections.Counter(why for each in run for why in each["set_aside"]).most_common()),
        "differences": {each["name"]: each["differences"][:5] for each in run if each["differences"]},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", type=Path, help="where promptfoo is installed")
    parser.add_argument("--workers", type=int, default=1, help="runs of promptfoo at a time")
    parser.add_argument("--source", default="", help="which examples these are, for the record")
    arguments = parser.parse_args()
    folder = os.environ.get("TURNOUT_BENCH_PROMPTFOO")
    if not folder:
        parser.error("TURNOUT_BENCH_PROMPTFOO names the folder of the configurations: the examples/ of promptfoo")
    found = measure(Path(folder).absolute(), arguments.peers.absolute(), arguments.workers, arguments.source)
    print(json.dumps(found, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
