"""The command line: parse, call the converter, render, exit.

Exit codes: 0 done, 1 cannot convert, 2 usage, 3 parity failed, 4 the device is not on this machine.
What is written to the terminal goes through `_say`, whatever files and names hold.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from mlxport.converter import api
from mlxport.converter.api.display import progress_bar, progress_lines
from mlxport.converter.arguments import as_keyword, spelled
from mlxport.converter.child_process import EndedEarly, in_child, report_exit_code
from mlxport.converter.environment import FAST_MATH, collect_rarely, keep_memory
from mlxport.converter.errors import CheckpointError, ConversionError, OptionsError, ParityError
from mlxport.converter.signals import ending_cleanly
from mlxport.converter.terminal import (
    cleaned_lines,
    discard_output,
    fitted,
    json_text,
    open_standard_streams,
)

if TYPE_CHECKING:
    from mlxport.converter.parity.report.report import ParityReport
    from mlxport.converter.timings import Timings


_logger = logging.getLogger(__name__)


def _say(
    text: str,
    *,
    err: bool = False,
    color: str | None = None,
    styled: bool = False,
    prose: bool = False,
) -> None:
    """Write to stdout or stderr: the one way for text to the terminal.

    Args:
        text: what a terminal would obey in it is escaped, but for the ends of lines.
        err: write to stderr.
        color: of the text, on a terminal.
        styled: the text is cleaned already, and its escape sequences are ours.
        prose: a terminal breaks its lines between words.

    Raises:
        CheckpointError: stdout cannot be written. Where nobody reads it any more, as behind
            ``| head``, the rest is dropped.
    """
    stream = sys.stderr if err else sys.stdout
    shown = text if styled else cleaned_lines(text)
    try:
        click.secho(
            fitted(shown, _columns()) if prose and stream.isatty() else shown, fg=color, err=err
        )
    except OSError as error:
        discard_output(stream)
        if err or isinstance(error, BrokenPipeError):
            _logger.debug("nobody reads what is written: %s", error)
            return
        raise CheckpointError(f"stdout cannot be written: {error.strerror}") from error


def _columns() -> int:
    """Return the width of the terminal, or 80, below which nothing is laid out."""
    return max(shutil.get_terminal_size((80, 24)).columns, 80)


def _exits(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the converter's errors into a message on stderr and their exit code."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with spelled(_flag):
                command(*args, **kwargs)
        except ConversionError as error:
            _say(f"Error: {error}", color="red", err=True)
            sys.exit(error.exit_code)

    return _verbose(run)


class _OnStderr(logging.Handler):
    """Shows what is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        _say(self.format(record), err=True)


def _log_to_stderr(context: click.Context, option: click.Parameter, count: int) -> None:
    """Show the log as long as the command runs: stages, or each step from two times ``-v``."""
    if not count:
        return
    logger, handler = logging.getLogger("mlxport"), _OnStderr()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if count > 1 else logging.INFO)

    @context.call_on_close
    def stop() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)


_verbose = click.option(
    "-v",
    "--verbose",
    count=True,
    expose_value=False,
    callback=_log_to_stderr,
    help="Show on stderr how long each stage took; -vv every op and every error passed over.",
)


def _flag(name: str, value: tuple[Any, ...]) -> str:
    """Return the flag for a keyword of the library, with the value meant; `argument` calls it."""
    if name == "channels_last":
        return "--layout channels_last"
    option = _options().get(name)
    if option is None:
        return as_keyword(name, value)
    if value == (False,) and option.secondary_opts:
        return option.secondary_opts[0]
    flag = max(option.opts, key=len)
    texts = [text for one in value for text in _texts(one, option.multiple)]
    return " ".join(f"{flag} {shlex.quote(text)}" for text in texts) or flag


@cache
def _options() -> dict[str, click.Option]:
    """Return keyword -> the option that stands for it, of all commands."""
    options = [p for command in main.commands.values() for p in command.params]
    return {o.name: o for o in options if isinstance(o, click.Option) and o.name}


def _texts(value: Any, multiple: bool) -> Iterator[str]:
    """Yield what to write behind a flag, once for each time that it is to be given."""
    if isinstance(value, Mapping):
        pairs = (f"{name}={other}" for name, other in value.items())
        yield from pairs if multiple else [json.dumps(value)]
    elif isinstance(value, (list, tuple)):
        yield from map(str, value) if multiple else [",".join(map(str, value))]
    elif value is not True:
        yield str(value)


