"""Fourier transforms and complex numbers against torch."""

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported

NORMS = [None, "ortho", "forward", "backward"]
TRANSFORMS = {
    "fft": lambda x, n: torch.fft.fft(x, dim=1, norm=n),
    "ifft": lambda x, n: torch.fft.ifft(x, dim=2, norm=n),
    "fftn": lambda x, n: torch.fft.fftn(x, dim=(1, -1), norm=n),
    "ifftn": lambda x, n: torch.fft.ifftn(x, norm=n),
    "rfft": lambda x, n: torch.fft.rfft(x, n=6, norm=n),
    "rfftn": lambda x, n: torch.fft.rfftn(x, dim=(3, 1), norm=n),
    "irfft": lambda x, n: torch.fft.irfft(torch.fft.fft(x), n=7, norm=n),
    "irfftn": lambda x, n: torch.fft.irfftn(torch.fft.fftn(x), dim=(3, 1), norm=n),
    "hfft": lambda x, n: torch.fft.hfft(torch.fft.fft(x), norm=n),
    "ihfft": lambda x, n: torch.fft.ihfft(x, norm=n),
}
COMPLEX = {
    "view_as_real": lambda x: torch.view_as_real(torch.fft.fft(x)),
    "view_as_complex": lambda x: torch.view_as_complex(x[..., :2].contiguous()),
    "complex": lambda x: torch.complex(x, x[0]),
    "polar": lambda x: torch.polar(x.abs(), x),
    "parts": lambda x: (torch.fft.fft(x).real, torch.fft.fft(x).imag),
    "conj": lambda x: torch.fft.fft(x).conj() * x,
    "abs": lambda x: torch.fft.fft(x).abs(),
    "angle": lambda x: torch.fft.fft(x).angle(),
    "angle of real": torch.angle,
    "arithmetic": lambda x: torch.fft.fft(x) * torch.fft.fft(x) + 2 * x,
    "complex number": lambda x: x * (0.5 + 2j),
}


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name, norm, assert_op_parity):
    assert_op_parity(lambda x: TRANSFORMS[name](x, norm), torch.randn(2, 3, 4, 5))


@pytest.mark.parametrize("name", COMPLEX)
def test_complex(name, assert_op_parity):
    assert_op_parity(COMPLEX[name], torch.randn(2, 3, 4, 5))


@pytest.mark.parametrize("centre", [True, False])
def test_short_time(centre, assert_op_parity):
    def there(x):
        window = torch.hann_window(8)
        return torch.stft(x, 8, 4, window=window, center=centre, return_complex=True)

    x = torch.randn(2, 64)
    assert_op_parity(there, x)
    if centre:
        assert_op_parity(
            lambda x: torch.istft(there(x), 8, 4, window=torch.hann_window(8), length=64), x
        )


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16], ids=str)
def test_angles_of_other_dtypes(dtype, assert_op_parity):
    assert_op_parity(torch.angle, torch.tensor([-2, 0, 3]).to(dtype))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: torch.fft.fft(x).to(torch.float32),
        lambda x: torch.fft.fft(x).var(),
        lambda x: torch.linalg.vector_norm(torch.fft.fft(x)),
        lambda x: torch.expm1(torch.fft.fft(x)),
    ],
    ids=["cast", "variance", "norm", "expm1"],
)
def test_nothing_imaginary_is_dropped(fn, lower_op):
    with pytest.raises(Unsupported, match="complex values"):
        lower_op(fn, torch.randn(4))
