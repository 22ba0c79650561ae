"""The way of one photograph, with painted maps in the network's place, and with the embedded model where only
sameness is asked for. What both models make of one picture is in
`test_two_models.py`."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import cv2
import numpy as np
import pytest

from funduscope.engine import models, results, screener
from funduscope.engine.errors import BackendError, Code, ModelError, SettingsError
from funduscope.engine.eyes import Listed
from funduscope.engine.pictures import photo
from funduscope.engine.results import Rejected, Screening, columns
from funduscope.engine.runners import FakeRunner
from funduscope.engine.schedule import CLOSED
from funduscope.engine.screener import Screener, ScreenerSettings


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


def test_a_stream_of_bad_pictures_alone_never_runs_the_model(fake_runner, model, folder):
    runner = fake_runner()
    with Screener.of([model], [runner]) as opened:
        assert len(rows(opened, [str(folder / name) for name in BAD])) == len(BAD)
    assert runner.batches == []


@pytest.mark.parametrize("slots", [1, 2])
def test_the_stream_reads_ahead_no_more_than_a_batch_for_each_slot_and_two_more(fake_runner, model, folder, slots):
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield good_paths(folder)[0]

    with Screener.of([model], [fake_runner(max_batch=3, slots=slots)]) as opened:
        stream = opened.stream(endless())
        for count in range(1, 20):
            next(stream)
            assert len(taken) <= count + (slots + 2) * 3
        stream.close()


def test_a_backend_with_two_slots_gets_two_batches_at_once_and_results_stay_in_order(
    fake_runner, model, painter, folder
):
    paths, inside = [path for path in good_paths(folder) for _ in range(3)], threading.Barrier(2, timeout=20)
    plain = fake_runner(painted_by_brightness(painter), max_batch=3)

    def meeting(images):
        inside.wait()  # breaks where a batch waits for the other to end
        return plain(images)

    with Screener.of([model], [plain]) as opened:
        alone = rows(opened, paths)
        assert len(paths) % (2 * 3) == 0  # each batch has another beside it
        with Screener.of([model], [FakeRunner(meeting, 3, slots=2)]) as other:
            assert rows(other, paths) == alone
    assert len(set(alone)) > 2


def test_a_closed_stream_leaves_no_thread(fake, folder):
    with fake() as opened:
        stream = opened.stream(good_paths(folder))
        next(stream)
        stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("funduscope")]


def test_batches_are_filled(fake_runner, model, folder):
    runner = fake_runner(max_batch=4)
    with Screener.of([model], [runner]) as opened:
        rows(opened, good_paths(folder)[:10])
    assert runner.batches == [4, 4, 2]


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


# one by one


def test_what_is_submitted_has_the_row_that_it_has_alone(fake, painter, folder):
    paths = [*good_paths(folder), str(folder / "bad_text.jpg"), str(folder / "absent.jpg")]
    with fake(painted_by_brightness(painter)) as opened:
        alone = [opened(path).to_json() for path in paths]
        assert [own.result(20).to_json() for own in [opened.submit(path) for path in paths]] == alone
        assert opened.submit(paths[0]).result(20).photo is None
        assert opened.submit(paths[0], keep_photo=True).result(20).photo is not None


def test_submitted_pictures_share_batches_while_the_model_is_busy(fake_runner, model, painter, folder):
    busy, go_on, plain = threading.Event(), threading.Event(), fake_runner(max_batch=4)

    def slow(images):
        busy.set()
        assert go_on.wait(20)
        return plain(images)

    with Screener.of([model], [FakeRunner(slow, 4)]) as opened:
        futures = [opened.submit(good_paths(folder)[0])]
        assert busy.wait(20)
        futures += [opened.submit(path) for path in good_paths(folder)]
        time.sleep(0.3)  # they are read meanwhile
        go_on.set()
        assert [own.result(20).status for own in futures] == ["ok"] * 13
    assert plain.batches[0] == 1
    assert sum(plain.batches) == 13
    assert max(plain.batches) > 1


def test_a_source_of_another_type_fails_where_its_result_is_asked_for(fake, fundus):
    with fake() as opened:
        future = opened.submit(fundus().astype(np.float32))
        with pytest.raises(TypeError):
            future.result(20)


# the end


def test_closing_frees_the_runner(fake_runner, model):
    runner = fake_runner()
    with Screener.of([model], [runner]):
        assert not runner.closed
    assert runner.closed


def test_a_closed_screener_says_so(fake, fundus):
    with fake() as opened:
        pass
    for use in (lambda: opened(fundus()), lambda: opened.stream([fundus()]), lambda: opened.submit(fundus())):
        with pytest.raises(RuntimeError, match="this Screener is closed; open another one"):
            use()
    opened.close()


def test_closing_ends_what_was_submitted(fake_runner, model, folder):
    busy, go_on, plain = threading.Event(), threading.Event(), fake_runner(max_batch=1)

    def slow(images):
        busy.set()
        assert go_on.wait(20)
        return plain(images)

    runner = FakeRunner(slow, 1)
    opened = Screener.of([model], [runner])
    futures = [opened.submit(path) for path in good_paths(folder)]
    assert busy.wait(20)
    threading.Timer(0.05, go_on.set).start()
    opened.close()
    assert len(wait(futures, 20).done) == len(futures)
    ends = ["ok" if own.exception() is None else str(own.exception()) for own in futures]
    assert set(ends) == {"ok", CLOSED}
    assert runner.closed


def test_a_callback_may_close_the_screener(fake_runner, model, fundus):
    go_on, runner, closed = threading.Event(), fake_runner(), threading.Event()

    def slow(images):
        assert go_on.wait(20)
        return runner(images)

    def close(future):
        opened.close()
        closed.set()

    with Screener.of([model], [FakeRunner(slow)]) as opened:
        future = opened.submit(fundus())
        future.add_done_callback(close)
        go_on.set()
        assert closed.wait(20)
        assert future.result().status == "ok"
        with pytest.raises(RuntimeError, match=CLOSED):
            opened(fundus())


def test_a_stream_says_that_its_screener_was_closed(fake, fundus, folder):
    for sources in ([fundus()] * 20, [str(folder / "bad_text.jpg")] * 20):
        with fake(max_batch=2) as opened:
            stream = opened.stream(sources)
            next(stream)
            opened.close()
            with pytest.raises(RuntimeError, match=CLOSED):
                list(stream)


@pytest.mark.parametrize("use", ["call", "stream", "submit"])
def test_what_fails_because_the_screener_is_closed_meanwhile_says_so(model, fundus, use):
    def closed(images):
        opened.close()
        raise AssertionError("the runner is closed")

    uses = {
        "call": lambda: opened(fundus()),
        "stream": lambda: list(opened.stream([fundus()])),
        "submit": lambda: opened.submit(fundus()).result(20),
    }
    with Screener.of([model], [FakeRunner(closed)]) as opened, pytest.raises(RuntimeError, match=CLOSED) as caught:
        uses[use]()
    assert isinstance(caught.value.__cause__, AssertionError)


def test_a_runner_that_fails_to_close_keeps_no_other_open(fake_runner, model, classifier):
    class Stuck(FakeRunner):
        def close(self):
            super().close()
            raise BackendError("the GPU fails")

    for k in range(2):
        runners = [fake_runner(), fake_runner()]
        runners[k] = Stuck(lambda images: {})
        opened = Screener.of([model, classifier], runners)
        with pytest.raises(BackendError, match="the GPU fails"):
            opened.close()
        assert [own.closed for own in runners] == [True, True]


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


def test_the_size_is_the_photos(fake, painter):
    found = painted(fake, painter, np.full((160, 230, 3), 90, np.uint8))
    assert (found.width, found.height) == (230, 160)


def test_without_a_disc_the_picture_is_ungradable(fake, painter, fundus):
    found = painted(fake, painter, fundus(), disc=None, glaucoma=0.99)
    assert isinstance(found, Rejected)
    assert (found.status, found.code) == ("ungradable", Code.DISC_NOT_FOUND)
    row = found.to_dict()
    assert row["glaucoma"] is row["glaucoma_network"] is row["vcdr"] is None


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_disc_too_small_to_be_seen_is_looked_for_closer(fake, painter, batch):
    wide = np.full((600, 600, 3), (120, 60, 30), np.uint8)
    cv2.circle(wide, (330, 270), 12, (255, 250, 200), -1)
    without = np.full((600, 600, 3), (120, 60, 30), np.uint8)

    def paint(image):
        rows, columns = np.nonzero(image[..., 1] > 150)
        if len(rows) < 200:  # of the square: what is smaller, this network does not see
            return painter.maps(disc=None)
        side = 2 * np.sqrt(len(rows) / np.pi)
        x, y = columns.mean(), rows.mean()
        return painter.maps(disc=(x, y, side, side), cup=(x, y, side / 2, side / 2))

    with fake(paint, max_batch=batch) as opened:
        found = list(opened.stream([wide, without, wide]))
    assert [own.code for own in found] == [None, Code.DISC_NOT_FOUND, None]
    for own in (found[0], found[2]):
        assert (own.disc.x, own.disc.y) == pytest.approx((330, 270), abs=1)
        assert own.disc.vertical_diameter_px == pytest.approx(25, abs=2.5)
        assert own.mask("disc")[270, 330]
        assert own.mask("disc").sum() == pytest.approx(np.pi * 12.5**2, rel=0.2)


def test_a_disc_without_a_cup_is_ok_and_not_measurable(fake, painter, fundus):
    found = painted(fake, painter, fundus(), cup=None, glaucoma=0.75)
    assert isinstance(found, Screening)
    assert found.status == "ok"
    assert found.warnings == (Code.CUP_NOT_FOUND,)
    assert found.vcdr is found.cup is found.decisions["glaucoma"].called is None
    row = found.to_dict()
    assert row["glaucoma"] is row["glaucoma_probability"] is row["glaucoma_vcdr"] is None
    assert row["glaucoma_network"] == 0.75


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
    for result, field in ((found, "vcdr"), (found.disc, "x"), (found.models[0], "name"), (rejected, "code")):
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
        assert name.kind == "multi-task"
        assert opened.point is None


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
    with pytest.raises(SettingsError, match="batch 0, threads None, device 0: batch and threads must be 1 or more"):
        Screener.open(batch=0)
    for wrong in ({"threads": 0}, {"device": -1}, {"batch": -1}):
        with pytest.raises(SettingsError, match="batch and threads must be 1 or more, device 0 or more"):
            Screener.open(**wrong)
    with pytest.raises(SettingsError, match="operating point best: allowed are high_sensitivity, balanced, high_spec"):
        Screener.open(point="best")
    with pytest.raises(SettingsError, match="default means all embedded models"):
        Screener.open("default", "multitask")
    with pytest.raises(SettingsError, match="workers 0: must be 1 or more"), Screener.open("multitask") as opened:
        opened.stream([], workers=0)


def test_the_example_is_screened(cc0):
    with Screener.open(threads=1) as opened:
        found = opened(cc0)
    assert tuple(found.to_dict()) == tuple(column.name for column in columns())
    assert found.sha256 == photo.load(cc0).sha256


def test_settings_open_what_they_say(model, cc0):
    settings = ScreenerSettings((str(model.path),), "onnxruntime", 3, 1)
    with settings.open() as opened:
        assert opened.settings == settings
        assert opened.contracts == (model.contract,)
        assert opened.models[0].backend == "onnxruntime"
    with Screener.open(model.path, backend="onnxruntime", batch=3, threads=1) as opened:
        assert opened.settings == settings
    assert ScreenerSettings() == ScreenerSettings((), "auto", 8, None, None, 0)


def test_settings_reach_the_runner(model, monkeypatch):
    asked = []

    def open_runner(opened, backend, **options):
        asked.append((opened.sha256, backend, options))
        return "here", FakeRunner(lambda images: {}, options["max_batch"], precision="fp16")

    monkeypatch.setattr(screener, "open_runner", open_runner)
    with Screener.open("multitask", backend="tensorrt", batch=5, threads=2, device=1) as opened:
        assert (opened.models[0].backend, opened.models[0].precision) == ("here", "fp16")
    assert asked == [(model.sha256, "tensorrt", {"max_batch": 5, "threads": 2, "device": 1})]


def test_auto_takes_no_cpu_in_the_place_of_a_gpu_that_was_named():
    with pytest.raises(BackendError, match="no NVIDIA GPU"):
        Screener.open("multitask", device=99)


def test_over_runners_of_ones_own_the_batch_is_what_all_of_them_take(fake_runner, model, classifier):
    first, second = fake_runner(max_batch=6), fake_runner(max_batch=4)
    with Screener.of([classifier, model], [first, second], backend="npu") as opened:
        assert opened.settings.batch == 4
        assert [own.kind for own in opened.models] == ["multi-task", "classifier"]
        assert {own.backend for own in opened.models} == {"npu"}
        assert opened.settings.models == (str(classifier.path), str(model.path))


def test_over_no_models_or_other_runners_than_models_there_is_no_screener(fake_runner, model):
    with pytest.raises(ModelError, match="no models; give at least one"):
        Screener.of([], [])
    with pytest.raises(SettingsError, match="1 models, 0 runners: give one for each, in the same order"):
        Screener.of([model], [])
    with pytest.raises(SettingsError, match="a second model of the kind multi-task; open one of each kind at most"):
        Screener.of([model, model], [fake_runner(), fake_runner()])


def test_wrong_settings_are_refused_where_they_are_made(fake_runner, model, classifier):
    with pytest.raises(SettingsError, match="operating point best: allowed are high_sensitivity, balanced, high_spec"):
        ScreenerSettings(point="best")
    with pytest.raises(SettingsError, match="operating point best: allowed are"):
        Screener.of([classifier], [fake_runner()], point="best")
    with pytest.raises(SettingsError, match=r"models 'classifier': is one name; wrap it in a list: \['classifier'\]"):
        ScreenerSettings("classifier")
    with pytest.raises(SettingsError, match="is one name; wrap it in a list"):
        ScreenerSettings(model.path)
    assert ScreenerSettings(["classifier"]).models == ["classifier"]


@pytest.mark.parametrize("source", ["eye.jpg", b"\xff\xd8"])
def test_one_source_is_no_stream(fake, source):
    with fake() as opened, pytest.raises(TypeError, match=r"this is one (str|bytes); wrap it in a list"):
        opened.stream(source)


def test_a_picture_that_a_model_cannot_use_is_not_kept_alive(both):
    alive = []

    class Watched(np.ndarray):
        pass

    gc.disable()
    try:
        with both() as opened:
            for _ in range(3):
                pixels = np.full((200, 220, 3), 30, np.uint8).view(Watched)
                alive.append(weakref.ref(pixels))
                opened(pixels)
                del pixels
    finally:
        gc.enable()
    assert [one() is None for one in alive] == [True] * 3


def test_of_one_picture_models_that_have_a_part_of_the_cores_each_look_at_once(
    fake_runner, model, classifier, opinions, fundus
):
    waiting, waited = threading.Barrier(2), []

    def meets(paint):
        """Answers when the other model is asked too."""

        def outputs(image):
            waited.append(waiting.wait(10))
            return paint(image)

        return fake_runner(outputs, slots=2)

    painted = fake_runner()
    runners = {
        model.contract.kind: meets(lambda image: {name: own[0] for name, own in painted(image[None]).items()}),
        classifier.contract.kind: meets(lambda image: opinions()),
    }
    settings = ScreenerSettings(batch=4)
    with Screener(settings, [model, classifier], lambda own: ("fake", runners[own.contract.kind]), slots=2) as opened:
        result = opened(fundus())
    assert sorted(waited) == [0, 1]
    assert list(result.decisions)[:1] == ["glaucoma"]
    assert result.decisions["referable_dr"].probability == pytest.approx(0.1)