# What cannot be read is said by whoever reads it; to click it would be wrong usage.
_PATH = click.Path(path_type=Path, readable=False)


class _Source(click.Path):
    """A path, or the address of a repository on the Hugging Face Hub."""

    def __init__(self) -> None:
        super().__init__(readable=False)  # as _PATH

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        hub = isinstance(value, str) and value.startswith("hf://")
        return value if hub else Path(os.fsdecode(super().convert(value, param, ctx)))


def _numbers(expected: str) -> Callable[..., Any]:
    """Return what reads numbers between commas."""

    def read(context: click.Context, option: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else tuple(int(number) for number in text.split(","))
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: expected {expected}") from error

    return read


def _renamed_flag(context: click.Context, option: click.Parameter, given: bool) -> bool:
    """Warn of a flag that has another name by now."""
    if given:
        _warn(["--weights-only is now called --no-carry-along; it goes with the next release"])
    return given


_model_args = click.option(
    "--model-args",
    metavar="JSON",
    help="Keyword arguments of the factory: '{\"features\": 16}'.",
)


def _selection(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what of a checkpoint is meant, and what its weights are."""
    layer = click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="GLOB=CLASS[:GROUPS]",
        help="Without --model: what weights are, 'up*.weight=ConvTranspose3d'; the last fits.",
    )
    return _selecting(layer(command))


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what of a checkpoint is meant."""
    for option in (
        click.option(
            "--rename",
            multiple=True,
            metavar="OLD=NEW",
            help="Rename keys: 'encoder.*.conv=enc.*', * for one name, ** for any, re: for regex. "
            "For a target, 'q + k + v = qkv' joins and 'qkv = q + k + v' splits tensors.",
        ),
        click.option(
            "--drop",
            multiple=True,
            metavar="PATTERN",
            help="Leave keys out, by patterns as for --rename; restore gives them back.",
        ),
        click.option("--prefix", help="Take the checkpoint's keys under this prefix alone."),
        click.option("--key", help="Where in a nested checkpoint the state dict is."),
    ):
        command = option(command)
    return command


def _example(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that give an example call of the model."""
    for option in (
        click.option(
            "--kwargs",
            metavar="JSON",
            help="Keyword arguments of the model that are no tensors: '{\"use_cache\": false}'.",
        ),
        click.option(
            "--input-file",
            "input_files",
            multiple=True,
            type=_PATH,
            help="Example inputs of your own: .npy for a positional one (after those of --input), "
            ".npz or .safetensors for inputs by name.",
        ),
        click.option(
            "--input",
            "inputs",
            multiple=True,
            metavar="[NAME=][DTYPE:]SIZES[:LOW..HIGH]",
            help="An example input with random values, in PyTorch's axes; once per input. Integers "
            "are 0 or 1 without a range, floats normal.",
        ),
    ):
        command = option(command)
    return command


def _casting(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say in which dtype weights are held."""
    for option in (
        click.option(
            "--allow-lossy-cast",
            is_flag=True,
            help="Round where the model's dtype cannot hold the checkpoint's values.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float16", "bfloat16", "float32"]),
            help="Cast all floating-point weights, and the model.",
        ),
    ):
        command = option(command)
    return command


def _capturing(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what the MLX model takes and gives."""
    for option in (
        click.option(
            "--dynamic",
            metavar="AXES",
            callback=_numbers("axes like 0,2,3,4"),
            help="Axes whose size may change from call to call, in every input: 0 is the batch.",
        ),
        click.option(
            "--layout",
            type=click.Choice(["torch", "channels_last"]),
            default="torch",
            show_default=True,
            help="Axes of the MLX model's inputs and outputs.",
        ),
    ):
        command = option(command)
    return command


def _target(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name an MLX model, and the arguments of any model."""
    for option in (
        _model_args,
        click.option(
            "--target",
            metavar="PKG.MOD:FACTORY",
            help="What gives an MLX model of your own: its layers say what the weights are.",
        ),
    ):
        command = option(command)
    return command


def _device(meaning: str) -> Callable[..., Any]:
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "metal", "cuda"]),
        default="auto",
        show_default=True,
        help=meaning,
    )


_noise_multiple = click.option(
    "--noise-multiple", type=float, help="Times PyTorch's own noise that pass.  [default: 8]"
)


_check_code = click.option(
    "--check-code",
    is_flag=True,
    help="Before they run, hold model.py and layers/ to the digests in conversion.json.",
)


