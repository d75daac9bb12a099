"""Hold weights that were converted by a plan to their torch model, and keep the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mlxport.converter.options.adapter import AdapterOptions
from mlxport.converter.options.judgement import JudgementOptions
from mlxport.converter.options.output import Extent
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.output.contents import write_evidence, write_report
from mlxport.converter.output.lineage import record_lineage
from mlxport.converter.output.live_model import live_model
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.run.verify import verify_at_sizes
from mlxport.converter.plan.record import Conversion
from mlxport.converter.tasks.loading.load_adapter import load_adapter
from mlxport.converter.tasks.loading.load_source_model import loaded_model
from mlxport.converter.tasks.record_references import Origin
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.caches import caches_as_tensors
from mlxport.converter.torch_model.example_inputs import example_call
from mlxport.converter.torch_model.factory import Factory
from mlxport.converter.torch_model.model_state import eval_mode, left_as_it_was


@dataclass(frozen=True)
class ByModel:
    """A torch model to hold converted weights to, and how.

    Attributes:
        source: the checkpoint.
        model: the torch model, ``pkg.mod:factory`` that gives it, or what builds it.
        inputs: example inputs, as for ``convert_checkpoint``.
        kwargs: further keyword inputs.
        reading: how the checkpoint is read.
        judging: how the two are compared.
        extent: how much of the reference is stored.
        adapting: the adapter that goes into the torch model first; None for none.
    """

    source: str | Path
    model: str | torch.nn.Module | Factory
    inputs: Sequence[Any]
    kwargs: Mapping[str, Any] | None
    reading: SourceOptions
    judging: JudgementOptions
    extent: Extent = "bounded"
    adapting: AdapterOptions | None = None

    @stage("verify")
    def verify(self, folder: Path, conversion: Conversion) -> ParityReport:
        """Run both models, write the reference and the report into the folder.

        Args:
            folder: with ``model.py``, weights and record. Its ``model.py`` is run.
            conversion: the record.

        Raises:
            ConversionError: the torch model cannot be built, takes other weights or inputs, or the
                folder's ``model.py`` cannot be run.
        """
        with ExitStack() as stack:
            loaded = stack.enter_context(loaded_model(self.source, self.model, self.reading))
            stack.enter_context(left_as_it_was(loaded.model))
            stack.enter_context(eval_mode(loaded.model))
            if self.adapting is not None:
                load_adapter(
                    loaded.model,
                    self.adapting,
                    allow_lossy_cast=self.reading.allow_lossy_cast,
                )
            args, named = example_call(loaded.model, self.inputs, self.kwargs)
            stack.enter_context(caches_as_tensors((args, named)))
            origin = Origin(loaded.model, args, named, conversion, self.judging.trials)
            references = tuple(r.with_moved(r) if r.with_moved else r for r in origin.references())
        write_evidence(folder, conversion, references, self.extent)
        built = live_model(folder)
        record_lineage(built, conversion)
        report = verify_at_sizes(built, conversion, references, judgement=self.judging.judgement)
        report = replace(report, notes=(*report.notes, *origin.notes))
        write_report(folder, report)
        return report
