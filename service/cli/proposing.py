"""`turnout advise --write`: the prompt with what an advice recommends, as a file that holds what was measured.

A file that is there stays as its author wrote it but for what is added. Whatever is written was read back first: it
passes `turnout check`, and renders to the messages that were measured; else nothing is written.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompts.errors import BadFile, BadInput, Fault
from prompts.formats.prompt_yml import SUFFIXES, load_prompt
from prompts.formats.writing import prompt_text
from prompts.prompt import PromptContent
from prompts.registry import nothing_registered, resolve
from prompts.secrets import secret_faults
from service.advising.editing import NotEditable, edited
from service.advising.patching import prompt_keys
from service.cli.examining import Tree
from service.cli.output import err
from service.cli.project import Project, read_text
from service.cli.rewriting import rewrite
from service.settings import load_settings, project_of, too_large

if TYPE_CHECKING:
    from service.cli.client import Client
    from suites.advice.report import Advice

_LOST = ("name", "description", "notes", "tags", "labels", "testData", "evaluators")  # of a file that is written anew
# what the registry tells of a version, by the keys of its file
_TOLD = {"title": "name", "description": "description", "notes": "notes", "tags": "tags"}


@dataclass(frozen=True)
class _Proposed:
    """What an advice recommends: examples and parameters, of `prompt`, whose content was measured without them."""

    prompt: str
    measured: PromptContent
    about: Mapping[str, Any]
    examples: Sequence[Mapping[str, Any]]
    changes: Mapping[str, Any]

    @property
    def wanted(self) -> PromptContent:
        """The content that was measured with them."""
        data = self.measured.model_dump(mode="json")
        data["examples"] = [*data.get("examples", ()), *self.examples]
        return PromptContent.model_validate({**data, "parameters": {**data["parameters"], **self.changes}})

    @property
    def told(self) -> str:
        count = len(self.examples)
        examples = [f"{count} example{'s' * (count > 1)}"] if count else []
        return ", ".join([*examples, *(f"{name} {value}" for name, value in self.changes.items())])


def write_prompt(service: Client, advice: Advice, path: Path) -> None:
    """Write the prompt with the recommended examples and parameters. Raises BadInput where nothing was written."""
    proposed = _proposed(service, advice)
    project, there = Project(load_settings(start=project_of([path]))), path.exists()
    text = _in_place(project, path, proposed) if there else _anew(proposed)
    if text is None:
        err().print(f"{path} has it already: {proposed.told}", markup=False)
        return
    before = project.examine([path]).errors if there else ()
    _require_good(_Drafted(project.settings, file=path, text=_as_read(text)), proposed, before)
    rewrite(path, text)
    beside = "; all else in it stays as it was" if there else ""
    err().print(f"wrote {path}: the prompt with {proposed.told}{beside}", markup=False)


def check_target(path: Path) -> None:
    """Raise BadInput for what can be no prompt's file: before an advice, which may take long."""
    if not path.name.endswith(SUFFIXES):
        raise BadInput(f"--write {path}: a prompt's file ends in {SUFFIXES[0]}", param="write")


def _proposed(service: Client, advice: Advice) -> _Proposed:
    """Examples and parameters of the variant that is recommended, and of no other: nobody measured them together.

    Raises BadInput where it changes nothing of the prompt.
    """
    chosen = advice.recommendation
    one = next((each for each in advice.variants if each.key == chosen.variant), None)
    examples = [each.model_dump() for each in advice.shots] if one is not None and one.shots else []
    changes = one.changes if one is not None else {}
    if not examples and not changes:
        said = f"{advice.advice_id} recommends: {chosen.title}"
        raise BadInput(
            f"--write: {said}. That changes nothing of the prompt's file, so nothing was written", param="write"
        )
    name, _, number = advice.prompt.partition("@")
    stored = service.call("GET", f"/api/prompts/{name}/versions/{number}")
    content = PromptContent.model_validate({key: stored[key] for key in PromptContent.model_fields if key in stored})
    about = {key: stored[field] for field, key in _TOLD.items() if stored.get(field)}
    return _Proposed(advice.prompt, content, about, examples, changes)


