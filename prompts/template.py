"""Templates of prompts: sandboxed Jinja2 with undefined names refused and a budget of steps and output.

A variable's value is data: it is put into the text after the template was compiled, so nothing in it is ever read as
template code. What a template may reach is a list of what is allowed, never of what is forbidden: items of mappings
and sequences, a few methods of text, `loop`, and Jinja2's filters that neither format, widen nor reach attributes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from prompts.errors import BudgetExceeded, MissingVariable, TemplateRefused

MAX_STEPS = 100_000
MAX_OUTPUT_CHARACTERS = 2 * 1024 * 1024
MAX_INTEGER_BITS = 256

_TEXT_METHODS = frozenset(
    [
        "lower",
        "upper",
        "strip",
        "lstrip",
        "rstrip",
        "title",
        "capitalize",
        "startswith",
        "endswith",
        "split",
        "splitlines",
        "count",
        "find",
        "removeprefix",
        "removesuffix",
    ]
)
_MAPPING_METHODS = frozenset({"items", "keys", "values", "get"})
_REFUSED_FILTERS = frozenset(
    [
        "attr",
        "center",
        "format",
        "forceescape",
        "escape",
        "e",
        "indent",
        "pprint",
        "random",
        "safe",
        "urlize",
        "wordwrap",
        "xmlattr",
        "filesizeformat",
        "striptags",
    ]
)
_REFUSED_NODES = {
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "block",
    nodes.Include: "include",
    nodes.CallBlock: "call",
}
_steps_left: ContextVar[list[int]] = ContextVar("steps_left")


class Template:
    """One compiled template; `render` gives its text for given variables.

    Raises TemplateRefused on construction where the source is not a template or asks for what is never allowed.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            tree = _environment.parse(source)
            refused = next((f"{{% {word} %}}" for kind, word in _REFUSED_NODES.items() if tree.find(kind)), None)
            if refused:
                raise TemplateRefused(f"line {_line_of(tree, refused)}: {refused} is not allowed in a template")
            self.names = frozenset(meta.find_undeclared_variables(tree)) - _environment.globals.keys()
            _refuse_private(tree)
            _count_steps(tree)
            self._compiled = _environment.from_string(tree)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateRefused(f"line {error.lineno}: {error.message}") from error
        except (RecursionError, MemoryError, SyntaxError) as error:
            raise TemplateRefused(f"the template nests too deeply: {type(error).__name__}") from error

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text for `variables`; raises MissingVariable, TemplateRefused or BudgetExceeded."""
        token = _steps_left.set([MAX_STEPS])
        try:
            return "".join(_within_output(self._compiled.generate(**variables)))
        except jinja2.UndefinedError as error:
            raise MissingVariable(f"the template uses a name that has no value: {error.message}") from error
        except SecurityError as error:
            raise TemplateRefused(str(error)) from error
        except (RecursionError, MemoryError) as error:
            raise BudgetExceeded(f"the template nests too deeply: {type(error).__name__}") from error
        except BudgetExceeded:
            raise
        except Exception as error:  # a template's own arithmetic or filters may fail with anything
            raise TemplateRefused(f"the template failed: {type(error).__name__}: {error}") from error
        finally:
            _steps_left.reset(token)


def includes(source: str) -> tuple[str, ...]:
    """Names that `source` includes, in order; raises TemplateRefused where one is not a plain quoted name."""
    found: list[str] = []

    def note(name: str) -> str:
        found.append(name)
        return ""

    replace_includes(source, note)
    return tuple(found)


def replace_includes(source: str, text_of: Callable[[str], str]) -> str:
    """`source` with every `{% include 'name' %}` replaced by `text_of(name)`, everything else as it was."""
    pieces: list[str] = []
    try:
        tokens = list(_environment.lex(source))
    except jinja2.TemplateSyntaxError as error:
        raise TemplateRefused(f"line {error.lineno}: {error.message}") from error
    position = 0
    while position < len(tokens):
        line, kind, value = tokens[position]
        block = _block_at(tokens, position) if kind == "block_begin" else []
        words = [token for token in block[1:-1] if token[1] != "whitespace"]
        if not words or words[0][1:] != ("name", "include"):
            pieces.append(value)
            position += 1
            continue
        if len(words) != 2 or words[1][1] != "string":
            raise TemplateRefused(f"line {line}: write {{% include 'name' %}} with one quoted name")
        pieces.append(text_of(words[1][2][1:-1]))
        position += len(block)
    return "".join(pieces)


def _block_at(tokens: list[tuple[int, str, str]], start: int) -> list[tuple[int, str, str]]:
    for end in range(start, len(tokens)):
        if tokens[end][1] == "block_end":
            return tokens[start : end + 1]
    return tokens[start:]


def _within_output(pieces: Iterable[str]) -> Iterator[str]:
    left = MAX_OUTPUT_CHARACTERS
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise BudgetExceeded(f"the template gives more than {MAX_OUTPUT_CHARACTERS:,} characters")
        yield piece


def _take_steps(number: int = 1) -> None:
    left = _steps_left.get()
    left[0] -= number
    if left[0] < 0:
        raise BudgetExceeded(f"the template takes more than {MAX_STEPS:,} steps")


def _counted(iterable: Iterable[Any]) -> Iterator[Any]:
    for item in iterable:
        _take_steps()
        yield item


def _counted_call(nothing: str) -> str:
    _take_steps()
    return nothing


def _concatenated(parts: Iterable[Any]) -> str:
    return str(_bounded("".join(str(_weighed(part)) for part in parts)))


def _weighed(value: Any) -> Any:
    """`value`, after a step for every item within it: what holds itself many times over is never walked for free."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _take_steps()
            _weighed(key)
            _weighed(item)
    elif isinstance(value, list | tuple | set | range):
        for item in value:
            _take_steps()
            _weighed(item)
    return value


