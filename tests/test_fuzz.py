"""A short run of the fuzzing command: nothing that a caller sends makes a tool crash."""

from __future__ import annotations

from benchmarks.fuzzing import fuzz_arguments, fuzz_files


def test_random_arguments_are_answered_or_refused_in_one_line() -> None:
    outcome = fuzz_arguments(60, seed=1)
    assert outcome.tries == 60
    assert not outcome.failures
    assert outcome.outcomes["answered"] > 0
    assert outcome.outcomes["refused"] > 0


def test_damaged_image_files_are_decoded_or_refused() -> None:
    outcome = fuzz_files(300, seed=1)
    assert outcome.tries == 300
    assert not outcome.failures
    assert outcome.outcomes["refused"] > 0
