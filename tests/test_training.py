import copy
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

from model import PAPER, SIZES, VARIANTS, DeblurNetwork, NetworkConfig, Widths, load_checkpoint, read_notes, save_checkpoint
from runtime.errors import DeployError, InputError
from training import gain, parts, speed, train, trainer
from training.beginning import coarse_alone, prepare
from training.centring import CentredConv, centre, input_means, recentre, uncentred
from training.datasets import find_dataset, video_from_folders
from training.growth import grown
from training.losses import loss_of, loss_on
from training.optimizers import WeightAverage, build_optimizers
from training.pairs import load_pairs
from training.progress import COLUMNS
from training.recipes import RECIPES, Recipe, Stage, changed
from training.replicas import Replicas
from training.soap import Soap
from training.sources import MixedSource, SyntheticSource
from training.state import SaveError, write_checkpoint
from training.stored import StoredSamples
from training.synthesis import BlurOptions, Samples
from training.textures import Textures
from training.trainer import TrainingError, TrainOptions
from training.trainer import train as run_training
from training.validation import Validation, measure_gain, real_frames

TINY = NetworkConfig(widths=PAPER.divided(16))
QUICK = Recipe(
    stages=(Stage(0, crop=32, batch=4, speed=4.0, stored=40),),
    warmup=5,
    bf16=False,
    initialisation="kaiming",  # takes no time
    pool=1,
    blur=BlurOptions(layers=(1.0,)),
)
PREPARED = replace(QUICK, initialisation="prepared")


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


def break_steps(monkeypatch, broken):
    """The loss of the steps that `broken` holds is not finite."""
    calls = iter(range(1_000))
    good = trainer.loss_on
    monkeypatch.setattr(trainer, "loss_on", lambda *given: good(*given) * (math.nan if next(calls) in broken else 1))


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.stored.BLOCK", 8)
        patch.setattr("training.stored.FIRST", 1)
        yield


def test_fifty_steps_reduce_the_loss(tmp_path, source):
    result = run_training(options(tmp_path, recipe=PREPARED, steps=50, log_every=5), source)
    assert result.finished
    assert result.steps == 50
    logged = losses(tmp_path)
    assert np.mean(logged[-3:]) < 0.97 * np.mean(logged[:2])
    assert load_checkpoint(result.checkpoint).config == TINY


