"""The cache of compiled programs: bounded and counted."""

import jax
import jax.numpy as jnp

from slimjax.programs import Programs


def plus(n):
    return lambda: jax.jit(lambda x: x + n)


def test_run_compiles_each_key_once():
    programs = Programs(4)
    assert [float(programs.run(n, plus(n), jnp.ones(()))) for n in (1, 2, 1, 1)] == [2, 3, 2, 2]
    assert programs.compiles == 2


def test_least_recently_used_program_goes_first():
    programs = Programs(2)
    for n in (1, 2, 1, 3):
        programs.run(n, plus(n), jnp.ones(()))
    assert [key for key, _ in programs.live()] == [1, 3]
