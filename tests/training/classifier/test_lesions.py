import cv2
import numpy as np
import pytest
import torch

from funduscope.engine.errors import DataError
from funduscope.engine.labelled import dataset
from funduscope.engine.pictures import preprocess
from funduscope.training.classifier import calibrate, lesions
from funduscope.training.classifier.job import ClassifierJob

CPU = torch.device("cpu")
NO_CHANGE = dict.fromkeys(("rotation_degrees", "log_scale", "shift", "log_gain", "log_gamma", "blur_sigma_px"), 0.0)


def started(plan, build, root):
    torch.manual_seed(3)
    own = ClassifierJob(build(plan), root)
    own.start(CPU, None)
    return own


def test_only_drawings_of_known_training_pictures_are_learned_from(drawn, build, graded_root):
    own = ClassifierJob(build(drawn), graded_root)
    assert [sample.twin for sample in own.drawings] == ["eye0", "eye3"]  # others validate, test, or may do so


def test_without_any_such_drawing_there_is_nothing_to_learn_from(drawn, build, graded_root):
    drawn["lesions"]["twins"] = "eyes"
    index = graded_root / "drawn" / "index.csv"
    index.write_text(index.read_text().replace("eye0", "eye20").replace("eye3\n", "eye21\n"))
    with pytest.raises(DataError, match="no training picture with drawn lesions has a known twin in eyes"):
        ClassifierJob(build(drawn), graded_root)


def test_lesions_come_behind_the_pictures_of_the_diseases_which_stay_what_they_were(drawn, build, graded_root):
    own = started(drawn, build, graded_root)
    plain, batch = own._drawer.of_step(1), next(own.stream(1, 2))
    assert torch.equal(batch.images[:8], plain.images)
    assert batch.images.shape == (11, 64, 64, 3)
    assert torch.equal(batch.targets, plain.targets)
    assert (batch.lesions.shape, batch.lesions.dtype) == ((3, 4, 4, 4), torch.float32)
    assert batch.lesions[:, 1].any()
    assert not batch.lesions[:, [0, 2, 3]].any()
    assert torch.equal(batch.lesions, own._batch(1).lesions)
    assert not torch.equal(batch.images[8:], own._batch(2).images[8:])


def test_dark_spots_lie_in_the_cells_that_hold_lesions(drawn, build, graded_root):
    own = started(drawn | {"augment": NO_CHANGE | {"flip": True}}, build, graded_root)
    seen = 0
    for step in range(4):
        batch = own._batch(step)
        for image, held in zip(batch.images[8:], batch.lesions, strict=True):
            dark = image.numpy().max(axis=2) < 70
            found = lesions.cells(dark[..., None], 16, 15)[0] > 0
            assert not (found & (held[1].numpy() == 0)).any()
            seen += int(found.sum())
    assert seen > 12


def test_a_step_teaches_the_layer_of_lesions_and_tells_its_loss(drawn, build, graded_root):
    own = started(drawn, build, graded_root)
    before = own.network.network.lesions.weight.detach().clone()
    values = own.step(own._batch(0), 1e-3)
    assert list(values) == ["exp-uwbce", "lesions"]
    assert 0 < values["lesions"] < 5
    assert not torch.equal(own.network.network.lesions.weight, before)


def test_the_loss_of_lesions_falls(drawn, build, graded_root):
    own = started(drawn, build, graded_root)
    own.network.train()
    told = [own.step(own._batch(step), 3e-3)["lesions"] for step in range(12)]
    assert np.mean(told[-3:]) < 0.7 * told[0]


def test_the_contract_states_the_drawings_and_their_terms(drawn, build, graded_root):
    own = started(drawn, build, graded_root)
    state = {"network": own.network.state_dict(), "step": 1, "device": "none"}
    data = calibrate.calibrate(build(drawn), state, graded_root, "predicted")["training"]["data"]
    assert data[-1] == {"name": "drawn", "pictures": 2, "terms": "drawn"}
    assert [one["name"] for one in data] == ["eyes", "grades", "drawn"]


def test_the_loss_is_the_mean_over_cells():
    logits, target = torch.tensor([[[[0.0, 100.0]]], [[[-100.0, 0.0]]]]), torch.tensor([[[[1.0, 1.0]]], [[[0.0, 0.0]]]])
    torch.testing.assert_close(lesions.loss(logits, target), torch.full((2,), np.log(2) / 2, dtype=torch.float32))


def test_a_cell_holds_what_lies_around_its_centre():
    planes = np.zeros((64, 64, 2), bool)
    planes[8, 23, 0] = planes[23, 24, 0] = True  # the first and the last row of the first cells, whose centre is 15
    planes[60, 7, 1] = True  # left of all cells
    found = lesions.cells(planes, 16, 15)
    assert (found.shape, found.dtype) == ((2, 4, 4), np.float32)
    assert np.argwhere(found[0]).tolist() == [[0, 0], [0, 1]]
    assert not found[1].any()


@pytest.mark.parametrize("scale", [2, 8])
def test_the_smallest_lesions_do_not_vanish_when_pictures_are_made_smaller(tmp_path, scale):
    side = 100 * scale
    bits = np.zeros((side, side), np.uint8)
    for k in range(9):
        bits[10 * scale * (k + 1) + 1, side // 2] = 1
    assert cv2.imwrite(str(tmp_path / "0.png"), np.full((side, side, 3), 120, np.uint8))
    assert cv2.imwrite(str(tmp_path / "bits.png"), bits)
    (tmp_path / "index.csv").write_text("image,lesions,split\n0.png,bits.png,train\n")
    samples = dataset.load(tmp_path)
    (drawing,) = lesions.prepare_all(samples, preprocess.Geometry(100, 40))
    assert drawing.planes.shape == (100, 100, 4)
    count, _ = cv2.connectedComponents(drawing.planes[..., 0].copy())
    assert count == 1 + 9
    assert not drawing.planes[..., 1:].any()
