"""The page: what was kept is what is told and drawn."""

from __future__ import annotations

import json
import os

import pytest

pytest.importorskip("matplotlib")
import page

MACHINE = {
    "processor": "Drawn 9000",
    "flags": ["amx_int8"],
    "cores": 4,
    "load": 0.1,
    "versions": {"numpy": "2.0"},
}


def figures(p50_ms, pictures=1, **info):
    return {"p50_ms": p50_ms, "p99_ms": 2 * p50_ms, "pictures_per_second": 1000 * pictures / p50_ms, **info}


def rows():
    """As the benchmarks keep them, of two networks and two ways."""
    made = []
    for size, side in (("packed", 1024), ("camera", 4288)):
        of_size = {"part": "stage", "size": size, "side": side}
        for stage, ms in (
            ("hash and decode", 10),
            ("field of view", 2),
            ("prepare multitask", 3),
            ("prepare classifier", 5),
            ("read multitask", 1),
            ("read classifier", 1),
            ("draw", 25),
        ):
            made.append(figures(ms, **of_size, stage=stage, way=""))
        for way, ms in (("onnxruntime fp32", 30), ("openvino int8", 10)):
            made.append(figures(ms, **of_size, stage="network multitask", way=way))
            made.append(figures(2 * ms, **of_size, stage="network classifier", way=way))
            made.append(figures(3 * ms + 28, **of_size, stage="whole", way=way))
    for way, precision, gain in (("plain ONNX Runtime", "fp32", 1), ("openvino int8", "int8", 4)):
        of_way = {"way": way, "precision": precision, "ours": way != "plain ONNX Runtime"}
        for network in ("multitask", "classifier"):
            for batch in (1, 8):
                own = figures(20 * batch / gain, batch, **of_way, part="network", network=network, batch=batch)
                made.append(own | {"gflops": 50.0 * gain, "ceiling_gflops": 200.0 * gain, "share_of_ceiling": 0.25})
        made.append(figures(60 / gain, **of_way, part="one picture", times_loop=gain))
        streamed = figures(700 / gain, 16, **of_way, part="stream", times_loop=gain)
        made += [streamed | {"size": size} for size in ("packed", "camera")]
    for way, gflops in (("NumPy fp32", 150.0), ("OpenVINO fp32", 200.0), ("OpenVINO int8", 800.0)):
        made.append(figures(1, part="ceiling", way=way, precision=way.split()[1], gflops=gflops))
    made.append(figures(1, part="memory", way="copy", gb_per_second=12.3))
    return made


def kept(path, found, machine=MACHINE):
    """The file that pytest-benchmark writes of them."""
    benchmarks = [{"extra_info": row} for row in [*found, {"of": "another benchmark"}]]
    document = {"machine_info": {"funduscope": machine}, "datetime": "2031-02-03T04:05:06", "benchmarks": benchmarks}
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def results(tmp_path):
    return page.read(kept(tmp_path / "results.json", rows()))


def test_shares_are_of_the_whole_and_of_the_way(results):
    (whole,) = results.of("stage", stage="whole", size="camera", way="onnxruntime fp32")
    assert page.shares_of(results, whole) == pytest.approx(
        {
            "hash and decode": 1000 / 118,
            "field of view": 200 / 118,
            "prepare": 800 / 118,
            "network multitask": 3000 / 118,
            "network classifier": 6000 / 118,
            "read": 200 / 118,
            "rest": 600 / 118,
        }
    )


def test_shares_add_up_where_stages_alone_took_longer_than_the_whole(results):
    (whole,) = results.of("stage", stage="whole", size="camera", way="openvino int8")
    shares = page.shares_of(results, whole | {"p50_ms": 40})
    assert shares["rest"] == 0
    assert sum(shares.values()) == pytest.approx(100)


def test_the_tables_have_the_figures(results):
    assert page.end_to_end(results).splitlines() == [
        "| all models | one picture, p50 | p99 | 1024 px, a second | 4288 px, a second |",
        "|---|---|---|---|---|",
        "| plain ONNX Runtime | 60.0 ms (1.0) | 120.0 ms | 22.9 (1.0) | 22.9 (1.0) |",
        "| openvino int8 | 15.0 ms (4.0) | 30.0 ms | 91.4 (4.0) | 91.4 (4.0) |",
    ]
    assert "| OpenVINO int8 | 800 GFLOP/s |" in page.top(results)
    assert "| copy of memory | 12.3 GB/s |" in page.top(results)


@pytest.mark.parametrize(
    ("load", "told"), [(0.1, "The machine was quiet"), (2.5, "the ratios hold, the times do not"), (None, "numpy 2.0.")]
)
def test_the_machine_is_named_and_whether_it_was_quiet(tmp_path, load, told):
    results = page.read(kept(tmp_path / "results.json", rows(), MACHINE | {"load": load}))
    said = page.machine(results)
    assert "2031-02-03 on 4 cores of Drawn 9000 (amx_int8); numpy 2.0" in said
    assert told in said


def test_what_was_measured_takes_its_place_on_the_page_and_nothing_else_changes(results, tmp_path):
    before = "# Speed\n\n<!-- measured -->\nold\n<!-- end of measured -->\n\nMore.\n"
    (tmp_path / "speed.md").write_text(before)
    page.write(results, tmp_path / "speed.md", png=tmp_path)
    text = (tmp_path / "speed.md").read_text()
    assert text.startswith("# Speed\n\n<!-- measured -->\n")
    assert text.endswith("<!-- end of measured -->\n\nMore.\n")
    assert "old" not in text
    assert page.filled(text, results) == text
    for name in page.PLOTS:
        assert f"]({name}.svg)" in text
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    drawn = [(tmp_path / f"{name}.svg").read_text() for name in page.PLOTS]
    for plot, told in zip(drawn, ("118 ms", "batch 8", "25 %  (200 of 800)"), strict=True):
        assert told in plot
    page.write(results, tmp_path / "speed.md")
    assert drawn == [(tmp_path / f"{name}.svg").read_text() for name in page.PLOTS]  # the same again


def test_a_page_without_a_place_and_results_of_a_part_are_refused(results, tmp_path):
    with pytest.raises(ValueError, match="no place for what was measured"):
        page.filled("# Speed\n", results)
    part = [row for row in rows() if row["part"] != "stream"]
    with pytest.raises(ValueError, match="nothing on stream; it is not of a whole run"):
        page.read(kept(tmp_path / "part.json", part))


def test_the_newest_results_are_taken(tmp_path):
    with pytest.raises(ValueError, match="make bench"):
        page.newest(tmp_path)
    (tmp_path / "machine").mkdir()
    for k, name in enumerate(("b.json", "c.json", "a.json")):
        path = tmp_path / "machine" / name
        path.write_text("{}")
        os.utime(path, (k, k))
    assert page.newest(tmp_path).name == "a.json"


def test_the_documentation_has_a_place_for_what_was_measured():
    assert page._MARKED.search(page.PAGE.read_text(encoding="utf-8"))
