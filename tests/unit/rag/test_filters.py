import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.core.errors import InvalidRequest
from llamakit.rag.filters import check_attributes, columns, matches, parse_filter, to_sql

VALUES = st.one_of(st.text(max_size=6), st.integers(-9, 9), st.floats(-9, 9), st.booleans())
NAMES = st.sampled_from(["a", "b", "c'; --", "ü"])
COMPARES = st.builds(
    lambda operator, name, value: {"type": operator, "key": name, "value": value},
    st.sampled_from(["eq", "ne"]), NAMES, VALUES,
) | st.builds(
    lambda operator, name, value: {"type": operator, "key": name, "value": value},
    st.sampled_from(["gt", "gte", "lt", "lte"]), NAMES, st.one_of(st.text(max_size=6), st.integers(-9, 9)),
) | st.builds(
    lambda operator, name, values: {"type": operator, "key": name, "value": values},
    st.sampled_from(["in", "nin"]), NAMES, st.lists(VALUES, min_size=1, max_size=3),
)  # fmt: skip
TREES = st.recursive(
    COMPARES,
    lambda parts: st.builds(
        lambda operator, filters: {"type": operator, "filters": filters},
        st.sampled_from(["and", "or"]),
        st.lists(parts, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@given(TREES, st.lists(st.dictionaries(NAMES, VALUES, max_size=4), max_size=6))
@settings(max_examples=200, deadline=None)
def test_sql_decides_as_the_plain_rule_does(tree, documents):
    try:
        filter = parse_filter(tree)
    except InvalidRequest:
        return  # deeper than allowed
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE documents (id INTEGER)")
    connection.execute("CREATE TABLE attributes (document INTEGER, name TEXT, text TEXT, number REAL)")
    for n, attributes in enumerate(documents):
        connection.execute("INSERT INTO documents VALUES (?)", (n,))
        for name, value in attributes.items():
            connection.execute("INSERT INTO attributes VALUES (?, ?, ?, ?)", (n, name, *columns(value)))
    args: list = []
    condition = to_sql(filter, args, document="d.id")
    found = {row[0] for row in connection.execute(f"SELECT d.id FROM documents d WHERE {condition}", args)}
    connection.close()
    assert found == {n for n, attributes in enumerate(documents) if matches(filter, attributes)}


@pytest.mark.parametrize(
    "tree",
    [
        None, [], {}, "a = 1", {"type": "eq"}, {"type": "eq", "key": "a"}, {"type": "like", "key": "a", "value": "%"},
        {"type": "eq", "key": "", "value": 1}, {"type": "eq", "key": "a" * 257, "value": 1},
        {"type": "eq", "key": "a", "value": None}, {"type": "eq", "key": "a", "value": float("nan")},
        {"type": "eq", "key": "a", "value": 2**63}, {"type": "eq", "key": "a", "value": {"$gt": ""}},
        {"type": "eq", "key": "a", "value": [1]}, {"type": "gt", "key": "a", "value": True},
        {"type": "in", "key": "a", "value": []}, {"type": "in", "key": "a", "value": list(range(65))},
        {"type": "and", "filters": []}, {"type": "and", "filters": {}}, {"type": "not", "filters": []},
        {"type": "eq", "key": "a", "value": 1, "extra": 1}, {"type": "eq", "key": 1, "value": 1},
        {"type": "and", "filters": [{"type": "eq", "key": "a", "value": 1}] * 65},
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused(tree):
    with pytest.raises(InvalidRequest, match="a filter"):
        parse_filter(tree)


def test_depth_is_bounded():
    tree: dict = {"type": "eq", "key": "a", "value": 1}
    for _ in range(100_000):
        tree = {"type": "and", "filters": [tree]}
    with pytest.raises(InvalidRequest, match="deeper"):
        parse_filter(tree)
    while "filters" in tree:  # taken apart here, since freeing it at once would recurse
        (tree,) = tree["filters"]


@pytest.mark.parametrize(
    "attributes",
    [{"a": None}, {"": 1}, {"a": [1]}, {"a": float("inf")}, {"a" * 300: 1}, {"a": "x" * 5000}]
    + [{str(n): 1 for n in range(65)}],
)
def test_attributes_that_cannot_be_compared_are_refused(attributes):
    with pytest.raises(InvalidRequest, match="attribute"):
        check_attributes(attributes)
