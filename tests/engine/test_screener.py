"""The way of one photograph, with painted maps in the network's place, and with the embedded model where only
sameness is asked for. What both models make of one picture is in `test_classifier.py`."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from funduscope.engine import contract, models, results, screener
from funduscope.engine.errors import BackendError, Code, ModelError, SettingsError
from funduscope.engine.pictures import photo, preprocess
from funduscope.engine.eyes import Listed
from funduscope.engine.results import columns, Rejected, Screening
from funduscope.engine.screener import Screener
from funduscope.postprocess import scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fundus):
    """Twelve good pictures, and one of each kind of bad ones."""
    root = tmp_path_factory.mktemp("pictures")
    for k in range(12):
        suffix = (".png", ".bmp", ".tif")[k % 3]
        cv2.imwrite(str(root / f"good{k:02d}{suffix}"), fundus(200 + 10 * (k % 4), 260, seed=k)[..., ::-1])
    whole = cv2.imencode(".jpg", fundus(220, 240)[..., ::-1])[1].tobytes()
    (root / "bad_empty.jpg").write_bytes(b"")
    (root / "bad_text.jpg").write_text("not a picture")
    (root / "bad_half.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "bad_folder.jpg").mkdir()
    os.mkfifo(root / "bad_pipe.jpg")
    cv2.imwrite(str(root / "bad_grey.png"), fundus(200, 200)[..., 0])
    cv2.imwrite(str(root / "bad_small.png"), fundus(100, 100))
    cv2.imwrite(str(root / "bad_black.png"), np.zeros((200, 200, 3), np.uint8))
    cv2.imwrite(str(root / "bad_float.tif"), fundus(200, 200).astype(np.float32))
    return root


BAD = {
    "bad_absent.jpg": Code.NOT_FOUND,
    "bad_empty.jpg": Code.EMPTY_FILE,
    "bad_text.jpg": Code.UNKNOWN_FORMAT,
    "bad_half.jpg": Code.DAMAGED,
    "bad_folder.jpg": Code.NOT_A_FILE,
    "bad_pipe.jpg": Code.NOT_A_FILE,
    "bad_grey.png": Code.NOT_COLOUR,
    "bad_small.png": Code.TOO_SMALL,
    "bad_black.png": Code.NO_FIELD_OF_VIEW,
    "bad_float.tif": Code.FLOAT_IMAGE,
}


def rows(opened: Screener, paths, **options) -> list[str]:
    return [json.dumps(result.to_dict(), allow_nan=False) for result in opened.stream(paths, **options)]


def good_paths(folder) -> list[str]:
    return sorted(str(path) for path in folder.glob("good*"))


def painted_by_brightness(painter):
    """Maps that tell one picture from another: the glaucoma score is the picture's mean."""
    maps = painter.maps()
    return lambda image: {**maps, "glaucoma": np.float32(image.mean() / 255)}


# order, batches, neighbours


def test_results_come_in_the_inputs_order(fake, painter, folder):
    paths = good_paths(folder)[::-1]
    with fake(painted_by_brightness(painter), max_batch=5) as opened:
        assert [result.name for result in opened.stream(paths, workers=4)] == paths


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 9])
def test_every_input_gives_one_result_whatever_the_batch(fake, folder, count):
    with fake(max_batch=4) as opened:
        assert len(rows(opened, (good_paths(folder) * 2)[:count])) == count


def test_the_batch_does_not_change_a_row(folder):
    paths = good_paths(folder)[:8]
    outcomes = []
    for batch in (1, 8):
        with Screener.open("multitask", batch=batch, threads=1) as opened:
            outcomes.append(rows(opened, paths))
    assert outcomes[0] == outcomes[1]


def test_one_picture_alone_and_in_a_stream_give_one_row(folder):
    path = good_paths(folder)[0]
    with Screener.open(threads=1) as opened:
        assert rows(opened, [path]) == [json.dumps(opened(path).to_dict())]


def test_bad_pictures_among_good_ones_each_give_their_row_and_change_no_other(fake, painter, folder):
    good = good_paths(folder)
    mixed = [str(folder / name) for name in BAD] * 2 + good
    np.random.default_rng(0).shuffle(mixed)
    with fake(painted_by_brightness(painter)) as opened:
        clean = rows(opened, good)
        found = rows(opened, mixed)
    assert [json.loads(row)["name"] for row in found] == mixed
    assert sorted(row for row in found if "/good" in row) == sorted(clean)
    for path, row in zip(mixed, found, strict=True):
        name = Path(path).name
        if name in BAD:
            assert json.loads(row)["code"] == BAD[name]
            assert json.loads(row)["reason"]
            assert json.loads(row)["vcdr"] is None
    assert len({json.dumps(json.loads(row)["glaucoma_network"]) for row in clean}) > 6  # neighbours do differ


