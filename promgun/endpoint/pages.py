"""What is found where: from a parsed request to its answer."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

from promgun.endpoint import answers, html
from promgun.endpoint.answers import REFUSALS, Answer, Headers
from promgun.endpoint.coalescing import SharedCollections
from promgun.endpoint.negotiation import Form, choose_form
from promgun.endpoint.rendering import Renderer
from promgun.metrics.late_label_values import EndpointRefusal
from promgun.status.from_page import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import h11
    from prometheus_client.core import Metric

    from promgun.endpoint.access import Access, Peer
    from promgun.endpoint.counts import EndpointCounts
    from promgun.endpoint.error_boundary import ErrorBoundary
    from promgun.endpoint.limits import Limits

    Reply: TypeAlias = Answer | asyncio.Future[Answer]
    Pages: TypeAlias = SharedCollections[Sequence[Metric], Answer]
    Statuses: TypeAlias = SharedCollections[str, Answer]

# The status has one form, whatever is asked for.
_ONLY_FORM = Form()


class Site:
    """The paths of the endpoint; anything else is refused without a word of the request in the answer."""

    def __init__(
        self,
        rounds: Pages,
        statuses: Statuses,
        healthy: Callable[[], bool],
        ready: Callable[[], bool],
        access: Access,
        faults: ErrorBoundary,
        limits: Limits,
    ) -> None:
        self._rounds = rounds
        self._healthy = healthy
        self._ready = ready
        self._access = access
        self._faults = faults
        self._limits = limits
        self._asking: set[asyncio.Task[Answer]] = set()
        self._routes: dict[bytes, Callable[[h11.Request, str, Peer], Reply]] = {
            b"/": lambda _request, _query, _peer: html.PAGE,
            b"/metrics": self._metrics,
            b"/status.json": lambda _request, _query, _peer: statuses.page(_ONLY_FORM),
            b"/-/healthy": self._health,
            b"/-/ready": self._readiness,
        }

    @property
    def headers(self) -> Headers:
        """What the web configuration adds to every answer."""
        return self._access.headers

    def reply(self, request: h11.Request, peer: Peer, *, is_barred: bool = False) -> Reply:
        """Answer a request, now or when its page is ready; others may wait for that too, so it must not be cancelled.

        ``is_barred`` says that the client's certificate names nobody who may ask.
        """
        path, query = split_target(request.target)
        refusal = refuse(request)
        if refusal is not None:
            return REFUSALS[refusal]
        refused = self._access.refuse(request, path, peer, is_barred=is_barred)
        if refused is not None:
            return refused
        if self._access.needs_credentials(path, peer):
            task = asyncio.get_running_loop().create_task(self._reply_to_known(request, path, query, peer))
            # The loop itself holds a task weakly.
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
            return task
        return self._route(request, path, query, peer)

    async def _reply_to_known(self, request: h11.Request, path: bytes, query: str, peer: Peer) -> Answer:
        refused = await self._access.authenticate(request)
        if refused is not None:
            return refused
        reply = self._route(request, path, query, peer)
        return reply if isinstance(reply, Answer) else await asyncio.shield(reply)

    def _route(self, request: h11.Request, path: bytes, query: str, peer: Peer) -> Reply:
        route = self._routes.get(path)
        return REFUSALS[HTTPStatus.NOT_FOUND] if route is None else route(request, query, peer)

    def _metrics(self, request: h11.Request, query: str, peer: Peer) -> Reply:
        accept, encoding = (_header(request, name) for name in (b"accept", b"accept-encoding"))
        try:
            form = choose_form(accept, encoding, query, self._limits.names)
        except ValueError:
            return REFUSALS[HTTPStatus.BAD_REQUEST]
        return self._rounds.page(form, peer.address)

    def _health(self, _request: h11.Request, _query: str, _peer: Peer) -> Answer:
        return answers.HEALTHY if self._faults.guard(self._healthy) else answers.UNHEALTHY

    def _readiness(self, _request: h11.Request, _query: str, _peer: Peer) -> Answer:
        return answers.READY if self._faults.guard(self._ready) else answers.NOT_READY


def refuse(request: h11.Request) -> HTTPStatus | None:
    """Why a request cannot be answered wherever it goes; ``None`` if it can.

    Both framing headers together is how requests are smuggled (RFC 9112 6.1). Bodies are not wanted at all.
    """
    names = {name for name, _ in request.headers}
    if not request.http_version.startswith(b"1."):
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    if {b"transfer-encoding", b"content-length"} <= names:
        return HTTPStatus.BAD_REQUEST
    if request.method not in answers.METHODS:
        return HTTPStatus.METHOD_NOT_ALLOWED
    if b"expect" in names:
        return HTTPStatus.EXPECTATION_FAILED
    return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if has_body(request) else None


def has_body(request: h11.Request) -> bool:
    """Whether bytes that are not the next request follow the head."""
    framing = (b"transfer-encoding", b"content-length")
    return any(name in framing and value.strip(b"0") for name, value in request.headers)


def is_last(request: h11.Request) -> bool:
    """Whether what follows a request cannot be read as another: a body, or a protocol that is not spoken here."""
    return has_body(request) or not request.http_version.startswith(b"1.")


def split_target(target: bytes) -> tuple[bytes, str]:
    """Split a request target in origin or absolute form (RFC 9112 3.2); others have no path."""
    if not target.startswith(b"/"):
        scheme, _, rest = target.partition(b"://")
        if scheme.lower() not in {b"http", b"https"}:
            return b"", ""
        target = b"/" + rest.partition(b"/")[2]
    path, _, query = target.partition(b"?")
    return path, query.decode("latin-1")


def _header(request: h11.Request, name: bytes) -> str:
    """Join a header that is a list, however many lines it came in (RFC 9110 5.3)."""
    return b",".join(value for found, value in request.headers if found == name).decode("latin-1")


def build_site(
    collect: Callable[[], Sequence[Metric]],
    healthy: Callable[[], bool],
    ready: Callable[[], bool],
    status: Callable[[], str],
    *,
    access: Access,
    counts: EndpointCounts,
    faults: ErrorBoundary,
    limits: Limits,
) -> tuple[Site, tuple[Pages, Statuses]]:
    """Put together what answers; to be called within a running event loop."""
    renderer = Renderer()

    def page(families: Sequence[Metric], form: Form) -> Answer:
        return answers.metrics(renderer.render(families, form), form)

    rounds = SharedCollections(
        collect,
        page,
        answers.UNAVAILABLE,
        faults,
        limits,
        # what ``metrics top --url`` asks for
        always=lambda form: form.names == FAMILIES,
        refused=lambda: counts.refuse(EndpointRefusal.FILTERS),
    )
    statuses = SharedCollections(status, _status, answers.UNAVAILABLE, faults, limits, thread=rounds.thread)
    return Site(rounds, statuses, healthy, ready, access, faults, limits), (rounds, statuses)


def _status(text: str, _form: Form) -> Answer:
    return html.status(text)
