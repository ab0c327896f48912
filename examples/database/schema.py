"""The tables are made on the first run, and grow with the code: by tables, and by columns that may be null.

So there is nothing to be run before the workers, an older file goes on working, and workers of the last
release go on working with the new tables. What this cannot do (rename, change a type, fill in values) is
where a tool such as Alembic begins.
"""

from collections.abc import Iterator

from sqlalchemy import Column, Connection, MetaData, inspect
from sqlalchemy.schema import CreateColumn

LOCK = 0x666C6173  # any number that nobody else locks by


def is_complete(connection: Connection, metadata: MetaData) -> bool:
    """Whether all tables and columns are there."""
    there = set(inspect(connection).get_table_names())
    return there >= metadata.tables.keys() and not any(new_columns(connection, metadata))


def complete(connection: Connection, metadata: MetaData) -> None:
    """Make what is not there yet; the transaction around this lets one process at a time do so."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({LOCK})")
    metadata.create_all(connection)
    for column in new_columns(connection, metadata):
        preparer = connection.dialect.identifier_preparer
        definition = CreateColumn(column).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"alter table {preparer.format_table(column.table)} add {definition}")


def new_columns(connection: Connection, metadata: MetaData) -> Iterator[Column[object]]:
    """The columns that the tables of an older release lack."""
    inspector = inspect(connection)
    for (_, name), columns in inspector.get_multi_columns(filter_names=list(metadata.tables)).items():
        there = {column["name"] for column in columns}
        yield from (column for column in metadata.tables[name].columns if column.name not in there)
