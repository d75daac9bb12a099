import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlxport.converter.checkpoint.writing import atomic
from mlxport.converter.errors import CheckpointError, OptionsError
from mlxport.converter.output.whole_folder import OutputFolder
from mlxport.converter.plan.record import RECORD_FILE, RECORD_FORMAT, RECORD_VERSION


def record(text: str) -> str:
    return json.dumps({"format": RECORD_FORMAT, "version": RECORD_VERSION, "text": text})


def fill(folder: Path, text: str = "new") -> None:
    (folder / RECORD_FILE).write_text(record(text))
    (folder / "layers").mkdir()
    (folder / "layers" / "conv.py").write_text(text)


def content(folder: Path) -> dict[str, str]:
    """All files below a folder, hidden ones too."""
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def whole(text: str, name: str = "out") -> dict[str, str]:
    return {f"{name}/{RECORD_FILE}": record(text), f"{name}/layers/conv.py": text}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An output folder from before."""
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out", "old")
    return tmp_path / "out"


def test_appears_when_all_went_well(tmp_path) -> None:
    with OutputFolder(tmp_path / "out") as folder:
        assert folder.parent == tmp_path
        fill(folder)
        assert not (tmp_path / "out").exists()
    assert content(tmp_path) == whole("new")


def test_parents_are_made(tmp_path) -> None:
    with OutputFolder(tmp_path / "a" / "b") as folder:
        fill(folder)
    assert content(tmp_path / "a") == whole("new", "b")


def fail_in(output: OutputFolder, error: type[BaseException]) -> None:
    with output as folder:
        fill(folder)
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_a_failure(error, tmp_path) -> None:
    with pytest.raises(error):
        fail_in(OutputFolder(tmp_path / "out"), error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_as_it_was(error, old, tmp_path) -> None:
    with pytest.raises(error):
        fail_in(OutputFolder(old, overwrite=True), error)
    assert content(tmp_path) == whole("old")


def refuse(*_arguments: object) -> bool:
    return False


WAYS = {"exchanged": atomic._exchange, "renamed": refuse}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    monkeypatch.setattr(atomic, "_exchange", WAYS[request.param])


@pytest.mark.usefixtures("way")
def test_overwrite_replaces_the_whole_folder(old, tmp_path) -> None:
    (old / "notes.txt").write_text("old")
    with OutputFolder(old, overwrite=True) as folder:
        fill(folder)
        assert content(old)[RECORD_FILE] == record("old")
    assert content(tmp_path) == whole("new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="no exchange of names there")
def test_folders_are_exchanged_in_one_step_here(tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    assert atomic._exchange(tmp_path / "a", tmp_path / "b")
    assert content(tmp_path) == {"a/x": "b", "b/x": "a"}


@pytest.mark.parametrize("gone", ["a", "b"])
def test_an_exchange_that_cannot_be_is_told(gone, tmp_path) -> None:
    for name in {"a", "b"} - {gone}:
        (tmp_path / name).mkdir()
    assert not atomic._exchange(tmp_path / "a", tmp_path / "b")


def test_a_failure_between_the_renames_is_undone(old, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(atomic, "_exchange", refuse)
    rename = os.rename

    def fail_second(source, target):
        if "partial" in str(source):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_second)
    with (
        pytest.raises(CheckpointError, match="out cannot be written: No space"),
        OutputFolder(old, overwrite=True) as folder,
    ):
        fill(folder)
    assert content(tmp_path) == whole("old")


def test_an_existing_destination_is_refused_before_any_work(old, tmp_path) -> None:
    with pytest.raises(OptionsError, match=r"exists already.*overwrite=True"):
        OutputFolder(old)
    assert content(tmp_path) == whole("old")


def test_an_empty_folder_may_be_replaced(tmp_path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OptionsError, match="exists already"):
        OutputFolder(tmp_path / "out")
    with OutputFolder(tmp_path / "out", overwrite=True) as folder:
        fill(folder)
    assert content(tmp_path) == whole("new")


def test_a_folder_of_the_users_own_is_never_replaced(tmp_path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(OptionsError, match=r"not an output of mlxport \(conversion.json"):
        OutputFolder(tmp_path / "home", overwrite=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hi",
        "[]",
        "{}",
        '{"format": "other", "version": 1}',
        '{"format": "mlxport-conversion"}',
        "[" * 9999,
    ],
)
def test_a_file_of_the_records_name_makes_no_output_folder(text: str, tmp_path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / RECORD_FILE).write_text(text)
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(OptionsError, match=r"not an output of mlxport \(conversion.json"):
        OutputFolder(tmp_path / "home", overwrite=True)


def test_an_output_of_another_version_may_be_replaced(old, tmp_path) -> None:
    (old / RECORD_FILE).write_text(json.dumps({"format": RECORD_FORMAT, "version": 99}))
    with OutputFolder(old, overwrite=True) as folder:
        fill(folder)
    assert content(tmp_path) == whole("new")


@pytest.mark.parametrize("there", ["", "a", "a/b"])
def test_parents_that_a_failed_conversion_made_go_again(there: str, tmp_path) -> None:
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        fail_in(OutputFolder(tmp_path / "a" / "b" / "c"), KeyboardInterrupt)
    assert sorted(tmp_path.rglob("*")) == before


def test_parents_that_hold_something_meanwhile_stay(tmp_path) -> None:
    output = OutputFolder(tmp_path / "a" / "b" / "c")
    output.__enter__()
    (tmp_path / "a" / "note").write_text("x")
    output.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert content(tmp_path) == {"a/note": "x"}
    assert not (tmp_path / "a" / "b").exists()


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000], ids=["NUL", "long"])
def test_a_name_no_folder_can_have_is_refused(name: str, tmp_path) -> None:
    with pytest.raises(OptionsError, match="cannot be an output folder"):
        OutputFolder(tmp_path / name)


def test_a_file_is_never_replaced(tmp_path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(OptionsError, match="will not be replaced"):
        OutputFolder(tmp_path / "out", overwrite=True)


def test_the_root_is_no_output_folder() -> None:
    with pytest.raises(OptionsError, match="cannot be an output folder"):
        OutputFolder(Path("/"))


def test_a_source_in_the_folder_to_be_replaced_is_refused(old, tmp_path) -> None:
    (old / "model.pt").write_text("x")
    (tmp_path / "link.pt").symlink_to(old / "model.pt")
    for source in (old / "model.pt", tmp_path / "link.pt"):
        with pytest.raises(OptionsError, match=r"model\.pt is in .*out, which is to be"):
            OutputFolder(old, overwrite=True, sources=[source])
    OutputFolder(old, overwrite=True, sources=[tmp_path / "elsewhere.pt"])


def test_a_destination_that_appears_meanwhile_is_left_alone(tmp_path) -> None:
    output = OutputFolder(tmp_path / "out")
    fill(output.__enter__())
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out", "other")
    with pytest.raises(OptionsError, match="exists already"):
        output.__exit__(None, None, None)
    assert content(tmp_path) == whole("other")


def test_a_link_stays_a_link(old, tmp_path) -> None:
    (tmp_path / "link").symlink_to(old)
    with OutputFolder(tmp_path / "link", overwrite=True) as folder:
        fill(folder)
    assert (tmp_path / "link").is_symlink()
    assert content(old) == {RECORD_FILE: record("new"), "layers/conv.py": "new"}


def test_a_relative_destination_survives_a_change_of_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = OutputFolder(Path("out"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with output as folder:
        fill(folder)
    assert content(tmp_path) == whole("new")


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch) -> None:
    def refuse(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    output = OutputFolder(tmp_path / "out")
    # root may write anywhere, so taking permissions away would test nothing
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(CheckpointError, match="out cannot be written: Permission denied"), output:
        pytest.fail("entered")


def test_a_parent_that_is_a_file_is_named(tmp_path) -> None:
    (tmp_path / "file").touch()
    output = OutputFolder(tmp_path / "file" / "out")
    with pytest.raises(CheckpointError, match="out cannot be written: Not a directory"), output:
        pytest.fail("entered")


def test_an_old_folder_that_stays_is_told(old, monkeypatch) -> None:
    def fail(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError(13, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", fail)
    with (
        pytest.warns(UserWarning, match=r"out is complete, but the old one remains as .*partial"),
        OutputFolder(old, overwrite=True) as folder,
    ):
        fill(folder)
    assert content(old)[RECORD_FILE] == record("new")


def test_files_are_on_disk_before_the_folder_has_its_name(tmp_path, monkeypatch) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "rename", lambda *names: (done.append("rename"), rename(*names)))
    with OutputFolder(tmp_path / "out") as folder:
        fill(folder)
    # two files and two folders, then the parent with the new name
    assert done == ["fsync"] * 4 + ["rename", "fsync"]


KILLED = """
import sys, time
from pathlib import Path
from mlxport.converter.output.whole_folder import OutputFolder
with OutputFolder(Path(sys.argv[1]), overwrite=True) as folder:
    (folder / "model.py").write_text("half")
    print("midway", flush=True)
    time.sleep(60)
"""


def test_a_kill_leaves_the_old_as_it_was(old, tmp_path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(old)], stdout=-1, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "midway\n"
        run.send_signal(signal.SIGKILL)
    assert content(old) == {RECORD_FILE: record("old"), "layers/conv.py": "old"}
    assert all(path.name.startswith(".out.") for path in tmp_path.iterdir() if path != old)


def test_an_interrupt_leaves_the_old_and_nothing_else(old, tmp_path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(old)], stdout=-1, stderr=-1, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "midway\n"
        run.send_signal(signal.SIGINT)
    assert content(tmp_path) == whole("old")
