"""What Polygraphy's data-loader script yields: windows of real clips, as the model takes them."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.clips import windows
from runtime import InputError, ModelError
from runtime.files.contract import METADATA_KEY, read_contract
from runtime.pixels import sample_codes

SCRIPT = Path(__file__).resolve().parents[1] / "calibration" / "data_loader.py"
CLIP = SCRIPT.parents[1] / "export" / "clips" / "kodak_blurry.mp4"


@pytest.fixture
def yielded(tiny_model, monkeypatch):
    def load(model=tiny_model, **variables):
        for name, value in {"ONNX": model, "CLIPS": CLIP, "SIZE": "96x64", "WINDOWS": 2, **variables}.items():
            if value is None:
                monkeypatch.delenv(f"VIDEODEBLUR_{name}", raising=False)
            else:
                monkeypatch.setenv(f"VIDEODEBLUR_{name}", str(value))
        specification = importlib.util.spec_from_file_location("data_loader", SCRIPT)  # as Polygraphy loads it
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return list(module.load_data())

    return load


def with_contract(model, folder, **changes):
    """The same file under another contract; the loader reads nothing else of it."""
    proto = onnx.load(model)
    contract = dataclasses.replace(read_contract(model), **changes)
    onnx.helper.set_model_props(proto, {METADATA_KEY: contract.to_json()})
    onnx.save(proto, folder / "m.onnx")
    return folder / "m.onnx"


def test_windows_are_those_of_the_clip(yielded):
    found = yielded()
    assert [list(each) for each in found] == [["blurry"]] * 2
    for each, window in zip(found, windows(CLIP, 5, "calibration", 2)):
        height, width = window.luma.shape[1:]
        top, left = (height - 64) // 2, (width - 96) // 2
        np.testing.assert_array_equal(each["blurry"], window.luma[None, :, top : top + 64, left : left + 96])
        assert each["blurry"].flags.c_contiguous


def test_the_clips_own_size_and_the_other_part(yielded):
    (found,) = yielded(SIZE=None, WINDOWS=1, PART="verification")
    expected = next(windows(CLIP, 5, "verification", 1)).luma
    np.testing.assert_array_equal(found["blurry"], expected[None])


@pytest.mark.parametrize(("io", "bits"), [("u8", 8), ("u16", 10)])
def test_codes_of_the_models_depth(yielded, tiny_model, tmp_path, io, bits):
    (unit,) = yielded(WINDOWS=1)
    model = with_contract(tiny_model, tmp_path, io=io, bits=bits, color_range="limited")
    (found,) = yielded(model, WINDOWS=1)
    codes = sample_codes.from_unit(unit["blurry"], bits, "limited")
    np.testing.assert_array_equal(found["blurry"], codes if io == "u8" else sample_codes.to_pairs(codes))


def test_fixed_sizes_and_batch(yielded, tiny_model, tmp_path):
    model = with_contract(tiny_model, tmp_path, batch=2, height=32, width=40)
    (found,) = yielded(model, WINDOWS=3)
    assert found["blurry"].shape == (2, 5, 32, 40)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"CLIPS": None}, "VIDEODEBLUR_CLIPS is not set"),
        ({"SIZE": "big"}, "VIDEODEBLUR_SIZE is 'big', expected WIDTHxHEIGHT"),
        ({"SIZE": "100x64"}, "expected at least 100x64, multiples of 8"),
        ({"SIZE": "4096x64"}, "expected at least 4096x64"),
        ({"WINDOWS": "0"}, "VIDEODEBLUR_WINDOWS is '0', expected a number from 1"),
        ({"PART": "all"}, "part is 'all', expected one of calibration, verification"),
    ],
)
def test_variables_that_say_nothing(yielded, variables, message):
    with pytest.raises(InputError, match=message):
        yielded(**variables)


def test_a_model_without_a_contract(yielded, tiny_model, tmp_path):
    proto = onnx.load(tiny_model)
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="without this project's contract"):
        yielded(tmp_path / "m.onnx")


def test_a_calibration_cache_in_place_of_clips(yielded, tmp_path):
    (tmp_path / "calib.cache").write_bytes(b"TRT-8601-EntropyCalibration2\n")
    with pytest.raises(InputError, match="is a calibration cache of TensorRT, expected clips"):
        yielded(CLIPS=tmp_path / "calib.cache")
