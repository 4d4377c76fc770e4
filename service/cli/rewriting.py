"""Files of an author that a command writes: each is there whole, or as it was."""

from __future__ import annotations

import shutil
from pathlib import Path


def rewrite(path: Path, text: str) -> None:
    """`text` as it is, its ends of lines too, with the rights of the file that was there; through a link, which stays one.

    Raises CannotRun where the file cannot be written.
    """
    from service.errors import CannotRun

    target = path.resolve()
    draft = target.with_name(f".{target.name}.new")  # no name that an author's file has, should this be killed
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, "utf-8", newline="")
        if target.exists():
            shutil.copymode(target, draft)
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise CannotRun(f"{path} cannot be written: {error.strerror}: name a file that can") from error