_full = click.option(
    "--full", is_flag=True, help="Print all layers and where they ran, not the worst five alone."
)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        _say(f"Warning: {warning}", color="yellow", err=True, prose=True)


class _Commands(click.Group):
    """The commands; what click itself has to say goes the one way to the terminal, too."""

    def main(  # type: ignore[override]  # every argument by its name, but for the first
        self,
        args: Sequence[str] | None = None,
        *,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit, as click does."""
        stdout = sys.stdout
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
        except click.ClickException as error:
            if not standalone_mode:
                raise
            shown = io.StringIO()
            error.show(shown)
            _say(shown.getvalue().rstrip("\n"), err=True)
            sys.exit(error.exit_code)
        except click.Abort:
            if not standalone_mode:
                raise
            _say("Aborted!", err=True)
            sys.exit(ConversionError.exit_code)
        except OSError as error:  # of a page of help, which click writes itself
            discard_output(stdout)
            _say(f"Error: stdout cannot be written: {error.strerror}", err=True)
            sys.exit(ConversionError.exit_code)
        except SystemExit:
            if sys.stdout is not stdout:  # click replaces it where nobody reads a help page on
                sys.stdout = stdout
                discard_output(stdout)
                sys.exit(0)
            raise
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="mlxport")
def main() -> None:
    """Take a PyTorch model or checkpoint, give back a running, verified MLX model.

    \b
    Example:
      mlxport convert unet3d.pt --model examples.unet3d:UNet3d --input 1,1,32,48,40 -o out/
      mlxport verify out/
    """
    try:
        os.getcwd()
    except OSError as error:  # the libraries that compute end the process there
        raise click.ClickException(
            f"the current folder is not there any more ({error.strerror}): change to one that is"
        ) from error


def _mlx_lm_names(command: Callable[..., None]) -> Callable[..., None]:
    """Let a conversion be asked for in the words of ``mlx_lm.convert``."""

    @wraps(command)
    def run(
        sources: tuple[Path | str, ...],
        output: Path | None,
        hf_path: str | None,
        mlx_path: Path | None,
        quantize: str | None,
        q: bool,
        q_bits: int | None,
        q_group_size: int | None,
        **options: Any,
    ) -> None:
        there = (_on_the_hub(hf_path),) if hf_path else None
        sources = _one_of(sources or None, there, "SOURCE", "--hf-path")
        if sources is None:
            raise click.UsageError("Missing argument 'SOURCE'.")
        output = _one_of(output, mlx_path, "--output", "--mlx-path")
        if q or q_bits is not None or q_group_size is not None:
            settings = f"bits={q_bits or 4},group_size={q_group_size or 64}"
            quantize = _one_of(quantize, settings, "--quantize", "-q")
        command(sources=sources, output=output, quantize=quantize, **options)

    for option in (
        click.option("--q-group-size", type=int, hidden=True, help="As mlx-lm: of -q."),
        click.option("--q-bits", type=int, hidden=True, help="As mlx-lm: of -q."),
        click.option("-q", "q", is_flag=True, hidden=True, help="As mlx-lm: --quantize."),
        click.option(
            "--mlx-path",
            type=_PATH,
            hidden=True,
            help="As mlx-lm: the folder to write.",
        ),
        click.option("--hf-path", hidden=True, help="As mlx-lm: SOURCE."),
    ):
        run = option(run)
    return run


def _one_of(ours: Any, theirs: Any, name: str, other: str) -> Any:
    if ours is not None and theirs is not None:
        raise click.UsageError(f"{name} and {other} say the same: give one.")
    return theirs if ours is None else ours


def _on_the_hub(path: str) -> Path | str:
    """Return a path that is there, or else the address of a repository of that name."""
    there = path.startswith("hf://") or Path(path).exists()
    return (path if path.startswith("hf://") else Path(path)) if there else f"hf://{path}"


@main.command()
@click.argument("sources", metavar="SOURCE…", nargs=-1, type=_Source())
@click.option("-o", "--output", type=_PATH, help="Folder to write.")
@_mlx_lm_names
@click.option(
    "--dry-run",
    is_flag=True,
    help="Write nothing: print what would become of the model, and what cannot be converted.",
)
@click.option("--model", metavar="PKG.MOD:FACTORY", help="What gives the torch model.")
@click.option(
    "--plan",
    type=_PATH,
    metavar="OUT/conversion.json",
    help="Instead of --model: convert by the plan of other weights of the same architecture.",
)
@click.option(
    "--verify-with",
    metavar="PKG.MOD:FACTORY",
    help="With --plan: what gives the torch model, to hold the result to on --input.",
)
@_target
@_example
@_selection
@_casting
@click.option(
    "--adapter",
    type=_PATH,
    metavar="DIR",
    help="A LoRA adapter of the model, as PEFT saves it: its matrices stay beside the layers.",
)
@click.option("--merge", is_flag=True, help="Add the adapter to the weights instead.")
@click.option(
    "--quantize",
    metavar="bits=4,group_size=64[,mode=…]",
    help="Quantize Linear and Embedding layers as mlx.nn.quantize does; tells what it costs.",
)
@click.option(
    "--carry-along/--no-carry-along",
    default=True,
    help="Of a folder, carry config.json, tokenizer, README and licence along.  [default: yes]",
)
@click.option(
    "--weights-only",
    is_flag=True,
    hidden=True,
    callback=_renamed_flag,
    help="The old name of --no-carry-along.",
)
@click.option(
    "--package",
    metavar="NAME",
    help="Write what pip needs to install the folder as the package NAME, with type hints.",
)
@click.option(
    "--reference",
    type=click.Choice(["bounded", "full"]),
    default="bounded",
    help="What verify is to find of PyTorch's values: no more bytes than the weights, or all.",
)
@click.option("--max-shard-size", metavar="SIZE", help="Write weights in files of 5GB, say.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output folder.")
@_capturing
@_noise_multiple
@click.option(
    "--gradients",
    is_flag=True,
    help="Compare the gradients of inputs and parameters with PyTorch's too.",
)
@click.option(
    "--fold-batchnorm",
    is_flag=True,
    help="Make one layer of a convolution and the BatchNorm behind it. Rounds otherwise.",
)
@click.option(
    "--debug-dir",
    type=_PATH,
    metavar="DIR",
    help="Write down in text files what each stage gives: graphs, leaves, passes, classes.",
)
@_device("Where MLX runs while the model is judged; exits 4 where it is not on this machine.")
@click.option("--timings", is_flag=True, help="Tell how long each stage took.")
@click.option(
    "--input-kinds",
    metavar="KINDS",
    default="",
    callback=lambda context, option, text: [kind for kind in text.split(",") if kind],
    help="Judge other inputs too: normal,constant,impulse,large.",
)
@click.option(
    "--batch-sizes",
    metavar="SIZES",
    callback=_numbers("sizes like 1,2"),
    help="Judge these sizes of the first axis too.  [default: 1,2 where --dynamic leaves it open]",
)
@click.option(
    "--calls",
    type=int,
    metavar="N",
    help="Judge N calls, each with what the one before left.  [default: 4 of a model with state]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the parity report as JSON.")
@_full
@_exits
def convert(
    sources: tuple[Path, ...],
    output: Path | None,
    dry_run: bool,
    inputs: tuple[str, ...],
    input_files: tuple[Path, ...],
    layout: str,
    timings: bool,
    as_json: bool,
    full: bool,
    **options: Any,
) -> None:
    """Convert the checkpoint SOURCE into a folder with a verified MLX model.

    SOURCE is a file, a folder, or hf://owner/name[@revision] on the Hugging Face Hub. A folder that
    says which model it holds (of transformers, diffusers, timm, nnU-Net) needs nothing else.

    Several, a pattern, a .txt file that names one a line, or a folder of several models: each into
    a folder of its own in OUTPUT, with a table at the end. The same command goes on where it was.

    With --plan other weights of an architecture that was converted before, unverified unless
    --verify-with names their torch model. With --target weights alone, for an MLX model of your
    own. With none of these, of what says nothing of itself, weights alone, where evidence or
    --layer says what they are.

    Prints the layers farthest from PyTorch, all with --full, and the verdict. Exits 0 only where
    parity holds, 3 where it does not (the folder is written all the same, with the evidence in
    parity.json). --dry-run exits 0 where everything in the model has an MLX counterpart, 1 where
    something has none.

    SOURCE and -o may be given as mlx-lm has them, --hf-path and --mlx-path, and --quantize as
    -q, --q-bits and --q-group-size.

    \b
    Example:
      mlxport convert unet3d.pt --model examples.unet3d:UNet3d --input 1,1,32,48,40 -o out/
      mlxport convert bert.pt --model my.models:bert --input int64:1,16:0..29999 \\
                      --input attention_mask=int64:1,16:1..1 -o out/
      mlxport convert unet3d.pt --model examples.unet3d:UNet3d --input 1,1,32,48,40 \\
                      --adapter tuned/ --merge -o out/
    """
    if options.pop("weights_only"):
        options["carry_along"] = False
    options["model_args"] = _json_object(options["model_args"], "--model-args")
    options["kwargs"] = _json_object(options["kwargs"], "--kwargs")
    given = (*inputs, *input_files)
    options |= {"inputs": given, "channels_last": layout == "channels_last"}
    options["rename"] = api.parse_renames(options["rename"])
    source = sources[0]
    if dry_run:
        if len(sources) > 1:
            raise click.UsageError("--dry-run analyzes one source.")
        _analyze(source, as_json, **options)
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output'.")
    by_hand = options["model"] or options["plan"] or options["target"] or options["layers"]
    if len(sources) > 1 or _is_list(source) or (not by_hand and api.holds_many(sources)):
        _convert_many(sources, output, as_json, **options)
        return
    with _progress():
        result = api.convert_checkpoint(source, output, **options)
    for note in result.notes:
        _say(f"Note: {note}", err=True, prose=True)
    _warn(result.warnings)
    took = result.timings if timings else None
    if took:
        _say(took.to_text(), err=True)
    _say(f"Written to {output}", err=True)
    if result.report is not None:
        _show(result.report, as_json, took, full=full, page=output / "parity.html")
    elif as_json and took:
        _say(json_text({"timings": took.to_json()}))


@main.command()
@click.argument("folder", type=_PATH)
@_device("Where MLX runs; exits 4 where it is not on this machine.")
@_noise_multiple
@click.option(
    "-o",
    "--output",
    type=_PATH,
    help="Write the report: .html, .md or .json.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing report.")
@click.option(
    "--weights",
    is_flag=True,
    help="Instead: check that the weights are those of the checkpoint, by their digests.",
)
@click.option(
    "--fast-math",
    "--tf32",
    "fast_math",
    is_flag=True,
    help="Leave MLX_ENABLE_TF32 and MLX_CONV_WINOGRAD on, as MLX has them by default, to see what "
    "that costs.",
)
@_check_code
@click.option(
    "--metal-table",
    is_flag=True,
    help="Instead, without a Mac: look the model's calls up in the table of what MLX's Metal "
    "backend refuses or computes otherwise.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@_full
@_exits
def verify(
    folder: Path,
    weights: bool,
    fast_math: bool,
    metal_table: bool,
    as_json: bool,
    full: bool,
    **options: Any,
) -> None:
    """Run the MLX model in FOLDER again and compare it with the reference stored there.

    Needs mlx only, not torch. Exits 3 where parity fails, or the weights are others.

    Runs the folder's model.py, with all that you may do: read one from a stranger first. It runs in
    a process of its own, which keeps no harm away. --weights runs nothing.

    \b
    Example:
      mlxport verify out/ --device metal
      mlxport verify out/ --weights
      mlxport verify out/ --metal-table
      mlxport verify out/ --device metal --fast-math -o fast.json
      mlxport report out/ fast.json -o cost-of-fast-math.html
    """
    if fast_math:
        if "mlx.core" in sys.modules:
            raise OptionsError(
                "--fast-math comes too late: MLX is loaded, and reads MLX_ENABLE_TF32 once"
            )
        os.environ.update(dict.fromkeys(FAST_MATH, "1"))
    if weights:
        if options["check_code"]:
            raise OptionsError("--weights runs no code: leave --check-code out")
        _verify_weights(folder, as_json)
        return
    if metal_table:
        found = api.metal_table(folder, check_code=options["check_code"])
        _say(json_text(found.to_json()) if as_json else found.to_text())
        return
    with _progress():
        report = api.verify_folder(folder, **options)
    _show(report, as_json, full=full, page=options["output"])


@main.command()
@click.argument("sources", nargs=-1, required=True, type=_PATH)
@click.option(
    "-o",
    "--output",
    type=_PATH,
    help="Write them as one page: .html, .md or .json.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing page.")
@_exits
def report(sources: tuple[Path, ...], output: Path | None, overwrite: bool) -> None:
    """Show parity reports of one model, several side by side.

    SOURCES are files that convert and verify wrote, or output folders. Exits 3 where one failed.

    \b
    Example:
      mlxport verify out/ --device metal -o parity-metal.json
      mlxport report out/ parity-metal.json -o parity.html
    """
    reports = api.report(sources, output, overwrite=overwrite)
    for name, one in reports.items():
        _say(f"{name}: {one.verdict}" if len(reports) > 1 else one.verdict)
    if output is not None:
        _say(f"Written to {output}", err=True)
    if failed := [name for name, one in reports.items() if not one.passed]:
        raise ParityError(f"parity failed: {', '.join(failed)}")


@main.command()
@click.argument("source", type=_Source())
@click.option(
    "--plan",
    type=_PATH,
    metavar="OUT/conversion.json",
    help="Show what the plan of other weights of the same architecture makes of each tensor.",
)
@_target
@_selection
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@_exits
def inspect(source: Path, as_json: bool, rename: tuple[str, ...], **options: Any) -> None:
    """Show what is in the checkpoint SOURCE and what would become of each tensor.

    What depends on the model is listed as open, with the --layer that would decide on it.
    Of several state dicts in one file, each is listed with the --key that shows it.

    \b
    Example:
      mlxport inspect unet3d.pt --layer '*=Conv' --layer 'upsample.*=ConvTranspose'
    """
    options["model_args"] = _json_object(options["model_args"], "--model-args")
    result = api.inspect(source, rename=api.parse_renames(rename), **options)
    for note in result.notes:
        _say(f"Note: {note}", err=True, prose=True)
    _say(json_text(result.to_json()) if as_json else result.to_text())


@main.command()
@click.argument("folder", type=_PATH)
@click.option(
    "-o",
    "--output",
    required=True,
    type=_PATH,
    help="File to write: .safetensors, or .pt, .pth, .bin, .ckpt. A folder with --adapter.",
)
@click.option(
    "--weights",
    type=_PATH,
    help="MLX weights to give back, trained from FOLDER's: a file, an index, or a folder.",
)
@click.option(
    "--adapter", is_flag=True, help="Write the adapter FOLDER was converted with, as PEFT reads it."
)
@click.option("--partial", is_flag=True, help="Write the rest where tensors cannot be given back.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@_exits
def restore(folder: Path, output: Path, **options: Any) -> None:
    """Write the PyTorch checkpoint that FOLDER was made from, bit for bit.

    With --weights, write one of the weights that MLX trained further: train on the Mac, deploy in
    PyTorch. Needs torch only to write .pt.

    \b
    Example:
      mlxport restore out/ -o unet3d.safetensors
      mlxport restore out/ --weights tuned.safetensors -o tuned.pt
      mlxport restore out/ --weights tuned.safetensors --adapter -o tuned/
    """
    with _progress():
        result = api.restore(folder, output, **options)
    _warn(result.warnings)
    _say(f"{len(result.keys)} tensors written to {output}", err=True)


@main.command()
@click.argument("folder", type=_PATH)
@click.option(
    "-o",
    "--output",
    required=True,
    type=_PATH,
    help="File to write, such as model.mlxfn.",
)
@click.option("--shapeless", is_flag=True, help="Let the function take other shapes too.")
@_device("What the function is to run on; fixed in the file.")
@_noise_multiple
@_check_code
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@_exits
def export(folder: Path, output: Path, **options: Any) -> None:
    """Write the model in FOLDER as one MLX function with its weights, for C++ and Swift.

    Checks that the file gives what model.py gives for the stored inputs. Needs mlx only, not torch.

    Runs the folder's model.py, with all that you may do: read one from a stranger first.

    \b
    Example:
      mlxport export out/ -o unet3d.mlxfn
    """
    exported = api.export_function(folder, output, **options)
    _warn(exported.warnings)
    _say(str(exported))


@main.command()
@click.argument("folder", type=_PATH)
@click.option("--prompt", "-p", required=True, help="The text to go on with.")
@click.option(
    "--max-tokens", "-m", type=int, default=100, show_default=True, help="Tokens at most."
)
@_device("What it is run on.")
@_check_code
@click.option("--json", "as_json", is_flag=True, help="Print text and tokens as JSON.")
@_exits
def generate(folder: Path, as_json: bool, **options: Any) -> None:
    """Let the language model in FOLDER go on with a text: a first look.

    Greedily, with the tokenizer that was carried along; mlx-lm samples, serves and trains. Needs
    mlx and tokenizers, not torch.

    Runs the folder's model.py, with all that you may do: read one from a stranger first.

    \b
    Example:
      mlxport generate out/ --prompt 'Once upon a time'
    """
    generated = api.generate(folder, **options)
    if as_json:
        _say(json_text(generated.to_json()))
        return
    _say(str(generated))
    rate = len(generated.tokens) / max(generated.seconds, 1e-9)
    counts = f"{len(generated.prompt_tokens)} tokens given, {len(generated.tokens)} generated"
    _say(f"{counts}, {rate:.1f} a second; ended: {generated.ended}", err=True)


@main.command()
@click.argument("source", type=_Source())
@click.argument("path", required=False)
@click.option(
    "--model",
    metavar="PKG.MOD:FACTORY",
    help="Gives the torch model, where SOURCE is no folder that says what it holds.",
)
@_model_args
@_example
@_selecting
@_casting
@click.option(
    "--adapter",
    type=_PATH,
    metavar="DIR",
    help="A LoRA adapter of the model, as PEFT saves it, apart from its base.",
)
@_capturing
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@_exits
def explain(
    source: Path,
    path: str | None,
    inputs: tuple[str, ...],
    input_files: tuple[Path, ...],
    layout: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Explain what convert makes of each module of the model, and why.

    One line for each module; with PATH, its qualified name, all there is to know of one: whether it
    is a layer, by which rule or why not, its lines in model.py, the axis orders it takes and gives,
    its transposes and what happens to its tensors. Writes nothing.

    \b
    Example:
      mlxport explain bert/
      mlxport explain unet3d.pt --model examples.unet3d:UNet3d --input 1,1,32,48,40
      mlxport explain unet3d.pt stem.0 --model examples.unet3d:UNet3d --input 1,1,32,48,40
    """
    options["model_args"] = _json_object(options["model_args"], "--model-args")
    options["kwargs"] = _json_object(options["kwargs"], "--kwargs")
    options["rename"] = api.parse_renames(options["rename"])
    options |= {"inputs": (*inputs, *input_files), "channels_last": layout == "channels_last"}
    explanation = api.explain_checkpoint(source, path, **options)
    _say(json_text(explanation.to_json()) if as_json else str(explanation))


@main.command()
@click.argument("folder", type=_PATH)
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--base-model", metavar="OWNER/NAME", help="The repository the weights come from.")
@click.option("--license", "licence", metavar="ID", help="As the Hub calls it: apache-2.0.")
@click.option("--private", is_flag=True, help="Make the repository private, where there is none.")
@click.option("--yes", is_flag=True, help="Upload. Without it nothing leaves this machine.")
@_exits
def publish(folder: Path, repository: str, **options: Any) -> None:
    """Write the card of FOLDER, its README.md, and with --yes upload it to the Hugging Face Hub.

    Lists what would be uploaded: what conversions write, nothing else. With --yes the code and the
    weights are held to the record before, and a model for which parity failed is refused.

    \b
    Example:
      mlxport publish out/ owner/name
      mlxport publish out/ owner/name --license apache-2.0 --yes
    """
    with _progress():
        published = api.publish(folder, repository, **options)
    _warn(published.warnings)
    _say(str(published))
    if not published.url:
        _say(f"Read {folder / 'README.md'}; --yes uploads.", err=True)


@main.command()
@click.argument("search", default="")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@click.option("--markdown", is_flag=True, help="Print docs/supported.md.")
@click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="PKG.MOD",
    help="Import this first: it registers rules and handlers of your own.",
)
@_exits
def layers(search: str, as_json: bool, markdown: bool, imports: tuple[str, ...]) -> None:
    """List the torch.nn classes and ATen operations that are supported, and how.

    SEARCH shows only the rows that hold this text.

    \b
    Example:
      mlxport layers ConvTranspose
    """
    form: Literal["text", "json", "markdown"]
    form = "json" if as_json else "markdown" if markdown else "text"
    _say(api.support(search, form=form, imports=imports).rstrip("\n"))


