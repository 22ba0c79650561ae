"""A real Ray cluster of three nodes on this machine, of which one is killed in the middle: no row is lost, none comes twice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from test_archives import SMALL, linked

from funduscope import Listed, Run, ScreenerSettings
from funduscope.engine.cluster import ClusterScreener

cluster_utils = pytest.importorskip("ray.cluster_utils")
PICTURES = 300

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray meets its own deprecations


def test_a_node_that_dies_costs_no_row_and_no_duplicate(tmp_path: Path) -> None:
    pictures = [Listed(str(path)) for path in sorted(linked(tmp_path / "in", SMALL, PICTURES).iterdir())]
    settings = ScreenerSettings(backend="onnxruntime", threads=1)
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node, _ = (cluster.add_node(num_cpus=1) for _ in range(2))
        cluster.wait_for_nodes()
        with ClusterScreener(settings, cluster.address) as screener:
            start = time.monotonic()
            for number, _ in enumerate(Run(screener, pictures, tmp_path / "cluster"), start=1):
                if number == PICTURES // 3:
                    cluster.remove_node(node, allow_graceful=False)
            seconds = time.monotonic() - start
    finally:
        cluster.shutdown()
    with settings.open() as alone:
        list(Run(alone, pictures, tmp_path / "alone"))
    for name in ("screenings.jsonl", "screenings.csv"):
        assert (tmp_path / "cluster" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    print(
        f"\n{PICTURES} pictures on three nodes of one core, one of them killed: {seconds:.0f} s, the rows of one machine"
    )
