"""What a thousand requests cost: by the price of tokens, or by the hours of one's own hardware."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from service.advising.spec import Work
from service.pool import price_of
from suites.advice.report import Spend

_MILLION = 1_000_000
_THOUSAND = 1_000
_HOUR_MS = 3_600_000


def priced(work: Work, alias: str, spend: Spend, times_ms: Sequence[float]) -> Spend:
    """The spend with its cost, where the alias has a price, or it is tuned here and an hour has one.

    An hour's share is that of requests one after another: a server that answers several at once takes less.
    """
    price = price_of(work.claim.settings, alias)
    if price is not None and spend.prompt_tokens is not None and spend.answer_tokens is not None:
        tokens = spend.prompt_tokens * price.input_per_mtok + spend.answer_tokens * price.output_per_mtok
        told = f"the price of {alias}"
        return spend.model_copy(update={"cost_per_1k_usd": tokens * _THOUSAND / _MILLION, "cost_from": told})
    an_hour = work.spec.price_per_hour
    if an_hour is not None and times_ms and work.claim.settings.model(alias).is_tunable:
        cost = fmean(times_ms) * _THOUSAND / _HOUR_MS * an_hour
        told = f"${an_hour:g} an hour, one request after another"
        return spend.model_copy(update={"cost_per_1k_usd": cost, "cost_from": told})
    return spend
