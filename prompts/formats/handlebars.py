"""Handlebars and Mustache templates as Jinja2 with the same meaning.

Names are resolved here, once: which context a path stands for is known from the blocks around it, so that the Jinja2 is
what an author would have written (`{% for order in orders %}{{ order.name }}{% endfor %}`). Values print as JavaScript
prints them where the schema says what they are (true, a list, nothing for null); a value that is missing without the
schema having it optional is refused at render time, where Handlebars would print nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prompts.errors import BadFile
from prompts.formats.handlebars_syntax import (
    Block,
    Call,
    Expression,
    Include,
    Literal,
    Node,
    Output,
    Path,
    Text,
    parse,
    with_lines_from,
)
from prompts.formats.imported import Notes, Partial, fit_variable
from prompts.formats.literal import joined, literal

_OPERATORS = {
    "eq": "==",
    "ne": "!=",
    "neq": "!=",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "and": "and",
    "or": "or",
}
_LOOP = {"index": "loop.index0", "first": "loop.first", "last": "loop.last", "key": "loop.index0"}
_MESSAGE_HELPERS = ("role", "history", "media", "section")
MAX_PARTIALS = 16

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Value:
    """A Jinja2 expression, and what is known of its value."""

    expression: str
    schema: Schema | None = None
    may_miss: bool = False

    @property
    def kinds(self) -> frozenset[str]:
        """JSON types that the schema allows, `null` among them where it does; empty where nothing is known."""
        if not self.schema:
            return frozenset()
        declared = self.schema.get("type", [])
        kinds = {declared} if isinstance(declared, str) else set(declared)
        if None in self.schema.get("enum", ()):
            kinds |= {"null", "string"}
        return frozenset(kinds)

    @property
    def kind(self) -> str:
        """The one type beside null, or nothing."""
        kinds = self.kinds - {"null"}
        return next(iter(kinds)) if len(kinds) == 1 else ""

    def printed(self) -> str:
        """The expression as JavaScript would print it."""
        text = {"boolean": f"{self.expression} | lower", "array": f"{self.expression} | join(',')",
                "object": f"{self.expression} | tojson"}.get(self.kind, self.expression)  # fmt: skip
        if self.may_miss or "null" in self.kinds:
            return f"'' if {self.expression} is none else {text}"
        return text


@dataclass(frozen=True, slots=True)
class _Frame:
    """One context: what `this` is (None at the top), names that stand for something in it, and its loop's variable."""

    this: Value | None
    names: Mapping[str, Value] = field(default_factory=dict)
    loop: str = ""
    keyed: bool = False


class Variables:
    """The variables that templates use: those that a schema declares, and what is learnt of the others.

    `schemas` maps a name as the template has it to a variable's JSON Schema.
    """

    def __init__(self, schemas: Mapping[str, Schema], notes: Notes) -> None:
        self._declared = dict(schemas)
        self._notes = notes
        self._uses: dict[str, set[str]] = {}

    def value(self, name: str, use: str) -> Value:
        """A variable as a value; `use` is text, condition, list, object or any."""
        self._uses.setdefault(name, set()).add(use)
        fitted = fit_variable(name)
        if fitted != name:
            self._notes.leave(f"variable {name}", name, f"it is called {fitted!r} here: the name means something else")
        return Value(fitted, self._declared.get(name))

    def drop(self, name: str) -> None:
        """A name that is no variable after all: its messages are a placeholder."""
        self._declared.pop(name, None)

    @property
    def declared(self) -> Mapping[str, Schema]:
        return self._declared

    def found(self, keep_unused: bool = False) -> dict[str, dict[str, Any]]:
        """Every variable with its schema, declared ones first; those that no template uses are noted and left out."""
        result: dict[str, dict[str, Any]] = {}
        for name, schema in self._declared.items():
            if name in self._uses or keep_unused:
                result[fit_variable(name)] = dict(schema)
            else:
                self._notes.leave(f"variable {name}", name, "the template never uses it")
        for name, uses in self._uses.items():
            result.setdefault(fit_variable(name), _learnt(uses))
        return result


def _learnt(uses: set[str]) -> dict[str, Any]:
    """A schema for a variable that no schema declares; what is asked about with `if` may be left out."""
    optional = "condition" in uses
    for use, kind, empty in (("list", "array", []), ("object", "object", {}), ("text", "string", "")):
        if use in uses:
            return {"type": kind, "default": empty} if optional else {"type": kind}
    return {"type": "boolean", "default": False} if optional else {}