@pytest.mark.parametrize(
    "recipe",
    [QUICK, replace(QUICK, optimizer="adamw", ema=None), replace(PREPARED, coarse_alone=18)],
    ids=["soap", "adamw", "coarse alone"],
)
def test_resumed_equals_uninterrupted(tmp_path, source, recipe, monkeypatch):
    whole = run_training(options(tmp_path / "whole", recipe=recipe), source)
    advance, calls = trainer._Run.advance, []

    def interrupted(self, stream, progress):
        calls.append(self.step)
        advance(self, stream, progress)
        if len(calls) == 5:
            signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)  # as Python calls it when the signal arrives

    monkeypatch.setattr(trainer._Run, "advance", interrupted)
    first = run_training(options(tmp_path / "cut", recipe=recipe), source)
    assert (first.steps, first.finished) == (5, False)
    second = run_training(options(tmp_path / "cut", recipe=recipe), source)
    assert (second.steps, second.finished) == (8, True)
    expected, found = load_checkpoint(whole.checkpoint).state_dict(), load_checkpoint(second.checkpoint).state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_folder_of_another_run_is_refused(tmp_path, source):
    run_training(options(tmp_path, steps=2), source)
    with pytest.raises(TrainingError, match="has seed 0, asked 1: ask for the same"):
        run_training(options(tmp_path, seed=1), source)
    with pytest.raises(TrainingError, match="optimizer 'soap', asked 'adamw'"):
        run_training(options(tmp_path, recipe=replace(QUICK, optimizer="adamw")), source)
    with pytest.raises(TrainingError, match="configuration"):
        run_training(options(tmp_path, config=NetworkConfig(widths=PAPER.divided(8))), source)
    whole = (tmp_path / "state.pt").read_bytes()
    for damaged in (b"cut off", whole[: len(whole) // 2], b""):
        (tmp_path / "state.pt").write_bytes(damaged)
        with pytest.raises(InputError, match=r"state.pt cannot be read"):
            run_training(options(tmp_path), source)
        assert (tmp_path / "state.pt").read_bytes() == damaged  # never begun anew in silence


def test_a_copy_is_annealed_and_the_run_stays(tmp_path, source):
    with pytest.raises(InputError, match="no state to anneal"):
        run_training(options(tmp_path, steps=None, anneal=0.01), source)
    run_training(options(tmp_path, steps=4), source)
    kept = {name: (tmp_path / name).read_bytes() for name in ("state.pt", "network.safetensors", "log.csv")}
    result = run_training(options(tmp_path, steps=None, anneal=0.02), source)
    assert result.finished
    assert result.steps > 4
    assert result.checkpoint.name == "annealed.safetensors"
    assert kept == {name: (tmp_path / name).read_bytes() for name in kept}


def test_a_run_without_an_end_goes_on_until_it_is_told(tmp_path, source, monkeypatch):
    advance = trainer._Run.advance

    def told(self, samples, progress):
        assert progress == 0
        advance(self, samples, progress)
        if self.step == 3:
            signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)

    monkeypatch.setattr(trainer._Run, "advance", told)
    result = run_training(options(tmp_path, steps=None), source)
    assert (result.steps, result.finished) == (3, False)


def test_a_time_budget_is_kept(tmp_path, source):
    start = time.monotonic()
    result = run_training(options(tmp_path, steps=None, minutes=0.03), source)
    assert result.finished
    assert result.steps > 1
    assert time.monotonic() - start < 30
    with pytest.raises(ValueError, match="at most one"):
        options(tmp_path, minutes=1.0)
    with pytest.raises(ValueError, match="above 0"):
        options(tmp_path, steps=0)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_checkpoint(tmp_path, source, monkeypatch):
    result = run_training(options(tmp_path, steps=2), source)
    before = result.checkpoint.read_bytes()
    break_steps(monkeypatch, range(1_000))
    with pytest.raises(TrainingError, match="20 steps in a row"):
        run_training(options(tmp_path, steps=60), source)
    assert result.checkpoint.read_bytes() == before


def test_single_bad_steps_are_skipped_and_counted(tmp_path, source, monkeypatch):
    break_steps(monkeypatch, {2, 4})
    result = run_training(options(tmp_path, steps=6), source)
    assert result.skipped == 2
    assert all(torch.isfinite(value).all() for value in load_checkpoint(result.checkpoint).state_dict().values())


def test_no_space_left_keeps_the_previous_files(tmp_path, source, monkeypatch):
    result = run_training(options(tmp_path, steps=2), source)
    before = (tmp_path / "state.pt").read_bytes()

    def full_disk(content, path):
        path.write_bytes(b"half")
        raise RuntimeError("basic_ios::clear: iostream error")  # what torch says where no space is left

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(SaveError, match="free some space"):
        run_training(options(tmp_path, steps=4), source)
    assert (tmp_path / "state.pt").read_bytes() == before
    with pytest.raises(SaveError, match="free some space"):
        write_checkpoint(load_checkpoint(result.checkpoint), tmp_path / "no folder" / "network.safetensors", {})
    assert not list(tmp_path.glob(".*.part"))


def test_the_paper_recipe_is_literal():
    paper = RECIPES["paper"]
    assert (paper.optimizer, paper.learning_rate, paper.loss) == ("adam", 1e-5, "mse")
    stages = (Stage(0, crop=128, batch=4, stored=128),)
    assert (paper.stages, paper.residual, paper.initialisation) == (stages, False, "paper")
    assert paper.rate(0, 0, 0.0) == paper.rate(900, 3600, 0.9) == pytest.approx(1e-5)


def test_a_run_can_begin_from_weights(tmp_path, source):
    first = run_training(options(tmp_path / "first", steps=2), source)
    still = replace(QUICK, learning_rate=0.0)
    second = run_training(options(tmp_path / "second", steps=1, start=first.checkpoint, recipe=still), source)
    expected, found = load_checkpoint(first.checkpoint).state_dict(), load_checkpoint(second.checkpoint).state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    wider = NetworkConfig(widths=PAPER.divided(8))
    third = run_training(options(tmp_path / "third", steps=1, start=first.checkpoint, config=wider), source)
    assert load_checkpoint(third.checkpoint).config == wider
    skips = NetworkConfig(widths=PAPER.divided(16), generator_skips=True)
    with pytest.raises(TrainingError, match="generator_skips"):
        run_training(options(tmp_path / "fifth", steps=1, start=first.checkpoint, config=skips), source)


@pytest.mark.parametrize("learned", [False, True])
def test_a_network_that_has_learned_keeps_its_short_path(learned, tmp_path, source, monkeypatch):
    alone = []
    monkeypatch.setattr(trainer, "coarse_alone", lambda network, on: alone.append(on))
    start = run_training(options(tmp_path / "first", steps=1), source).checkpoint if learned else None
    alone.clear()
    run_training(options(tmp_path / "second", steps=1, start=start, recipe=replace(QUICK, coarse_alone=1_000)), source)
    assert alone[0] is not learned


def test_the_rate_warms_up_falls_with_what_was_seen_and_the_floor_with_it():
    recipe = RECIPES["cpu"]
    full, seen = recipe.full_rate, 16 * recipe.full_rate
    assert recipe.rate(0, 0, 0.0) == pytest.approx(recipe.learning_rate / recipe.warmup)
    assert recipe.rate(recipe.warmup, full, 0.5) == pytest.approx(recipe.learning_rate)
    assert recipe.rate(recipe.warmup, seen, 0.5) == pytest.approx(recipe.learning_rate / 4)
    assert recipe.rate(10_000, full, 1.0) == 0
    assert (recipe.loss_floor(0, 0.5), recipe.loss_floor(seen, 0.5)) == (recipe.floor, pytest.approx(recipe.floor / 4))
    assert recipe.loss_floor(full, 1.0) == recipe.loss_floor(seen, 1.0) == pytest.approx(recipe.final_floor)
    assert recipe.loss_floor(10**9, 0.5) == recipe.final_floor


def test_weights_go_on_at_the_rate_that_they_had_reached(tmp_path, source):
    first = run_training(options(tmp_path / "first", steps=2), source)
    seen = int(read_notes(first.checkpoint)["samples"])
    assert seen == first.samples > 0
    recipe = replace(QUICK, full_rate=1, warmup=0, anneal=0.0)
    for steps in (1, 2):  # the second goes on with the first's folder
        second = run_training(options(tmp_path / "second", steps=steps, start=first.checkpoint, recipe=recipe), source)
        row = (tmp_path / "second" / "log.csv").read_text().splitlines()[-1].split(",")
        assert float(row[COLUMNS.index("learning_rate")]) == pytest.approx(
            recipe.learning_rate / math.sqrt(seen + second.samples), rel=1e-3
        )
        assert int(read_notes(second.checkpoint)["samples"]) == seen + second.samples


@pytest.mark.parametrize(
    "changes",
    [
        {"stages": ()},
        {"stages": (Stage(500, 32, 4),)},
        {"stages": (Stage(0, 128, 4),)},
        {"optimizer": "sgd"},
        {"loss": "l2"},
        {"reuse": 0},
        {"full_rate": 0},
    ],
)
def test_recipes_are_checked(changes):
    with pytest.raises(ValueError, match="expected"):
        replace(QUICK, **changes)


def test_numbers_of_a_recipe_are_set_by_name():
    recipe = changed(QUICK, ["floor=0.003", "optimizer=adamw", "coarse_alone=7"])
    assert (recipe.floor, recipe.optimizer, recipe.coarse_alone) == (0.003, "adamw", 7)
    for wrong in ("floor", "floor=", "floor=low", "stages=1", "nothing=1", "optimizer=sgd", "reuse=0", "bf16=no"):
        with pytest.raises(InputError, match="expected"):
            changed(QUICK, [wrong])


def test_soap_learns_what_is_ill_conditioned():
    """Least squares through a kernel whose inputs are nearly equal: Adam alone is slow at what tells them apart."""
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 1, generator=draws) + 0.02 * torch.randn(256, 18, generator=draws)
    target = inputs @ torch.randn(18, 1, generator=draws)
    reached = {}
    for kind in (Soap, torch.optim.Adam):
        weight = nn.Parameter(torch.zeros(1, 2, 3, 3))
        optimizer = kind([weight], lr=0.02)
        for _ in range(200):
            weight.grad = None
            loss = (inputs @ weight.flatten() - target[:, 0]).square().mean()
            loss.backward()
            optimizer.step()
        reached[kind] = float(loss.detach())
    assert reached[Soap] < 0.2 * reached[torch.optim.Adam]


