"""Templates of prompts: sandboxed Jinja2 with undefined names refused and a budget of steps and output.

A variable's value is data: it is put into the text after the template was compiled, so nothing in it is ever read as
template code. What a template may reach is a list of what is allowed, never of what is forbidden: items of mappings
and sequences, a few methods of text, `loop`, and Jinja2's filters that neither format, widen nor reach attributes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from contextvars import ContextVar
from types import CodeType
from typing import Any, TypeVar

import jinja2
from jinja2 import filters, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from prompts.errors import BudgetExceeded, MissingVariable, RenderError, TemplateRefused
from prompts.plain import Parts, filled, plain_parts

MAX_STEPS = 100_000
MAX_OUTPUT_CHARACTERS = 2 * 1024 * 1024
MAX_INTEGER_BITS = 256
MAX_INCLUDED_CHARACTERS = 4 * 1024 * 1024
MAX_TOKENS = 20_000  # of one template: what is not in a token is plain text and costs nothing to compile
MAX_DIGITS = 100
MAX_INDENT = 16
CHARACTERS_A_STEP = 100
MAX_REMEMBERED = 4_096  # templates whose code is kept: more than a project's, so that a push compiles each once
MAX_REMEMBERED_CHARACTERS = 2_500  # of a template whose code is kept for the next one that reads the same
NODES_A_STEP = 5
BITS_A_STEP = 64

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
    nodes.EvalContextModifier: "autoescape",
    nodes.ScopedEvalContextModifier: "autoescape",
}
# filters that take a text apart into its letters, each of them a text
_WALKING_FILTERS = frozenset(
    [
        "batch",
        "groupby",
        "join",
        "list",
        "map",
        "max",
        "min",
        "reject",
        "rejectattr",
        "select",
        "selectattr",
        "slice",
        "sort",
        "sum",
        "unique",
    ]
)
# tests that look at the kind of a value and never walk it
_FREE_TESTS = frozenset(
    [
        "boolean",
        "callable",
        "defined",
        "false",
        "filter",
        "float",
        "integer",
        "iterable",
        "mapping",
        "none",
        "number",
        "sameas",
        "sequence",
        "string",
        "test",
        "true",
        "undefined",
    ]
)
_DATA = (float, complex, type(None), jinja2.utils.Namespace)
_OF_JINJA = (jinja2.Environment, jinja2.runtime.Context, nodes.EvalContext, jinja2.Undefined)  # given to filters
_COLLECTIONS = (list, tuple, set, range, KeysView, ValuesView, ItemsView)


class _Budget:
    """What is left to the templates that are compiled and rendered together, and the macros that are under way."""

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self.tokens = MAX_TOKENS
        self.steps = self.most_steps = steps
        self.characters = MAX_OUTPUT_CHARACTERS
        self.running: set[CodeType] = set()


_budget: ContextVar[_Budget | None] = ContextVar("budget", default=None)


class _Within:
    """A block in which `budget` is taken from; a class, since every render enters one."""

    __slots__ = ("_budget", "_token")

    def __init__(self, budget: _Budget) -> None:
        self._budget = budget

    def __enter__(self) -> None:
        self._token = _budget.set(self._budget)

    def __exit__(self, *_: object) -> None:
        _budget.reset(self._token)


def one_budget(budget: _Budget | None = None) -> _Within:
    """All templates that are compiled or rendered within take from one budget, as those of one prompt do."""
    return _Within(budget or _Budget())


class Template:
    """One compiled template; `render` gives its text for given variables.

    `names` are those that it uses, `plain` its pieces where it is no more than text and `{{ name }}`. The code of such a
    one is made where it is first needed, to say what is wrong with a value: most never are, and a registry has many.
    Raises TemplateRefused on construction where the source is not a template or asks for what is never allowed.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        _take_tokens(len(_lex(source)))  # here, so that a template that was compiled before costs as much as a new one
        compiled = (_compile_once if len(source) < MAX_REMEMBERED_CHARACTERS else _compile)(source)
        self.names, self.plain, self._code = compiled
        self._is_text = "{" not in source and source.isascii() and "\r" not in source  # Jinja2 would change \r\n alone

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text for `variables`; raises MissingVariable, TemplateRefused or BudgetExceeded."""
        if self._is_text:
            return self.source
        if self.plain is not None and (text := _filled(self.plain, variables)) is not None:
            return text
        if self._code is None:
            self._code = generated(syntax_tree(self.source), _environment)[1]
        return rendered(self._code, self._seen(variables))

    def _seen(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """`variables` without those that would hide a function that this template only calls."""
        hiding = _environment.globals.keys() & variables.keys() - self.names
        return {name: value for name, value in variables.items() if name not in hiding} if hiding else variables


def rendered(compiled: jinja2.Template, variables: Mapping[str, Any], steps: int = MAX_STEPS) -> str:
    """The text of what `generated` made, within the budget under way, else one of `steps`.

    Raises MissingVariable, TemplateRefused or BudgetExceeded.
    """
    try:
        with one_budget(_budget.get() or _Budget(steps)):
            return _whole("".join(_within_output(compiled.generate(variables))))
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise RenderError(f"a value holds {half!a}, half a character, which is no text: remove it") from error
    except jinja2.UndefinedError as error:
        raise MissingVariable(f"the template uses a name that has no value: {error.message}") from error
    except SecurityError as error:
        raise TemplateRefused(str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise BudgetExceeded(f"the template nests too deeply: {type(error).__name__}") from error
    except BudgetExceeded:
        raise
    except Exception as error:  # a template's own arithmetic or filters may fail with anything
        raise TemplateRefused(f"the template failed: {type(error).__name__}: {str(error)[:200]}") from error


def _filled(parts: Parts, variables: Mapping[str, Any]) -> str | None:
    """The text of a plain template, taken from the budget; None, and nothing taken, where Jinja2 has to say what is wrong."""
    found = filled(parts, variables, CHARACTERS_A_STEP)
    budget = _budget.get() or _Budget()
    if found is None or len(found[0]) > budget.characters or found[1] > budget.steps:
        return None
    text, steps = found
    budget.characters -= len(text)
    budget.steps -= steps
    return text


def _whole(text: str) -> str:
    """`text`, which can be sent to a model; raises UnicodeEncodeError where a surrogate stands alone in it."""
    if not text.isascii():
        text.encode()
    return text


def syntax_tree(source: str) -> nodes.Template:
    """The syntax tree of `source`, for those who look at a template without rendering it; raises TemplateRefused."""
    with _refusals():
        _lex(source)
        return _environment.parse(source)


def begins_with_text(source: str) -> bool:
    """Whether words stand before any template code, as most prompts have it: then every render gives them."""
    tokens = _lex(source)
    return bool(tokens) and tokens[0][1] == "data" and bool(tokens[0][2].strip())


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What Jinja2 raises about a source, as TemplateRefused."""
    try:
        yield
    except jinja2.TemplateSyntaxError as error:
        raise TemplateRefused(f"line {error.lineno}: {error.message}") from error
    except (RecursionError, MemoryError, SyntaxError) as error:
        raise TemplateRefused(f"the template nests too deeply: {type(error).__name__}") from error
    except ValueError as error:  # a literal number of thousands of digits
        raise TemplateRefused("the template holds a number that is too large") from error


