"""Files beside a file of another tool: below the folder that was named or in the project, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def beside(file: Path, folders: tuple[Path, ...]) -> Callable[[str], str | None]:
    """Reads texts by their names relative to `file`; None for what is not there, is no text, or lies outside of `folders`."""

    def read_beside(name: str) -> str | None:
        try:
            path = (file.parent / name).resolve(strict=True)
            return path.read_text("utf-8") if _is_inside(path, folders) else None
        except (OSError, ValueError, RuntimeError):
            return None

    return read_beside


def fitting(file: Path, folders: tuple[Path, ...]) -> Callable[[str], list[str]]:
    """Finds the names, relative to `file`, of the files that fit a pattern, in their order."""

    def fitting_names(pattern: str) -> list[str]:
        try:
            found = sorted(path for path in file.parent.glob(pattern) if _is_inside(path.resolve(), folders))
        except (OSError, ValueError, NotImplementedError):
            return []
        return [path.relative_to(file.parent).as_posix() for path in found]

    return fitting_names


def _is_inside(path: Path, folders: tuple[Path, ...]) -> bool:
    return path.is_file() and any(path.is_relative_to(folder) for folder in folders)
