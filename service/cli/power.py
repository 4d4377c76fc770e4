"""The command that says how many cases a suite needs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.cli.options import Json

DISCORDANT = (0.1, 0.2, 0.3)  # shares of cases that two variants of one prompt commonly answer differently

Gain = Annotated[float, typer.Option("--gain", help="The true gain or loss to be shown, as a share: 0.05 is 5 points.")]
Discordant = Annotated[
    str | None,
    typer.Option("--discordant", help="Shares of cases whose outcome differs, with commas; by default 0.1,0.2,0.3."),
]
Alpha = Annotated[float, typer.Option("--alpha", help="The error rate of the gate.")]
Power = Annotated[float, typer.Option("--power", help="The chance to show it.")]
Cases = Annotated[int | None, typer.Option("--cases", min=1, help="Also the power that this many cases have.")]


def power(
    gain: Gain,
    discordant: Discordant = None,
    alpha: Alpha = 0.05,
    power: Power = 0.8,
    cases: Cases = None,
    as_json: Json = False,
) -> int:
    """How many cases the exact paired test needs to show a gain or a loss, and what a number of cases can show."""
    from service.cli.output import out, print_json, table

    rows = [_row(share, gain, alpha, power, cases) for share in _shares(discordant, gain)]
    if as_json:
        print_json({"gain": gain, "alpha": alpha, "power": power, "cases": cases, "rows": rows})
        return 0
    shown = [{**row, "discordant": f"{row['discordant']:.1%}", "cases needed": _needed(row)} for row in rows]
    if cases is not None:
        shown = [{**row, f"power of {cases:,} cases": f"{row['power']:.1%}"} for row in shown]
    table(shown, ("discordant", "cases needed", *((f"power of {cases:,} cases",) if cases is not None else ())))
    out().print(f"to show {gain:.1%} at α = {alpha:g} with a chance of {power:.0%}, one-sided", markup=False)
    return 0


def _row(discordant: float, gain: float, alpha: float, power: float, cases: int | None) -> dict[str, Any]:
    from suites.statistics import EXACT_POWER_UP_TO, cases_for_power, power_of

    needed = cases_for_power(discordant, gain, alpha, power)
    row: dict[str, Any] = {"discordant": discordant, "cases_needed": needed, "exact": needed <= EXACT_POWER_UP_TO}
    return row if cases is None else {**row, "power": power_of(cases, discordant, gain, alpha)}


def _needed(row: dict[str, Any]) -> str:
    return f"{row['cases_needed']:,}" if row["exact"] else f"about {row['cases_needed']:,}"


def _shares(given: str | None, gain: float) -> list[float]:
    """The shares to tabulate: those given, else the common ones that such a gain can come with.

    Raises BadInput for what is no share. One below the gain is told by the statistics: more cases must differ than
    are gained.
    """
    from prompts.errors import BadInput

    if given is None:
        return [share for share in DISCORDANT if share >= gain] or [gain]
    try:
        return [float(part) for part in given.split(",")]
    except ValueError as error:
        raise BadInput(
            f"--discordant {given}: write shares with commas between, 0.1,0.2", param="discordant"
        ) from error