def _count_steps(tree: nodes.Template) -> None:
    """Make every loop step, macro call, concatenation and literal collection pass through the budget."""
    _weigh_literals(tree)
    for loop in tree.find_all(nodes.For):
        loop.iter = _through("counted__", loop.iter)
    for macro in tree.find_all(nodes.Macro):
        macro.body.insert(0, nodes.Output([_through("counted_call__", nodes.Const(""))]))
    for concat in list(tree.find_all(nodes.Concat)):
        concat.nodes = [_through("concatenated__", nodes.List(list(concat.nodes)))]


def _weigh_literals(node: nodes.Node) -> None:
    for name, value in list(node.iter_fields()):
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if not isinstance(child, nodes.Node):
                continue
            _weigh_literals(child)
            stored = isinstance(child, nodes.Tuple) and child.ctx != "load"
            if isinstance(child, nodes.List | nodes.Tuple | nodes.Dict) and not stored:
                wrapped = _through("weighed__", child)
                if isinstance(value, list):
                    value[index] = wrapped
                else:
                    setattr(node, name, wrapped)


def _through(filter_name: str, node: nodes.Node) -> nodes.Filter:
    return nodes.Filter(node, filter_name, [], [], None, None, lineno=node.lineno or 1)


def _refuse_private(tree: nodes.Template) -> None:
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Name)):
        name = node.attr if isinstance(node, nodes.Getattr) else getattr(node, "name", None)
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            name = node.arg.value
        if isinstance(name, str) and name.startswith("_"):
            raise TemplateRefused(f"line {node.lineno}: {name!r} is not open to templates")
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise TemplateRefused(f"line {loop.lineno}: recursive loops are not allowed in a template")


def _line_of(tree: nodes.Template, refused: str) -> int:
    found = next(node for kind, word in _REFUSED_NODES.items() if word in refused and (node := tree.find(kind)))
    return int(found.lineno)


