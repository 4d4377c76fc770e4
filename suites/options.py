"""promptfoo's `options` of a case or of `defaultTest`, and what becomes of its assertions by them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictStr, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import PydanticCustomError

from suites import assertions
from suites.assertions.embedded import EMBEDDED
from suites.assertions.judged import JUDGED, RELEVANCE
from suites.assertions.rubric import SLOTS, check_rubric, kind_of
from suites.assertions.spec import AssertionSpec, refuse
from suites.policy import Record
from suites.salvage import error_at, with_errors

_IN_PROMPT = "write it into the prompt: what is tested is what is served"
_NOT_HERE = {  # promptfoo's, which mean nothing here: why, and what to write
    "prefix": ("the prompt is tested as it is served", _IN_PROMPT),
    "suffix": ("the prompt is tested as it is served", _IN_PROMPT),
    "postprocess": ("this is promptfoo's older word", "call it `transform`"),
    "transformVars": ("variables are given as they are", "write the values that the prompt is to be given"),
    "storeOutputAs": ("no case sees the answer to another", "write what it needs into its `vars`, or into `placeholders`"),
    "runSerially": ("no case depends on another", "remove it; `--concurrency 1` asks one at a time"),
    "disableConversationVar": ("there is no `_conversation`", "remove it; histories are `placeholders`"),
    "factuality": ("scores are set where they are used", "write `config: {subset: 0.5}` at the `factuality` assertion"),
    "config": ("settings of a model stand in turnout.yaml and in the prompt", "write `modelParameters` into the prompt"),
    "response_format": ("it belongs to the prompt", "write `responseFormat` into the prompt"),
}  # fmt: skip


def _checked_transform(code: str) -> str:
    assertions.check_transform(AssertionSpec(type="equals", value="", transform=code))
    return code


def _as_provider(given: Any) -> Any:
    if isinstance(given, str):
        return {"text": given}
    if isinstance(given, dict) and "id" in given:
        refuse("a model is named by its alias alone", "write `provider: ALIAS`; how it is asked stands in turnout.yaml")
    if not isinstance(given, dict | Provider) or not given:
        refuse("`provider` names models", "write `provider: ALIAS`, or `provider: {text: ALIAS, embedding: ALIAS}`")
    return given


def _checked_rubric(given: Any) -> Any:
    """A rubric, or those of a type that asks twice by their names; whether it fits a type is seen where it is used."""
    if given is None:
        return None
    if isinstance(given, dict):
        known = sorted({name for slots in SLOTS.values() for name in slots})
        if not given or not given.keys() <= set(known):
            refuse("`rubricPrompt` has no such parts", f"known here: {', '.join(known)}")
        for part in given.values():
            _checked_rubric(part)
    else:
        check_rubric(AssertionSpec(type="llm-rubric", value="", rubricPrompt=given))
    return given


class Provider(Record):
    """Who judges: the alias of a model, and that of a model of embeddings."""

    text: Annotated[StrictStr, Field(min_length=1)] | None = None
    embedding: Annotated[StrictStr, Field(min_length=1)] | None = None


class CaseOptions(Record):
    """How a case is made of what is written, and how its answer is judged.

    `transform` is JavaScript that makes of the answer what all its assertions judge. `provider` and `rubricPrompt` are for
    those of its assertions that a model decides and that name none of their own. `disableVarExpansion` leaves lists
    among the variables as they are, `disableDefaultAsserts` leaves the assertions of `defaultTest` away.
    """

    transform: Annotated[StrictStr, Field(min_length=1), AfterValidator(_checked_transform)] | None = None
    provider: Annotated[Provider, BeforeValidator(_as_provider)] | None = None
    rubric_prompt: Annotated[Any, AfterValidator(_checked_rubric)] = Field(default=None, alias="rubricPrompt")
    disable_var_expansion: StrictBool | None = Field(default=None, alias="disableVarExpansion")
    disable_default_asserts: StrictBool | None = Field(default=None, alias="disableDefaultAsserts")

    @model_validator(mode="wrap")
    @classmethod
    def _of_promptfoo(cls, data: Any, handler: ModelWrapValidatorHandler[CaseOptions]) -> CaseOptions:
        """Say of each of promptfoo's other options why it is not read, beside all else that is wrong."""
        foreign = data.keys() & _NOT_HERE.keys() if isinstance(data, dict) else frozenset()
        if not foreign:
            return handler(data)
        own = [error_at(_not_here(name), data[name], name) for name in sorted(foreign)]
        return with_errors(handler, {name: value for name, value in data.items() if name not in foreign}, own)

    def over(self, default: CaseOptions) -> CaseOptions:
        """These on top of the default's: of each option the case's own, where it has one."""
        if self is NO_OPTIONS or default is NO_OPTIONS:
            return default if self is NO_OPTIONS else self
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return default.model_copy(update={name: value for name, value in given.items() if value is not None})


NO_OPTIONS = CaseOptions()


def _not_here(name: str) -> PydanticCustomError:
    why, fix = _NOT_HERE[name]
    return PydanticCustomError("assertion", "{reason}", {"reason": f"`options.{name}` is not read: {why}", "fix": fix})


def judged_by(spec: AssertionSpec, options: CaseOptions) -> AssertionSpec:
    """The assertion with the models and the rubric that `options` name, where it names none itself."""
    if spec.asserts:
        return spec.model_copy(update={"asserts": tuple(judged_by(part, options) for part in spec.asserts)})
    update = _named_by(spec, options.provider or Provider())
    if options.rubric_prompt is not None and kind_of(spec) in JUDGED and spec.rubric_prompt is None:
        update["rubric_prompt"] = options.rubric_prompt
    return spec.model_copy(update=update) if update else spec


def _named_by(spec: AssertionSpec, provider: Provider) -> dict[str, Any]:
    kind, update = kind_of(spec), dict[str, Any]()
    alias = provider.text if kind in JUDGED else provider.embedding if kind in EMBEDDED else None
    if alias and spec.provider is None:
        update["provider"] = alias
    if kind == RELEVANCE and provider.embedding and "embeddings" not in (spec.config or {}):
        update["config"] = {**(spec.config or {}), "embeddings": provider.embedding}
    return update


def rubric_fault(spec: AssertionSpec) -> tuple[str, str] | None:
    """Message and fix where the rubric of the options does not fit an assertion that they were put into."""
    try:
        for each in assertions.walk(spec):
            if kind_of(each) in JUDGED:
                check_rubric(each)
    except PydanticCustomError as error:
        fix = str((error.context or {}).get("fix", ""))
        return error.message(), f"{fix}, at the assertion itself or as `options: {{rubricPrompt: …}}`"
    return None


__all__ = ["NO_OPTIONS", "CaseOptions", "Provider", "judged_by", "rubric_fault"]
