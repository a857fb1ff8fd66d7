import csv
import math
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from model import PAPER, DeblurNetwork, NetworkConfig, load_checkpoint, save_checkpoint
from runtime.errors import InputError
from training import gain, parts, speed, train
from training.datasets import find_dataset
from training.losses import loss_of
from training.normalisation import folded, normalised
from training.optimizers import Muon, WeightAverage, _orthogonal, build_optimizers, learning_rate
from training.pairs import load_pairs
from training.recipes import RECIPES, Recipe, Stage
from training.replicas import Replicas
from training.sources import MixedSource, SampleStream, SyntheticSource
from training.state import SaveError, write_checkpoint
from training.synthesis import BlurOptions, Samples
from training.textures import Textures
from training.trainer import TrainingError, TrainOptions
from training.trainer import train as run_training
from training.validation import measure_gain
from training.widening import full_width, narrowed, widened

TINY = NetworkConfig(widths=PAPER.divided(16))
QUICK = Recipe(
    stages=(Stage(0, crop=32, batch=4, speed=4.0),),
    learning_rate=3e-3,
    warmup=5,
    bf16=False,
    reuse=2,
    blur=BlurOptions(layers=(1.0,)),
)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny networks gain nothing from threads, and lose much where other work wants the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def textures():
    smooth = torch.nn.functional.interpolate(torch.rand(1, 1, 30, 40, generator=torch.Generator().manual_seed(0)), scale_factor=6)
    return Textures(((smooth[0] * 255).byte(),))


@pytest.fixture
def source(textures):
    return SyntheticSource(textures, QUICK)


def options(folder, **changes):
    return TrainOptions(folder, **{"recipe": QUICK, "config": TINY, "steps": 8, "log_every": 2, **changes})


def losses(folder):
    with (folder / "log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"] != "nan"]


class Broken:
    """A source whose samples are not finite from some step on."""

    def __init__(self, good, broken_seeds=()):
        self.good = good

    def samples(self, stage, count, seed):
        made = self.good.samples(stage, count, seed)
        return Samples(made.blurry * math.nan, made.sharp)


def test_fifty_steps_reduce_the_loss(tmp_path, source):
    result = run_training(options(tmp_path, steps=50, log_every=5), source)
    assert result.finished
    assert result.steps == 50
    logged = losses(tmp_path)
    assert np.mean(logged[-3:]) < 0.97 * np.mean(logged[:2])
    assert load_checkpoint(result.checkpoint).config == TINY


@pytest.mark.parametrize(
    "recipe",
    [QUICK, replace(QUICK, optimizer="muon", ema=None), replace(QUICK, optimizer="muon", normalised=True, loss="psnr")],
    ids=["adamw", "muon", "normalised"],
)
def test_resumed_equals_uninterrupted(tmp_path, source, recipe, monkeypatch):
    whole = run_training(options(tmp_path / "whole", recipe=recipe), source)
    advance, calls = train_run().advance, []

    def interrupted(self, stream, progress):
        calls.append(self.step)
        advance(self, stream, progress)
        if len(calls) == 5:
            signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)  # as Python calls it when the signal arrives

    monkeypatch.setattr(train_run(), "advance", interrupted)
    first = run_training(options(tmp_path / "cut", recipe=recipe), source)
    assert (first.steps, first.finished) == (5, False)
    second = run_training(options(tmp_path / "cut", recipe=recipe, resume=True), source)
    assert (second.steps, second.finished) == (8, True)
    expected, found = load_checkpoint(whole.checkpoint).state_dict(), load_checkpoint(second.checkpoint).state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def train_run():
    from training import trainer

    return trainer._Run


def test_resuming_needs_a_state_and_the_same_seed(tmp_path, source):
    with pytest.raises(InputError, match="start without --resume"):
        run_training(options(tmp_path, resume=True), source)
    run_training(options(tmp_path, steps=2), source)
    with pytest.raises(TrainingError, match="has seed 0, asked 1: ask for the same"):
        run_training(options(tmp_path, resume=True, seed=1), source)
    with pytest.raises(TrainingError, match="optimizer 'adamw', asked 'muon'"):
        run_training(options(tmp_path, resume=True, recipe=replace(QUICK, optimizer="muon")), source)
    with pytest.raises(TrainingError, match="configuration"):
        run_training(options(tmp_path, resume=True, config=NetworkConfig(widths=PAPER.divided(8))), source)
    (tmp_path / "state.pt").write_bytes(b"cut off")
    with pytest.raises(InputError, match=r"state.pt cannot be read"):
        run_training(options(tmp_path, resume=True), source)


