"""Claims about the language model and its training command."""

import json
import math
import random
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gpt import model as gpt
from gpt import published, sample, train
from gpt.presets import PRESETS, GPTConfig
from gpt.scoring import continuations, encode_pair, score, windows
from multimodal.cli import UserError
from multimodal.config import gpt1, gpt2, gpt3, modern
from multimodal.tokenizer import Tokenizer

FAMILIES = {
    "gpt1": replace(gpt1(32, 2, 2), dropout=0.0),
    "gpt2": gpt2(32, 2, 2),
    "gpt3": gpt3(32, 2, 2, band=6),
    "modern": modern(32, 2, 2),
}
families = pytest.mark.parametrize("family", FAMILIES)


def make(family: str, vocabulary: int = 60, context: int = 16, seed: int = 0) -> gpt.GPT:
    """A model whose every parameter matters: zero-initialised ones are given values too."""
    torch.manual_seed(seed)
    model = gpt.GPT(GPTConfig(vocabulary, context, FAMILIES[family]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def some_tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(60, shape, generator=torch.Generator().manual_seed(seed))


@families
def test_no_position_is_influenced_by_a_later_one(family):
    model, tokens = make(family), some_tokens(1, 10)
    kept = {}
    model.embedding.register_forward_hook(lambda module, _, out: kept.update(x=out) or out.retain_grad())
    model(tokens)[0, 4].sum().backward()
    seen = kept["x"].grad[0].abs().sum(-1) > 0
    assert seen.tolist() == [True] * 5 + [False] * 5


@families
def test_logits_from_a_cache_equal_those_of_the_whole(family):
    model, tokens = make(family), some_tokens(2, 12)
    cache = model.cache(2)
    parts = [model(tokens[:, a:b], None, cache) for a, b in ((0, 5), (5, 6), (6, 9), (9, 12))]
    assert torch.allclose(torch.cat(parts, dim=1), model(tokens), atol=1e-5)


@families
def test_left_padding_changes_nothing(family):
    model, tokens = make(family), some_tokens(1, 6)
    padded = torch.cat((torch.full((1, 5), 7), tokens), dim=1)
    valid = torch.arange(11)[None] >= 5
    assert torch.allclose(model(padded, valid)[:, 5:], model(tokens), atol=1e-5)


@families
def test_the_last_logits_alone_equal_the_last_of_all(family):
    model, tokens = make(family), some_tokens(2, 9)
    assert torch.allclose(model(tokens, last=3), model(tokens)[:, -3:], atol=1e-6)


@families
def test_every_parameter_gets_a_gradient(family):
    model = make(family).train()
    loss, _ = gpt.next_token_loss(model, {"tokens": some_tokens(4, 17)}, 0)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@families
def test_an_untrained_model_knows_nothing(family):
    torch.manual_seed(0)
    model = gpt.GPT(GPTConfig(60, 16, FAMILIES[family]))
    loss, _ = gpt.next_token_loss(model, {"tokens": some_tokens(8, 17)}, 0)
    assert abs(loss.item() - math.log(60)) < 0.1


@families
def test_one_batch_can_be_memorised(family):
    torch.manual_seed(0)
    model = gpt.GPT(GPTConfig(60, 16, FAMILIES[family]))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    batch = {"tokens": some_tokens(2, 17)}
    for step in range(150):
        loss, _ = gpt.next_token_loss(model, batch, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    # random tokens: nothing but memory can go under the log of their number (4.1)
    assert loss.item() < 0.1


def test_gpt1_logits_equal_transformers_on_random_weights():
    transformers = pytest.importorskip("transformers", reason="the extra test is not installed")
    theirs = transformers.OpenAIGPTLMHeadModel(
        transformers.OpenAIGPTConfig(vocab_size=60, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    ).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    renamed = {"tokens_embed": "wte", "positions_embed": "wpe"}
    state = {name.removeprefix("transformer."): tensor for name, tensor in theirs.state_dict().items()}
    state = {re.sub(r"^\w+_embed", lambda found: renamed[found[0]], name): tensor for name, tensor in state.items()}
    state |= {"ln_f.weight": torch.ones(32), "ln_f.bias": torch.zeros(32)}  # GPT-1 has none
    config = GPTConfig(60, 16, gpt1(32, 2, 2))
    ours = published.to_ours(state, config, in_out=True)
    model = gpt.GPT(config).eval()
    model.load_state_dict({k: v for k, v in ours.items() if not k.startswith("transformer.norm.")})
    tokens = some_tokens(3, 16)
    torch.testing.assert_close(model(tokens), theirs(tokens).logits, atol=1e-5, rtol=1e-4)


def test_gpt2_logits_equal_those_of_transformers():
    transformers = pytest.importorskip("transformers", reason="transformers is the reference; it is not installed")
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=101, n_positions=24, n_embd=48, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=0
        )
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    state, config = theirs.state_dict(), GPTConfig(101, 24, gpt2(48, 3, 4))
    ours = gpt.GPT(config).eval()
    plain = {name: state[found] for name, found in published.plain_names(state).items()}
    ours.load_state_dict(published.to_ours(plain, config, in_out=True))
    tokens = some_tokens(3, 24)
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert expected.std() > 1  # the comparison says something
        assert (ours(tokens) - expected).abs().max() < 1e-4
        mask = torch.arange(24)[None] >= torch.tensor([[0], [5], [11]])
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        expected = theirs(tokens, attention_mask=mask.long(), position_ids=positions).logits
        assert (ours(tokens, mask) - expected)[mask].abs().max() < 1e-4


@families
def test_a_saved_model_loads_with_nothing_but_its_path(family, tmp_path):
    tokenizer = Tokenizer.bytes()
    model = make(family, tokenizer.vocab_size)
    gpt.save(model, tokenizer, tmp_path / "model")
    loaded, reader = gpt.load(tmp_path / "model", "cpu")
    assert torch.equal(loaded(some_tokens(2, 9)), model(some_tokens(2, 9)))
    assert reader.encode("hé") == tokenizer.encode("hé")
    gpt.save(model, tokenizer, tmp_path / "half", half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("model", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    assert torch.allclose(gpt.load(tmp_path / "half", "cpu")[0](some_tokens(2, 9)), model(some_tokens(2, 9)), atol=0.3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocabulary", 10**12),
        ("vocabulary", "x"),
        ("context", 1),
        ("transformer", 3),
        ("transformer", {}),
        ("more", 1),
    ],
)
def test_a_config_that_describes_no_model_gets_a_sentence(key, value, tmp_path):
    gpt.save(make("modern", 257), Tokenizer.bytes(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(UserError, match="config.json"):
        gpt.load(tmp_path, "cpu")


def test_windows_judge_every_token_but_the_first_once_from_half_a_context():
    for count in (2, 5, 8, 9, 10, 31, 32, 33, 100):
        found = windows(count, context=8)
        assert [i for _, judged, end in found for i in range(judged, end + 1)] == list(range(1, count))
        assert all(end - begin <= 8 and begin >= 0 for begin, _, end in found)
        assert all(judged - begin >= 4 for begin, judged, _ in found[1:])
    assert len(windows(1000, 8, most=7)) == 7


def test_scores_are_the_mean_loss_and_the_bits_of_a_byte():
    """The scores of a document that fits the context, against the definition."""
    tokenizer = Tokenizer.bpe(["hello hello hello"], 260)
    model = make("modern", tokenizer.vocab_size)
    ids = [tokenizer.end, *tokenizer.encode("hello you"), tokenizer.end]
    found = score(model, tokenizer, np.array(ids, np.uint16))
    each = F.cross_entropy(model(torch.tensor([ids[:-1]]))[0], torch.tensor(ids[1:]), reduction="none")[:-1]
    assert found["loss"] == pytest.approx(each.mean().item(), rel=1e-5)
    assert found["bpb"] == pytest.approx(each.sum().item() / math.log(2) / len("hello you"), rel=1e-5)


@pytest.fixture(scope="module")
def notes(tmp_path_factory) -> Path:
    """A folder of the user's: enough documents that some are held out, and a file that is no text."""
    folder = tmp_path_factory.mktemp("notes")
    for i in range(60):
        lines = [f"{n} sheep and {n + i} goats went over the hill" for n in range(i, i + 12)]
        (folder / f"note{i}.txt").write_text("\n".join(lines))
    (folder / "broken.txt").write_bytes(b"\xff\xfe\x00\x01\x80\x81" * 40)
    return folder


SHORT = [
    "--train.steps",
    "12",
    "--train.evaluate-every",
    "6",
    "--train.save-every",
    "6",
    "--train.batch-size",
    "4",
]


@pytest.fixture(scope="module")
def run(notes, tmp_path_factory) -> Path:
    """A run of the tiny preset on the folder."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    assert train.main(["tiny", "--data", str(notes), "--out", str(path), "--device", "cpu", *SHORT]) == 0
    return path


def test_training_leaves_a_whole_run_directory(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert {"val_loss", "val_bpb"} <= lines[5].keys() & lines[11].keys()
    card = (run / "README.md").read_text()
    assert "python -m gpt.train tiny --data" in card and "val_bpb" in card
    assert "step 6" in (run / "samples.md").read_text()
    assert json.loads((run / "settings.json").read_text())["train"]["steps"] == 12
    model, tokenizer = gpt.load(run, "cpu")
    assert model.config.vocabulary == tokenizer.vocab_size


def test_a_model_goes_on_with_other_text_with_its_own_blocks_and_tokenizer(run, tmp_path, capsys):
    (tmp_path / "letters.txt").write_text("Dear friend,\n\nyour letter came.\n" * 200)
    arguments = ["finetune", "--model", str(run), "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    arguments += ["--device", "cpu", "--context", "32", "--train.steps", "30", "--train.batch-size", "4"]
    assert train.main(arguments) == 0
    (before, tokenizer), (after, same) = gpt.load(run, "cpu"), gpt.load(tmp_path / "run", "cpu")
    assert before.config == after.config and tokenizer.token_bytes == same.token_bytes
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    ids = torch.tensor([tokenizer.encode("Dear friend,\n\nyour letter came.\n" * 8)[:33]])
    with torch.no_grad():
        old, new = (gpt.next_token_loss(model, {"tokens": ids}, 0)[0].item() for model in (before, after))
    assert new < old and abs(lines[0]["loss"] - old) < 0.5  # it began where the other had ended


def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_used(notes, tmp_path, capsys):
    arguments = ["tiny", "--data", str(notes), "--out", str(tmp_path / "run"), "--device", "cpu", *SHORT]
    train.main([*arguments, "--train.steps", "1"])
    out, err = capsys.readouterr()
    assert re.search(r"broken\.txt: \w+", err)
    assert json.loads(out)["steps"] == 1


def test_a_resumed_command_equals_an_uninterrupted_one(run, notes, tmp_path, monkeypatch, capsys):
    arguments = ["tiny", "--data", str(notes), "--out", str(tmp_path / "run"), "--device", "cpu", *SHORT]
    original = gpt.next_token_loss

    def stopping(model, batch, step):
        if step == 7:
            signal.raise_signal(signal.SIGTERM)
        return original(model, batch, step)

    monkeypatch.setattr(gpt, "next_token_loss", stopping)
    assert train.main(arguments) == 1
    monkeypatch.undo()
    assert json.loads(capsys.readouterr().out)["steps"] == 8
    assert train.main([*arguments, "--resume"]) == 0
    whole, resumed = (gpt.load(path, "cpu")[0].state_dict() for path in (run, tmp_path / "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_is_not_resumed_as_another_model(run, notes, capsys):
    arguments = ["tiny", "--data", str(notes), "--out", str(run), "--resume", "--context", "32"]
    assert train.main(arguments) == 2
    assert "the run began with context 64" in capsys.readouterr().err.splitlines()[-1]
    assert json.loads((run / "settings.json").read_text())["context"] == 64


def test_a_run_is_never_overwritten(run, notes, capsys):
    before = (run / "tokens" / "train-text.tokens").stat().st_mtime_ns
    assert train.main(["tiny", "--data", str(notes), "--out", str(run)]) == 2
    assert "--resume continues it" in capsys.readouterr().err
    assert (run / "tokens" / "train-text.tokens").stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", ["characters", "bytes", "own"])
def test_other_tokenizers_train_too(kind, run, notes, tmp_path):
    which = str(run / "tokenizer.json") if kind == "own" else kind
    arguments = ["tiny", "--data", str(notes), "--out", str(tmp_path / "run"), "--tokenizer", which, *SHORT]
    assert train.main([*arguments, "--train.steps", "1", "--device", "cpu"]) == 0
    _, tokenizer = gpt.load(tmp_path / "run", "cpu")
    assert tokenizer.decode(tokenizer.encode("3 sheep")) == "3 sheep"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "no/such/place"], "no/such/place"),
        (["--tokenizer", "no/such.json"], "nor a file"),
        (["--tokenizer", "bpe", "--vocabulary", "3"], "257"),
        (["--context", "1"], "context 1"),
        (["--resume"], "no run to continue"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_wrong_use_of_training_gets_a_sentence_and_status_2(arguments, sentence, notes, tmp_path, capsys):
    arguments = ["tiny", "--data", str(notes), "--out", str(tmp_path / "run"), *SHORT, *arguments]
    assert train.main(arguments) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_an_empty_text_gets_a_sentence(tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("")
    assert train.main(["tiny", "--data", str(tmp_path / "empty.txt"), "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "empty.txt: it is empty" in err and "no text could be read" in err.splitlines()[-1]


def test_every_preset_describes_a_model():
    for _, settings in PRESETS.values():
        with torch.device("meta"):
            gpt.GPT(GPTConfig(settings.vocabulary, settings.context, settings.transformer))
    with torch.device("meta"):
        model = gpt.GPT(GPTConfig(50_257, 1024, PRESETS["gpt2"][1].transformer))
    assert sum(p.numel() for p in model.parameters()) == 124_439_808


def test_sample_streams_text_and_prints_json_with_every_token(run, capsys):
    arguments = ["2 sheep", "--model", str(run), "--max-tokens", "12", "--seed", "3", "--device", "cpu"]
    assert sample.main(arguments) == 0
    text = capsys.readouterr().out
    assert sample.main([*arguments, "--json", "--n", "2"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(record) for record in records] == [{"text", "finish_reason", "tokens", "token_logprobs"}] * 2
    assert records[0]["text"] + "\n" == text
    assert records[0]["text"] != records[1]["text"]
    for record in records:
        assert record["finish_reason"] in ("stop", "length")
        assert len(record["tokens"]) == len(record["token_logprobs"]) <= 12
        assert all(value <= 0 for value in record["token_logprobs"])


def test_sample_reads_its_prompt_from_stdin(run, capsys, monkeypatch):
    import io

    arguments = ["--model", str(run), "--max-tokens", "8", "--device", "cpu"]
    sample.main(["2 sheep", *arguments])
    expected = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("2 sheep\n"))
    sample.main(["-", *arguments])
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--temperature", "-1"], "temperature -1"),
        (["--top-p", "0"], "top_p 0"),
        (["--top-p", "1.5"], "top_p 1.5"),
        (["--top-k", "-2"], "top_k -2"),
        (["--max-tokens", "0"], "max_tokens 0"),
        (["--n", "0"], "--n 0"),
        (["--stop", ""], "stop string is empty"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_wrong_use_of_sample_gets_a_sentence_and_status_2(arguments, sentence, run, capsys):
    assert sample.main(["hello", "--model", str(run), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err and len(err.strip().splitlines()) == 1


def test_sample_from_an_empty_or_half_written_directory_gets_a_sentence(tmp_path, capsys):
    assert sample.main(["hello", "--model", str(tmp_path)]) == 2
    assert "config.json" in capsys.readouterr().err
    gpt.save(make("modern", 257), Tokenizer.bytes(), tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert sample.main(["hello", "--model", str(tmp_path)]) == 2
    assert "model.safetensors" in capsys.readouterr().err


def test_a_flag_that_does_not_exist_ends_with_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        sample.main(["hello", "--temprature", "1"])
    assert ended.value.code == 2


@families
def test_continuations_of_different_length_score_as_each_alone_and_as_the_whole_forward(family):
    model, generator = make(family), torch.Generator().manual_seed(3)
    rows = []
    for before, after in ((0, 4), (3, 1), (5, 9), (40, 2), (15, 1), (1, 16)):
        ids = torch.randint(60, (before + after,), generator=generator).tolist()
        rows.append((ids[:before], ids[before:]))
    together = continuations(model, 0, rows)
    for row, found in zip(rows, together, strict=True):
        (alone,) = continuations(model, 0, [row])
        ids = ([*(row[0] or [0]), *row[1]])[-17:]  # the context has 16
        logits = model(torch.tensor([ids[:-1]]))[0, -len(row[1]) :].log_softmax(-1)
        wanted = logits.gather(1, torch.tensor(row[1])[:, None])[:, 0].tolist()
        assert found.tokens == row[1]
        assert found.logprobs == pytest.approx(wanted, abs=1e-5)
        assert alone.logprobs == pytest.approx(wanted, abs=1e-5)
        assert found.likeliest == (logits.argmax(-1) == torch.tensor(row[1])).tolist()


@families
def test_a_continuation_longer_than_the_context_is_scored_by_overlapping_windows(family):
    model = make(family)
    ids = some_tokens(45).tolist()
    (found,) = continuations(model, 0, [(ids[:5], ids[5:])])
    assert len(found.logprobs) == 40
    for place in (5, 20, 33, 44):
        begin = next(b for b, j, e in windows(45, 16) if j <= place <= e)
        alone = model(torch.tensor([ids[begin:place]]))[0, -1].log_softmax(-1)[ids[place]].item()
        assert found.logprobs[place - 5] == pytest.approx(alone, abs=1e-5)


def test_a_pair_is_encoded_as_one_text_and_its_space_belongs_to_what_follows():
    tokenizer = Tokenizer.bpe(["the cat sat on the mat " * 50], 300)
    before, after = encode_pair(tokenizer, "the cat ", "sat")
    assert before == tokenizer.encode("the cat") and before + after == tokenizer.encode("the cat sat")
    assert tokenizer.decode(after) == " sat"
    before, after = encode_pair(tokenizer, "the c", "at sat")  # " cat" is one token
    assert before + after == tokenizer.encode("the cat sat") and tokenizer.decode(after) == " cat sat"


@families
def test_continuations_of_a_shared_context_equal_each_alone(family):
    model, draw = make(family), random.Random(0)
    for _ in range(20):
        rows = []
        for _ in range(draw.randrange(1, 6)):
            before = [draw.randrange(60) for _ in range(draw.randrange(20))]  # some are longer than the context
            for _ in range(draw.randrange(1, 5)):
                rows.append((before, [draw.randrange(60) for _ in range(draw.choice((0, 1, 1, 2, 5, 18)))]))
        draw.shuffle(rows)
        for row, together in zip(rows, continuations(model, 0, rows), strict=True):
            (alone,) = continuations(model, 0, [row])
            assert together.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
            assert (together.tokens, together.likeliest) == (alone.tokens, alone.likeliest)
