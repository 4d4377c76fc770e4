"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, all else on stderr.")]
Local = Annotated[bool, typer.Option("--local", help="In this process on TURNOUT_HOME, with no server.")]
Paths = Annotated[list[Path] | None, typer.Argument(help="Files or folders; by default the whole project.")]
Suites = Annotated[
    list[str] | None,
    typer.Argument(help="Suite files (the working tree) or names (the registry); by default all files."),
]
Model = Annotated[str | None, typer.Option("--model", help="Ask this model alias in place of the prompt's own.")]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, max=1024, help="Cases in flight at once.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Ask even what was answered before.")]
RerunFailed = Annotated[
    bool, typer.Option("--rerun-failed", help="Ask only cases that did not pass in the last run, in all their repeats.")
]
RerunErrored = Annotated[
    bool, typer.Option("--rerun-failed", help="Keep what the last runs judged; ask what errored or was not asked.")
]
Resume = Annotated[bool, typer.Option("--resume", help="With --local: ask what the last, interrupted one has left.")]
Providers = Annotated[
    list[str] | None,
    typer.Option("--provider", help="PROVIDER=ALIAS: the model that another tool's file means; several; none skips."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse another tool's file of which anything is left out.")]
PromptOption = Annotated[
    str | None, typer.Option("--prompt", help="NAME@SEL: a version of the registry in place of the working tree.")
]
Junit = Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML here.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write a pull-request comment here.")]
Html = Annotated[Path | None, typer.Option("--html", help="Write a page here, with every case and both answers.")]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write every case here, for a spreadsheet.")]
JsonFile = Annotated[Path | None, typer.Option("--json-file", help="Write the JSON here, too.")]
Reason = Annotated[str | None, typer.Option("--reason", "-m", help="Why; kept in the history.")]


@dataclass(frozen=True, slots=True)
class ForeignOptions:
    """What a command was told of files of other tools: `PROVIDER=ALIAS` pairs, and whether to refuse what is left out.

    `apart` asks for a suite for each provider, where a command takes one model a suite.
    """

    providers: tuple[str, ...] = ()
    strict: bool = False
    apart: bool = False
