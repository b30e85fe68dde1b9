"""A language model for EleutherAI's lm-eval (the extra `harness`): lm-eval's requests in, its answers out.

    from lm_eval import simple_evaluate
    from gpt import harness, model
    found = simple_evaluate(harness.adapter(*model.load("runs/gpt")), tasks=["lambada_openai"], num_fewshot=0)

The three calls are those of `lm_eval.api.model.LM`. Contexts too long lose their oldest tokens; an empty one is the end
of the document before. Whole texts are judged by the windows of lm-eval, not by our own that overlap (gpt/scoring.py),
so that figures compare with those of others.
"""

import json
from typing import Any

from gpt.model import GPT
from gpt.scoring import continuations, encode_pair
from gpt.writing import write_batch
from multimodal import cli
from multimodal.cli import UserError
from multimodal.sampling import Sampling
from multimodal.tokenizer import Tokenizer

MAX_TOKENS = 256  # written where a task says nothing, as in lm-eval
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # lm-eval's names for it, in order
SCORED_AT_ONCE, WRITTEN_AT_ONCE = 512, 16  # requests between two steps of the progress bar


def adapter(model: GPT, tokenizer: Tokenizer):
    """An `lm_eval.api.model.LM` that asks the model. Raises UserError without lm-eval."""
    try:
        from lm_eval import utils
        from lm_eval.api.model import LM
    except ImportError:
        raise UserError("lm-eval is not installed: pip install 'multimodal-text-image[harness]'.") from None

    context, end = model.config.context, tokenizer.end

    class Adapter(LM):
        def loglikelihood(self, requests) -> list[tuple[float, bool]]:
            """Of each (context, continuation): its log-probability, and whether every token was the likeliest."""
            answers = []
            with cli.bar(total=len(requests), unit="text") as bar:
                for begin in range(0, len(requests), SCORED_AT_ONCE):
                    part = requests[begin : begin + SCORED_AT_ONCE]
                    rows = [encode_pair(tokenizer, *request.args) for request in part]
                    for request, found in zip(part, continuations(model, end, rows), strict=True):
                        answers.append((found.logprob, all(found.likeliest)))
                        self.cache_hook.add_partial("loglikelihood", request.args, answers[-1])
                    bar.update(len(part))
            return answers

        def loglikelihood_rolling(self, requests) -> list[float]:
            """Of each (text,): its log-probability, every token once, the first given the end of a document."""
            rows, owners = [], []
            for number, request in enumerate(requests):
                for pair in utils.get_rolling_token_windows(tokenizer.encode(request.args[0]), end, context, 1):
                    rows.append(utils.make_disjoint_window(pair))
                    owners.append(number)
            sums = [0.0] * len(requests)
            for owner, found in zip(owners, continuations(model, end, rows), strict=True):
                sums[owner] += found.logprob
            return sums

        def generate_until(self, requests) -> list[str]:
            """Of each (context, settings): what is written, up to a stop string, the end of a document or a length."""
            texts = [""] * len(requests)
            groups: dict[str, list[int]] = {}  # by equal settings, since these are written together
            for number, request in enumerate(requests):
                groups.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(number)
            with cli.bar(total=len(requests), unit="text") as bar:
                for members in groups.values():
                    count, sampling, stop = read_settings(requests[members[0]].args[1])
                    # lm-eval keeps room for all that may be written; half of the context is always read
                    room = max(context - count, context // 2)
                    members.sort(key=lambda number: len(requests[number].args[0]))
                    for begin in range(0, len(members), WRITTEN_AT_ONCE):
                        part = members[begin : begin + WRITTEN_AT_ONCE]
                        prompts = [tokenizer.encode(requests[number].args[0])[-room:] for number in part]
                        *_, rows = write_batch(model, tokenizer, prompts, count, sampling, part, stop)
                        for number, (row, _) in zip(part, rows, strict=True):
                            texts[number] = row.text
                            self.cache_hook.add_partial("generate_until", requests[number].args, row.text)
                        bar.update(len(part))
            return texts

    return Adapter()


def read_settings(settings: dict[str, Any]) -> tuple[int, Sampling, tuple[str, ...]]:
    """(most tokens, how each is chosen, stop strings) of a request; what is not known is said and left out."""
    settings = dict(settings)
    lengths = [settings.pop(name, None) for name in LENGTHS]
    count = next((int(length) for length in lengths if length is not None), MAX_TOKENS)
    stop = settings.pop("until", None) or ()
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    temperature = float(settings.pop("temperature", 0.0))
    if not settings.pop("do_sample", temperature > 0):
        temperature = 0.0
    sampling = Sampling(temperature, int(settings.pop("top_k", 0)), float(settings.pop("top_p", 1.0)))
    if settings:
        cli.say(f"generate_until: left out, since not known here: {', '.join(sorted(settings))}.")
    return count, sampling, tuple(text for text in stop if text)
