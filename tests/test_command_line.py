"""How commands end: one line and a status for what a user can mend, a traceback for a bug."""

import errno

import pytest

import videodeblur
from runtime.command_line import command
from runtime.errors import InputError, MissingPackageError


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
    ],
)
def test_user_errors_are_one_line(error, status, line, capsys):
    assert ending_with(error)() == status
    assert capsys.readouterr().err == line


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        ending_with(ZeroDivisionError())()


def test_missing_package_names_the_line_to_type():
    assert "pip install 'av>=18'" in str(MissingPackageError("av>=18", "reading a video"))


def test_umbrella_lists_its_commands(capsys):
    assert videodeblur.main([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in videodeblur.COMMANDS)


def test_umbrella_names_the_nearest_command(capsys):
    assert videodeblur.main(["exprot"]) == 2
    assert "did you mean 'export'?" in capsys.readouterr().err
