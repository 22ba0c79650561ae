"""Clients that are slow, go away, or send something else than they say: they harm nobody."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from funduscope.engine.errors import SettingsError
from funduscope.service import ServiceSettings, application

uvicorn = pytest.importorskip("uvicorn")

HEAD = b"POST /v1/screenings HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"


@contextmanager
def listening(screener, **values: Any) -> Iterator[int]:
    """A service that is ready; gives its port."""
    from funduscope.service.server import configured

    settings = ServiceSettings(**{"receive_seconds": 0.5, "port": 0, **values})
    server = uvicorn.Server(configured(settings, application(settings, screener)))
    with socket.create_server(("127.0.0.1", 0)) as own:
        thread = threading.Thread(target=server.run, args=([own],))
        thread.start()
        try:
            port = own.getsockname()[1]
            if not values.get("tls_cert"):
                while ask(port, "GET", "/health/ready")[0] != 200:
                    time.sleep(0.01)
            yield port
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, {"Content-Type": "image/jpeg"} if body is not None else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def said(port: int, *parts: bytes, pause: float = 0.0, then: Callable[[socket.socket], object] | None = None) -> bytes:
    """What the service says to these bytes, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as own:
        for part in parts:
            own.sendall(part)
            time.sleep(pause)
        if then is not None:
            then(own)
        heard = b""
        try:
            while more := own.recv(65536):
                heard += more
        except ConnectionResetError:
            pass
        return heard


def test_clients_that_harm_nobody(screener, jpeg):
    with listening(screener, max_bytes=200_000) as port:
        status, before = ask(port, "POST", "/v1/screenings", jpeg())
        assert status == 200
        long = HEAD + b"Content-Length: 1000\r\n\r\n"
        chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        half = jpeg()[:500]
        heard = {
            "nothing": said(port),
            "half of the headers": said(port, HEAD[:40]),
            "half a body": said(port, long + half),
            "half a chunk": said(port, chunked + b"3e8\r\n" + half),
            "a byte at a time": said(port, long, *[b"x"] * 4, pause=0.1),
            "half a body, and it goes": said(port, long + half, then=lambda own: own.shutdown(socket.SHUT_WR)),
            "too much": said(port, HEAD + b"Content-Length: 200000000\r\n\r\n"),
            "too much in chunks": said(port, chunked + b"30d41\r\n" + bytes(200_001)),
            "no length that is one": said(port, HEAD + b"Content-Length: x\r\n\r\n"),
            "two lengths": said(port, HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            "compressed": said(port, HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"),
            "no HTTP": said(port, b"\x16\x03\x01 is TLS\r\n\r\n"),
        }
        statuses = {what: answer[9:12].decode() for what, answer in heard.items()}
        assert statuses == {
            "nothing": "",
            "half of the headers": "",
            "half a body": "408",
            "half a chunk": "408",
            "a byte at a time": "408",
            "half a body, and it goes": statuses["half a body, and it goes"],
            "too much": "413",
            "too much in chunks": "413",
            "no length that is one": "400",
            "two lengths": "400",
            "compressed": "415",
            "no HTTP": "400",
        }
        assert statuses["half a body, and it goes"] in ("", "400", "408")
        assert ask(port, "POST", "/v1/screenings", bytes(350_000))[0] == 413  # heard by who sends it all first
        assert ask(port, "POST", "/v1/screenings", jpeg()) == (200, before)
        assert b"funduscope_pictures_waiting 0.0" in ask(port, "GET", "/metrics")[1]


def test_more_connections_than_may_be_are_refused_and_slow_ones_make_room(screener, jpeg):
    with listening(screener, connections=4) as port:
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
        try:
            for own in slow:
                own.sendall(HEAD)
            time.sleep(0.1)
            assert ask(port, "GET", "/health/live")[0] == 503
            time.sleep(1)  # longer than headers may take
            assert ask(port, "POST", "/v1/screenings", jpeg())[0] == 200
        finally:
            for own in slow:
                own.close()


def test_it_speaks_tls(screener, jpeg, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-addext"]
    command += ["subjectAltName=IP:127.0.0.1", "-days", "1", "-keyout", key, "-out", cert]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate with")
    with listening(screener, tls_cert=cert, tls_key=key) as port:
        context = ssl.create_default_context(cafile=cert)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
        status = 503
        while status == 503:
            connection.request("POST", "/v1/screenings", jpeg(), {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
        connection.close()
        assert json.loads(text)["screenings"][0]["status"] == "ok"


def test_files_that_are_no_certificate_are_refused(screener, tmp_path):
    from funduscope.service.server import configured

    path = tmp_path / "x.pem"
    path.write_text("x")
    settings = ServiceSettings(tls_cert=path, tls_key=path)
    with pytest.raises(SettingsError, match="no certificate"):
        configured(settings, application(settings, screener))


def test_a_port_that_is_taken_is_told(screener):
    from funduscope.service import serve

    with (
        socket.create_server(("127.0.0.1", 0)) as own,
        pytest.raises(SettingsError, match=r"cannot listen at 127\.0\.0\.1"),
    ):
        serve(ServiceSettings(port=own.getsockname()[1]), screener)
