"""The figures of a training as OpenAI names them."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


def checkpoint_metrics(scores: Mapping[str, Any]) -> dict[str, float]:
    """A snapshot's scores as a checkpoint's metrics: the validation rows are always scored in full."""
    named = {
        "step": scores.get("step"),
        "train_loss": scores.get("train_loss"),
        "train_mean_token_accuracy": scores.get("train_token_accuracy"),
        "full_valid_loss": scores.get("dev_loss"),
        "full_valid_mean_token_accuracy": scores.get("dev_token_accuracy"),
        "valid_loss": scores.get("dev_loss"),
        "valid_mean_token_accuracy": scores.get("dev_token_accuracy"),
    }
    return {name: value for name, value in named.items() if value is not None}


def result_csv(events: Iterable[Mapping[str, Any]]) -> bytes:
    """The metrics of every step as CSV in base64, which is how OpenAI's result files are.

    What is known at the end of an epoch alone (accuracies, the validation's figures) is empty in between.
    """
    rows: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["type"] == "step":
            rows.setdefault(event["step"], {"step": event["step"]})["train_loss"] = event["loss"]
        elif event["type"] == "evaluated":
            rows.setdefault(event["step"], {"step": event["step"]}).update(_of_epoch(event))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[step] for step in sorted(rows))
    return base64.b64encode(text.getvalue().encode())


def _of_epoch(event: Mapping[str, Any]) -> dict[str, Any]:
    names = ("train_token_accuracy", "dev_loss", "dev_token_accuracy")
    known = zip(COLUMNS[2:], names, strict=True)
    return {column: event[name] for column, name in known if event.get(name) is not None}


def trained_tokens(events: Sequence[Mapping[str, Any]]) -> int:
    """Tokens of all rows of all steps, each as often as it was trained on."""
    return sum(event["tokens"] for event in events if event["type"] == "step")
