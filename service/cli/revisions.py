"""What git says of the working tree and of its past."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from prompts.errors import BadInput

_OF_A_HOOK = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX"})


def git(root: Path, *arguments: str, check: bool = True) -> str | None:
    """Output of a git command in `root`; None (or BadInput with `check`) where it fails or git is not there.

    What is not UTF-8 in it is as in the names of files: `os.fsencode` gives its bytes back.
    """
    found = git_bytes(root, *arguments, check=check)
    return None if found is None else io.TextIOWrapper(io.BytesIO(found), "utf-8", "surrogateescape").read()


def git_bytes(root: Path, *arguments: str, check: bool = False) -> bytes | None:
    """The same as bytes: what it writes may be an archive."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed program, arguments are not read by a shell
            ["git", *arguments],  # noqa: S607 - the user's own git
            cwd=root, env=_environment(root), capture_output=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        done = None
    if done is not None and done.returncode == 0:
        return done.stdout
    if check:
        cause = done.stderr.decode(errors="replace").strip() if done else "git is not installed"
        raise BadInput(f"git {' '.join(arguments)}: {cause}")
    return None


def _environment(root: Path) -> Mapping[str, str]:
    """The environment without what git tells its hooks of the repository that it runs them for.

    With it git takes the folder that it is called in for the top of that repository, and finds nothing of a project
    in a folder of it. The folder itself says which repository it is in; where none does, the environment has to.
    """
    absolute = root.resolve()
    if not any((folder / ".git").exists() for folder in (absolute, *absolute.parents)):
        return os.environ
    return {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK}
