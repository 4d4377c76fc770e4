"""What the settings do not allow of a suite, wherever it comes from: a file of the working tree or a push."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from prompts.errors import BadFile, Fault
from prompts.yaml_source import Document, parse_model
from service.settings import Settings
from suites.case import Suite
from suites.checks import check_base_model, check_scripts, untuned_fallback
from suites.judging import check_judges
from suites.rows import Place


def rule_faults(
    suite: Suite, settings: Settings, document: Document, places: Sequence[Place] = (), *, is_whole: bool = True
) -> Iterator[Fault]:
    """Scripts of folders that are not listed, judges and base models that are none of `models`, or cannot be tuned.

    And recipes by which nothing can be trained. `document` and `places` know the lines; of a suite that is not whole
    nothing is said that it may lack.
    """
    for check in (
        partial(check_scripts, suite, settings.script_folders, document=document, places=places),
        partial(check_judges, suite, settings.models, document=document, places=places, is_whole=is_whole),
        partial(check_base_model, suite, _tunable(settings), document),
        partial(_check_recipe, suite, document),
    ):
        try:
            check()
        except BadFile as error:
            yield from error.faults


def fallback_faults(suite: Suite, model: str, settings: Settings, document: Document) -> Iterator[Fault]:
    """A warning where the fallback of a suite would tune `model`, its prompt's, which cannot be."""
    return untuned_fallback(suite, model, _tunable(settings), document)


def _tunable(settings: Settings) -> dict[str, bool]:
    return {alias: spec.is_tunable for alias, spec in settings.models.items()}


def _check_recipe(suite: Suite, document: Document) -> None:
    """Refuse a `fallback.recipe` with fields that no recipe has, or values that none may have.

    Raises BadFile with their lines in `document`.
    """
    recipe = suite.fallback.recipe if suite.fallback else None
    if recipe:
        from finetune.plan import Recipe  # takes a while to import, and few suites have one

        parse_model(Recipe, replace(document, data={"fallback": {"recipe": recipe}}), ("fallback", "recipe"))
