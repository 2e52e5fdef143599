"""The joblib backend."""

from __future__ import annotations

import math
import os
from typing import Any

import joblib
import numpy
import pytest

from actorlib.util.joblib import ActorlibBackend, register_actorlib, register_ray

pytestmark = pytest.mark.usefixtures("local")


@pytest.fixture(autouse=True)
def registered() -> None:
    register_actorlib()


def fail(value: int) -> int:
    raise LookupError(f"no {value}")


def read_variable(name: str) -> str | None:
    return os.environ.get(name)


def nested(value: int) -> list[float]:
    results: list[float] = joblib.Parallel(n_jobs=2)(joblib.delayed(math.sqrt)(value) for _ in range(2))
    return results


def test_results_in_order() -> None:
    with joblib.parallel_config(backend="actorlib", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(math.sqrt)(i * i) for i in range(100)) == list(range(100))


def test_it_runs_elsewhere() -> None:
    with joblib.parallel_config(backend="actorlib", n_jobs=2):
        assert os.getpid() not in joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(4))


def test_closures_and_arrays() -> None:
    factor = 3
    array = numpy.arange(100_000)
    with joblib.parallel_config(backend="actorlib", n_jobs=2):
        results = joblib.Parallel()(joblib.delayed(lambda part: int(part.sum()) * factor)(array) for _ in range(4))
    assert results == [int(array.sum()) * 3] * 4


def test_an_error_is_raised_and_the_backend_goes_on() -> None:
    with joblib.parallel_config(backend="actorlib", n_jobs=2), joblib.Parallel() as parallel:
        with pytest.raises(LookupError, match="no 1"):
            parallel(joblib.delayed(fail)(1) for _ in range(3))
        assert parallel(joblib.delayed(abs)(-i) for i in range(3)) == [0, 1, 2]


def test_nested_calls() -> None:
    with joblib.parallel_config(backend="actorlib", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(nested)(4) for _ in range(3)) == [[2.0, 2.0]] * 3


def test_generator_of_results() -> None:
    with joblib.parallel_config(backend="actorlib", n_jobs=2):
        results = joblib.Parallel(return_as="generator")(joblib.delayed(abs)(-i) for i in range(10))
        assert list(results) == list(range(10))


@pytest.mark.parametrize(("asked", "given"), [(None, 1), (1, 1), (3, 3), (-1, 2), (-2, 1), (-9, 1)])
def test_number_of_processes(asked: int | None, given: int) -> None:
    assert ActorlibBackend().effective_n_jobs(asked) == given


def test_zero_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="no meaning"):
        ActorlibBackend().effective_n_jobs(0)


def test_rays_name_and_options() -> None:
    register_ray()
    options: dict[str, Any] = {"runtime_env": {"env_vars": {"JOB_MARK": "seen"}}}
    with joblib.parallel_config(backend="ray", n_jobs=2, ray_remote_args=options):
        assert joblib.Parallel()(joblib.delayed(read_variable)("JOB_MARK") for _ in range(2)) == ["seen"] * 2
