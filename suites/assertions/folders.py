"""Which Python files a suite may run: those in folders that an admin has listed, and no others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SWITCH_ON = "an admin lists the folder in turnout.yaml: `assertions: {python_dirs: [checks]}`"
REFERENCE = re.compile(r"(?P<path>[^:\n]+\.py)(?::(?P<function>[A-Za-z_][A-Za-z0-9_]*))?")


@dataclass(frozen=True, slots=True)
class ScriptFolders:
    """The folders of one project whose files may be run; paths in `allowed` are absolute, or relative to `project`."""

    project: Path
    allowed: tuple[Path, ...] = ()

    def find(self, name: str) -> Path:
        """The file that `name` stands for, looked for in the project and then in each folder.

        Raises ValueError, saying how to mend it, where there is none or it lies elsewhere after symbolic links.
        """
        if not self.allowed:
            raise ValueError(f"no Python is run here: {SWITCH_ON}")
        folders = [(self.project / folder).resolve() for folder in self.allowed]
        found = [path for base in (self.project, *folders) if (path := (base / name).resolve()).is_file()]
        inside = [path for path in found if any(path.is_relative_to(folder) for folder in folders)]
        if not inside:
            listed = ", ".join(map(str, self.allowed))
            what = "lies outside" if found else "is not in"
            raise ValueError(f"{name!r} {what} the folders that may be run ({listed}): move it there, or {SWITCH_ON}")
        return inside[0]
