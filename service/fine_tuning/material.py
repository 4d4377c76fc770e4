"""The rows that a job trains on: its files read again, counted, and split where it has no validation file."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from finetune.data import split
from finetune.data.conversations import Conversation, read_conversations
from finetune.plan import Row
from prompts.errors import BadInput, Fault
from service.errors import NoSuchFile
from service.fine_tuning.files import Files, faults_in_words
from service.fine_tuning.request import FineTuneSpec

FEWEST_EXAMPLES = 10  # OpenAI's
_ELSE_EVERY = 10
_ROW = re.compile(r"\b(train|dev) row ([0-9]+)")


class FileRefused(BadInput):
    """A file that cannot be trained on; `code` is OpenAI's for the job's error."""

    def __init__(self, code: str, message: str, param: str) -> None:
        super().__init__(message, param=param)
        self.code = code


@dataclass(frozen=True)
class Data:
    """What a job trains on and what it is scored on; `in_both` conversations stand in both files.

    `places` has for each row of `train` and `dev` where it comes from, as people find it.
    """

    train: tuple[Row, ...]
    dev: tuple[Row, ...]
    examples: int
    in_both: int
    digest: str
    places: Mapping[str, Sequence[str]]

    def in_words(self, said: str) -> str:
        """What the training process says of its rows, by the lines of the files that they come from."""
        return _ROW.sub(lambda found: self.places[found[1]][int(found[2])], said)


def read_data(files: Files, spec: FineTuneSpec) -> Data:
    """The rows of a job's files. Raises FileRefused as OpenAI's jobs fail."""
    training = _read(files, spec.training_file, "training")
    if len(training) < FEWEST_EXAMPLES:
        said = f"Training file has {len(training)} example(s), but must have at least {FEWEST_EXAMPLES} examples"
        raise FileRefused("invalid_n_examples", said, "training_file")
    digest = str(files.show(spec.training_file)["digest"])
    if spec.validation_file is None:
        train, dev = _split(training)
        places = {"train": _places(train, "training"), "dev": _places(dev, "training")}
        return Data(_rows(train), _rows(dev), len(training), 0, digest, places)
    validation = _read(files, spec.validation_file, "validation")
    if not validation:
        said = "Validation file has 0 example(s), but must have at least 1 example"
        raise FileRefused("invalid_n_examples", said, "validation_file")
    known = {one.key for one in training}
    in_both = sum(one.key in known for one in validation)
    places = {"train": _places(training, "training"), "dev": _places(validation, "validation")}
    return Data(_rows(training), _rows(validation), len(training), in_both, digest, places)


def _read(files: Files, file_id: str, kind: str) -> list[Conversation]:
    param = f"{kind}_file"
    try:
        about = files.show(file_id)
    except NoSuchFile as error:
        raise FileRefused(f"invalid_{param}", f"{kind} file {file_id}: it was deleted", param) from error
    if about["status"] == "error":
        said = f"The job failed due to an invalid {kind} file. {about['status_details']}"
        raise FileRefused(f"invalid_{param}", said, param)
    found: list[Conversation] = []
    faults: list[Fault] = []
    for one in read_conversations(_lines(files.content(file_id)), about["filename"]):
        if isinstance(one, Conversation):
            found.append(one)
        else:
            faults += one
    if faults:  # what was let in by an older version of this software
        raise FileRefused(f"invalid_{param}", faults_in_words(faults), param)
    return found


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """The lines of a UTF-8 text that comes in pieces."""
    decoder, rest = codecs.getincrementaldecoder("utf-8")(), ""
    for piece in pieces:
        *whole, rest = (rest + decoder.decode(piece)).split("\n")
        yield from whole
    if rest:
        yield rest


def _split(given: Sequence[Conversation]) -> tuple[list[Conversation], list[Conversation]]:
    """Dev carved from the training file, near duplicates on one side; every tenth where all resemble each other."""
    examples = [one.example for one in given]
    dev = {id(example) for example in split(examples, seed=0)[1] or examples[::_ELSE_EVERY]}
    parts: tuple[list[Conversation], list[Conversation]] = ([], [])
    for conversation, example in zip(given, examples, strict=True):
        parts[id(example) in dev].append(conversation)
    return parts


def _places(conversations: Iterable[Conversation], kind: str) -> list[str]:
    return [f"{kind} file, line {one.line}" for one in conversations for _ in one.turns]


def _rows(conversations: Iterable[Conversation]) -> tuple[Row, ...]:
    return tuple(Row(messages=turn.messages, answer=turn.answer) for one in conversations for turn in one.turns)
