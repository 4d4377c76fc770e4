"""What `import turnout` loads, and that it is one package however it is reached."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

import turnout
from tests.client.conftest import KEY, Clock, FakeService
from turnout import Turnout
from turnout.errors import TurnoutError

PACKAGE = Path(turnout.__file__).parent
ROOT = Path(__file__).parents[2]
LOADED = """
import sys
before = set(sys.modules)
import httpx
peer = set(sys.modules)
import turnout
names = {name.partition('.')[0] for name in set(sys.modules) - peer}
print(*sorted(names - sys.stdlib_module_names))
"""


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_the_client_needs_the_standard_library_and_httpx_alone() -> None:
    plugin = PACKAGE / "pytest_plugin.py"  # which pytest itself loads, and nothing else
    needed = {name.partition(".")[0] for path in {*PACKAGE.glob("*.py")} - {plugin} for name in _imports(path)}
    assert {name.partition(".")[0] for name in _imports(plugin)} - sys.stdlib_module_names == {"pytest"}

    assert needed - sys.stdlib_module_names == {"httpx", "turnout"}


def test_importing_it_loads_nothing_beside_httpx(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["turnout"]


def test_nothing_of_the_service_reaches_it_by_its_folder() -> None:
    """As `service.client` it would be a second copy of every class."""
    files = [path for floor in ("service", "suites", "prompts", "finetune") for path in (ROOT / floor).rglob("*.py")]
    naming = [path for path in files if "client" in path.read_text("utf-8")]

    assert naming
    assert {path for path in naming if any(name.startswith("service.client") for name in _imports(path))} == set()


def test_a_run_of_pytest_loads_no_http_for_the_plug_in() -> None:
    program = "import sys, turnout.pytest_plugin; sys.exit('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 0


def test_every_public_name_is_there_and_no_other() -> None:
    assert {name for name in turnout.__all__ if getattr(turnout, name).__name__ == name} == set(turnout.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Turnouts'"):
        turnout.Turnouts  # noqa: B018 - looked up for its error


def test_it_carries_its_types() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_the_tree_of_errors_in_the_docstring_is_the_one_there_is() -> None:
    from turnout import errors

    drawn = {line.split("──")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "──" in line}
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, TurnoutError)}
    assert drawn == kinds - {"TurnoutError"}
    assert kinds <= set(turnout.__all__)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_client_goes_on_in_the_child_of_a_fork_whatever_the_parent_was_doing(fake: FakeService, clock: Clock) -> None:
    client = Turnout("http://t.test", KEY, transport=httpx.MockTransport(fake), listen=False, _clock=clock)
    client.prompt("support.triage")
    with client._lock, client._core.cache._lock:
        child = os.fork()
        if child == 0:
            fake.labels["production"] = 2
            first = client.prompt("support.triage").version
            for thread in threading.enumerate():
                if thread.name == "turnout-refresh":
                    thread.join(10)
            os._exit(0 if (first, client.prompt("support.triage").version) == (1, 2) else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    client.close()


def test_the_grammar_of_names_is_the_services_own() -> None:
    from prompts import names as service
    from turnout import names

    assert (names.NAME, names.LABEL, names.MAX_NAME_LENGTH) == (service.NAME, service.LABEL, service.MAX_NAME_LENGTH)
    assert service.parse_selector(f"a@{names.MAX_VERSION}").version == names.MAX_VERSION
    with pytest.raises(service.BadName):
        service.parse_selector(f"a@{names.MAX_VERSION + 1}")
