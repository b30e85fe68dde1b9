"""Choose among a speech recogniser's hypotheses anew, with a language model: n-best lists in, a text for each utterance out.

python -m gpt.rescore gpt/examples/nbest.tsv --dev gpt/examples/dev.tsv --references gpt/examples/references.tsv
python -m gpt.rescore lists.jsonl --lm-weight 0.6 --word-insertion 0.5 --case sentence > chosen.tsv

The score of a hypothesis is acoustic + lm_weight * log-probability (nats) + word_insertion * words, and an utterance's
highest is chosen. --dev tunes both weights to the fewest word errors on lists whose references are known; with neither
--dev nor weights they are those of Bayes' rule, 1 and 0.

Lists are read as tab-separated lines of utterance, acoustic score and text, or as JSON lines: {"utterance", "score",
"text"}, or {"utterance", "nbest": [{"score", "text"}, ...]}. References are lines of an utterance, a tab or a space, and
its text, or JSON lines {"utterance", "text"}. Scores are log-probabilities, larger is better; --costs turns them round.

The chosen texts go to stdout, a tab after the name of each utterance; what they say of word errors to stderr.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gpt.nbest import read_lists, read_references
from multimodal import cli
from multimodal.cli import Common, UserError

PROG = "gpt.rescore"
SHOWN = 20  # problems of a file that are spelt out
FEW = 100  # utterances: on fewer of the kind of gpt/examples, tuned weights did worse than Bayes' rule on others


@dataclass(frozen=True, kw_only=True)
class Rescore(Common):
    """Chooses the best hypothesis of every utterance by recogniser and language model together."""

    nbest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="NBEST")]
    """The lists to choose from."""
    dev: Path | None = None
    """Lists to tune the weights on: utterances other than those to choose for."""
    references: Path | None = None
    """What was said in the utterances of both: word error rates are told."""
    dev_references: Path | None = None
    """What was said in those of --dev, where that is another file."""
    lm_weight: float | None = None
    """Weight of the language model's log-probability, 0 or more."""
    word_insertion: float | None = None
    """Added for every word: below 0 a penalty, above 0 a reward."""
    costs: bool = False
    """The scores of the lists are costs: smaller is better."""
    context: str = ""
    """Text that comes before every hypothesis (default: a document begins)."""
    end: Literal["nothing", "line", "document"] = "nothing"
    """What must follow a hypothesis, and counts with it: nothing, the end of the line, or of the document."""
    case: Literal["keep", "lower", "sentence"] = "keep"
    """How the model reads a hypothesis: as it is, in lower case, or so with a capital at the beginning."""
    fold: bool = False
    """Words that differ only in capitals or in punctuation around them are no error."""
    model: str | None = None
    """A run directory, or the name of a bundled model (default: the bundled one)."""
    json: bool = False
    """An object a line: utterance, text, score, acoustic, lm_logprob, words, rank (its place by acoustic score) and, with
    references, errors; at last one with the weights and the word error rates."""


def check(settings: Rescore) -> None:
    """Raises UserError for settings that contradict each other."""
    given = [
        f"--{name}"
        for name, value in (("lm-weight", settings.lm_weight), ("word-insertion", settings.word_insertion))
        if value is not None
    ]
    if settings.dev and given:
        raise UserError(f"--dev tunes the weights and {' and '.join(given)} gives them; leave one of both out.")
    if settings.dev and not (settings.references or settings.dev_references):
        raise UserError("--dev needs what was said in its utterances: give --references, or --dev-references.")
    if settings.dev_references and not settings.dev:
        raise UserError("--dev-references is of the lists of --dev, which is missing.")
    if settings.lm_weight is not None and not (0 <= settings.lm_weight < math.inf):
        raise UserError(f"--lm-weight {settings.lm_weight} is out of range: 0 or more.")
    if settings.word_insertion is not None and not math.isfinite(settings.word_insertion):
        raise UserError(f"--word-insertion {settings.word_insertion} is out of range: it is a finite number.")


def read(settings: Rescore):
    """(lists, development lists, references of the first, references of the second, whether all could be used)."""
    used = True

    def told(how, path: Path | None, *options) -> dict:
        nonlocal used
        if path is None:
            return {}
        found, problems = how(path, *options)
        used = used and not problems
        for problem in problems[:SHOWN]:
            cli.say(f"not used: {problem}")
        if len(problems) > SHOWN:
            cli.say(f"not used: {len(problems) - SHOWN:,} more of {path}.")
        return found

    lists, dev = (told(read_lists, path, settings.costs) for path in (settings.nbest, settings.dev))
    references, dev_references = (
        told(read_references, path) for path in (settings.references, settings.dev_references)
    )
    return lists, dev, references, dev_references or references, used


def weigh(settings: Rescore, dev, logprobs, errors):
    """(the weights of the settings, or those with the fewest errors on dev, what there is to say of the latter)."""
    from gpt.rescoring import ACOUSTIC, Weights, choose, total, tune

    if not dev:
        given = {"lm_weight": settings.lm_weight, "word_insertion": settings.word_insertion}
        weights = Weights(**{name: value for name, value in given.items() if value is not None})
        cli.say(f"--lm-weight {weights.lm_weight:.6g} --word-insertion {weights.word_insertion:.6g}; --dev tunes them.")
        return weights, {}
    weights = tune(dev, logprobs, errors)
    before, after = (total(errors, choose(dev, logprobs, some)) for some in (ACOUSTIC, weights))
    cli.say(
        f"tuned on {len(errors):,} utterances of {settings.dev}, whose word error rate goes from {100 * before.rate:.1f} % "
        f"to {100 * after.rate:.1f} %:\n--lm-weight {weights.lm_weight:.6g} --word-insertion {weights.word_insertion:.6g}"
    )
    if len(errors) < FEW:
        cli.say(
            "on so few the weights are a matter of chance, and the rate after looks better than it is: use some hundreds."
        )
    return weights, {"dev": {"utterances": len(errors), **rates({"before": before, "after": after})}}


