"""The working tree: the prompts and suites of a project as they are on disk, or as they were at a git revision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from prompts.errors import BadFile, BadInput, Fault
from prompts.formats.prompt_yml import SUFFIXES, PromptSource, load_prompt
from prompts.names import name_from_path
from prompts.secrets import secret_faults
from service.cli.examining import Checked, Tree, examine, faults_of_suite
from service.cli.forges import branch_of
from service.cli.revisions import changed_since, git, text_at
from service.settings import FILE_NAME, Settings, too_large
from suites.files import ResolvedSuite, brought_suite

SUITE_SUFFIXES = (".suite.yml", ".suite.yaml")
MAX_PROMPT_FILE_BYTES = 16 * 1024 * 1024
DETACHED = "HEAD"  # what git says in place of a branch


@dataclass(frozen=True)
class Project:
    """One project's files. Nothing is read before it is asked for.

    `asked` are the models that a command asks in place of the prompts' own (`--model`).
    """

    settings: Settings
    asked: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        return self.settings.project

    @cached_property
    def _real_root(self) -> Path:
        return self.root.resolve()

    @cached_property
    def tree(self) -> Tree:
        """Every prompt below `prompts/` that can be read, and the faults of the others."""
        return self.read_prompts(self.prompt_files())

    @property
    def prompts(self) -> dict[str, PromptSource]:
        """Every prompt below `prompts/`, by name; raises BadFile with all faults."""
        if self.tree.faults:
            raise BadFile(self.tree.faults)
        return self.tree.sources

    def prompt_files(self, paths: Iterable[Path] = ()) -> list[Path]:
        return _find(self.root / "prompts", paths, SUFFIXES)

    def suite_files(self, paths: Iterable[Path] = ()) -> list[Path]:
        return _find(self.root / "suites", paths, SUITE_SUFFIXES)

    def read_prompts(self, files: Iterable[Path]) -> Tree:
        """Prompts of these files by name. One with faults hides nothing of the others."""
        sources: dict[str, PromptSource] = {}
        broken: set[str] = set()
        faults: list[Fault] = []
        secrets: list[Fault] = []
        for file in files:
            shown, name, text = self.shown(file), "", ""
            try:
                name = self.prompt_name(file)
                if name in sources or name in broken:
                    faults.append(Fault(shown, 0, f"two files name the prompt {name!r}", "rename one", rule="name"))
                text = read_text(file, shown, self.settings.registry.max_prompt_bytes)
                secrets += secret_faults(text, shown)
                sources[name] = load_prompt(text, shown, name)
            except BadFile as error:
                broken.add(name)
                faults += [*error.faults, *faults_of_suite(text, shown, name)]
            except BadInput as error:
                faults.append(Fault(shown, 0, str(error), "rename the file", rule="name"))
        return Tree(sources, frozenset(broken), tuple(faults), tuple(secrets))

    def prompt_name(self, file: Path) -> str:
        """By the path below `prompts/`, dots for folders; a file elsewhere is called by its own name."""
        folder = self._real_root / "prompts"
        folder = folder.resolve() if folder.is_symlink() else folder
        absolute = file.resolve()
        self._refuse_way_out(file, absolute)
        below = absolute.relative_to(folder) if absolute.is_relative_to(folder) else Path(absolute.name)
        suffix = next((end for end in SUFFIXES if below.name.endswith(end)), "")
        return name_from_path(PurePosixPath(below.as_posix()), suffix, "prompt")

    def _refuse_way_out(self, file: Path, target: Path) -> None:
        """A file of the project is in the project: a link that a stranger committed brings in no file from elsewhere."""
        root = self._real_root
        if target.parent == file.parent.absolute() and target.is_relative_to(root):
            return  # no link on the way
        if file.parent.resolve().is_relative_to(root) and not target.is_relative_to(root):
            fix = "put a copy there"
            raise BadFile([Fault(self.shown(file), 0, f"is a link that leads out of the project, to {target}", fix)])

    def shown(self, file: Path) -> str:
        """A path as messages show it: relative to the working folder where it lies in it."""
        absolute, here = file.absolute(), Path.cwd()
        return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)

    def check(self, paths: Iterable[Path] = ()) -> tuple[dict[str, PromptSource], list[ResolvedSuite]]:
        """Read all that `paths` name (by default the project); raises BadFile with every error of every file."""
        found = self.examine(paths)
        if found.errors:
            raise BadFile(found.errors)
        return found.prompts, found.suites

    def files_of_suites(self) -> list[Path]:
        """Suite files, and the prompt files that bring a suite with them."""
        bring = [Path(source.document.path) for source in self.tree.sources.values() if brings_suite(source)]
        return [*self.suite_files(), *bring]

    def suites_of(self, files: Iterable[Path]) -> list[ResolvedSuite]:
        """The suites of these files; a prompt file stands for every suite that tests it.

        Raises BadFile with every error of the files, BadInput for a prompt that no suite tests.
        """
        files = list(files)
        named = [file for file in files if file.name.endswith(SUFFIXES)]
        found = self.check(files)[1]
        tested = {suite.suite.prompt for suite in found}
        prompts = {self.prompt_name(file): file for file in named}
        others = self.check(self.suite_files())[1] if prompts else []
        known = {suite.name for suite in found}
        found += [suite for suite in others if suite.suite.prompt in prompts and suite.name not in known]
        for name in sorted(prompts.keys() - tested - {suite.suite.prompt for suite in found}):
            raise BadInput(f"{self.shown(prompts[name])} is a prompt that no suite tests: name or write one")
        return found

    def examine(self, paths: Iterable[Path] = ()) -> Checked:
        """Read and lint all that `paths` name (by default the project)."""
        return examine(self, list(paths))

    def at(self, ref: str, name: str) -> dict[str, dict[str, Any]] | None:
        """A prompt and what it includes as they were at a git revision, as data; None where it was not there."""
        found: dict[str, dict[str, Any]] = {}
        waiting = [name]
        while waiting:
            current = waiting.pop()
            text = self._text_at(ref, current)
            if text is None:
                if current == name:
                    return None
                continue
            source = load_prompt(text, f"{ref}:{current}", current)
            found[current] = source.document.data
            waiting += [included for included in source.includes if included not in found]
        return found

    def _text_at(self, ref: str, name: str) -> str | None:
        for suffix in SUFFIXES:
            done = text_at(self.root, ref, f"prompts/{name.replace('.', '/')}{suffix}")
            if done is not None:
                return done
        return None

    def with_includes(self, name: str) -> dict[str, dict[str, Any]]:
        """A prompt of the working tree and all that it includes, as data. Raises BadInput where one is not there."""
        found: dict[str, dict[str, Any]] = {}
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current in self.tree.broken:
                raise BadFile(self.tree.faults)
            if current in self.tree.sources and current not in found:
                found[current] = self.tree.sources[current].document.data
                waiting += self.tree.sources[current].includes
        if name not in found:
            raise BadInput(f"prompts/{name.replace('.', '/')}.prompt.yml is not there, and the suite tests {name!r}")
        return found


def brings_suite(source: PromptSource) -> bool:
    """Whether a prompt file makes a suite, or would but for its faults, which reading it then tells."""
    try:
        return brought_suite(source)[0] is not None
    except BadFile:
        return True


def read_text(file: Path, shown: str, max_prompt_bytes: int | None = None) -> str:
    """The text of an author's file; raises BadFile where it cannot be one, or is a prompt of too many bytes."""
    try:
        size_bytes = file.stat().st_size
        if max_prompt_bytes is not None and size_bytes > max_prompt_bytes:
            raise BadFile([too_large(shown, size_bytes, max_prompt_bytes)])
        if size_bytes > MAX_PROMPT_FILE_BYTES:
            raise BadFile([Fault(shown, 0, f"larger than {MAX_PROMPT_FILE_BYTES:,} bytes", "split it")])
        if file.exists() and not file.is_file():
            raise BadFile([Fault(shown, 0, "is no file", "name a file")])
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadFile([Fault(shown, 0, f"not UTF-8: byte {error.start}", "save it as UTF-8")]) from error
    except OSError as error:
        raise BadFile([Fault(shown, 0, f"cannot be read: {error.strerror}", "name a file that is there")]) from error