def _compile(source: str) -> tuple[frozenset[str], Parts | None, jinja2.Template | None]:
    """The names that `source` uses, its pieces where it is plain, and its code where it is not."""
    tree = syntax_tree(source)
    _refuse_long_text(tree)
    found = _admitted(tree)
    plain = plain_parts(tree)
    if plain is not None:
        return frozenset(part.name for part in plain if part.name), plain, None
    undeclared, compiled = _code(tree, _environment)
    return undeclared - (_environment.globals.keys() - _printed_names(found)), None, compiled


def generated(tree: nodes.Template, environment: SandboxedEnvironment) -> tuple[frozenset[str], jinja2.Template]:
    """The names that nothing in `tree` sets, and its code, which takes its steps from a budget.

    Raises TemplateRefused where the template asks for what is never allowed.
    """
    _admitted(tree)
    return _code(tree, environment)


def _admitted(tree: nodes.Template) -> _Found:
    """The nodes of `tree` as they were read; from now on it takes its steps from a budget.

    Raises TemplateRefused where the template asks for what is never allowed.
    """
    with _refusals():
        found = _by_kind(tree)
        refused = next((kind for kind in _REFUSED_NODES if kind in found), None)
        if refused:
            line = found[refused][0].lineno
            raise TemplateRefused(f"line {line}: {{% {_REFUSED_NODES[refused]} %}} is not allowed in a template")
        _refuse_large_numbers(found)
        _refuse_private(found)
        _count_steps(tree, found)
        return found


