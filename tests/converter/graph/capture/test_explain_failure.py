"""What people write that torch.export cannot capture, and what they are told."""

import pytest
import torch
from torch import nn

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph import ops
from mlxport.converter.graph.capture.capture import capture

X = torch.rand(2, 3) + 0.5


class Net(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.run, self.layer = run, nn.Linear(3, 3)

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def branch(m, x):
    y = m.layer(x)
    if y.sum() > 100:
        return y
    return x


def choice(m, x):
    return m.layer(x) if x.mean() > 0 else x


def repeat(m, x):
    while x.norm() > 1:
        x = x / 2
    return x


def check(m, x):
    assert x.min() > -100
    return m.layer(x)


def size(m, x):
    return x[:, : int(x.sum()) % 2 + 1]


def number(m, x):
    return x * max(x[0].tolist())


def rounds(m, x):
    for _ in range(int(x.argmax()) % 3):
        x = m.layer(x)
    return x


def array(m, x):
    return m.layer(x) + torch.from_numpy(x.detach().numpy())


BRANCHES, NUMBERS = "decides by the values of a tensor", "makes a Python number or a size"
CANNOT = {
    "if": (branch, BRANCHES, "if y.sum() > 100:", "torch.where"),
    "a conditional expression": (
        choice,
        BRANCHES,
        "return m.layer(x) if x.mean() > 0",
        "torch.where",
    ),
    "while": (repeat, BRANCHES, "while x.norm() > 1:", "torch.where"),
    "assert": (check, BRANCHES, "assert x.min() > -100", "drop the check"),
    "a size": (size, NUMBERS, "return x[:, : int(x.sum())", "keep the value a tensor"),
    "tolist": (number, NUMBERS, "max(x[0].tolist())", "keep the value a tensor"),
    "a loop": (rounds, NUMBERS, "for _ in range(int(x.argmax())", "pass a Python argument"),
    "numpy": (array, "leaves PyTorch for NumPy", "x.detach().numpy()", "torch's own functions"),
}


def complaint(model, *args, **kwargs):
    with pytest.raises(CaptureError) as caught:
        capture(model.eval(), args, kwargs, handled=ops.registry.OPS)
    return str(caught.value)


@pytest.mark.parametrize(("run", "what", "line", "advice"), CANNOT.values(), ids=CANNOT)
def test_a_complaint_says_what_where_and_what_to_do(run, what, line, advice):
    message = complaint(Net(run), X)
    assert message.startswith(f"torch.export cannot capture Net: it {what}")
    number = run.__code__.co_firstlineno
    lines = range(number, number + 8)
    assert any(f", at {__file__}:{n} (`{line}" in message for n in lines) or line in message
    assert advice in message
    assert "\n" not in message
    assert "TORCH" not in message


class Masked(nn.Module):
    def __init__(self, **hints):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.hints = nn.TransformerEncoder(layer, 1), hints

    def forward(self, x, mask):
        return self.encoder(x, mask=mask, **self.hints)


SEQUENCE = (torch.randn(2, 3, 8), nn.Transformer.generate_square_subsequent_mask(3))


def test_a_mask_of_unknown_kind_is_told_with_the_way_out():
    message = complaint(Masked(), *SEQUENCE)
    assert "a mask without saying whether it is causal" in message
    assert "pass is_causal=False" in message
    assert "self.encoder(x, mask=mask" in message


@pytest.mark.parametrize("causal", [False, True])
def test_the_way_out_is_one(causal):
    capture(Masked(is_causal=causal).eval(), SEQUENCE, handled=ops.registry.OPS)


def test_another_complaint_is_torchs_own_without_its_remarks():
    with torch.library._scoped_library("untraced", "FRAGMENT") as library:
        library.define("halved(Tensor x) -> Tensor")
        library.impl("halved", lambda x: x / 2, "CPU")
        message = complaint(Net(lambda m, x: torch.ops.untraced.halved(x)), X)
    assert "untraced.halved" in message
    assert "draft_export" not in message
    assert f"at {__file__}" in message


REJECTED = {
    "an index out of range": (nn.Embedding(5, 3), torch.tensor([7]), "int64:1,16:0..99"),
    "an index that is no integer": (nn.Embedding(5, 3), X, "Indices are integers"),
    "another dtype": (nn.Linear(3, 3), X.double(), "in the model's own dtype"),
    "another shape": (nn.Linear(4, 3), X, "Give shapes the model accepts"),
}


@pytest.mark.parametrize(("model", "given", "advice"), REJECTED.values(), ids=REJECTED)
def test_a_rejected_input_comes_with_advice(model, given, advice):
    message = complaint(model, given)
    assert "itself rejects the example input input=" in message
    assert advice in message.splitlines()[-1]


def test_arguments_that_are_missing_or_unknown_come_with_advice():
    message = complaint(nn.Linear(3, 3), X, bias=X)
    assert "unexpected keyword argument 'bias'" in message
    assert "Give the arguments of its forward()" in message


def test_a_causal_hint_without_a_mask_comes_with_advice():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, is_causal=True)[0]

    message = complaint(Attends(), SEQUENCE[0])
    assert "self.attention(x, x, x, is_causal=True)" in message
    assert "pass the mask with it, or leave both out" in message
