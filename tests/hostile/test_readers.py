"""The targets of coverage-guided fuzzing work without the fuzzer, and take what is valid."""

from __future__ import annotations

import pickle
import random

import pytest
from support import atheris_readers, mutate
from support.crafted import FIXTURES

import lstmconvert

pytestmark = pytest.mark.skipif(
    not hasattr(atheris_readers.os, "memfd_create"), reason="there are no files in memory here"
)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("valid") / "a.onnx"
    lstmconvert.convert(FIXTURES / "seed95.keras", path)
    return {
        "hdf5": (FIXTURES / "seed95.weights.h5").read_bytes(),
        "zip": (FIXTURES / "seed95.keras").read_bytes(),
        "protobuf": path.read_bytes(),
        "pickle": pickle.dumps({"a": [1, 2.0, None, True, (b"x", "y")]}, protocol=4),
    }


@pytest.mark.parametrize("name", atheris_readers.READERS)
def test_a_reader_takes_what_is_valid_and_survives_mutants(
    name: str, valid: dict[str, bytes]
) -> None:
    assert atheris_readers.read(name, valid[name]) == "accepted"
    results = set()
    for seed in range(60):
        dice = random.Random(seed)
        results.add(atheris_readers.read(name, dice.choice(mutate.BYTES)(valid[name], dice)))
    assert "refused" in results