_Found = Mapping[type[nodes.Node], Sequence[Any]]


def _by_kind(tree: nodes.Template) -> _Found:
    """Every node of `tree` by its class, in the order in which they are written: the tree is walked once."""
    found: dict[type[nodes.Node], list[nodes.Node]] = {}
    waiting: list[nodes.Node] = [tree]
    while waiting:
        node = waiting.pop()
        found.setdefault(type(node), []).append(node)
        waiting += reversed(list(node.iter_child_nodes()))
    return found


class _Generator(CodeGenerator):
    """Jinja2's own, noting the names that nothing in the template sets while it writes the code, globals among them."""

    def __init__(self, environment: jinja2.Environment, written: io.StringIO) -> None:
        super().__init__(environment, None, None, written, defer_init=True, optimized=environment.optimized)
        self.undeclared: set[str] = set()

    def enter_frame(self, frame: Frame) -> None:
        super().enter_frame(frame)
        self.undeclared.update(name for action, name in frame.symbols.loads.values() if action == "resolve" and name)


def _code(tree: nodes.Template, environment: SandboxedEnvironment) -> tuple[frozenset[str], jinja2.Template]:
    """The names that nothing in `tree` sets, and its code: `Environment.from_string` would walk the tree once more."""
    written = io.StringIO()
    generator = _Generator(environment, written)
    with _refusals(), _uncomputed():
        generator.visit(tree)
        code = compile(written.getvalue(), "<template>", "exec")
    template = jinja2.Template.from_code(environment, code, environment.make_globals(None), None)
    return frozenset(generator.undeclared), template


def _printed_names(found: _Found) -> frozenset[str]:
    """Names that are used as values somewhere; a global that is only ever called is the function."""
    called = {id(call.node) for call in found.get(nodes.Call, ())}
    return frozenset(node.name for node in found.get(nodes.Name, ()) if id(node) not in called)


@contextlib.contextmanager
def _uncomputed() -> Iterator[None]:
    """Keep Jinja2 from computing constants while it compiles: without a budget every step raises, and it gives up."""
    token = _budget.set(None)
    try:
        yield
    finally:
        _budget.reset(token)


# a file is read, resolved and looked through: the same template is compiled once
_compile_once = functools.lru_cache(maxsize=MAX_REMEMBERED)(_compile)


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
    if "include" not in source and "\r" not in source:  # which the lexer reads as the end of a line
        return source
    pieces: list[str] = []
    tokens = _lex(source)
    position = size = 0
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
        size += len(pieces[-1])
        if size > MAX_INCLUDED_CHARACTERS:  # before they are put together: one long text may be included often
            raise TemplateRefused(f"line {line}: includes give more than {MAX_INCLUDED_CHARACTERS:,} characters")
        position += len(block)
    return "".join(pieces)


def _lex(source: str) -> list[tuple[int, str, str]]:
    return list(_tokens_once(source) if len(source) < MAX_REMEMBERED_CHARACTERS else _tokens(source))


