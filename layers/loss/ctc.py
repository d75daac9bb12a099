"""CTC loss: the likelihood of a label sequence, summed over all alignments; MLX has none.

The forward variables of Graves et al. (2006) are computed as logarithms, for all samples and
positions at once, step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlxport.layers.loss.reduction import apply_reduction, check_reduction
from mlxport.layers.norm.statistics import upcast

# Used as log 0: infinity has no gradient. Sums of it stay finite.
_LOG_ZERO = -1e30

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
    """Return the negative log-likelihood of targets without alignment; matches ``aten::ctc_loss``.

    The gradient is PyTorch's, too: it is that with respect to logits, so it is right only if
    ``log_probs`` come from ``log_softmax``. Where no alignment is possible, it is 0 here and NaN in
    PyTorch, unless ``zero_infinity`` makes both 0.

    A length out of range, where PyTorch raises, and a class out of range, which it does not check,
    give NaN.

    Args:
        log_probs: ``(T, N, C)`` or ``(T, C)``, logarithms of probabilities.
        targets: classes ``(N, S)``, or all sequences concatenated, ``(sum(target_lengths),)``;
            without a batch ``(S,)``.
        input_lengths: ``(N,)``, or ``()`` without a batch.
        target_lengths: likewise. Evaluated at once if targets are concatenated.
        blank: the class of the blank label.
        reduction: ``mean`` divides every loss by its target's length first.
        zero_infinity: whether targets with no possible alignment have loss 0.

    Returns:
        ``(N,)`` or ``()`` for ``none``, else ``()``.

    Raises:
        ValueError: shapes do not fit, concatenated targets are fewer than their lengths add up to,
            there is no sample, ``blank`` is no class, or the reduction is unknown.
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
    return apply_reduction("ctc_loss", losses if batched else losses[0], reduction, log_probs.dtype)


def _losses(
    log_probs: mx.array,
    labels: mx.array,
    input_lengths: mx.array,
    target_lengths: mx.array,
    blank: int,
) -> mx.array:
    """Return the loss of every sample: ``(T, N, C)`` and ``(N, S)`` to ``(N,)``."""
    last = _forward_variables(log_probs, labels, input_lengths, blank)
    ends = mx.stack([2 * target_lengths, 2 * target_lengths - 1], axis=1)
    paths = mx.take_along_axis(last, mx.clip(ends, 0, last.shape[1] - 1), axis=1)
    paths = mx.where(ends >= 0, paths, _LOG_ZERO)
    losses = _gradient_by_logits(log_probs, input_lengths) - mx.logaddexp(paths[:, 0], paths[:, 1])
    losses = mx.where(losses > -_LOG_ZERO / 10, mx.inf, losses)
    nothing = mx.where(target_lengths == 0, 0.0, mx.inf)
    losses = mx.where(input_lengths == 0, nothing, losses)
    return mx.where(_valid(log_probs, labels, input_lengths, target_lengths), losses, mx.nan)


def _valid(
    log_probs: mx.array, labels: mx.array, input_lengths: mx.array, target_lengths: mx.array
) -> mx.array:
    """Return whether the lengths and classes of each sample are in range, ``(N,)``."""
    valid = mx.ones(labels.shape[0], dtype=mx.bool_)
    for lengths, most in ((input_lengths, log_probs.shape[0]), (target_lengths, labels.shape[1])):
        valid = valid & (lengths >= 0) & (lengths <= most)
    padding = mx.arange(labels.shape[1]) >= target_lengths[:, None]
    known = (labels >= 0) & (labels < log_probs.shape[-1])
    return valid & (known | padding).all(axis=1)


def _gradient_by_logits(log_probs: mx.array, input_lengths: mx.array) -> mx.array:
    """Return 0 for every sample, with the probabilities as gradient: PyTorch's is by logits."""
    running = (mx.arange(log_probs.shape[0])[:, None] < input_lengths)[..., None]
    probabilities = mx.where(running, mx.exp(log_probs), 0)
    return (probabilities - mx.stop_gradient(probabilities)).sum(axis=(0, 2))


def _forward_variables(
    log_probs: mx.array, labels: mx.array, input_lengths: mx.array, blank: int
) -> mx.array:
    """Return log-likelihoods ``(N, 2S + 1)`` of all prefixes of blank, label, blank … at last."""
    steps, samples, classes = log_probs.shape
    known = mx.clip(labels, 0, classes - 1)
    blanks = mx.full(known.shape, blank, known.dtype)
    states = mx.stack([blanks, known], axis=2).reshape(samples, -1)
    states = mx.concatenate([states, mx.full((samples, 1), blank, known.dtype)], axis=1)
    # A blank may be skipped between labels that differ.
    skips = mx.pad(states[:, 2:] != states[:, :-2], [(0, 0), (2, 0)])[:, : states.shape[1]]
    index = mx.broadcast_to(states, (steps, *states.shape))
    emitted = mx.take_along_axis(mx.maximum(log_probs, _LOG_ZERO), index, axis=2)
    alpha = (
        mx.where(mx.arange(states.shape[1]) < 2, emitted[0], _LOG_ZERO) if steps else emitted.sum(0)
    )
    for step in range(1, steps):
        stayed = mx.logaddexp(alpha, _delayed(alpha, 1))
        moved = mx.logaddexp(stayed, mx.where(skips, _delayed(alpha, 2), _LOG_ZERO))
        running = (step < input_lengths)[:, None]
        alpha = mx.where(running, moved + emitted[step], alpha)
    return alpha


def _delayed(alpha: mx.array, by: int) -> mx.array:
    states = alpha.shape[1]
    return mx.pad(alpha, [(0, 0), (by, 0)], constant_values=_LOG_ZERO)[:, :states]


def _vector(lengths: Lengths) -> mx.array:
    given = lengths if isinstance(lengths, mx.array) else mx.array(list(lengths), dtype=mx.int64)
    return given.reshape(-1).astype(mx.int64)


def _padded(targets: mx.array, lengths: mx.array) -> mx.array:
    """Return concatenated sequences as ``(N, S)``; elements beyond a length are arbitrary."""
    if targets.size == 0:
        return mx.zeros((lengths.size, 0), mx.int64)
    ends = mx.cumsum(lengths)
    longest: Any = mx.max(lengths).item()
    total: Any = ends[-1].item()
    if total > targets.size:
        raise ValueError(
            f"[ctc_loss] 'target_lengths' add up to {total}, but 'targets' holds {targets.size}."
        )
    indices = (ends - lengths)[:, None] + mx.arange(longest)
    return targets[mx.minimum(indices, targets.size - 1)]


def _check(log_probs: mx.array, targets: mx.array, lengths: Sequence[mx.array], blank: int) -> None:
    samples = log_probs.shape[1] if log_probs.ndim == 3 else 1
    fits = targets.ndim == 1 or (targets.ndim == 2 and targets.shape[0] == samples)
    if log_probs.ndim not in (2, 3) or not fits or any(n.size != samples for n in lengths):
        raise ValueError(
            "[ctc_loss] needs log_probs (T, N, C), targets (N, S) or (sum of lengths,) and N input "
            "and target lengths, or all without N, but got shapes "
            f"{log_probs.shape}, {targets.shape}, {[n.shape for n in lengths]}."
        )
    if samples == 0:
        raise ValueError("[ctc_loss] needs at least one sample, but 'log_probs' holds none.")
    if not 0 <= blank < log_probs.shape[-1]:
        raise ValueError(
            f"[ctc_loss] 'blank' must be one of {log_probs.shape[-1]} classes but got {blank}."
        )
