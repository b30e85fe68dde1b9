"""Claims about the adapter for lm-eval, by lm-eval itself: on requests, on a task of our own, and beside its own model."""

import builtins

import pytest
import torch

from gpt import convert, harness, prompting
from gpt import model as gpt
from gpt.presets import GPTConfig
from gpt.prompting import Item, Task
from multimodal.cli import UserError
from multimodal.config import gpt2, modern
from multimodal.tokenizer import Tokenizer

CONTEXT = 48
TOKENIZER = Tokenizer.bpe(["the sea and the bread, the cheese of the sea otter. mer pain fromage " * 9], 290)
TEXT = "the sea otter and the bread of the sea. "
FAMILIES = {"gpt2": gpt2(32, 2, 2), "modern": modern(32, 2, 2)}


def make(family: str) -> gpt.GPT:
    """Random weights large enough that every token matters."""
    torch.manual_seed(3)
    model = gpt.GPT(GPTConfig(TOKENIZER.vocab_size, CONTEXT, FAMILIES[family]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request) -> gpt.GPT:
    return make(request.param)


@pytest.fixture
def adapter(model):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (the extra harness)")
    return harness.adapter(model, TOKENIZER)


def ask(call, *arguments):
    """The answers to requests with these arguments, as lm-eval sends them."""
    from lm_eval.api.instance import Instance

    return call([Instance(call.__name__, {}, given, number) for number, given in enumerate(arguments)])


def brute(model: gpt.GPT, context: list[int], after: list[int]) -> tuple[float, bool]:
    """(log-probability, whether every token was the likeliest) by a pass for each token."""
    total, likeliest = 0.0, True
    for i, token in enumerate(after):
        seen = [*context, *after[:i]][-CONTEXT:]
        logprobs = model(torch.tensor([seen]))[0, -1].log_softmax(-1)
        total, likeliest = total + logprobs[token].item(), likeliest and logprobs.argmax().item() == token
    return total, likeliest


def greedy(model: gpt.GPT, prompt: str, count: int) -> str:
    seen = TOKENIZER.encode(prompt)
    for _ in range(count):
        seen.append(model(torch.tensor([seen]))[0, -1].argmax().item())
    return TOKENIZER.decode(seen[-count:])


def test_loglikelihood_is_that_of_the_continuation_alone_in_the_order_of_the_requests(adapter, model):
    pairs = [("the sea", " otter"), ("the sea ", "otter"), ("", "the bread"), ("the sea", " and the bread"), ("a", "b")]
    for (context, after), (logprob, likeliest) in zip(pairs, ask(adapter.loglikelihood, *pairs), strict=True):
        before, whole = TOKENIZER.encode(context.rstrip()), TOKENIZER.encode(context + after)
        expected = brute(model, before or [TOKENIZER.end], whole[len(before) :])
        assert (logprob, likeliest) == (pytest.approx(expected[0], abs=1e-4), expected[1])
        assert isinstance(likeliest, bool)
    likely = greedy(model, "the sea", 1)
    assert TOKENIZER.encode(f"the sea{likely}")[:-1] == TOKENIZER.encode("the sea")
    found = ask(adapter.loglikelihood, ("the sea", likely), ("the sea", f"{likely}Q"))
    assert [likeliest for _, likeliest in found] == [True, False]  # every token must be


def test_a_continuation_that_joins_the_contexts_last_token_is_judged_with_that_token(adapter, model):
    before, whole = TOKENIZER.encode("sea and th"), TOKENIZER.encode("sea and the")
    assert len(whole) < len(before)  # nothing would be left after the context's tokens
    shared = next(i for i in range(len(whole)) if whole[i] != before[i])
    ((logprob, _),) = ask(adapter.loglikelihood, ("sea and th", "e"))
    assert logprob == pytest.approx(brute(model, whole[:shared], whole[shared:])[0], abs=1e-4) and logprob < -0.1


def test_a_context_too_long_loses_its_oldest_tokens(adapter):
    long, after = TEXT * 9, " otter"
    kept = TOKENIZER.decode(TOKENIZER.encode(long.rstrip())[-(CONTEXT + 1 - len(TOKENIZER.encode(after))) :])
    first, second = ask(adapter.loglikelihood, (long.rstrip(), after), (kept, after))
    assert first[0] == pytest.approx(second[0], abs=1e-4)


def test_a_whole_text_is_judged_token_by_token_once(adapter, model):
    short, long = TEXT[:20], TEXT * 11
    ids = TOKENIZER.encode(long)
    assert len(ids) > 2 * CONTEXT and len(ids) % CONTEXT
    found = ask(adapter.loglikelihood_rolling, (short,), (long,), ("",))
    assert found[0] == pytest.approx(brute(model, [TOKENIZER.end], TOKENIZER.encode(short))[0], abs=1e-3)
    expected, begin = 0.0, 0
    while begin < len(ids):  # windows that do not overlap; the last is moved back to be whole
        end = min(begin + CONTEXT, len(ids))
        seen = [TOKENIZER.end, *ids][max(0, end - CONTEXT) : end]
        logprobs = model(torch.tensor([seen]))[0].log_softmax(-1)
        expected += sum(logprobs[i - end, ids[i]].item() for i in range(begin, end))
        begin = end
    assert found[1] == pytest.approx(expected, abs=1e-3) and found[2] == 0.0


def test_writing_ends_at_a_stop_string_or_a_length_and_is_greedy(adapter, model):
    whole = greedy(model, "the sea", 12)
    stop = whole[len(whole) // 2 :][:3]
    settings = [
        {"until": [], "max_gen_toks": 12},
        {"until": stop, "max_gen_toks": 12, "do_sample": False, "temperature": 0.7},
        {"until": ["\0", stop], "max_new_tokens": 12},
        {"max_gen_toks": 5},
    ]
    found = ask(adapter.generate_until, *(("the sea", each) for each in settings))
    assert found == [whole, whole[: whole.index(stop)], whole[: whole.index(stop)], greedy(model, "the sea", 5)]


def test_sampling_is_different_for_each_request_and_the_same_every_time(adapter):
    arguments = [("the sea", {"max_gen_toks": 12, "temperature": 1.0, "do_sample": True})] * 3
    found = ask(adapter.generate_until, *arguments)
    assert len(set(found)) == 3 and ask(adapter.generate_until, *arguments) == found


def test_what_a_request_asks_and_we_have_not_is_said(adapter, capsys):
    ask(adapter.generate_until, ("the sea", {"max_gen_toks": 2, "num_beams": 4}))
    assert "left out, since not known here: num_beams" in capsys.readouterr().err


def test_a_long_context_leaves_room_for_what_is_written(adapter):
    long = TEXT * 9
    kept = TOKENIZER.decode(TOKENIZER.encode(long)[-(CONTEXT - 6) :])
    first, second = ask(adapter.generate_until, (long, {"max_gen_toks": 6}), (kept, {"max_gen_toks": 6}))
    assert first == second


def our_task() -> Task:
    words = [("sea", "mer"), ("bread", "pain"), ("cheese", "fromage"), ("otter", "loutre"), ("a sea", "une mer")]
    options = tuple(foreign for _, foreign in words)
    return Task(
        "ours", tuple(Item(*pair) for pair in words), tuple(Item(*pair, options) for pair in words), "To French:"
    )


def lm_eval_results(adapter, task: Task, prompts) -> dict:
    """lm-eval's figures for the same prompts as a task of its own kind, made from what is in memory."""
    import datasets
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    docs = [
        {"prompt": p.text, "options": list(p.query.options), "answer": p.query.options.index(p.query.output)}
        for p in prompts
    ]
    config = {
        "task": task.name, "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(docs)}, "test_split": "test",
        "output_type": "multiple_choice", "doc_to_text": "{{prompt}}", "doc_to_choice": "{{options}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    }  # fmt: skip
    return simple_evaluate(adapter, tasks=[config], bootstrap_iters=0, task_manager=TaskManager(include_defaults=False))


def test_lm_eval_gives_a_task_of_our_own_the_figures_that_we_give_it(adapter, model):
    task = our_task()
    for shots in (0, 2):
        prompts = [prompting.prompt(TOKENIZER, CONTEXT, task, query, shots, 0, 0) for query in task.queries]
        theirs = lm_eval_results(adapter, task, prompts)
        for metric, normalise in (("acc", "none"), ("acc_norm", "character")):
            ours = list(prompting.answers(model, TOKENIZER, task, prompts, "likelihood", normalise))
            assert theirs["results"]["ours"][f"{metric},none"] == sum(a.right for a in ours) / len(ours)
            if normalise == "none":
                sent = sorted(theirs["samples"]["ours"], key=lambda sample: sample["doc_id"])
                scores = [[response[0] for response in sample["filtered_resps"]] for sample in sent]
                assert [list(a.scores) for a in ours] == [pytest.approx(row, abs=1e-4) for row in scores]


def test_lm_evals_own_model_with_the_same_weights_answers_the_same(tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (the extra harness)")
    for needed in ("transformers", "accelerate"):
        pytest.importorskip(needed, reason=f"lm-eval's own model needs {needed}, which is not installed")
    from lm_eval.models.huggingface import HFLM

    model = make("gpt2")
    gpt.save(model, TOKENIZER, tmp_path / "ours")
    assert convert.main([str(tmp_path / "ours"), "--to", "hf", "--out", str(tmp_path / "theirs")]) == 0
    theirs = HFLM(pretrained=str(tmp_path / "theirs"), device="cpu", dtype="float32", batch_size=4)
    ours = harness.adapter(model, TOKENIZER)
    pairs = [("the sea", " otter"), ("the sea ", "otter"), ("", "the bread"), (TEXT * 9, " cheese"), ("a", " b c")]
    for mine, yours in zip(ask(ours.loglikelihood, *pairs), ask(theirs.loglikelihood, *pairs), strict=True):
        assert mine == (pytest.approx(yours[0], abs=1e-3), yours[1])
    texts = [(TEXT[:20],), (TEXT * 11,), (TEXT * 20,)]
    expected = ask(theirs.loglikelihood_rolling, *texts)
    assert ask(ours.loglikelihood_rolling, *texts) == [pytest.approx(value, abs=1e-2) for value in expected]
    written = [
        (TEXT, {"until": [], "max_gen_toks": 9}),
        ("the", {"until": ["s"], "max_gen_toks": 9}),
        (TEXT * 9, {"max_gen_toks": 9}),
    ]
    assert ask(ours.generate_until, *written) == ask(theirs.generate_until, *written)


def test_without_lm_eval_a_sentence_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("lm_eval"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'multimodal-text-image\[harness\]'"):
        harness.adapter(make("modern"), TOKENIZER)
