import json
import re

import numpy as np
import pytest
from PIL import Image

from model import PAPER, DeblurNetwork, NetworkConfig, save_checkpoint
from model.reference import TorchRunner
from runtime.errors import InputError
from training import evaluate, tables
from training.datasets import TEST_VIDEOS, find_dataset, video_from_folders
from training.evaluation import deblur_frames, score_video
from training.protocols import P1_FRAMES, align, best_shift, chosen_frames, score_frame


def picture(seed, height=24, width=32):
    return np.random.default_rng(seed).integers(40, 200, (height, width, 3), dtype=np.uint8)


def save(path, frame):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def make_tree(root, videos=("IMG_0030", "IMG_0049", "IMG_0001"), frames=6, first=0, suffix=".png"):
    """A data set whose blurry frames are the sharp ones, 10 codes darker."""
    for v, name in enumerate(videos):
        for i in range(frames):
            sharp = picture(100 * v + i)
            save(root / "quantitative_datasets" / name / "GT" / f"{first + i:05d}{suffix}", sharp)
            save(root / "quantitative_datasets" / name / "input" / f"{first + i:05d}{suffix}", sharp - 10)
    return root


def identity(window):
    return window


def test_p1_looks_at_the_thirty_frames_of_the_paper():
    assert len(P1_FRAMES) == 30
    assert (P1_FRAMES[:5], P1_FRAMES[-3:]) == ((2, 5, 8, 11, 15), (90, 93, 97))
    assert chosen_frames("P1", 100) == [number - 1 for number in P1_FRAMES]
    assert chosen_frames("P1", 6) == [1, 4]
    assert chosen_frames("P2", 3) == [0, 1, 2]


def test_p2_is_plain_psnr():
    truth = picture(1)
    score = score_frame("P2", truth - 10, truth)
    assert score.psnr == pytest.approx(20 * np.log10(255 / 10))
    assert score.luma_psnr == pytest.approx(20 * np.log10(255 / 10), abs=1e-4)
    assert 0.9 < score.ssim < 1


def test_p1_forgives_a_scale():
    truth = picture(2)
    dim = (truth.astype(float) * 0.8).round().astype(np.uint8)
    assert score_frame("P2", dim, truth).psnr < 20
    assert score_frame("P1", dim, truth).psnr > 50


def test_p1_forgives_a_shift():
    truth = picture(2, 40, 48)
    moved = np.roll(truth, (3, -2), (0, 1))
    assert best_shift(moved.mean(2), truth.mean(2)) == (-3, 2)
    output, kept = align(moved, truth)
    x, z = truth.astype(float), moved.astype(float)
    assert output == pytest.approx(truth[:37, 2:] * ((x * z).sum() / (z * z).sum()))  # the scale comes first, from unmoved frames
    assert (kept == truth[:37, 2:]).all()


def test_p1_by_hand():
    output, truth = np.full((8, 8, 3), 100, np.uint8), np.full((8, 8, 3), 100, np.uint8)
    truth[:, ::2] = 120
    scaled, kept = align(output, truth)
    # <x,z>/<z,z> = 110 * 100 / 100^2 = 1.1: every pixel is 10 codes off
    assert scaled == pytest.approx(np.full((8, 8, 3), 110.0))
    assert kept.shape == truth.shape
    assert score_frame("P1", np.tile(output, (2, 2, 1)), np.tile(truth, (2, 2, 1))).psnr == pytest.approx(20 * np.log10(25.5))


def test_only_luma_moves_and_both_windows_agree_on_an_identity():
    frames = np.stack([picture(i) for i in range(7)])
    for stride in (1, 5):
        assert (deblur_frames(frames, identity, 5, stride) == frames).all()
    brighter = deblur_frames(frames, lambda window: window + np.float32(10 / 255), 5, 5)
    assert (brighter == frames + 10).all()


