"""PostgreSQL for the tests of this room that need both engines."""

from tests.postgres import postgres_server

__all__ = ["postgres_server"]
