"""Labels: an empty cell is not labelled, and what cannot be trusted is refused with the file's name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from funduscope.engine.errors import DataError
from funduscope.engine.labelled import dataset
from funduscope.engine.labelled.sample import Sample

HEADER = "image,mask,mask_has,fovea_x,fovea_y,glaucoma,dr_grade,patient,split,width,height,scale,eye"


def picture(path: Path, width: int = 64, height: int = 48) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))
    return path


def mask(path: Path, values: tuple[int, ...] = (0, 1, 2), width: int = 64, height: int = 48) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.full((height, width), values[0], np.uint8)
    for k, value in enumerate(values):
        drawn[4 * k : height - 4 * k, 4 * k : width - 4 * k] = value
    cv2.imwrite(str(path), drawn)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """A data set of three pictures, without its index."""
    root = tmp_path / "clinic"
    for name in "abc":
        picture(root / "images" / f"{name}.jpg")
    mask(root / "masks" / "a.png")
    mask(root / "masks" / "b.png", (0, 1))
    return root


def index(folder: Path, *rows: str, header: str = HEADER) -> Path:
    (folder / "index.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


A = "images/a.jpg,masks/a.png,disc+cup,10.5,20,1,3,p1,train,64,48,0.5,OD"
B = "images/b.jpg,masks/b.png,disc,,,0,,p2,val,64,48,,OS"
C = "images/c.jpg,,,,,,,,test,64,48,"


def test_rows_become_samples(folder):
    a, b, c = dataset.load(index(folder, A, B, C))
    assert a == Sample(
        image=folder / "images/a.jpg",
        set_name="clinic",
        split="train",
        mask=folder / "masks/a.png",
        mask_has_cup=True,
        fovea=(10.5, 20.0),
        glaucoma=1,
        dr_grade=3,
        patient="p1",
        eye="right",
        scale=0.5,
    )
    assert (b.split, b.mask_has_cup, b.glaucoma, b.fovea, b.eye, b.scale) == ("val", False, 0, None, "left", 1.0)
    assert c == Sample(image=folder / "images/c.jpg", set_name="clinic", split="test")


def test_an_empty_cell_is_not_labelled(folder):
    a, b, c = dataset.load(index(folder, A, B, C))
    tasks = ("disc", "cup", "fovea", "glaucoma")
    assert [a.labels(task) for task in tasks] == [True, True, True, True]
    assert [b.labels(task) for task in tasks] == [True, False, False, True]
    assert [c.labels(task) for task in tasks] == [False, False, False, False]


def test_masks_are_read_as_they_were_drawn(folder):
    a, b, c = dataset.load(index(folder, A, B, C))
    drawn = a.read_masks()
    assert drawn.disc.sum() == 56 * 40
    assert drawn.cup.sum() == 48 * 32
    assert b.read_masks().cup is None
    assert c.read_masks() is None


def test_a_table_from_a_spreadsheet_is_read(folder):
    text = "\r\n".join([HEADER, C]) + "\r\n"
    (folder / "index.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(dataset.load(folder)) == 1


def test_unknown_columns_do_no_harm_and_are_told(folder, caplog):
    header = "image,split,weather,glaucomma"
    (sample,) = dataset.load(index(folder, "images/c.jpg,test,7,1", header=header))
    assert sample.glaucoma is None
    assert "index.csv: columns that are not read: 'weather', 'glaucomma' (is glaucoma meant?)" in caplog.text
    caplog.clear()
    dataset.load(index(folder, "images/c.jpg,test,1", header="image,split,glaucoma"))
    assert not caplog.text


def test_a_table_is_read_as_spreadsheets_and_pandas_write_it(folder):
    header = "Image, SPLIT ,Glaucoma,DR_Grade,Eye"
    rows = ("images/a.jpg,Train,True,1.0,RE", "images/b.jpg,val,FALSE,0,Left eye", "images/c.jpg,test, 1.0 ,4, ")
    samples = dataset.load(index(folder, *rows, header=header))
    assert [(own.split, own.glaucoma, own.dr_grade, own.eye) for own in samples] == [
        ("train", 1, 1, "right"),
        ("val", 0, 0, "left"),
        ("test", 1, 4, None),
    ]


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        dataset.load(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("images/a.jpg,,,,,,,,exam,,,", "split 'exam'; allowed are train, val, test"),
        (",,,,,,,,train,,,", "no picture is named"),
        ("images/a.jpg,,,,,yes,,,train,,,", "glaucoma 'yes'; allowed are 0, 1"),
        ("images/a.jpg,,,,,,7,,train,,,", "dr_grade '7'"),
        ("images/a.jpg,,,,,,1.5,,train,,,", "dr_grade '1.5'"),
        ("images/a.jpg,,,,,,NaN,,train,,,", "dr_grade 'nan'"),
        ("images/a.jpg,masks/a.png,cup,,,,,,train,,,", "mask_has 'cup'; allowed are disc, disc+cup"),
        ("images/a.jpg,masks/a.png,,,,,,,train,,,", "mask and mask_has go together"),
        ("images/a.jpg,,,12,,,,,train,,,", "fovea_x and fovea_y go together"),
        ("images/a.jpg,,,left,3,,,,train,,,", "left"),
        ("images/a.jpg,,,nan,3,,,,train,,,", "fovea_x nan is not a finite number"),
        ("images/a.jpg,,,,,,,,train,,,-1", "scale -1.0 is not positive"),
        (
            "images/a.jpg,,,,,,,,train,,,,both",
            "eye 'both'; allowed are right, od, r, re, right eye, left, os, l, le, left eye and empty",
        ),
        ("images/a.jpg", "split"),
    ],
)
def test_a_cell_that_cannot_be_meant_is_refused_with_its_line(folder, row, words):
    message = refusal(index(folder, C, row))
    assert message.startswith(f"{folder / 'index.csv'}, line 3: ")
    assert words in message


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([C, "images/x.jpg,,,,,,,,train,,,"], "x.jpg: no such picture"),
        (["images/a.jpg,masks/x.png,disc,,,,,,train,,,"], "x.png: no such mask"),
        (["images/a.jpg,,,64,10,,,,train,,,"], "the fovea (64.0, 10.0) lies outside the picture (64 x 48)"),
        (["images/a.jpg,,,1,-3,,,,train,,,"], "outside"),
        ([C, C], "c.jpg: listed twice"),
        (
            ["images/a.jpg,,,,,,,p1,train,,,", "images/b.jpg,,,,,,,p1,test,,,"],
            "patient p1 is in splits ['test', 'train']",
        ),
    ],
)
def test_labels_that_contradict_are_refused(folder, rows, words):
    assert words in refusal(index(folder, *rows))


def test_a_mask_of_another_size_is_refused(folder):
    mask(folder / "masks" / "a.png", width=32)
    assert "a.png: 32 x 48 px, but its picture has 64 x 48" in refusal(index(folder, A))


def test_a_mask_that_is_no_picture_is_refused(folder):
    (folder / "masks" / "a.png").write_text("drawn by hand")
    assert "a.jpg, or its mask: the header cannot be read" in refusal(index(folder, A))


def test_many_problems_are_counted_and_the_first_are_told(folder):
    message = refusal(index(folder, *(f"images/x{k}.jpg,,,,,,,,train,,," for k in range(25))))
    assert message.count("no such picture") == 20
    assert message.endswith("and 5 more")


@pytest.mark.parametrize(
    ("row", "values", "words"),
    [(A, (0, 1, 3), r"mask values \[3\]; allowed are \[0, 1, 2\]"), (B, (0, 255), r"\[255\]; allowed are \[0, 1\]")],
)
def test_a_mask_of_other_values_is_refused(folder, row, values, words):
    mask(folder / row.split(",")[1], values)
    (sample,) = dataset.load(index(folder, row))
    with pytest.raises(DataError, match=words):
        sample.read_masks()


@pytest.mark.parametrize("content", [b"", b"cut"])
def test_a_mask_that_was_damaged_since_is_refused(folder, content):
    (sample,) = dataset.load(index(folder, A))
    sample.mask.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: the mask is missing or unreadable"):
        sample.read_masks()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "column ['image'] is missing"),
        (b"picture,mask\n", "column ['image'] is missing"),
        (b"image,split\n", "no rows"),
        (b"image,mask\n", "no rows"),
        (b"image,split\n\xff\xfe.jpg,train\n", "cannot be read"),
    ],
)
def test_a_table_that_is_none_is_refused(folder, text, words):
    (folder / "index.csv").write_bytes(text)
    assert words in refusal(folder)


def test_a_folder_that_is_none_is_refused(tmp_path):
    assert "no such folder" in refusal(tmp_path / "absent")


def test_a_disease_is_there_from_its_grade_on():
    diseases = ("any_dr", "referable_dr", "severe_dr", "proliferative_dr")
    found = {grade: [sample(dr_grade=grade).diseased(disease) for disease in diseases] for grade in range(5)}
    assert found == {0: [0, 0, 0, 0], 1: [1, 0, 0, 0], 2: [1, 1, 0, 0], 3: [1, 1, 1, 0], 4: [1, 1, 1, 1]}
    assert [sample(glaucoma=1).diseased(disease) for disease in diseases] == [None] * 4
    assert [sample(glaucoma=label, dr_grade=4).diseased("glaucoma") for label in (0, 1, None)] == [0, 1, None]


def test_a_set_teaches_only_the_diseases_that_it_is_used_for():
    labelled = sample(glaucoma=1, dr_grade=0, patient="p1")
    assert labelled.teaching(["glaucoma", "dr"]) == labelled
    assert labelled.teaching(["dr"]) == sample(dr_grade=0, patient="p1")
    assert labelled.teaching({"glaucoma": 0.5}) == sample(glaucoma=1, patient="p1")
    assert labelled.teaching([]) == sample(patient="p1")


def sample(**labels) -> Sample:
    return Sample(Path("x.jpg"), "clinic", "train", **labels)


# a table without a column `split`


def unsplit(folder: Path, rows: list[tuple[str, str]]) -> dict[str, str]:
    """The split of each picture. rows: picture and patient."""
    for name, _ in rows:
        (folder / name).touch()
    (folder / "index.csv").write_text("\n".join(["image,patient", *map(",".join, rows)]) + "\n")
    return {one.image.name: one.split for one in dataset.load(folder)}


def shares(splits) -> list[float]:
    found = list(splits)
    return [found.count(split) / len(found) for split in ("train", "val", "test")]


PATIENTS = [(f"{k:03d}.jpg", f"p{k * k % 89}") for k in range(200)]  # 45 patients of 2 to 6 pictures


def test_pictures_without_a_split_are_split_60_20_20(tmp_path):
    found = unsplit(tmp_path, [(f"{k:03d}.jpg", "") for k in range(100)])
    assert shares(found.values()) == [0.6, 0.2, 0.2]
    assert shares(list(found.values())[:50]) == pytest.approx(
        [0.6, 0.2, 0.2], abs=0.15
    )  # not by their place in the table


def test_a_patient_is_in_one_split_and_the_shares_hold(tmp_path):
    found = unsplit(tmp_path, PATIENTS)
    assert shares(found.values()) == pytest.approx([0.6, 0.2, 0.2], abs=0.02)
    by_patient = {(patient, found[name]) for name, patient in PATIENTS}
    assert len(by_patient) == len({patient for _, patient in PATIENTS}) == 45


def test_spaces_around_a_name_make_no_other_patient(tmp_path):
    found = unsplit(tmp_path, [(f"{k}.jpg", f" p{k // 2}" if k % 2 else f"p{k // 2}") for k in range(40)])
    assert all(found[f"{k}.jpg"] == found[f"{k + 1}.jpg"] for k in range(0, 40, 2))
    assert {one.patient for one in dataset.load(tmp_path)} == {f"p{k}" for k in range(20)}


def test_a_split_does_not_depend_on_the_rows_order(tmp_path):
    first = unsplit(tmp_path, PATIENTS)
    assert unsplit(tmp_path, PATIENTS[::-1]) == unsplit(tmp_path, PATIENTS[7:] + PATIENTS[:7]) == first
    assert unsplit(tmp_path, [(name, f"x{patient}") for name, patient in PATIENTS]) != first  # it can


def test_the_same_names_always_give_the_same_split(tmp_path):
    found = unsplit(tmp_path, [(f"{k}.jpg", f"patient {k}") for k in range(10)])
    assert {k for k in range(10) if found[f"{k}.jpg"] == "val"} == {0, 5}
    assert {k for k in range(10) if found[f"{k}.jpg"] == "test"} == {1, 2}


def test_a_column_split_is_never_filled(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "index.csv").write_text("image,split\na.jpg,\n")
    assert "split ''; allowed are train, val, test" in refusal(tmp_path)


# split: pictures, disc masks, cup masks, foveas, with glaucoma, without
COUNTS = {
    "idrid": {"train": (366, 51, 0, 366, 0, 0), "val": (41, 4, 0, 41, 0, 0), "test": (103, 3, 0, 103, 0, 0)},
    "hygd": {"train": (526, 0, 0, 0, 379, 147), "val": (90, 0, 0, 0, 73, 17), "test": (131, 0, 0, 0, 96, 35)},
    "drishti_gs1": {"train": (41, 41, 41, 0, 25, 16), "val": (9, 9, 9, 0, 7, 2), "test": (51, 51, 51, 0, 38, 13)},
    "riga_messidor": {"train": (35, 35, 35, 0, 0, 0), "val": (9, 9, 9, 0, 0, 0)},
    "refuge_disc_crops": {"train": (256, 256, 256, 0, 25, 231), "val": (65, 65, 65, 0, 7, 58)},
    "palm_disc": {"train": (267, 267, 0, 0, 0, 0), "val": (76, 76, 0, 0, 0, 0)},
    "origa": {"train": (325, 0, 0, 0, 73, 252), "val": (100, 0, 0, 0, 28, 72), "test": (225, 0, 0, 0, 67, 158)},
    "odir5k": {"train": (2570, 0, 0, 0, 185, 2385), "val": (350, 0, 0, 0, 37, 313), "test": (504, 0, 0, 0, 50, 454)},
    "airogs_light": {"train": (539, 0, 0, 0, 267, 272), "val": (77, 0, 0, 0, 38, 39), "test": (154, 0, 0, 0, 80, 74)},
}


@pytest.mark.data
@pytest.mark.parametrize("name", COUNTS)
def test_the_labelled_sets_hold_what_their_table_says(data_root, name):
    counts: dict[str, list[int]] = {}
    for sample in dataset.load(data_root / name):
        row = counts.setdefault(sample.split, [0] * 6)
        labelled = [sample.labels(task) for task in ("disc", "cup", "fovea")]
        for k, value in enumerate([True, *labelled, sample.glaucoma == 1, sample.glaucoma == 0]):
            row[k] += value
    assert {split: tuple(row) for split, row in counts.items()} == COUNTS[name]


def test_lesions_are_bits_and_know_their_twin(folder):
    mask(folder / "lesions" / "a.png", (0, 1, 6, 15))
    a, b = dataset.load(
        index(folder, "images/a.jpg,lesions/a.png,train,eye7", "images/b.jpg,,test,", header="image,lesions,split,twin")
    )
    assert (a.lesions, a.twin) == (folder / "lesions/a.png", "eye7")
    assert set(np.unique(a.read_lesions())) == {0, 1, 6, 15}
    assert (b.lesions, b.twin, b.read_lesions()) == (None, None, None)


def test_lesions_that_cannot_be_trusted_are_refused(folder):
    row, header = "images/a.jpg,lesions/a.png,train", "image,lesions,split"
    with pytest.raises(DataError, match=r"a\.png: no such drawing of lesions"):
        dataset.load(index(folder, row, header=header))
    mask(folder / "lesions" / "a.png", (0, 1), width=60)
    with pytest.raises(DataError, match="60 x 48 px, but its picture has 64 x 48"):
        dataset.load(index(folder, row, header=header))
    mask(folder / "lesions" / "a.png", (0, 16))
    (sample,) = dataset.load(index(folder, row, header=header))
    with pytest.raises(DataError, match=r"mask values \[16\]"):
        sample.read_lesions()
    picture(folder / "lesions" / "a.png")
    with pytest.raises(DataError, match="has 3 channels"):
        sample.read_lesions()
    sample.lesions.write_bytes(b"")
    with pytest.raises(DataError, match="missing or unreadable"):
        sample.read_lesions()


@pytest.mark.parametrize("beside", [True, False])
def test_experts_ratios_stand_in_the_index_or_beside_it(tmp_path, beside):
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    column, cells = ("", ("", "")) if beside else (",expert_vcdr", (",0.5", ","))
    (tmp_path / "index.csv").write_text(f"image,split{column}\na.png,test{cells[0]}\nb.png,test{cells[1]}\n")
    if beside:
        (tmp_path / "expert_vcdr.csv").write_text("Image, Expert_vCDR\n a.png,0.5\n")
    assert [sample.expert_vcdr for sample in dataset.load(tmp_path)] == [0.5, None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,ratio\na.png,1\n", "column .* is missing"),
        ("", "column .* is missing"),
        ("image,expert_vcdr\na.png,1.5\n", r"expert_vcdr\.csv, line 2: .*0 to 1"),
        ("image,expert_vcdr\na.png,much\n", r"expert_vcdr\.csv, line 2"),
        ("image,expert_vcdr\na.png,.5\na.png,.6\n", "line 3: 'a.png' is listed twice"),
        ("image,expert_vcdr\nb.png,.5\n", "'b.png' is not in the index"),
    ],
)
def test_a_table_of_ratios_that_cannot_be_is_refused(tmp_path, text, words):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "index.csv").write_text("image,split\na.png,test\n")
    (tmp_path / "expert_vcdr.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        dataset.load(tmp_path)
