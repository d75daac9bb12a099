"""Options are checked once, where they are made; what nobody says is left as it is."""

import dataclasses
import inspect
import math

import pytest

import mlxport
from mlxport.converter import api
from mlxport.converter.errors import OptionsError
from mlxport.converter.options.capture import CaptureOptions
from mlxport.converter.options.judgement import JudgementOptions
from mlxport.converter.options.output import OutputOptions
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.parity.verdict.judgement import NOISE_MULTIPLE, Judgement


def judged(**said):
    nothing = {"noise_multiple": None, "gradients": False, "input_kinds": (), "batch_sizes": None}
    return JudgementOptions.of(**{**nothing, **said})


def written(**said):
    nothing = {"overwrite": False, "max_shard_size": None, "carry_along": True}
    return OutputOptions.of(**{**nothing, **said})


WRONG = {
    "dtype": (lambda: SourceOptions(dtype="float63"), r"dtype='float63': expected one of float16"),
    "shard size": (lambda: written(max_shard_size="5XB"), r"max_shard_size='5XB': expected a size"),
    "no shard": (lambda: written(max_shard_size=0), r"max_shard_size=0: expected a size"),
    "axis": (lambda: CaptureOptions.of(channels_last=False, dynamic=(-1,)), "axes counted from 0"),
    "both": (
        lambda: CaptureOptions.of(channels_last=False, dynamic=(0,), dynamic_shapes={}),
        "not both",
    ),
    "no noise": (lambda: judged(noise_multiple=0), r"noise_multiple=0: expected a number above 0"),
    "less than none": (lambda: judged(noise_multiple=-1.0), r"noise_multiple=-1\.0: expected"),
    "no number": (lambda: judged(noise_multiple=math.nan), r"noise_multiple=nan: expected"),
    "infinite noise": (lambda: judged(noise_multiple=math.inf), r"noise_multiple=inf: expected"),
    "beyond faults": (lambda: judged(noise_multiple=1001), r"noise_multiple=1001: .* at most 1000"),
    "a flag": (lambda: judged(noise_multiple=True), r"noise_multiple=True: expected a number"),
    "a text": (lambda: judged(noise_multiple="8"), r"noise_multiple='8': expected a number"),
    "huge shard": (lambda: written(max_shard_size="9" * 400), "expected a size such as"),
    "infinite shard": (lambda: written(max_shard_size=math.inf), "expected a size such as"),
    "axis of a fraction": (
        lambda: CaptureOptions.of(channels_last=False, dynamic=(math.nan,)),
        "axes counted from 0",
    ),
    "axis by a flag": (lambda: CaptureOptions.of(channels_last=False, dynamic=True), "axes count"),
    "kind": (lambda: judged(input_kinds=["odd"]), "unknown kinds of inputs: odd"),
    "batch": (
        lambda: judged(batch_sizes=[0]),
        "batch_sizes=: expected whole numbers from 1 to 65,536, got 0",
    ),
    "half a batch": (lambda: judged(batch_sizes=[1.5]), r"got 1\.5"),
    "no batch": (lambda: judged(batch_sizes=[math.nan]), "got nan"),
    "huge batch": (lambda: judged(batch_sizes=[2**40]), "got 1099511627776"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_refused_at_once(make, message):
    with pytest.raises(OptionsError, match=message):
        make()


def test_what_is_not_said_is_the_default():
    assert judged() == JudgementOptions()
    assert judged().judgement == Judgement(NOISE_MULTIPLE)
    assert written() == OutputOptions()
    assert CaptureOptions.of(channels_last=False) == CaptureOptions()


def test_values_are_taken_in_the_forms_a_user_writes():
    assert written(max_shard_size="2KB").max_shard_size == 2000
    dynamic = CaptureOptions.of(channels_last=True, dynamic=0).dynamic
    assert dynamic.axes == (0,)
    assert judged(input_kinds="large", batch_sizes=[2, 2]).trials.batch_sizes == (2,)


@pytest.mark.parametrize(
    "options", [SourceOptions, CaptureOptions, JudgementOptions, OutputOptions]
)
def test_options_do_not_change_on_the_way(options):
    made = options()
    field = dataclasses.fields(made)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, field, None)


# The keywords that may be said of each; a conversion of a checkpoint takes them all.
READING = {"model_args", "key", "prefix", "rename", "dtype", "allow_lossy_cast"}
CAPTURING = {"channels_last", "fold_batchnorm", "dynamic", "dynamic_shapes"}
JUDGING = {"noise_multiple", "gradients", "input_kinds", "batch_sizes", "calls"}
WRITING = {"overwrite", "max_shard_size", "carry_along"}
KEYWORDS = {
    "convert": (mlxport.convert, CAPTURING | JUDGING),
    "analyze": (mlxport.analyze, CAPTURING - {"fold_batchnorm"}),
    "verify": (mlxport.verify, JUDGING),
    "convert_checkpoint": (mlxport.convert_checkpoint, READING | CAPTURING | JUDGING | WRITING),
    "analyze_checkpoint": (api.analyze_checkpoint, READING | CAPTURING - {"fold_batchnorm"}),
    "convert_state_dict": (mlxport.convert_state_dict, {"key", "prefix", "allow_lossy_cast"}),
    "load_weights": (mlxport.load_weights, {"key", "prefix", "rename"}),
    "inspect": (mlxport.inspect, {"key", "prefix", "rename", "model_args"}),
}


@pytest.mark.parametrize(("function", "keywords"), KEYWORDS.values(), ids=KEYWORDS)
def test_public_functions_keep_their_keywords(function, keywords):
    assert keywords <= inspect.signature(function).parameters.keys()


LEFT_OUT = {
    "inputs": {"inputs": ["2,3"]},
    "gradients": {"gradients": True},
    "noise_multiple": {"noise_multiple": 8.0},
    "dynamic": {"dynamic": (0,)},
    "channels_last": {"channels_last": True},
    "model_args": {"model_args": {"width": 3}},
}


@pytest.mark.parametrize("said", LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_speaks_of_a_model_is_named_where_there_is_none(tmp_path, said):
    (name,) = said
    with pytest.raises(OptionsError, match=f"without model= .* leave out {name}=, or name"):
        mlxport.convert_checkpoint(tmp_path / "net.pt", tmp_path / "out", **said)
