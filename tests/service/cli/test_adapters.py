"""`turnout adapters` and `turnout export` of adapters, in a project of their own."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from finetune import adapter as folders
from prompts.errors import BadInput
from service.adapters import exporting, retesting
from service.api.adapters import as_tar
from service.cli import exporting as cli
from service.errors import CannotRun
from service.settings import load_settings
from service.store.database import Database
from suites.results import CaseResult
from tests.finetune.export_models import make_adapter, make_model
from tests.service import adapter_histories as made
from tests.service.cli.projects import Project

OLD = "2020-01-01T00:00:00.000000+00:00"
PROMPT = """\
model: tiny
modelParameters: {temperature: 0, max_tokens: 4}
variables: {n: {type: string}}
messages: [{role: user, content: "q {{ n }}"}]
"""
SUITE = "prompt: ask\ntests:\n" + "".join(
    f"  - {{vars: {{n: '{number}'}}, assert: [{{type: not-equals, value: zzz}}]}}\n" for number in range(3)
)


@pytest.fixture
def project(workspace: Project, tmp_path: Path) -> Project:
    """A project with a model `tiny` whose folder is not there, and an adapter `one` of it."""
    workspace.write("turnout.yaml", f"models:\n  tiny: {{engine: local, source: 'path:{tmp_path / 'tiny'}'}}\n")
    workspace.write("prompts/ask.prompt.yml", PROMPT)
    workspace.write("suites/ask.suite.yml", SUITE)
    return workspace


def register(name: str = "one", folder: Path | None = None, **more: Any) -> None:
    """An adapter on the home's shelf, with its row; of its own bytes, or a copy of `folder`."""
    settings = load_settings()
    database = Database(settings.database_url)
    database.migrate()
    with database.write() as session:
        made.add(session, settings.adapters_dir, name, OLD, prompt="ask", **more)
        manifest = folders.verify(settings.adapters_dir / name)
        if folder is not None:
            folders.remove(settings.adapters_dir / name)
            folders.install(folder, settings.adapters_dir, name)
            manifest = folders.verify(folder)
        session.run("UPDATE adapter SET base_model = 'tiny', digest = :digest", digest=manifest.digest)
        told = json.dumps(manifest.model_dump(mode="json"))
        session.run("UPDATE adapter SET manifest = :told", told=told)
    database.close()


def test_adapters_are_listed_shown_and_deleted(project: Project):
    register()
    assert [one["name"] for one in project.json("adapters", "--json", "--local")] == ["one"]
    shown = project.json("adapters", "show", "one", "--local")
    assert shown["named_by"] == []
    code, text, _ = project.run("adapters", "show", "one", "--card", "--local")
    assert (code, text.startswith("---\nlicense: ")) == (0, True)
    assert "nobody: retention may delete it" in project.run("adapters", "show", "one", "--local")[1]
    assert project.json("adapters", "prune", "--dry-run", "--local") == {"dry_run": True, "adapters": []}  # of five
    assert project.json("adapters", "rm", "one", "--local")["name"] == "one"
    assert project.json("adapters", "list", "--local") == []


