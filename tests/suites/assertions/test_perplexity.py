import pytest

from prompts.messages import Completion
from suites.assertions import Output
from suites.runner import output_of
from tests.suites.assertions.judging import errored, holds, judged, refused

HALVES = Output("x", logprobs=(-0.6931471805599453, -0.6931471805599453))  # a perplexity of 2


def test_perplexity_must_be_at_most_and_its_score_at_least_the_threshold():
    assert holds("perplexity", HALVES, threshold=2.0000001)
    assert not holds("perplexity", HALVES, threshold=1.9)
    assert holds("not-perplexity", HALVES, threshold=1.9)
    assert judged("perplexity-score", HALVES, threshold=0.3).score == pytest.approx(1 / 3)
    assert not holds("perplexity-score", HALVES, threshold=0.34)


def test_without_log_probabilities_it_is_errored():
    assert "gave no log-probabilities" in errored("perplexity", "x", threshold=5)
    assert "gave no log-probabilities" in errored("perplexity-score", Output("x", logprobs=()), threshold=0.5)


def test_a_token_that_was_impossible_does_not_overflow():
    assert not holds("perplexity", Output("x", logprobs=(-9999.0,)), threshold=5)


def test_they_come_from_the_details_of_a_completion():
    assert output_of(Completion("x", details={"logprobs": [-0.5, -1.5]})).logprobs == (-0.5, -1.5)


def test_a_spec_that_could_not_be_judged_is_refused():
    assert "needs a threshold" in refused(type="perplexity")[0]
    assert "has no value" in refused(type="perplexity", value=5, threshold=5)[0]
    assert "has scores from 0 to 1" in refused(type="perplexity-score", threshold=5)[0]
    assert holds("perplexity", HALVES, weight=0)
