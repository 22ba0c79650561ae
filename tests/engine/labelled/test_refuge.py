"""REFUGE's official folders, in miniature, in the shapes in which they are found."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pytest
import scipy.interpolate
import sklearn.metrics

from funduscope.engine import errors
from funduscope.engine.errors import DataError, OutputError, SettingsError
from funduscope.engine.labelled import challenge, dataset, evaluation, refuge
from funduscope.engine.labelled.sample import Sample


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((40, 50, 3), 90, np.uint8))


def mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.full((40, 50), 255, np.uint8)
    drawn[10:30, 10:30] = 128
    drawn[15:25, 15:25] = 0
    cv2.imwrite(str(path), drawn)


def table(path: Path, *rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


def unpacked(root: Path, inner: str, suffix: str) -> Path:
    """The three splits. inner: whether archives were unpacked into folders of their own name, too."""
    train = root / (f"REFUGE-Training400/{inner}" if inner else "Training400")
    notes = root / "Annotation-Training400" / ("Annotation-Training400" if inner else "")
    for name, kind in (("g0001", "Glaucoma"), ("n0001", "Non-Glaucoma"), ("n0002", "Non-Glaucoma")):
        picture(train / kind / f"{name}.jpg")
        if name != "n0002":
            mask(notes / "Disc_Cup_Masks" / kind / f"{name}.bmp")
    table(
        notes / f"Fovea_location.{suffix}",
        ["ID", "ImgName", "Fovea_X", "Fovea_Y"],
        [1, "g0001.jpg", 20.5, 30.25],
        [2, "n0001.jpg", 21, 31],
    )
    picture(root / "REFUGE-Validation400" / "V0001.jpg")
    mask(root / "REFUGE-Validation400-GT" / "Disc_Cup_Masks" / "V0001.bmp")
    table(
        root / "REFUGE-Validation400-GT" / f"Fovea_locations.{suffix}",
        ["ID", "ImgName", "Fovea_X", "Fovea_Y", "Glaucoma Label"],
        [1, "V0001.jpg", 22, 32, 1],
    )
    for name in ("T0001", "T0002", "T0003"):
        picture(root / ("REFUGE-Test400" if inner else "Test400") / f"{name}.jpg")
    mask(root / "REFUGE-Test-GT" / "Disc_Cup_Masks" / "T0001.bmp")
    table(
        root / "REFUGE-Test-GT" / f"Glaucoma_label_and_Fovea_location.{suffix}",
        ["ImgName", "Label(Glaucoma=1)", "Fovea_X", "Fovea_Y"],
        ["T0001.jpg", 0, 23, 33],
        ["T0002.jpg", None, None, None],
    )
    return root


@pytest.mark.parametrize("inner", ["", "Training400"])
@pytest.mark.parametrize("suffix", ["xlsx", "csv"])
def test_every_split_is_read_with_what_is_labelled(tmp_path, inner, suffix):
    samples = dataset.load(unpacked(tmp_path / "REFUGE", inner, suffix))
    found = {s.image.stem: (s.split, s.glaucoma, s.fovea, s.mask is not None, s.mask_has_cup) for s in samples}
    assert found == {
        "g0001": ("train", 1, (20.5, 30.25), True, True),
        "n0001": ("train", 0, (21, 31), True, True),
        "n0002": ("train", 0, None, False, False),
        "V0001": ("val", 1, (22, 32), True, True),
        "T0001": ("test", 0, (23, 33), True, True),
        "T0002": ("test", None, None, False, False),
        "T0003": ("test", None, None, False, False),
    }
    assert {s.set_name for s in samples} == {"REFUGE"}


def test_masks_keep_refuges_values(tmp_path):
    first = dataset.load(unpacked(tmp_path, "", "csv"))[0]
    drawn = first.read_masks()
    assert (drawn.disc.sum(), drawn.cup.sum()) == (400, 100)


def test_columns_match_in_any_case(tmp_path):
    root = unpacked(tmp_path, "", "csv")
    table(root / "REFUGE-Test-GT" / "more.csv", ["IMGNAME ", "fovea_x", "FOVEA_Y"], ["t0003.JPG", "4", "5"])
    assert {s.image.stem: s.fovea for s in refuge.load(root)}["T0003"] == (4, 5)


def test_what_archivers_leave_is_passed_over(tmp_path):
    root = unpacked(tmp_path, "", "xlsx")
    (root / "__MACOSX" / "Training400").mkdir(parents=True)
    (root / "__MACOSX" / "Training400" / "._g0001.jpg").write_bytes(b"x")
    (root / "Annotation-Training400" / "~$Fovea_location.xlsx").write_bytes(b"x")
    (root / "notes.csv").write_text("a,b\n1,2\n")
    assert len(dataset.load(root)) == 7


def test_a_picture_of_no_split_is_refused_with_what_was_looked_for(tmp_path):
    root = unpacked(tmp_path, "", "csv")
    picture(root / "more" / "x.jpg")
    with pytest.raises(
        DataError,
        match=r": no index\.csv in it, and not .*x\.jpg lies in no folder like Training400, REFUGE-Validation400 or Test400",
    ):
        dataset.load(root)


def test_a_folder_without_pictures_is_refused_with_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r": no index\.csv in it, and not REFUGE's layout"):
        dataset.load(tmp_path)


@pytest.mark.parametrize(
    ("row", "words"), [(["T0001.jpg", 2, 1, 1], "label 2"), (["T0001.jpg", 0, "left", 1], "left"), (["T0001.jpg"], "")]
)
def test_a_cell_that_cannot_be_meant_is_refused_with_its_line(tmp_path, row, words):
    root = unpacked(tmp_path, "", "csv")
    name = root / "REFUGE-Test-GT" / "Glaucoma_label_and_Fovea_location.csv"
    table(name, ["ImgName", "Label(Glaucoma=1)", "Fovea_X", "Fovea_Y"], row)
    with pytest.raises(DataError, match=rf"Glaucoma_label_and_Fovea_location\.csv, line 2: .*{words}"):
        dataset.load(root)


@pytest.mark.parametrize("name", ["Fovea_location.xlsx", "Fovea_location.csv"])
def test_a_damaged_table_is_refused(tmp_path, name):
    root = unpacked(tmp_path, "", "xlsx")
    (root / "Annotation-Training400" / name).write_bytes(b"\xff\xfe no table")
    with pytest.raises(DataError, match="the table cannot be read"):
        dataset.load(root)


def test_a_fovea_outside_its_picture_is_refused(tmp_path):
    root = unpacked(tmp_path, "", "csv")
    table(root / "REFUGE-Test-GT" / "more.csv", ["ImgName", "Fovea_X", "Fovea_Y"], ["T0003.jpg", 400, 5])
    with pytest.raises(DataError, match="outside the picture"):
        dataset.load(root)


def test_a_spreadsheet_without_openpyxl_gives_the_pip_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(errors.MissingExtra, match=r"pip install 'funduscope\[train\]'"):
        dataset.load(unpacked(tmp_path, "", "xlsx"))


# what is handed in


def photograph(path: Path, disc_left: int) -> None:
    """A field of view on black; the drawn network's disc lies where the picture is brightest in blue."""
    pixels = np.zeros((200, 240, 3), np.uint8)
    pixels[20:180, 30:190] = (40, 90, 150)
    pixels[70:120, disc_left : disc_left + 50, 0] = 200
    cv2.imwrite(str(path), pixels)