def _analyze(source: Path, as_json: bool, **options: Any) -> None:
    """Print the analysis of a conversion; exit 1 where it would fail."""
    others = (
        "plan",
        "verify_with",
        "target",
        "layers",
        "max_shard_size",
        "debug_dir",
    )
    if given := [f"--{n.rstrip('s').replace('_', '-')}" for n in others if options.pop(n)]:
        raise OptionsError(
            f"--dry-run analyzes a model: give --model and --input, not {', '.join(given)}"
        )
    unused = {"overwrite", "noise_multiple", "gradients", "fold_batchnorm"}
    unused |= {
        "quantize",
        "carry_along",
        "package",
        "reference",
        "input_kinds",
        "batch_sizes",
        "calls",
        "device",
    }
    analysis = api.analyze_checkpoint(
        source, **{name: value for name, value in options.items() if name not in unused}
    )
    _say(json_text(analysis.to_json()) if as_json else str(analysis))
    if not analysis.covered:
        sys.exit(ConversionError.exit_code)


def _is_list(source: Path) -> bool:
    """Tell whether an argument stands for several sources."""
    is_pattern = any(character in str(source) for character in "*?[")
    return str(source).endswith(".txt") or (is_pattern and not os.path.exists(source))


def _convert_many(sources: Sequence[Path], output: Path, as_json: bool, **options: Any) -> None:
    """Convert each source, print the table, and exit by the worst."""
    with _progress():
        outcomes = api.convert_many(sources, output, **options)
    _say(json_text(outcomes.to_json()) if as_json else str(outcomes), prose=not as_json)
    _say(f"Written to {output}", err=True)
    if outcomes.failed:
        raise ConversionError(f"not converted: {', '.join(outcomes.failed)}")
    if outcomes.strayed:
        raise ParityError(f"parity failed: {', '.join(outcomes.strayed)}")