def test_a_time_budget_is_kept(tmp_path, source):
    start = time.monotonic()
    result = run_training(options(tmp_path, steps=None, minutes=0.03), source)
    assert result.finished
    assert result.steps > 1
    assert time.monotonic() - start < 30
    with pytest.raises(ValueError, match="exactly one"):
        options(tmp_path, minutes=1.0)
    with pytest.raises(ValueError, match="above 0"):
        options(tmp_path, steps=0)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_checkpoint(tmp_path, source):
    result = run_training(options(tmp_path, steps=2), source)
    before = result.checkpoint.read_bytes()
    with pytest.raises(TrainingError, match="20 steps in a row"):
        run_training(options(tmp_path, steps=60, resume=True), Broken(source))
    assert result.checkpoint.read_bytes() == before


def test_single_bad_steps_are_skipped_and_counted(tmp_path, source):
    class OneBadBlock(Broken):
        def samples(self, stage, count, seed):
            made = self.good.samples(stage, count, seed)
            made.blurry[: count // 2] = math.nan
            return made

    result = run_training(options(tmp_path, steps=6), OneBadBlock(source))
    assert result.skipped > 0
    assert all(torch.isfinite(value).all() for value in load_checkpoint(result.checkpoint).state_dict().values())


def test_no_space_left_keeps_the_previous_files(tmp_path, source, monkeypatch):
    result = run_training(options(tmp_path, steps=2), source)
    before = (tmp_path / "state.pt").read_bytes()

    def full_disk(content, path):
        path.write_bytes(b"half")
        raise RuntimeError("basic_ios::clear: iostream error")  # what torch says where no space is left

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(SaveError, match="free some space"):
        run_training(options(tmp_path, steps=4, resume=True), source)
    assert (tmp_path / "state.pt").read_bytes() == before
    with pytest.raises(SaveError, match="free some space"):
        write_checkpoint(load_checkpoint(result.checkpoint), tmp_path / "no folder" / "network.safetensors", {})
    assert not list(tmp_path.glob(".*.part"))


def test_the_paper_recipe_is_literal():
    paper = RECIPES["paper"]
    assert (paper.optimizer, paper.learning_rate, paper.final_learning_rate, paper.loss) == ("adam", 1e-5, 1e-5, "mse")
    assert (paper.stages, paper.residual, paper.initialisation) == ((Stage(0, crop=128, batch=4),), False, "paper")
    assert learning_rate(paper, 0, 0.0) == learning_rate(paper, 900, 0.9) == pytest.approx(1e-5)


def test_a_run_can_begin_from_weights(tmp_path, source):
    first = run_training(options(tmp_path / "first", steps=2), source)
    second = run_training(
        options(tmp_path / "second", steps=1, start=first.checkpoint, recipe=replace(QUICK, learning_rate=0.0)), source
    )
    expected, found = load_checkpoint(first.checkpoint).state_dict(), load_checkpoint(second.checkpoint).state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_learning_rate_warms_up_and_falls():
    recipe = RECIPES["default"]
    assert learning_rate(recipe, 0, 0.0) == pytest.approx(2e-4 / 500)
    assert learning_rate(recipe, 499, 0.0) == pytest.approx(2e-4)
    assert learning_rate(recipe, 10_000, 1.0) == pytest.approx(1e-7)


@pytest.mark.parametrize(
    "changes",
    [
        {"stages": ()},
        {"stages": (Stage(0.5, 32, 4),)},
        {"stages": (Stage(0, 32, 4, generators=4),)},
        {"optimizer": "sgd"},
        {"loss": "l2"},
        {"reuse": 0},
    ],
)
def test_recipes_are_checked(changes):
    with pytest.raises(ValueError, match="expected"):
        replace(QUICK, **changes)


def test_muon_turns_kernels_and_keeps_their_norm():
    weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1)))
    before = weight.detach().clone()
    weight.grad = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    Muon([weight], lr=0.01).step()
    assert float(weight.detach().norm()) == pytest.approx(float(before.norm()), rel=1e-5)
    assert float((weight.detach() - before).norm()) == pytest.approx(0.1 * float(before.norm()), rel=0.05)
    network = DeblurNetwork(TINY)
    counts = [
        sum(len(group["params"]) for group in optimizer.param_groups) for optimizer in build_optimizers(network, RECIPES["cpu"])
    ]
    assert sum(counts) == len(list(network.parameters()))


