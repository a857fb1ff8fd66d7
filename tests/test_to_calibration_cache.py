"""The cache that TensorRT 8.6 to 10 read, written and read back."""

import struct

import pytest
from measured_ranges import measured_ranges

from calibration.ranges import Ranges
from export.to_calibration_cache import calibration_cache, main
from runtime import InputError


@pytest.fixture
def ranges(tiny_model):
    return measured_ranges(tiny_model)


def test_every_tensor_has_its_scale(ranges, tmp_path, capsys):
    output = tmp_path / "int8.cache"
    assert main(["--ranges", str(ranges), "--output", str(output), "--version", "8.6.1", "--method", "entropy"]) == 0
    assert "--int8 --calib=" in capsys.readouterr().out
    head, *lines = output.read_text().splitlines()
    assert head == "TRT-8601-EntropyCalibration2"
    known = Ranges.load(ranges)
    found = {name: struct.unpack(">f", bytes.fromhex(code))[0] for name, _, code in (line.rpartition(": ") for line in lines)}
    assert set(found) == set(known.tensors)
    scaled = [name for name, tensor in known.tensors.items() if tensor.histogram is not None]
    assert found[scaled[0]] == pytest.approx(known.scale(scaled[0], "int8", "entropy"), rel=1e-6)
    assert all(scale > 0 for scale in found.values())


def test_versions(ranges):
    known = Ranges.load(ranges)
    assert calibration_cache(known, "10.3.0", "max").startswith("TRT-100300-EntropyCalibration2\n")  # what trtexec's calibrator is
    for version in ("11.4.0", "newest"):
        with pytest.raises(InputError, match="11 reads types from the graph only"):
            calibration_cache(known, version)