def _tokens(source: str) -> tuple[tuple[int, str, str], ...]:
    try:
        tokens = list(itertools.islice(_environment.lex(source), MAX_TOKENS + 1))
    except jinja2.TemplateSyntaxError as error:
        raise TemplateRefused(f"line {error.lineno}: {error.message}") from error
    if len(tokens) > MAX_TOKENS:
        raise TemplateRefused(f"the template has more than {MAX_TOKENS:,} words and signs of template code")
    return tuple(tokens)


_tokens_once = functools.lru_cache(maxsize=MAX_REMEMBERED)(_tokens)


def _take_tokens(number: int) -> None:
    budget = _budget.get()
    if budget is None:
        return
    budget.tokens -= number
    if budget.tokens < 0:
        raise TemplateRefused(f"the prompt has more than {MAX_TOKENS:,} words and signs of template code")


def _block_at(tokens: list[tuple[int, str, str]], start: int) -> list[tuple[int, str, str]]:
    for end in range(start, len(tokens)):
        if tokens[end][1] == "block_end":
            return tokens[start : end + 1]
    return tokens[start:]


def _within_output(pieces: Iterable[str]) -> Iterator[str]:
    budget = _budget_under_way()
    for piece in pieces:
        budget.characters -= len(piece)
        if budget.characters < 0:
            raise BudgetExceeded(f"the template gives more than {MAX_OUTPUT_CHARACTERS:,} characters")
        yield piece


def _budget_under_way() -> _Budget:
    budget = _budget.get()
    if budget is None:
        raise BudgetExceeded("nothing is computed before a template is rendered")
    return budget


def _take_steps(number: int = 1) -> None:
    budget = _budget_under_way()
    budget.steps -= number
    if budget.steps < 0:
        raise BudgetExceeded(f"the template takes more than {budget.most_steps:,} steps")


def _counted(iterable: Iterable[Any], steps: int = 1) -> Iterator[Any]:
    for item in iterable:
        _take_steps(steps)
        yield item


def _counted_call(nothing: str, steps: int) -> str:
    _take_steps(steps)
    return nothing


def _concatenated(parts: Iterable[Any]) -> str:
    return str(_bounded("".join(str(_printed(part)) for part in parts)))


def _printed(value: Any) -> Any:
    """`value` as it may become text, all that is within it too: what is no data would show where it lies in memory."""
    if isinstance(value, jinja2.Undefined):
        return value  # it raises when it becomes text
    return _weighed(value, _refuse_textless)


def _refuse_textless(value: Any) -> None:
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises, saying what is undefined
    if isinstance(value, Iterator):
        raise SecurityError("a sequence in the making is no text: add `|list`, or `|join(', ')`")
    if callable(value):
        raise SecurityError("a function is no text: call it with (), or name one of its results")
    if not isinstance(value, _DATA):
        raise SecurityError(f"what is no data has no text: {type(value).__name__}")


