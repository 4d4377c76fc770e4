"""The directions of imports, and what starting the command line may load."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("prompts", "suites", "finetune", "service")
MAY_IMPORT = {
    "prompts": set(),
    "suites": {"prompts"},
    "finetune": {"prompts"},
    "service": {"prompts", "suites", "finetune"},
}
HEAVY = {"torch", "transformers", "peft", "accelerate", "gguf"}
LIGHT = {  # of the packages that hold heavy modules
    "finetune": {"data", "plan", "adapter", "durable", "guard", "events"},
    "service.engine": {"weights", "process", "spec"},
}
STATEMENTS = ast.stmt | ast.excepthandler | ast.match_case  # an import is no part of an expression
NEEDED = "import sys; {}; print(*sorted({{'dbos', 'litestar', 'torch', 'scipy', 'transformers'}} & sys.modules.keys()))"


@functools.cache
def imports(path, *, everywhere):
    """Modules that a file imports: at module level, or `everywhere`; never those for type checkers only."""
    found, rest = set(), list(ast.parse(path.read_text("utf-8")).body)
    while rest:
        node = rest.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            rest += node.orelse
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the whole name of a module"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            rest += (child for child in ast.iter_child_nodes(node) if isinstance(child, STATEMENTS))
    return found


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")}


@functools.cache
def everywhere():
    return {name: imports(path, everywhere=True) for name, path in MODULES.items()}


def heads(names):
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_looks_down_only(floor):
    others = set(FLOORS) - {floor}
    wrong = {
        name: heads(found) & others - MAY_IMPORT[floor]
        for name, found in everywhere().items()
        if heads([name]) == {floor}
    }
    assert {name: found for name, found in wrong.items() if found} == {}


def test_of_finetune_the_service_imports_data_plan_and_adapter_only():
    allowed = {"finetune", "finetune.data", "finetune.plan", "finetune.adapter"}
    parts = {(name, ".".join(used.split(".")[:2])) for name, found in everywhere().items() for used in found}
    assert {
        (n, u) for n, u in parts if heads([n]) == {"service"} and heads([u]) == {"finetune"} and u not in allowed
    } == set()


def test_torch_is_imported_in_finetune_and_the_engine_alone():
    using = {name for name, found in everywhere().items() if heads(found) & HEAVY or "safetensors.torch" in found}
    assert using, "the test sees nothing"
    assert {name for name in using if not name.startswith(("finetune.", "service.engine."))} == set()
    assert {f"{package}.{name}" for package, names in LIGHT.items() for name in names} & using == set()


def test_what_imports_torch_only_where_it_is_used_stays_light_at_module_level():
    level = {name: imports(path, everywhere=False) & MODULES.keys() for name, path in MODULES.items()}
    heavy = {name for name, path in MODULES.items() if heads(imports(path, everywhere=False)) & HEAVY}
    for package, names in LIGHT.items():
        for name in names:
            seen, rest = set(), [f"{package}.{name}"]
            while rest:
                seen.add(current := rest.pop())
                rest += level[current] - seen
            assert seen & heavy == set(), f"{package}.{name} loads torch"


def test_no_modules_import_each_other_in_a_circle():
    level = {name: imports(path, everywhere=False) & MODULES.keys() - {name} for name, path in MODULES.items()}
    while leaves := {name for name, used in level.items() if not used & level.keys()}:
        level = {name: used for name, used in level.items() if name not in leaves}
    assert level == {}, "these import each other, or wait for those that do"


@pytest.mark.integration
@pytest.mark.parametrize(
    "statement",
    [
        "from service.cli.main import run; assert run(['--help']) == 0",
        "from service.cli.main import run; assert run(['check', '--json']) == 0",
        "from service.cli.main import run; assert run(['render', 'hello', '--local', '--json', '-v', 'n=x']) == 0",
        "from service.cli.main import run; assert run(['power', '--gain', '0.05', '--json']) == 0",
        "from service.cli.work import LocalWork",
        "import finetune.data, finetune.plan, finetune.adapter",
        "import service.engine.spec, service.engine.process, service.engine.weights",
    ],
)
def test_starting_is_light(statement, tmp_path):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "turnout.yaml").write_text("models:\n  m: {engine: openai, base_url: 'http://127.0.0.1:9/v1'}\n")
    (tmp_path / "prompts" / "hello.prompt.yml").write_text(
        "model: m\nmessages: [{role: user, content: 'hi {{ n }}'}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", NEEDED.format(statement)],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TURNOUT_HOME": str(tmp_path / "home")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "", done.stdout


UNUSED_BY_A_RUN = {
    "alembic",
    "dbos",
    "httpx",
    "jsonschema",
    "litestar",
    "rich",
    "sqlalchemy",
    "sqlmodel",
    "structlog",
    "torch",
}


@pytest.mark.integration
def test_a_local_run_loads_no_sql_toolkit_and_no_engine_but_its_own(tmp_path):
    for folder in ("prompts", "suites"):
        (tmp_path / folder).mkdir()
    (tmp_path / "turnout.yaml").write_text("models: {m: {engine: openai, base_url: 'http://127.0.0.1:9/v1'}}\n")
    (tmp_path / "prompts" / "hello.prompt.yml").write_text(
        "model: m\nvariables: {n: {type: string}}\nmessages: [{role: user, content: 'hi {{ n }}'}]\n"
    )
    (tmp_path / "suites" / "hello.suite.yml").write_text(
        "prompt: hello\ntests: [{vars: {n: x}, assert: [{type: contains, value: y}]}]\n"
    )
    unused = UNUSED_BY_A_RUN | {"service.engine.weights", "service.models.local"}
    script = (
        "import sys; from service.cli.main import run;"
        " code = run(['run', 'suites/hello.suite.yml', '--local', '--json']);"
        f" print(code, sorted({unused!r} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TURNOUT_HOME": str(tmp_path / "home")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "4 []", done.stdout + done.stderr