@pytest.fixture
def challenge_folder(tmp_path) -> Path:
    """The test split with all labels of three pictures, none of a fourth, and a black one."""
    root = tmp_path / "REFUGE"
    rows = [["ImgName", "Label(Glaucoma=1)", "Fovea_X", "Fovea_Y"]]
    (root / "Test400").mkdir(parents=True)
    (root / "REFUGE-Test-GT" / "Disc_Cup_Masks").mkdir(parents=True)
    for k, (label, left) in enumerate([(1, 60), (0, 90), (1, 110), (None, 70)]):
        photograph(root / "Test400" / f"T000{k}.jpg", left)
        if label is not None:
            drawn = np.full((200, 240), 255, np.uint8)
            drawn[72:120, left : left + 50] = 128
            drawn[84:108, left + 10 : left + 30] = 0
            cv2.imwrite(str(root / "REFUGE-Test-GT" / "Disc_Cup_Masks" / f"T000{k}.bmp"), drawn)
            rows.append([f"T000{k}.jpg", label, 100 + k, 120])
    cv2.imwrite(str(root / "Test400" / "T0004.jpg"), np.zeros((200, 240, 3), np.uint8))
    cv2.imwrite(
        str(root / "REFUGE-Test-GT" / "Disc_Cup_Masks" / "T0004.bmp"),
        cv2.imread(str(root / "REFUGE-Test-GT" / "Disc_Cup_Masks" / "T0000.bmp")),
    )
    rows.append(["T0004.jpg", 0, 100, 120])
    table(root / "REFUGE-Test-GT" / "Glaucoma_label_and_Fovea_location.xlsx", *rows)
    return root