def test_an_adapter_is_exported_as_peft_reads_it(project: Project, tmp_path: Path):
    register()
    about = project.json("export", "one", "--to", "prompts/../out", "--base-name", "org/tiny", "--local")
    out = project.folder / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "turnout-export.json",
    ]  # fmt: skip
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/tiny"
    assert about["commands"] == [f"vllm serve org/tiny --enable-lora --max-lora-rank 8 --lora-modules one={out}"]
    assert about["models"] == {"one-peft": {"engine": "openai", "base_url": "http://127.0.0.1:8000/v1", "model": "one"}}
    assert str(tmp_path) not in (out / "README.md").read_text() + (out / "turnout-export.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("one", "--to", "github", "--format", "gguf"), "is the form of a prompt"),
        (("one", "--to", "out", "-v", "n=1"), "are for prompts"),
        (("one", "--to", "out", "--format", "gguf-lora", "--outtype", "q8_0"), "is not one of --format gguf-lora"),
        (("one", "--to", "no/where"), "is not a folder: make it first"),
        (("one", "--to", "prompts"), "exists already"),
        (("one", "--to", "prompts", "--force"), "is not an export of Turnout"),
        (("../one", "--to", "out"), "cannot name an adapter"),
        (("two", "--to", "out"), "no adapter 'two'"),
        (("one", "--to", "out", "--test", "ask"), "holds the adapter's own weights"),
        (("one", "--to", "out", "--format", "gguf-lora", "--test", "ask"), "loads no GGUF LoRA"),
        (("one", "--to", "out", "--format", "merged"), "does not exist"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_writes_nothing(project: Project, arguments: tuple[str, ...], told: str):
    register()
    before = sorted(path.name for path in project.folder.iterdir())
    code, _, error = project.run("export", *arguments, "--local")
    assert (code, told in error) == (2, True), error
    assert sorted(path.name for path in project.folder.iterdir()) == before


def test_a_test_needs_this_process(project: Project):
    code, _, error = project.run("export", "one", "--to", "out", "--format", "merged", "--test", "ask")
    assert (code, "add --local" in error) == (2, True)


class Sender:
    """A service that sends a tar of these members."""

    def __init__(self, *members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, cut: int = 0) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as held:
            for name, content in members:
                about = tarfile.TarInfo(name)
                about.size, about.type, about.linkname = len(content), kind, "/etc/passwd"
                held.addfile(about, io.BytesIO(content))
        self._bytes = packed.getvalue()[: -cut or None]

    def download(self, _: str, to: Any) -> None:
        to.write(self._bytes)


@pytest.mark.parametrize(
    "sender",
    [
        Sender(("../evil.json", b"{}")),
        Sender(("/etc/evil.json", b"{}")),
        Sender(("run.py", b"1")),
        Sender(("a.json", b""), kind=tarfile.SYMTYPE),
        Sender(("a.json", b"x" * 4000), cut=9000),
    ],
)
def test_a_service_can_send_plain_files_of_adapters_alone(tmp_path: Path, sender: Sender):
    with pytest.raises((CannotRun, BadInput)):
        cli.fetch(sender, "/api/adapters/one/export", tmp_path / "adapter")
    assert [path.name for path in tmp_path.iterdir()] in ([], ["adapter"])
    assert not (tmp_path / "evil.json").exists()


def test_what_a_service_sends_is_unpacked_and_verifies(tmp_path: Path):
    made.install(tmp_path / "shelf", "one")
    names = ("adapter_config.json", "adapter_model.safetensors", "turnout-adapter.json")

    class Real:
        def download(self, _: str, to: Any) -> None:
            for block in as_tar(tmp_path / "shelf" / "one", names, "# card\n"):
                to.write(block)

    cli.fetch(Real(), "/api/adapters/one/export", tmp_path / "adapter")
    assert folders.verify(tmp_path / "adapter").digest == folders.verify(tmp_path / "shelf" / "one").digest


def test_an_export_that_dies_says_how(tmp_path: Path):
    log = tmp_path / "log"
    log.write_text("Traceback\nMemoryError: no\n")
    with pytest.raises(CannotRun, match="MemoryError: no"):
        exporting.answer_of(b"", 1, log)
    with pytest.raises(CannotRun, match="for want of memory"):
        exporting.answer_of(b"half", -9, log)


def test_models_of_an_export_join_the_settings(project: Project):
    ours = retesting.with_model(load_settings(), {"one-gguf": {"engine": "local", "source": "path:/m.gguf"}})
    assert {"one-gguf", "tiny"} <= ours.models.keys()


def test_the_first_case_without_an_answer_says_why():
    answered, errored = (
        CaseResult("a", 0, 0, "passed", output="x"),
        CaseResult("b", 1, 0, "errored", error="no complete answer within 60 s"),
    )
    assert retesting.first_error([answered, errored, errored]) == "b: no complete answer within 60 s"
    assert retesting.first_error([answered]) == ""


@pytest.mark.integration
@pytest.mark.long
def test_an_export_is_tested_as_the_variant_that_it_is(project: Project, tmp_path: Path):
    base = make_model(tmp_path / "tiny", "llama")
    register(folder=make_adapter(tmp_path / "trained", base, name="one"))
    project.json("push", "--local")
    about = project.json(
        "export", "one", "--to", "out", "--format", "merged", "--outtype", "f32", "--test", "suites/ask.suite.yml", "--local"
    )  # fmt: skip
    test = about["test"]
    assert (test["compared"], test["same_answers"], test["differ"]) == (3, 3, [])
    assert test["exported"]["variant"] == "ask@1+one-merged"
    assert test["adapter"]["variant"] == "ask@1+tiny+one"
    assert (project.folder / "out" / "turnout-export.json").is_file()
