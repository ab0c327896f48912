"""Where fleets of the examples' workers are tried."""

from tests.examples.conftest import loaded_file, loaded_template  # noqa: F401 - fixtures
from tests.postgres import session_postgres  # noqa: F401 - a fixture
from tests.workers.places import clean, embedded, loadtest, own_servers, place  # noqa: F401 - fixtures
