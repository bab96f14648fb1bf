"""The cache of compiled programs: bounded and counted."""

import jax
import jax.numpy as jnp

from slimjax.step import programs as module
from slimjax.step.programs import CPU_OPTIONS, Call, Programs, compiler_options


def plus(n):
    return lambda: jax.jit(lambda x: x + n)


def test_run_compiles_each_key_once():
    programs = Programs(4, "cpu")
    assert [float(programs.run(Call(n, plus(n), (jnp.ones(()),)))) for n in (1, 2, 1, 1)] == [2, 3, 2, 2]
    assert programs.compiles == 2


def test_least_recently_used_program_goes_first():
    programs = Programs(2, "cpu")
    for n in (1, 2, 1, 3):
        programs.run(Call(n, plus(n), (jnp.ones(()),)))
    assert [key for key, _ in programs.live()] == [1, 3]


def test_only_cpus_get_options_and_xla_flags_take_precedence(monkeypatch):
    assert compiler_options("cpu") == dict(CPU_OPTIONS)
    assert compiler_options("tpu") == {}
    monkeypatch.setenv("XLA_FLAGS", f"--{next(iter(CPU_OPTIONS))}=")
    assert compiler_options("cpu") == {}


def test_options_that_xla_does_not_know_are_left_out(monkeypatch):
    monkeypatch.setattr(module, "CPU_OPTIONS", {**CPU_OPTIONS, "xla_cpu_no_such_option": "1"})
    assert compiler_options("cpu") == dict(CPU_OPTIONS)
