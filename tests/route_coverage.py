"""`pytest --routes`: every operation of the OpenAPI document, and the tests that reached it over HTTP.

What counts is a request that a server of this process matched to the route and did not refuse as unknown or
mis-typed by its body: an answer below 400, or an error of a route that is all about errors. Servers in other
processes are not seen.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

REACHED: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
"""Method and path of an operation to the tests that reached it, with the best status each got."""
_now = [""]
SHOWN = 3
"""Tests that are named per operation; the rest is counted."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option."""
    parser.addoption("--routes", action="store_true", help="print every route and the tests that reach it")


def pytest_configure(config: pytest.Config) -> None:
    """Watch the books of every server of this process."""
    if not config.getoption("--routes"):
        return
    from llamakit.server.metrics import Metrics

    seen = Metrics.seen

    def watched(self: Metrics, exchange: Any, *args: Any, **named: Any) -> None:
        tests = REACHED[exchange.method, exchange.route]
        tests[_now[0]] = min(exchange.status or 599, tests.get(_now[0], 599))
        seen(self, exchange, *args, **named)

    Metrics.seen = watched


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """Note whose requests are coming."""
    _now[0] = item.nodeid
    return (yield)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The list."""
    if not config.getoption("--routes"):
        return
    from tests.serving import echo_app

    from llamakit.server.app import operations_of

    terminalreporter.section("routes")
    operations = sorted(operations_of(echo_app()), key=lambda operation: (operation.path, operation.method))
    unreached = []
    for operation in operations:
        tests = REACHED.get((operation.method, operation.path), {})
        good = sorted(name for name, status in tests.items() if status < 400)
        if not good:
            unreached.append(operation)
        names = [*good[:SHOWN], *([f"and {len(good) - SHOWN} more"] if len(good) > SHOWN else [])]
        terminalreporter.write_line(f"{operation.method:6} {operation.path}: {', '.join(names) or 'NO TEST'}")
    terminalreporter.write_line(f"{len(operations) - len(unreached)} of {len(operations)} routes answered a test")
