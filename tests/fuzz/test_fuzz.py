"""The short form of `make fuzz`: all of the corpus, and a few hundred cases of a fixed seed."""

import random

import pytest

from tests.fuzz.__main__ import run_case
from tests.fuzz.targets import TARGETS, check_fetch, corpus
from tests.support.one_record import BOTH, decode_one

CASES = 300


@pytest.mark.parametrize("number", range(len(corpus("batches"))))
def test_the_corpus_of_batches(number):
    """The laws of a fetch hold for each batch of the corpus, from its first offset on and from later ones."""
    for position in (0, 1, 5):
        check_fetch(corpus("batches")[number], position)


@pytest.mark.parametrize("number", range(len(corpus("records"))))
def test_the_corpus_of_records(number):
    """Both paths of decode agree on each record of the corpus."""
    decode_one(corpus("records")[number], b"u-14", BOTH)


@pytest.mark.parametrize("target", TARGETS)
def test_cases_of_one_seed(target):
    """What is fuzzed for an hour every night holds for a few hundred cases here."""
    kept = corpus(target)
    for case in range(CASES):
        run_case(target, 1, case, kept)


def test_a_case_is_its_seed():
    """The same seed and number make the same case."""
    drawn = [random.Random("batches 3 4").randbytes(8) for _ in range(2)]
    assert drawn[0] == drawn[1]
