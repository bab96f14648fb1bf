"""Cross-entropies and label smoothing against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from slimjax.errors import UserError
from slimjax.nn import losses

LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 0, 1])


def test_cross_entropy_of_one_hot_targets_is_the_mean_negative_log_likelihood():
    ours = losses.cross_entropy(jnp.asarray(LOGITS), losses.smooth_labels(jnp.asarray(LABELS), 4))
    assert ours == pytest.approx(-log_softmax(LOGITS, -1)[np.arange(6), LABELS].mean(), rel=1e-6)


@pytest.mark.parametrize(("form", "on", "off"), [("all", 0.925, 0.025), ("others", 0.9, 0.1 / 3)])
def test_label_smoothing_has_both_forms_of_the_papers(form, on, off):
    row = losses.smooth_labels(jnp.array([2]), 4, 0.1, form)[0]
    np.testing.assert_allclose(row, [off, off, on, off], rtol=1e-6)


def test_label_smoothing_refuses_an_unknown_form():
    with pytest.raises(UserError, match="'all' or 'others'"):
        losses.smooth_labels(jnp.asarray(LABELS), 4, 0.1, "some")


def test_soft_cross_entropy_has_the_gradient_of_the_kl_divergence():
    teacher = jax.nn.softmax(jnp.asarray(LOGITS[::-1].copy()))

    def kl(x):
        return (teacher * (jnp.log(teacher) - jax.nn.log_softmax(x))).sum(-1).mean()

    ours = jax.grad(lambda x: losses.cross_entropy(x, teacher))(jnp.asarray(LOGITS))
    np.testing.assert_allclose(ours, jax.grad(kl)(jnp.asarray(LOGITS)), atol=1e-7)
    assert losses.cross_entropy(jnp.asarray(LOGITS), teacher) > kl(jnp.asarray(LOGITS))
