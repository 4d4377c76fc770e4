"""An installed adapter as another form: PEFT's here, what needs torch in a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune import adapter as folders
from finetune.adapter import exporting
from finetune.adapter.exporting import ExportSpec, Format, OutType
from prompts.errors import BadInput
from service.adapters.card import render as render_card
from service.adapters.card import vllm_rank
from service.child import child_environment, require_local_packages
from service.engine import weights
from service.engine.sources import known_as
from service.errors import CannotRun
from service.settings import Settings
from service.tuning.material import model_source

EXIT_REFUSED = 2
LLAMA_PORT, VLLM_PORT = 8080, 8000  # of their own defaults


@dataclass(frozen=True)
class ExportRequest:
    """What is wanted of one adapter. `base_name` is what others know its base model by; "" takes the source's name."""

    target: Path
    format: Format = "peft"
    out_type: OutType = "auto"
    base_name: str = ""
    force: bool = False


def export(settings: Settings, folder: Path, shown: Mapping[str, Any], asked: ExportRequest) -> dict[str, Any]:
    """Write `asked.target` from the adapter in `folder`, of which `shown` is known; gives what it says of itself.

    Beside that `models`, entries for turnout.yaml, and `commands`, which serve it elsewhere. Raises BadInput for what
    cannot be exported so or would overwrite something, CannotRun where the base's weights, packages or memory are missing.
    """
    exporting.check_out_type(asked.format, asked.out_type)
    target, alias = place_of(asked.target), shown["base_model"]
    exporting.check_target(target, force=asked.force)
    manifest = folders.verify(folder)
    if asked.format == "peft":
        source, base = _if_here(settings, alias)
    else:
        require_local_packages(f"--format {asked.format}")
        source = str(model_source(settings, alias))
        base = weights.pull(model_source(settings, alias), weights.default_cache_dir())
    if base is not None:
        folders.check_base(manifest, base)
    known = manifest.base.source or source
    base_name = asked.base_name or (known_as(known) if known else manifest.base.name)
    spec = ExportSpec(
        adapter_folder=folder,
        base_folder=base or folder,  # which holds no tokenizer: PEFT's form is whole without
        target=target,
        format=asked.format,
        out_type=asked.out_type,
        base_name=base_name,
        card=render_card(shown, base_name, asked.format),
        force=asked.force,
    )
    if asked.format == "peft":
        about = exporting.export_peft(spec, manifest)
    else:
        try:
            about = _in_a_process(spec)
        finally:
            folders.remove(exporting.draft_of(target))  # of a process that was killed, or interrupted
    return {"folder": str(target), **about, **_use(spec, manifest)}


def place_of(target: Path) -> Path:
    """Where a folder that is named on the command line lies, in full; a link in its own place is left for the check to see."""
    named = target.expanduser()
    return named.parent.resolve() / named.name


def _if_here(settings: Settings, alias: str) -> tuple[str, Path | None]:
    """The source of a model and its folder, which PEFT's form can do without; "" and None where they are not here."""
    try:
        source = model_source(settings, alias)
        return str(source), weights.find(source, weights.default_cache_dir())
    except BadInput:
        return "", None


def _in_a_process(spec: ExportSpec) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="turnout-export-") as work:
        path = Path(work) / "spec.json"
        exporting.write_export_spec(spec, path)
        command = [sys.executable, "-P", "-m", "finetune", "--export", str(path)]
        log = Path(work) / "export.log"
        with log.open("wb") as errors, subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, cwd=work, env=child_environment(os.environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        ) as child:  # fmt: skip
            said = child.stdout.read() if child.stdout else b""  # our end of its input stays open: it ends with us
            code = child.wait()
        return answer_of(said, code, log)


def answer_of(said: bytes, code: int, log: Path) -> dict[str, Any]:
    """What an export's process said last. Raises BadInput where it refused, CannotRun where it failed or died."""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = (log.read_text("utf-8", "replace").strip().splitlines() or ["it gave no reason"])[-1][:300]
        why = "it was killed, most likely for want of memory" if code == -9 else f"exit {code}; {last}"
        raise CannotRun(f"the export ended early: {why}; nothing was kept") from None
    if "error" in found and code == EXIT_REFUSED:
        raise BadInput(found["error"], param="format")
    if "error" in found or code:
        raise CannotRun(str(found.get("error", f"the export ended with {code}")))
    return found


def _use(spec: ExportSpec, manifest: folders.Manifest) -> dict[str, Any]:
    """Entries of `models` in turnout.yaml by which it is a model of its own, and the commands of its servers."""
    name = manifest.name
    folder, alias = shlex.quote(str(spec.target)), f"{name}-{spec.format}".lower()
    vllm = {"engine": "openai", "base_url": f"http://127.0.0.1:{VLLM_PORT}/v1", "model": name}
    llama = {"engine": "openai", "base_url": f"http://127.0.0.1:{LLAMA_PORT}/v1"}
    match spec.format:
        case "peft":
            serve = (
                f"vllm serve {shlex.quote(spec.base_name)} --enable-lora --max-lora-rank {vllm_rank(manifest.recipe)}"
            )
            commands = [f"{serve} --lora-modules {name}={folder}"]
            entry: dict[str, Any] = vllm
        case "merged":
            commands = [f"vllm serve {folder} --served-model-name {name}"]
            entry = {"engine": "local", "source": f"path:{spec.target}"}
        case "gguf":
            commands = [f"llama-server -m {folder}/model.gguf --jinja", f"ollama create {name} -f {folder}/Modelfile"]
            entry = {"engine": "local", "source": f"path:{spec.target}/model.gguf"}
        case _:
            commands = [f"llama-server -m BASE.gguf --lora {folder}/adapter.gguf --jinja"]
            entry = llama
    return {"models": {alias: entry}, "commands": commands}