def test_a_step_changes_every_kernel_by_its_size():
    network = DeblurNetwork(TINY)
    (optimizer,) = build_optimizers(network, RECIPES["cpu"])
    shares = {id(group["params"][0]): group["share"] for group in optimizer.param_groups}
    c1, r1 = network.c1.weight.detach(), network.r1.weight.detach()
    sizes = float(c1.square().mean().sqrt() / r1.square().mean().sqrt())
    assert shares[id(network.c1.weight)] / shares[id(network.r1.weight)] == pytest.approx(sizes, rel=1e-4)
    assert shares[id(network.c1.bias)] < 0.2


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_prepared_network_moves_and_still_puts_out_its_input(variant):
    torch.manual_seed(0)
    network = DeblurNetwork(replace(VARIANTS[variant], widths=PAPER.divided(8)))
    frames = torch.rand(4, network.config.frames, 32, 32)
    prepare(network, frames)
    with torch.no_grad():
        assert torch.allclose(network(frames), frames, atol=1e-6)
    if hasattr(network.temporal, "generator") and hasattr(network.spatial, "generator"):
        seen = {}
        network.spatial.cells[0].x_candidate.register_forward_hook(lambda module, inputs, output: seen.update(x=output))
        network.spatial.generator.register_forward_hook(lambda module, inputs, output: seen.update(generator=output))
        with torch.no_grad():
            network(frames)
        assert float(seen["x"].std((0, 2, 3)).mean()) == pytest.approx(1, rel=0.05)
        assert float(seen["generator"].std((0, 2, 3)).mean()) > 0.2


