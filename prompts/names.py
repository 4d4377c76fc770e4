"""Names, labels, selectors and variants: one grammar, used by files, the command line and HTTP alike."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from prompts.errors import BadName

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)*")
LABEL = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
MAX_NAME_LENGTH = 200
LATEST = "latest"
PRODUCTION = "production"


def check_name(name: str, kind: str = "prompt") -> str:
    """Return `name`; raises BadName where it is outside the grammar."""
    if len(name) > MAX_NAME_LENGTH or not NAME.fullmatch(name):
        raise BadName(
            f"{name[:80]!r} is no {kind} name: lower-case letters, digits, _ and -, with dots between parts,"
            f" at most {MAX_NAME_LENGTH} characters",
            param="name",
        )
    return name


def check_label(label: str) -> str:
    """Return `label`; raises BadName where it is outside the grammar, or `latest`, which moves by itself."""
    if label == LATEST:
        raise BadName("the label 'latest' moves by itself: it is always the newest version", param="label")
    if not LABEL.fullmatch(label):
        raise BadName(
            f"{label[:80]!r} is no label: a lower-case letter, then letters, digits, _ . -, at most 64 characters",
            param="label",
        )
    return label


def name_from_path(path: PurePosixPath, suffix: str, kind: str) -> str:
    """The name of a file by its path below `prompts/` or `suites/`: dots for folders, without `suffix`."""
    text = path.as_posix().removesuffix(suffix).replace("/", ".")
    return check_name(text, kind)


@dataclass(frozen=True, slots=True)
class Selector:
    """A prompt and which of its versions is meant: a number, a label, or neither (its route or `production`)."""

    name: str
    version: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}@{self.version}"
        return f"{self.name}@{self.label}" if self.label else self.name


def parse_selector(text: str) -> Selector:
    """Read `name`, `name@7` or `name@label`; raises BadName."""
    name, at, which = text.partition("@")
    check_name(name)
    if not at:
        return Selector(name)
    if which.isascii() and which.isdigit():
        return Selector(name, version=_number(which))
    if which != LATEST:
        check_label(which)
    return Selector(name, label=which)


def _number(digits: str) -> int:
    if len(digits) > 9 or int(digits) < 1:
        raise BadName(f"{digits[:20]!r} is no version: versions count from 1", param="version")
    return int(digits)


@dataclass(frozen=True, slots=True)
class Variant:
    """What is tested, compared and routed to: prompt version × model × adapter or none.

    Written `NAME@N+MODEL[+ADAPTER]` everywhere.
    """

    prompt: str
    version: int
    model: str
    adapter: str | None = None

    def __str__(self) -> str:
        return f"{self.prompt}@{self.version}+{self.model}" + (f"+{self.adapter}" if self.adapter else "")


def parse_variant(text: str) -> Variant:
    """Read `NAME@N+MODEL[+ADAPTER]`; raises BadName."""
    head, *parts = text.split("+")
    if not 1 <= len(parts) <= 2 or not all(parts):
        raise BadName(f"{text[:120]!r} is no variant: write NAME@N+MODEL or NAME@N+MODEL+ADAPTER", param="variant")
    selector = parse_selector(head)
    if selector.version is None:
        raise BadName(
            f"{text[:120]!r} names no version number: write {selector.name}@N+{'+'.join(parts)}", param="variant"
        )
    return Variant(selector.name, selector.version, parts[0], parts[1] if len(parts) == 2 else None)
