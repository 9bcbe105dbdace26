"""scores.jsonl and scores.json: what is kept, what counts, what it comes to, and how far raters agree."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench import quality
from loadbench.errors import StoreError
from loadbench.quality import Score, checks
from loadbench.quality.answers import Between, Repeats, row_id
from loadbench.quality.scores import Agreement, agreement, agreements, latest, means, weighted_kappa
from loadbench.quality.summary import mean_over_prompts
from tests.support.answered import ANSWERS, CAPITAL, SUM, folder
from tests.support.documents import field_names, page
from tests.support.raters import answers, noisy, values


def score(model: str = "phi", prompt: str = "capital", text: str = "Lisbon.", **fields: Any) -> Score:
    row = row_id(prompt, model, text)
    told = {"method": "hand", "by": "anna", "at": "2026-11-25T00:00:00Z", "score": 4}
    return Score(row=row, prompt=prompt, model=model, **{**told, **fields})


def all_by(method: str, by: str, values: Sequence[int]) -> list[Score]:
    return [score(*one, method=method, by=by, score=value) for one, value in zip(ANSWERS, values, strict=True)]


def summary(tmp_path: Path, scores: Sequence[Score], answers: Any = ANSWERS, **more: Any) -> dict[str, Any]:
    """scores.json."""
    told: dict[str, Any] = msgspec.to_builtins(
        quality.summarise(quality.read(folder(tmp_path / "run", answers, **more)), scores)
    )
    return told


def of(told: dict[str, Any], model: str) -> dict[str, Any]:
    return next(one for one in told["models"] if one["model"] == model)


# -- the file


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    first = [score(), score(aspects={"Lisbon": 5}, note="süß", method="judge", by="j", repeat=2, cost=0.1)]
    quality.append(tmp_path, first[:1])
    quality.append(tmp_path, first[1:])

    assert quality.read_scores(tmp_path) == (first, 0)


def test_a_line_that_was_cut_off_is_counted_and_spoils_no_other(tmp_path: Path) -> None:
    quality.append(tmp_path, [score()])
    with (tmp_path / "scores.jsonl").open("ab") as file:
        file.write(b'{"row": "r1", "pro')
    quality.append(tmp_path, [score(by="ben")])

    assert quality.read_scores(tmp_path) == ([score(), score(by="ben")], 1)


@pytest.mark.parametrize("fields", [{"score": 6}, {"score": 0}, {"aspects": {"Lisbon": 7}}])
def test_a_score_that_somebody_wrote_out_of_range_does_not_count(tmp_path: Path, fields: dict[str, Any]) -> None:
    quality.append(tmp_path, [score(**fields)])

    assert quality.read_scores(tmp_path) == ([], 1)


def test_a_folder_without_scores_has_none_and_one_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    assert quality.read_scores(tmp_path) == ([], 0)
    with pytest.raises(StoreError, match="cannot write"):
        quality.append(tmp_path / "gone", [score()])


# -- what counts

USELESS = ((4, None), (None, "http_429: busy"), (None, "unreadable: -"))


def test_the_last_word_of_a_person_on_an_answer_counts() -> None:
    assert latest([score(score=1), score(by="ben", score=2), score(score=5)]) == [
        score(score=5),
        score(by="ben", score=2),
    ]


def test_a_useless_reply_does_not_undo_a_score_by_the_same_rubric() -> None:
    good, useless, later = (score(method="judge", rubric="x", score=value, unusable=why) for value, why in USELESS)

    assert latest([good, useless]) == [good]
    assert latest([useless, good]) == [good]
    assert latest([good, score(method="judge", rubric="y", score=None)]) != [good]
    assert latest([useless, later]) == [later]  # it says why


def test_repeats_of_a_judge_are_averaged_and_a_person_of_its_name_is_another() -> None:
    repeats = [score(method="judge", by="phi", repeat=n, score=value) for n, value in enumerate((3, 4, None), start=1)]

    assert sorted(means([*repeats, score(by="phi", score=1)]).values()) == [1, 3.5]


# -- what it comes to


def test_a_models_score_is_the_mean_over_prompts_of_the_mean_over_raters(tmp_path: Path) -> None:
    told = summary(tmp_path, [*all_by("hand", "anna", [5, 1, 3, 4]), score(by="ben", score=4)])

    assert of(told, "phi")["by_method"]["hand"]["by_prompt"] == {"capital": 4.5, "sum": 3.0}
    assert of(told, "phi")["score"]["mean"] == 3.75
    assert of(told, "phi")["score"]["n"] == 2
    assert of(told, "phi")["by_method"]["hand"]["by"] == ["anna", "ben"]
    assert of(told, "phi")["by_method"]["judge"] is None


def test_an_answer_that_was_given_often_weighs_as_often(tmp_path: Path) -> None:
    answers = [("phi", "capital", "Lisbon."), ("phi", "capital", "Lisbon."), ("phi", "capital", "Porto.")]

    told = summary(tmp_path, [score(score=5), score(text="Porto.", score=2)], answers)

    assert of(told, "phi")["score"]["mean"] == 4.0


def test_people_come_before_a_judge_if_they_scored_every_model(tmp_path: Path) -> None:
    judged = all_by("judge", "j", [3, 3, 3, 3])

    assert summary(tmp_path / "1", judged + all_by("hand", "anna", [5, 1, 5, 1]))["method"] == "hand"
    assert summary(tmp_path / "2", [*judged, score()])["method"] == "judge"
    assert summary(tmp_path / "3", [score()])["method"] is None
    assert summary(tmp_path / "4", [])["method_reason"] == "nobody has scored yet"


def test_without_one_method_for_all_no_model_has_a_score(tmp_path: Path) -> None:
    told = summary(tmp_path, [score()])

    assert [one["score"] for one in told["models"]] == [None, None]
    assert of(told, "phi")["by_method"]["hand"]["mean"] == 4


def test_a_prompt_that_only_another_model_answered_is_named(tmp_path: Path) -> None:
    told = summary(tmp_path, [], ANSWERS[:3])

    assert of(told, "qwen")["unanswered"] == ["sum"]
    assert of(told, "phi")["unanswered"] == []


def test_aspects_are_summed_up_by_prompt_and_method(tmp_path: Path) -> None:
    told = summary(
        tmp_path,
        [
            score(aspects={"Lisbon": 5}),
            score(by="ben", aspects={"Lisbon": 2}),
            score(by="j", method="judge", aspects={"Lisbon": 1}),
        ],
    )

    assert [(one["method"], one["mean"], one["n"]) for one in of(told, "phi")["by_aspect"]] == [
        ("hand", 3.5, 2),
        ("judge", 1.0, 1),
    ]


def test_the_pass_rate_is_a_mean_over_prompts_with_their_number_behind_it(tmp_path: Path) -> None:
    prompts = [
        {**CAPITAL, "checks": [{"contains": "Lisbon"}, {"max_words": 3}]},
        {**SUM, "checks": [{"number": 4}]},
        {"id": "free", "prompt": "Anything?"},
    ]
    answers = [*ANSWERS, *[ANSWERS[0]] * 2, ("phi", "capital", "Lisbon is what I would say."), ("phi", "free", "Yes.")]

    told = of(summary(tmp_path, [], answers, prompts=prompts), "phi")["checks"]

    assert told["by_prompt"] == {"capital": 0.75, "sum": 1.0}
    assert (told["pass_rate"], told["n"]) == (0.875, 2)
    assert told["by_kind"]["max_words"] == {"passed": 1, "n": 2}
    assert [one["why"] for one in told["failed"]] == ["has 6 words, at most 3 were asked for"]
    assert 0.2 < told["ci95"][0] < 0.875 < told["ci95"][1] <= 1


def test_without_checks_there_is_no_pass_rate(tmp_path: Path) -> None:
    assert of(summary(tmp_path, []), "phi")["checks"] is None


def test_a_judge_is_summed_up_with_its_spread_and_cost(tmp_path: Path) -> None:
    common = {"method": "judge", "by": "j", "tries": 1, "input_tokens": 100, "output_tokens": 10, "cost": 0.5}
    scores = [score(**common, score=value, repeat=n) for n, value in enumerate((3, 5), start=1)]
    scores += [score(*ANSWERS[2], **common, score=4, repeat=n) for n in (1, 2)]
    scores += [score(*ANSWERS[1], **common | {"score": None, "unusable": "unreadable: no text in it"})]

    [told] = summary(tmp_path, scores)["judges"]

    assert (told["rows"], told["usable"], told["unusable"]) == (2, 4, {"unreadable": 1})
    assert (told["repeated_rows"], told["same_share"]) == (2, 0.5)
    assert told["spread_sd"] == pytest.approx(1.0)  # (1² + 1² + 0 + 0) over 2 degrees of freedom
    assert (told["requests"], told["input_tokens"], told["output_tokens"], told["cost"]) == (5, 500, 50, 2.5)


def test_tokens_that_were_not_told_are_not_0(tmp_path: Path) -> None:
    scores = [score(method="judge", by="j", input_tokens=tokens) for tokens in (100, None)]

    assert summary(tmp_path, scores)["judges"][0]["input_tokens"] is None


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([score(), score(text="forgotten")], "1 scored answers are not among this run's answers any more"),
        ([score(), *all_by("hand", "anna", [1, 1, 1, 1])[:3]], "scored on different prompts"),
        ([score(), score(*ANSWERS[1], by="ben")], "not scored by the same"),
        ([score(method="judge", by="qwen")], "qwen judged answers of its own"),
        ([score(method="judge", by="j", suspect=True)], "1 answers seem to speak to whoever grades them"),
    ],
)
def test_doubts_are_told(tmp_path: Path, scores: list[Score], words: str) -> None:
    assert words in "\n".join(summary(tmp_path, scores)["warnings"])


def test_a_sound_sheet_leaves_no_doubt(tmp_path: Path) -> None:
    assert summary(tmp_path, all_by("hand", "anna", [5, 1, 4, 4]))["warnings"] == []


# -- the interval


def test_the_interval_is_students_over_prompts() -> None:
    half = 4.3027 * 0.5 / math.sqrt(3)

    assert mean_over_prompts([3, 3.5, 4]) == (3.5, pytest.approx((3.5 - half, 3.5 + half), abs=1e-4))
    assert mean_over_prompts([2, 3, 4])[1] == (1.0, 5.0)  # it ends where the scale does
    # Equal scores are not certain: 2.3646 * sqrt(1/12 / 8).
    assert mean_over_prompts([4.0] * 8) == (4, pytest.approx((3.7587, 4.2413), abs=1e-4))
    assert mean_over_prompts([4.0]) == (4.0, None)


@given(st.lists(st.floats(1, 5), min_size=2, max_size=30))
def test_the_interval_holds_the_mean_and_stays_on_the_scale(values: list[float]) -> None:
    mean, bounds = mean_over_prompts(values)

    assert bounds is not None
    assert 1 <= bounds[0] <= mean + 1e-9
    assert mean - 1e-9 <= bounds[1] <= 5


# -- how far two raters agree

SCORES = st.integers(1, 5)


def textbook(a: list[int], b: list[int]) -> float | None:
    """Cohen's kappa with quadratic weights from the 5 x 5 table."""
    table = np.zeros((5, 5))
    for x, y in zip(a, b, strict=True):
        table[x - 1, y - 1] += 1
    weights = np.array([[(i - j) ** 2 for j in range(5)] for i in range(5)])
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    return None if not (weights * expected).sum() else float(1 - (weights * table).sum() / (weights * expected).sum())