def _anew(proposed: _Proposed) -> str:
    """A file of its own, its includes resolved. Labels stay where they are: what is new has passed no gate."""
    return prompt_text({**proposed.about, **prompt_keys(proposed.wanted)})


def _in_place(project: Project, path: Path, proposed: _Proposed) -> str | None:
    """The author's file with the examples and parameters added; None where it has them.

    Raises BadInput where it holds another prompt than the one that was measured, or cannot be added to.
    """
    try:
        content = _content(project, path, read_text(path, str(path)))
    except BadFile as error:
        raise _refused(path, f"it is there, and is no prompt that can be read: {error}") from error
    if content == proposed.wanted:
        return None
    if content != proposed.measured:
        keys = _different(content, proposed.measured)
        again = "ask for an advice on the file as it is now"
        raise _refused(path, f"it is there, and is not {proposed.prompt}, which was measured: {keys} differ; {again}")
    text = path.read_bytes().decode()  # with its own ends of lines
    try:
        return edited(text, proposed.changes, proposed.examples)
    except NotEditable as error:
        lost = f"written anew it would lose {_lost(text, str(path))}"
        raise _refused(path, f"{proposed.told} cannot be added to it: {error}; {lost}") from error


def _refused(path: Path, why: str) -> BadInput:
    otherwise = "; or name a file that is not there" if path.exists() else ""
    return BadInput(f"--write {path}: {why}{otherwise}. Nothing was written", param="write")


def _lost(text: str, shown: str) -> str:
    """What of an author's file no version keeps, and no other writer writes."""
    keys = [key for key in _LOST if key in load_prompt(_as_read(text), shown, "lost").document.data]
    return ", ".join([*keys, "its comments and its includes"])


@dataclass(frozen=True)
class _Drafted(Project):
    """The project with a text in one of its files that is not on disk."""

    file: Path = Path()
    text: str = ""

    def read_prompts(self, files: Iterable[Path]) -> Tree:
        files = list(files)
        if files != [self.file]:
            return super().read_prompts(files)
        shown, name, size = self.shown(self.file), self.prompt_name(self.file), len(self.text.encode())
        if size > (most := self.settings.registry.max_prompt_bytes):
            raise BadFile([too_large(shown, size, most)])
        return Tree(
            {name: load_prompt(self.text, shown, name)}, frozenset(), (), tuple(secret_faults(self.text, shown))
        )


def _require_good(draft: _Drafted, proposed: _Proposed, before: Sequence[Fault]) -> None:
    """Raise BadInput where the draft, read as any file of the project is, is not what was measured, or has faults.

    A fault that the author's file had `before` is no reason.
    """
    had = {(fault.rule, fault.message) for fault in before}
    try:
        faults = [fault for fault in draft.examine([draft.file]).errors if (fault.rule, fault.message) not in had]
        content = None if faults else _content(draft, draft.file, draft.text)
    except BadFile as error:
        faults, content = [*error.faults], None
    if content is None:
        listed = "; ".join(map(str, faults))
        raise _refused(draft.file, f"with {proposed.told} it would not pass `turnout check`: {listed}")
    if content != proposed.wanted:
        keys = _different(content, proposed.wanted)
        raise _refused(
            draft.file, f"with {proposed.told} it would not render to what was measured: {keys} would differ"
        )


def _content(project: Project, path: Path, text: str) -> PromptContent:
    """What a text is as a prompt of the project, its includes resolved. Raises BadFile."""
    source = load_prompt(text, str(path), project.prompt_name(path))
    return resolve(source, {**project.tree.sources, source.name: source}, nothing_registered)


def _as_read(text: str) -> str:
    """With the ends of lines that whoever opens the file as a text sees."""
    return io.StringIO(text, newline=None).read()


def _different(one: PromptContent, other: PromptContent) -> str:
    """The keys of a prompt's file by which two contents differ."""
    first, second = prompt_keys(one), prompt_keys(other)
    return ", ".join(key for key in {**first, **second} if first.get(key) != second.get(key))
