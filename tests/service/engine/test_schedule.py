"""What the generator does when more is asked than it can do at once: order, refusals, and want of memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from service.engine.asks import Ask, DeadlinePassed, OutOfMemory, Piece, QueueFull

pytestmark = [
    pytest.mark.integration,  # a tiny model
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


def ask(text: str, **changes: Any) -> Ask:
    return Ask(({"role": "user", "content": text},), **{"max_tokens": 8, "temperature": 0, **changes})


def long(text: str, **changes: Any) -> Ask:
    """One that does not end by itself."""
    return ask(text, **{"max_tokens": 40, "logit_bias": ((2, -100.0),), **changes})


@pytest.fixture
def generator(tiny_folder: Path) -> Iterator[Any]:
    import torch

    from service.engine.core import Generator
    from service.engine.limits import Limits
    from service.engine.model import LoadedModel

    made = Generator(LoadedModel(tiny_folder, torch.device("cpu")), Limits(max_queue=40, rows=4, reserve=1))
    yield made
    made.stop()


def ended(generator: Any, asks: list[Ask]) -> list[str]:
    """The messages of `asks` in the order in which their answers came; all are there when the engine begins."""
    order: list[str] = []
    futures = []
    for one in asks:
        future = generator.submit(one)
        future.add_done_callback(lambda _, text=one.messages[0]["content"]: order.append(text))
        futures.append(future)
    generator.start()
    for future in futures:
        future.result(60)
    return order


def test_somebody_who_waits_goes_before_a_whole_run(generator: Any) -> None:
    run = [long(f"case {number}", priority=10, flow="suite") for number in range(20)]
    order = ended(generator, [*run, long("person", flow="chat")])
    assert order.index("person") <= 5


def test_one_who_waits_finds_a_row_though_a_run_holds_all_others(generator: Any) -> None:
    generator.start()
    cases = [generator.submit(long(f"case {n}", max_tokens=400, priority=10)) for n in range(8)]
    while generator.counters.live < 4:
        time.sleep(0.005)
    assert generator.submit(ask("person", max_tokens=2)).result(60)
    assert not any(case.done() for case in cases)
    for case in cases:
        case.cancel()


def test_a_flooding_prompt_does_not_starve_another(generator: Any) -> None:
    flood = [long(f"flood {number}", flow="a") for number in range(24)]
    order = ended(generator, [*flood, *(long(f"other {number}", flow="b") for number in range(3))])
    assert max(order.index(f"other {number}") for number in range(3)) < 14


@pytest.fixture
def taken_in(generator: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts that become tokens in each turn; each takes a quarter of what a turn gives them while somebody waits."""
    found: list[list[str]] = [[]]
    encode, turn = generator._model.encode, generator._schedule.turn

    def slowly(messages: Any) -> Any:
        text = messages[0]["content"]
        if text.startswith(("case", "person")):  # not what the tolerance is measured with
            time.sleep(0.005)
            found[-1].append(text)
        return encode(messages)

    def next_turn() -> None:
        turn()
        found.append([])

    monkeypatch.setattr(generator._model, "encode", slowly)
    monkeypatch.setattr(generator._schedule, "turn", next_turn)
    return found


def test_a_flood_that_arrives_is_taken_in_between_tokens_and_the_urgent_first(
    generator: Any, taken_in: list[list[str]]
) -> None:
    order = ended(generator, [*(ask(f"case {number}", priority=10) for number in range(25)), long("person")])
    assert len(order) == 26
    turns = [turn for turn in taken_in if turn]
    assert turns[0][0] == "person"
    assert max(map(len, turns[:3])) <= 5  # as long as the person waits


def test_cases_for_which_nobody_waits_are_taken_in_and_computed_together(
    generator: Any, taken_in: list[list[str]]
) -> None:
    assert len(ended(generator, [ask(f"case {number}", priority=10) for number in range(25)])) == 25
    assert max(map(len, taken_in)) > 10


def test_a_full_queue_says_when_to_come_again_and_keeps_room_for_those_who_wait(generator: Any) -> None:
    for number in range(30):
        generator.submit(ask(f"case {number}", priority=10))
    with pytest.raises(QueueFull, match=r"30 answers .* are waiting already") as caught:
        generator.submit(ask("one case more", priority=10))
    assert 1 <= caught.value.retry_after_s <= 60
    for number in range(10):
        generator.submit(ask(f"person {number}"))
    with pytest.raises(QueueFull):
        generator.submit(ask("one person more"))
    assert generator.counters.refused == 2


