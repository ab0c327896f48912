"""Which errors of a database are over after a while, and are worth waiting for.

A restart, a fail-over, a locked file and a full line for connections pass by themselves. A wrong password, a
missing table, a broken constraint and a full disk do not: whoever waits for those only learns of them later.
"""

import sqlite3

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

# SQLSTATEs of PostgreSQL: https://www.postgresql.org/docs/current/errcodes-appendix.html
PASSING = {
    "57P01",  # admin_shutdown: it ends our connection, since it is restarted
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now: it is starting, or shutting down
    "53300",  # too_many_connections
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "55P03",  # lock_not_available
}
CONNECTION_LOST = "08"  # the class of all errors of a connection
# A refused connection has no code; these words of the server say that it will be refused again.
HOPELESS = ("authentication failed", "does not exist", "pg_hba.conf", "permission denied", "is not permitted")
BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}  # another process has the file for itself


def worth_waiting_for(error: BaseException) -> bool:
    """Whether the same statement may go well after a while.

    Args:
        error: what SQLAlchemy raised, or the driver's own error.
    """
    if isinstance(error, (NoConnectionFree, TimeoutError)):
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or worth_waiting_for(error.orig or error)
    if isinstance(error, psycopg.OperationalError):
        return is_passing(error)
    return isinstance(error, sqlite3.OperationalError) and is_busy(error)


def is_locked(error: BaseException) -> bool:
    """Whether SQLAlchemy found an SQLite file locked."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    return isinstance(cause, sqlite3.OperationalError) and is_busy(cause)


def is_passing(error: psycopg.OperationalError) -> bool:
    """Whether PostgreSQL is away for now."""
    code = error.sqlstate
    if code is None:
        return not any(words in str(error) for words in HOPELESS)
    return code in PASSING or code.startswith(CONNECTION_LOST)


def is_busy(error: sqlite3.OperationalError) -> bool:
    """Whether another process has the SQLite file; the lower byte of a code is its kind."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in BUSY
