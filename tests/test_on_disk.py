"""Files and folders appear whole or not at all."""

import re

import pytest

from runtime.errors import InputError, ModelError
from runtime.files.on_disk import partial_file, partial_folder, partial_onnx


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path):
    with partial_file(tmp_path / "a.json") as partial:
        partial.write_text("whole")
        assert re.fullmatch(r"\.a\.json\.[0-9a-f]{12}\.part", *names(tmp_path))  # what looks for *.json does not see it
    assert (tmp_path / "a.json").read_text() == "whole"
    assert names(tmp_path) == ["a.json"]


def test_a_file_stays_as_it_was_when_the_block_fails(tmp_path):
    (tmp_path / "a.json").write_text("before")
    with pytest.raises(TypeError), partial_file(tmp_path / "a.json") as partial:
        partial.write_bytes("half")
    assert (tmp_path / "a.json").read_text() == "before"
    assert names(tmp_path) == ["a.json"]


def test_a_place_that_cannot_be_written_to_is_told_at_once(tmp_path):
    missing = tmp_path / "missing" / "a.json"
    with pytest.raises(FileNotFoundError), partial_file(missing):
        pytest.fail("the work was begun")
    with pytest.raises(InputError, match=r"cannot write .*missing: .*with --saveEngine"), partial_file(missing, "--saveEngine"):
        pytest.fail("the work was begun")
    with pytest.raises(InputError, match="is a folder"), partial_file(tmp_path, "--output"):
        pytest.fail("the work was begun")
    with pytest.raises(InputError, match=r"ends with \.onnx"), partial_onnx(tmp_path / "a.json"):
        pytest.fail("the work was begun")


def test_a_folder_is_replaced_when_that_was_asked_for(tmp_path):
    for number, overwrite in enumerate((False, True)):
        with partial_folder(tmp_path / "a", overwrite) as partial:
            (partial / f"{number}").touch()
    assert names(tmp_path / "a") == ["1"]
    with pytest.raises(OSError, match="not empty"), partial_folder(tmp_path / "a") as partial:
        (partial / "2").touch()
    with pytest.raises(FileNotFoundError), partial_folder(tmp_path / "a", overwrite=True) as partial:
        (partial / "missing").unlink()
    assert names(tmp_path / "a") == ["1"]
    assert names(tmp_path) == ["a"]


def test_internal_names_of_parts_are_not_told(tmp_path):
    with pytest.raises(ModelError, match=r"m\.onnx is not a model") as caught, partial_onnx(tmp_path / "m.onnx") as partial:
        raise ModelError(f"{partial} is not a model")
    assert str(caught.value) == f"{tmp_path / 'm.onnx'} is not a model"
