"""What git says of the working tree and of its past, through links and submodules as authors see their files."""

from __future__ import annotations

import io
import os
import posixpath
import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from prompts.errors import BadInput

AUTHORED = ("prompts", "suites")  # the folders of a project whose files count though git ignores them
_SUBMODULE, _LINK = "160000", "120000"  # modes of git
_MOST_LINKS = 40  # on the way to a file, as Linux follows
_OF_A_HOOK = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX"})


def git(root: Path, *arguments: str, check: bool = True, stdin: str = "") -> str | None:
    """Output of a git command in `root`; None (or BadInput with `check`) where it fails or git is not there.

    What is not UTF-8 in it is as in the names of files: `os.fsencode` gives its bytes back.
    """
    found = git_bytes(root, *arguments, check=check, stdin=stdin)
    return None if found is None else io.TextIOWrapper(io.BytesIO(found), "utf-8", "surrogateescape").read()


def git_bytes(root: Path, *arguments: str, check: bool = False, stdin: str = "") -> bytes | None:
    """The same as bytes: what it writes may be an archive."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed program, arguments are not read by a shell
            ["git", *arguments],  # noqa: S607 - the user's own git
            cwd=root, env=_environment(root), input=stdin.encode("utf-8", "surrogateescape"), capture_output=True, check=False,
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


# ------------------------------------------------------------------ what was there at a commit


def digest_at(root: Path, commit: str, below: str) -> str | None:
    """Git's digest of what stood at a path below `root` at a commit; None where nothing did.

    Links are followed as they led then. Raises BadInput for a submodule whose clone lacks the commit that it was at, and
    where git cannot say it: a partial clone that cannot fetch is none in which the file was not there.
    """
    found = _object_at(root, commit, PurePosixPath(below))
    return found[1] if found else None


def text_at(root: Path, commit: str, below: str) -> str | None:
    """What the file at a path below `root` held at a commit; None where there was none. Raises as `digest_at` does."""
    found = _object_at(root, commit, PurePosixPath(below))
    return git(found[0], "cat-file", "blob", found[1]) if found else None


def _object_at(root: Path, commit: str, below: PurePosixPath, links: int = _MOST_LINKS) -> tuple[Path, str] | None:
    """A folder of the repository that has the object, and the digest of it."""
    asked = f"{commit}:./{below}\n"
    said = (git(root, "cat-file", "--batch-check", "--follow-symlinks", stdin=asked) or "").split()
    if len(said) == 3 and said[1] in ("blob", "tree") and said[2].isdecimal():  # else `missing`, `dangling`, …
        return root, said[0]
    for part in (*reversed(below.parents), below):  # git itself follows no link into a submodule
        mode, digest = _entry_at(root, commit, str(part))
        if mode == _SUBMODULE:
            _require_history(root, part, digest)
            return _object_at(root / part, digest, below.relative_to(part), links)
        if mode == _LINK and links:
            target = git(root, "cat-file", "blob", digest) or ""
            led = posixpath.normpath(part.parent / target / below.relative_to(part))
            return _object_at(root, commit, PurePosixPath(led), links - 1) if _is_inside(root, led) else None
    return None


def _is_inside(root: Path, below: str) -> bool:
    """Whether a path from `root` stays in its repository."""
    prefix = (git(root, "rev-parse", "--show-prefix", check=False) or "").removesuffix("\n")
    return not posixpath.normpath(posixpath.join(prefix, below)).startswith(("../", "/"))


def _require_history(root: Path, submodule: PurePosixPath, then: str) -> None:
    if not _is_known(root / submodule, then):
        fix = f"fetch its history (git -C {submodule} fetch --unshallow, or git submodule update --init)"
        raise BadInput(f"the submodule {submodule} was at {then[:7]} then, which its clone here does not have: {fix}")


def submodule_at(root: Path, commit: str, below: str) -> str | None:
    """The commit at which the submodule at a path below `root` was then; None where none was there."""
    mode, digest = _entry_at(root, commit, below)
    return digest if mode == _SUBMODULE else None


def _entry_at(root: Path, commit: str, below: str) -> tuple[str, str]:
    """The mode and the digest of what stood at a path then; empty where nothing did, and for a folder that holds `root`."""
    if not below.strip("./"):
        return "", ""
    listed = git(root, "ls-tree", "-z", commit, "--", below, check=False) or ""
    mode, _, digest = listed.partition("\t")[0].split(" ") if listed else ("", "", "")
    return mode, digest


def _is_known(folder: Path, commit: str) -> bool:
    """Whether the repository whose top is `folder` has a commit."""
    is_top = (folder / ".git").exists()
    return is_top and git(folder, "cat-file", "-e", f"{commit}^{{commit}}", check=False) is not None


# ------------------------------------------------------------------ what changed since


def changed_since(root: Path, commit: str, among: Collection[str] = (".",)) -> set[str]:
    """Paths below `root` of the files that are not as a commit has them: new ones too and, below `AUTHORED`, ignored ones.

    Those of submodules are there, too, and those of folders that `AUTHORED` are links to, by their paths through the link.
    `among` are names in `root`: what git cannot say of others, such as a broken submodule, then hinders nobody.
    """
    authored = tuple(name for name in AUTHORED if name in among or "." in among)
    found = set(_changed_in(root, commit, authored, among))
    commit = (git(root, "rev-parse", "--verify", commit) or "").strip()  # HEAD is another in a submodule
    for name in (name for name in authored if (root / name).is_symlink() and (root / name).is_dir()):
        target = (root / name).resolve()
        within = {path for path in found if (root / path).resolve().is_relative_to(target)}
        linked = _changed_in(target, _commit_in(target, commit), (".",))
        found = (found - within) | {f"{name}/{path}" for path in linked}
    return found


def _commit_in(folder: Path, commit: str) -> str | None:
    """What a commit of this or of an outer repository had of the one that `folder` is in: a commit; None where not known."""
    if git(folder, "cat-file", "-e", f"{commit}^{{commit}}", check=False) is not None:
        return commit
    top, outer = (
        (git(folder, "rev-parse", asked, check=False) or "").removesuffix("\n")
        for asked in ("--show-toplevel", "--show-superproject-working-tree")
    )
    then = _commit_in(Path(outer), commit) if outer else None
    found = submodule_at(Path(outer), then, os.path.relpath(top, outer)) if then else None
    return found if found and _is_known(Path(top), found) else None


def _changed_in(
    folder: Path, commit: str | None, authored: tuple[str, ...], among: Collection[str] = (".",)
) -> Iterator[str]:
    """The same of one repository and its submodules; every file where it is not known what `commit` had."""
    if commit is None:
        files = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
        yield from (file.as_posix() for file in files if ".git" not in file.parts)
        return
    options = ("--name-only", "--no-renames", "--ignore-submodules=none", "-z", "--relative")
    listed = git(folder, "--literal-pathspecs", "diff", *options, commit, "--", *among)
    new = git(folder, "--literal-pathspecs", "ls-files", "-z", "--others", "--exclude-standard", "--", *among)
    hidden = git(folder, "ls-files", "-z", "--others", "--", *authored) if authored else ""
    for path in sorted({path for text in (listed, new, hidden) for path in (text or "").split("\0") if path}):
        inner = folder / path
        if not (inner / ".git").exists():
            yield path
            continue
        is_authored = authored == (".",) or path.split("/")[0] in authored
        if path.endswith("/") and not is_authored:
            yield path  # a clone or a worktree of its own, which this repository does not have
            continue
        path = path.rstrip("/")
        then = submodule_at(folder, commit, path)
        known = then if then is not None and _is_known(inner, then) else None
        changed = _changed_in(inner, known, (".",) if is_authored else AUTHORED)
        yield from (f"{path}/{each}" for each in changed)
