import json
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest

from funduscope.engine.errors import SettingsError
from funduscope.engine.labelled.sample import Sample
from funduscope.training import tables, train
from funduscope.training.classifier import job
from funduscope.training.classifier.networks import OUTPUTS
from funduscope.training.tables import Cell, Grid

EXP = {"name": "exp-uwbce", "positive": 1.0, "negative": 1.0, "linear_from": 6.0}
GRID = {
    "base": "tiny.toml",
    "seeds": [1, 2],
    "rates": [1e-3],
    "matched_specificity": 0.75,
    "variants": {"small": {"network": {"architecture": "small-cnn"}}},
    "losses": {"exp": EXP, "bce": {"name": "bce"}},
}


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(own)}" for key, own in value.items()) + "}"
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


@pytest.fixture
def plan(classifier_plan):
    """The contents of a tiny configuration of the classifier, which the grids here are made of."""
    return classifier_plan


@pytest.fixture
def build(build_classifier):
    """A Config from it, without a file."""
    return build_classifier


@pytest.fixture
def grid_file(tmp_path, plan, write_config):
    """Writes a grid beside its base file, with two steps a run."""
    write_config(plan | {"schedule": plan["schedule"] | {"steps": 2}})

    def write(**changes):
        path = tmp_path / "grid.toml"
        path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in (GRID | changes).items()))
        return path

    return write


@pytest.fixture
def go(grid_file, graded_root, tmp_path, monkeypatch):
    """Runs a grid into `out`; the curves, which nothing here looks at, are left out."""
    monkeypatch.setattr(train.curves, "draw", lambda *_: None)
    return lambda out="out", **changes: tables.tables(
        grid_file(**changes), tmp_path / out, data_root=graded_root, device="cpu"
    )