def _bounded(value: Any) -> Any:
    if isinstance(value, str | list | tuple) and len(value) > MAX_OUTPUT_CHARACTERS:
        raise BudgetExceeded(f"the template builds more than {MAX_OUTPUT_CHARACTERS:,} characters or items")
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise BudgetExceeded("the template computes a number that is too large")
    return value


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            raise SecurityError("formatting with % is not open to templates")
        if operator == "*":
            _refuse_large_product(left, right)
        if operator == "+":
            _weighed(left)
            _weighed(right)
        if operator == "**" and not (abs(left) <= 10_000 and abs(right) <= 16):
            raise BudgetExceeded("the template computes a number that is too large")
        return _bounded(super().call_binop(context, operator, left, right))

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        if isinstance(obj, jinja2.Undefined) or self._is_open(obj, attribute):
            return super().getattr(obj, attribute)
        return self._refuse(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            return obj[argument]
        except (TypeError, LookupError, AttributeError):
            if isinstance(argument, str):
                return self.getattr(obj, argument)
            return self.undefined(obj=obj, name=argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return self._is_open(obj, attr) and super().is_safe_attribute(obj, attr, value)

    @staticmethod
    def _is_open(obj: Any, attribute: str) -> bool:
        if attribute.startswith("_"):
            return False
        if isinstance(obj, str):
            return attribute in _TEXT_METHODS
        if isinstance(obj, Mapping):
            return attribute in _MAPPING_METHODS
        return isinstance(obj, LoopContext | jinja2.utils.Namespace)

    def _refuse(self, obj: Any, attribute: str) -> NoReturn:
        if isinstance(obj, Mapping):
            raise jinja2.UndefinedError(f"no key {attribute!r}; it has {', '.join(map(repr, list(obj)[:10]))}")
        raise SecurityError(f"attribute {attribute!r} of {type(obj).__name__} is not open to templates")


def _refuse_large_product(left: Any, right: Any) -> None:
    for text, times in ((left, right), (right, left)):
        if isinstance(text, list | tuple):
            raise SecurityError("multiplying a list is not open to templates")
        if isinstance(text, str) and isinstance(times, int) and len(text) * times > MAX_OUTPUT_CHARACTERS:
            raise BudgetExceeded(f"the template builds more than {MAX_OUTPUT_CHARACTERS:,} characters")


def _make_environment() -> _Environment:
    # no autoescape: the text goes to a model, never to a browser
    environment = _Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.finalize = _weighed
    environment.globals = {"range": environment.globals["range"], "namespace": environment.globals["namespace"]}
    allowed = {name: function for name, function in environment.filters.items() if name not in _REFUSED_FILTERS}
    environment.filters = {name: _within_budget(function) for name, function in allowed.items()}
    environment.filters |= {"counted__": _counted, "counted_call__": _counted_call}
    environment.filters |= {"concatenated__": _concatenated, "weighed__": _weighed}
    environment.filters["replace"] = _replace
    environment.filters["join"] = _join
    return environment


def _within_budget(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter `function`, paying a step for every item it is given and held to the size of what it builds."""

    @functools.wraps(function)
    def budgeted(*args: Any, **kwargs: Any) -> Any:
        paid = [_counted(arg) if isinstance(arg, Iterator) else _weighed(arg) for arg in args]
        return _bounded(function(*paid, **kwargs))

    return budgeted


def _replace(text: Any, old: str, new: str) -> str:
    source = str(_weighed(text))
    if len(source) + source.count(old) * len(new) > MAX_OUTPUT_CHARACTERS:
        raise BudgetExceeded(f"the template builds more than {MAX_OUTPUT_CHARACTERS:,} characters")
    return source.replace(old, new)


def _join(items: Iterable[Any], separator: str = "") -> str:
    pieces: list[str] = []
    left = MAX_OUTPUT_CHARACTERS
    for item in _counted(items):
        pieces.append(str(_weighed(item)))
        left -= len(pieces[-1]) + len(separator)
        if left < 0:
            raise BudgetExceeded(f"the template builds more than {MAX_OUTPUT_CHARACTERS:,} characters")
    return separator.join(pieces)


_environment = _make_environment()