def test_a_queue_is_bounded_by_the_size_of_its_messages(tiny_folder: Path) -> None:
    import torch

    from service.engine.core import Generator
    from service.engine.limits import Limits
    from service.engine.model import LoadedModel

    idle = Generator(LoadedModel(tiny_folder, torch.device("cpu")), Limits(queue_bytes=1000))
    first = idle.submit(ask("a", size_bytes=900))
    with pytest.raises(QueueFull):
        idle.submit(ask("b", size_bytes=200))
    first.cancel()
    idle.submit(ask("b", size_bytes=200))


def test_a_cancelled_answer_frees_its_row_at_the_next_token(generator: Any) -> None:
    generator.start()
    futures = [generator.submit(long(f"long {n}", max_tokens=1500)) for n in range(5)]
    while generator.counters.live < 5:
        time.sleep(0.005)
    for future in futures:
        future.cancel()
    assert generator.submit(ask("next")).result(60)
    with pytest.raises(CancelledError):
        futures[0].result(1)
    assert generator.in_flight == 0
    assert generator.counters.cancelled == 5


def test_an_answer_that_ends_with_its_first_token_moves_no_others(
    generator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.engine import decoding

    real, joined = decoding.join, []

    def joining(several: Any) -> Any:
        joined.append(len(several))
        return real(several)

    monkeypatch.setattr(decoding, "join", joining)
    generator.start()
    running = generator.submit(long("a", max_tokens=400))
    while not generator.counters.live:
        time.sleep(0.005)
    for number in range(3):
        assert generator.submit(ask(f"label {number}", max_tokens=1)).result(60).completion_tokens == 1
    assert not joined
    assert generator.submit(ask("two", max_tokens=2)).result(60).completion_tokens == 2
    assert joined == [2]
    running.cancel()


def test_late_requests_are_dropped_in_the_queue_and_in_the_batch(generator: Any) -> None:
    futures = [generator.submit(long(f"long {n}", max_tokens=1500, timeout_s=0.3)) for n in range(12)]
    generator.start()
    for future in futures:
        with pytest.raises(DeadlinePassed, match=r"no whole answer within 0\.3 s"):
            future.result(30)
    assert generator.counters.late == 12


def short_of_memory(monkeypatch: pytest.MonkeyPatch, generator: Any, most_rows: int, name: str) -> None:
    """From now on the model has memory for `most_rows` rows at a time."""
    import torch

    real = getattr(generator._model.forward, name)

    def limited(*arguments: Any) -> Any:
        rows = len(arguments[1]) if name == "prefill" else len(arguments[0])
        if rows > most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments)

    monkeypatch.setattr(generator._model.forward, name, limited)


@pytest.mark.parametrize("name", ["prefill", "advance"])
@pytest.mark.parametrize("most_rows", [1, 2])
def test_want_of_memory_halves_the_batch_and_answers_all(
    generator: Any, monkeypatch: pytest.MonkeyPatch, name: str, most_rows: int
) -> None:
    asks = [long(f"case {number}", max_tokens=6, temperature=1.0, seed=3) for number in range(6)]
    pieces: list[Piece] = []
    generator.start()
    expected = [generator.submit(one).result(60).text for one in asks]
    short_of_memory(monkeypatch, generator, most_rows, name)
    futures = [generator.submit(one, pieces.append if one is asks[0] else None) for one in asks]
    assert [future.result(60).text for future in futures] == expected
    assert "".join(piece.text for piece in pieces) == expected[0]
    assert generator.alive


def test_a_request_that_is_too_large_alone_fails_by_itself(generator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generator.start()
    monkeypatch.setattr("service.engine.decoding.LEAST_PREFIX", 10**6)
    short_of_memory(monkeypatch, generator, 0, "prefill")
    with pytest.raises(OutOfMemory, match="more memory than there is"):
        generator.submit(ask("a")).result(60)
    monkeypatch.undo()
    assert generator.submit(ask("b")).result(60).completion_tokens > 0


@pytest.mark.parametrize(("name", "greedy"), [("prefill", False), ("advance", False), ("prefill", True)])
def test_a_lone_request_is_answered_where_dropping_what_is_held_of_others_is_enough(
    generator: Any, monkeypatch: pytest.MonkeyPatch, name: str, greedy: bool
) -> None:
    import torch

    generator.start()
    generator.tolerances[None] = 1e9 if greedy else 0.0  # a greedy one is asked again alone
    for future in [generator.submit(ask(f"the same beginning, {n}", temperature=1.0)) for n in range(3)]:
        future.result(60)
    assert generator.prefixes.held_bytes > 0
    real = getattr(generator._model.forward, name)

    def beside_prefixes(*arguments: Any) -> Any:
        if generator.prefixes.held_bytes > 0 and (not greedy or generator.counters.asked_again):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments)

    monkeypatch.setattr(generator._model.forward, name, beside_prefixes)
    lone = long("the same beginning, and more", temperature=0 if greedy else 1.0)
    assert generator.submit(lone).result(60).completion_tokens == 40
    assert generator.counters.halvings == 1