def test_the_table_of_the_test_split(tmp_path, capsys):
    root = make_tree(tmp_path / "data")
    network = DeblurNetwork(NetworkConfig(widths=PAPER.divided(16)))
    save_checkpoint(network, tmp_path / "tiny.safetensors")
    for protocol in ("P1", "P2"):
        arguments = ["--data", str(root), "--protocol", protocol, "--model", str(tmp_path / "tiny.safetensors")]
        assert evaluate.main([*arguments, "--json", str(tmp_path / "scores.json")]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[2:5]] == ["IMG_0030", "IMG_0049", "average"]
        assert ("28.13" in lines[2]) == (protocol == "P2")  # 20 log10(255 / 10)
    assert (tmp_path / "scores.json").is_file()


def test_splits_and_numbering(tmp_path):
    root = make_tree(tmp_path, frames=2, first=30, suffix=".jpg")
    assert [video.name for video in find_dataset(root, "train").videos] == ["IMG_0001"]
    assert [video.name for video in find_dataset(root, "test").videos] == ["IMG_0030", "IMG_0049"]
    assert len(find_dataset(root).videos) == 3
    assert len(set(TEST_VIDEOS)) == 10
    assert find_dataset(root).videos[0].frames[0].blurry.name == "00030.jpg"


def test_a_video_without_ground_truth_is_skipped_by_name(tmp_path):
    root = make_tree(tmp_path, frames=2)
    for path in (root / "quantitative_datasets/IMG_0030/GT").iterdir():
        path.unlink()
    (root / "quantitative_datasets/IMG_0030/GT").rmdir()
    (root / "quantitative_datasets/IMG_0049/GT/00001.png").unlink()
    found = find_dataset(root, "all")
    assert [video.name for video in found.videos] == ["IMG_0001"]
    assert "no ground truth" in found.skipped[0]
    assert "first is 00001" in found.skipped[1]
    with pytest.raises(InputError, match="no usable video"):
        find_dataset(root, "test")


def test_a_wrong_root_is_explained(tmp_path):
    root = make_tree(tmp_path / "up" / "VideoDeblurring", frames=1)
    with pytest.raises(InputError, match=r"one level too high: name .*VideoDeblurring"):
        find_dataset(tmp_path / "up")
    with pytest.raises(InputError, match="inside one video"):
        find_dataset(root / "quantitative_datasets" / "IMG_0030")
    with pytest.raises(InputError, match="does not hold quantitative_datasets"):
        find_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no video of the train split"):
        find_dataset(make_tree(tmp_path / "only", ["IMG_0030"], 1), "train")