def test_the_orthogonal_step_has_nearly_equal_singular_values():
    update = _orthogonal(torch.randn(8, 40, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(update)
    assert ((values > 0.6) & (values < 1.3)).all()


def test_the_average_forgets_the_first_weights():
    layer = torch.nn.Linear(1, 1)
    average = WeightAverage(layer, 0.9)
    torch.nn.init.constant_(layer.weight, 3.0)
    for _ in range(200):
        average.update(layer)
    assert average.weights["weight"].item() == pytest.approx(3.0, abs=1e-4)


def test_replicas_have_the_gradient_of_one():
    torch.manual_seed(0)
    network = DeblurNetwork(TINY)
    torch.nn.init.normal_(network.r2.weight, std=0.1)
    samples = Samples(torch.rand(5, 5, 16, 16), torch.rand(5, 5, 16, 16))

    def mse(module, some):
        return loss_of("mse", module(some.blurry), some.sharp, 0)

    found = []
    for count in (1, 3):
        replicas = Replicas(network, count)
        found.append((replicas.backward(samples, mse), [p.grad.clone() for p in network.parameters()]))
        replicas.close()
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for one, three in zip(found[0][1], found[1][1]):
        assert torch.allclose(one, three, atol=1e-6)


def test_widened_networks_compute_the_same():
    torch.manual_seed(0)
    network = DeblurNetwork(NetworkConfig(widths=PAPER.divided(4)))
    torch.nn.init.normal_(network.r2.weight, std=0.1)
    narrow, window = narrowed(network, 4).eval(), torch.rand(1, 5, 32, 32)
    full = full_width(narrow, 4)
    assert full.state_dict().keys() == network.state_dict().keys()
    assert all(value.shape == network.state_dict()[name].shape for name, value in full.state_dict().items())
    assert torch.allclose(full(window), narrow(window), atol=1e-5)
    noisy = widened(narrow, 2)(window)
    assert not torch.equal(noisy, narrow(window))
    assert torch.allclose(noisy, narrow(window), atol=0.05)


def test_normalisation_folds_into_the_kernels():
    network = normalised(DeblurNetwork(TINY)).train()
    blurry = torch.rand(4, 5, 32, 32)
    for _ in range(3):
        network(blurry)  # moves the running statistics
    plain = folded(network)
    assert plain.state_dict().keys() == DeblurNetwork(TINY).state_dict().keys()
    nn.init.normal_(plain.r2.weight)
    network.r2.load_state_dict(plain.r2.state_dict())
    assert torch.allclose(plain(blurry), network.eval()(blurry), atol=1e-5)


def test_the_psnr_loss_counts_decibels():
    target = torch.zeros(1, 2, 8, 8)
    output = torch.stack([torch.full((8, 8), 0.1), torch.full((8, 8), 0.01)])[None]  # 20 and 40 dB
    assert float(loss_of("psnr", output, target, 0.0)) == pytest.approx(-0.30)


def test_a_run_that_widens_its_generators(tmp_path, textures):
    recipe = replace(QUICK, stages=(Stage(0, 32, 4, generators=2), Stage(0.5, 32, 4, generators=1)), normalised=True)
    config = NetworkConfig(widths=PAPER.divided(8))
    result = run_training(options(tmp_path, recipe=recipe, config=config, steps=4, replicas=2), SyntheticSource(textures, recipe))
    assert load_checkpoint(result.checkpoint).config == config


def test_batches_are_a_function_of_seed_and_step(source):
    stage = QUICK.stages[0]
    first, again = SampleStream(source, QUICK, 1), SampleStream(source, QUICK, 1)
    forward = [first.batch(step, stage).blurry for step in (0, 1, 40, 64)]
    assert torch.equal(again.batch(64, stage).blurry, forward[3])
    assert torch.equal(again.batch(0, stage).blurry, forward[0])
    assert not torch.equal(forward[0], forward[1])
    assert not torch.equal(SampleStream(source, QUICK, 2).batch(0, stage).blurry, forward[0])


def save_pair(root, video, i, size=(40, 48)):
    for kind, low in (("input", 0), ("GT", 100)):
        path = root / "quantitative_datasets" / video / kind / f"{i:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), low + i, np.uint8)).save(path)


def test_real_pairs_become_windows(tmp_path, capsys):
    for i in range(7):
        save_pair(tmp_path, "IMG_0001", i)
        save_pair(tmp_path, "IMG_0002", i)
        save_pair(tmp_path, "IMG_0004", i, (48, 40) if i == 3 else (40, 48))
    (tmp_path / "quantitative_datasets/IMG_0002/GT/00002.png").write_bytes(b"broken")
    pairs = load_pairs(find_dataset(tmp_path, "train").videos, 5)
    assert [video.name for video in pairs.videos] == ["IMG_0001"]
    shown = capsys.readouterr().err
    assert "skipped IMG_0002" in shown
    assert "IMG_0004 has frames of 48x40 and 40x48" in shown
    made = pairs.samples(QUICK.stages[0], 6, seed=0)
    assert made.blurry.shape == (6, 5, 32, 32)
    assert (made.sharp * 255).round().equal((made.blurry * 255).round() + 100)
    assert ((made.blurry * 255).round().diff(dim=1) == 1).all()
    mixed = MixedSource((pairs, pairs)).samples(QUICK.stages[0], 5, seed=0)
    assert len(mixed.blurry) == 5
    with pytest.raises(InputError, match="too few for samples of 64"):
        pairs.samples(Stage(0, 64, 4), 1, seed=0)
    with pytest.raises(InputError, match="fewer than 9 frames: IMG_0001"):
        load_pairs(find_dataset(tmp_path, "train").videos, 9)


def test_the_command_trains_a_variant_and_writes_parts(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(RECIPES, "default", QUICK)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 220, 3), dtype=np.uint8)).save(tmp_path / "picture.png")
    arguments = ["--textures", str(tmp_path / "picture.png"), "--out", str(tmp_path / "run"), "--steps", "2", "--device", "cpu"]
    assert train.main([*arguments, "--variant", "I3T1", "--channel-divisor", "16", "--parts"]) == 0
    shown = capsys.readouterr().out
    assert "finished after 2 steps" in shown
    assert "network.safetensors.part00" in shown
    assert load_checkpoint(tmp_path / "run/network.safetensors").config.frames == 3
    assert train.main(["--out", str(tmp_path / "run"), "--steps", "2"]) == 1
    assert "nothing to train on" in capsys.readouterr().err


