"""One export in a process of its own: read, write, check, and only then its name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError

from finetune import adapter
from finetune.adapter.exporting import ExportSpec, new_folder, read_export_spec, write_about
from finetune.export import check, gguf_lora, gguf_model, merged, modelfile
from finetune.export.families import Layout
from finetune.export.vocabulary import read_vocabulary
from finetune.export.weights import MergedWeights, read_lora
from prompts.errors import BadInput, TurnoutError

REFUSED, FAILED = 2, 4
GGUF, GGUF_LORA, MODELFILE = "model.gguf", "adapter.gguf", "Modelfile"


def run_file(path: Path) -> int:
    """Run the spec in a file; the last line on stdout is JSON: what the folder says of itself, or `error`."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        _say(export(read_export_spec(path)))
    except BadInput as error:
        _say({"error": str(error)})
        return REFUSED
    except (TurnoutError, OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        _say({"error": str(error) if isinstance(error, TurnoutError) else f"{type(error).__name__}: {error}"})
        return FAILED
    return 0


def _say(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def export(spec: ExportSpec) -> dict[str, Any]:
    """Write `spec.target`, whole or not at all; gives what its manifest says.

    Raises BadInput for what cannot be exported so, CanaryFailed where the artefact computes something else, DiskFullError.
    """
    manifest = adapter.verify(spec.adapter_folder)
    adapter.check_base(manifest, spec.base_folder)
    forms = {"merged": _merged, "gguf": _gguf, "gguf-lora": _gguf_lora}
    if spec.format not in forms:
        raise BadInput(f"--format {spec.format} needs no process of its own", param="format")
    return forms[spec.format](spec, manifest)


def _merged(spec: ExportSpec, manifest: adapter.Manifest) -> dict[str, Any]:
    weights = MergedWeights(spec.base_folder, read_lora(spec.adapter_folder))
    out_type = merged.out_type_of(weights, spec.out_type)
    needed = merged.needed_bytes(weights, out_type)
    with new_folder(spec.target, force=spec.force, needed_bytes=needed) as draft:
        merged.write(weights, spec.base_folder, draft, out_type)
        ids = check.canary_ids(manifest, spec.base_folder)
        expected, alone = check.reference(spec.base_folder, spec.adapter_folder, ids)
        found = check.compare(check.of_folder(draft, ids), expected, alone, out_type)
        return write_about(draft, spec, manifest, out_type, check=found)


def _gguf(spec: ExportSpec, manifest: adapter.Manifest) -> dict[str, Any]:
    weights = MergedWeights(spec.base_folder, read_lora(spec.adapter_folder))
    layout = Layout.of(weights.config)
    vocabulary = read_vocabulary(spec.base_folder, int(weights.config["vocab_size"]))
    out_type = "f16" if spec.out_type == "auto" else spec.out_type
    needed = gguf_model.needed_bytes(weights, out_type)
    with new_folder(spec.target, force=spec.force, needed_bytes=needed) as draft:
        gguf_model.write(weights, layout, vocabulary, _about(spec, manifest), draft / GGUF, out_type)
        ids = check.canary_ids(manifest, spec.base_folder)
        expected, alone = check.reference(spec.base_folder, spec.adapter_folder, ids)
        found = check.compare(check.of_gguf(draft / GGUF, spec.base_folder, ids), expected, alone, out_type)
        tokenizer = transformers.AutoTokenizer.from_pretrained(spec.base_folder, local_files_only=True)
        text = modelfile.modelfile(tokenizer, manifest.name, file=GGUF, adds_bos=vocabulary.adds_bos)
        (draft / MODELFILE).write_text(text, "utf-8")
        return write_about(draft, spec, manifest, out_type, check=found)


def _gguf_lora(spec: ExportSpec, manifest: adapter.Manifest) -> dict[str, Any]:
    lora = read_lora(spec.adapter_folder)
    weights = MergedWeights(spec.base_folder, lora)  # refuses layers that the base does not have
    layout = Layout.of(weights.config)
    out_type = "f32" if spec.out_type == "auto" else spec.out_type
    with new_folder(spec.target, force=spec.force) as draft:
        gguf_lora.write(lora, layout, _about(spec, manifest), draft / GGUF_LORA, out_type)
        layers = gguf_lora.check(lora, layout, draft / GGUF_LORA, out_type)
        return write_about(draft, spec, manifest, out_type, check={"layers": layers})


def _about(spec: ExportSpec, manifest: adapter.Manifest) -> gguf_model.About:
    return gguf_model.About(manifest.name, spec.base_name, manifest.base.licence)
