"""``python -m bench --isa``: every library's switch is set, and what runs wider vectors all the same is found out."""

import os

import pytest

from bench import isa, record, vectors
from bench.worker import CHOSEN, VARIABLES, settle


def test_what_ties_a_peers_hands_is_taken_out():
    environment = {"OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_L2_SIZE": "1", "HOME": "/"}
    settle(environment)
    assert environment == {"HOME": "/"}


def test_an_instruction_set_is_kept_by_all_that_a_process_starts():
    environment = {"OPENBLAS_CORETYPE": "Prescott"}
    isa.choose("avx2", environment)
    assert environment == {CHOSEN: "avx2", **VARIABLES["avx2"]}
    settle(environment)  # as a contestant does
    assert environment["OPENBLAS_CORETYPE"] == "Haswell"


def test_without_an_instruction_set_nothing_is_set():
    environment: dict[str, str] = {}
    isa.choose(None, environment)
    assert environment == {}


@pytest.mark.parametrize(("rate", "wider"), [(98.0, False), (104.0, False), (150.0, True)])
def test_a_product_faster_than_the_peak_runs_wider_vectors(rate, wider):
    said = isa.words({"runs": "XLA with --xla_cpu_max_isa=AVX2"}, [(90.0, 100.0), (rate, 100.0)])
    assert said.startswith("XLA with --xla_cpu_max_isa=AVX2; product of 768³")
    assert ("WIDER" in said) == wider


@pytest.mark.parametrize("library", vectors.LIBRARIES)
def test_every_library_says_what_it_runs(library, monkeypatch):
    pytest.importorskip({"scikit-learn": "sklearn"}.get(library, library))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    try:
        said, product = vectors.LIBRARIES[library]()
        product()
    except FileNotFoundError:
        pytest.skip("tinygrad's CPU device needs clang, which is not installed")
    assert said


@pytest.mark.parametrize(
    ("rounds", "beyond"), [((0.9, 0.95, 1.0), False), ((0.98, 1.02, 1.1), False), ((1.01, 1.2, 1.3), True)]
)
def test_a_contestant_beyond_the_limit_in_every_round_is_named(rounds, beyond):
    section = record.Section(
        [{"contestant": "numpy", "share_of_limit": record.spread(rounds)}, {"contestant": "limit"}]
    )
    assert bool(section.beyond) == beyond