@pytest.fixture
def submitted(fake, painter, challenge_folder, tmp_path, any_colours) -> tuple[Path, dict]:
    def paint(image):
        x = int(np.flatnonzero((image[..., 2] > 150).any(axis=0)).mean())
        return painter.maps(disc=(x, 120, 70, 78), cup=(x - 10, 121, 28, 36), glaucoma=x / 256)

    samples = [sample for sample in dataset.load(challenge_folder) if sample.split == "test"]
    with fake(paint) as opened:
        submission = challenge.Submission(tmp_path / "mine", opened.models, samples)
        evaluation.evaluate(opened, samples, submission.add)
    return tmp_path / "mine", submission.finish()


def test_a_submission_has_a_mask_a_risk_and_a_fovea_of_every_picture(submitted, challenge_folder):
    folder, _ = submitted
    names = [f"T000{k}" for k in range(5)]
    assert sorted(path.name for path in folder.iterdir()) == [
        "classification_results.csv",
        "fovea_location_results.csv",
        "segmentation",
    ]
    assert sorted(path.name for path in (folder / "segmentation").iterdir()) == [f"{name}.bmp" for name in names]
    for name in names:
        drawn = cv2.imread(str(folder / "segmentation" / f"{name}.bmp"), cv2.IMREAD_UNCHANGED)
        assert (drawn.shape, drawn.dtype) == ((200, 240), np.uint8)
        assert set(np.unique(drawn)) == ({255} if name == "T0004" else {0, 128, 255})
    with (folder / "classification_results.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["FileName", "Glaucoma Risk"]
    assert [row[0] for row in rows] == [f"{name}.jpg" for name in names]
    assert [row[1] for row in rows][-1] == "0.5"  # nothing is said of the black one
    with (folder / "fovea_location_results.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["ImageName", "Fovea_X", "Fovea_Y"]
    assert [float(value) for value in rows[-1][1:]] == [119.5, 99.5]


def test_the_figures_are_those_of_the_challenges_own_code(submitted, challenge_folder):
    """Computed once more as that code does, from what was written: scikit-learn's curve, SciPy's interpolation, 1e-7."""
    folder, figures = submitted
    rows = []
    for name in ("T0000", "T0001", "T0002", "T0004"):
        found, truth = (
            cv2.imread(str(path / f"{name}.bmp"), cv2.IMREAD_GRAYSCALE)
            for path in (folder / "segmentation", challenge_folder / "REFUGE-Test-GT" / "Disc_Cup_Masks")
        )
        pairs = [(found == 0, truth == 0), (found < 255, truth < 255)]
        dices = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]
        ratios = [cup.sum(0).max() / (disc.sum(0).max() + 1e-7) for cup, disc in zip(*pairs, strict=True)]
        rows.append([*dices, abs(ratios[0] - ratios[1])])
    risks = [float(line.split(",")[1]) for line in (folder / "classification_results.csv").read_text().split()[2:]]
    risks, labels = [risks[k] for k in (0, 1, 2, 4)], [1, 0, 1, 0]
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, risks)
    places = [line.split(",") for line in (folder / "fovea_location_results.csv").read_text().split()[1:]]
    away = [np.hypot(float(places[k][1]) - (100 + k % 4), float(places[k][2]) - 120) for k in (0, 1, 2, 4)]
    expected = dict(zip(("cup_dice", "disc_dice", "vcdr_error"), np.mean(rows, axis=0), strict=True)) | {
        "auc": sklearn.metrics.roc_auc_score(labels, risks),
        "reference_sensitivity_as_refuge_computes_it": float(scipy.interpolate.interp1d(1 - fpr, tpr)(0.85)),
        "fovea_px": np.mean(away),
    }
    assert {name: figures[name]["mean"] for name in expected} == pytest.approx(expected, abs=1e-7)
    assert figures["reference_sensitivity"]["mean"] == max(tpr[1 - fpr >= 0.85])
    assert {name: own["n"] for name, own in figures.items()} == dict.fromkeys(figures, 4)
    assert figures["disc_dice"]["n_not_measurable"] == 1


