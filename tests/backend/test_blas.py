"""The threads of numpy's BLAS, which are in the way of those of the kernels, and its own kernels."""

import os
import platform
import subprocess
import sys

import pytest

from cfgnet.backend import blas, get_backend


def test_blas_has_one_thread_beside_threads_of_our_own():
    get_backend("numpy", 2)
    assert blas.threads() in (1, None)


@pytest.mark.parametrize(("given", "expected"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "2"}, "2")])
def test_blas_starts_without_threads_of_its_own_unless_the_user_wants_some_and_can_be_given_some(given, expected):
    code = (
        "from cfgnet.backend import blas\n"
        "blas.start_alone()\n"
        "import numpy\n"
        "print(blas.threads(), blas.set_threads(2) and blas.threads())"
    )
    own = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    said = subprocess.run(
        [sys.executable, "-c", code], env={**own, **given}, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() in ([expected, "2"], ["None", "False"])


@pytest.mark.skipif(platform.machine() != "x86_64" or not blas.processor(), reason="OpenBLAS for x86-64")
def test_it_is_said_for_which_processor_the_kernels_of_blas_are():
    code = "from cfgnet.backend.numpy import blas; print(blas())"
    env = {**os.environ, "OPENBLAS_CORETYPE": "Nehalem"}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert said.stdout.strip().endswith(" for Nehalem")
