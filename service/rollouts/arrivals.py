"""When counted units came, so that variants are compared over requests that both have had the time to answer."""

from __future__ import annotations

from array import array
from bisect import bisect_right, insort

from suites.rollouts import Tally

LONGEST_S = 300.0  # that a look waits for: what takes longer is late, whatever it says


class Arrivals:
    """Times of one variant's units, in seconds, in their order: 8 bytes each.

    A log has outcomes in the order in which they ended. Of two variants the slower one therefore seems to be asked less, and
    to fail less, until its slow answers are there.
    """

    def __init__(self) -> None:
        self._good = array("d")
        self._bad = array("d")
        self._turned = 0  # units that were good until somebody complained

    def add(self, arrived_s: float, is_bad: bool) -> None:
        times = self._bad if is_bad else self._good
        if not times or arrived_s >= times[-1]:
            times.append(arrived_s)
        else:
            insort(times, arrived_s)

    def turn(self) -> None:
        """One unit that was good is bad after all."""
        self._turned += 1

    def until(self, arrived_s: float) -> Tally:
        """The units that came by then."""
        good, bad = bisect_right(self._good, arrived_s), bisect_right(self._bad, arrived_s)
        return Tally(good=max(0, good - self._turned), bad=bad + self._turned)