def test_a_stream_of_bad_pictures_alone_never_runs_the_model(fake, folder):
    with fake() as opened:
        assert len(rows(opened, [str(folder / name) for name in BAD])) == len(BAD)
        assert opened._multitask.runner.batches == []


@pytest.mark.parametrize("slots", [1, 2])
def test_the_stream_reads_ahead_no_more_than_a_batch_for_each_slot_and_one_more(fake, folder, slots):
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield good_paths(folder)[0]

    with fake(max_batch=3) as opened:
        opened._multitask.runner.slots = slots
        stream = opened.stream(endless())
        for count in range(1, 20):
            next(stream)
            assert len(taken) <= count + (slots + 1) * 3
        stream.close()


def test_a_backend_with_two_slots_gets_two_batches_at_once_and_results_stay_in_order(fake, painter, folder):
    paths, inside = [path for path in good_paths(folder) for _ in range(3)], threading.Barrier(2, timeout=20)
    with fake(painted_by_brightness(painter), max_batch=3) as opened:
        alone = [json.dumps(result.to_dict()) for result in opened.stream(paths)]
        runner = opened._multitask.runner
        runner.slots, runner.before = 2, inside.wait  # breaks where a batch waits for the other to end
        assert len(paths) % (2 * 3) == 0  # each batch has another beside it
        assert [json.dumps(result.to_dict()) for result in opened.stream(paths)] == alone
    assert len(set(alone)) > 2


def test_a_closed_stream_leaves_no_thread(fake, folder):
    with fake() as opened:
        stream = opened.stream(good_paths(folder))
        next(stream)
        stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("funduscope")]


def test_batches_are_filled(fake, folder):
    with fake(max_batch=4) as opened:
        rows(opened, good_paths(folder)[:10])
        assert opened._multitask.runner.batches == [4, 4, 2]


def test_eight_threads_on_one_screener_give_the_same_rows(fake, painter, folder):
    paths = good_paths(folder)
    with fake(painted_by_brightness(painter)) as opened:
        alone = [json.dumps(opened(path).to_dict()) for path in paths]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda path: json.dumps(opened(path).to_dict()), paths * 4)) == alone * 4
            streams = [pool.submit(rows, opened, paths) for _ in range(8)]
            assert all(stream.result() == alone for stream in streams)


def test_eight_threads_on_the_embedded_model_give_the_same_rows(folder):
    paths = good_paths(folder)[:4]
    with Screener.open(threads=1) as opened, ThreadPoolExecutor(8) as pool:
        alone = [json.dumps(opened(path).to_dict()) for path in paths]
        assert list(pool.map(lambda path: json.dumps(opened(path).to_dict()), paths * 2)) == alone * 2


def test_closing_frees_the_runner(fake):
    with fake() as opened:
        runner = opened._multitask.runner
    assert runner.closed


# what the maps say


def painted(fake, painter, pixels, **maps) -> results.Result:
    with fake(lambda image: painter.maps(**maps)) as opened:
        return opened(pixels)


def test_every_kind_of_source_is_screened_and_named(fake, fundus, tmp_path):
    pixels = fundus()
    path = tmp_path / "eye.png"
    cv2.imwrite(str(path), pixels[..., ::-1])
    with fake() as opened:
        by_path, by_bytes = opened(path), opened(path.read_bytes())
        by_array, by_photo = opened(pixels), opened(photo.load(pixels, "frame 7"))
        by_list = opened(Listed(str(path)))
        assert [r.name for r in (by_path, by_bytes, by_array, by_photo)] == [str(path), "bytes", "array", "frame 7"]
        assert by_list == by_path
        assert opened(pixels, "eye 3").name == "eye 3"
        assert opened(Listed("absent.jpg")).name == "absent.jpg"
    assert by_path.sha256 == by_bytes.sha256 is not None
    assert by_array.sha256 is None
    assert by_path.vcdr == by_bytes.vcdr == by_array.vcdr == by_photo.vcdr


def test_an_array_of_another_type_is_a_programmers_error(fake, fundus):
    with fake() as opened:
        with pytest.raises(TypeError):
            opened(fundus().astype(np.float32))
        with pytest.raises(TypeError):
            list(opened.stream([fundus()[..., 0]]))


