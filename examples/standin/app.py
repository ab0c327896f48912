"""The stand-in services as one ASGI app.

A further service is one more module with its protocol, and one more line in `create_app`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.applications import Starlette

from examples.standin.admin import Admin, turn
from examples.standin.clock import Clock, RealClock, ServiceTime
from examples.standin.ledger import Ledger
from examples.standin.service import Service
from examples.standin.text import Text, TextSwitches


@dataclass(frozen=True, slots=True)
class Config:
    """How the stand-in starts."""

    speed: float = 1.0  # service seconds that pass in a second on the wall
    seed: int = 0  # of latencies, faults and answers
    switches: Mapping[str, Mapping[str, object]] = field(default_factory=dict[str, Mapping[str, object]])


def create_app(config: Config | None = None, clock: Clock | None = None) -> Starlette:
    """The app; `clock` drives its wall time (default: the machine's). ValueError if a switch is wrong."""
    config = config or Config()
    time, ledger = ServiceTime(clock or RealClock(), config.speed), Ledger()
    text = Service("text", TextSwitches(), time, ledger, config.seed)
    services = {service.name: service for service in (text,)}
    turn(services, config.switches)
    for service in services.values():
        service.reset()  # full to the burst that was asked for
    app = Starlette(routes=[*Admin(services, ledger).routes(), *Text(text).routes()])
    app.state.ledger = ledger
    return app
