"""One image and one batch: whatever goes wrong becomes a reason, never a decision."""

import hashlib
import os
import time
from functools import partial

import numpy as np
import pytest

from histcxr.data.discovery import InputFile
from histcxr.exceptions import Reason
from histcxr.features.measuring import count_lungs
from histcxr.features.recipe import Recipe
from histcxr.store import Model
from histcxr.worklist import judging
from histcxr.worklist.judging import Measured, describe, judge, measure_images, signature

COUNTS = np.ones((1, 256), np.int64)


def count(zones=1):
    """What a histogram model with so many zones reads from an image."""
    return partial(count_lungs, recipe=Recipe(zones))


def count_image(item):
    return measure_images([item], count())[0]


class Scripted:
    """A classifier that gives the scores it was told, or raises them."""

    def __init__(self, scores):
        self.scores = scores

    def predict_proba(self, counts):
        wanted = [self.scores[int(one[0, 0])] for one in counts]
        for score in wanted:
            if isinstance(score, Exception):
                raise score
        return np.array([[1 - score, score] for score in wanted])


def scripted(model, scores):
    """The model with other scores; image i is the one whose first bin counts i."""
    fake = Model("scripted", Scripted(scores), model.recipe, model.rule_out, model.rule_in)
    batch = [Measured(np.concatenate([[[i]], COUNTS[:, 1:]], axis=1)) for i in range(len(scores))]
    return fake, batch


def test_decisions_follow_the_thresholds(model):
    low, high = model.rule_out.threshold, model.rule_in.threshold
    scores = [0.0, np.nextafter(low, 0), low, (low + high) / 2, high, np.nextafter(high, 1), 1.0]
    verdicts = judge(*scripted(model, scores))
    assert [one.decision for one in verdicts] == ["rule_out"] * 2 + ["review"] * 3 + ["rule_in"] * 2
    assert [one.score for one in verdicts] == scores
    assert {one.reason for one in verdicts} == {None}


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf"), -0.001, 1.0001, -5.0])
def test_scores_that_are_none_go_to_review(model, score):
    verdicts = judge(*scripted(model, [0.0, score, 1.0]))
    assert [one.decision for one in verdicts] == ["rule_out", "review", "rule_in"]
    assert verdicts[1].score is None
    assert verdicts[1].reason is Reason.SCORE_INVALID
    assert repr(score) in verdicts[1].detail


@pytest.mark.parametrize("error", [ValueError("bad"), MemoryError(), KeyError("x"), RuntimeError("xgboost")])
def test_a_batch_that_fails_is_scored_one_by_one(model, error):
    verdicts = judge(*scripted(model, [0.0, error, 1.0]))
    assert [one.decision for one in verdicts] == ["rule_out", "review", "rule_in"]
    assert verdicts[1].reason is Reason.UNEXPECTED
    assert verdicts[1].detail.startswith(type(error).__name__)


def test_a_wrong_number_of_scores_is_no_score(model):
    class Short:
        def predict_proba(self, counts):
            return np.zeros((1, 2)) if len(counts) == 1 else np.zeros((len(counts) - 1, 2))

    fake = Model("short", Short(), model.recipe, model.rule_out, model.rule_in)
    assert [one.score for one in judge(fake, [Measured(COUNTS)] * 3)] == [0.0] * 3


def test_a_stop_is_not_swallowed(model):
    class Stopped:
        def predict_proba(self, counts):
            raise KeyboardInterrupt

    fake = Model("stopped", Stopped(), model.recipe, model.rule_out, model.rule_in)
    with pytest.raises(KeyboardInterrupt):
        judge(fake, [Measured(COUNTS)])


def test_batches_without_a_usable_image(model):
    lost = Measured(None, Reason.DAMAGED, "a detail")
    verdicts = judge(model, [lost, lost])
    assert [(one.decision, one.score, one.reason, one.detail) for one in verdicts] == [
        ("review", None, Reason.DAMAGED, "a detail")
    ] * 2
    assert judge(model, []) == []