def test_what_is_delivered_computes_what_was_trained():
    """Centring folds away, and the hook that leaves half resolution alone is gone."""
    torch.manual_seed(0)
    network, frames = DeblurNetwork(TINY), torch.rand(2, 5, 32, 32)
    prepare(network, frames)
    nn.init.normal_(network.r2.weight, std=0.1)
    coarse_alone(network, True)
    alone = network(frames)
    coarse_alone(network, False)
    plain = uncentred(network)
    assert not any(isinstance(module, CentredConv) for module in plain.modules())
    assert plain.state_dict().keys() == DeblurNetwork(TINY).state_dict().keys()
    assert torch.allclose(plain(frames), network(frames), atol=1e-5)
    assert not torch.allclose(alone, network(frames), atol=1e-3)
    again = DeblurNetwork(TINY)
    again.load_state_dict(plain.state_dict())
    centre(again, frames)
    assert torch.allclose(again(frames), plain(frames), atol=1e-5)


def test_means_are_measured_anew_without_a_change():
    torch.manual_seed(0)
    network, frames = DeblurNetwork(TINY), torch.rand(4, 5, 32, 32)
    prepare(network, frames)
    average = WeightAverage(network, 0.5)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    average.update(network)
    averaged = copy.deepcopy(network)
    averaged.load_state_dict(average.weights)
    before = network(frames), averaged(frames)
    recentre(network, frames, average.weights)
    averaged.load_state_dict(average.weights)
    assert torch.allclose(network(frames), before[0], atol=1e-5)
    assert torch.allclose(averaged(frames), before[1], atol=1e-5)
    assert torch.allclose(network.c2.mean, input_means(network, frames)[network.c2], atol=1e-6)


