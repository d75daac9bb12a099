"""Refuse the ops that mlxport deliberately does not serve, each with its reason.

An op listed here is never decomposed further, so that the refusal names the op that is called.
"""

from __future__ import annotations

from typing import Any

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.registry import op

_DATA_DEPENDENT = (
    "the result's size depends on the data, so nothing after it could have a static size. Use "
    "torch.where or a mask of fixed size"
)
_GRADIENT = "it computes a gradient; MLX differentiates the converted forward pass by itself"
_TRAINING = (
    "batch norm at training updates its running statistics; pass training=self.training to "
    "torch.nn.functional.batch_norm, or use torch.nn.BatchNorm, which eval() stops"
)
_NO_COUNTERPART = "MLX has no such function, and neither have the layers of mlxport"
_NOT_UNIQUE = (
    "the result is not unique, and MLX gives another one than PyTorch, if any. Use what is unique "
    "(linalg.solve, linalg.qr, linalg.eigh)"
)
_SPARSE = "MLX has no sparse arrays"
_IN_PLACE = "it changes its argument's memory, which MLX arrays do not allow"
_HOST = "a value leaves the graph for Python, which a static model cannot follow"
_STRIDES = "how an array is stored is no property of an MLX array"
_UNREPLAYED = "MLX cannot draw these numbers, nor replay PyTorch's"

_BY_REASON: dict[str, tuple[str, ...]] = {
    _DATA_DEPENDENT: (
        "_unique2.default",
        "bincount.default",
        "masked_select.default",
        "nonzero.default",
        "nonzero_static.default",
        "repeat_interleave.Tensor",
        "unique_consecutive.default",
        "unique_dim.default",
        "unique_dim_consecutive.default",
    ),
    _GRADIENT: (
        "_adaptive_avg_pool2d_backward.default",
        "avg_pool2d_backward.default",
        "convolution_backward.default",
        "embedding_dense_backward.default",
        "max_pool2d_with_indices_backward.default",
        "native_group_norm_backward.default",
        "native_layer_norm_backward.default",
    ),
    _TRAINING: (
        "_batch_norm_with_update_functional.default",
        "_native_batch_norm_legit.default",
        "native_batch_norm.default",
    ),
    _NO_COUNTERPART: (
        "_histogramdd_bin_edges.default",
        "_histogramdd_from_bin_cts.default",
        "_histogramdd_from_bin_tensors.default",
        "hash_tensor.default",
        "segment_reduce.default",
        "linalg_ldl_factor_ex.default",
        "linalg_ldl_solve.default",
    ),
    _NOT_UNIQUE: (
        "_linalg_eigvals.default",
        "linalg_eig.default",
        "linalg_eigvals.default",
        "linalg_lstsq.default",
    ),
    _SPARSE: (
        "_to_dense.default",
        "_to_sparse.default",
        "_to_sparse.sparse_dim",
        "sparse_sampled_addmm.default",
    ),
    _IN_PLACE: (
        "as_strided_scatter.default",
        "embedding_renorm.default",
        "atan2.out",
        "resize.default",
        "resize_.default",
    ),
    _HOST: ("_local_scalar_dense.default", "equal.default"),
    _STRIDES: ("sym_storage_offset.default", "sym_stride.int", "sym_is_contiguous.default"),
    _UNREPLAYED: ("cauchy.default", "geometric.default", "log_normal.default"),
}

REFUSED_OPS: dict[str, str] = {
    f"aten.{name}": reason for reason, names in _BY_REASON.items() for name in names
}


def _refuse(reason: str) -> Any:
    def refused(cx: Context, *_: Any, **__: Any) -> Value:
        raise cx.refuse(reason)

    return refused


for _name, _reason in REFUSED_OPS.items():
    op(_name, restrictions=_reason)(_refuse(_reason))
