"""`videodeblur compare`: what got worse is named, by its own limit; what cannot be compared is named too."""

import dataclasses
import json

import pytest

from export.compare_engines import Limits, compare, main
from runtime import InputError
from runtime.errors import ModelError
from runtime.files.engine_record import Measured, Profile, load_record, record_path
from runtime.files.on_disk import file_sha256

MEASURED = Measured("GPU of a test", "tensorrt 11.4.0.106", (1, 5, 64, 96), 10.0, 1 << 30, 80.0, "a" * 64)


@pytest.fixture
def pair(tiny_engine, tmp_path):
    """Writes old.engine and new.engine, whose records are the tiny engine's with changes, and the new file with more bytes."""

    def write(old=None, new=None, more=0):
        paths = []
        for name, changes, size in (("old", old, 0), ("new", new, more)):
            path = tmp_path / f"{name}.engine"
            path.write_bytes(tiny_engine.read_bytes() + bytes(size))
            record = dataclasses.replace(load_record(tiny_engine), sha256=file_sha256(path), build_seconds=10.0)
            dataclasses.replace(record, **(changes or {})).save(path)
            paths.append(path)
        return paths

    return write


def measured(**changes):
    return {"measured": dataclasses.replace(MEASURED, **changes)}


def worse(rows):
    return [row.what for row in rows if row.regression]


def test_records_keep_what_was_measured(pair):
    path = pair(measured(), measured())[0]
    assert load_record(path).measured == MEASURED


def test_older_records_load(pair):
    path = pair()[0]
    values = json.loads(record_path(path).read_text())
    for name in ("measured", "origin"):
        del values[name]
    record_path(path).write_text(json.dumps(values))
    assert load_record(path).measured is None
    assert load_record(path).origin == "built here"


@pytest.mark.parametrize(
    ("new", "more", "expected"),
    [
        ({}, 0, []),
        ({"milliseconds": 10.4, "device_memory": 1150 << 20, "parity": 79.6}, 0, ["GPU memory, MiB"]),
        ({"milliseconds": 10.6}, 0, ["time, ms"]),
        ({"parity": 79.4}, 0, ["parity, dB"]),
        ({"milliseconds": 1.0, "device_memory": 1 << 20, "parity": 100.0}, 0, []),
        ({}, 10_000_000, ["file, MB"]),
    ],
)
def test_what_got_worse_is_named(pair, new, more, expected, capsys):
    old, new_engine = pair(measured(), measured(**new), more)
    assert worse(compare(old, new_engine, Limits())) == expected
    assert main([str(old), str(new_engine)]) == bool(expected)
    told = capsys.readouterr().out
    assert (f"worse: {', '.join(expected)}" if expected else "nothing that was compared is worse") in told


def test_limits_are_options(pair):
    old, new = pair(measured(), measured(milliseconds=12.0, parity=79.0))
    assert main([str(old), str(new)]) == 1
    assert main([str(old), str(new), "--slower", "25", "--less-exact", "2"]) == 0
    assert main([str(old), str(new), "--slower", "19", "--less-exact", "2"]) == 1


def test_types_and_build_time(pair):
    old, new = pair({"type_shares": {"int8": 0.9, "fp32": 0.1}}, {"type_shares": {"fp32": 1.0}, "build_seconds": 21.0})
    assert worse(compare(old, new, Limits())) == ["build, s", "below fp32, %"]


@pytest.mark.parametrize(
    ("old", "new", "left_out", "reason"),
    [
        ({}, measured(), ["time, ms", "GPU memory, MiB", "parity, dB"], "not measured"),
        (
            measured(),
            measured(gpu="Other", milliseconds=99.0),
            ["time, ms", "GPU memory, MiB"],
            "measured on GPU of a test and Other",
        ),
        (measured(), measured(shape=(1, 5, 720, 1280)), ["time, ms", "GPU memory, MiB"], "measured on other shapes"),
        (measured(), measured(reference_sha256="b" * 64, parity=1.0), ["parity, dB"], "held to different ONNX files"),
        (
            measured(),
            {**measured(), "profiles": (Profile((1, 5, 64, 64), (1, 5, 64, 96), (1, 5, 64, 96)),)},
            ["file, MB", "build, s"],
            "built for other shapes",
        ),
    ],
)
def test_what_says_nothing_is_not_compared(pair, capsys, old, new, left_out, reason):
    paths = pair(old, new)
    assert main([str(path) for path in paths]) == 0
    told = capsys.readouterr().out
    assert f"not compared: {', '.join(left_out)}; videodeblur adopt" in told
    assert told.count(reason) == len(left_out)


def test_engines_of_different_networks(pair, tiny_engine):
    contract = load_record(tiny_engine).contract
    old, new = pair({}, {"contract": dataclasses.replace(contract, checkpoint_sha256="1" * 64)})
    with pytest.raises(InputError, match=r"are of different networks \(their checkpoint_sha256 differs\)"):
        compare(old, new, Limits())


def test_an_engine_without_a_record(pair, capsys):
    old, new = pair()
    record_path(new).unlink()
    assert main([str(old), str(new)]) == 1
    assert "videodeblur adopt" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["-1", "nan"])
def test_limits_that_are_none(pair, capsys, text):
    assert main([*map(str, pair()), f"--slower={text}"]) == 1
    assert "expected 0 or more" in capsys.readouterr().err


def test_a_damaged_measurement(pair):
    path = pair(measured())[0]
    values = json.loads(record_path(path).read_text())
    values["measured"]["milliseconds"] = "fast"
    record_path(path).write_text(json.dumps(values))
    with pytest.raises(ModelError, match="measured: milliseconds: got 'fast', expected a number"):
        load_record(path)
