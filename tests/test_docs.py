"""Docs stay true: every command, setting and route stands in the reference, every package in the dependencies."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import typer.main

from service.api.hot import HOT
from service.app import HANDLERS
from service.cli.main import app
from service.settings import AssertionRules, FineTuning, Recording, Registry, Retention, Server, Storage

ROOT = Path(__file__).parents[1]
REFERENCE = (ROOT / "docs" / "reference.md").read_text("utf-8")


def _commands(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    children = getattr(command, "commands", {})
    found = [item for name, child in children.items() for item in _commands(child, (*path, name))]
    return found or [(" ".join(path), command)]


def test_every_command_and_option_is_documented():
    for name, command in _commands(typer.main.get_command(app)):
        line = next((line for line in REFERENCE.splitlines() if line.startswith(f"| `turnout {name}")), None)
        assert line is not None, name
        missing = [p.opts[0] for p in command.params if p.param_type_name == "option" and p.opts[0] not in line]
        assert missing == [], name


def test_every_setting_is_documented_with_its_variable():
    sections = (("server", Server), ("storage", Storage), ("retention", Retention), ("registry", Registry),
                ("recording", Recording), ("assertions", AssertionRules), ("fine_tuning", FineTuning))  # fmt: skip
    for section, model in sections:
        for name in model.model_fields:
            assert f"| `{section}.{name}` | `TURNOUT_{section.upper()}_{name.upper()}` |" in REFERENCE


def test_every_route_is_documented_with_its_role():
    for handler in HANDLERS:
        for path in handler.paths:
            for method in handler.http_methods - {"OPTIONS"}:
                assert f"| `{method} {path}` | {handler.opt['role']} |" in REFERENCE
    for route in HOT:
        assert f"| `{route.method} {route.path.replace('{name}', '{name:str}')}` | {route.role} |" in REFERENCE


def test_every_dependency_has_its_reason():
    document = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    for line in named:
        package = re.split(r"[\[<>=,]", line)[0]
        plain = package.removeprefix("pytest").removeprefix("types-")
        assert package in document or plain in document, package
