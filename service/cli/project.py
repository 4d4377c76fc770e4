"""The working tree: the prompts and suites of a project as they are on disk, or as they were at a git revision."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from prompts.errors import BadFile, BadInput, Fault
from prompts.formats.prompt_yml import SUFFIXES, PromptSource, load_prompt
from prompts.names import name_from_path
from prompts.registry import nothing_registered, resolve_all
from service.settings import Settings
from suites.files import ResolvedSuite, load_suite

SUITE_SUFFIXES = (".suite.yml", ".suite.yaml")
MAX_PROMPT_FILE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Project:
    """One project's files. Nothing is read before it is asked for."""

    settings: Settings

    @property
    def root(self) -> Path:
        return self.settings.project

    @cached_property
    def prompts(self) -> dict[str, PromptSource]:
        """Every prompt below `prompts/`, by name; raises BadFile with all faults."""
        return self.load_prompts(self.prompt_files())

    def prompt_files(self, paths: Iterable[Path] = ()) -> list[Path]:
        return _find(self.root / "prompts", paths, SUFFIXES)

    def suite_files(self, paths: Iterable[Path] = ()) -> list[Path]:
        return _find(self.root / "suites", paths, SUITE_SUFFIXES)

    def load_prompts(self, files: Iterable[Path]) -> dict[str, PromptSource]:
        """Prompts of these files by name; raises BadFile with the faults of all of them."""
        found: dict[str, PromptSource] = {}
        faults: list[Fault] = []
        for file in files:
            try:
                name = self.prompt_name(file)
                if name in found:
                    faults.append(Fault(self.shown(file), 0, f"two files name the prompt {name!r}", "rename one"))
                found[name] = load_prompt(read_text(file, self.shown(file)), self.shown(file), name)
            except BadFile as error:
                faults += error.faults
            except BadInput as error:
                faults.append(Fault(self.shown(file), 0, str(error), "rename the file"))
        if faults:
            raise BadFile(faults)
        return found

    def prompt_name(self, file: Path) -> str:
        """By the path below `prompts/`, dots for folders; a file elsewhere is called by its own name."""
        folder = (self.root / "prompts").resolve()
        absolute = file.resolve()
        below = absolute.relative_to(folder) if absolute.is_relative_to(folder) else Path(absolute.name)
        suffix = next((end for end in SUFFIXES if below.name.endswith(end)), "")
        return name_from_path(PurePosixPath(below.as_posix()), suffix, "prompt")

    def shown(self, file: Path) -> str:
        """A path as messages show it: relative to the working folder where it lies in it."""
        absolute, here = file.absolute(), Path.cwd()
        return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)

    def load_suite(self, file: Path) -> ResolvedSuite:
        return load_suite(file, self.root)

    def check(self, paths: Iterable[Path] = ()) -> tuple[dict[str, PromptSource], list[ResolvedSuite]]:
        """Read all that `paths` name (by default the project); raises BadFile with every fault of every file."""
        paths = list(paths)
        faults: list[Fault] = []
        sources: dict[str, PromptSource] = {}
        suites: list[ResolvedSuite] = []
        for file in self.prompt_files(paths):
            faults += self._try(lambda file=file: sources.update(self.load_prompts([file])))
        siblings = sources if not paths else {**self._siblings(), **sources}
        if not faults:
            faults += self._try(lambda: resolve_all({**siblings}, nothing_registered))
        for file in self.suite_files(paths):
            faults += self._try(lambda file=file: suites.append(self._checked_suite(file, siblings)))
        if faults:
            raise BadFile(faults)
        return sources, suites

    def _siblings(self) -> dict[str, PromptSource]:
        try:
            return self.prompts
        except BadFile:
            return {}  # faults of files that were not asked about

    def _checked_suite(self, file: Path, sources: Mapping[str, PromptSource]) -> ResolvedSuite:
        found = self.load_suite(file)
        source = sources.get(found.suite.prompt)
        if source is not None:
            self._check_variables(found, source)
            spec = self.settings.models.get(source.model)
            if spec is not None:
                found.check_prices(spec.price is not None)
        return found

    def _check_variables(self, found: ResolvedSuite, source: PromptSource) -> None:
        """Every case gives the variables that its prompt needs, and no others."""
        needed = {name for name, schema in source.variables.items() if "default" not in schema}
        if source.includes:
            return  # what an include declares is known once it is resolved
        faults = []
        for case, place in zip(found.suite.tests, found.places, strict=True):
            missing, extra = needed - case.vars.keys(), case.vars.keys() - source.variables.keys()
            for names, what in ((missing, "missing"), (extra, "unexpected")):
                if names:
                    listed = ", ".join(sorted(names))
                    fix = f"{found.suite.prompt} declares {', '.join(sorted(source.variables)) or 'none'}"
                    faults.append(Fault(place.path, place.line, f"{what} variable {listed}", fix))
        if faults:
            raise BadFile(faults)

    @staticmethod
    def _try(work: Any) -> list[Fault]:
        try:
            work()
        except BadFile as error:
            return list(error.faults)
        except BadInput as error:
            return [Fault("project", 0, str(error))]
        return []

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
            path = f"./prompts/{name.replace('.', '/')}{suffix}"
            done = git(self.root, "show", f"{ref}:{path}", check=False)
            if done is not None:
                return done
        return None

    def with_includes(self, name: str) -> dict[str, dict[str, Any]]:
        """A prompt of the working tree and all that it includes, as data. Raises BadInput where it is not there."""
        if name not in self.prompts:
            raise BadInput(f"prompts/{name.replace('.', '/')}.prompt.yml is not there, and the suite tests {name!r}")
        found: dict[str, dict[str, Any]] = {}
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current in self.prompts and current not in found:
                found[current] = self.prompts[current].document.data
                waiting += self.prompts[current].includes
        return found


