"""What an embedded engine is told when it starts, and where it is found afterwards. No torch here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from prompts.errors import BadInput


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One embedded engine: a base model in a folder, and the folder its adapters are loaded from.

    `threads` 0 leaves the number to torch; `device` is `auto`, `cpu`, `cuda` or `mps`. The engine exits
    `linger_s` after its last lease was closed; `timeout_s` bounds its start.
    """

    alias: str
    folder: Path
    adapters_dir: Path
    max_queue: int = 4096
    linger_s: float = 0.5
    threads: int = 0
    device: str = "auto"
    timeout_s: float = 120.0

    @property
    def digest(self) -> str:
        """Tells whether a running engine was started from this same spec."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        folders = {"folder": str(self.folder.absolute()), "adapters_dir": str(self.adapters_dir.absolute())}
        return {**asdict(self), **folders}


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where an engine listens. `log` is the file its output goes to; the token is left out of the repr."""

    base_url: str
    token: str
    pid: int
    log: Path

    def __repr__(self) -> str:
        return f"EngineAddress(base_url={self.base_url!r}, pid={self.pid}, log={str(self.log)!r})"


@dataclass(frozen=True, slots=True)
class StartFile:
    """The file a parent writes for its child: the spec, the bearer token, and where to say that it is ready."""

    spec: EngineSpec
    token: str
    ready_file: Path

    @classmethod
    def read(cls, path: Path) -> StartFile:
        """Raises BadInput where the file is not one that `write` made."""
        try:
            content = json.loads(path.read_text("utf-8"))
            known = {field.name for field in fields(EngineSpec)}
            values = {key: value for key, value in content["spec"].items() if key in known}
            folders = {key: Path(values[key]) for key in ("folder", "adapters_dir")}
            return cls(EngineSpec(**{**values, **folders}), content["token"], Path(content["ready_file"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{path} is not the start file of an engine: {error!r}") from error

    def as_dict(self) -> dict[str, Any]:
        return {"spec": self.spec.as_dict(), "token": self.token, "ready_file": str(self.ready_file)}


def engine_id(token: str) -> str:
    """The id an engine shows to anyone on `/health`: proves which token it holds without telling the token."""
    return hashlib.sha256(f"turnout-engine:{token}".encode()).hexdigest()[:24]
