"""The peers, installed from their registries into a scratch folder, with their telemetry off; never dependencies of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROMPTFOO = "promptfoo@0.121"
DEEPEVAL = "deepeval>=4.3,<4.4"
_QUIET = {
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    "DEEPEVAL_TELEMETRY_OPT_OUT": "1",
    "DEEPEVAL_DISABLE_DOTENV": "1",
    "OPENAI_API_KEY": "none",
}
_DEEPEVAL_SCRIPT = """
import asyncio, sys
import aiohttp
from deepeval import evaluate
from deepeval.evaluate import AsyncConfig, CacheConfig, DisplayConfig
from deepeval.metrics import BaseMetric
from deepeval.test_case import LLMTestCase

URL, CASES, IN_FLIGHT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

class Check(BaseMetric):
    def __init__(self, name, holds):
        self.name, self.holds, self.threshold, self.async_mode = name, holds, 0.5, True
    def measure(self, case, *args, **kwargs):
        self.score = float(self.holds(case.actual_output)); self.success = self.score >= 0.5; self.reason = ""
        return self.score
    async def a_measure(self, case, *args, **kwargs):
        return self.measure(case)
    def is_successful(self):
        return self.success
    @property
    def __name__(self):
        return self.name

async def ask(session, gate, number):
    question = f"Which queue is ticket {number} for?"
    async with gate, session.post(URL + "/chat/completions", json={"model": "bench", "temperature": 0,
                                  "messages": [{"role": "user", "content": question}]}) as reply:
        answer = (await reply.json())["choices"][0]["message"]["content"]
        return LLMTestCase(input=question, actual_output=answer)

async def answers():
    gate = asyncio.Semaphore(IN_FLIGHT)
    async with aiohttp.ClientSession() as session:
        return await asyncio.gather(*(ask(session, gate, number) for number in range(CASES)))

metrics = [Check("contains", lambda text: "billing" in text), Check("lacks", lambda text: "sorry" not in text),
           Check("starts", lambda text: text.startswith("The queue"))]
evaluate(asyncio.run(answers()), metrics, async_config=AsyncConfig(max_concurrent=IN_FLIGHT, throttle_value=0),
         display_config=DisplayConfig(show_indicator=False, print_results=False),
         cache_config=CacheConfig(write_cache=False))
"""


@dataclass(frozen=True)
class Peer:
    """How one run of a peer is started: arguments for so many cases, and what it finds in its environment."""

    name: str
    version: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        own = {"HOME": str(self.folder), "PROMPTFOO_CONFIG_DIR": str(self.folder / "config")}
        return {**os.environ, **_QUIET, **own}

    def command(self, base_url: str, cases: int, in_flight: int) -> list[str]:
        if self.name == "deepeval":
            script = self.folder / "suite.py"
            script.write_text(_DEEPEVAL_SCRIPT)
            return [str(self.folder / "bin" / "python"), str(script), base_url, str(cases), str(in_flight)]
        config = self.folder / f"suite-{cases}.json"
        config.write_text(json.dumps(_promptfoo_config(base_url, cases)))
        run = [str(self.folder / "node_modules" / ".bin" / "promptfoo"), "eval", "-c", str(config), "--no-cache"]
        return [*run, "--no-table", "--no-progress-bar", "--no-write", "-j", str(in_flight)]


def _promptfoo_config(base_url: str, cases: int) -> dict[str, object]:
    checks = [
        {"type": "contains", "value": "billing"},
        {"type": "not-contains", "value": "sorry"},
        {"type": "regex", "value": "^The queue"},
    ]
    provider = {"id": "openai:chat:bench", "config": {"apiBaseUrl": base_url, "temperature": 0}}
    return {
        "prompts": ["Which queue is ticket {{ticket}} for?"],
        "providers": [provider],
        "defaultTest": {"assert": checks},
        "tests": [{"vars": {"ticket": str(number)}} for number in range(cases)],
    }


def install(folder: Path) -> list[Peer]:
    """Both peers, or those that their registry gives here; what is in `folder` already is kept."""
    return [
        peer for peer in (install_promptfoo(folder / "promptfoo"), _deepeval(folder / "deepeval")) if peer is not None
    ]


def install_promptfoo(folder: Path) -> Peer | None:
    """promptfoo, or None where its registry does not give it."""
    package = folder / "node_modules" / "promptfoo" / "package.json"
    if not package.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), PROMPTFOO]
        if not _works(command, {"PUPPETEER_SKIP_DOWNLOAD": "1"}):
            return None
    return Peer("promptfoo", json.loads(package.read_text())["version"], folder)


def _deepeval(folder: Path) -> Peer | None:
    python = str(folder / "bin" / "python")
    found = [python, "-c", "import importlib.metadata as m; print(m.version('deepeval'))"]
    if not Path(python).is_file() and not _works([sys.executable, "-m", "venv", str(folder)]):
        return None
    if not _works(found) and not _works([python, "-m", "pip", "install", "-q", DEEPEVAL, "aiohttp"]):
        return None
    version = subprocess.run(found, capture_output=True, text=True, check=True).stdout.strip()
    return Peer("deepeval", version, folder)


def _works(command: list[str], more: dict[str, str] | None = None) -> bool:
    try:
        done = subprocess.run(command, env={**os.environ, **(more or {})}, capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0