class Converter:
    """Writes nodes as Jinja2, in one set of variables.

    `mustache` turns on Mustache's sections, whose meaning depends on the value.
    """

    def __init__(
        self, variables: Variables, notes: Notes, partials: Mapping[str, Partial], *, mustache: bool = False
    ) -> None:
        self.variables = variables
        self.includes = False
        self._notes = notes
        self._partials = partials
        self._mustache = mustache
        self._frames = [_Frame(None)]
        self._taken: set[str] = set()
        self._open_partials: list[str] = []

    def read(self, source: str, first_line: int) -> tuple[Node, ...]:
        """The nodes of a template that begins at `first_line` of its file; raises BadFile where it is none."""
        try:
            nodes = with_lines_from(parse(source), first_line)
        except BadFile as error:
            fault = error.faults[0]
            self._notes.refuse(first_line + fault.line - 1, fault.message, fault.fix)
        self._taken |= {fit_variable(path.parts[0]) for path in _paths(nodes) if path.parts}
        return nodes

    def template(self, nodes: Sequence[Node]) -> str:
        """One Jinja2 template for `nodes`."""
        return joined(self._written(node) for node in nodes)

    def _written(self, node: Node) -> str:
        if isinstance(node, Text):
            return literal(node.text)
        if isinstance(node, Block):
            return self._block(node)
        if isinstance(node, Include):
            return self._include(node)
        return self._output(node)

    # ------------------------------------------------------------------------ values

    def value(self, expression: Expression, use: str, line: int) -> Value:
        """The Jinja2 expression for a Handlebars one."""
        if isinstance(expression, Literal):
            return Value(_written_literal(expression.value))
        if isinstance(expression, Call):
            return self._called(expression, line)
        if expression.data:
            return self._data(expression, use, line)
        return self._path(expression, use, line)

    def _path(self, path: Path, use: str, line: int) -> Value:
        if path.up >= len(self._frames):
            self._notes.refuse(line, "../ leads out of the template", "remove one ../")
        frame = self._frames[-1 - path.up]
        if not path.parts:
            return frame.this if frame.this is not None else self._everything(line)
        head = path.parts[0]
        if not path.this and not path.up:
            named = next((f.names[head] for f in reversed(self._frames) if head in f.names), None)
            if named is not None:
                return self._within(named, path.parts[1:], use)
        if head in frame.names:
            return self._within(frame.names[head], path.parts[1:], use)
        if frame.this is None or self._is_outer(frame, head):
            first = self.variables.value(head, use if len(path.parts) == 1 else self._holder(path.parts[1]))
            return self._within(first, path.parts[1:], use)
        return self._within(frame.this, path.parts, use)

    def _is_outer(self, frame: _Frame, head: str) -> bool:
        """Mustache looks outwards for a name that the section's own value does not have."""
        if not self._mustache or frame.this is None:
            return False
        inner = (frame.this.schema or {}).get("properties", {})
        return head not in inner and head in self.variables.declared

    @staticmethod
    def _holder(part: str) -> str:
        return "list" if part.isdigit() else "any" if part == "length" else "object"

    def _everything(self, line: int) -> Value:
        names = list(self.variables.declared)
        if not names:
            self._notes.refuse(
                line, "`this` is all variables, and the file declares none", "declare them: `input: {schema: …}`"
            )
        items = ", ".join(f"{json.dumps(name)}: {self.variables.value(name, 'any').expression}" for name in names)
        return Value("{" + items + "}", {"type": "object"})

    def _within(self, value: Value, parts: Sequence[str], use: str) -> Value:
        for index, part in enumerate(parts):
            value = self._item(value, part, tolerant=use == "condition", last=index == len(parts) - 1)
        return value

    @staticmethod
    def _item(value: Value, part: str, *, tolerant: bool, last: bool) -> Value:
        schema = value.schema or {}
        if part == "length" and value.kind in ("", "array", "string") and "length" not in schema.get("properties", {}):
            return Value(f"({value.expression} | length)", {"type": "integer"})
        if part.isdigit():
            return Value(f"{value.expression}[{part}]", schema.get("items"))
        inner = schema.get("properties", {}).get(part)
        known = "properties" in schema
        optional = known and part not in schema.get("required", ())
        if optional or (tolerant and not known):
            fallback = "" if last else ", {}"
            return Value(f"{value.expression}.get({_written_literal(part)}{fallback})", inner, may_miss=last)
        access = f".{part}" if part.isidentifier() else f"[{_written_literal(part)}]"
        return Value(f"{value.expression}{access}", inner)

    def _data(self, path: Path, use: str, line: int) -> Value:
        name = path.parts[0]
        if name == "root" and not path.parts[1:]:
            return self._everything(line)
        if name == "root":
            first = self.variables.value(path.parts[1], "object" if path.parts[2:] else use)
            return self._within(first, path.parts[2:], use)
        loops = [frame for frame in self._frames if frame.loop]
        if name in _LOOP and path.up < len(loops):
            frame = loops[-1 - path.up]
            if name == "key" and frame.keyed:
                return Value(f"{frame.loop}_key")
            expression = f"{frame.loop}_{name}" if path.up else _LOOP[name]
            return Value(expression, {"type": "boolean"} if name in ("first", "last") else {"type": "integer"})
        if name in _LOOP:
            self._notes.refuse(line, f"@{name} stands outside of {{{{#each}}}}", "use it inside the loop")
        self._notes.leave(line, f"@{name}", f"context data is a variable here: give it as the variable {name!r}")
        return self._within(self.variables.value(name, "object" if path.parts[1:] else use), path.parts[1:], use)

    def _called(self, call: Call, line: int) -> Value:
        if call.name == "lookup" and len(call.args) == 2:
            holder, key = (self.value(argument, "any", line) for argument in call.args)
            return Value(f"{holder.expression}[{key.expression}]")
        if call.name == "json" and call.args:
            return self._as_json(call, line)
        if call.name in ("not", "eq", *_OPERATORS):
            self._notes.leave(line, call.name, "a helper defined in code: read as what its name says")
            values = [self.value(argument, "any", line).expression for argument in call.args]
            text = f"not {values[0]}" if call.name == "not" else f" {_OPERATORS[call.name]} ".join(values)
            return Value(f"({text})", {"type": "boolean"})
        self._notes.leave(line, f"helper {call.name}", "defined in code: its arguments are printed as they are")
        values = [self.value(argument, "any", line).printed() for argument in call.args]
        return Value(values[0] if len(values) == 1 else " ~ ' ' ~ ".join(f"({value})" for value in values) or "''")

    def _as_json(self, call: Call, line: int) -> Value:
        self._notes.leave(line, "json", "keys are sorted here, with a blank after each colon and comma")
        value = self.value(call.args[0], "any", line).expression
        indent = next((item.value for name, item in call.named if name == "indent" and isinstance(item, Literal)), 0)
        return Value(f"{value} | tojson(indent={indent})" if indent else f"{value} | tojson", {"type": "string"})

    # ------------------------------------------------------------------------ tags

    def _output(self, node: Output) -> str:
        name = node.value.name if isinstance(node.value, Call) else ""
        bare = isinstance(node.value, Path) and node.value.parts in (("history",), ("section",)) and not node.value.this
        if name in _MESSAGE_HELPERS or (bare and not self._mustache):
            return self._message_helper(name or node.value.parts[0], node.line)  # type: ignore[union-attr]  # a Path
        if name == "log":
            self._notes.leave(node.line, "log", "templates write no log here")
            return ""
        value = self.value(node.value, "text", node.line)
        if value.kind == "object" and not isinstance(node.value, Call):
            self._notes.leave(node.line, value.expression, "an object prints as JSON here, not as [object Object]")
        return "{{ " + value.printed() + " }}"

    def _message_helper(self, name: str, line: int) -> str:
        """A helper that makes messages or parts, where no message or part can begin: inside a block."""
        if name in ("role", "history"):
            fix = (
                "a message is there for every request: move it out of the block, or give the messages as a placeholder"
            )
            self._notes.refuse(line, f"{{{{{name}}}}} inside a block", fix)
        why = (
            "a part is there for every request: move it out of the block"
            if name == "media"
            else "sections are not kept"
        )
        self._notes.leave(line, name, why)
        return ""

    def _include(self, node: Include) -> str:
        name, plain = node.call.name, _takes_nothing(node.call) and len(self._frames) == 1
        partial = self._partials.get(name)
        if plain and (partial is None or not has_messages(partial.source)):
            self.includes = True
            if partial is None:
                self._notes.leave(
                    node.line, f"partial {name}", "it is not among the files: import or write that prompt"
                )
            return "{% include '" + (partial.prompt if partial else name) + "' %}"
        if partial is None:
            fix = f"name the folder that holds _{name}.prompt"
            self._notes.refuse(node.line, f"the partial {name!r} takes arguments and is not among the files", fix)
        return self._inlined(node, partial)

    def inlined_nodes(self, node: Include) -> tuple[Node, ...] | None:
        """The nodes of a partial that holds messages of its own; None for any other."""
        partial = self._partials.get(node.call.name)
        if partial is None or not _takes_nothing(node.call) or not has_messages(partial.source):
            return None
        self._enter(node)
        found: list[Node] = []
        for inner in self.read(partial.source, node.line):
            nested = self.inlined_nodes(inner) if isinstance(inner, Include) else None
            found += [inner] if nested is None else nested
        self._open_partials.pop()
        return tuple(found)

    def _enter(self, node: Include) -> None:
        if len(self._open_partials) >= MAX_PARTIALS or node.call.name in self._open_partials:
            way = " → ".join([*self._open_partials, node.call.name])
            self._notes.refuse(
                node.line, f"partials go in a circle, or nest too deeply: {way[:120]}", "break the circle"
            )
        self._open_partials.append(node.call.name)

    def _inlined(self, node: Include, partial: Partial) -> str:
        self._enter(node)
        this = self.value(node.call.args[0], "object", node.line) if node.call.args else self._frames[-1].this
        names = {name: self.value(value, "text", node.line) for name, value in node.call.named}
        self._frames.append(_Frame(this, names))
        text = self.template(self.read(partial.source, node.line))
        self._frames.pop()
        self._open_partials.pop()
        return text

    # ------------------------------------------------------------------------ blocks

    def _block(self, block: Block) -> str:
        name, count = block.call.name, len(block.call.args)
        if name in ("if", "unless") and count == 1:
            value = self.value(block.call.args[0], "condition", block.line).expression
            return self._choice(f"not {value}" if name == "unless" else value, block)
        if name in ("ifEquals", "unlessEquals") and count == 2:
            left, right = (self.value(arg, "any", block.line).expression for arg in block.call.args)
            return self._choice(f"{left} {'==' if name == 'ifEquals' else '!='} {right}", block)
        if name == "each" and count == 1:
            return self._each(block, block.call.args[0])
        if name == "with" and count == 1:
            return self._with(block, self.value(block.call.args[0], "object", block.line))
        if name == "role":
            return self._message_helper("role", block.line)
        if not count and not block.call.named:
            return self._section(block)
        self._notes.leave(block.line, f"helper {name}", "defined in code: what it encloses is always there")
        return self.template(block.body)

    def _choice(self, condition: str, block: Block) -> str:
        pieces = ["{% if " + condition + " %}", self.template(block.body)]
        otherwise = block.otherwise
        chained = otherwise[0] if len(otherwise) == 1 and isinstance(otherwise[0], Block) else None
        if chained and chained.call.name == "if" and len(chained.call.args) == 1:
            value = self.value(chained.call.args[0], "condition", chained.line).expression
            inner = self._choice(value, chained)
            return joined([*pieces, "{% el" + inner.removeprefix("{% ")])
        if otherwise:
            pieces += ["{% else %}", self.template(otherwise)]
        return joined([*pieces, "{% endif %}"])

    def _each(self, block: Block, over: Expression) -> str:
        keyed = self._is_keyed(block, over)
        value = self.value(over, "object" if keyed else "list", block.line)
        if value.may_miss or "null" in value.kinds:
            value = Value(f"({value.expression} or {'{}' if keyed else '[]'})", value.schema)
        loop = self._loop_name(over)
        schema = value.schema or {}
        inner = schema.get("additionalProperties") if keyed else schema.get("items")
        this = Value(loop, inner if isinstance(inner, Mapping) else None)
        names = dict(zip(block.names, (this, Value(f"{loop}_key" if keyed else "loop.index0")), strict=False))
        self._frames.append(_Frame(this, names, loop, keyed))
        body = joined([*self._kept_for_inner_loops(block, loop), self.template(block.body)])
        self._frames.pop()
        head = f"{loop}_key, {loop} in {value.expression}.items()" if keyed else f"{loop} in {value.expression}"
        otherwise = ["{% else %}", self.template(block.otherwise)] if block.otherwise else []
        return joined(["{% for " + head + " %}", body, *otherwise, "{% endfor %}"])

    def _is_keyed(self, block: Block, over: Expression) -> bool:
        """Whether a loop goes over an object: its schema says so, or its body asks for keys."""
        known = isinstance(over, Path) and not over.data and self._peeked(over)
        if known in ("object", "array"):
            return known == "object"
        return any(path.data and path.parts[0] == "key" for path in _paths(block.body))

    def _peeked(self, path: Path) -> str:
        """The kind of a path's value, without noting that it is used."""
        frame = self._frames[-1 - path.up] if path.up < len(self._frames) else self._frames[0]
        schema = frame.this.schema if frame.this else {"properties": self.variables.declared}
        for part in path.parts:
            schema = ((schema or {}).get("properties") or {}).get(part)
        return Value("", schema).kind

    def _loop_name(self, over: Expression) -> str:
        last = over.parts[-1] if isinstance(over, Path) and over.parts else "item"
        wanted = fit_variable(last[:-1] if last.endswith("s") and len(last) > 2 else "item")
        open_loops = {frame.loop for frame in self._frames}
        name, number = wanted, 2
        while name in self._taken or name in open_loops:
            name, number = f"{wanted}{number}", number + 1
        return name

    @staticmethod
    def _kept_for_inner_loops(block: Block, loop: str) -> Iterator[str]:
        """`loop` is the innermost one only: what inner loops ask of this one is kept under a name."""
        asked = {path.parts[0] for path in _paths(block.body) if path.data and path.up and path.parts[0] in _LOOP}
        for name in sorted(asked):
            yield "{% set " + f"{loop}_{name} = {_LOOP[name]}" + " %}"

    def _with(self, block: Block, value: Value) -> str:
        names = {block.names[0]: value} if block.names else {}
        self._frames.append(_Frame(value, names))
        body = self.template(block.body)
        self._frames.pop()
        otherwise = ["{% else %}", self.template(block.otherwise)] if block.otherwise else []
        return joined(["{% if " + value.expression + " %}", body, *otherwise, "{% endif %}"])

    def _section(self, block: Block) -> str:
        """`{{#name}}` and `{{^name}}`: a loop, a context or a condition, by what the value is."""
        path = _as_path(block.call.name)
        if block.inverted:
            return self._choice(f"not {self.value(path, 'condition', block.line).expression}", block)
        kind = self._peeked(path)
        if kind == "array" or (not kind and _asks_for_items(block.body, self.variables.declared)):
            if not kind:
                self._notes.leave(block.line, block.call.name, "read as a list: the file does not say what it is")
            return self._each(block, path)
        if kind == "object":
            return self._with(block, self.value(path, "object", block.line))
        return self._choice(self.value(path, "condition", block.line).expression, block)