def show(settings: Rescore, lists, logprobs, weights, chosen, errors) -> None:
    """The chosen hypotheses, to stdout."""
    for utterance, hypotheses in lists.items():
        hypothesis = hypotheses[chosen[utterance]]
        if not settings.json:
            print(f"{utterance}\t{hypothesis.text}")
            continue
        record = {
            "utterance": utterance,
            "text": hypothesis.text,
            "score": round(weights.score(hypothesis, logprobs[hypothesis.text]), 6),
            "acoustic": hypothesis.acoustic,
            "lm_logprob": round(logprobs[hypothesis.text], 6),
            "words": len(hypothesis.text.split()),
            "rank": 1 + sum(other.acoustic > hypothesis.acoustic for other in hypotheses),
        }
        if utterance in errors:
            record["errors"] = errors[utterance][chosen[utterance]].errors
        cli.emit(record)
    sys.stdout.flush()


def rescore(settings: Rescore) -> int:
    check(settings)
    from multimodal.checkpoint import find

    directory = find(settings.model, "gpt")
    lists, dev, references, dev_references, used = read(settings)

    from gpt.model import load
    from gpt.rescoring import ACOUSTIC, choose, errors_of, language_scores, total

    dev_errors, errors = errors_of(dev, dev_references, settings.fold), errors_of(lists, references, settings.fold)
    if dev and not dev_errors:
        raise UserError(
            f"no utterance of --dev {settings.dev} has a reference: it has {next(iter(dev))!r} and the like, the "
            f"references have {next(iter(dev_references))!r}."
        )
    if both := len(dev_errors.keys() & lists.keys()):
        cli.say(f"{both:,} utterances are in both lists: on them the tuned weights look better than they are.")
    texts = {hypothesis.text for some in (lists, dev) for hypotheses in some.values() for hypothesis in hypotheses}
    if settings.case == "keep" and any(text != text.lower() for text in texts) and all(t == t.upper() for t in texts):
        cli.say("all hypotheses are in capitals, as few models have read much of: try --case sentence.")

    model, tokenizer = load(directory, settings.device)
    with cli.bar(total=len(texts), unit="text", desc="scoring") as shown:
        logprobs = language_scores(model, tokenizer, texts, settings.context, settings.end, settings.case, shown.update)
    weights, summary = weigh(settings, dev, logprobs, dev_errors)
    before, after = choose(lists, logprobs, ACOUSTIC), choose(lists, logprobs, weights)
    show(settings, lists, logprobs, weights, after, errors)
    changed = sum(lists[u][before[u]].text != lists[u][after[u]].text for u in lists)
    cli.say(f"{changed:,} of {len(lists):,} utterances have another text than the recogniser's best.")
    summary |= {"lm_weight": weights.lm_weight, "word_insertion": weights.word_insertion}
    summary |= {"utterances": len(lists), "changed": changed}
    if errors:
        oracle = {u: min(range(len(each)), key=lambda i, each=each: each[i].errors) for u, each in errors.items()}
        choices = {"before": before, "after": after, "oracle": oracle}
        found = {name: total(errors, chosen) for name, chosen in choices.items()}
        summary |= rates(found)
        table(found)
        folded = errors_of({u: [lists[u][before[u]]] for u in errors}, references, fold=True)
        written = found["before"].errors - total(folded, dict.fromkeys(folded, 0)).errors
        if not settings.fold and written > 0.3 * found["before"].errors:
            cli.say(
                f"{written:,} of the errors of the recogniser's best are capitals or punctuation: --fold forgives them."
            )
    if references and len(errors) < len(lists):
        cli.say(f"{len(lists) - len(errors):,} of {len(lists):,} utterances have no reference and are not counted.")
    if silent := [u for u in references if u not in lists and u not in dev]:
        cli.say(f"{len(silent):,} references are of no utterance in the lists and are not counted: {silent[0]}.")
    if settings.json:
        cli.emit(summary)
    return int(not used)


def rates(found: Mapping) -> dict:
    """For programs: words, and word error rate and kinds of errors under each name."""
    return {"words": found["before"].words} | {
        name: {
            "word_error_rate": round(errors.rate, 6),
            "substitutions": errors.substitutions,
            "insertions": errors.insertions,
            "deletions": errors.deletions,
        }
        for name, errors in found.items()
    }


def table(found: Mapping) -> None:
    """For people: the same."""
    names = {"before": "the recogniser's best", "after": "rescored", "oracle": "best there is in the lists"}
    cli.say(f"{found['before'].words:,} words{'':19} error rate  substitutions  insertions  deletions")
    for name, errors in found.items():
        cli.say(
            f"{names[name]:26} {100 * errors.rate:11.1f} % {errors.substitutions:14,} {errors.insertions:11,} "
            f"{errors.deletions:10,}"
        )


def main(argv: list[str] | None = None) -> int:
    return cli.run(rescore, cli.parse(Rescore, PROG, __doc__, argv), PROG)


if __name__ == "__main__":
    sys.exit(main())
