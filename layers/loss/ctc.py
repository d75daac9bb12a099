"""Connectionist temporal classification: the likelihood of a label sequence over all alignments.

``mlx.nn.losses`` has none. The forward variables of Graves et al. (2006) are kept as logarithms,
all samples and all positions at once, one step after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlxport.layers.loss.reduction import check_reduction, reduced
from mlxport.layers.norm.statistics import upcast

# Stands for log 0: infinity itself has no gradient. Sums of it stay finite.
_NEVER = -1e30

Lengths = mx.array | Sequence[int]


def ctc_loss(
    log_probs: mx.array,
    targets: mx.array,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> mx.array:
    """Negative log-likelihood of targets without alignment; matches ``aten::ctc_loss``.

    The gradient is PyTorch's, too: that of the logits already, which is the function's own behind
    a ``log_softmax`` and only there. Where no alignment is possible, it is 0 here and NaN there,
    unless ``zero_infinity`` makes both 0.

    A length out of range, where PyTorch raises, and a class out of range, which it does not check,
    give NaN.

    Args:
        log_probs: ``(T, N, C)`` or ``(T, C)``, logarithms of probabilities.
        targets: classes ``(N, S)``, or all sequences in a row, ``(sum(target_lengths),)``; without
            a batch ``(S,)``.
        input_lengths: ``(N,)``, or ``()`` without a batch.
        target_lengths: the same. Evaluated where the targets come in a row.
        blank: the class that stands for none.
        reduction: ``mean`` divides every loss by its target's length first.
        zero_infinity: make impossible alignments count for nothing.

    Returns:
        ``(N,)`` or ``()`` for ``none``, else ``()``.

    Raises:
        ValueError: shapes do not fit, targets in a row are fewer than their lengths say, ``blank``
            is no class, or there is no such reduction.
    """
    check_reduction("ctc_loss", reduction)
    batched = log_probs.ndim == 3
    wide = upcast(log_probs) if batched else upcast(log_probs)[:, None]
    lengths = _vector(input_lengths), _vector(target_lengths)
    _check(log_probs, targets, lengths, blank)
    labels = _padded(targets, lengths[1]) if batched and targets.ndim == 1 else targets
    losses = _losses(wide, labels.reshape(wide.shape[1], -1).astype(mx.int64), *lengths, blank)
    if zero_infinity:
        losses = mx.where(mx.isinf(losses), 0, losses)
    if reduction == "mean":
        losses = losses / mx.maximum(lengths[1], 1)
    return reduced("ctc_loss", losses if batched else losses[0], reduction, log_probs.dtype)


def _losses(
    log_probs: mx.array,
    labels: mx.array,
    input_lengths: mx.array,
    target_lengths: mx.array,
    blank: int,
) -> mx.array:
    """The loss of every sample: ``(T, N, C)`` and ``(N, S)`` to ``(N,)``."""
    last = _forward_variables(log_probs, labels, input_lengths, blank)
    ends = mx.stack([2 * target_lengths, 2 * target_lengths - 1], axis=1)
    paths = mx.take_along_axis(last, mx.clip(ends, 0, last.shape[1] - 1), axis=1)
    paths = mx.where(ends >= 0, paths, _NEVER)
    losses = _by_logits(log_probs, input_lengths) - mx.logaddexp(paths[:, 0], paths[:, 1])
    losses = mx.where(losses > -_NEVER / 10, mx.inf, losses)
    nothing = mx.where(target_lengths == 0, 0.0, mx.inf)
    losses = mx.where(input_lengths == 0, nothing, losses)
    return mx.where(_sound(log_probs, labels, input_lengths, target_lengths), losses, mx.nan)


def _sound(
    log_probs: mx.array, labels: mx.array, input_lengths: mx.array, target_lengths: mx.array
) -> mx.array:
    """Whether the lengths of each sample and its classes, ``(N,)``, are in range."""
    sound = mx.ones(labels.shape[0], dtype=mx.bool_)
    for lengths, most in ((input_lengths, log_probs.shape[0]), (target_lengths, labels.shape[1])):
        sound = sound & (lengths >= 0) & (lengths <= most)
    behind = mx.arange(labels.shape[1]) >= target_lengths[:, None]
    known = (labels >= 0) & (labels < log_probs.shape[-1])
    return sound & (known | behind).all(axis=1)


def _by_logits(log_probs: mx.array, input_lengths: mx.array) -> mx.array:
    """Return 0 for every sample, with the probabilities as gradient, which PyTorch adds."""
    running = (mx.arange(log_probs.shape[0])[:, None] < input_lengths)[..., None]
    probabilities = mx.where(running, mx.exp(log_probs), 0)
    return (probabilities - mx.stop_gradient(probabilities)).sum(axis=(0, 2))


def _forward_variables(
    log_probs: mx.array, labels: mx.array, input_lengths: mx.array, blank: int
) -> mx.array:
    """Log-likelihoods ``(N, 2S + 1)`` of every prefix of blank, label, blank … at the last step."""
    steps, samples, classes = log_probs.shape
    known = mx.clip(labels, 0, classes - 1)
    blanks = mx.full(known.shape, blank, known.dtype)
    states = mx.stack([blanks, known], axis=2).reshape(samples, -1)
    states = mx.concatenate([states, mx.full((samples, 1), blank, known.dtype)], axis=1)
    # From a label straight to the next, unless they are alike.
    leaps = mx.pad(states[:, 2:] != states[:, :-2], [(0, 0), (2, 0)])[:, : states.shape[1]]
    index = mx.broadcast_to(states, (steps, *states.shape))
    emitted = mx.take_along_axis(mx.maximum(log_probs, _NEVER), index, axis=2)
    alpha = (
        mx.where(mx.arange(states.shape[1]) < 2, emitted[0], _NEVER) if steps else emitted.sum(0)
    )
    for step in range(1, steps):
        stayed = mx.logaddexp(alpha, _delayed(alpha, 1))
        moved = mx.logaddexp(stayed, mx.where(leaps, _delayed(alpha, 2), _NEVER))
        running = (step < input_lengths)[:, None]
        alpha = mx.where(running, moved + emitted[step], alpha)
    return alpha


def _delayed(alpha: mx.array, by: int) -> mx.array:
    states = alpha.shape[1]
    return mx.pad(alpha, [(0, 0), (by, 0)], constant_values=_NEVER)[:, :states]


def _vector(lengths: Lengths) -> mx.array:
    given = lengths if isinstance(lengths, mx.array) else mx.array(list(lengths), dtype=mx.int64)
    return given.reshape(-1).astype(mx.int64)


def _padded(targets: mx.array, lengths: mx.array) -> mx.array:
    """Sequences in a row as ``(N, S)``; what is beyond the length of one is that of another."""
    if lengths.size == 0 or targets.size == 0:
        return mx.zeros((lengths.size, 0), mx.int64)
    ends = mx.cumsum(lengths)
    longest: Any = mx.max(lengths).item()
    total: Any = ends[-1].item()
    if total > targets.size:
        raise ValueError(
            f"[ctc_loss] 'target_lengths' add up to {total}, but 'targets' holds {targets.size}."
        )
    places = (ends - lengths)[:, None] + mx.arange(longest)
    return targets[mx.minimum(places, targets.size - 1)]


def _check(log_probs: mx.array, targets: mx.array, lengths: Sequence[mx.array], blank: int) -> None:
    samples = log_probs.shape[1] if log_probs.ndim == 3 else 1
    fits = targets.ndim == 1 or (targets.ndim == 2 and targets.shape[0] == samples)
    if log_probs.ndim not in (2, 3) or not fits or any(n.size != samples for n in lengths):
        raise ValueError(
            "[ctc_loss] needs log_probs (T, N, C), targets (N, S) or (sum of lengths,) and N input "
            "and target lengths, or all without N, but got shapes "
            f"{log_probs.shape}, {targets.shape}, {[n.shape for n in lengths]}."
        )
    if not 0 <= blank < log_probs.shape[-1]:
        raise ValueError(
            f"[ctc_loss] 'blank' must be one of {log_probs.shape[-1]} classes but got {blank}."
        )
