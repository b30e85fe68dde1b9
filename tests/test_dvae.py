"""Claims about the likelihoods, schedules and relaxed codes of the dVAE, its training, and `dalle.reconstruct`."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from dalle import dvae, openai, quantize, reconstruct, tokenizers, train_dvae
from dalle.dvae import DVAE, Published
from dalle.presets import DVAE_PRESETS, DVAEConfig, TrainDVAE
from multimodal import images
from multimodal.cli import UserError

LAPLACE = DVAEConfig(size=16, grid=4, width=16, depth=1, quantizer="gumbel", codes=12, likelihood="logit_laplace")
PAPER = DVAEConfig("published", 16, 8, 2, 8, 1, "gumbel", 20, likelihood="logit_laplace")


def pictures(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mu", [-2.0, 0.0, 1.5])
@pytest.mark.parametrize("ln_b", [-2.0, 0.0])
def test_the_logit_laplace_density_integrates_to_1(mu, ln_b):
    # with x = sigmoid(z) the points lie close where the density is steep
    x = torch.linspace(-40, 40, 400_001, dtype=torch.float64).sigmoid()
    x = x[(x > 0) & (x < 1)]
    density = (-dvae.logit_laplace(x, torch.full_like(x, mu), torch.full_like(x, ln_b))).exp()
    assert torch.trapezoid(density, x).item() == pytest.approx(1.0, abs=1e-4)


def test_the_logit_laplace_loss_is_minus_ln_of_the_paper_s_density():
    x, mu, b = torch.rand(1000).clamp(0.01, 0.99), torch.randn(1000), torch.rand(1000) + 0.1
    density = 1 / (2 * b * x * (1 - x)) * (-(torch.logit(x) - mu).abs() / b).exp()
    torch.testing.assert_close(dvae.logit_laplace(x, mu, b.log()), -density.log(), rtol=1e-4, atol=1e-4)


def test_a_loss_is_the_negative_elb_of_a_picture_over_its_numbers():
    torch.manual_seed(0)
    network, image = DVAE(LAPLACE), pictures(3)
    torch.manual_seed(1)
    found = dvae.loss(network, image, 0.5, 6.6)[0]
    torch.manual_seed(1)
    (mu, ln_b), kl = (result := network(image, 0.5))[0].chunk(2, 1), result[1]
    x = 0.8 * image + 0.1
    laplace = torch.distributions.Laplace(mu, ln_b.exp())
    ln_p = laplace.log_prob(x.logit()) - (x * (1 - x)).log()  # the density of x, by the change of variables
    torch.testing.assert_close(found, (-ln_p.sum((1, 2, 3)).mean() + 6.6 * kl) / (3 * 16 * 16))


def test_the_picture_of_six_channels_is_the_median_of_their_distribution_and_undoes_the_map_of_pixels():
    image = pictures()
    painted = torch.cat((openai.map_pixels(image).logit(), torch.randn(2, 3, 16, 16)), 1)
    torch.testing.assert_close(dvae.picture(painted), image)
    assert openai.map_pixels(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)).unique().tolist() == (
        pytest.approx([0.1, 0.9])
    )


@pytest.mark.parametrize("config", [LAPLACE, replace(LAPLACE, quantizer="fsq", levels=(4, 3)), PAPER])
def test_whatever_is_decoded_lies_in_0_to_1(config):
    torch.manual_seed(0)
    network = Published(config).network if config.network == "published" else DVAE(config)
    for parameter in network.parameters():
        parameter.data *= 30
    drawn = network.decode(torch.randint(config.vocabulary, (3, config.length)))
    assert drawn.shape == (3, 3, 16, 16) and drawn.min() >= 0 and drawn.max() <= 1


@pytest.mark.parametrize("batch", [4, 16])
def test_the_kl_and_so_its_weight_in_the_loss_do_not_depend_on_the_batch(batch):
    one = torch.randn(1, 10, 4, 4)
    expected, found = quantize.relax(one, 1.0)[1], quantize.relax(one.expand(batch, -1, -1, -1), 0.1)[1]
    assert expected > 0
    torch.testing.assert_close(found, expected)


def test_the_kl_of_uniform_logits_is_0_and_of_others_that_of_torch_s_distributions():
    assert quantize.relax(torch.full((2, 10, 4, 4), 3.0), 0.5)[1].abs() < 1e-5
    logits = 3 * torch.randn(2, 10, 4, 4)
    ours = torch.distributions.Categorical(logits=logits.movedim(1, -1))
    uniform = torch.distributions.Categorical(logits=torch.zeros(2, 4, 4, 10))
    expected = torch.distributions.kl_divergence(ours, uniform).sum((1, 2)).mean()
    torch.testing.assert_close(quantize.relax(logits, 0.5)[1], expected)


def test_relaxed_codes_are_shares_and_at_a_sixteenth_close_to_one_code_each():
    torch.manual_seed(0)
    logits = 2 * torch.randn(8, 100, 8, 8)
    warm, cold = (quantize.relax(logits, temperature)[0] for temperature in (1.0, 1 / 16))
    torch.testing.assert_close(warm.sum(-1), torch.ones(8, 8, 8))
    assert cold.max(-1).values.mean() > 0.95 > 0.6 > warm.max(-1).values.mean()


def test_relaxed_codes_are_drawn_as_often_as_their_probabilities_say():
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1).expand(1, 3, 200, 200)
    drawn = quantize.relax(logits, 0.1)[0].argmax(-1)
    shares = torch.bincount(drawn.flatten(), minlength=3) / 40_000
    torch.testing.assert_close(shares, logits[0, :, 0, 0].softmax(0), atol=0.01, rtol=0)


def test_straight_through_codes_are_hard_and_have_the_gradient_of_the_relaxed_ones():
    logits, weights = torch.randn(2, 10, 4, 4, requires_grad=True), torch.randn(2, 4, 4, 10)
    gradients = []
    for straight_through in (False, True):
        torch.manual_seed(1)
        soft = quantize.relax(logits, 0.7, straight_through)[0]
        gradients.append(torch.autograd.grad((soft * weights).sum(), logits)[0])
    torch.testing.assert_close(soft.sort(-1).values, torch.eye(10)[-1].expand(2, 4, 4, 10), atol=1e-6, rtol=0)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("config", [LAPLACE, PAPER])
def test_gradients_reach_the_encoder_through_the_codes_alone(config, straight_through):
    torch.manual_seed(0)
    network = Published(config) if config.network == "published" else DVAE(config)
    first = network.network.encoder.input.weight if config.network == "published" else network.into.weight
    dvae.loss(network, pictures(), 1.0, 0.0, straight_through)[0].backward()
    assert first.grad.abs().sum() > 0
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_annealing_is_a_cosine_between_its_ends_and_constant_afterwards():
    at = [dvae.annealed(done, 0.5, 0.0, 6.6) for done in (0, 0.125, 0.25, 0.5, 0.9)]
    assert at == pytest.approx([0, 6.6 * (1 - math.sqrt(0.5)) / 2, 3.3, 6.6, 6.6])
    assert dvae.annealed(0.0, 0.0, 1.0, 0.5) == 0.5  # no time to fall: fallen


def test_the_paper_preset_has_the_paper_s_schedules_in_updates_and_sizes():
    settings = DVAE_PRESETS["paper"][1]
    config, train = settings.model, settings.train
    assert (config.size, config.grid, config.vocabulary, config.length) == (256, 32, 8192, 1024)
    assert train.batch_size * train.accumulate == 512

    def temperature(step):
        return dvae.annealed(step / train.steps, settings.temperature_part, 1.0, settings.final_temperature)

    assert [temperature(step) for step in (0, 75_000, 150_000, 1_000_000)] == pytest.approx(
        [1, 17 / 32, 1 / 16, 1 / 16]
    )
    weights = [dvae.annealed(step / train.steps, settings.kl_part, 0.0, settings.kl_weight) for step in (0, 2500, 5000)]
    assert weights == pytest.approx([0.0, 3.3, 6.6])
    with torch.device("meta"):
        network = openai.OpenAIDVAE(
            openai.OpenAIConfig(config.size, width=config.width, blocks=config.depth, vocabulary=config.codes)
        )
    assert network.config == openai.OpenAIConfig()  # the sizes of the published weights


def test_the_published_network_paints_from_certain_relaxed_codes_what_it_decodes():
    torch.manual_seed(0)
    trained = Published(PAPER)
    trained.network.encoder.output.weight.data *= 1e6  # no noise changes these codes
    painted, _ = trained(pictures(), 1e-3)
    network = trained.network
    torch.testing.assert_close(dvae.picture(painted), network.decode(network.encode(pictures())), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", [LAPLACE, replace(PAPER, size=16)])
def test_a_logit_laplace_dvae_memorises_one_batch(config):
    torch.manual_seed(0)
    network, image = Published(config) if config.network == "published" else DVAE(config), pictures(2).round()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    errors = []
    for step in range(40):
        loss, metrics = dvae.loss(network, image, dvae.annealed(step, 30, 1.0, 1 / 16), 0.01)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < errors[0] - 0.3


def test_a_new_gumbel_quantizer_uses_many_codes_and_what_it_embeds_tells_the_features():
    torch.manual_seed(0)
    quantizer, features = quantize.Gumbel(32, 300), torch.randn(8, 32, 16, 16)
    codes = quantizer.codes(features)
    assert codes.unique().numel() > 150

    def flat(x):
        return x.movedim(1, -1).flatten(0, 2)

    embedded, wanted = flat(quantizer.lookup(codes)), flat(features)
    left = wanted - embedded @ torch.linalg.lstsq(embedded, wanted).solution
    assert left.var() < 0.9 * wanted.var()  # of unrelated embeddings a linear map makes nothing


@pytest.mark.parametrize("settings, sentence", [
    ({"network": "published"}, "published network has gumbel"),
    ({"network": "published", "quantizer": "gumbel", "likelihood": "logit_laplace", "grid": 16}, "size 64 with grid 16"),
])  # fmt: skip
def test_an_impossible_published_network_gets_a_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        DVAEConfig(**settings)


@pytest.mark.parametrize("settings", [
    {"kl_weight": -1.0}, {"kl_part": 2.0}, {"temperature_part": -0.1}, {"final_temperature": 0.0},
])  # fmt: skip
def test_impossible_schedules_get_a_sentence(settings):
    with pytest.raises(ValueError, match="out of range"):
        TrainDVAE(**settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty pictures of one colour each, of all shapes, in two folders with equal names; and files that are none."""
    where = tmp_path_factory.mktemp("pictures")
    for i in range(40):
        inner = where / f"{i % 2}"
        inner.mkdir(exist_ok=True)
        shade = torch.tensor([i / 40, 0.5, 1 - i / 40]).view(3, 1, 1)
        images.to_pil(shade.expand(3, 12 + i, 16 + i % 3)).save(inner / f"{i // 2}.png")
    return where


