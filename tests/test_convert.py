"""Claims about conversion: other layouts of GPT-2 come in and go out without a logit or a bit changed."""

import json
import math
import shutil

import pytest
import tokenizers
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import models, pre_tokenizers, trainers

from gpt import convert, published, sample
from gpt import model as gpt
from gpt.presets import GPTConfig
from multimodal.config import TrainConfig, gpt2, modern
from multimodal.tokenizer import END, Tokenizer
from multimodal.training import fit

transformers = pytest.importorskip("transformers", reason="transformers is the reference; it is not installed")

TEXT = "To be, or not to be: that is the question. Whether 'tis nobler in the mind to suffer\n  the slings! "
ODD = "the <|endoftext|> question\n\n  naïve 😀 don't"
# the shapes of gpt2, -medium, -large and -xl (Radford et al. 2019): width over 16, depth over 6, all heads
SIZES = {"gpt2": (48, 2, 12), "medium": (64, 4, 16), "large": (80, 6, 20), "xl": (100, 8, 25)}
CONTEXT = 24


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """A folder with vocab.json and merges.txt as GPT-2 has them: the bytes, the merges, and the end last."""
    folder = tmp_path_factory.mktemp("vocabulary")
    pipeline = tokenizers.Tokenizer(models.BPE())
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pipeline.train_from_iterator(
        [TEXT * 3], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    pipeline.model.save(str(folder))
    known = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**known, END: len(known)}))
    return folder


@pytest.fixture(scope="module")
def tokens(vocabulary) -> int:
    return len(json.loads((vocabulary / "vocab.json").read_text()))


def theirs(size: str, tokens: int, **settings):
    """transformers' GPT-2 with random weights, large enough that the logits differ."""
    torch.manual_seed(0)
    width, depth, heads = SIZES[size]
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=tokens, n_positions=CONTEXT, n_embd=width, n_layer=depth, n_head=heads,
            bos_token_id=tokens - 1, eos_token_id=tokens - 1, **settings,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def some(tokens: int) -> torch.Tensor:
    return torch.randint(tokens, (2, CONTEXT), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model, tokens: int) -> torch.Tensor:
    found = model(some(tokens))
    return found if isinstance(found, torch.Tensor) else found.logits


def save(model, vocabulary, folder):
    """The directory that transformers writes."""
    model.save_pretrained(folder)
    reader = transformers.GPT2Tokenizer.from_pretrained(vocabulary)
    reader.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=SIZES)