def test_a_good_image_is_counted_and_hashed(study):
    image, mask = study / "a/image 00.png", study / "masks/a/image 00.png"
    found = count_image(InputFile(str(image), "a/image 00.png", str(mask)))
    assert found.reason is None
    assert found.values.shape == (1, 256)
    assert found.sha256 == hashlib.sha256(image.read_bytes()).hexdigest()
    assert found.mask_sha256 == hashlib.sha256(mask.read_bytes()).hexdigest()


def test_failures_keep_the_hash_of_what_was_read(study, tmp_path):
    image = study / "a/image 00.png"
    missing = count_image(InputFile(str(image), "x", ""))
    assert missing.reason is Reason.MASK_MISSING
    assert missing.sha256 == hashlib.sha256(image.read_bytes()).hexdigest()
    broken = tmp_path / "broken.png"
    broken.write_bytes(image.read_bytes()[:-50])
    found = count_image(InputFile(str(broken), "x", str(study / "masks/a/image 00.png")))
    assert found.reason is Reason.TRUNCATED
    assert found.sha256 == hashlib.sha256(broken.read_bytes()).hexdigest()
    gone = count_image(InputFile(str(tmp_path / "gone.png"), "x", ""))
    assert (gone.reason, gone.sha256) == (Reason.NOT_FOUND, "")


def test_a_known_problem_is_not_opened():
    found = count_image(InputFile("/nowhere", "x", "", Reason.LINK_LOOP, "leads to /"))
    assert (found.reason, found.detail) == (Reason.LINK_LOOP, "leads to /")


def test_an_unexpected_error_stays_with_its_image(study, monkeypatch):
    """Where the batch fails, each image is counted alone; only the one at fault is lost."""
    real = judging.measure_image

    def bug(*_, **__):
        raise ZeroDivisionError("in the batch")

    def bug_in_one(image, mask, measure, *, path, **options):
        if path.endswith("image 02.png"):
            raise ZeroDivisionError("in the decoder")
        return real(image, mask, measure, path=path, **options)

    names = ["a/image 00.png", "a/image 02.png", "a/image 04.png"]
    items = [InputFile(str(study / name), name, str(study / "masks" / name)) for name in names]
    expected = measure_images(items, count())
    monkeypatch.setattr(judging, "measure_batch", bug)
    monkeypatch.setattr(judging, "measure_image", bug_in_one)
    found = measure_images(items, count())
    assert (found[1].reason, found[1].detail) == (Reason.UNEXPECTED, "ZeroDivisionError: in the decoder")
    assert found[1].values is None
    assert found[1].sha256 == expected[1].sha256 != ""
    for i in (0, 2):
        assert np.array_equal(found[i].values, expected[i].values)

    monkeypatch.setattr(judging, "read_file", bug)
    lost = measure_images(items, count())
    assert [one.detail for one in lost] == ["ZeroDivisionError: in the batch"] * 3


def test_large_files_are_counted_in_smaller_groups(study, monkeypatch):
    names = [f"{'ab'[i % 2]}/image {i:02}.png" for i in range(9)]
    items = [InputFile(str(study / name), name, str(study / "masks" / name)) for name in names]
    items.insert(4, InputFile("/nowhere", "x", "", Reason.LINK_LOOP))
    expected = measure_images(items, count(6))
    sizes, real = [], judging.measure_batch

    def counted(images, *arguments, **options):
        sizes.append(len(images))
        return real(images, *arguments, **options)

    monkeypatch.setattr(judging, "measure_batch", counted)
    monkeypatch.setattr(judging, "MAX_HELD", 9000)
    found = measure_images(items, count(6))
    assert sum(sizes) == 9
    assert max(sizes) <= 3
    for one, other in zip(found, expected, strict=True):
        assert (one.reason, one.sha256) == (other.reason, other.sha256)
        assert np.array_equal(one.values, other.values)


def test_descriptions_are_short():
    assert describe(MemoryError()) == "MemoryError"
    assert len(describe(ValueError("x" * 9999))) == judging.MAX_DETAIL


def test_signatures_see_every_change(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = signature(str(path))
    assert signature(str(path)) == first
    status = path.stat()
    time.sleep(0.02)
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, old date put back
    assert signature(str(path)) != first
    assert signature(str(tmp_path / "none")) is None
    assert signature("a\x00b") is None