def rows(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def rounded(figures):
    """Figures per set to four digits, as results have them."""
    return {name: {key: round(value, 4) for key, value in part.items()} for name, part in figures.items()}


def plain(figures):
    """Figures as validation has them, without the recall at the grid's specificity."""
    return {
        name: {key: value for key, value in part.items() if not key.endswith("_matched")}
        for name, part in figures.items()
    }


def counted(monkeypatch, module, name):
    """Calls of a function, which goes on doing what it does."""
    untouched, calls = getattr(module, name), []

    def wrapped(*arguments, **options):
        calls.append(arguments)
        return untouched(*arguments, **options)

    monkeypatch.setattr(module, name, wrapped)
    return calls


CELLS = [{"variant": "small", "loss": loss, "lr": 1e-3, "seed": seed} for seed in (1, 2) for loss in ("exp", "bce")]


def test_a_grid_runs_every_cell_and_leaves_its_tables(go, tmp_path, monkeypatch):
    prepared = counted(monkeypatch, job, "prepared")
    page = go()
    out = tmp_path / "out"
    assert [row["cell"] for row in rows(out)] == CELLS
    assert (out / "tables.md").read_text() == page
    assert len(prepared) == 1  # the same pictures serve every cell
    for cell in CELLS:
        folder = out / f"small_{cell['loss']}_0.001_{cell['seed']}"
        logits = {f"{name}-{split}.npz" for name in ("best", "last") for split in ("val", "test")}
        assert {path.name for path in folder.iterdir()} == {"metrics.jsonl"} | logits
        (line,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        (row,) = [row for row in rows(out) if row["cell"] == cell]
        for measured in (row["best"], row["last"]):
            assert measured["step"] == line["step"] == 2
            assert plain(measured["val"]) == rounded(line["sets"])
            assert set(measured["test"]) == {"eyes", "grades", "all"}
        with np.load(folder / "last-test.npz") as saved:
            assert set(saved) == set(OUTPUTS)
    assert len({json.dumps(row["best"]["val"]) for row in rows(out)}) == 4


def test_finished_cells_are_not_run_again(go, tmp_path, monkeypatch):
    page = go()
    before = (tmp_path / "out" / "results.jsonl").read_text()
    monkeypatch.setattr(train, "run", lambda *_, **__: pytest.fail("a cell was run again"))
    assert go() == page
    assert (tmp_path / "out" / "results.jsonl").read_text() == before


def test_a_grid_that_was_stopped_goes_on_to_the_same_tables(go, tmp_path, monkeypatch):
    page, untouched, calls = go("straight"), train.run, []

    def interrupted(*arguments, **options):
        calls.append(None)
        if len(calls) == 3:
            untouched(*arguments, **options)  # its checkpoints and metrics are there already
            raise KeyboardInterrupt
        return untouched(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(train, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go()
    assert [row["cell"] for row in rows(tmp_path / "out")] == CELLS[:2]
    runs = counted(monkeypatch, train, "run")
    assert go() == page
    assert len(runs) == 2
    assert rows(tmp_path / "out") == rows(tmp_path / "straight")


def test_no_cell_is_started_after_the_time_is_up(go, grid_file, graded_root, tmp_path, monkeypatch):
    clock = iter([0.0, 0.0, 59.0, 61.0])  # at the start, then before each cell
    own, out = grid_file(), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(tables, "time", SimpleNamespace(monotonic=clock.__next__))
        tables.tables(own, out, data_root=graded_root, device="cpu", minutes=1.0)
    assert [row["cell"] for row in rows(out)] == CELLS[:2]
    assert (out / "tables.md").read_text() != go()
    assert [row["cell"] for row in rows(out)] == CELLS


def test_a_cell_is_measured_at_its_best_checkpoint_and_at_its_last_step(go, tmp_path, monkeypatch):
    scores = iter([0.9, 0.1])
    monkeypatch.setattr(job.validation, "score", lambda *_: next(scores))
    plan = tomllib.loads((tmp_path / "tiny.toml").read_text())
    (tmp_path / "tiny.toml").write_text(
        "".join(
            f"{key} = {toml(value)}\n"
            for key, value in (plan | {"schedule": plan["schedule"] | {"validate_every": 1}}).items()
        )
    )
    go(seeds=[1], losses={"bce": {"name": "bce"}})
    (row,) = rows(tmp_path / "out")
    first, last = [
        json.loads(line) for line in (tmp_path / "out/small_bce_0.001_1/metrics.jsonl").read_text().splitlines()
    ]
    assert (row["best"]["step"], row["last"]["step"]) == (1, 2)
    assert plain(row["best"]["val"]) == rounded(first["sets"]) != rounded(last["sets"])
    assert plain(row["last"]["val"]) == rounded(last["sets"])


def grid(**changes):
    return Grid.model_validate(GRID | changes)


def test_cells_come_seed_by_seed():
    own = grid(rates=[1e-4, 1e-5])
    assert [cell.seed for cell in tables.cells(own)] == [1] * 4 + [2] * 4
    assert len({cell.name for cell in tables.cells(own)}) == 8


def test_a_cell_changes_its_variant_loss_rate_and_seed_and_nothing_else(plan, build):
    base = build(plan)
    variant = {"network": {"architecture": "alexnet", "hidden": 8}, "data": {"augment": "both"}}
    found = tables.settings_of(base, grid(variants={"big": variant}), Cell("big", "bce", 1e-5, 2))
    expected = plan | {
        "name": "big_bce_1e-05_2",
        "seed": 2,
        "network": plan["network"] | variant["network"],
        "data": plan["data"] | variant["data"],
        "loss": {"name": "bce"},
        "schedule": plan["schedule"] | {"lr": 1e-5},
    }
    assert found == build(expected)
    assert base == build(plan)


WRONG = {
    "wide": ({"network": {"hidden": 8}}, "variants.wide.network: .*small-cnn has none"),
    "unknown": ({"network": {"depth": 8}}, r"variants\.unknown\.network\.depth: Extra inputs"),
    "flat": ({"architecture": "alexnet"}, r"variants\.flat\.architecture: Extra inputs"),
    "value": ({"data": {"batch": 0}}, r"variants\.value\.data\.batch: "),
    "scalar": ({"data": 3}, r"variants\.scalar\.data: "),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_settings_of_a_cell_are_validated(plan, build, name):
    variant, message = WRONG[name]
    with pytest.raises(SettingsError, match=message):
        tables.settings_of(build(plan), grid(variants={name: variant}), Cell(name, "bce", 1e-3, 1))


def test_a_variant_that_cannot_be_trained_is_refused_before_the_first_run(go, monkeypatch):
    monkeypatch.setattr(train, "run", lambda *_, **__: pytest.fail("a cell was run"))
    with pytest.raises(SettingsError, match="small-cnn has none"):
        go(variants=GRID["variants"] | {"wide": WRONG["wide"][0]})


def test_weights_that_are_not_there_are_told_before_the_first_run(go, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "run", lambda *_, **__: pytest.fail("a cell was run"))
    alexnet = {"network": {"architecture": "alexnet", "imagenet": "weights/none.pth"}}
    with pytest.raises(
        SettingsError, match=rf"no such file: {tmp_path}/weights/none\.pth; docs/training.md says where to get it"
    ):
        go(variants=GRID["variants"] | {"alexnet": alexnet})


def test_finished_cells_give_their_tables_without_the_weights(go, tmp_path, monkeypatch):
    alexnet = {"network": {"architecture": "alexnet", "imagenet": "alexnet.pth"}}
    with monkeypatch.context() as patch:
        patch.setattr(job.Classifier, "load_imagenet", lambda *_: None)
        (tmp_path / "alexnet.pth").touch()
        page = go(seeds=[1], variants={"alexnet": alexnet})
    (tmp_path / "alexnet.pth").unlink()
    assert go(seeds=[1], variants={"alexnet": alexnet}) == page


@pytest.mark.parametrize(
    "variant",
    [
        {"geometry": {"size": 96, "cache": 96}},
        {"geometry": {"fov_threshold": 60}},
        {"data": {"sets": [{"path": "eyes", "weights": {"glaucoma": 1.0, "dr": 1.0}, "terms": "drawn"}]}},
    ],
    ids=["size", "threshold", "sets"],
)
def test_a_variant_that_needs_pictures_of_its_own_is_refused(plan, build, variant):
    with pytest.raises(SettingsError, match=r"variants\.other: geometry and data sets are the base's"):
        tables.settings_of(build(plan), grid(variants={"other": variant}), Cell("other", "bce", 1e-3, 1))


def test_results_of_other_settings_are_not_mixed_in(go, plan, write_config, tmp_path):
    go(seeds=[1])
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    steps = plan["schedule"] | {"steps": 2}
    for changed in (
        {"schedule": steps | {"decay": 0.1}},
        {"schedule": steps, "augment": plan["augment"] | {"flip": False}},
    ):
        write_config(plan | changed)
        with pytest.raises(SettingsError, match=r"small_exp_0\.001_1 was run under other settings; choose"):
            go(seeds=[1])
    with pytest.raises(SettingsError, match="was run under other settings"):
        go(seeds=[1], losses=GRID["losses"] | {"bce": {"name": "focal", "gamma": 2.0}})
    write_config(plan | {"schedule": steps, "data": plan["data"] | {"workers": 2}})  # which changes no result
    go(seeds=[1])
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", ["tables", "tables-large", "tables-choices", "tables-augmented"])
def test_a_shipped_grid_and_all_its_cells_are_valid(root, name):
    folder = root / "training" / "configs"
    own = tables.load(folder / f"{name}.toml")
    base = tables.configs.load(folder / own.base)
    found = list(tables.cells(own))
    assert len(found) == len(own.seeds) * len(own.rates) * len(own.variants) * len(own.losses)
    assert len({cell.name for cell in found}) == len(found)
    settings = [tables.settings_of(base, own, cell) for cell in found]
    assert len({one.model_dump_json() for one in settings}) == len(found)
    assert {one.geometry for one in settings} == {base.geometry}  # the same pictures serve every cell


@pytest.mark.parametrize(
    ("grid", "folder"),
    [
        ("tables", "losses"),
        ("tables-large", "large"),
        ("tables-choices", "choices"),
        ("tables-augmented", "augmented"),
    ],
)
def test_the_results_in_the_documentation_can_be_gone_on_with(root, grid, folder):
    configs = root / "training" / "configs"
    own = tables.load(configs / f"{grid}.toml")
    base = tables.configs.load(configs / own.base)
    results = tables.load_results(root / "docs" / "tables" / folder / "results.jsonl")
    stated = {Cell(**row["cell"]): row["settings"] for row in results}
    asked = {cell: tables.fingerprint(tables.settings_of(base, own, cell)) for cell in tables.cells(own)}
    assert len(stated) == len(results) > 0
    assert stated.items() <= asked.items()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, "seeds"),
        ({"variants": {}}, "variants"),
        ({"variants": {"small": 3}}, "variants.small"),
        ({"losses": {"own": {"name": "hinge"}}}, "losses.own"),
        ({"steps": 4}, "steps: Extra inputs"),
        ({"matched_specificity": 1.5}, "matched_specificity"),
    ],
)
def test_a_wrong_grid_is_refused_with_its_key(grid_file, changes, message):
    path = grid_file(**changes)
    with pytest.raises(SettingsError, match="the grid is not valid") as error:
        tables.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_a_grid_that_is_not_there_or_not_toml_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.toml"):
        tables.load(tmp_path / "none.toml")
    (tmp_path / "own.toml").write_text("seeds: 4\n")
    with pytest.raises(SettingsError, match=r"own\.toml"):
        tables.load(tmp_path / "own.toml")


def test_a_base_of_the_other_kind_is_refused(go, grid_file, root):
    with pytest.raises(SettingsError, match="its kind must be classifier"):
        go(base=str(root / "training" / "configs" / "multitask-compact.toml"))


@pytest.mark.parametrize("damage", ['{"cell": {"netw', "x\n", "\n"])
def test_a_damaged_results_file_is_refused(go, tmp_path, damage):
    go(seeds=[1])
    path = tmp_path / "out" / "results.jsonl"
    path.write_text(path.read_text() + damage)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match=r"results\.jsonl: a line is not a result"):
        go()
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", ["{}", "3", '{"cell": {"network": "small", "loss": "bce", "lr": 1e-3, "seed": 1}}'])
def test_a_line_of_something_else_is_refused(go, tmp_path, line):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").write_text(line + "\n")
    with pytest.raises(SettingsError, match=r"results\.jsonl"):
        go(seeds=[1])


def test_data_without_a_test_split_is_refused_before_the_first_run(go, graded_root, monkeypatch):
    for index in graded_root.rglob("index.csv"):
        lines = index.read_text().splitlines(keepends=True)
        index.write_text("".join(line for line in lines if ",test," not in line))
    with pytest.raises(SettingsError, match="test"):
        go(seeds=[1])


def labelled(set_name, glaucoma, grades):
    return [
        Sample(None, set_name, "val", glaucoma=one, dr_grade=grade) for one, grade in zip(glaucoma, grades, strict=True)
    ]


def test_figures_by_hand():
    samples = labelled("eyes", [0, 0, 0, 0, 1, 1], [0, 0, 1, 2, 3, 3]) + labelled("more", [1, 1], [None, None])
    logits = np.array([-3.0, -2.0, -1.0, 4.0, 1.0, 5.0, -9.0, 9.0])
    found = tables.figures(samples, dict.fromkeys(OUTPUTS, logits), specificity=0.75)
    assert found["eyes"]["glaucoma_precision"] == 0.6667
    assert found["eyes"]["glaucoma_auc"] == 7 / 8
    # 3 of the 4 healthy are at or below -1, the next score is 1: the threshold lies between
    assert found["eyes"]["glaucoma_recall_matched"] == 1.0
    assert "glaucoma_recall_matched" not in found["more"]  # which has no healthy one
    assert found["all"]["glaucoma_recall_matched"] == 0.75
    assert found["eyes"]["referable_dr_recall_matched"] == found["all"]["referable_dr_recall_matched"] == 1.0
    stricter = tables.figures(samples, dict.fromkeys(OUTPUTS, logits), specificity=0.9)
    assert stricter["eyes"]["glaucoma_recall_matched"] == 0.5


STEPS = {"best": 2, "last": 4}


def result(loss, seed, glaucoma, dr, lr=1e-3):
    """A line of results; glaucoma, dr: their recall, from which all else follows."""
    split = {"eyes": {"glaucoma_auc": glaucoma, "referable_dr_auc": dr}, "grades": {"referable_dr_auc": dr / 2}}
    split["all"] = {"glaucoma_tp": 10 * glaucoma, "glaucoma_fp": 1.0, "glaucoma_fn": 10 - 10 * glaucoma}
    split["all"] |= {
        f"referable_dr_{key}": value for key, value in (("tp", 20 * dr), ("fp", 0.0), ("fn", 20 - 20 * dr))
    }
    for name, recall in (("glaucoma", glaucoma), ("referable_dr", dr)):
        split["all"] |= {f"{name}_recall": recall, f"{name}_accuracy": recall / 2, f"{name}_f1": recall / 4}
        split["all"] |= {f"{name}_auc": recall / 5}
    split["all"]["glaucoma_precision"] = glaucoma / 8  # of retinopathy it could not be measured
    split["eyes"] |= {"glaucoma_recall_matched": glaucoma / 2, "referable_dr_recall_matched": dr / 2}
    cell = {"variant": "small", "loss": loss, "lr": lr, "seed": seed}
    return {"cell": cell, **{name: {"step": step, "val": split, "test": split} for name, step in STEPS.items()}}


DONE = [
    result("exp", 1, 0.8, 0.5),
    result("bce", 1, 0.6, 1.0),
    result("exp", 2, 0.9, 0.5),
    result("exp", 1, 0.1, 0.1, lr=1.0),  # of another grid
    result("hinge", 1, 0.1, 0.1),
]


def cells_of(page):
    """The table's rows below its head, as lists of cells."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in split} == {len(split[0])}
    return split[0], split[2:]


def test_the_table_of_the_source_by_hand():
    page = tables.table(DONE, grid(), 1e-3, "val")
    assert page.startswith(
        "## Learning rate 0.001, validation split, selected checkpoint\n\n"
        "| variant (runs) | loss | selected steps | glaucoma: accuracy | glaucoma: precision |"
    )
    head, body = cells_of(page)
    assert head[7:10] == ["glaucoma: auc", "glaucoma: TP/FP/FN", "referable DR: accuracy"]
    exp = ["42.5 ± 3.5", "10.6 ± 0.9", "85.0 ± 7.1", "21.2 ± 1.8", "17.0 ± 1.4", "8/1/2"]
    exp += ["25.0 ± 0.0", "–", "50.0 ± 0.0", "12.5 ± 0.0", "10.0 ± 0.0", "10/0/10"]
    bce = ["30.0", "7.5", "60.0", "15.0", "12.0", "6/1/4", "50.0", "–", "100.0", "25.0", "20.0", "20/0/0"]
    assert body == [["small (2)", "exp", "2/2", *exp], ["small (1)", "bce", "2", *bce]]
    assert cells_of(tables.table(DONE, grid(), 1e-4, "val"))[1] == []
    done = [{**line, "best": line["best"] | {"val": {}}} for line in DONE]
    test_page = tables.table(done, grid(), 1e-3, "test")
    assert test_page.startswith("## Learning rate 0.001, test split, selected checkpoint\n")
    assert cells_of(test_page) == (head, body)


def test_the_fair_comparison_by_hand():
    head, body = cells_of(tables.compared(DONE, grid()))
    assert head[3:7] == ["glaucoma: recall at 1/2", "precision", "recall at specificity 0.75", "AUC"]
    exp = ["85.0 ± 7.1", "10.6 ± 0.9", "42.5 ± 3.5", "85.0 ± 7.1", "50.0 ± 0.0", "–", "25.0 ± 0.0", "37.5 ± 0.0"]
    assert head[-1] == "mean of all AUCs"
    exp.append("53.3 ± 2.4")  # (.8 + .5 + .25) / 3 and (.9 + .5 + .25) / 3
    assert body[0] == ["0.001", "small", "exp", *exp]  # the AUC of retinopathy is the mean of two sets
    assert body[1][:4] == ["0.001", "small", "bce", "60.0"]
    assert len(body) == 2


def test_a_figure_of_each_set_by_hand():
    page = tables.by_set(DONE, grid(), "auc", "AUC")
    assert page.startswith("## AUC, test split, last step\n")
    head, body = cells_of(page)
    assert head[3:] == ["glaucoma: eyes", "referable_dr: eyes", "referable_dr: grades"]
    assert body[0] == ["0.001", "small", "exp", "85.0 ± 7.1", "50.0 ± 0.0", "25.0 ± 0.0"]
    own = {"glaucoma_auc": 0.8, "glaucoma_auc_low": 0.7, "glaucoma_auc_high": 0.85}
    with_interval = [{**line, "last": {"test": {"eyes": own}}} for line in DONE]
    assert cells_of(tables.by_set(with_interval, grid(), "auc", "AUC"))[1][0][3] == "80.0 ± 0.0 (70.0 to 85.0)"
    assert cells_of(tables.by_set(DONE, grid(), "recall_matched", "Recall"))[1][0][3:] == ["42.5 ± 3.5", "25.0 ± 0.0"]


def test_the_tables_follow_the_results(go, tmp_path):
    page = go(seeds=[1])
    path = tmp_path / "out" / "results.jsonl"
    line = rows(tmp_path / "out")[0]
    line["best"]["val"]["all"]["glaucoma_f1"] = 0.12345
    path.write_text("".join(json.dumps(row) + "\n" for row in (line, rows(tmp_path / "out")[1])))
    assert "| 12.3 |" in go(seeds=[1])
    assert "| 12.3 |" not in page