def test_bad_frames_are_named(tmp_path):
    root = make_tree(tmp_path, ["IMG_0030"], 3)
    folder = root / "quantitative_datasets/IMG_0030/input"
    save(folder / "00001.png", picture(0, 16, 16))
    with pytest.raises(InputError, match=r"00001.png has 16x16 pixels, 00000.png has 32x24"):
        score_video(find_dataset(root).videos[0], identity, 5, "P2")
    (folder / "00001.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"00001.png cannot be decoded"):
        score_video(find_dataset(root).videos[0], identity, 5, "P2")


def test_folders_with_some_ground_truth(tmp_path):
    for i in range(4):
        save(tmp_path / "blur" / f"{i}.png", picture(i) - 10)
    save(tmp_path / "sharp" / "2.png", picture(2))
    video = video_from_folders(tmp_path / "blur", tmp_path / "sharp")
    score = score_video(video, identity, 5, "P2")
    assert score.frames == 1
    assert score.input.psnr == score.outputs["overlapping"].psnr == pytest.approx(28.13, abs=0.01)
    assert score.frame_psnr == {"2.png": (score.input.psnr,) * 3}
    assert "/2.png  28.13  28.13  28.13" in evaluate.frame_table([score])
    save(tmp_path / "sharp" / "9.png", picture(2))
    with pytest.raises(InputError, match="has 9, which"):
        video_from_folders(tmp_path / "blur", tmp_path / "sharp")


def test_a_sheet_shows_the_middle_of_frames_with_truth(tmp_path):
    for i in range(6):
        save(tmp_path / "blur" / f"{i}.png", picture(i))
    save(tmp_path / "sharp" / "4.png", picture(9))
    save_checkpoint(DeblurNetwork(NetworkConfig(widths=PAPER.divided(16))), tmp_path / "tiny.safetensors")
    folders = [
        "--blurry",
        str(tmp_path / "blur"),
        "--sharp",
        str(tmp_path / "sharp"),
        "--model",
        str(tmp_path / "tiny.safetensors"),
    ]
    assert evaluate.main([*folders, "--protocol", "P2", "--sheet", str(tmp_path / "sheet.png")]) == 0
    sheet, (height, width) = np.asarray(Image.open(tmp_path / "sheet.png")), picture(4).shape[:2]
    assert sheet.shape == (height, 3 * width, 3)
    assert np.array_equal(sheet[:, :width], picture(4))
    assert np.array_equal(sheet[:, 2 * width :], picture(9))


def test_tables_beside_the_papers(tmp_path, capsys):
    root = make_tree(tmp_path / "data", frames=2)
    save_checkpoint(DeblurNetwork(NetworkConfig(widths=PAPER.divided(16))), tmp_path / "tiny.safetensors")
    scores = tmp_path / "scores.json"
    arguments = ["--data", str(root), "--protocol", "P2", "--model", str(tmp_path / "tiny.safetensors"), "--json", str(scores)]
    assert evaluate.main([*arguments, "--windows", "five-by-five"]) == 0
    capsys.readouterr()
    assert tables.main([f"I5T3={scores}", f"I5T1={scores}"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"I5T1 +31.01 / 0.91 +28.13 / [01].\d\d  P2", shown)
    assert re.search(r"I1T1 +30.27 / 0.90 +-\n", shown)
    assert re.search(r"IMG_0049 +28.13 +28.13\n", shown)
    assert "these videos are missing: IMG_0021" in shown
    assert tables.main([]) == 0
    assert "not measured" in capsys.readouterr().out
    assert tables.main(["I9T9=x"]) == 1
    scores.write_text("[]")
    assert tables.main([f"I5T3={scores}"]) == 1
    assert "does not hold scores" in capsys.readouterr().err


def test_a_runner_pads_crops_and_closes():
    network = DeblurNetwork(NetworkConfig(widths=PAPER.divided(16)))
    window = np.random.default_rng(0).random((1, 5, 21, 30), dtype=np.float32)
    with TorchRunner(network) as runner:
        assert (runner.name, runner.precision, runner.frames) == ("torch", "fp32", 5)
        assert runner.run(window) == pytest.approx(window)  # a new residual network is the identity
    with pytest.raises(ValueError, match="closed"):
        runner.run(window)
    runner.close()
    with TorchRunner(network, "bf16") as runner:
        assert runner.run(window).dtype == np.float32
    with pytest.raises(ValueError, match="fp32, bf16"):
        TorchRunner(network, "int8")


def test_an_exported_model_gets_the_table_of_its_checkpoint(tmp_path, tiny_checkpoint, tiny_model, capsys):
    root, found = make_tree(tmp_path / "data", ["IMG_0030"]), []
    for model in (tiny_checkpoint, tiny_model):
        scores = tmp_path / "scores.json"
        arguments = ["--data", str(root), "--protocol", "P2", "--model", str(model), "--precision", "fp32", "--json", str(scores)]
        assert evaluate.main(arguments) == 0
        found.append(json.loads(scores.read_text())["videos"][0]["outputs"])
    for windows in ("five-by-five", "overlapping"):
        assert found[0][windows]["psnr"] == pytest.approx(found[1][windows]["psnr"], abs=0.01)
    assert "fp32" in capsys.readouterr().err
