"""The stand-in services as one ASGI app.

A further service is one more module with its protocol, and one more line in `SWITCHES` and in `create_app`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette

from examples.services.clock import Clock, RealClock
from examples.standin.admin import Admin, turn
from examples.standin.clock import ServiceTime
from examples.standin.faults import Switches
from examples.standin.jobs import JobService
from examples.standin.ledger import Ledger
from examples.standin.picture import Picture, PictureSwitches
from examples.standin.service import Service
from examples.standin.sound import Sound, SoundSwitches
from examples.standin.text import Text, TextSwitches

SWITCHES: Mapping[str, type[Switches]] = {
    "text": TextSwitches,
    "picture": PictureSwitches,
    "sound": SoundSwitches,
}


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
    picture = JobService("picture", PictureSwitches(), time, ledger, config.seed)
    sound = Service("sound", SoundSwitches(), time, ledger, config.seed)
    services: dict[str, Service[Any]] = {"text": text, "picture": picture, "sound": sound}
    turn(services, config.switches)
    for service in services.values():
        service.reset()  # full to the burst that was asked for
    protocols = (Admin(services, ledger), Text(text), Picture(picture), Sound(sound))
    app = Starlette(routes=[route for protocol in protocols for route in protocol.routes()])
    app.state.ledger = ledger
    return app
