"""What is said of quantised weights and of what they cost."""

from __future__ import annotations

from mlxport.converter.plan.quantize_step import Cost, Quantized, Settings

FAR, NEAR = Cost("far", 0.25, 12.04, 0.9), Cost("near", 0.125, None, None)
SETTINGS = Settings(4, 64)


def test_the_summary_names_the_output_that_moves_most() -> None:
    words = "4 bits in groups of 64 (affine)"
    assert Quantized(SETTINGS, ("a",)).summary() == words
    for costs in ((FAR, NEAR), (NEAR, FAR)):
        far = f"{words}, which moves far by 2.5e-01, 12.0 dB (measured, not judged)"
        assert Quantized(SETTINGS, ("a",), costs=costs).summary() == far
    near = f"{words}, which moves near by 1.2e-01 (measured, not judged)"
    assert Quantized(SETTINGS, ("a",), costs=(NEAR,)).summary() == near


def test_sentences_say_what_it_cost_and_what_was_left() -> None:
    quantized = Quantized(
        SETTINGS,
        ("a", "b"),
        left={"c": "too narrow", "d": "tied", "e": "too narrow"},
        nbytes=(3 << 20, 1 << 19),
        before="parity holds",
        costs=(FAR, NEAR),
        layer_costs=(NEAR, FAR),
    )
    first, judged, *others = quantized.sentences()
    assert first == "2 layers quantized to 4 bits in groups of 64 (affine), 3 MiB to 0.5 MiB"
    assert judged.endswith("what quantization costs is measured, not judged")
    assert others == [
        "quantized, far is off by 2.5e-01, 12.0 dB",
        "quantized, near is off by 1.2e-01",
        "most in far: 2.5e-01",
        "3 layers left: c, e (too narrow); d (tied)",
        "before: parity holds",
    ]
    assert len([*Quantized(SETTINGS, ("a",)).sentences()]) == 2
    assert next(Quantized(SETTINGS, ("a",)).sentences()).startswith("1 layer quantized to ")
