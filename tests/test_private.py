"""Nothing of a user is kept or sent by the libraries beneath."""

from __future__ import annotations

import os
import subprocess
import sys


def test_screening_leaves_nothing_in_the_home_folder_but_what_it_is_told_to(tmp_path, cc0):
    script = (
        f"import funduscope\nwith funduscope.Screener.open(backend='onnxruntime') as s: print(s({str(cc0)!r}).status)"
    )
    hidden = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME"}
    env = {key: value for key, value in os.environ.items() if key not in hidden} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "ok", done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