def read_text(file: Path, shown: str) -> str:
    """The text of an author's file; raises BadFile where it cannot be one."""
    try:
        if file.stat().st_size > MAX_PROMPT_FILE_BYTES:
            raise BadFile([Fault(shown, 0, f"larger than {MAX_PROMPT_FILE_BYTES:,} bytes", "split it")])
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadFile([Fault(shown, 0, f"not UTF-8: byte {error.start}", "save it as UTF-8")]) from error
    except OSError as error:
        raise BadFile([Fault(shown, 0, f"cannot be read: {error.strerror}", "name a file that is there")]) from error


def git(root: Path, *arguments: str, check: bool = True) -> str | None:
    """Output of a git command in `root`; None (or BadInput with `check`) where it fails or git is not there."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed program, arguments are not read by a shell
            ["git", *arguments],  # noqa: S607 - the user's own git
            cwd=root, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        done = None
    if done is not None and done.returncode == 0:
        return done.stdout
    if check:
        cause = done.stderr.strip() if done else "git is not installed"
        raise BadInput(f"git {' '.join(arguments)}: {cause}")
    return None


def git_origin(root: Path) -> dict[str, Any]:
    """The commit and branch of a working tree, and whether it is the default branch (true without git)."""
    sha = git(root, "rev-parse", "HEAD", check=False)
    branch = git(root, "rev-parse", "--abbrev-ref", "HEAD", check=False)
    if sha is None or branch is None:
        return {}
    default = git(root, "symbolic-ref", "--short", "refs/remotes/origin/HEAD", check=False)
    is_default = (
        branch.strip() == default.strip().removeprefix("origin/") if default else branch.strip() in ("main", "master")
    )
    return {"git_sha": sha.strip(), "git_branch": branch.strip(), "moves_labels": is_default}


def _find(folder: Path, paths: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """Files below the folders among `paths` that end in one of `suffixes`, and the files among them that do."""
    paths = list(paths)
    found: list[Path] = []
    for path in paths or [folder]:
        if path.is_dir():
            found += [file for file in path.rglob("*") if file.name.endswith(suffixes) and file.is_file()]
        elif path.exists() or paths:
            is_prompt = path.name.endswith(SUFFIXES)
            if is_prompt == (suffixes is SUFFIXES):
                found.append(path)
    return sorted(set(found))
