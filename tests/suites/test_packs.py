import json

import pytest

from suites.case import Suite
from suites.packs import CHUNKS_KEPT, ITEMS_A_CHUNK, SPOOLED_BYTES, Packed, Packer, Spool, expand


def suite(count):
    tests = [
        {"vars": {"n": number}, "assert": [{"type": "equals", "value": f"{number % 3}"}], "tags": ["a"] * (number % 2)}
        for number in range(count)
    ]
    return Suite.from_data({"prompt": "p", "tests": tests})


@pytest.mark.parametrize("count", [1, ITEMS_A_CHUNK - 1, ITEMS_A_CHUNK, ITEMS_A_CHUNK + 1, 3 * ITEMS_A_CHUNK])
def test_packed_items_are_a_sequence_like_any_other(count):
    packer = Packer(list)
    for number in range(count):
        packer.add(number)
    packed = packer.packed(expand)
    assert list(packed) == list(range(count)) == list(packed)
    assert (len(packed), packed[0], packed[-1]) == (count, 0, count - 1)
    assert packed[0:count:100] == list(range(0, count, 100))
    assert packed == list(range(count))
    assert packed != list(range(1, count + 1))
    with pytest.raises(IndexError):
        packed[count]


@pytest.mark.parametrize(("chunks", "reads"), [(CHUNKS_KEPT, CHUNKS_KEPT), (CHUNKS_KEPT + 1, 3 * (CHUNKS_KEPT + 1))])
def test_a_sequence_of_few_chunks_is_made_once_and_of_a_long_one_few_are_held(chunks, reads):
    made = []

    def read(chunk):
        made.append(chunk)
        return [chunk] * ITEMS_A_CHUNK

    packed = Packed([bytes([number]) for number in range(chunks)], chunks * ITEMS_A_CHUNK, read)
    for _ in range(3):
        assert sum(1 for _ in packed) == chunks * ITEMS_A_CHUNK
    assert len(made) == reads


def test_chunks_that_are_many_leave_memory_and_are_found_again():
    spool = Spool(bytes([number]) * (SPOOLED_BYTES // 4) for number in range(9))
    assert [chunk[0] for chunk in spool] == list(range(9))
    assert {len(chunk) for chunk in spool} == {SPOOLED_BYTES // 4}
    spool.append(b"last")
    assert (spool[0][0], spool[-1], len(spool)) == (0, b"last", 10)


def test_a_suite_read_from_its_chunks_is_the_suite():
    whole = suite(600)
    stored = Suite.from_packed(json.loads(json.dumps(whole.head_data())), list(whole.packed.chunks), 600)
    assert isinstance(stored.tests, Packed)
    assert stored == whole
    assert stored.as_data() == whole.as_data()
    assert stored.digest == whole.digest
    assert [case.id for case in stored.tests] == [case.id for case in whole.tests]
    assert stored.kinds == {"equals"}


def test_a_digest_says_the_same_of_cases_in_memory_and_in_chunks():
    import hashlib

    whole = suite(3)
    text = json.dumps(whole.as_data(), sort_keys=True, separators=(",", ":"))
    assert whole.digest == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_every_field_of_a_case_survives_its_chunk():
    case = {
        "vars": {"t": "é", "n": [1, {"a": None}]},
        "assert": [{"type": "assert-set", "threshold": 0.5, "assert": [{"type": "contains", "value": "{{ t }}"}]}],
        "threshold": 0.0,
        "must_pass": True,
        "description": "d",
        "tags": ["x"],
        "placeholders": {"history": [{"role": "user", "content": "hi"}]},
    }
    whole = Suite.from_data({"prompt": "p", "tests": [case]})
    stored = Suite.from_packed(whole.head_data(), list(whole.packed.chunks), 1)
    assert stored.as_data()["tests"][0] == case
    assert stored.tests[0] == whole.tests[0]
