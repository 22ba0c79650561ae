"""The command: it listens, answers, and ends in good order."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("uvicorn")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_comes(cc0, number):
    with socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
    command = [sys.executable, "-m", "funduscope", "serve", "--port", str(port), "--backend", "onnxruntime"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        status, text, end = 503, b"", time.monotonic() + 60
        while status == 503 and time.monotonic() < end:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                connection.request("POST", "/v1/screenings", cc0.read_bytes(), {"Content-Type": "image/jpeg"})
                answer = connection.getresponse()
                status, text = answer.status, answer.read()
            except ConnectionRefusedError:  # it is opening the models
                time.sleep(0.1)
            finally:
                connection.close()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert status == 200
    assert json.loads(text)["screenings"][0]["status"] == "ok"
    assert (process.returncode, out) == (0, "")
    assert err.splitlines() == [f"serving at http://127.0.0.1:{port}/; end with Ctrl-C"]


def test_without_the_extra_it_says_the_pip_line_and_importing_needs_none():
    script = """
import sys
for name in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
    sys.modules[name] = None
import funduscope, funduscope.service
from funduscope.cli import main
sys.argv = ["funduscope", "serve"]
try:
    main()
except SystemExit as stop:
    print(stop.code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "4"
    assert "pip install 'funduscope[service]'" in " ".join(done.stderr.split())


def test_importing_funduscope_brings_no_server():
    script = (
        "import funduscope, funduscope.cli, sys; print({'starlette', 'uvicorn', 'prometheus_client'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
