"""How many real prompt files of other tools can be imported: `python -m benchmarks.imports FOLDER`.

Every `.prompty`, `.prompt` and `.prompt.yml` below the folder is read, written as a prompt file and loaded from that text,
as `turnout import` does it. Repositories are the folders directly below. Prints JSON: of each kind how many load, and why
the others do not.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prompts.errors import BadInput
from prompts.formats.imported import Foreign, Partial, fit_name
from prompts.formats.prompt_yml import load_prompt
from prompts.formats.reading import detect, read
from prompts.formats.writing import prompt_text
from prompts.prompt import MessageTemplate, PromptContent
from prompts.registry import resolve

SUFFIXES = (".prompty", ".prompt", ".prompt.yml", ".prompt.yaml")
STAND_IN = PromptContent(messages=(MessageTemplate(role="user", content=""),), model="none")


def measure(folder: Path) -> dict[str, Any]:
    """Counts by format, the reasons of what does not load, and how often something was left out and why."""
    files = sorted(file for file in folder.rglob("*") if file.name.endswith(SUFFIXES) and file.is_file())
    totals: dict[str, dict[str, int]] = {}
    reasons: collections.Counter[str] = collections.Counter()
    left_out: collections.Counter[str] = collections.Counter()
    for file in files:
        kind = detect("", file.name)
        counts = totals.setdefault(kind, {"files": 0, "loaded": 0, "complete": 0})
        counts["files"] += 1
        try:
            noted = imported(file)
        except BadInput as error:
            reasons[f"{kind}: {_reason(str(error), file)}"] += 1
            continue
        counts["loaded"] += 1
        counts["complete"] += not noted
        left_out.update(noted)
    return {
        "at": datetime.now(UTC).strftime("%Y-%m"),
        "repositories": len({file.relative_to(folder).parts[0] for file in files}),
        "files": len(files),
        "loaded": sum(counts["loaded"] for counts in totals.values()),
        "formats": totals,
        "not_loaded": dict(reasons.most_common()),
        "left_out": dict(left_out.most_common()),
    }


def imported(file: Path) -> list[str]:
    """Import one file and load what would be written; returns why each thing was left out. Raises BadInput."""
    text = file.read_bytes().decode("utf-8", "replace")
    found = read("auto", Foreign(text, file.name, "imported", "", _partials(file), lambda name: _beside(file, name)))
    for name, keys in found.prompts.items():
        source = load_prompt(prompt_text({"model": "any", **keys}), file.name, name)
        resolve(source, {}, lambda _: STAND_IN)
    return [note.why for note in found.left_out]


def _partials(file: Path) -> dict[str, Partial]:
    names = {other.name[1:].removesuffix(".prompt"): other for other in file.parent.glob("_*.prompt")}
    return {name: Partial(other.read_text("utf-8", "replace"), fit_name(name)) for name, other in names.items()}


def _beside(file: Path, name: str) -> str | None:
    other = file.parent / name
    return other.read_text("utf-8", "replace") if other.is_file() else None


def _reason(message: str, file: Path) -> str:
    """An error without what is special to its file."""
    first = message.splitlines()[0].removeprefix(file.name)
    return re.sub(r"^:\d+: |^: ", "", first)[:160]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    print(json.dumps(measure(parser.parse_args().folder), indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