def test_one_that_is_asked_again_and_does_not_fit_alone_is_told_so(
    generator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from service.engine import decoding

    real = decoding.prefill

    def only_together(*arguments: Any) -> Any:
        if len(arguments[2]) == 1 and len(arguments) == 3:  # without a shared prefix: alone
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments)

    generator.start()
    generator.tolerances[None] = 1e9
    monkeypatch.setattr(decoding, "prefill", only_together)
    with pytest.raises(OutOfMemory, match="more memory than there is"):
        generator.submit(ask("a", n=2, temperature=1.0, seed=3)).result(60)
    assert generator.alive


def test_rows_come_back_once_there_is_memory(generator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generator._schedule._grow_after = 4
    generator.start()
    short_of_memory(monkeypatch, generator, 1, "advance")
    for future in [generator.submit(long(f"a {n}", max_tokens=20)) for n in range(4)]:
        future.result(60)
    assert generator.counters.halvings > 0
    monkeypatch.undo()
    generator._schedule._grow_after = 4
    for future in [generator.submit(long(f"b {n}")) for n in range(8)]:
        future.result(60)
    assert generator.counters.ceiling == 5


def test_a_stream_asked_again_alone_tells_nothing_twice(generator: Any) -> None:
    generator.start()
    pieces: dict[str, list[str]] = {}

    def listening(text: str) -> Any:
        def listen(piece: Piece) -> None:
            told = pieces.setdefault(text, [])
            told.append(piece.text)
            if len(told) == 5:  # from now on everything is too close to call
                generator.tolerances[None] = 1e9

        return generator.submit(long(text, max_tokens=24), listen)

    futures = {f"ticket {n}": listening(f"ticket {n}") for n in range(3)}
    for text, future in futures.items():
        answer = future.result(60)
        assert answer.asked_again
        assert answer.text == "".join(pieces[text])
    assert generator.counters.asked_again == 3


def test_guides_that_are_made_are_had_without_a_turn_of_the_models_thread(generator: Any) -> None:
    generator.start()
    generator.prepare().result(60)
    running = generator.submit(long("a", max_tokens=400, temperature=1.0, seed=1))
    while not generator.counters.live:
        time.sleep(0.005)
    assert all(generator.prepare().done() for _ in range(3))  # else guided requests come in one a turn
    running.cancel()


def test_one_asked_again_alone_that_runs_out_of_memory_leaves_the_others_their_rows(
    generator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    schedule = generator._schedule
    generator.start()
    cases = [generator.submit(long(f"case {n}", max_tokens=60, temperature=1.0)) for n in range(3)]
    while generator.counters.live < 3:
        time.sleep(0.005)
    real, beside = generator._model.forward.advance, []

    def once(rows: Any, tokens: Any) -> Any:
        if schedule._alone is not None and len(rows) == 1 and not beside:
            beside.append(len(schedule._live.live))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(rows, tokens)

    monkeypatch.setattr(generator._model.forward, "advance", once)
    generator.tolerances[None] = 1e9  # whatever has to be the same each time is asked again alone
    assert generator.submit(long("greedy", max_tokens=10)).result(60).completion_tokens == 10
    assert beside[0] > 1
    assert generator.counters.ceiling == beside[0]
    assert all(case.result(60).completion_tokens == 60 for case in cases)


def test_an_unload_waits_for_what_came_before_it(generator: Any, adapters_dir: Path) -> None:
    from service.engine.adapters import read_adapter

    def turn_until(done: Callable[[], bool]) -> None:
        while not done():
            generator._turn()

    generator._measure(None, None)  # the thread is not started: its turns are made here
    loaded = generator.load_adapter("red", read_adapter("red", adapters_dir))
    turn_until(loaded.done)
    asked = generator.submit(ask("a", adapter="red"))
    unloaded = generator.unload_adapter("red")
    turn_until(lambda: asked.done() and unloaded.done())
    assert asked.result().completion_tokens > 0
    assert generator.adapters == ()


def test_a_deadline_counts_from_when_a_request_came(generator: Any) -> None:
    late = generator.submit(long("late", timeout_s=0.2))
    time.sleep(0.3)  # nobody takes it in meanwhile
    generator.start()
    with pytest.raises(DeadlinePassed):
        late.result(30)
