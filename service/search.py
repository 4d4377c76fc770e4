"""What a search looks at: the words that a prompt's page would show, folded so that case does not matter."""

from __future__ import annotations

import unicodedata

from prompts.prompt import PromptContent
from service.store.prompts import SummaryRecord, VersionRecord


def folded(text: str) -> str:
    """`text` as it is compared: one form for each letter, without case."""
    return unicodedata.normalize("NFC", text).casefold()


def words(query: str) -> tuple[str, ...]:
    """The words of a query; a prompt is found where each of them occurs, in any order, as a part of its text."""
    return tuple(dict.fromkeys(folded(query).split()))


def summary(record: VersionRecord, content: PromptContent) -> SummaryRecord:
    """What lists and searches see of a version: name, title, description, notes and the text of its messages."""
    about = record.about
    title, description, tags = about.get("title"), about.get("description"), tuple(about.get("tags") or ())
    messages = [text for message in content.templates for text in message.texts]
    shown = [record.name, title, description, about.get("notes"), *messages]
    text = folded("\n".join(part for part in shown if part))
    return SummaryRecord(record.name, record.number, title, description, content.model, tags, text)
