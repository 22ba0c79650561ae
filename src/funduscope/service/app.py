"""The service's addresses, and what each of them answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..engine.contract import Contract
from ..engine.outputs.patients import Patient
from ..engine.results import Result, Screening
from ..engine.screener import Screener
from . import bodies, catalogue, formats, inference, layers, openapi, pages, problems, results
from .guard import MODELS, SCREENINGS, Guard
from .metrics import Metrics
from .queue import Queue
from .settings import ServiceSettings

_LINK = '<nav aria-label="Pages"><a href="results">Results of a run</a></nav>'
_WARM = 3  # runs before the service is ready: what is allocated or chosen by the first ones is there then
_log = logging.getLogger("funduscope")


def build(settings: ServiceSettings, screener: Screener) -> Starlette:
    """See `application`."""
    service = _Service(settings, screener)
    routes = [
        Route("/", service.page),
        Route("/health/live", service.live),
        Route("/health/ready", service.is_ready),
        Route("/metrics", service.figures),
        Route("/openapi.json", service.description),
        Route(SCREENINGS, service.screenings, methods=["POST"]),
        Route(MODELS, service.models),
        Route("/v2", service.server),
        Route("/v2/health/live", service.live),
        Route("/v2/health/ready", service.is_ready),
        Route("/v2/models/{name}", service.model),
        Route("/v2/models/{name}/ready", service.model_ready),
        Route("/v2/models/{name}/infer", service.infer, methods=["POST"]),
        *(results.routes(settings.results) if settings.results else ()),
    ]
    guard = Middleware(Guard, settings=settings, notice=service.notice, metrics=service.metrics)
    handlers: Any = {HTTPException: problems.of_exception}
    return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=service.lifespan)


class _Service:
    """Owns the queue and the figures. Args: screener: not its own; who opened it closes it."""

    def __init__(self, settings: ServiceSettings, screener: Screener) -> None:
        self._settings, self._screener = settings, screener
        self._queue = Queue(screener, settings.queue, settings.deadline_seconds)
        self._ready = False
        self._warming: asyncio.Task[None] | None = None
        self.notice = " ".join(dict.fromkeys(own.terms.notice for own in screener.contracts))
        self.metrics = Metrics(lambda: self._queue.waiting)
        self._page = pages.page("screen", links=_LINK if settings.results else "")
        self._models = catalogue.document(screener)
        self._description = openapi.document(settings, self.notice)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Warm up beside the first requests, so that `/health/live` is answered at once."""
        warming = self._begin()
        yield
        self._ready = False
        await warming

    def _begin(self) -> asyncio.Task[None]:
        """Have it warmed up, once; where it is mounted, the first who asks has to, as nobody says when it starts."""
        self._warming = self._warming or asyncio.create_task(self._warm())
        return self._warming

    async def _warm(self) -> None:
        data = (resources.files("funduscope.examples") / "retina_cc0.jpg").read_bytes()
        try:
            for _ in range(_WARM):
                await asyncio.wrap_future(self._screener.submit(data))
        except Exception:
            _log.exception("the models do not run; the service does not become ready")
        else:
            self._ready = True

    async def live(self, request: Request) -> Response:
        """It answers."""
        return JSONResponse({"live": True})

    async def is_ready(self, request: Request) -> Response:
        """It can screen."""
        self._begin()
        return JSONResponse({"ready": self._ready}, 200 if self._ready else 503)

    async def figures(self, request: Request) -> Response:
        """For Prometheus."""
        return PlainTextResponse(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def description(self, request: Request) -> Response:
        """In OpenAPI."""
        return JSONResponse(self._description)

    async def page(self, request: Request) -> Response:
        """For people."""
        return self._page

    async def models(self, request: Request) -> Response:
        """What the open models decide, and from where on."""
        return JSONResponse(self._models)

    def _expect_ready(self) -> None:
        """Before the body is taken. Raises HTTPException: 429, 503."""
        self._begin()
        if not self._ready:
            raise problems.busy(503, "the models are not ready yet; try again later")
        self._queue.expect_room()

    async def server(self, request: Request) -> Response:
        """What it speaks."""
        return JSONResponse(inference.SERVER)

    def _contract(self, request: Request) -> Contract:
        """Of the model that is asked. Raises HTTPException: 404."""
        found = next((own for own in self._screener.contracts if own.name == request.path_params["name"]), None)
        if found is None:
            names = ", ".join(own.name for own in self._screener.contracts)
            raise HTTPException(404, f"there is no such model; there are: {names}")
        return found

    async def model(self, request: Request) -> Response:
        """A model's metadata."""
        return JSONResponse(inference.described(self._contract(request)))

    async def model_ready(self, request: Request) -> Response:
        """It can be asked."""
        self._begin()
        content = {"name": self._contract(request).name, "ready": self._ready}
        return JSONResponse(content, 200 if self._ready else 503)

    async def infer(self, request: Request) -> Response:
        """One model's outputs for prepared squares."""
        contract = self._contract(request)
        self._expect_ready()
        body = await bodies.whole(request, self._settings)
        length = request.headers.get(inference.LENGTH)
        asked = await run_in_threadpool(inference.Inference, contract, body, length)
        outputs = await self._queue.run(contract.name, asked.images)
        return await run_in_threadpool(asked.answer, outputs)

    async def screenings(self, request: Request) -> Response:
        """Screen the pictures of one request."""
        self._expect_ready()
        wanted, form = _Wanted.of(request), formats.asked(request)
        in_dicom = not wanted.picture and formats.is_dicom(form)
        if in_dicom:
            await run_in_threadpool(formats.expect_dicom)
        sources = await bodies.pictures(request, self._settings)
        if wanted.picture and len(sources) != 1:
            raise HTTPException(400, f"only one picture can be drawn, and there are {len(sources)}")
        if form == formats.DICOM and len(sources) != 1:
            told = f'there are {len(sources)} pictures; ask for {formats.RELATED}; type="{formats.DICOM}"'
            raise HTTPException(400, f"{formats.DICOM} is the report of one picture, and {told}")
        found = await self._queue.screen(sources, keep_photo=wanted.picture or wanted.layers)
        self.metrics.pictures(found)
        if wanted.picture and isinstance(found[0], Screening):
            return await run_in_threadpool(wanted.draw, found[0])
        if in_dicom and any(isinstance(result, Screening) for result in found):
            return await run_in_threadpool(formats.as_dicom, form, sources, found)
        is_form = bodies.media_type(request) == bodies.FORM
        unusable = wanted.picture or in_dicom or (not is_form and found[0].status == "error")
        status = 422 if unusable else 200
        if form == formats.FHIR:
            return formats.as_fhir(found, self.notice, status)
        content: dict[str, Any] = {"notice": self.notice, "screenings": [result.to_dict() for result in found]}
        if is_form:
            content["patients"] = _patients(found)
        if wanted.layers:
            content["layers"] = await run_in_threadpool(lambda: [_layers(result) for result in found])
        return JSONResponse(content, status)


@dataclass(frozen=True)
class _Wanted:
    """What a request wants beside rows, or in their place.

    Attributes:
        heat: The picture with the heat of this disease.
        overlay: The picture with its contours.
        photo: The picture as it is.
        layers: Rows, and what is drawn of each picture apart from it.
    """

    heat: str = ""
    overlay: bool = False
    photo: bool = False
    layers: bool = False

    @staticmethod
    def of(request: Request) -> _Wanted:
        """Raises HTTPException: 400."""
        asked = dict(request.query_params)
        heat = asked.pop("heat", "")
        flags = {name: asked.pop(name, "") in ("1", "true") for name in ("overlay", "photo", "layers")}
        if asked:
            told = f"{len(asked)} unknown parameters; there are: heat, {', '.join(flags)}"
            raise HTTPException(400, told, problems.CLOSE)
        return _Wanted(heat, **flags)

    @property
    def picture(self) -> bool:
        """Whether the answer is a picture."""
        return bool(self.heat) or self.overlay or self.photo

    def draw(self, result: Screening) -> Response:
        """The picture that is wanted. Raises HTTPException: 422 where there is no such."""
        if self.heat or self.overlay:
            return layers.drawn(result, self.heat)
        return layers.shown(result.seen())


def _layers(result: Result) -> dict[str, Any]:
    return layers.of(result, result.seen() if isinstance(result, Screening) else None)


def _patients(results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row for each patient, as patients.csv has them. Pictures that name none are of one, whose name is null."""
    found: dict[str | None, Patient] = {}
    for result in results:
        name = result.eyes.patient
        found.setdefault(name, Patient(name or "")).add(result)
    return [patient.to_dict() | {"patient": name} for name, patient in found.items()]
