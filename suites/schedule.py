"""Schedules of suites: cron's five fields, checked when the file is read."""

from __future__ import annotations

from prompts.wording import refuse

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_NICKNAMES = {  # of cron's own: what they are in five fields
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)


def check_schedule(text: str) -> str:
    """Return `text` where it is a five-field cron expression; raises a ValueError that names the field and its bounds."""
    parts = text.split()
    if len(parts) != len(_FIELDS):
        meant = _NICKNAMES.get(text.strip().lower(), "0 3 * * *")
        told = f"a schedule has five fields (minute hour day month weekday), this has {len(parts)}"
        refuse(told, f'write "{meant}", in quotes')
    for part, (field, low, high, names) in zip(parts, _FIELDS, strict=True):
        for item in part.split(","):
            if not _is_item(item.lower(), low, high, names):
                refuse(f"{item!r} is no {field}", f"write *, a number from {low} to {high}, a range a-b or a step /n")
    return text


def _is_item(item: str, low: int, high: int, names: dict[str, int]) -> bool:
    span, slash, step = item.partition("/")
    if slash and not (_is_number(step) and 1 <= int(step) <= high):
        return False
    if span == "*":
        return True
    first, dash, last = span.partition("-")
    bounds = [names.get(word, int(word) if _is_number(word) else -1) for word in ((first, last) if dash else (first,))]
    return all(low <= bound <= high for bound in bounds) and bounds == sorted(bounds)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 2
