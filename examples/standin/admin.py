"""The way in for tests and load tests: switches, ledger, summary, reset. Needs no key, uses no quota."""

from collections.abc import Mapping
from typing import Any

from pydantic import RootModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.standin.ledger import Entry, Ledger
from examples.standin.pipeline import bounds
from examples.standin.service import Service
from examples.standin.summary import largest, summary


class Changes(RootModel[dict[str, dict[str, object]]]):
    """Switches to turn: by service, by name."""


class Paths(RootModel[list[list[list[tuple[str, str]]]]]):
    """What each result needs: stages one after another, of calls side by side; each by service and key."""


class Admin:
    """What is behind /standin."""

    def __init__(self, services: Mapping[str, Service[Any]], ledger: Ledger) -> None:
        self._services = services
        self._ledger = ledger

    def routes(self) -> list[Route]:
        return [
            Route("/standin/switches", self.show, methods=["GET"]),
            Route("/standin/switches", self.change, methods=["PUT"]),
            Route("/standin/ledger", self.ledger, methods=["GET"]),
            Route("/standin/summary", self.summary, methods=["GET"]),
            Route("/standin/bound", self.bound, methods=["POST"]),
            Route("/standin/reset", self.reset, methods=["POST"]),
        ]

    async def show(self, _: Request) -> Response:
        """All switches as they are."""
        switches = {name: service.switches.model_dump() for name, service in self._services.items()}
        return JSONResponse(switches)

    async def change(self, request: Request) -> Response:
        """Turn the switches that are named, and leave the others: {"text": {"rate": 0.5}}."""
        try:
            turn(self._services, Changes.model_validate_json(await request.body()).root)
        except ValueError as fault:  # pydantic's is one
            return JSONResponse({"error": str(fault)}, status_code=400)
        return await self.show(request)

    async def ledger(self, request: Request) -> Response:
        """The lines of all calls from index `since` on, oldest first."""
        entries = self.entries()
        lines = [entry.line() for entry in entries[since(request) :]]
        return JSONResponse({"next": len(entries), "entries": lines})

    async def summary(self, request: Request) -> Response:
        """The figures of the calls from index `since` on."""
        return JSONResponse(summary(self.entries(), since(request)))

    async def bound(self, request: Request) -> Response:
        """The quota bound of the calls from index `since` on, for results that need several services."""
        try:
            paths = Paths.model_validate_json(await request.body()).root
        except ValueError as fault:
            return JSONResponse({"error": str(fault)}, status_code=400)
        services = bounds(self.entries()[since(request) :], paths)
        return JSONResponse({"bound_seconds": largest(services.values()), "services": services})

    def entries(self) -> list[Entry]:
        """The ledger as of now."""
        for service in self._services.values():
            service.catch_up()
        return self._ledger.entries

    async def reset(self, _: Request) -> Response:
        """A new run: an empty ledger, full buckets, nothing asked before. Switches stay."""
        self._ledger.clear()
        for service in self._services.values():
            service.reset()
        return JSONResponse({"next": 0})


def turn(services: Mapping[str, Service[Any]], changes: Mapping[str, Mapping[str, object]]) -> None:
    """Turn switches: all that are named, or none if one of them is wrong (ValueError)."""
    if unknown := changes.keys() - services.keys():
        raise ValueError(f"no such service: {', '.join(sorted(unknown))}; there are {', '.join(services)}")
    checked = {name: services[name].switches.changed(switches) for name, switches in changes.items()}
    for name, switches in checked.items():
        services[name].turn(switches)


def since(request: Request) -> int:
    """The index from which on the caller wants to know; the start, if it is no number."""
    text = request.query_params.get("since", "0")
    return int(text) if text.isascii() and text.isdigit() else 0
