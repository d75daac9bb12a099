"""Verify and time mlxport on this machine's GPU, and write one report to attach to an issue.

    make verify-metal                on a Mac with Apple silicon
    make verify-metal DEVICE=cpu     tries the recipe anywhere; its report says cpu

The examples and six networks are converted and held to PyTorch on the device; transposed
convolutions, convolutions and a converted U-Net are timed beside ``mlx.nn`` and PyTorch. Each step
is a process of its own and is kept as it ends, in ``<device>-report/``: interrupted, or out of
time, the same command goes on where it was. ``--anew`` begins again.

Exit code 0 where all ran and parity holds, 1 where steps are left or failed, 3 where parity fails,
4 where the device is not on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from proof_page import page
from proof_steps import names

HERE = Path(__file__).parent
NEEDS = """\
Needs: a Mac with Apple silicon, 4 GB of free memory for the largest layers, 2 GB of free disk
beside the installed packages, and ten minutes with little else running. Nothing is sent anywhere.
"""
FREE = 2 << 30  # bytes
LIMIT = 150  # seconds of one step
PACKAGES = ("mlxport", "mlx", "torch", "numpy", "monai", "timm", "transformers", "diffusers")

Steps = dict[str, dict[str, Any]]


def main() -> None:
    """Run what is left of the steps, and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("metal", "cuda", "cpu"), default="metal")
    parser.add_argument("--minutes", type=float, default=10, help="till no further step begins")
    parser.add_argument("--anew", action="store_true", help="forget what was found before")
    parser.add_argument("--folder", type=Path, default=Path(), help="to write to")
    parser.add_argument("--steps", nargs="*", metavar="NAME", help="these alone")
    given = parser.parse_args()
    print(NEEDS, flush=True)
    machine = machine_of(given.device)
    if machine is None:
        print(f"No {given.device} on this machine; DEVICE=cpu tries the recipe.", file=sys.stderr)
        raise SystemExit(4)
    given.folder.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(given.folder).free) < FREE:
        raise SystemExit(f"{free / 1e9:.1f} GB are free at {given.folder.resolve()}, 2 are needed")
    kept = given.folder / f"{given.device}-report"
    wanted = given.steps or list(names())
    if unknown := {*wanted} - {*names()}:
        parser.error(f"no such steps: {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    found = recalled(kept, machine, anew=given.anew)
    until = time.monotonic() + 60 * given.minutes
    for name in wanted:
        if name not in found and time.monotonic() < until:
            found[name] = run(name, given.device, kept)
            write(kept / "steps.json", {"machine": machine, "steps": found})
            report(given.folder, given.device, machine, found, wanted)
    left = [name for name in wanted if name not in found]
    for path in report(given.folder, given.device, machine, found, wanted):
        print(f"Written to {path.resolve()}")
    if left:
        print(f"{len(left)} steps are left, as the time was up: run the same command again.")
    raise SystemExit(exit_code(found, left))


def exit_code(found: Steps, left: Sequence[str]) -> int:
    """Return 3 where parity fails, 1 where something did not run, else 0."""
    if any(step.get("passed") is False for step in found.values()):
        return 3
    return 1 if left or any("failed to run" in step for step in found.values()) else 0


def recalled(kept: Path, machine: Mapping[str, str], *, anew: bool) -> Steps:
    """Return what was found before on the same machine with the same versions, but what failed."""
    path = kept / "steps.json"
    if anew or not path.exists():
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        return {}
    data = json.loads(path.read_text())
    if data["machine"] != machine:
        print(f"{path} is of another machine or of other versions: beginning anew", flush=True)
        return recalled(kept, machine, anew=True)
    steps: Steps = data["steps"]
    return {name: step for name, step in steps.items() if "failed to run" not in step}


def run(name: str, device: str, kept: Path) -> dict[str, Any]:
    """Run one step in a process of its own; one that ends badly says how."""
    print(f"{name} …", end=" ", flush=True)
    begun = time.monotonic()
    command = [sys.executable, str(HERE / "proof_steps.py"), name, device, str(kept)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        found: dict[str, Any] = {"failed to run": f"took more than {LIMIT} s"}
    else:
        if ended.returncode:
            last = "\n".join(ended.stderr.strip().splitlines()[-12:])
            found = {"failed to run": f"ended with {ended.returncode}: {last}"}
        else:
            found = json.loads(ended.stdout.splitlines()[-1])
    found["took"] = round(time.monotonic() - begun, 1)
    print(outcome(found), f"({found['took']:.0f} s)", flush=True)
    return found


def outcome(step: Mapping[str, Any]) -> str:
    """Say in a word what came of a step."""
    if "failed to run" in step:
        return "failed to run"
    if "passed" in step:
        return "parity holds" if step["passed"] else "PARITY FAILS"
    return "left out" if "skipped" in step else "timed"


def report(
    folder: Path, device: str, machine: Mapping[str, str], found: Steps, wanted: Sequence[str]
) -> list[Path]:
    """Write what is found so far, as JSON and as a page."""
    steps = {name: found[name] for name in wanted if name in found}
    data = {
        "format": "mlxport proof",
        "version": 1,
        "device": device,
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": dict(machine),
        "left": [name for name in wanted if name not in found],
        "steps": steps,
    }
    paths = [folder / f"{device}-report.json", folder / f"{device}-report.html"]
    write(paths[0], data)
    paths[1].write_text(page(data, names()), encoding="utf-8")
    return paths


def write(path: Path, data: Any) -> None:
    """Write JSON beside its place, then to its place: an interruption leaves what was there."""
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(path)


def machine_of(device: str) -> dict[str, str] | None:
    """Describe this machine; None where it has no such device."""
    from mlxport.converter.environment import prepare
    from mlxport.converter.errors import DeviceError

    prepare()
    from mlxport.converter.output.device import on_device
    from mlxport.converter.parity.run.environment import environment

    try:
        with on_device(device):
            found = environment({})
    except DeviceError:
        return None
    known = {package: version(package) for package in PACKAGES}
    return {
        **found,
        **known,
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "system": (platform.mac_ver()[0] and f"macOS {platform.mac_ver()[0]}") or platform.system(),
        "commit": _commit(),
    }


def _commit() -> str:
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


if __name__ == "__main__":
    main()