@pytest.mark.parametrize("skips", [False, True])
def test_grown_networks_compute_the_same(skips):
    torch.manual_seed(0)
    small = Widths(2, 4, 3, 5, tuple(range(2, 16)), tuple(range(3, 16)))
    large = Widths(5, 7, 6, 8, tuple(2 * width + 1 for width in small.temporal_generator), tuple(range(4, 17)))
    network = DeblurNetwork(NetworkConfig(widths=small, generator_skips=skips)).eval()
    nn.init.normal_(network.r2.weight, std=0.1)
    window = torch.rand(1, 5, 32, 32)
    with torch.no_grad():
        exact = grown(network, large, noise=0.0)
        assert exact.config == NetworkConfig(widths=large, generator_skips=skips)
        assert torch.allclose(exact(window), network(window), atol=1e-5)
        noisy = grown(network, large)(window)
    assert not torch.equal(noisy, network(window))
    assert (noisy - network(window)).square().mean().sqrt() < 0.05
    with pytest.raises(ValueError, match="only grow"):
        grown(exact, small)


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


def test_the_psnr_loss_counts_decibels():
    target = torch.zeros(1, 2, 8, 8)
    output = torch.stack([torch.full((8, 8), 0.1), torch.full((8, 8), 0.01)])[None]  # 20 and 40 dB
    assert float(loss_of("psnr", output, target, 0.0)) == pytest.approx(-0.30)


@pytest.mark.parametrize(("in_hardware", "rounded"), [(True, True), (False, False), (None, True)])
def test_bf16_runs_where_the_cpu_multiplies_it(in_hardware, rounded, monkeypatch):
    monkeypatch.setattr("runtime.machine.hardware.cpu_extensions", lambda: None if in_hardware is None else {"BF16": in_hardware})
    seen = []
    network = nn.Sequential(nn.Conv2d(5, 5, 3, padding=1))
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    samples = Samples(torch.rand(1, 5, 8, 8), torch.rand(1, 5, 8, 8))
    loss_on(network, samples, replace(QUICK, bf16=True), 0.03)
    assert seen == [torch.bfloat16 if rounded else torch.float32]


def test_batches_are_a_function_of_seed_and_step(tmp_path, source):
    stage, recipe = QUICK.stages[0], replace(QUICK, pool=3, reuse=2)
    first = StoredSamples(source, recipe, tmp_path / "a", 1)
    forward = [first.batch(step, stage, 4 * step).blurry for step in (0, 1, 40, 64)]
    again = StoredSamples(source, recipe, tmp_path / "b", 1)
    assert torch.equal(again.batch(64, stage, 256).blurry, forward[3])
    assert torch.equal(again.batch(0, stage, 0).blurry, forward[0])
    assert not torch.equal(forward[0], forward[1])
    assert forward[0].shape == (4, 5, 32, 32)
    assert not torch.equal(StoredSamples(source, recipe, tmp_path / "c", 2).batch(0, stage, 0).blurry, forward[0])


def test_the_pool_of_a_stage_begins_small(tmp_path, source, monkeypatch):
    stages = (*QUICK.stages, replace(QUICK.stages[0], start=16))
    honest, seen = StoredSamples.batch, []
    monkeypatch.setattr(StoredSamples, "batch", lambda pool, *given: (seen.append(given[2]), honest(pool, *given))[1])
    run_training(options(tmp_path / "run", recipe=replace(QUICK, stages=stages)), source)
    assert seen == [0, 4, 8, 12] * 2


