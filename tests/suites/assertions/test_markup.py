import contextlib
import time

import pytest

from suites.assertions import AssertionErrored
from tests.suites.assertions.judging import errored, holds, judged, refused

LAUGHS = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;&x;">]><a>&y;</a>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'
TREE = "<order><item><name>a</name></item><item><price>1</price></item></order>"


@pytest.mark.parametrize(
    ("kind", "value", "right", "wrong"),
    [
        ("is-xml", None, "<a><b/>text</a>\n", "<a><b></a>"),
        ("is-xml", None, '<?xml version="1.0" encoding="latin-1"?><a>é</a>', "Here: <a/>"),
        ("is-xml", None, "<a/>", ""),
        ("is-xml", None, "<a/>", "<a/><b/>"),
        ("is-xml", None, '<!DOCTYPE html SYSTEM "x.dtd"><a/>', LAUGHS),
        ("is-xml", None, "<a>&lt;&#233;</a>", OUTSIDE),
        ("is-xml", {"requiredElements": ["order.item.price"]}, TREE, "<order><item/></order>"),
        ("is-xml", ["order.item.1.price"], TREE, "<order><item><price/></item></order>"),
        ("is-xml", "order.item, order", TREE, "<item/>"),
        ("contains-xml", None, "Sure: <a><b>1</b></a>, done", "Sure: <a><b>1</a>"),
        ("contains-xml", None, "1 < 2 <br> but <ok/>", "1 < 2 <br> 3"),
        ("contains-xml", {"requiredElements": ["b.c"]}, "<a/> <b><c>x</c></b>", "<a><b><c/></b></a>"),
        ("is-html", None, "<div class='a>b'>x<br>y</div>", "<div>not closed"),
        ("is-html", None, "<!DOCTYPE html><html><head><title>a < b</title></head><body><p>x<p>y</html>", "just text"),
        ("is-html", None, "<ul><li>a<li>b</ul><!-- done -->", "before <p>x</p>"),
        ("is-html", None, "<my-part></my-part>", "<root><child/></root>"),
        ("is-html", None, "<script>if (a < b) {}</script>", '<?xml version="1.0"?><p>x</p>'),
        ("is-html", None, "<img src=x /><p>1 < 2</p>", "<b>x</i></b>"),
        ("contains-html", None, "Look: <b>bold</b>.", "a < b and c > d"),
        ("contains-html", None, "<!-- one --> &amp;", "AT&amp;T"),
        ("contains-html", None, "x<br>y", "<example>"),
    ],
)
def test_each_type_holds_and_fails_and_is_turned_round_by_not(kind, value, right, wrong):
    assert holds(kind, right, value)
    assert not holds(kind, wrong, value)
    assert not holds("not-" + kind, right, value)
    assert holds("not-" + kind, wrong, value)


def test_the_reason_says_what_is_wrong():
    assert "without order.total" in judged("is-xml", TREE, ["order.total"]).reason
    assert "could declare entities without end" in judged("is-xml", LAUGHS).reason
    assert "<div> is not closed" in judged("is-html", "<div>").reason
    assert "text outside of any element: 'Sure:'" in judged("is-html", "Sure: <b>x</b>").reason


HOSTILE = [
    "<a>",
    "<a ",
    "<",
    "<!--",
    "<a b='",
    "</",
    "<a><!--",
    "<![CDATA[",
    "&a",
    "<script>",
    "<a/>",
    "<?",
    "<!",
    "<a>x</b>",
]


IN_SECONDS = pytest.param("contains-html", marks=pytest.mark.integration)  # reads as `is-html` does


@pytest.mark.integration
@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("kind", ["is-xml", "contains-xml", "is-html", IN_SECONDS])
def test_a_megabyte_of_pieces_takes_seconds(kind, piece):
    started = time.process_time()
    with contextlib.suppress(AssertionErrored):
        judged(kind, piece * (1_000_000 // len(piece)))
    assert time.process_time() - started < 20


def test_what_nests_without_end_is_errored():
    assert "1,000 levels" in errored("is-xml", "<a>" * 5_000 + "</a>" * 5_000)
    assert "1,000 levels" in errored("contains-xml", "<a>" * 5_000)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "is-xml", "value": {"required": ["a"]}}, "takes requiredElements alone"),
        ({"type": "is-xml", "value": 5}, "takes paths of elements"),
        ({"type": "contains-xml", "value": ["a", 5]}, "every path of `contains-xml` is text"),
        ({"type": "is-xml", "value": ["a..b"]}, "are not paths of elements"),
        ({"type": "is-xml", "value": []}, "are not paths of elements"),
        ({"type": "is-html", "value": "x"}, "has no value"),
        ({"type": "contains-html", "threshold": 1}, "has no threshold"),
    ],
)
def test_a_spec_that_could_not_be_judged_is_refused(spec, message):
    assert message in refused(**spec)[0]