def size(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def directory(size, vocabulary, tokens, tmp_path_factory):
    return save(theirs(size, tokens), vocabulary, tmp_path_factory.mktemp("hub") / size)


@pytest.fixture(scope="module")
def converted(directory, tmp_path_factory):
    out = tmp_path_factory.mktemp("ours") / directory.name
    assert convert.main([str(directory), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def smallest(vocabulary, tokens, tmp_path_factory):
    return save(theirs("gpt2", tokens), vocabulary, tmp_path_factory.mktemp("smallest") / "hf")


@pytest.fixture
def small(smallest, tmp_path):
    """A directory of transformers that a test may damage."""
    return shutil.copytree(smallest, tmp_path / "small")


def test_logits_equal_those_of_transformers_in_the_shape_of_every_size(directory, converted, size, tokens):
    model, tokenizer = gpt.load(converted, "cpu")
    expected = logits(transformers.AutoModelForCausalLM.from_pretrained(directory), tokens)
    assert expected.std() > 1  # the comparison says something
    assert (logits(model, tokens) - expected).abs().max() < 1e-4
    blocks = model.config.transformer
    assert (blocks.width, blocks.depth, blocks.heads) == SIZES[size]
    assert (model.config.vocabulary, model.config.context) == (tokens, CONTEXT)
    assert tokenizer.end == tokens - 1
    card = (converted / "README.md").read_text()
    assert "python -m gpt.convert" in card and str(directory) in card


def test_an_export_holds_the_same_bits_and_opens_in_transformers(directory, converted, tokens, tmp_path):
    assert convert.main([str(converted), "--to", "hf", "--out", str(tmp_path / "back")]) == 0
    before, after = (load_file(path / "model.safetensors") for path in (directory, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    reopened, loading = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    original = transformers.AutoModelForCausalLM.from_pretrained(directory)
    assert torch.equal(logits(reopened.eval(), tokens), logits(original.eval(), tokens))
    assert reopened.generation_config.eos_token_id == tokens - 1
    for name in ("n_embd", "n_layer", "n_head", "n_positions", "vocab_size", "activation_function", "resid_pdrop"):
        assert getattr(reopened.config, name) == getattr(original.config, name)


@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.json"])
def test_both_forms_of_the_published_tokenizer_give_its_ids_and_the_end_stays_text(form, small, vocabulary, tmp_path):
    if form == "vocab.json":
        (small / "tokenizer.json").unlink()
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(vocabulary / name, small)
    assert convert.main([str(small), "--out", str(tmp_path / "ours")]) == 0
    tokenizer = gpt.load(tmp_path / "ours", "cpu")[1]
    reader = transformers.GPT2Tokenizer.from_pretrained(vocabulary)
    assert tokenizer.encode(TEXT) == reader(TEXT)["input_ids"]
    assert tokenizer.end not in tokenizer.encode(ODD)
    assert tokenizer.decode(tokenizer.encode(ODD)) == ODD
    assert tokenizer.encode(ODD) == reader(ODD, split_special_tokens=True)["input_ids"]


def test_tokens_that_were_added_later_keep_their_ids(small, vocabulary, tokens, tmp_path):
    model = theirs("gpt2", tokens + 2)
    model.save_pretrained(small)
    (small / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(vocabulary / name, small)
    (small / "added_tokens.json").write_text(json.dumps({"<b>": tokens + 1, "<a>": tokens}))
    assert convert.main([str(small), "--out", str(tmp_path / "ours")]) == 0
    found = json.loads((tmp_path / "ours" / "tokenizer.json").read_text())["added_tokens"]
    assert {token["content"]: token["id"] for token in found} == {END: tokens - 1, "<a>": tokens, "<b>": tokens + 1}


def test_what_a_tokenizer_puts_around_a_text_is_left_to_the_caller(small, tokens, tmp_path):
    found = json.loads((small / "tokenizer.json").read_text())
    end = {"id": END, "ids": [tokens - 1], "tokens": [END]}
    single = [{"SpecialToken": {"id": END, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    found["post_processor"] |= {"single": single, "special_tokens": {END: end}}
    (small / "tokenizer.json").write_text(json.dumps(found))
    assert tokens - 1 not in Tokenizer.load(small / "tokenizer.json").encode("be")
    assert convert.main([str(small), "--out", str(tmp_path / "ours")]) == 0
    assert tokens - 1 not in gpt.load(tmp_path / "ours", "cpu")[1].encode("be")


KINDS = {
    "bpe": lambda: Tokenizer.bpe([TEXT], 300),
    "characters": lambda: Tokenizer.characters([TEXT + ODD]),
    "bytes": Tokenizer.bytes,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_exported_tokenizer_gives_our_ids_and_our_text_in_transformers(kind, tmp_path):
    tokenizer = KINDS[kind]()
    gpt.save(gpt.GPT(GPTConfig(tokenizer.vocab_size, 16, gpt2(16, 1, 2))), tokenizer, tmp_path / "ours")
    assert convert.main([str(tmp_path / "ours"), "--to", "hf", "--out", str(tmp_path / "hf")]) == 0
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert reader.eos_token_id == tokenizer.end and len(reader) == tokenizer.vocab_size
    for text in (TEXT, ODD.replace(END, "end"), "漢 x", ""):
        ids = tokenizer.encode(text)
        assert reader(text)["input_ids"] == ids
        assert reader.decode(ids) == tokenizer.decode(ids).replace("\ufffd", "<|unknown|>")


def test_old_files_without_prefix_with_masks_and_a_head_are_read(small, tokens, tmp_path):
    state = load_file(small / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    for i in range(2):
        old[f"h.{i}.attn.bias"] = torch.ones(1, 1, CONTEXT, CONTEXT).tril()
        old[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    old["lm_head.weight"] = old["wte.weight"].clone()
    save_file(old, small / "model.safetensors")
    assert convert.main([str(small), "--out", str(tmp_path / "ours")]) == 0
    ours, expected = gpt.load(tmp_path / "ours", "cpu")[0], theirs("gpt2", tokens)
    assert (logits(ours, tokens) - logits(expected, tokens)).abs().max() < 1e-4


def test_weights_in_several_files_and_16_bits_are_read_as_they_are(small, tokens, tmp_path):
    model = theirs("gpt2", tokens).half()
    (small / "model.safetensors").unlink()
    model.save_pretrained(small, max_shard_size="60KB")
    assert len(list(small.glob("model-*.safetensors"))) > 1
    assert convert.main([str(small), "--out", str(tmp_path / "ours")]) == 0
    found = gpt.load(tmp_path / "ours", "cpu")[0].state_dict()
    expected = published.to_transformers(found, depth=2)
    assert all(torch.equal(tensor, model.state_dict()[name].float()) for name, tensor in expected.items())


def test_rows_that_only_pad_the_vocabulary_are_left_out(small, tokens, tmp_path, capsys):
    theirs("gpt2", tokens + 19).save_pretrained(small)
    assert convert.main([str(small), "--out", str(tmp_path / "ours")]) == 0
    assert "19 rows" in capsys.readouterr().err
    model, _ = gpt.load(tmp_path / "ours", "cpu")
    expected = logits(transformers.AutoModelForCausalLM.from_pretrained(small), tokens)
    assert (logits(model, tokens) - expected[..., :tokens]).abs().max() < 1e-4


def nanogpt(model, path, bias: bool = True, prefix: str = "", **arguments):
    """The same model as nanoGPT saves it: maps (out, in), the head beside the embedding, biases perhaps missing."""
    state = {}
    for name, tensor in model.state_dict().items():
        if bias or not name.endswith(".bias"):
            state[prefix + name] = tensor.T.contiguous() if tensor.ndim == 2 and ".h." in name else tensor
    c = model.config
    sizes = {"n_layer": c.n_layer, "n_head": c.n_head, "n_embd": c.n_embd, "block_size": c.n_positions}
    arguments = {**sizes, "bias": bias, "vocab_size": c.vocab_size, "dropout": 0.2, **arguments}
    torch.save({"model": state, "optimizer": {"state": {}}, "model_args": arguments, "iter_num": 5}, path)
    return path


@pytest.mark.parametrize("bias", [True, False])
def test_logits_of_a_nanogpt_checkpoint_are_those_of_gpt2_with_the_exact_gelu(bias, vocabulary, tokens, tmp_path):
    model = theirs("gpt2", tokens + 47, activation_function="gelu")
    if not bias:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(".bias"):
                    parameter.zero_()
    path = nanogpt(model, tmp_path / "ckpt.pt", bias, prefix="_orig_mod." if bias else "")
    arguments = [str(path if bias else tmp_path), "--tokenizer", str(vocabulary), "--out", str(tmp_path / "ours")]
    assert convert.main(arguments) == 0
    ours, _ = gpt.load(tmp_path / "ours", "cpu")
    expected = logits(model, tokens)[..., :tokens]
    assert (logits(ours, tokens) - expected).abs().max() < 1e-4
    assert ours.config.transformer.dropout == 0.2
    assert convert.main([str(tmp_path / "ours"), "--to", "hf", "--out", str(tmp_path / "hf")]) == 0
    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert torch.equal(logits(exported, tokens), expected)


@pytest.mark.parametrize("width", [48, 24])
def test_a_character_model_keeps_its_logits_and_never_writes_the_tokens_it_did_not_know(width, tmp_path, capsys):
    """nanoGPT's characters have no end; with more characters than width it comes by chance, but rarely."""
    (tmp_path / "input.txt").write_text(TEXT)
    known = sorted(set(TEXT))
    assert 24 <= len(known) < 48
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=len(known), n_positions=CONTEXT, n_embd=width, n_layer=2, n_head=4,
            bos_token_id=0, eos_token_id=0, activation_function="gelu",
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(0) if name.endswith(".bias") else parameter.add_(torch.randn_like(parameter) * 0.2)
    path = nanogpt(model, tmp_path / "ckpt.pt", bias=False)
    arguments = [str(path), "--characters", str(tmp_path / "input.txt"), "--out", str(tmp_path / "ours")]
    assert convert.main(arguments) == 0
    ours, tokenizer = gpt.load(tmp_path / "ours", "cpu")
    ids = some(len(known))
    with torch.no_grad():
        expected, found = model(ids).logits, ours(ids + 2)
        after_new = ours(torch.tensor([[0, 1, 5, 6]]))
    assert expected.std() > 0.5
    assert (found[..., 2:] - expected).abs().max() < 1e-4
    assert [tokenizer.decode([i + 2]) for i in range(len(known))] == known
    for each in (found, after_new):
        probability = each.softmax(-1)[..., :2].max().item()
        assert probability < (math.exp(-15) if width == 48 else 1 / len(known))
    assert ("by chance" in capsys.readouterr().err) == (width == 24)


def test_shortcuts_change_no_logit_and_learn(small, tokens, tmp_path, capsys):
    assert convert.main([str(small), "--out", str(tmp_path / "plain")]) == 0
    assert convert.main([str(small), "--shortcuts", "--out", str(tmp_path / "ours")]) == 0
    plain, model = gpt.load(tmp_path / "plain", "cpu")[0], gpt.load(tmp_path / "ours", "cpu")[0]
    assert torch.equal(logits(model, tokens), logits(plain, tokens))
    model.train().requires_grad_(True)
    F.cross_entropy(model(some(tokens)).flatten(0, 1), some(tokens).flatten()).backward()
    added = {name: p.grad for name, p in model.named_parameters() if p.ndim == 0}
    assert len(added) == 2 * (model.config.transformer.depth - 1) and all(added.values())
    assert convert.main([str(tmp_path / "ours"), "--to", "hf", "--out", str(tmp_path / "hf")]) == 2
    assert "shortcuts" in capsys.readouterr().err


def test_a_converted_model_writes_and_learns(small, tmp_path, capsys):
    assert convert.main([str(small), "--out", str(tmp_path / "ours"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["depth"] == 2
    arguments = ["To be", "--model", str(tmp_path / "ours"), "--max-tokens", "5", "--json", "--device", "cpu"]
    assert sample.main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["finish_reason"] in ("stop", "length")
    model, tokenizer = gpt.load(tmp_path / "ours", "cpu")
    batch = {"tokens": torch.tensor([tokenizer.encode(TEXT)[:CONTEXT]] * 2)}
    before = gpt.next_token_loss(model, batch, 0)[0].item()
    settings = TrainConfig(steps=20, optimizer="adamw", lr=3e-3, warmup=0.0, precision="fp32")
    fit(model.requires_grad_(True), gpt.next_token_loss, lambda index: batch, settings, tmp_path / "run", device="cpu")
    assert gpt.next_token_loss(model.eval(), batch, 0)[0].item() < 0.5 * before


def refused(arguments: list[str], capsys, out) -> str:
    """The one sentence that a command ends with, having written nothing."""
    capsys.readouterr()
    assert convert.main([*map(str, arguments), "--out", str(out)]) == 2
    printed, said = capsys.readouterr()
    assert printed == "" and not out.exists()
    (line,) = said.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("model_type", "gpt_neo", "'gpt_neo'; only 'gpt2'"),
        ("model_type", None, "only 'gpt2'"),
        ("n_inner", 100, "n_inner is 100; a multiple of n_embd"),
        ("n_inner", 48 * 40, "mlp_ratio 40"),
        ("n_embd", 0, "n_embd"),
        ("activation_function", "relu", "activation_function is 'relu'"),
        ("activation_function", ["gelu"], "activation_function is"),
        ("layer_norm_epsilon", 1e-6, "layer_norm_epsilon is 1e-06; only 1e-05"),
        ("scale_attn_by_inverse_layer_idx", True, "scale_attn_by_inverse_layer_idx is True"),
        ("scale_attn_weights", False, "scale_attn_weights is False"),
        ("add_cross_attention", True, "add_cross_attention is True"),
        ("tie_word_embeddings", False, "tie_word_embeddings is False"),
        ("quantization_config", {"bits": 4}, "quantization_config"),
        ("resid_pdrop", "much", "dropout is 'much'"),
        ("resid_pdrop", 1.5, "dropout 1.5"),
        ("vocab_size", "many", "vocab_size is 'many'; a whole number"),
        ("vocab_size", 10**12, "out of range"),
        ("n_positions", 1, "context 1 is out of range"),
        ("n_positions", 48, "wpe.weight is (24, 48), (48, 48) by the config"),
        ("n_head", 5, "not divisible by heads 5"),
        ("n_embd", 10**9, "width 1000000000"),
        ("n_layer", True, "n_layer is True"),
        ("n_layer", 3, "h.2.attn.c_attn.bias is missing"),
        ("n_layer", 1, "h.1.attn.c_attn.bias is (144,), not expected"),
    ],
)
def test_a_config_that_cannot_be_represented_gets_a_sentence(key, value, sentence, small, tmp_path, capsys):
    found = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**found, key: value}))
    assert sentence in refused([small], capsys, tmp_path / "ours")


def changed(small, change) -> None:
    """Writes the weights anew, as `change` leaves them."""
    state = load_file(small / "model.safetensors")
    change(state)
    save_file(state, small / "model.safetensors")


def in_pieces(small, name: str) -> None:
    (small / "model.safetensors").unlink()
    (small / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"wte.weight": name}}))


def as_pickle(small) -> None:
    (small / "model.safetensors").unlink()
    (small / "pytorch_model.bin").write_bytes(b"x")


DAMAGE = {
    "cut off": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
        "it may be cut off",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors; only safetensors are read"),
    "a pickle": (as_pickle, "only safetensors are read, not pytorch_model.bin"),
    "a missing piece": (lambda f: in_pieces(f, "model-00001-of-00002.safetensors"), "no model-00001-of-00002"),
    "a piece elsewhere": (lambda f: in_pieces(f, "../model.safetensors"), "in which files of the directory"),
    "another head": (lambda f: changed(f, lambda s: s.update({"lm_head.weight": s["transformer.wte.weight"] + 1})), "tied"),
    "a classifier": (lambda f: changed(f, lambda s: s.update({"score.weight": torch.ones(2, 48)})), "score.weight is (2, 48)"),
    "whole numbers": (
        lambda f: changed(f, lambda s: s.update({"transformer.ln_f.bias": torch.ones(48, dtype=torch.int8)})),
        "ln_f.bias holds int8",
    ),
    "a name twice": (lambda f: changed(f, lambda s: s.update({"ln_f.bias": torch.ones(48)})), "the same tensor twice"),
    "another model": (lambda f: save_file({"x": torch.ones(2)}, f / "model.safetensors"), "h.0.attn.c_attn.bias is missing"),
    "no config": (lambda f: (f / "config.json").unlink(), "neither a config.json"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "could not be read as JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "holds a list; an object is needed"),
    "a huge config": (lambda f: (f / "config.json").write_text(" " * 1_000_001), "at most 1,000,000"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer (tokenizer.json, or vocab.json"),
    "a broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "could not be read as a tokenizer"),
    "a foreign tokenizer": (
        lambda f: Tokenizer.characters(["abc"]).save(f / "tokenizer.json"),
        "has 5 tokens, the model 301: they do not belong together",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_directory_gets_a_sentence(damage, small, tmp_path, capsys):
    change, sentence = DAMAGE[damage]
    change(small)
    assert sentence in refused([small], capsys, tmp_path / "ours")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda known: known.pop(END), "no <|endoftext|>"),
        (lambda known: known.update({"zzz": 400}), "ids without gaps"),
        (lambda known: known.pop("Ġthe"), "could not be read as a tokenizer"),
    ],
)
def test_a_vocabulary_that_is_none_gets_a_sentence(change, sentence, small, vocabulary, tmp_path, capsys):
    (small / "tokenizer.json").unlink()
    shutil.copy(vocabulary / "merges.txt", small)
    known = json.loads((vocabulary / "vocab.json").read_text())
    change(known)
    (small / "vocab.json").write_text(json.dumps(known))
    assert sentence in refused([small], capsys, tmp_path / "ours")


class Malicious:
    """What a pickle of a stranger may hold: loading it by plain pickle writes the file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda folder: {"model": {}, "model_args": Malicious(folder / "executed")}, "nothing of it was executed"),
        (lambda folder: {"model": {}}, "no dictionaries model_args and model"),
        (lambda folder: [1, 2], "no dictionaries model_args and model"),
        (lambda folder: {"model": {"x": 1}, "model_args": {}}, "'x' in its model is no tensor"),
        (lambda folder: {"model": {}, "model_args": {"use_rmsnorm": True}}, "use_rmsnorm, which nanoGPT has not"),
        (lambda folder: {"model": {}, "model_args": {"n_layer": 2}}, "n_embd is None; a whole number"),
        (
            lambda folder: {"model": {"x": torch.zeros(1).expand(10**6, 10**6)}, "model_args": {}},
            "more numbers than a file of its size",
        ),
    ],
)
def test_a_pickle_that_is_no_checkpoint_of_nanogpt_gets_a_sentence(content, sentence, tmp_path, capsys):
    torch.save(content(tmp_path), tmp_path / "ckpt.pt")
    assert sentence in refused([tmp_path / "ckpt.pt"], capsys, tmp_path / "ours")
    assert not (tmp_path / "executed").exists()


def test_a_nanogpt_checkpoint_that_does_not_fit_gets_a_sentence(vocabulary, tokens, tmp_path, capsys):
    model = theirs("gpt2", tokens, activation_function="gelu")
    path = nanogpt(model, tmp_path / "ckpt.pt")
    out, given = tmp_path / "ours", ["--tokenizer", vocabulary]
    assert "give --tokenizer with GPT-2's, or for a character model" in refused([path], capsys, out)
    assert "no such file or directory" in refused([path, "--tokenizer", "no/such/place"], capsys, out)
    (tmp_path / "input.txt").write_text("abc")
    wrong = refused([path, "--characters", tmp_path / "input.txt"], capsys, out)
    assert f"3 different characters, the checkpoint {tokens}" in wrong
    (tmp_path / "input.txt").write_bytes(b"\xff\xfe\x00")
    assert "could not be read as text" in refused([path, "--characters", tmp_path / "input.txt"], capsys, out)
    nanogpt(model, path, n_embd=96)
    assert "(144,), (288,) by the config" in refused([path, *given], capsys, out)
    nanogpt(model, path, vocab_size=tokens + 1)
    assert "wte.weight is (301, 48), (302, 48) by the config" in refused([path, *given], capsys, out)
    path.write_bytes(path.read_bytes()[:-2000])
    assert "it is cut off" in refused([path, *given], capsys, out)
    path.write_text("no checkpoint")
    assert "it is cut off" in refused([path, *given], capsys, out)


def test_a_name_on_the_hub_is_taken_from_the_cache_and_offline_named_in_a_sentence(
    small, tokens, tmp_path, monkeypatch, capsys
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert convert.main(["some/model", "--out", str(tmp_path / "ours")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no such file or directory" in line and "hf download some/model --local-dir DIR" in line
    repository = tmp_path / "cache" / "models--some--model"
    shutil.copytree(small, repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    assert convert.main(["some/model", "--out", str(tmp_path / "ours")]) == 0
    assert gpt.load(tmp_path / "ours", "cpu")[0].config.vocabulary == tokens


def test_the_weights_of_a_model_that_cannot_be_converted_are_not_fetched(small, tmp_path, monkeypatch, capsys):
    import huggingface_hub

    found = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**found, "model_type": "llama"}))
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.extend(allow_patterns)
        return str(small)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert "'llama'; only 'gpt2'" in refused(["some/model"], capsys, tmp_path / "ours")
    assert "config.json" in asked and not [name for name in asked if "safetensors" in name]


def test_wrong_use_gets_a_sentence(small, models, tmp_path, capsys):
    out = tmp_path / "ours"
    assert "no such file or directory" in refused(["no/such/place"], capsys, out)
    assert "no such file or directory" in refused(["ckpt.pt"], capsys, out)
    assert "neither a config.json" in refused([tmp_path], capsys, out)
    assert "give the directory that holds it" in refused([small / "model.safetensors"], capsys, out)
    assert "--to hf takes a run directory" in refused([small, "--to", "hf"], capsys, out)
    assert "--characters is for a character model" in refused([small, "--characters", "x.txt"], capsys, out)
    assert "in our layout already" in refused([models / "gpt"], capsys, out)
    assert "blocks are not GPT-2's" in refused([models / "gpt", "--to", "hf"], capsys, out)
    assert "kind 'clip'" in refused([models / "clip", "--to", "hf"], capsys, out)
    assert "not for --to hf" in refused([models / "gpt", "--to", "hf", "--shortcuts"], capsys, out)
    assert "bundled" in refused(["no-such-model", "--to", "hf"], capsys, out)
    before = sorted(small.iterdir())
    assert convert.main([str(small), "--out", str(small)]) == 2
    assert "already holds something" in capsys.readouterr().err and sorted(small.iterdir()) == before


def test_names_map_one_to_one_and_cover_the_model():
    config = GPTConfig(50, 16, gpt2(16, 3, 2))
    state = gpt.GPT(config).state_dict()
    assert {name for name, _, _ in published.places(3)} == state.keys()
    assert {place for _, place, _ in published.places(3)} == published.shapes(config, in_out=True).keys()
    again = published.to_ours(
        {name.removeprefix("transformer."): t for name, t in published.to_transformers(state, 3).items()}, config, True
    )
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    settings = published.to_transformers_config(config, 0)
    assert published.from_transformers_config(settings) == config
    with pytest.raises(ValueError, match="not GPT-2's"):
        published.to_transformers_config(GPTConfig(50, 16, modern(16, 3, 2)), 0)
