"""The table of providers: every row can be built, and none is imported before it is asked for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from llamakit.providers.specs import BUILT_IN, Api


def test_rows_are_distinct_and_name_modules_that_exist():
    assert len({(spec.api, spec.name) for spec in BUILT_IN}) == len(BUILT_IN)
    for spec in BUILT_IN:
        module, separator, function = spec.target.partition(":")
        assert separator and function and importlib.util.find_spec(module) is not None, spec
        assert spec.name.startswith(("inline::", "remote::")) and spec.summary
    assert {spec.api for spec in BUILT_IN} == set(Api)


def test_the_table_and_the_server_import_no_provider_and_no_torch():
    code = (
        "import sys, llamakit.providers.specs, llamakit.stack.build, llamakit.server.serve;"
        "bad=[m for m in sys.modules if m.startswith(('torch','llamakit.providers.inline','llamakit.runtime'))];"
        "sys.exit(repr(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