def test_the_gain_of_a_new_network_is_nothing(tmp_path, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 160, 3), dtype=np.uint8)).save(tmp_path / "picture.png")
    save_checkpoint(DeblurNetwork(TINY), tmp_path / "new.safetensors")
    arguments = ["--pictures", str(tmp_path / "picture.png"), "--model", str(tmp_path / "new.safetensors"), "--device", "cpu"]
    assert gain.main([*arguments, "--samples", "4", "--crop", "32"]) == 0
    assert "all                   20     +0.00" in capsys.readouterr().out.replace("-0.00", "+0.00")


def test_dead_generators_and_large_activations_are_seen():
    samples = Samples(*torch.rand(2, 2, 5, 32, 32, generator=torch.Generator().manual_seed(0)))
    network = DeblurNetwork(TINY)
    alive = measure_gain(network, samples)
    assert alive.spread > 1e-3
    with torch.no_grad():
        network.spatial.generator.layer7.bias.fill_(-1e5)
    dead = measure_gain(network, samples)
    assert dead.spread < 1e-6
    assert dead.largest > 9e4 > alive.largest


def test_parts_are_joined_and_checked(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(bytes(range(250)))
    made = parts.split(file, size=100)
    assert [path.name for path in made] == ["weights.part00", "weights.part01", "weights.part02", "weights.sha256"]
    file.unlink()
    assert parts.join(made[0]).read_bytes() == bytes(range(250))
    made[1].write_bytes(b"damaged")
    file.unlink()
    with pytest.raises(InputError, match="copy them all again"):
        parts.join(made[0])
    assert not file.exists()
    with pytest.raises(InputError, match="expected the first part"):
        parts.join(made[1])
    with pytest.raises(InputError, match="no such file"):
        parts.split(tmp_path / "nothing")


def test_signals_are_left_alone_outside_the_main_thread(tmp_path, source):
    results = []
    thread = threading.Thread(target=lambda: results.append(run_training(options(tmp_path, steps=1), source)))
    thread.start()
    thread.join()
    assert results[0].finished


def test_speed_prints_a_line_a_stage(tmp_path, capsys, monkeypatch):
    stages = (Stage(0, 32, 2, generators=2), Stage(0.5, 32, 2))
    monkeypatch.setitem(RECIPES, "default", replace(QUICK, stages=stages))
    monkeypatch.setattr(speed, "DeblurNetwork", lambda: DeblurNetwork(NetworkConfig(widths=PAPER.divided(8))))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 160, 3), dtype=np.uint8)).save(tmp_path / "picture.png")
    assert speed.main(["--textures", str(tmp_path / "picture.png"), "--repeats", "1", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "generators 1/2: synthesis" in lines[1]
    assert lines[2].endswith("TFLOP/s")