def _takes_nothing(call: Call) -> bool:
    """Whether a partial sees what its includer sees: no arguments, or each variable under its own name."""
    return not call.args and all(value == Path((name,)) for name, value in call.named)


def has_messages(source: str) -> bool:
    """Whether a template begins messages of its own."""
    try:
        nodes = parse(source)
    except BadFile:
        return False
    return any(isinstance(n, Output) and message_helper(n) for n in nodes) or any(
        isinstance(n, Block) and n.call.name == "role" for n in nodes
    )


def message_helper(node: Output) -> str:
    """The name of the helper that makes messages or parts here, or nothing."""
    if isinstance(node.value, Call):
        return node.value.name if node.value.name in _MESSAGE_HELPERS else ""
    is_history = isinstance(node.value, Path) and node.value == Path(("history",))
    return "history" if is_history else ""


def _asks_for_items(nodes: Sequence[Node], declared: Mapping[str, Schema]) -> bool:
    return any(not path.data and (not path.parts or path.parts[0] not in declared) for path in _paths(nodes))


def _as_path(name: str) -> Path:
    return Path(tuple(part for part in name.split(".") if part), this=name == ".")


def _paths(nodes: Sequence[Node]) -> Iterator[Path]:
    """Every path of `nodes`, those within blocks and arguments among them."""
    for node in nodes:
        if isinstance(node, Output):
            yield from _paths_of(node.value)
        elif isinstance(node, Block | Include):
            yield from _paths_of(node.call)
        if isinstance(node, Block):
            yield from _paths(node.body)
            yield from _paths(node.otherwise)


def _paths_of(expression: Expression) -> Iterator[Path]:
    if isinstance(expression, Path):
        yield expression
    elif isinstance(expression, Call):
        for argument in (*expression.args, *(value for _, value in expression.named)):
            yield from _paths_of(argument)


def _written_literal(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
    return repr(value)