def test_a_pool_of_samples_is_made_once_grows_and_mends_itself(tmp_path, source):
    stage, recipe = QUICK.stages[0], replace(QUICK, pool=3, reuse=2)
    StoredSamples(source, recipe, tmp_path, 1).batch(0, stage, 0)
    (file,) = tmp_path.iterdir()
    made = file.read_bytes()

    class Gone:
        def samples(self, stage, count, seed):
            raise AssertionError("made again")

    StoredSamples(Gone(), recipe, tmp_path, 1).batch(0, stage, 0)
    file.write_bytes(made[:-100])
    StoredSamples(source, recipe, tmp_path, 1).batch(0, stage, 0)
    assert file.read_bytes() == made
    later = StoredSamples(source, recipe, tmp_path, 1)
    for step in range(20):
        later.batch(step, stage, 100)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_pool_on_a_full_disk_is_told(tmp_path, source):
    (tmp_path / "samples").write_text("in the way")
    with pytest.raises(DeployError, match="free some space"):
        StoredSamples(source, QUICK, tmp_path / "samples", 1).batch(0, QUICK.stages[0], 0)


def test_a_validation_says_what_the_parts_and_real_frames_are_worth(tmp_path):
    for kind, places in (("blur", range(6)), ("sharp", (1, 5))):
        (tmp_path / kind).mkdir()
        for i in places:
            frame = np.random.default_rng(i).integers(0, 255, (36, 44, 3), dtype=np.uint8)
            Image.fromarray(frame).save(tmp_path / kind / f"{i:06}.png")
    real = real_frames(video_from_folders(tmp_path / "blur", tmp_path / "sharp"), 5)
    assert [(each.name, each.place, tuple(each.window.shape)) for each in real] == [
        ("000001", 1, (5, 32, 40)),
        ("000005", 4, (5, 32, 40)),
    ]
    torch.manual_seed(0)
    network = DeblurNetwork(TINY).eval()
    samples = Samples(*torch.rand(2, 2, 5, 32, 32, generator=torch.Generator().manual_seed(0)))
    asleep = Validation(samples, real).gain(network)
    assert asleep.worth == {"r1": 0, "spatial generator": 0, "temporal generator": 0}
    nn.init.normal_(network.r2.weight, std=0.1)
    awake = Validation(samples, real).gain(network)
    assert awake.worth["r1"] != 0
    assert awake.real.keys() == {"000001", "000005"}
    assert awake.mean == measure_gain(network, samples).mean


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
    assert made.blurry.shape == (6, 5, 40, 40)
    assert (made.sharp * 255).round().equal((made.blurry * 255).round() + 100)
    assert ((made.blurry * 255).round().diff(dim=1) == 1).all()
    mixed = MixedSource((pairs, pairs)).samples(QUICK.stages[0], 5, seed=0)
    assert len(mixed.blurry) == 5
    with pytest.raises(InputError, match="too few for samples of 96"):
        pairs.samples(Stage(0, 64, 4), 1, seed=0)
    with pytest.raises(InputError, match="fewer than 9 frames: IMG_0001"):
        load_pairs(find_dataset(tmp_path, "train").videos, 9)


def test_the_command_trains_a_variant_and_writes_parts(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(RECIPES, "cpu", QUICK)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 220, 3), dtype=np.uint8)).save(tmp_path / "picture.png")
    arguments = ["--textures", str(tmp_path / "picture.png"), "--out", str(tmp_path / "run"), "--steps", "2", "--device", "cpu"]
    assert train.main([*arguments, "--variant", "I3T1", "--size", "paper", "--channel-divisor", "16", "--parts"]) == 0
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
    torch.manual_seed(0)  # of some seeds the generators of so small a network are dead
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
    stages = (Stage(0, 32, 2, stored=40), Stage(500, 32, 4, stored=40))
    monkeypatch.setitem(RECIPES, "cpu", replace(QUICK, stages=stages))
    monkeypatch.setitem(SIZES, "light", TINY)
    monkeypatch.setattr(speed, "PRODUCT", 64)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 160, 3), dtype=np.uint8)).save(tmp_path / "picture.png")
    assert speed.main(["--textures", str(tmp_path / "picture.png"), "--repeats", "1", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("a product of 64x64 matrices in fp32")
    assert lines[2].startswith("crop 32, batch 2: synthesis")
    assert lines[3].endswith("% of the product")