@pytest.mark.parametrize(("height", "width"), [(600, 900), (900, 600), (400, 400), (160, 230)])
def test_painted_ellipses_come_back_in_the_photos_pixels(fake, painter, height, width):
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[: height // 8], pixels[:, : width // 10] = 0, 0  # off centre
    placement = preprocess.prepare(photo.load(pixels), preprocess.Geometry(painter.size, 24, "brightest")).placement
    scale = placement.scale_x
    disc, cup, fovea = (150.0, 110.0, 44.0, 52.0), (147.0, 112.0, 20.0, 28.0), (95.0, 140.0)
    found = painted(fake, painter, pixels, disc=disc, cup=cup, fovea=fovea)
    assert (found.width, found.height) == (width, height)
    for outline, (x, y, across, down) in ((found.disc, disc), (found.cup, cup)):
        assert (outline.x, outline.y) == pytest.approx(placement.to_photo(x, y), abs=1 / scale)
        assert outline.vertical_diameter_px == pytest.approx(down / scale, rel=0.02)
        assert outline.box_height_px == pytest.approx(down / scale, rel=0.02)
        assert outline.area_px == pytest.approx(math.pi / 4 * across * down / scale**2, rel=0.02)
    assert found.fovea == pytest.approx(placement.to_photo(*fovea), abs=1 / scale)
    assert found.vcdr == pytest.approx(28 / 52, rel=0.02)


def test_masks_and_contours_lie_where_the_outline_says(fake, painter):
    pixels = np.full((500, 700, 3), 90, np.uint8)
    found = painted(fake, painter, pixels)
    for structure, outline in (("disc", found.disc), ("cup", found.cup)):
        mask = found.mask(structure)
        rows_, columns = np.nonzero(mask)
        assert mask.dtype == bool
        assert (columns.mean(), rows_.mean()) == pytest.approx((outline.x, outline.y), abs=1.5)
        assert mask.sum() == pytest.approx(outline.area_px, rel=0.03)
        contour = found.contour(structure)
        assert contour.shape[1] == 2
        # along pixel centres, so one sub-pixel less on each side
        assert np.ptp(contour[:, 1]) == pytest.approx(outline.box_height_px, rel=0.03)
        assert cv2.contourArea(contour.astype(np.float32)) == pytest.approx(outline.area_px, rel=0.05)


def test_the_decision_is_the_averaged_score_at_the_contracts_threshold(fake, painter, fundus, model):
    threshold = model.contract.glaucoma_threshold
    for network in (0.0, 0.3, 0.6, 1.0):
        found = painted(fake, painter, fundus(), glaucoma=network)
        rules = model.contract.rules
        from_vcdr = scores.logistic(found.vcdr, rules.vcdr_coefficient, rules.vcdr_intercept)
        assert found.glaucoma_network == pytest.approx(network)
        assert found.glaucoma_vcdr == pytest.approx(from_vcdr)
        assert found.glaucoma_probability == pytest.approx((network + from_vcdr) / 2)
        assert found.glaucoma is (found.glaucoma_probability >= threshold)
        assert found.threshold == threshold
        assert found.warnings == ()


def test_without_a_disc_the_picture_is_ungradable(fake, painter, fundus):
    found = painted(fake, painter, fundus(), disc=None, glaucoma=0.99)
    assert isinstance(found, Rejected)
    assert (found.status, found.code) == ("ungradable", Code.DISC_NOT_FOUND)
    row = found.to_dict()
    assert row["glaucoma"] is row["glaucoma_network"] is row["vcdr"] is None


def test_a_disc_without_a_cup_is_ok_and_not_measurable(fake, painter, fundus):
    found = painted(fake, painter, fundus(), cup=None, glaucoma=0.75)
    assert isinstance(found, Screening)
    assert found.status == "ok"
    assert found.warnings == (Code.CUP_NOT_FOUND,)
    assert found.vcdr is found.cup is found.glaucoma is found.glaucoma_probability is found.glaucoma_vcdr is None
    assert found.glaucoma_network == 0.75
    assert found.contour("cup").shape == (0, 2)
    assert not found.mask("cup").any()


def test_a_cup_outside_the_disc_is_no_cup(fake, painter, fundus):
    found = painted(fake, painter, fundus(), disc=(80, 120, 40, 40), cup=(180, 120, 20, 20))
    assert found.warnings == (Code.CUP_NOT_FOUND,)


def test_without_a_fovea_there_is_a_warning(fake, painter, fundus):
    found = painted(fake, painter, fundus(), fovea=None)
    assert found.fovea is None
    assert found.warnings == (Code.FOVEA_NOT_FOUND,)
    assert found.vcdr is not None


@pytest.mark.parametrize("name", ["disc", "cup", "fovea", "glaucoma"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_no_result(fake, painter, fundus, name, value):
    def paint(image):
        maps = {key: np.array(output) for key, output in painter.maps().items()}
        maps[name].flat[-1] = value
        return maps

    with fake(paint) as opened:
        found = opened(fundus())
    assert isinstance(found, Rejected)
    assert (found.status, found.code) == ("error", Code.MODEL_NONFINITE)
    json.dumps(found.to_dict(), allow_nan=False)


def test_one_picture_that_is_not_finite_leaves_its_neighbours(fake, painter, folder):
    seen = []

    def paint(image):
        seen.append(image)
        return painter.maps(glaucoma=np.nan if len(seen) == 2 else 0.5)

    with fake(paint, max_batch=4) as opened:
        found = list(opened.stream(good_paths(folder)[:4]))
    assert [result.status for result in found] == ["ok", "error", "ok", "ok"]


# rows


def test_both_kinds_give_the_same_columns_of_json_values(fake, painter, fundus, model):
    complete = painted(fake, painter, fundus())
    without_cup = painted(fake, painter, fundus(), cup=None, fovea=None)
    rejected = painted(fake, painter, np.zeros((200, 200, 3), np.uint8))
    for result in (complete, without_cup, rejected):
        row = result.to_dict()
        assert tuple(row) == COLUMNS
        assert json.loads(json.dumps(row, allow_nan=False)) == row
        assert row["status"] == result.status
        assert row["model_sha256"] == model.sha256
        assert (row["backend"], row["precision"]) == ("fake", model.contract.precision)
    assert complete.to_dict()["code"] is None
    assert rejected.to_dict()["code"] == "NO_FIELD_OF_VIEW"
    assert rejected.to_dict()["warnings"] == []
    assert without_cup.to_dict()["warnings"] == ["CUP_NOT_FOUND", "FOVEA_NOT_FOUND"]


def test_a_rejected_photo_that_was_decoded_has_its_digest(fake, folder):
    with fake() as opened:
        black = opened(folder / "bad_black.png")
    assert black.sha256 == photo.load(folder / "bad_black.png").sha256


def test_a_picture_is_kept_only_where_asked_for(fake, fundus):
    with fake() as opened:
        assert opened(fundus()).photo is None
        assert opened(fundus(), keep_photo=True).photo.pixels.shape == (200, 260, 3)
        assert [r.photo is None for r in opened.stream([fundus()])] == [True]
        assert [r.photo is None for r in opened.stream([fundus()], keep_photo=True)] == [False]


def test_results_are_frozen(fake, painter, fundus):
    found, rejected = painted(fake, painter, fundus()), painted(fake, painter, fundus(), disc=None)
    for result, field in ((found, "vcdr"), (found.disc, "x"), (found.model, "name"), (rejected, "code")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, field, None)


# opening


def test_opening_names_the_model_and_the_backend(model):
    with Screener.open("multitask", threads=1) as opened:
        (name,) = opened.models
        assert (name.name, name.version) == (model.contract.name, model.contract.version)
        assert name.sha256 == model.sha256
        assert name.backend == "onnxruntime"
        assert opened.contracts == (model.contract,)
        assert opened.multitask == model.contract
        assert opened.classifier is opened.point is None


@pytest.mark.parametrize("names", [(), ("default",), (Path("default"),)])
def test_without_a_name_all_embedded_models_are_opened(names):
    with Screener.open(*names, threads=1) as opened:
        assert sorted(own.name for own in opened.contracts) == sorted(models.embedded())
        assert [own.name for own in opened.models] == [own.name for own in opened.contracts]


def test_opening_refuses_before_the_first_picture(tmp_path):
    with pytest.raises(ModelError):
        Screener.open("unknown")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError):
        Screener.open(tmp_path / "x.onnx")
    with pytest.raises(BackendError):
        Screener.open(backend="abacus")
    with pytest.raises(SettingsError, match="batch 0, threads None: each must be 1 or more"):
        Screener.open(batch=0)
    with pytest.raises(SettingsError, match="workers 0: must be 1 or more"), Screener.open("multitask") as opened:
        opened.stream([], workers=0)


def test_the_example_is_screened(cc0):
    with Screener.open(threads=1) as opened:
        found = opened(cc0)
    assert tuple(found.to_dict()) == COLUMNS
    assert found.sha256 == photo.load(cc0).sha256


def test_the_label_of_a_source_is_its_name():
    assert screener._label("a/b.jpg") == "a/b.jpg"
    assert screener._label(b"data") == "bytes"
    assert screener._label(Listed("a/b.jpg", "p1", "left")) == "a/b.jpg"
