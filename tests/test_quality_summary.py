"""scores.jsonl and scores.json: what is kept, what counts, and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench import quality
from loadbench.errors import StoreError
from loadbench.quality import Score
from loadbench.quality.answers import row_id
from loadbench.quality.scores import latest, means
from loadbench.quality.summary import mean_over_prompts
from tests.support.answered import ANSWERS, CAPITAL, SUM, folder


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


def test_a_folder_without_scores_has_none(tmp_path: Path) -> None:
    assert quality.read_scores(tmp_path) == ([], 0)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        quality.append(tmp_path / "gone", [score()])


# -- what counts


def test_the_last_word_of_a_person_on_an_answer_counts() -> None:
    assert latest([score(score=1), score(by="ben", score=2), score(score=5)]) == [
        score(score=5),
        score(by="ben", score=2),
    ]


def test_a_useless_reply_does_not_undo_a_score_by_the_same_rubric() -> None:
    good, useless = (score(method="judge", rubric="x", score=value) for value in (4, None))

    assert latest([good, useless]) == [good]
    assert latest([useless, good]) == [good]
    assert latest([good, score(method="judge", rubric="y", score=None)]) != [good]


def test_of_two_useless_replies_the_later_one_says_why() -> None:
    first, second = (score(method="judge", score=None, unusable=why) for why in ("http_429: busy", "unreadable: -"))

    assert latest([first, second]) == [second]


def test_a_person_and_a_judge_of_the_same_name_are_two() -> None:
    rated = means([score(by="phi", score=1), score(by="phi", method="judge", score=5)])

    assert sorted(rated.values()) == [1, 5]
    assert len(rated) == 2


def test_repeats_of_a_judge_are_averaged() -> None:
    repeats = [score(method="judge", by="j", repeat=n, score=value) for n, value in enumerate((3, 4, None), start=1)]

    assert list(means(repeats).values()) == [3.5]


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
    mean, bounds = mean_over_prompts([3, 3.5, 4])

    half = 4.3027 * 0.5 / math.sqrt(3)
    assert mean == 3.5
    assert bounds == pytest.approx((3.5 - half, 3.5 + half), abs=1e-4)


def test_the_interval_ends_where_the_scale_does() -> None:
    assert mean_over_prompts([2, 3, 4])[1] == (1.0, 5.0)


def test_equal_scores_are_not_certain() -> None:
    mean, bounds = mean_over_prompts([4.0] * 8)

    assert mean == 4
    assert bounds == pytest.approx((3.7587, 4.2413), abs=1e-4)  # 2.3646 * sqrt(1/12 / 8)


def test_a_single_prompt_has_no_interval() -> None:
    assert mean_over_prompts([4.0]) == (4.0, None)


@given(st.lists(st.floats(1, 5), min_size=2, max_size=30))
def test_the_interval_holds_the_mean_and_stays_on_the_scale(values: list[float]) -> None:
    mean, bounds = mean_over_prompts(values)

    assert bounds is not None
    assert 1 <= bounds[0] <= mean + 1e-9
    assert mean - 1e-9 <= bounds[1] <= 5
