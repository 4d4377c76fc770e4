"""`python -m benchmarks.page`: writes `docs/benchmarks.md` from `benchmarks/results/`, so that no figure is typed by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
_HEAD = """# Figures

Each table was measured in one run, side by side, on one machine; compare within a table, not between them. They are made by
`.venv/bin/python -m benchmarks --only NAME` and stand with all conditions in [benchmarks/results](../benchmarks/results), of which
`.venv/bin/python -m benchmarks.page` makes this page. Peers are installed apart; what a benchmark needs stands at the head of its
module. Misses of our own goals stand here like all else.
"""
_TASKS = {"sms_spam": "spam or ham", "snips_slots": "7 intents", "banking77": "77 intents of a bank"}


def page() -> str:
    """The page's text."""
    parts = (_requests, _suites, _trainings, _quality, _advice, _exported, _engine, _decisions, _everyday)
    return "\n".join([_HEAD, *(part() for part in parts)])


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))
    return found


def _section(title: str, name: str, said: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    conditions = _read(name)["conditions"]
    where = f"{conditions['cpu']}, {conditions['cores']} cores, Python {conditions['python']}, {conditions['at'][:10]}"
    lines = [f"## {title}\n", f"{said} (`--only {name}`; {where})\n", _line(heads), _line(("---",) * len(heads))]
    return "\n".join([*lines, *(_line(row) for row in rows), ""])


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _goal(value: float, goal: float, *, most: bool) -> str:
    """'' where the goal is met, else by words."""
    return "" if (value <= goal if most else value >= goal) else f" (goal {goal:g}: missed)"


def _requests() -> str:
    found = _read("gateway")
    goals, streaming, soak = found["goals"], found["streaming"], found["soak"]
    peers = found["peers"]
    ways = {
        "Turnout": "turnout",
        f"TensorZero {peers['tensorzero']}, embedded, nothing recorded": "tensorzero_embedded",
        f"LiteLLM {peers['litellm']}, proxy": "litellm",
        "going direct": "direct",
    }
    rows = [
        (
            way,
            f"{found[key]['1']['p50_ms']:.2f} ms",
            f"{found[key]['1']['p99_ms']:.2f} ms",
            f"{found[key]['16']['requests_per_s']:,.0f}",
            f"{found[key]['64']['requests_per_s']:,.0f}",
            f"{found[key]['64']['cpu_ms_a_request']:.2f} ms" if "cpu_ms_a_request" in found[key]["64"] else "",
        )
        for way, key in ways.items()
    ]
    first = streaming["added_first_ms"]
    table = _section(
        "The request path",
        "gateway",
        "A chat completion through one server process to an upstream that answers at once, with the prompt filled in, routed,"
        " checked and recorded",
        ("", "p50, 1 in flight", "p99", "requests/s, 16 in flight", "64 in flight", "server CPU a request"),
        rows,
    )
    return table + (
        f"\nTurnout adds {found['added']['turnout']['1']['p50_ms']:.2f} ms to a request,"
        f" {found['added']['times_less_than_litellm_at_1']:.0f} times less than LiteLLM. It adds {first:.2f} ms to the first"
        f" chunk of a stream{_goal(first, goals['added_first_token_ms'], most=True)} and {streaming['added_chunk_ms']:.2f} ms to"
        f" each further one. After {soak['requests']:,} requests in {soak['seconds'] / 60:.0f} minutes it held"
        f" {soak['memory_mb_at_the_end']:.0f} MB, after the first 10,000 {soak['memory_mb_after_10000']:.0f};"
        f" {soak['refused']} were refused.\n"
    )


def _suites() -> str:
    found = _read("suites")
    versions = found["versions"]
    ways = {
        "a bare aiohttp loop that asserts nothing": "aiohttp_loop",
        "Turnout": "turnout",
        f"promptfoo {versions['promptfoo']}": "promptfoo",
        f"DeepEval {versions['deepeval']}": "deepeval",
    }
    figures = found["figures"]
    rows = [
        (
            way,
            f"{figures[key]['start_s']:.2f} s",
            f"{figures[key]['0_ms']['cpu_ms_per_case']:.2f} ms",
            f"{figures[key]['50_ms']['cases_per_s']:,.0f}",
            f"{figures[key]['50_ms']['peak_mb']:.0f} MB",
        )
        for way, key in ways.items()
    ]
    return _section(
        "A suite's run",
        "suites",
        f"{found['cases']:,} cases with {found['assertions']} assertions each, {found['in_flight']} in flight, every answer"
        " stored with its evidence",
        ("", "start", "CPU a case, answers at once", "cases/s, answers after 50 ms", "memory"),
        rows,
    )


def _trainings() -> str:
    speed = _read("finetune")["speed"]
    names = {
        "support": "the example's suite",
        "support_half": "the same with a shorter prompt",
        "banking77": "banking77, 77 labels in the prompt",
    }
    rows = [
        (
            names[name],
            f"{one['prefix_share']:.0%}",
            *(f"{one[way]['tokens_per_cpu_s']:.0f}" for way in ("turnout", "transformers_trainer", "trl")),
            f"{one['times_the_tokens_per_cpu_s_of']['trl']:.1f} times",
        )
        for name, one in speed["data"].items()
    ]
    version = speed["data"]["banking77"]["trl"]["version"]
    same = all(one["same_batches"] and one["same_last_loss"] for one in speed["data"].values())
    return _section(
        "A training's speed",
        "finetune",
        f"Tokens of examples per CPU second, SmolLM2-135M in fp32 on a CPU, LoRA of rank {speed['rank']} on all linear"
        f" layers{', the same batches, and the same loss to four digits at the end' if same else ''}",
        (
            "",
            "share of the prompt that all have",
            "Turnout",
            "transformers' Trainer",
            f"TRL {version}",
            "Turnout beside TRL",
        ),
        rows,
    )


def _quality() -> str:
    tasks = _read("finetune")["quality"]["tasks"]

    def cell(one: dict[str, Any]) -> str:
        low, high = one["ci95"]
        return f"{one['accuracy']:.1%} ({low:.1%} to {high:.1%})"

    rows = [
        (
            f"{name}: {_TASKS[name]}",
            str(task["lora"]["heldout"]),
            cell(task["zero_shot"]),
            cell(task["few_shot"]),
            cell(task["lora"]),
            ", ".join(str(seed["exact"]) for seed in task["lora"]["seeds"]),
        )
        for name, task in tasks.items()
    ]
    return _section(
        "What a fine-tune gives",
        "finetune",
        "Held-out answers of SmolLM2-135M that equal the label, after 200 training examples and one training a seed; few-shot has"
        " ten of the 200 in the prompt; the mean of three seeds with its Wilson interval",
        ("", "held out", "prompt alone", "few-shot", "LoRA", "right, by seed"),
        rows,
    )


def _advice() -> str:
    found = _read("advice")
    rows = []
    for name, task in found["tasks"].items():
        forecast = task["forecast"]
        (low, high), (least, most) = forecast["ci95"], task["heldout_ci95"]
        rows.append(
            (
                f"{name}, {task['labels']} labels",
                re.findall(r"largest (\d+%)", " ".join(task["advice"]["data"]["lines"]))[0],
                *(f"{_accuracy(task, key):.0%}" for key in ("prompt", "lora")),
                f"{forecast['accuracy']:.0%} ({low:.0%} to {high:.0%})",
                f"{task['heldout_accuracy']:.0%} ({least:.0%} to {most:.0%})",
                "" if task["within_forecast"] else "outside",
                task["recommendation"]["kind"],
            )
        )
    return _section(
        "What an advice foretells",
        "advice",
        f"From {found['advised_on']} examples, by cross-validation and the learning curve, and what a training on"
        f" {found['examples']} then gave on held-out cases; a short recipe, so below the figures above",
        ("", "commonest label", "prompt alone", "LoRA", "foretold", "came", "of the interval", "recommended"),
        rows,
    )


def _accuracy(task: dict[str, Any], key: str) -> float:
    return float(next(one["accuracy"] for one in task["advice"]["variants"] if one["key"] == key))


def _exported() -> str:
    found = _read("export")
    rows = [
        (form, f"{one['same_prompt_ids']} of {found['cases']}", f"{one['same_answers']} of {found['cases']}")
        for form, one in found["forms"].items()
    ]
    return _section(
        "What is exported answers alike",
        "export",
        f"An adapter as GGUF in llama.cpp's server ({found['peer']}) beside the embedded engine, greedy",
        ("", "same tokens of the prompt", "same answers"),
        rows,
    )


def _engine() -> str:
    found = _read("engine")
    engine, padded = found["engine"], found["generate_padded"]
    best = min(padded, key=lambda size: padded[size]["cpu_s_per_case"])
    ratios = found["ratios"]

    def row(way: str, one: dict[str, Any]) -> tuple[str, ...]:
        return way, f"{one['cases_per_s']:.2f}", f"{one['cpu_s_per_case']:.2f} s"

    rows = [
        row("the embedded engine", engine["replies"]),
        row("transformers' `generate`, one by one", found["generate_one_by_one"]),
        row(f"`generate`, padded batches of {best}, the best", padded[best]),
        *(
            row(f"llama.cpp's server, {form.upper()}, {one['slots']} slots, threads: {one['threads']}", one)
            for form, one in found["llama_cpp_server"].items()
        ),
        row("the embedded engine, one label of eight", engine["labels"]),
        row("`generate`, one by one, one label of eight", found["generate_one_by_one_labels"]),
    ]
    table = _section(
        "The embedded engine",
        "engine",
        f"{found['cases']} cases with a beginning of 150 tokens that all share and answers of 12 tokens, SmolLM2-135M in fp32 on"
        " a CPU",
        ("", "cases/s", "CPU a case"),
        rows,
    )
    labels, half = ratios["labels_to_one_by_one"]["cases_per_s"], ratios["half_adapter_to_base"]
    return table + (
        f"\n{ratios['engine_to_one_by_one']['cases_per_s']:.1f} times one by one and"
        f" {ratios['engine_to_best_padded']['cases_per_s']:.1f} times the best padded batch; its answers were those of `generate`"
        f" alone in {found['same_answers_as_generate_alone']}. Labels: {labels:.1f} times one by one"
        f"{_goal(labels, 20, most=False)}. With every other request to an adapter {half['cpu']:.0%} of the base alone by CPU time"
        f"{_goal(100 * half['cpu'], 85, most=False)}.\n"
    )


def _decisions() -> str:
    found = _read("mutation")["faults_that_cost"]
    rows = [
        (
            cases,
            str(one["edits"]),
            *(f"{one[key] / one['edits']:.0%}" for key in ("refused", "fail", "inconclusive", "pass")),
        )
        for cases, one in found.items()
    ]
    return _section(
        "What a gate finds",
        "mutation",
        "Faulty edits of prompts that made the model's answers worse, drawn suites of so many held-out cases: how the gate ended",
        ("cases", "edits", "refused by check", "fail", "inconclusive", "pass"),
        rows,
    )


def _everyday() -> str:
    authoring, ci, client = _read("authoring"), _read("ci"), _read("client")
    rows = [
        ("`turnout check` of 200 prompts", f"{authoring['prompts_200']['check']['seconds']:.2f} s"),
        ("`turnout push` of 200 prompts", f"{authoring['prompts_200']['push']['seconds']:.2f} s"),
        (
            f"git push to comment in CI, {ci['changed_prompts']} prompts of {ci['cases_each']} cases, the model's time left out",
            f"{ci['seconds']['total']:.1f} s",
        ),
        ("a prompt from the Python client's cache, filled in", f"{client['microseconds']['fetch_and_render']:.1f} µs"),
        ("a moved label reaches a client", f"{_read('render')['moved_label_reaches_a_client_ms']:.1f} ms"),
    ]
    return _section(
        "Every day", "ci", "Authors and CI; `--only authoring`, `client` and `render` for the others", ("", ""), rows
    )


def main() -> None:
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
