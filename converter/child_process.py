"""Run a command in a child process and believe what it reports, not how it ends.

What an output folder's ``model.py`` is may end the process it runs in, with any exit status. The
child says what the command's exit code is when it is through; where it ends without a word, nothing
was judged. No sandbox: code that means harm can do it, and can forge the word. Standard library
alone.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

_logger = logging.getLogger(__name__)

# The modules of the parent are found again, and none in the current folder that it would not have.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from {module} import {name}; {name}(int(sys.argv.pop(1)))"
)


class EndedEarly(Exception):
    """The child ended before the command in it was through; the message says how."""


def in_child(entry: str, arguments: Sequence[str]) -> int:
    """Run a command in a child process and return its exit code.

    Args:
        entry: ``module:function`` of what runs the command with ``sys.argv`` and calls
            `report_exit_code` with the descriptor that it is given.
        arguments: of the command.

    Raises:
        EndedEarly: the child ended before it reported a code.
    """
    reading, writing = os.pipe()
    module, _, name = entry.partition(":")
    start = _START.format(module=module, name=name)
    command = [sys.executable, "-c", start, json.dumps(sys.path), str(writing), *arguments]
    try:
        with subprocess.Popen(command, pass_fds=(writing,)) as child:
            os.close(writing)
            status = _waited_for(child)
        os.set_blocking(reading, False)
        try:
            said = os.read(reading, 16)
        except BlockingIOError as error:  # a process that the child left has the other end
            _logger.debug("the child reported nothing: %s", error)
            said = b""
    finally:
        os.close(reading)
    if said:
        return int(said)
    how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
    raise EndedEarly(how)


def report_exit_code(descriptor: int, code: int) -> None:
    """Tell the parent that the command is through, and with which exit code."""
    os.write(descriptor, str(code).encode())


def _waited_for(child: subprocess.Popen[bytes]) -> int:
    """Return the status of the child; whatever ends this process ends that one first."""
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            _logger.debug("interrupted; the terminal tells the child too, which cleans up")
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except BaseException:
            child.terminate()
            child.wait()
            raise
