"""Which of several right ways to compute is taken on MLX's default device.

The figures for a GPU are from the source of MLX 0.32.4's Metal and CUDA backends.
"""

from typing import NamedTuple

import mlx.core as mx


class DevicePolicy(NamedTuple):
    """What differs between devices in how, never in what, the layers compute.

    Attributes:
        slab_bytes: What the products of one slab of a transposed convolution read and write at
            most. A GPU pays for every kernel it launches; on the CPU a small slab is faster, since
            its memory is reused.
        native_convolution: Whether transposed convolutions of stride 1, and in 2-D those whose taps
            overlap, are MLX's convolution. On a GPU that gathers the input tile by tile in its
            kernel and skips the zeros between inputs; on the CPU it writes both to memory, and
            computes the gradient in a scalar loop.
        added_products: Whether the products of the taps of the first axis are added one by one, not
            made at once of all taps side by side. The CPU's BLAS adds to an array; a GPU pays for
            every kernel.
        unfolded_elements: How many elements MLX's convolution may unfold of a volume before ours
            is of matrix products; ``None`` for any number. On the CPU it unfolds the whole input in
            memory, a GPU tile by tile in its kernel.
        half_products: Whether matrix products of half precision stay in it. A GPU sums them in
            float32 by itself, as does the CPU, but several times slower than it multiplies float32.
        blocked_sums: Whether long sums are made block by block. A GPU's reductions are trees; the
            CPU's add one value after another, with a rounding error that grows with their number.
    """

    slab_bytes: int
    native_convolution: bool
    added_products: bool
    unfolded_elements: int | None
    half_products: bool
    blocked_sums: bool


CPU = DevicePolicy(
    slab_bytes=1 << 24,
    native_convolution=False,
    added_products=True,
    unfolded_elements=1 << 21,
    half_products=False,
    blocked_sums=True,
)
GPU = DevicePolicy(
    slab_bytes=1 << 28,
    native_convolution=True,
    added_products=False,
    unfolded_elements=None,
    half_products=True,
    blocked_sums=False,
)


def device_policy() -> DevicePolicy:
    """Return the policy of MLX's default device."""
    return GPU if mx.default_device().type == mx.gpu else CPU
