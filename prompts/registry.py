"""From sources to contents: includes are resolved and pinned here, so that what is tested is what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prompts.errors import BadFile, Fault, IncludeError, TemplateRefused
from prompts.formats.prompt_yml import PromptSource
from prompts.prompt import MessageTemplate, PromptContent, compile_prompt
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
        content = PromptContent(
            messages=messages,
            variables=variables,
            model=source.model,
            parameters=source.parameters,
            response_format=source.response_format,
            output_schema=source.output_schema,
        )
        compile_prompt(content)
    except (IncludeError, TemplateRefused) as error:
        raise BadFile([_fault_at_include(source, error)]) from error
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
_Resolved = tuple[tuple[MessageTemplate, ...], dict[str, dict[str, object]]]


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

    messages = []
    for role, template in source.messages:
        text = replace_includes(template, text_of)
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise IncludeError(f"the message has more than {MAX_PROMPT_CHARACTERS:,} characters with its includes")
        messages.append(MessageTemplate(role=role, content=text))
    return tuple(messages), variables


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
    if name in siblings:
        messages, variables = _resolve_messages(siblings[name], siblings, registered, (*path, name), known)
    else:
        content = registered(name)
        if content is None:
            raise IncludeError(f"include {name!r}: no such prompt")
        messages, variables = content.messages, content.variables
    if len(messages) != 1:
        raise IncludeError(f"include {name!r} has {len(messages)} messages; a prompt that is included has one")
    return messages[0].content, variables


def _fault_at_include(source: PromptSource, error: Exception) -> Fault:
    for index, (_, template) in enumerate(source.messages):
        if any(repr(name) in str(error) or f"→ {name}" in str(error) for name in includes(template)):
            return source.fault(str(error), "messages", index, "content", fix="mend the include")
    return source.fault(str(error), "messages", fix="mend the include")
