"""Cross-entropies. Letters: B batch, K classes. All are means over the batch, in float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from slimjax.errors import UserError


def smooth_labels(labels_B: jax.Array, classes: int, epsilon: float = 0.0, form: str = "all") -> jax.Array:
    """Target distributions [B, K]. The papers use two forms of label smoothing.

    Args:
      labels_B: int [B].
      epsilon: probability taken from the label, 0 to 1.
      form: "all": epsilon / K on every class, the label included (Joslim, AttentiveNAS);
        "others": epsilon / (K - 1) on the other classes (AutoSlim).
    """
    onehot_BK = jax.nn.one_hot(labels_B, classes)
    if form == "all":
        return (1 - epsilon) * onehot_BK + epsilon / classes
    if form == "others":
        return (1 - epsilon) * onehot_BK + epsilon / (classes - 1) * (1 - onehot_BK)
    raise UserError(f"label smoothing form: expected 'all' or 'others', got {form!r}.")


def cross_entropy(logits_BK: jax.Array, targets_BK: jax.Array) -> jax.Array:
    """Mean over the batch of -sum_k target_k log softmax(logits)_k.

    With a detached teacher's softmax as target this is in-place distillation (US-Net, section 3.3;
    temperature 1, no ground truth). It differs from the KL divergence by the teacher's entropy: same
    gradient, larger value.
    """
    return -(targets_BK * jax.nn.log_softmax(logits_BK)).sum(-1).mean()


def correct(logits_BK: jax.Array, labels_B: jax.Array) -> jax.Array:
    """float32 [B]: 1 where the label has the largest logit."""
    return (logits_BK.argmax(-1) == labels_B).astype(jnp.float32)
