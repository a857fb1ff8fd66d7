"""How commands end: one line and a status for what a user can mend, a traceback for a bug."""

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import videodeblur
from runtime.command_line import Stopped, clean_up_when_stopped, command, quoted, stop_if_told
from runtime.errors import InputError, MissingPackageError

ROOT = Path(__file__).resolve().parents[1]


def ending_with(error):
    @command
    def main(argv=None):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("got 3, expected 5: add two"), 1, "error: got 3, expected 5: add two\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out.mp4"), 1, "error: out.mp4: No space left on device\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "error: /x: Permission denied\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (Stopped(143), 143, "interrupted\n"),
    ],
)
def test_user_errors_are_one_line(error, status, line, capsys):
    assert ending_with(error)() == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_letters_that_an_encoding_lacks_do_not_fail_the_work(encoding):
    """The name of a file, as of one in Japanese where the report is redirected on Windows, and one in bytes of another locale."""
    code = "from runtime.command_line import command\n@command\ndef main(_):\n    print('\u65e5.mp4 caf\\udce9')\nmain(None)"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert done.stderr == b""
    assert done.stdout.endswith(b".mp4 caf\\udce9\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_counts_where_its_exception_was_swallowed(number, status):
    @command
    def main(argv=None):
        clean_up_when_stopped()
        stop_if_told()
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(10)
        stop_if_told()
        return 0

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert main() == status
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        ending_with(ZeroDivisionError())()


def test_missing_package_names_the_line_to_type():
    assert "pip install 'av>=18'" in str(MissingPackageError("av>=18", "reading a video"))


def test_umbrella_lists_its_commands(capsys):
    assert videodeblur.main([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in videodeblur.COMMANDS)


def test_umbrella_has_the_library_and_imports_it_late():
    code = """
import sys
import videodeblur
assert videodeblur.main(["--help"]) == 0
early = {name.split(".")[0] for name in sys.modules} & {"numpy", "runtime", "openvino", "onnxruntime", "torch", "av"}
assert not early, early
from videodeblur import Engine, StreamDeblurrer
import runtime
assert (Engine, StreamDeblurrer) == (runtime.Engine, runtime.StreamDeblurrer)
assert not hasattr(videodeblur, "Motor")
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(("module", "_"), videodeblur.COMMANDS.values(), ids=videodeblur.COMMANDS)
def test_umbrella_leads_to_files(module, _):
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_umbrella_names_the_nearest_command(capsys):
    assert videodeblur.main(["exprot"]) == 2
    assert "did you mean 'export'?" in capsys.readouterr().err


def test_commands_that_are_printed_can_be_pasted():
    assert quoted("videodeblur", "run", Path("My Holiday (1).mp4"), 3) == "videodeblur run 'My Holiday (1).mp4' 3"


def test_next_lines_name_commands_of_an_installed_package():
    for path in (path for folder in ("export", "calibration", "serving") for path in (ROOT / folder).glob("**/*.py")):
        for line in path.read_text().splitlines():
            assert not ("next" in line and ("python export/" in line or "python -m " in line)), f"{path}: {line.strip()}"


def test_an_interrupt_while_modules_are_loaded_has_no_traceback(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("videodeblur.importlib.import_module", interrupted)
    assert videodeblur.main(["run", "in.mp4", "out.mp4"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