def repository_of(path: Path) -> Path:
    """The nearest folder upwards of `path` that git keeps; the working folder where none does."""
    absolute = path.resolve()
    return next((folder for folder in (absolute, *absolute.parents) if (folder / ".git").exists()), Path.cwd())


def below_repository(path: Path) -> str:
    """A file as forges know it: relative to the repository's root, with slashes; "" where it lies outside."""
    absolute, root = path.resolve(), repository_of(path).resolve()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else ""


def git_origin(root: Path) -> dict[str, Any]:
    """What a push says of its working tree's commit; nothing without git.

    `moves_labels` tells whether the branch is the default one, `git_dirty` which prompts' files are not as the commit
    has them.
    """
    commit = git(root, "log", "-1", "--format=%H%x00%an <%ae>%x00%s", check=False)
    branch = (git(root, "rev-parse", "--abbrev-ref", "HEAD", check=False) or "").strip()
    if commit is None or not branch:
        return {}
    sha, author, subject = _legible(commit).rstrip("\n").split("\0")
    job = branch_of(sha)
    branch = job.name if job and job.name and branch == DETACHED else branch
    default = git(root, "symbolic-ref", "--short", "refs/remotes/origin/HEAD", check=False)
    known = job.default if job else default.strip().removeprefix("origin/") if default else ""
    is_default = branch == known if known else branch in ("main", "master")
    said = {"git_author": author[:255], "git_subject": subject[:2000], "git_dirty": _dirty_prompts(root)}
    return {"git_sha": sha, "git_branch": _legible(branch), "moves_labels": is_default, **said}


def _legible(text: str) -> str:
    """A text of git's with a `?` for each byte that is not UTF-8, as old commits have them: it is kept and sent."""
    return text.encode("utf-8", "replace").decode()


def _dirty_prompts(root: Path) -> list[str]:
    """Names of the prompts below `prompts/` that are changed, new or ignored: the commit does not have them so."""
    names = set()
    for path in (PurePosixPath(text) for text in changed_since(root, "HEAD", ("prompts",)) if text.endswith(SUFFIXES)):
        suffix = next(end for end in SUFFIXES if path.name.endswith(end))
        with contextlib.suppress(BadInput):  # `check` has told that it is no name
            names.add(name_from_path(path.relative_to("prompts"), suffix, "prompt"))
    return sorted(names)


def _find(folder: Path, paths: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """Files below the folders among `paths` that end in one of `suffixes`, and the files among them that do."""
    paths = list(paths)
    found: list[Path] = []
    for path in paths or [folder]:
        if path.is_dir():
            found += [file for file in path.rglob("*") if file.name.endswith(suffixes) and file.is_file()]
        elif path.name != FILE_NAME and (path.exists() or paths):
            is_prompt = path.name.endswith(SUFFIXES)
            if is_prompt == (suffixes is SUFFIXES):
                found.append(path)
    return sorted(set(found))
