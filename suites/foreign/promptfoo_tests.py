"""The tests of a promptfoo configuration: inline, in files, of scenarios, each on top of `defaultTest`.

https://www.promptfoo.dev/docs/configuration/reference/ — as promptfoo 0.121 reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from prompts.errors import BadFile, Fault
from prompts.formats.imported import Foreign, Notes, shortened
from prompts.yaml_source import load_yaml
from suites.row_readers import JSON_LINES, ROW_READERS, line_rows
from suites.rows import Row
from suites.values import FILE

_NO_TABLE = "tests are read from YAML, JSON, JSON lines and CSV in the project: save them as one of these"
_MERGED = ("vars", "options", "metadata")


class Files:
    """Files beside a configuration, as data or as text; what cannot be read is None, and noted where it matters."""

    def __init__(self, foreign: Foreign, notes: Notes, find_script: Callable[[str], str]) -> None:
        self._foreign = foreign
        self._notes = notes
        self.find_script = find_script

    def data(self, reference: str) -> Any:
        """What a JSON or YAML file holds, or the text of another; None where there is none. Raises BadFile."""
        name = reference.removeprefix(FILE)
        text = self._foreign.beside(name)
        if text is None or PurePosixPath(name).suffix.lower() not in (".json", ".yaml", ".yml"):
            return text
        return load_yaml(text, name).data

    def text(self, reference: str) -> str | None:
        return self._foreign.beside(reference.removeprefix(FILE))

    def fitting(self, reference: str) -> list[str]:
        """The references that one with `*` stands for; itself without."""
        name = reference.removeprefix(FILE)
        return [FILE + each for each in self._foreign.fitting(name)] if "*" in name else [reference]

    def rows(self, reference: str, at: str) -> list[Any]:
        """The tests in a file, whatever it holds; what is wrong with some of them is noted."""
        name = reference.removeprefix(FILE)
        suffix = PurePosixPath(name).suffix.lower()
        text = self._foreign.beside(name)
        if text is None:
            self._notes.leave(at, name, "there is no such file below the configuration's folder")
            return []
        faults: list[Fault] = []
        reader = ROW_READERS.get(suffix)
        try:
            if suffix in JSON_LINES:
                rows: Iterator[Row] | Any = line_rows(text.split("\n"), name, faults)
            else:
                rows = reader(text, name, faults) if reader else ()
            found = [_placed(_data_of(row), PurePosixPath(name).parent) for row in rows]
        except BadFile as error:
            found, faults = [], [*faults, *error.faults]
        for fault in faults:
            self._notes.leave(at, f"{fault.path}:{fault.line}: {fault.message}", fault.fix)
        return found


def _data_of(row: Row) -> Any:
    document, keys = row
    value = document.data
    for key in keys:
        value = value[key]
    return value


def _placed(test: Any, folder: PurePosixPath) -> Any:
    """A test of a file in `folder`: the files that its `vars` name lie beside that file."""
    given = test.get("vars") if isinstance(test, dict) else None
    if not isinstance(given, str | list) or not given:
        return test
    names = [str(name).removeprefix(FILE) for name in (given if isinstance(given, list) else [given])]
    return {**test, "vars": [f"{FILE}{folder / name}" for name in names]}


def read_tests(config: Mapping[str, Any], files: Files, notes: Notes) -> list[dict[str, Any]]:
    """Every test of a configuration with all that `defaultTest` and its scenario give it; at least one.

    An assertion list holds the default's first, as promptfoo runs them; `disableDefaultAsserts` leaves these away.
    """
    default = _default_test(config, files, notes)
    found = list(_listed(config.get("tests"), "tests", files, notes))
    scenarios = list(_scenarios(config.get("scenarios"), files, notes))
    if not found and not scenarios and not config.get("tests"):
        found = [{}]
    return [_on_top(default, test) for test in [*found, *scenarios]]


def _default_test(config: Mapping[str, Any], files: Files, notes: Notes) -> dict[str, Any]:
    default = config.get("defaultTest") or {}
    if isinstance(default, str):
        default = files.data(default)
    if not isinstance(default, dict):
        notes.leave("defaultTest", shortened(config["defaultTest"]), "expected keys and values, or a file of them")
        return {}
    return default


def _listed(given: Any, at: str, files: Files, notes: Notes) -> Iterator[dict[str, Any]]:
    """The tests that stand in a list, in the files that it names, or in one file."""
    for index, entry in enumerate(given if isinstance(given, list) else [] if given is None else [given]):
        place = f"{at}.{index}"
        if isinstance(entry, str):
            yield from _of_reference(entry, place, files, notes)
        elif isinstance(entry, dict) and isinstance(entry.get("path"), str) and "vars" not in entry:
            yield from _of_reference(entry["path"], place, files, notes)
        elif isinstance(entry, dict):
            yield entry
        else:
            notes.leave(place, shortened(entry), "a test is keys and values")


def _of_reference(reference: str, at: str, files: Files, notes: Notes) -> Iterator[dict[str, Any]]:
    name = reference.removeprefix(FILE)
    suffix = PurePosixPath(name.partition(":")[0]).suffix.lower()
    if "://" in name:
        notes.leave(at, "tests that are fetched from a network", _NO_TABLE)
    elif "*" in name:
        for each in files.fitting(reference):
            yield from _of_reference(each, at, files, notes)
    elif suffix not in (*ROW_READERS, *JSON_LINES):
        kind = f"tests from a {suffix or 'folder'} file"
        notes.leave(at, kind, _NO_TABLE if suffix == ".xlsx" else "tests that code makes: write them out as a file")
    else:
        yield from _listed(files.rows(reference, at), at, files, notes)


def _scenarios(given: Any, files: Files, notes: Notes) -> Iterator[dict[str, Any]]:
    """Each configuration of a scenario with each of its tests."""
    for index, scenario in enumerate(given if isinstance(given, list) else []):
        scenario = files.data(scenario) if isinstance(scenario, str) else scenario
        at = f"scenarios.{index}"
        if not isinstance(scenario, dict):
            notes.leave(at, shortened(scenario), "a scenario is `config:` and `tests:`")
            continue
        configs = list(_listed(scenario.get("config"), f"{at}.config", files, notes)) or [{}]
        tests = list(_listed(scenario.get("tests"), f"{at}.tests", files, notes)) or [{}]
        for data in configs:
            yield from (_in_scenario(data, test) for test in tests)


def _in_scenario(data: Mapping[str, Any], test: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**data, **test, **_both(data, test)}
    return {**merged, "assert": [*(data.get("assert") or []), *(test.get("assert") or [])]}


def _on_top(default: Mapping[str, Any], test: Mapping[str, Any]) -> dict[str, Any]:
    """A test with what the default gives it."""
    merged = {**default, **{key: value for key, value in test.items() if value is not None}, **_both(default, test)}
    own, given = test.get("assert") or [], default.get("assert") or []
    if not isinstance(own, list) or not isinstance(given, list):
        return {**merged, "assert": own}
    is_alone = merged["options"].get("disableDefaultAsserts") is True
    return {**merged, "assert": [*([] if is_alone else given), *own]}


def _both(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that two tests share, put together; `vars` that name a file stay that name."""
    made: dict[str, Any] = {}
    for key in _MERGED:
        below, above = under.get(key) or {}, over.get(key) or {}
        if isinstance(below, dict) and isinstance(above, dict):
            made[key] = {**below, **above}
        else:
            made[key] = above or below
    return made
