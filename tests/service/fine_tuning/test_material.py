"""What a job trains on, and how its numbers become a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.data.conversations import Conversation, read_conversations
from finetune.plan import total_steps
from prompts.errors import BadInput
from service.fine_tuning.files import Files, Received
from service.fine_tuning.material import read_data
from service.fine_tuning.metrics import result_csv
from service.fine_tuning.names import adapter_name, check_suffix, model_name, own_job_id, public_job_id
from service.fine_tuning.planning import recipe_for
from service.fine_tuning.request import FineTuneSpec, Hyperparameters
from service.settings import load_settings
from service.store.database import Database
from tests.service.conftest import AUTHOR
from tests.service.fine_tuning.conftest import TWELVE, jsonl, line

ASKED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "two?"},
    {"role": "assistant", "content": "2"},
]


def conversation(*weights: int | None) -> Conversation:
    """`ASKED` with these weights of its two answers."""
    of_answers = iter(weights)
    messages = [dict(one) for one in ASKED]
    for message in messages:
        if message["role"] == "assistant" and (weight := next(of_answers)) is not None:
            message["weight"] = weight  # type: ignore[assignment]
    [found] = read_conversations([json.dumps({"messages": messages})], "a.jsonl")
    assert isinstance(found, Conversation)
    return found


def test_every_answer_that_counts_is_learnt_behind_all_that_stands_before_it() -> None:
    both = conversation(None, 1)

    assert [turn.answer for turn in both.turns] == ["1", "2"]
    assert both.turns[0].messages == tuple(ASKED[:2])
    assert both.turns[1].messages == tuple(ASKED[:4])
    assert [turn.answer for turn in conversation(0, 1).turns] == ["2"]
    assert [turn.answer for turn in conversation(1, 0).turns] == ["1"]


def spec(training: str, validation: str | None = None) -> FineTuneSpec:
    return FineTuneSpec(
        asked_model="small", base="small", organization="turnout", training_file=training, validation_file=validation,
        suffix="", seed=1, hyperparameters=Hyperparameters(), metadata=None,
    )  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Files:
    database = Database(f"sqlite:///{tmp_path / 'turnout.db'}")
    database.migrate()
    return Files(database)


def keep(files: Files, folder: Path, content: bytes) -> str:
    path = folder / "upload"
    path.write_bytes(content)
    return str(files.keep(Received(path, "a.jsonl", "fine-tune"), AUTHOR)["id"])


def test_dev_is_carved_from_the_training_file_where_there_is_no_other(files: Files, tmp_path: Path) -> None:
    texts = ["".join(chr(97 + (number * 7 + at * at * number) % 26) for at in range(24)) for number in range(20)]
    data = read_data(files, spec(keep(files, tmp_path, jsonl(*(line(text, "ok") for text in texts)))))

    trained, scored = ({row.messages[0]["content"] for row in rows} for rows in (data.train, data.dev))
    assert (data.examples, data.in_both) == (20, 0)
    assert trained | scored == set(texts)
    assert not trained & scored
    assert len(scored) == 8


def test_where_all_examples_resemble_each_other_every_tenth_is_scored(files: Files, tmp_path: Path) -> None:
    data = read_data(files, spec(keep(files, tmp_path, jsonl(*[line("the very same question", "ok")] * 20))))

    assert (len(data.train), len(data.dev)) == (18, 2)


def test_a_validation_file_leaves_all_of_the_training_file_to_train_on(files: Files, tmp_path: Path) -> None:
    training = keep(files, tmp_path, TWELVE)
    validation = keep(files, tmp_path, jsonl(line("question 3", "ok"), line("another", "no")))
    data = read_data(files, spec(training, validation))

    assert (len(data.train), len(data.dev), data.in_both) == (12, 2, 1)


def test_so_many_epochs_as_asked_for_are_trained_and_none_less() -> None:
    recipe = recipe_for(135_000_000, 40, Hyperparameters(n_epochs=3, batch_size=4), seed=5)

    assert (recipe.epochs, recipe.batch_size, recipe.patience, recipe.seed) == (3.0, 4, 0, 5)
    assert total_steps(recipe, 40) == 30


def test_auto_epochs_are_whole_passes_and_may_stop_early() -> None:
    recipe = recipe_for(135_000_000, 40, Hyperparameters(), seed=5)

    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (12.0, 8, 1e-3)  # 60 steps at least, of 5 an epoch
    assert total_steps(recipe, 40) == 60
    assert recipe.patience > 0


def test_the_multiplier_is_of_the_models_own_rate() -> None:
    assert recipe_for(135_000_000, 40, Hyperparameters(learning_rate_multiplier=0.5), seed=5).lr == 5e-4


def test_names_are_as_openai_writes_them() -> None:
    assert model_name("gpt-4o-mini", "acme", "", "0f") == "ft:gpt-4o-mini:acme::0f"
    assert model_name("a", "acme", "bot", "0f", 8) == "ft:a:acme:bot:0f:ckpt-step-8"
    assert (adapter_name("0f"), adapter_name("0f", 8)) == ("ft-0f", "ft-0f-step-8")
    assert (own_job_id("ftjob-0f"), public_job_id("job_0f"), own_job_id("job_0f")) == ("job_0f", "ftjob-0f", "job_0f")
    assert check_suffix("My Bot") == "my-bot"
    for bad in ("a:b", "a@b", "x" * 65, "é"):
        with pytest.raises(BadInput, match="suffix"):
            check_suffix(bad)


def test_the_result_file_has_a_line_a_step() -> None:
    import base64

    events = [
        {"type": "started"},
        {"type": "step", "step": 1, "loss": 2.0, "tokens": 3},
        {"type": "evaluated", "step": 1, "dev_loss": 1.5, "dev_token_accuracy": 0.5, "train_token_accuracy": None},
    ]
    assert base64.b64decode(result_csv(events)).decode() == (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,2.0,,1.5,0.5\n"
    )


def test_names_of_models_are_mapped_by_the_environment_too(tmp_path: Path) -> None:
    names = {"TURNOUT_FINE_TUNING_MODELS": "gpt-4o-mini-2024-07-18=smollm2-135m, gpt-4.1=smollm2-135m"}
    settings = load_settings({"TURNOUT_HOME": str(tmp_path), **names}, tmp_path)

    assert settings.fine_tuning.models == {"gpt-4o-mini-2024-07-18": "smollm2-135m", "gpt-4.1": "smollm2-135m"}