@pytest.mark.parametrize("preset", ["tiny", "gumbel", "paper"])
def test_a_dvae_is_trained_saved_and_judged_on_all_held_out_pictures(preset, folder, tmp_path, capsys):
    small = {
        "tiny": [],
        "gumbel": ["--model.size", "16", "--model.grid", "4", "--model.width", "8", "--model.codes", "30"],
        "paper": ["--model.size", "16", "--model.grid", "2", "--model.width", "8", "--model.codes", "30",
                  "--train.batch-size", "2", "--train.accumulate", "2"],
    }[preset]  # fmt: skip
    arguments = [preset, "--data", str(folder), "--device", "cpu", "--train.steps", "3", "--out", str(tmp_path / "run")]
    assert train_dvae.main([*arguments, *small]) == 0
    figures = json.loads(capsys.readouterr().out)
    model = tokenizers.load(tmp_path / "run")
    from multimodal.data.pairs import batch, read_pairs

    held_out = read_pairs([folder], captions=False)[0].split("held_out")
    held = images.to_float(batch(held_out, list(range(len(held_out))), model.config.size)["image"])
    codes = model.encode(held)
    assert figures["val_psnr"] == pytest.approx(dvae.psnr(model.decode(codes), held).mean().item(), rel=1e-3)
    assert figures["val_codes_used"] == pytest.approx(codes.unique().numel() / model.config.vocabulary)
    shares = torch.bincount(codes.flatten()) / codes.numel()
    assert figures["val_code_perplexity"] == pytest.approx(
        torch.distributions.Categorical(shares).entropy().exp().item(), rel=1e-4
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"mse", "kl", "val_psnr"} <= lines[-1].keys() and (tmp_path / "run" / "samples.png").is_file()


