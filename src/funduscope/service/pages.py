"""The pages for people: each is sent as one file with its style and scripts inside, and a policy that lets in no others."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

from starlette.responses import HTMLResponse, Response

_FOLDER = resources.files(__package__) / "static"
_OUTSIDE = re.compile(r'<link rel="stylesheet" href="(?P<style>[\w.]+)">|<script src="(?P<script>[\w.]+)"></script>')
_INSIDE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)
_ROOM = "<!-- {} -->"  # where a page may have more


def page(name: str, **parts: str) -> Response:
    """A page by the name of its file. Args: parts: HTML that it has room for, by the name of its place."""
    text = _OUTSIDE.sub(_inlined, _read(f"{name}.html"))
    for place, part in parts.items():
        text = text.replace(_ROOM.format(place), part)
    return HTMLResponse(text, headers={"Content-Security-Policy": _policy(text)})


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _inlined(found: re.Match[str]) -> str:
    kind = found.lastgroup
    return f"<{kind}>\n{_read(found[str(kind)])}</{kind}>"


def _policy(text: str) -> str:
    """A content security policy: nothing but the page's own scripts and style, and this service."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, own in _INSIDE.findall(text):
        hashes[kind].append(f"'sha256-{base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()}'")
    sources = "; ".join(f"{kind}-src {' '.join(own)}" for kind, own in hashes.items())
    return (
        f"default-src 'none'; connect-src 'self'; img-src blob: data:; {sources}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