def _verify_weights(folder: Path, as_json: bool) -> None:
    found = api.verify_weights(folder)
    _say(json_text(found.to_json()) if as_json else found.verdict)
    if not found.passed:
        raise ParityError("the weights are not those that were written")


def _progress() -> AbstractContextManager[None]:
    """Show on stderr what the command is at: a line that moves, or a line a stage elsewhere."""
    if sys.stderr.isatty():
        return progress_bar()
    return progress_lines(lambda line: _say(line, err=True))


def _show(
    report: ParityReport,
    as_json: bool,
    took: Timings | None = None,
    *,
    full: bool = False,
    page: Path | None = None,
) -> None:
    """Print a report and, where it failed, exit with the code that says so."""
    if as_json:
        data = report.to_json() | ({"timings": took.to_json()} if took else {})
        _say(json_text(data))
        _require(report)
        return
    terminal = sys.stdout.isatty()
    shown = report.summary(
        _columns() if terminal or "COLUMNS" in os.environ else None,
        full=full,
        page=page,
        color=terminal and "NO_COLOR" not in os.environ,
    )
    _say(shown.rstrip("\n"), styled=True)
    if terminal and not report.passed:  # it reads the verdict already
        sys.exit(ParityError.exit_code)
    _require(report)


def _require(report: ParityReport) -> None:
    if not report.passed:
        raise ParityError(report.verdict)


