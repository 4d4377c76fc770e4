"""What `POST /v1/fine_tuning/jobs` may ask for, and what is kept of it as a job's spec."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

import pydantic
from pydantic_core import PydanticCustomError

from prompts.errors import BadInput
from service.errors import BadSetting, ModelNotAvailable
from service.fine_tuning.names import PREFIX, check_suffix
from service.settings import Settings
from service.tuning.material import model_source

MOST_EPOCHS, MOST_ROWS, MOST_TIMES = 100, 4096, 1000
MOST_SEED = 2**31 - 1
_METHODS = "methods here: 'supervised'"
UNKNOWN = "is not available for fine-tuning or does not exist"  # OpenAI's words
Auto = Literal["auto"]


def _or(what: str) -> pydantic.WrapValidator:
    """Says in one sentence what pydantic says once for `auto` and once for the number."""

    def checked(value: Any, check: pydantic.ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except pydantic.ValidationError as error:
            said = f"{str(value)[:40]!r} is neither 'auto' nor {what}"
            raise PydanticCustomError("auto_or_number", "{said}", {"said": said}) from error

    return pydantic.WrapValidator(checked)


MetadataKey = Annotated[str, pydantic.Field(max_length=64)]
MetadataValue = Annotated[str, pydantic.Field(max_length=512)]


Epochs = Annotated[
    Auto | Annotated[int, pydantic.Field(ge=1, le=MOST_EPOCHS)], _or(f"a whole number from 1 to {MOST_EPOCHS}")
]
BatchSize = Annotated[
    Auto | Annotated[int, pydantic.Field(ge=1, le=MOST_ROWS)], _or(f"a whole number from 1 to {MOST_ROWS}")
]
Multiplier = Annotated[
    Auto | Annotated[float, pydantic.Field(gt=0, le=MOST_TIMES, allow_inf_nan=False)],
    _or(f"a number above 0, at most {MOST_TIMES}"),
]


class Hyperparameters(pydantic.BaseModel, frozen=True, extra="forbid"):
    """`auto` leaves a number to the recipe. `learning_rate_multiplier` is of the rate that the recipe has for the model."""

    n_epochs: Epochs = "auto"
    batch_size: BatchSize = "auto"
    learning_rate_multiplier: Multiplier = "auto"


class Supervised(pydantic.BaseModel, frozen=True, extra="forbid"):
    hyperparameters: Hyperparameters | None = None


class Method(pydantic.BaseModel, frozen=True, extra="forbid"):
    """OpenAI's other methods are taken in as they are, so that they can be refused by name."""

    type: str
    supervised: Supervised | None = None
    dpo: dict[str, Any] | None = None
    reinforcement: dict[str, Any] | None = None


class CreateJob(pydantic.BaseModel, frozen=True, extra="forbid"):
    """The body of `POST /v1/fine_tuning/jobs`."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str | None = None
    seed: Annotated[int, pydantic.Field(ge=0, le=MOST_SEED)] | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    metadata: dict[MetadataKey, MetadataValue] | None = pydantic.Field(None, max_length=16)
    integrations: list[dict[str, Any]] | None = None


class FineTuneSpec(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What a job does: all that its result depends on. `asked_model` is the name that the program wrote, `base` the alias."""

    asked_model: str
    base: str
    organization: str
    training_file: str
    validation_file: str | None
    suffix: str
    seed: int
    hyperparameters: Hyperparameters
    metadata: dict[str, str] | None


def spec_of(settings: Settings, body: CreateJob) -> FineTuneSpec:
    """The spec of a job. Raises a BadInput that names its field for what is not served here."""
    if body.integrations:
        kinds = ", ".join(sorted({str(one.get("type")) for one in body.integrations}))
        fix = "leave it out, and export the finished job with `turnout job ID --mlflow` or `--tensorboard`"
        raise BadInput(f"integrations: {kinds[:80]} is not served here: {fix}", param="integrations")
    return FineTuneSpec(
        asked_model=body.model,
        base=base_of(settings, body.model),
        organization=settings.fine_tuning.organization,
        training_file=body.training_file,
        validation_file=body.validation_file,
        suffix=check_suffix(body.suffix),
        seed=secrets.randbelow(MOST_SEED) if body.seed is None else body.seed,
        hyperparameters=_hyperparameters(body),
        metadata=body.metadata,
    )


def base_of(settings: Settings, model: str) -> str:
    """The tunable alias that a program's model name means. Raises ModelNotAvailable naming those that there are."""
    alias = settings.fine_tuning.models.get(model, model)
    try:
        model_source(settings, alias)
    except (BadSetting, BadInput):
        tunable = ", ".join(sorted(name for name, spec in settings.models.items() if spec.is_tunable)) or "none"
        why = "is tuned already and cannot be tuned further here" if model.startswith(PREFIX) else UNKNOWN
        raise ModelNotAvailable(
            f"Model {model[:100]!r} {why}. Tunable here: {tunable};"
            f" or map the name to one of these in turnout.yaml under fine_tuning.models",
            param="model",
        ) from None
    return alias


def _hyperparameters(body: CreateJob) -> Hyperparameters:
    method = body.method
    if method is None:
        return body.hyperparameters or Hyperparameters()
    if method.type != "supervised":
        raise BadInput(f"method.type: {method.type[:40]!r} is not trained here; {_METHODS}", param="method.type")
    if method.dpo is not None or method.reinforcement is not None:
        raise BadInput(f"method: only `supervised` goes with its type; {_METHODS}", param="method")
    of_method = method.supervised.hyperparameters if method.supervised else None
    return of_method or body.hyperparameters or Hyperparameters()
