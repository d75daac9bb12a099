"""Convert the weight of a grouped transposed convolution that the model computes itself."""

import mlx.core as mx


def grouped_weight(weight: mx.array, groups: int) -> mx.array:
    """Convert the weight of a transposed convolution from PyTorch's layout to MLX's.

    Args:
        weight: ``(in, out/groups, *k)``, as ``torch.nn.functional.conv_transpose3d`` takes it.
        groups: the number of groups; it divides ``in``.

    Returns:
        ``(out, *k, in/groups)``, as :func:`mlxport.layers.conv.transpose.conv_transpose` takes it.

    Raises:
        ValueError: ``groups`` does not divide the input channels.
    """
    inputs, outputs, *kernel = weight.shape
    if groups < 1 or inputs % groups:
        raise ValueError(
            f"[grouped_weight] 'groups' must divide the {inputs} input channels but got {groups}."
        )
    grouped = mx.unflatten(weight, 0, (groups, inputs // groups))
    return mx.moveaxis(grouped, 1, -1).reshape(groups * outputs, *kernel, inputs // groups)
