from __future__ import annotations

from dataclasses import dataclass

from service.engine.waiting import OLDEST_EVERY, Waiting


@dataclass(frozen=True, eq=False)
class One:
    """As little of a request as the queue looks at."""

    name: str
    arrival: int
    flow: str = ""
    priority: int = 0
    adapter: str | None = None
    cost: int = 100


def order(queue: Waiting[One], most: int = 100) -> list[str]:
    """The names in the order in which one after another is taken."""
    names = []
    while len(names) < most and (head := queue.next(lambda _: True)) is not None:
        queue.take([head])
        names.append(head.name)
    return names


def filled(*jobs: One) -> Waiting[One]:
    queue: Waiting[One] = Waiting()
    for job in jobs:
        queue.add(job)
    return queue


def test_those_of_one_flow_go_in_the_order_they_came() -> None:
    assert order(filled(*(One(str(n), n) for n in range(5)))) == ["0", "1", "2", "3", "4"]


def test_the_lower_priority_goes_first() -> None:
    queue = filled(*(One(f"case {n}", n, priority=10) for n in range(3)), One("person", 9, priority=0))
    assert order(queue) == ["person", "case 0", "case 1", "case 2"]


def test_a_flood_of_one_prompt_does_not_hold_up_another() -> None:
    queue = filled(
        *(One(f"flood {n}", n, flow="a") for n in range(20)), *(One(f"b {n}", 50 + n, flow="b") for n in range(3))
    )
    first = order(queue, 7)
    assert [name for name in first if name.startswith("b")] == ["b 0", "b 1", "b 2"]


def test_adapters_share_as_prompts_do() -> None:
    queue = filled(*(One(f"red {n}", n, adapter="red") for n in range(9)), One("base", 50))
    assert "base" in order(queue, 2)


def test_shares_are_counted_in_tokens() -> None:
    queue = filled(
        *(One(f"long {n}", n, flow="a", cost=400) for n in range(4)),
        *(One(f"short {n}", 10 + n, flow="b", cost=100) for n in range(12)),
    )
    first = order(queue, 5)
    assert sum(name.startswith("short") for name in first) == 4


def test_a_flow_saves_up_nothing_while_it_is_away() -> None:
    queue = filled(*(One(f"a {n}", n, flow="a") for n in range(10)))
    order(queue, 6)
    for n in range(4):
        queue.add(One(f"b {n}", 20 + n, flow="b"))
    first = order(queue, 4)
    assert sum(name.startswith("a") for name in first) >= 2


def test_nothing_waits_for_ever_behind_urgent_ones() -> None:
    queue = filled(One("case", 0, priority=10))
    for n in range(OLDEST_EVERY * 2):
        queue.add(One(f"person {n}", n + 1))
    assert "case" in order(queue, OLDEST_EVERY)


def test_company_is_of_one_adapter_and_no_later_priority() -> None:
    head = One("head", 0, adapter="red")
    queue = filled(
        One("urgent too", 1, adapter="red", flow="x"), One("base", 2), One("case", 3, adapter="red", priority=10), head
    )
    assert [job.name for job in queue.company(head)] == ["head", "urgent too"]


def test_who_has_no_room_is_passed_over_and_who_is_gone_forgotten() -> None:
    queue = filled(One("a", 0, flow="x"), One("b", 1, flow="y"))
    found = queue.next(lambda job: job.name == "b")
    assert found is not None
    assert found.name == "b"
    queue.drop(lambda job: job.name == "a")
    assert order(queue) == ["b"]
    assert len(queue) == 0
    assert queue.by_priority() == {}


def test_one_that_comes_back_is_first_again() -> None:
    queue = filled(One("a", 0), One("b", 1))
    head = queue.next(lambda _: True)
    assert head is not None
    queue.take([head])
    queue.add(head, first=True)
    assert order(queue) == ["a", "b"]


def test_flows_that_came_once_are_forgotten_and_hold_nobody_back() -> None:
    queue: Waiting[One] = Waiting()
    for number in range(1000):  # one at a time: each is taken before the next one comes
        queue.add(One(f"once {number}", number, flow=f"flow {number}"))
        order(queue)
    assert not queue._clocks
    for job in (One("comes back", 2000, flow="flow 7"), One("newcomer", 2001, flow="new")):
        queue.add(job)
    assert order(queue) == ["comes back", "newcomer"]
