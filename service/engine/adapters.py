"""Reading LoRA adapters of strangers: plain files, a known configuration, nothing that could run code. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from finetune import adapter as manifests
from prompts.errors import BadInput

CONFIG = manifests.CONFIG
WEIGHTS = manifests.WEIGHTS
MANIFEST = manifests.MANIFEST

# What decides how a plain LoRA computes, and what only describes it. All else must be absent or empty: other keys of
# PEFT's import modules by name, match regular expressions of the file's author, or train more than the LoRA.
_COMPUTES = ("r", "lora_alpha", "target_modules", "use_rslora")
_DESCRIBES = (
    "peft_type",
    "peft_version",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "lora_dropout",
    "init_lora_weights",
    "megatron_core",  # read only where megatron_config is set, which is refused
    "qalora_group_size",  # read only where use_qalora is set, which is refused
)
_MOST_RANK = 1024


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """A LoRA that may be loaded: its weights file, what decides how it computes, and its canary where it has one."""

    folder: Path
    weights: Path
    rank: int
    alpha: float
    rank_stabilized: bool
    target_modules: tuple[str, ...]
    canary: manifests.Canary | None


def read_adapter(path: str | Path, adapters_dir: Path, base_folder: Path | None = None) -> AdapterFiles:
    """Check the adapter folder at `path`, which must lie inside `adapters_dir` once links are followed.

    Raises BadInput, naming the file and the fix, for a path elsewhere, a file of another kind, a pickle, a damaged
    file, another base model than that of `base_folder`, or a configuration beyond a plain LoRA.
    """
    folder = _inside(Path(path), adapters_dir)
    _only_known_files(folder)
    config = _read_config(folder)
    _check_start(folder / WEIGHTS)
    canary = _check_manifest(folder, base_folder) if (folder / MANIFEST).is_file() else None
    return AdapterFiles(
        folder,
        folder / WEIGHTS,
        rank=_whole(folder, config, "r", most=_MOST_RANK),
        alpha=_number(folder, config, "lora_alpha"),
        rank_stabilized=config.get("use_rslora") is True,
        target_modules=_targets(folder, config),
        canary=canary,
    )


def _inside(path: Path, adapters_dir: Path) -> Path:
    root = adapters_dir.resolve()
    resolved = (root / path).resolve()
    if resolved == root or not resolved.is_relative_to(root):
        raise BadInput(
            f"lora_path {str(path)!r} is outside of the adapters folder {root}: install the adapter there first",
            param="lora_path",
        )
    if not resolved.is_dir():
        raise BadInput(f"lora_path {str(path)!r}: {resolved} is not a folder", param="lora_path")
    return resolved


def _refuse(folder: Path, why: str, fix: str) -> NoReturn:
    raise BadInput(f"adapter {folder}: {why}; {fix}", param="lora_path")


def _only_known_files(folder: Path) -> None:
    names = set()
    for path in sorted(folder.iterdir()):
        known = path.name in (WEIGHTS, "README.md") or path.suffix == ".json"
        if path.is_symlink() or not path.is_file() or not known:
            fix = f"leave only {CONFIG}, {WEIGHTS}, *.json and README.md, as plain files"
            _refuse(folder, f"it holds {path.name!r}, which adapters do not need and which could run code", fix)
        names.add(path.name)
    for name in (CONFIG, WEIGHTS):
        if name not in names:
            _refuse(folder, f"{name} is missing", "save it with PEFT's save_pretrained (safetensors)")


def _check_start(weights: Path) -> None:
    # A pickle renamed to .safetensors gives no header of safetensors; the error names the file.
    if not manifests.tensor_header(weights):
        _refuse(weights.parent, f"{weights.name} holds no weights", "save the adapter again")


def _check_manifest(folder: Path, base_folder: Path | None) -> manifests.Canary | None:
    manifest = manifests.verify(folder)
    if base_folder is not None:
        manifests.check_base(manifest, base_folder)
    return manifest.canary


def _read_config(folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        _refuse(folder, f"{CONFIG} is not JSON ({error})", "save it again")
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        _refuse(folder, f"{CONFIG} does not describe a LoRA", 'only peft_type "LORA" can be loaded')
    for key, value in config.items():
        if key not in _COMPUTES + _DESCRIBES and value not in (None, False, {}, [], "none"):
            _refuse(folder, f"{CONFIG} sets {key} to {str(value)[:80]!r}", "only a plain LoRA can be loaded")
    return config


def _whole(folder: Path, config: Mapping[str, Any], key: str, *, most: int) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        _refuse(folder, f"{CONFIG} sets {key} to {value!r}", f"a whole number from 1 to {most} is needed")
    return value


def _number(folder: Path, config: Mapping[str, Any], key: str) -> float:
    value = config.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e6:
        _refuse(folder, f"{CONFIG} sets {key} to {value!r}", "a number above 0 is needed")
    return float(value)


def _targets(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    targets = config.get("target_modules")
    if not isinstance(targets, list) or not targets or not all(isinstance(name, str) for name in targets):
        fix = "a list of module names is needed (a pattern is not taken from an adapter)"
        _refuse(folder, f"{CONFIG} sets target_modules to {str(targets)[:80]!r}", fix)
    return tuple(sorted(targets))
