"""From sources to contents: includes are resolved and pinned here, so that what is tested is what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prompts.errors import BadFile, Fault, IncludeError, RenderError
from prompts.formats.prompt_yml import PromptSource
from prompts.prompt import Entry, MessageTemplate, PromptContent, compile_prompt
from prompts.template import includes, replace_includes

MAX_INCLUDE_DEPTH = 16
MAX_PROMPT_CHARACTERS = 4 * 1024 * 1024

ContentOf = Callable[[str], PromptContent | None]


def nothing_registered(_: str) -> PromptContent | None:
    """A registry without versions: includes come from the files at hand alone."""
    return None


def resolve(source: PromptSource, siblings: Mapping[str, PromptSource], registered: ContentOf) -> PromptContent:
    """The content of `source` with every include replaced by what it names now.

    An include is looked up among `siblings` (the files pushed together), then in the registry (`registered`).
    Raises BadFile where one is missing, circular, too deep, or not a single message.
    """
    try:
        messages, variables = _resolve_messages(source, siblings, registered, (source.name,), {})
        content = source.content.model_copy(update={"messages": messages, "variables": variables})
        compile_prompt(content, digest="")  # only to see that it can be
    except (IncludeError, RenderError) as error:
        raise BadFile([_fault_at(source, error)]) from error
    return content


def resolve_all(sources: Mapping[str, PromptSource], registered: ContentOf) -> dict[str, PromptContent]:
    """Contents of all `sources`; raises BadFile with the faults of all of them."""
    contents: dict[str, PromptContent] = {}
    faults: list[Fault] = []
    for name, source in sources.items():
        try:
            contents[name] = resolve(source, sources, registered)
        except BadFile as error:
            faults += error.faults
    if faults:
        raise BadFile(faults)
    return contents


_Included = tuple[str, dict[str, dict[str, object]]]
_Resolved = tuple[tuple[Entry, ...], dict[str, dict[str, object]]]


def _resolve_messages(
    source: PromptSource,
    siblings: Mapping[str, PromptSource],
    registered: ContentOf,
    path: tuple[str, ...],
    known: dict[str, _Included],
) -> _Resolved:
    """`known` holds what was included before: includes that each include the next one twice unfold once."""
    variables = dict(source.variables)

    def text_of(name: str) -> str:
        if name not in known:
            known[name] = _included(name, siblings, registered, path, known)
        text, included = known[name]
        for variable, schema in included.items():
            variables.setdefault(variable, schema)
        return text

    messages = tuple(
        _checked_size(entry.with_texts(lambda text: replace_includes(text, text_of)))
        if isinstance(entry, MessageTemplate)
        else entry
        for entry in source.messages
    )
    return messages, variables


def _checked_size(message: MessageTemplate) -> MessageTemplate:
    if sum(map(len, message.texts)) > MAX_PROMPT_CHARACTERS:
        raise IncludeError(f"the message has more than {MAX_PROMPT_CHARACTERS:,} characters with its includes")
    return message


def _included(
    name: str,
    siblings: Mapping[str, PromptSource],
    registered: ContentOf,
    path: tuple[str, ...],
    known: dict[str, _Included],
) -> _Included:
    if name in path:
        raise IncludeError(f"include {name!r} goes in a circle: {' → '.join((*path, name))}")
    if len(path) > MAX_INCLUDE_DEPTH:
        raise IncludeError(f"includes nest deeper than {MAX_INCLUDE_DEPTH}: {' → '.join(path[:4])} → …")
    content = siblings[name].content if name in siblings else registered(name)
    if content is None:
        raise IncludeError(f"include {name!r}: no such prompt")
    messages, variables = content.messages, content.variables
    if name in siblings:
        messages, variables = _resolve_messages(siblings[name], siblings, registered, (*path, name), known)
    if content.examples:
        raise IncludeError(
            f"include {name!r} has few-shot examples, which an include would lose: move them to the prompt"
        )
    if len(messages) != 1:
        raise IncludeError(f"include {name!r} has {len(messages)} messages; a prompt that is included has one")
    if not isinstance(messages[0], MessageTemplate) or not isinstance(messages[0].content, str):
        raise IncludeError(f"include {name!r} is no text: a prompt that is included has one message of plain text")
    return messages[0].content, variables


def _fault_at(source: PromptSource, error: Exception) -> Fault:
    """The fault at the message, or the example, that `error` is about."""
    param = str(getattr(error, "param", "") or "")
    if param.startswith("examples"):
        keys = [int(key) if key.isdigit() else key for key in param.split(".")]
        return source.fault(str(error), *keys, fix="mend the example")
    for index, entry in enumerate(source.messages):
        names = [n for text in entry.texts for n in includes(text)] if isinstance(entry, MessageTemplate) else []
        if any(repr(name) in str(error) or f"→ {name}" in str(error) for name in names):
            return source.fault(str(error), "messages", index, "content", fix="mend the include")
    return source.fault(str(error), "messages", fix="mend the include")
