"""Tensors of kinds that MLX lacks: let be where nothing reads them, refused by name otherwise."""

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import CaptureError

X = torch.randn(4, 4)
FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu]


class Keeps(nn.Module):
    """Has a tensor as a buffer, and reads it or not."""

    def __init__(self, tensor, read=True, persistent=False):
        super().__init__()
        self.linear, self.read = nn.Linear(4, 4), read
        self.register_buffer("table", tensor, persistent=persistent)

    def forward(self, x):
        x = self.linear(x)
        if not self.read:
            return x
        table = self.table if self.table.layout is torch.strided else self.table.to_dense()
        return x + table.to(x.dtype).real


class Casts(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, x):
        return x.to(self.dtype).float()


class Attribute(nn.Module):
    def __init__(self, table=None):
        super().__init__()
        self.table = torch.eye(4).to_sparse() if table is None else table

    def forward(self, x):
        return torch.sparse.mm(self.table, x)


class Ragged(nn.Module):
    """Reads a nested tensor that is a buffer or a plain attribute, or makes one."""

    def __init__(self, layout=None, where="made", read=True):
        super().__init__()
        self.linear, self.layout, self.read = nn.Linear(4, 4), layout, read
        rows = [torch.rand(2), torch.rand(3)]
        table = torch.nested.nested_tensor(rows, layout=layout) if layout else None
        if where == "made":
            self.table = None
        elif where == "attribute":
            self.table = table
        else:
            self.register_buffer("table", table, persistent=where == "state")

    def forward(self, x):
        x = self.linear(x)
        if not self.read:
            return x
        table = self.table
        if table is None:
            table = torch.nested.as_nested_tensor([x[0], x[1, :2]], layout=self.layout)
        return x + torch.nested.to_padded_tensor(table, 0.0).sum()


def eight_bits(dtype=torch.float8_e4m3fn):
    return torch.rand(4, 4).to(dtype)


def half_complex():
    return torch.ones(4, 4, dtype=torch.complex64).to(torch.complex32)


quiet = pytest.mark.filterwarnings(
    "ignore:.*(nested tensors|ComplexHalf|Sparse CSR|discards the imag).*"
)

LEFT = {
    "sparse": lambda: torch.eye(4).to_sparse(),
    "compressed": lambda: torch.eye(4).to_sparse_csr(),
    "float8": eight_bits,
    "half complex": half_complex,
}


@quiet
@pytest.mark.parametrize("make", LEFT.values(), ids=LEFT)
def test_what_nothing_reads_is_left_aside(make):
    model = Keeps(make(), read=False)
    result = mlxport.convert(model, X)
    assert result.report.passed
    assert "table" not in result.source


LAYOUTS = {"strided": torch.strided, "jagged": torch.jagged}
NESTED = {
    f"{name} nested in {where}{'' if read else ', not read'}": (layout, where, read)
    for name, layout in LAYOUTS.items()
    for where in ("state", "buffer", "attribute")
    for read in (True, False)
    if read or where != "attribute"
}

REFUSED = {
    **{
        name: (lambda given=given: Ragged(*given), X, "table: nested; a padded tensor and a mask")
        for name, given in NESTED.items()
    },
    **{
        f"{name} nested, made": (
            lambda layout=layout: Ragged(layout),
            X,
            r"nested tensors.*\. A padded",
        )
        for name, layout in LAYOUTS.items()
    },
    "a compressed attribute": (
        lambda: Attribute(torch.eye(4).to_sparse_csr()),
        X,
        r"table: sparse \(sparse_csr\); \.to_dense",
    ),
    "sparse": (lambda: Keeps(torch.eye(4).to_sparse()), X, r"table: sparse.*to_dense"),
    "a sparse attribute": (Attribute, X, r"table: sparse"),
    "sparse in the state dict": (
        lambda: Keeps(torch.eye(4).to_sparse(), read=False, persistent=True),
        X,
        r"table: .*to_dense",
    ),
    "half complex": (lambda: Keeps(half_complex()), X, "table: complex32; complex64"),
    "a sparse input": (nn.Identity, torch.eye(4).to_sparse(), "the input input: sparse"),
    "a float8 input": (lambda: Casts(torch.float32), eight_bits, "the input x: float8_e4m3fn"),
    "a half complex input": (nn.Identity, half_complex, "the input input: complex32"),
    **{
        str(dtype): (lambda d=dtype: Keeps(eight_bits(d)), X, "table: float8.*bfloat16")
        for dtype in FLOAT8
    },
    **{
        f"cast to {dtype}": (lambda d=dtype: Casts(d), X, "aten.to.dtype, in the model itself: fl")
        for dtype in FLOAT8
    },
}


@quiet
@pytest.mark.parametrize(("make", "x", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_used_is_named(make, x, message):
    model, x = make(), x() if callable(x) else x  # making some of them warns
    for call in (mlxport.convert, mlxport.analyze):
        with pytest.raises(CaptureError, match=message):
            call(model, x)


def test_all_are_listed():
    model = nn.Sequential(Keeps(eight_bits()), Keeps(torch.eye(4).to_sparse()))
    with pytest.raises(CaptureError, match=r"0\.table: float8(.|\n)*1\.table: sparse"):
        mlxport.analyze(model, X)