def test_a_resumed_gumbel_dvae_equals_an_uninterrupted_one(folder, tmp_path, monkeypatch, capsys):
    common = [
        "gumbel",
        "--data",
        str(folder),
        "--device",
        "cpu",
        "--train.steps",
        "4",
        "--train.save-every",
        "2",
        "--train.minutes",
        "None",
    ]
    common += ["--model.size", "16", "--model.grid", "4", "--model.width", "8", "--model.codes", "30"]
    assert train_dvae.main([*common, "--out", str(tmp_path / "whole")]) == 0
    original, calls = dvae.loss, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(dvae, "loss", stopping)
    assert train_dvae.main([*common, "--out", str(tmp_path / "run")]) == 1
    monkeypatch.setattr(dvae, "loss", original)
    assert train_dvae.main([*common, "--out", str(tmp_path / "run"), "--resume"]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "run")]
    assert weights[0] == weights[1]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A saved dVAE of 16x16 pixels that knows nothing."""
    where = tmp_path_factory.mktemp("dvae")
    torch.manual_seed(0)
    dvae.save(where, DVAE(LAPLACE))
    return where


def test_what_is_saved_says_everything_that_loading_needs(small):
    loaded = tokenizers.load(small)
    assert asdict(loaded.config) == asdict(LAPLACE)
    assert loaded.decode(loaded.encode(pictures())).shape == (2, 3, 16, 16)


def run(arguments, capsys):
    status = reconstruct.main(arguments)
    talk = capsys.readouterr()
    return status, [json.loads(line) for line in talk.out.splitlines() if line.startswith("{")], talk.err


def test_a_sheet_and_figures_show_what_a_tokenizer_keeps(folder, small, tmp_path, capsys):
    chosen = sorted((folder / "0").iterdir())[:3]
    arguments = [
        *map(str, chosen),
        "--model",
        str(small),
        "--out",
        str(tmp_path / "s.png"),
        "--json",
        "--device",
        "cpu",
    ]
    status, lines, talk = run(arguments, capsys)
    assert status == 0 and [line["image"] for line in lines] == [str(path) for path in chosen]
    model = tokenizers.load(small)
    for line in lines:
        image = images.to_float(images.square(images.read(line["image"]), 16))[None]
        codes = model.encode(image)
        assert line["psnr"] == pytest.approx(dvae.psnr(model.decode(codes), image).item(), abs=0.01)
        assert (line["codes_used"], line["codes"]) == (codes.unique().numel(), 16)
        assert line["bits"] == math.ceil(16 * math.log2(12)) and line["png_bits"] > 8 * 60
    assert "3 of 3 pictures were not 16x16" in talk
    assert images.read(tmp_path / "s.png").size == (3 * 20 + 4, 2 * (16 + 4 + 12) + 4)
    assert run([*arguments, "--codes"], capsys)[0] == 0
    assert images.read(tmp_path / "s.png").size == (3 * 20 + 4, 3 * (16 + 4 + 12) + 4)


def test_one_bad_file_is_one_sentence_the_rest_goes_on_and_the_status_is_1(folder, small, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    bad = tmp_path / "in" / "bad.png"
    bad.write_bytes(b"no picture")
    good = folder / "0" / "0.png"
    arguments = [str(bad), str(good), str(tmp_path / "none.png"), "--model", str(small), "--out", str(tmp_path / "out")]
    status, lines, _ = run([*arguments, "--json"], capsys)
    assert status == 1 and [line.get("error") is None for line in lines] == [False, True, False]
    assert "not a picture" in lines[0]["error"] and "does not exist" in lines[2]["error"]
    assert images.read(lines[1]["file"]).size == (16, 16) and (tmp_path / "out" / "sheet.png").is_file()
    status, _, talk = run([str(bad), "--model", str(small), "--out", str(tmp_path / "nothing.png")], capsys)
    assert status == 1 and talk.count("\n") == 1 and not (tmp_path / "nothing.png").exists()


@pytest.mark.parametrize("side", [(1, 1), (1, 90), (333, 7), (17, 16)])
def test_pictures_of_any_shape_and_mode_are_fitted_to_the_middle_square(side, small, tmp_path, capsys):
    from PIL import Image

    for mode in ("RGBA", "L", "I;16", "CMYK", "P"):
        Image.new(mode, side).save(tmp_path / f"{mode.replace(';', '-')}.{'tif' if mode == 'CMYK' else 'png'}")
    status, lines, _ = run([str(tmp_path), "--model", str(small), "--out", str(tmp_path / "o.png"), "--json"], capsys)
    assert status == 0 and len(lines) == 5 and all(math.isfinite(line["psnr"]) for line in lines)


def test_equal_names_of_different_folders_become_different_files_and_nothing_read_is_overwritten(
    folder, small, tmp_path, capsys
):
    out = tmp_path / "kept"
    arguments = [str(folder), "--model", str(small), "--json"]
    status, lines, talk = run([*arguments, "--out", str(out)], capsys)
    assert status == 0 and len(lines) == 40 == len({line["file"] for line in lines}) == len(list(out.iterdir())) - 1
    for where in (folder, folder / "0", folder / "0" / "0.png"):
        status, lines, talk = run([*arguments, "--out", str(where)], capsys)
        assert (status, lines) == (2, []) and "lies among the pictures" in talk


@pytest.mark.parametrize("arguments, sentence", [
    ([], "no picture was given"), (["a.png", "--out", "a.jpg"], "ends in .png"), (["a.png", "--model", "nowhere"], "nowhere"),
])  # fmt: skip
def test_wrong_use_of_reconstruct_is_one_sentence_and_status_2(arguments, sentence, capsys):
    assert reconstruct.main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_of_a_dalle_its_own_tokenizer_is_taken(models):
    assert reconstruct.find_tokenizer(str(models / "dalle")) == models / "dalle" / "dvae"
    with pytest.raises(UserError, match="no run directory"):
        reconstruct.find_tokenizer("no-such-model")


def test_every_code_has_a_colour_and_neighbours_differ():
    colours = reconstruct.code_colours(torch.arange(1024).view(32, 32), 32)
    assert colours.min() >= 0 and colours.max() <= 1
    flat = colours.flatten(1).T
    assert (flat[1:] - flat[:-1]).abs().sum(1).min() > 0.1 and len(set(map(tuple, flat.tolist()))) > 1000