@given(st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=40))
def test_kappa_is_that_of_the_table(pairs: list[tuple[int, int]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    kappa = weighted_kappa(a, b)

    assert kappa == pytest.approx(textbook(a, b))
    assert kappa == pytest.approx(weighted_kappa(b, a))
    assert kappa is None or -1 - 1e-9 <= kappa <= 1 + 1e-9


def test_kappa_by_hand() -> None:
    # Mean square of the differences 1/3; of all pairs 10 + 35/3 - 2 * 8/3 * 3 = 17/3.
    assert weighted_kappa([1, 2, 5], [1, 3, 5]) == pytest.approx(16 / 17)


def test_raters_are_compared_on_what_both_scored_alone() -> None:
    rows = answers(4)
    rated = values("hand:anna", [1, 2, 3, 4]) | values("judge:j", [2, 3])

    found = agreement("hand:anna", "judge:j", rated, rows)

    assert (found.n, found.prompts, found.same, found.difference) == (2, 2, 0.0, 1.0)


def test_each_two_raters_that_share_an_answer_are_compared() -> None:
    rated = values("hand:a", [1, 2]) | values("hand:b", [1, 2]) | values("judge:j", [1, 2])

    pairs = [("hand:a", "hand:b"), ("hand:a", "judge:j"), ("hand:b", "judge:j")]
    assert [(one.a, one.b) for one in agreements(rated, answers(2))] == pairs
    assert agreements({("hand:a", "r0"): 1, ("hand:b", "r1"): 2}, answers(2)) == []


def test_the_interval_holds_the_estimate_and_is_the_same_each_time() -> None:
    a, b = noisy(40, 1)
    rated = values("hand:a", a) | values("hand:b", b)

    found, again = (agreement("hand:a", "hand:b", rated, answers(40)) for _ in range(2))

    assert found.ci95[0] < found.kappa < found.ci95[1]
    assert found == again


def test_answers_to_the_same_prompt_do_not_narrow_the_interval() -> None:
    a, b = noisy(20, 2)
    alone = agreement("a", "b", values("a", a) | values("b", b), answers(20))
    often = [score for score in a for _ in range(5)], [score for score in b for _ in range(5)]

    repeated = agreement("a", "b", values("a", often[0]) | values("b", often[1]), answers(100, each=5))

    assert repeated.ci95 == pytest.approx(alone.ci95)


def test_below_ten_prompts_there_is_no_interval() -> None:
    for prompts, there in ((9, False), (10, True)):
        a, b = noisy(prompts, 3)

        found = agreement("a", "b", values("a", a) | values("b", b), answers(prompts))

        assert (found.ci95 is not None) == there


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = weighted_kappa(*noisy(200_000, 0))
    hits = 0
    for seed in range(200):
        a, b = noisy(40, seed + 1)
        found = agreement("a", "b", values("a", a) | values("b", b), answers(40))
        hits += found.ci95[0] <= truth <= found.ci95[1]

    assert 0.88 <= hits / 200 <= 0.99


# -- docs/quality.md names every field, and what it shows works

TEXT, NAMED = page("quality.md")


def test_every_field_of_scores_json_is_named(tmp_path: Path) -> None:
    prompts = [{**CAPITAL, "checks": [{"contains": "Lisbon"}]}, SUM]
    run = quality.read(folder(tmp_path / "run", [*ANSWERS, ANSWERS[0]], prompts))
    scores = [
        Score(row_id(prompt, model, text), prompt, model, method, "x", "now", score=4, aspects={"Lisbon": 5})
        for model, prompt, text in ANSWERS
        for method in ("hand", "judge")
    ]

    found = msgspec.to_builtins(quality.summarise(run, scores, against=run))
    told = field_names(found, lambda owner, key: key in ("by_prompt", "by_kind", "unusable"))

    assert told > {"determinism", "kappa", "same_share", "pass_rate", "prompts_apart", "examples"}
    # Of a failed rule all is said by the rule itself.
    assert told - NAMED - {"check", "why"} == set()


@pytest.mark.parametrize("record", [Agreement, Between, Repeats, Score])
def test_every_field_of_a_record_is_named(record: type[msgspec.Struct]) -> None:
    assert set(record.__struct_fields__) - NAMED == set()


def test_every_kind_of_check_is_shown_and_understood() -> None:
    shown = [json.loads(code) for code in re.findall(r"`(\{\"\w+\": [^`]+\})`", TEXT) if "..." not in code]
    found = {
        checks.parse(quality.Question("q", "?", (), (one,)))[0].kind for one in shown if set(one) & set(checks.KINDS)
    }

    assert found == set(checks.KINDS) - {"json_schema"}
    assert '{"json_schema": {...}}' in TEXT


def test_every_option_of_a_check_and_keyword_of_a_schema_is_named() -> None:
    assert {option for options in checks.KINDS.values() for option in options} - NAMED == set()
    assert {*checks.KEYWORDS, *checks.PROSE} - NAMED == set()
