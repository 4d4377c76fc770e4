import pytest

from suites.schedule import check_schedule


@pytest.mark.parametrize("text", ["0 3 * * *", "*/15 0-6 1,15 jan-jun MON-FRI", "59 23 31 12 7", "0 0 * * 0"])
def test_cron_expressions_are_accepted(text):
    assert check_schedule(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0 3 * *", "five fields"),
        ("60 3 * * *", "'60' is no minute"),
        ("0 24 * * *", "is no hour"),
        ("0 3 0 * *", "is no day of month"),
        ("0 3 * foo *", "'foo' is no month"),
        ("0 3 * * 8", "is no day of week"),
        ("5-1 3 * * *", "'5-1' is no minute"),
        ("*/0 3 * * *", "is no minute"),
        ("@daily", "five fields"),
        (", 3 * * *", "is no minute"),
    ],
)
def test_anything_else_is_refused_with_the_field_it_is_wrong_in(text, reason):
    with pytest.raises(ValueError, match=reason):
        check_schedule(text)