def test_a_split_whose_labels_are_kept_secret_is_handed_in_without_figures(fake, painter, challenge_folder, tmp_path):
    samples = [Sample(own.image, own.set_name, own.split) for own in dataset.load(challenge_folder)[:2]]
    with fake(lambda _: painter.maps()) as opened:
        submission = challenge.Submission(tmp_path / "mine", opened.models, samples)
        evaluation.evaluate(opened, samples, submission.add)
    assert {own["mean"] for own in submission.finish().values()} == {None}
    assert len((tmp_path / "mine" / "classification_results.csv").read_text().splitlines()) == 3


def test_a_submission_that_cannot_be_is_refused_before_anything_is_screened(
    fake, classifier, painter, challenge_folder, tmp_path
):
    (sample, *_), absent = dataset.load(challenge_folder), Sample(tmp_path / "absent.jpg", "REFUGE", "test")
    twin = Sample(sample.image.with_suffix(".PNG"), "REFUGE", "test")
    with fake(models=[classifier]) as opened, pytest.raises(SettingsError, match="open a multi-task model"):
        challenge.Submission(tmp_path / "mine", opened.models, [sample])
    with fake(lambda _: painter.maps()) as opened:
        for folder, samples, error, words in (
            (challenge_folder, [sample], OutputError, "is not empty"),
            (sample.image, [sample], OutputError, "is a file"),
            (tmp_path / ("x" * 300), [sample], OutputError, "cannot be written"),
            (tmp_path / "mine", [sample, twin], DataError, "another picture of this split has this name"),
            (tmp_path / "mine", [absent], DataError, "fetch the picture anew"),
        ):
            with pytest.raises(error, match=words):
                challenge.Submission(folder, opened.models, samples)


def test_the_command_line_hands_in(call, challenge_folder, tmp_path):
    ended = call("evaluate", "multitask", challenge_folder, "--submit", tmp_path / "mine")
    assert ended.returncode == 0, ended.stderr
    assert "as the REFUGE challenge counts" in " ".join(ended.stdout.split())
    assert len(list((tmp_path / "mine" / "segmentation").iterdir())) == 5
    again = call("evaluate", "multitask", challenge_folder, "--submit", tmp_path / "mine")
    assert (again.returncode, "is not empty" in again.stderr) == (5, True), again.stderr
    found = json.loads(call("evaluate", "multitask", challenge_folder, "--submit", tmp_path / "b", "--json").stdout)
    assert found["refuge"]["auc"]["n"] == 4
