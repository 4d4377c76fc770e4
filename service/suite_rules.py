"""What the settings do not allow of a suite, wherever it comes from: a file of the working tree or a push."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from prompts.errors import BadFile, Fault
from prompts.yaml_source import Document
from service.settings import Settings
from suites.case import Suite
from suites.checks import check_base_model, check_scripts
from suites.judging import check_judges
from suites.rows import Place


def rule_faults(
    suite: Suite, settings: Settings, document: Document, places: Sequence[Place] = (), *, is_whole: bool = True
) -> Iterator[Fault]:
    """Scripts of folders that are not listed, judges and base models that are none of `models`, or cannot be tuned.

    `document` and `places` know the lines; of a suite that is not whole nothing is said that it may lack.
    """
    tunable = {alias: spec.is_tunable for alias, spec in settings.models.items()}
    for check in (
        partial(check_scripts, suite, settings.script_folders, document=document, places=places),
        partial(check_judges, suite, settings.models, document=document, places=places, is_whole=is_whole),
        partial(check_base_model, suite, tunable, document),
    ):
        try:
            check()
        except BadFile as error:
            yield from error.faults