def _weighed(value: Any, check: Callable[[Any], None] | None = None) -> Any:
    """`value`, after a step for every item within it: what holds itself many times over is never walked for free.

    `check` is done to whatever holds no others and is neither text nor a whole number.
    """
    if isinstance(value, str):
        if len(value) >= CHARACTERS_A_STEP:
            _take_steps(len(value) // CHARACTERS_A_STEP)
    elif isinstance(value, int):
        _take_steps(value.bit_length() // BITS_A_STEP)  # what a number of thousands of digits takes to become text
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _take_steps()
            _weighed(key, check)
            _weighed(item, check)
    elif isinstance(value, _COLLECTIONS):
        for item in value:
            _take_steps()
            _weighed(item, check)
    elif check is not None:
        check(value)
    return value


def _searched(value: Any) -> Any:
    return value if isinstance(value, Mapping | range) else _weighed(value)


def _count_steps(tree: nodes.Template, found: _Found) -> None:
    """Make loop steps, macro calls, concatenations, comparisons, slices and literals pass through the budget."""
    repeated = [(node, _weight(node)) for kind in (nodes.For, nodes.Macro) for node in found.get(kind, ())]
    _weigh_literals(tree)
    for compare in found.get(nodes.Compare, ()):
        compare.expr = _through("weighed__", compare.expr)
        for operand in compare.ops:
            operand.expr = _through("searched__" if operand.op in ("in", "notin") else "weighed__", operand.expr)
    for item in found.get(nodes.Getitem, ()):
        if isinstance(item.arg, nodes.Slice):
            item.node = _through("weighed__", item.node)
    for node, weight in repeated:
        if isinstance(node, nodes.For):
            node.iter = _through("counted__", node.iter, nodes.Const(weight))
        elif isinstance(node, nodes.Macro):
            node.body.insert(0, nodes.Output([_through("counted_call__", nodes.Const(""), nodes.Const(weight))]))
    for concat in found.get(nodes.Concat, ()):
        concat.nodes = [_through("concatenated__", nodes.List(list(concat.nodes)))]


def _weight(node: nodes.Node) -> int:
    """Steps of going once through a loop's or a macro's body."""
    size = sum(1 for _ in node.find_all(nodes.Node))
    text = sum(len(piece.data) for piece in node.find_all(nodes.TemplateData))
    return 1 + size // NODES_A_STEP + text // CHARACTERS_A_STEP


def _weigh_literals(node: nodes.Node) -> None:
    for name, value in list(node.iter_fields()):
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if not isinstance(child, nodes.Node):
                continue
            _weigh_literals(child)
            if not _builds_collection(child):
                continue
            wrapped = _through("weighed__", child)
            if isinstance(value, list):
                value[index] = wrapped
            else:
                setattr(node, name, wrapped)


def _builds_collection(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Name):
        return node.name in ("varargs", "kwargs") and node.ctx == "load"
    return isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load")


def _through(filter_name: str, node: nodes.Node, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, filter_name, list(args), [], None, None, lineno=node.lineno or 1)


def _refuse_private(found: _Found) -> None:
    kinds = (nodes.Getattr, nodes.Getitem, nodes.Name, nodes.NSRef)
    for node in (node for kind in kinds for node in found.get(kind, ())):
        name = node.attr if isinstance(node, nodes.Getattr | nodes.NSRef) else getattr(node, "name", None)
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            name = node.arg.value
        own = isinstance(node, nodes.Name) and name == "self"
        if isinstance(name, str) and (name.startswith("_") or own):
            rename = ": rename the variable" if isinstance(node, nodes.Name) else ""
            raise TemplateRefused(f"line {node.lineno}: {name!r} is not open to templates{rename}")
    for loop in found.get(nodes.For, ()):
        if loop.recursive:
            raise TemplateRefused(f"line {loop.lineno}: recursive loops are not allowed in a template")


def _refuse_long_text(tree: nodes.Template) -> None:
    """What stands outside of all blocks is always given: longer than any output, it could never be rendered."""
    outputs = (node for node in tree.body if isinstance(node, nodes.Output))
    pieces = (piece for output in outputs for piece in output.nodes if isinstance(piece, nodes.TemplateData))
    size = sum(len(piece.data) for piece in pieces)
    if size > MAX_OUTPUT_CHARACTERS:
        most = f"a prompt gives at most {MAX_OUTPUT_CHARACTERS:,}, whatever size a file may have"
        raise TemplateRefused(f"the text has {size:,} characters; {most}: shorten it")


def _refuse_large_numbers(found: _Found) -> None:
    for const in found.get(nodes.Const, ()):
        if isinstance(const.value, int) and const.value.bit_length() > MAX_INTEGER_BITS:
            raise TemplateRefused(f"line {const.lineno}: a number of more than {MAX_INTEGER_BITS} bits is too large")


def _bounded(value: Any) -> Any:
    if isinstance(value, str | list | tuple):
        if len(value) > MAX_OUTPUT_CHARACTERS:
            raise BudgetExceeded(f"the template builds more than {MAX_OUTPUT_CHARACTERS:,} characters or items")
        if len(value) >= CHARACTERS_A_STEP:
            _take_steps(len(value) // CHARACTERS_A_STEP)
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise BudgetExceeded("the template computes a number that is too large")
    return value


class SandboxedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja2 where every step is counted, and only what is known to be harmless is open."""

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
        _take_steps()
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        if isinstance(obj, jinja2.Undefined) or self._is_open(obj, attribute):
            return super().getattr(obj, attribute)
        return self._refuse(obj, attribute)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        _take_steps()
        if isinstance(obj, Macro):
            return self._call_macro(context, obj, *args, **kwargs)
        if isinstance(obj, type) or not callable(obj):
            return super().call(context, obj, *args, **kwargs)
        for value in (getattr(obj, "__self__", None), *args, *kwargs.values()):
            _searched(value)
        result = super().call(context, obj, *args, **kwargs)
        return _weighed(result) if isinstance(result, str | list) else result

    def _call_macro(self, context: Any, macro: Macro, /, *args: Any, **kwargs: Any) -> Any:
        """A macro that is under way is not called again, by whatever name or argument it is reached."""
        running, code = _budget_under_way().running, macro._func.__code__
        if code in running:
            raise SecurityError(f"macro {macro.name!r} calls itself: recursion is not open to templates, write a loop")
        running.add(code)
        try:
            return super().call(context, macro, *args, **kwargs)
        finally:
            running.discard(code)

    def getitem(self, obj: Any, argument: Any) -> Any:
        _take_steps()
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

    @staticmethod
    def budgeted(function: Any) -> Any:
        """The filter `function` within the budget, for an environment that has more of them."""
        return _within_budget(function)

    def _refuse(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping):
            raise jinja2.UndefinedError(f"no key {attribute!r}; it has {', '.join(map(repr, list(obj)[:10]))}")
        raise SecurityError(f"attribute {attribute!r} of {type(obj).__name__} is not open to templates")


def _refuse_large_product(left: Any, right: Any) -> None:
    for text, times in ((left, right), (right, left)):
        if isinstance(text, list | tuple):
            raise SecurityError("multiplying a list is not open to templates")
        if isinstance(text, str) and isinstance(times, int) and len(text) * times > MAX_OUTPUT_CHARACTERS:
            raise BudgetExceeded(f"the template builds more than {MAX_OUTPUT_CHARACTERS:,} characters")


_Kind = TypeVar("_Kind", bound=SandboxedEnvironment)


class _Namespace(jinja2.utils.Namespace):
    """Jinja2's namespace; its text does not unfold the namespaces within it."""

    def __repr__(self) -> str:
        return "namespace"


def make_environment(kind: type[_Kind], undefined: type[jinja2.Undefined], **options: Any) -> _Kind:
    """An environment of that kind with the filters, tests and globals that templates may use."""
    # no autoescape: the text goes to a model, never to a browser
    # nor its optimizer: it tries every part of a chain of filters anew at each link
    environment = kind(undefined=undefined, autoescape=False, optimized=False, **options)
    environment.finalize = _printed
    environment.globals = {"range": environment.globals["range"], "namespace": _Namespace}
    allowed = {name: function for name, function in environment.filters.items() if name not in _REFUSED_FILTERS}
    allowed |= {"batch": _batch, "join": _join, "replace": replaced, "round": _round, "sum": _sum, "tojson": _tojson}
    walking = {name: _walking(function) for name, function in allowed.items() if name in _WALKING_FILTERS}
    environment.filters = {name: _within_budget(function) for name, function in (allowed | walking).items()}
    environment.filters |= {"counted__": _counted, "counted_call__": _counted_call, "searched__": _searched}
    environment.filters |= {"concatenated__": _concatenated, "weighed__": _weighed}
    paid = {name: function for name, function in environment.tests.items() if name not in _FREE_TESTS}
    environment.tests |= {name: _within_budget(function) for name, function in paid.items()}
    return environment


def _within_budget(function: Any) -> Any:
    """The filter or test `function`, paying for every item it is given and held to the size of what it builds."""

    @functools.wraps(function)
    def budgeted(*args: Any, **kwargs: Any) -> Any:
        _take_steps()
        paid = [_counted(arg) if isinstance(arg, Iterator) else _paid(arg) for arg in args]
        for value in kwargs.values():
            _paid(value)
        return _bounded(function(*paid, **kwargs))

    return budgeted


def _paid(argument: Any) -> Any:
    return argument if isinstance(argument, _OF_JINJA) else _printed(argument)


def _walking(function: Any) -> Any:
    """The filter `function`, paying for every letter of a text that it takes apart."""

    at = 0 if getattr(function, "jinja_pass_arg", None) is None else 1  # after the environment, where it is passed

    @functools.wraps(function)
    def walking(*args: Any, **kwargs: Any) -> Any:
        if isinstance(args[at], str):
            _take_steps(len(args[at]))
        return function(*args, **kwargs)

    return walking


def _batch(value: Iterable[Any], linecount: int, fill_with: Any = None) -> Iterator[list[Any]]:
    _take_steps(max(0, linecount))
    return filters.do_batch(value, linecount, fill_with)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    if abs(precision) > MAX_DIGITS:
        raise BudgetExceeded(f"round({precision}) is too far: at most {MAX_DIGITS} digits")
    return filters.do_round(value, precision, method)


def _tojson(value: Any, indent: int | None = None) -> str:
    """JSON for a model to read: unlike Jinja2's own, `<`, `>`, `&` and `'` stay as they are."""
    return json_text(value, indent, sort_keys=True, ensure_ascii=False)


def json_text(value: Any, indent: int | None, **options: Any) -> str:
    """`value` as `json` writes it; raises BudgetExceeded where it would be too wide or long, before it is in memory."""
    if indent is not None and not 0 <= indent <= MAX_INDENT:
        raise BudgetExceeded(f"tojson(indent={indent}) is too wide: at most {MAX_INDENT}")
    if indent is None:
        return json.dumps(value, **options)
    return "".join(_no_longer_than_output(json.JSONEncoder(indent=indent, **options).iterencode(value)))


def _no_longer_than_output(pieces: Iterable[str]) -> Iterator[str]:
    """`pieces` of a text while it is made, so that one that is too long is never whole in memory."""
    left = MAX_OUTPUT_CHARACTERS
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise BudgetExceeded(f"the template builds more than {MAX_OUTPUT_CHARACTERS:,} characters")
        yield piece


@jinja2.pass_environment
def _sum(
    environment: SandboxedEnvironment, value: Iterable[Any], attribute: str | int | None = None, start: Any = 0
) -> Any:
    """Jinja2's own, paying for every sum on the way: those of lists grow."""
    items = value if attribute is None else map(filters.make_attrgetter(environment, attribute), value)
    return functools.reduce(lambda total, item: environment.call_binop(None, "+", total, item), items, start)


def replaced(s: Any, old: str, new: str, count: int = -1) -> str:
    source = str(s)
    if len(source) + source.count(old) * len(new) > MAX_OUTPUT_CHARACTERS:
        raise BudgetExceeded(f"the template builds more than {MAX_OUTPUT_CHARACTERS:,} characters")
    return source.replace(old, new, count)


@jinja2.pass_environment
def _join(environment: jinja2.Environment, value: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
    items = value if attribute is None else map(filters.make_attrgetter(environment, attribute), value)
    pieces: list[str] = []
    left = MAX_OUTPUT_CHARACTERS
    for item in items:
        pieces.append(str(_printed(item)))
        left -= len(pieces[-1]) + len(d)
        if left < 0:
            raise BudgetExceeded(f"the template builds more than {MAX_OUTPUT_CHARACTERS:,} characters")
    return d.join(pieces)


_environment = make_environment(SandboxedEnvironment, jinja2.StrictUndefined, keep_trailing_newline=True)