def _json_object(text: str | None, option: str) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint=option) from error
    if not isinstance(value, dict):
        raise click.BadParameter("expected a JSON object", param_hint=option)
    return value


# What runs the model.py of an output folder.
_RUNNING = ("verify", "export", "generate")


def run() -> NoReturn:
    """Be the command ``mlxport``, in a process of its own."""
    open_standard_streams()
    arguments = sys.argv[1:]
    with ending_cleanly():
        if arguments and arguments[0] in _RUNNING:
            sys.exit(_run_in_child(arguments))
        keep_memory()
        collect_rarely()
        main(prog_name="mlxport")
    raise AssertionError("main() exits")


def _run_in_child(arguments: list[str]) -> int:
    """Run a command that runs code of an output folder, and return its exit code."""
    try:
        return in_child("mlxport.cli:run_reporting", arguments)
    except EndedEarly as error:
        text = (
            f"the process that ran model.py ended {error}, before its answer was there: code in "
            "the folder ended it, or the system did. Nothing was judged. If you do not know "
            "the folder, read its model.py before you run it again."
        )
        _say(f"Error: {text}", color="red", err=True)
        return ConversionError.exit_code


def run_reporting(descriptor: int) -> NoReturn:
    """Be the child process of `run`: run the command and report its exit code."""
    os.set_inheritable(descriptor, False)
    open_standard_streams()
    code = ConversionError.exit_code
    with ending_cleanly():
        keep_memory()
        collect_rarely()
        try:
            main(prog_name="mlxport")
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0
    report_exit_code(descriptor, code)
    sys.exit(code)


if __name__ == "__main__":
    run()
