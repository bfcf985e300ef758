"""Errors for users: many problems are bounded without losing their number."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from beholder.errors import (
    LISTED,
    SHOWN,
    DataError,
    Problem,
    bounded,
    count_problems,
)

_PROBLEMS = st.lists(
    st.builds(
        Problem,
        st.sampled_from(["error", "warning"]),
        st.sampled_from(["missing", "tiny", "box"]),
        st.just("It is wrong."),
        row=st.integers(0, 99),
        unlisted=st.sampled_from([0, 0, 0, 7]),
    ),
    max_size=40,
)


@given(first=_PROBLEMS, second=_PROBLEMS, listed=st.integers(1, 5))
def test_bounded_lists_keep_the_first_of_a_kind_and_every_count(first, second, listed) -> None:
    together = bounded(bounded(first, listed) + bounded(second, listed), listed)
    assert count_problems(together) == count_problems(first + second)
    kept: Counter[tuple[str, str]] = Counter()
    expected = []
    for problem in first + second:
        kept[problem.severity, problem.code] += 1
        if kept[problem.severity, problem.code] <= listed:
            expected.append((problem.severity, problem.code, problem.row))
    assert [(p.severity, p.code, p.row) for p in together] == expected
    assert bounded(first, 100) == first


def test_a_message_shows_the_first_of_a_kind_and_counts_the_rest() -> None:
    problems = [Problem("error", "missing", "It is missing.", row=row) for row in range(3000)]
    error = DataError("Bad.", problems=[*problems, Problem("error", "box", "It is empty.", row=7)])
    assert len(error.problems) == LISTED + 1
    lines = str(error).splitlines()
    assert lines[:2] == ["Bad.", "  error: 0: It is missing."]
    assert len(lines) == 1 + SHOWN + 1 + 1
    further = f"  and {3000 - SHOWN} more of the kind missing"
    assert lines[-2:] == ["  error: 7: It is empty.", further]
