"""`llama stack`: what is listed and shown, files that are configured and built, and a server that runs one."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

import llamakit
from llamakit.cli.stack_build import Target
from llamakit.core.files import write_durably
from llamakit.providers.specs import Api
from llamakit.stack.distribution_file import load, own_folder, shipped

ROOT = Path(__file__).parents[3]
SRC = Path(llamakit.__file__).parents[1]
ECHO = """
about: For tests.
providers:
  inference:
    - {provider_id: echo, provider_type: "inline::echo"}
models:
  - {model_id: said, provider_model_id: echo}
storage: {database: ":memory:"}
server: {port: "${env.ECHO_PORT:=0}"}
apis: [inference]
"""


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOGETHER_API_KEY", "VLLM_URL", "POSTGRES_URL", "DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_what_there_is(llama) -> None:
    distros = {row["name"]: row for row in json.loads(llama("stack", "list-distros", "--json").stdout)}
    assert set(distros) == set(shipped()) and distros["together"]["missing"] == ["TOGETHER_API_KEY"]
    assert distros["cloud-any"]["missing"][0].startswith("one of TOGETHER_API_KEY, ")
    assert distros["onprem"]["missing"] == ["POSTGRES_URL", "LLAMA_API_KEY", "one of VLLM_URL, TGI_URL"]
    assert distros["local"] | {"about": ""} == {"name": "local", "about": "", "place": "package", "missing": []}
    apis = {row["api"]: row for row in json.loads(llama("stack", "list-apis", "--json").stdout)}
    assert apis["chat"]["operations"] >= 1 and apis["inference"]["providers"] > 20
    providers = json.loads(llama("stack", "list-providers", "inference", "--json").stdout)
    assert {"inline::local", "remote::vllm", "remote::anthropic"} <= {row["provider_type"] for row in providers}
    for listing in ("list-distros", "list-apis", "list-providers"):
        assert len(llama("stack", listing).stdout.splitlines()) > 5
    refused = llama("stack", "list-providers", "inferense")
    assert refused.exit_code == 2 and "nearest: 'inference'" in refused.stderr


def test_show(llama, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = llama("stack", "show", "onprem")
    assert "${env.POSTGRES_URL}" in shown.stdout and re.search(r"POSTGRES_URL +MUST BE SET", shown.stderr)
    made = json.loads(llama("stack", "show", "onprem", "--json").stdout)
    assert "POSTGRES_URL" in made["error"]
    monkeypatch.setenv("POSTGRES_URL", "postgresql://u:hunter2@h/d")
    monkeypatch.setenv("VLLM_URL", "http://v:8000")
    monkeypatch.setenv("LLAMA_API_KEY", "sk-hunter2-hunter2")
    result = llama("stack", "show", "onprem", "--json")
    made = json.loads(result.stdout)["distribution"]
    assert "hunter2" not in result.output and made["storage"]["database"] == "postgresql://u:***@h/d"
    assert [row["provider_id"] for row in made["providers"]["inference"]] == ["vllm"]
    unknown = llama("stack", "show", "onprm")
    assert unknown.exit_code == 2 and "nearest: 'onprem'" in unknown.stderr


def test_configure_asks_for_what_is_missing(llama, world: Path) -> None:
    result = llama("stack", "configure", "vllm", input="http://10.0.0.5:9000\n" + "\n" * 9)
    assert result.exit_code == 0, result.output
    path = own_folder() / "vllm.yaml"
    assert path.stat().st_mode & 0o777 == 0o600 and "Enter keeps 8321" in result.stderr
    assert "base_url: ${env.VLLM_URL:=http://10.0.0.5:9000}" in path.read_text() and "# The models" in path.read_text()
    assert load("vllm", {}).of(Api.inference)[0].config["base_url"] == "http://10.0.0.5:9000"
    assert load("vllm", {"VLLM_URL": "http://other"}).of(Api.inference)[0].config["base_url"] == "http://other"


def test_an_answer_that_brings_in_a_provider_asks_for_the_rest(llama) -> None:
    asked = llama("stack", "configure", "cloud-any", input="\n\n\n\n\n\n\n\ndapi-token\n\n" + "\n" * 9)
    assert asked.exit_code == 0 and "DATABRICKS_HOST (must be set" in asked.stderr
    assert "Still to be set in the environment: DATABRICKS_HOST" in asked.stderr
    made = load("cloud-any", {"DATABRICKS_HOST": "dbc"})
    assert [row.provider_id for row in made.of(Api.inference)] == ["databricks"]


def test_configure_without_anybody_to_ask(llama, world: Path) -> None:
    result = llama("stack", "configure", "onprem", "--set", "VLLM_URL=http://v:8000", "--set", "LLAMA_PORT=9000")
    assert result.exit_code == 0, result.output
    assert "Still to be set in the environment: POSTGRES_URL, LLAMA_API_KEY" in result.stderr
    made = load("onprem", {"POSTGRES_URL": "postgresql://h/d", "LLAMA_API_KEY": "sk-0123456789"})
    assert made.server.port == 9000 and [row.provider_id for row in made.of(Api.inference)] == ["vllm"]
    assert llama("stack", "configure", "edge", "--yes", "-o", "mine.yaml").exit_code == 0
    assert load("./mine.yaml", {}).server.offline


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["vllm", "--set", "VLM_URL=x"], "reads no variable 'VLM_URL'; nearest: 'VLLM_URL'"),
        (["vllm", "--set", "VLLM_URL"], "--set takes NAME=VALUE"),
        (["vllm", "--set", "VLLM_URL=a}b"], "set the variable VLLM_URL instead"),
        (["vllm", "--set", "LLAMA_PORT=99999"], "port must be in"),
        (["vlm", "--yes"], "nearest: 'vllm'"),
    ],
)
def test_what_cannot_be_configured(llama, arguments: list[str], told: str) -> None:
    result = llama("stack", "configure", *arguments)
    assert result.exit_code == 2 and told in result.stderr and not own_folder().exists()


@pytest.mark.parametrize("name", shipped())
def test_what_is_built_for_containers(llama, world: Path, name: str) -> None:
    result = llama("stack", "build", name, "--json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    folder = world / name
    assert {Path(file).name for file in made["files"]} == {path.name for path in folder.iterdir()}
    assert (folder / "distribution.yaml").read_text() == (SRC / f"llamakit/stack/distributions/{name}.yaml").read_text()
    check_containerfile((folder / "Containerfile").read_text(), needs_torch=name in ("local", "edge"))
    check_compose(yaml.safe_load((folder / "compose.yaml").read_text()), name)
    check_kubernetes(list(yaml.safe_load_all((folder / "kubernetes.yaml").read_text())), name)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.search(r"\[(.*)\]", made["requirement"])
    assert set(named[1].split(",") if named else []) <= set(extras)


def check_containerfile(text: str, *, needs_torch: bool) -> None:
    words = {line.split()[0] for line in text.splitlines() if line and not line.startswith(("#", " "))}
    assert words >= {"FROM", "RUN", "COPY", "USER", "ENV", "EXPOSE", "ENTRYPOINT", "HEALTHCHECK"}
    assert json.loads(text.partition("ENTRYPOINT ")[2])[:3] == ["llama", "stack", "run"]
    assert ("PIP_EXTRA_INDEX_URL" in text) == ("torch]" in text) == needs_torch
    assert "USER 10001" in text and "KEY" not in text and "type=secret,id=pip" in text


def check_compose(made: dict[str, Any], name: str) -> None:
    server = made["services"][name]
    assert server["environment"]["LLAMA_API_KEY"].startswith("${LLAMA_API_KEY:?")
    assert server["read_only"] and server["cap_drop"] == ["ALL"] and server["ports"] == ["127.0.0.1:8321:8321"]
    assert ("postgres" in made["services"]) == (name == "onprem") and ("mem_limit" in server) == (name == "edge")
    assert "127.0.0.1" not in json.dumps(server["environment"])
    for service in made["services"].values():
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in made["volumes"]


def check_kubernetes(made: list[dict[str, Any]], name: str) -> None:
    kinds = {each["kind"]: each for each in made}
    first = "PodDisruptionBudget" if name == "onprem" else "PersistentVolumeClaim"
    assert list(kinds) == [first, "Deployment", "Service", "NetworkPolicy"]
    spec = kinds["Deployment"]["spec"]
    pod = spec["template"]["spec"]
    kept = next(volume for volume in pod["volumes"] if volume["name"] == "data")
    assert spec["replicas"] == (2 if name == "onprem" else 1) and ("emptyDir" in kept) == (name == "onprem")
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == kinds["Service"]["spec"]["selector"] == labels
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    assert all("value" in variable or "secretKeyRef" in variable["valueFrom"] for variable in container["env"])
    secret = [variable["name"] for variable in container["env"] if "valueFrom" in variable]
    assert "LLAMA_API_KEY" in secret and ("resources" in container) == (name == "edge")
    plain = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
    assert (
        "127.0.0.1" not in json.dumps(plain) and plain.get("OLLAMA_URL", "http://ollama:11434") == "http://ollama:11434"
    )
    egress = kinds["NetworkPolicy"]["spec"].get("egress")
    assert egress == ([] if name == "edge" else None)


def test_manifests_against_kubernetes_own_schema(llama, world: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for name in ("onprem", "edge"):
        assert llama("stack", "build", name, "--target", "kubernetes").exit_code == 0
        for each in yaml.safe_load_all((world / name / "kubernetes.yaml").read_text()):
            validate.validate(each, "1.31", strict=True)


def test_containerfiles_against_the_rules_of_hadolint(llama, world: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    for name in ("local", "onprem"):
        assert llama("stack", "build", name, "--target", "container").exit_code == 0
        subprocess.run([hadolint, world / name / "Containerfile"], check=True)


def test_a_wheel_travels_with_the_containerfile(llama, world: Path) -> None:
    (world / "llamakit-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    arguments = ("stack", "build", "local", "--package", "./llamakit-0.1.0-py3-none-any.whl", "-o", "out")
    assert llama(*arguments).exit_code == 0
    text = (world / "out" / "Containerfile").read_text()
    assert "--mount=type=bind,source=llamakit-0.1.0-py3-none-any.whl" in text
    assert '"/tmp/llamakit-0.1.0-py3-none-any.whl[mcp,torch]"' in text
    assert (world / "out" / "llamakit-0.1.0-py3-none-any.whl").read_bytes() == b"wheel"
    assert llama("stack", "build", "onprem", "--print-deps").stdout == "llamakit[mcp,postgres]\n"


def test_what_cannot_be_built(llama, world: Path) -> None:
    (world / "Mine.yaml").write_text(ECHO)
    assert "lower-case letters" in llama("stack", "build", "./Mine.yaml").stderr
    (world / "mine.yaml").write_text(ECHO)
    assert "reads no key from LLAMA_API_KEY" in llama("stack", "build", "./mine.yaml").stderr
    assert "no file" in llama("stack", "build", "local", "--package", "./none.whl").stderr
    (world / "local").write_text("a file")
    assert "--output names a directory" in llama("stack", "build", "local").stderr


def test_dry_run(llama, world: Path) -> None:
    (world / "mine.yaml").write_text(ECHO)
    result = llama("stack", "run", "./mine.yaml", "--dry-run")
    assert result.exit_code == 0 and "inline::echo" in result.stdout and "can be started" in result.stderr
    refused = llama("stack", "run", "together", "--dry-run")
    assert refused.exit_code == 2 and "TOGETHER_API_KEY (for providers.inference[0].config.api_key)" in refused.stderr
    (world / "bad.yaml").write_text(ECHO.replace("inline::echo", "inline::ecko"))
    assert "nearest: 'inline::echo'" in llama("stack", "run", "./bad.yaml", "--dry-run").stderr
    assert "--env takes NAME=VALUE" in llama("stack", "run", "./mine.yaml", "--env", "X").stderr


def run_stack(world: Path, *arguments: str, **environ: str) -> tuple[subprocess.Popen[str], str]:
    """`llama stack run` in a process of its own, and its address."""
    environ = {"PYTHONPATH": str(SRC), "PATH": "/usr/bin:/bin", "LLAMA_HOME": str(world / "home"), **environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "llamakit", "stack", "run", *arguments],
        env=environ | {"HOME": str(world)}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    told = ""
    for line in process.stderr:
        told += line
        if found := re.search(r"serving on (http://\S+)|\"message\": \"serving on (http://[^\"]+)\"", line):
            return process, found[1] or found[2]
    process.communicate()
    raise AssertionError(told)


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in told, told


def test_run_serves_the_apis_that_are_named_and_no_other(world: Path) -> None:
    (world / "mine.yaml").write_text(ECHO)
    process, url = run_stack(world, "./mine.yaml", "--port", "0")
    try:
        asked = {"model": "said", "messages": [{"role": "user", "content": "hello"}]}
        assert httpx2.post(f"{url}/v1/chat/completions", json=asked).json()["model"] == "said"
        assert [model["id"] for model in httpx2.get(f"{url}/v1/models").json()["data"]] == ["said"]
        assert httpx2.get(f"{url}/v1/responses/resp_x").status_code == 404
        assert "/v1/responses" not in httpx2.get(f"{url}/openapi.json").json()["paths"]
    finally:
        stop(process)
    (world / "bad.yaml").write_text(ECHO.replace("apis: [inference]", "apis: [chatt]"))
    with pytest.raises(AssertionError, match="no API 'chatt'; nearest: 'chat'"):
        run_stack(world, "./bad.yaml")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_virtual_environment_for_real(llama, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package installed by pip into an empty environment, which then serves by the file beside it."""
    # Who only asks other servers computes nothing, so the kernels need not be compiled.
    monkeypatch.setenv("SKBUILD_WHEEL_CMAKE", "false")
    result = llama("stack", "build", "vllm", "--target", "venv", "--package", str(ROOT), "-o", "made")
    assert result.exit_code == 0, result.output
    command = world / "made" / "venv" / "bin" / "llama"
    listed = subprocess.run([command, "stack", "list-distros", "--json"], capture_output=True, text=True, check=True)
    assert {row["name"] for row in json.loads(listed.stdout)} == set(shipped())
    shown = subprocess.run([command, "stack", "run", world / "made" / "distribution.yaml", "--dry-run"], check=True)
    assert shown.returncode == 0
    installed = subprocess.run(
        [world / "made/venv/bin/pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    )
    names = {row["name"] for row in json.loads(installed.stdout)}
    assert "torch" not in names and "llamakit" in names


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed")
def test_the_containerfile_is_understood_by_buildah(llama, world: Path) -> None:
    """Every step but the base image, which no network-less machine has: an empty one with this Python stands in."""
    assert llama("stack", "build", "vllm", "--target", Target.container.value, "-o", "out").exit_code == 0
    text = (world / "out" / "Containerfile").read_text()
    steps = [line for line in text.splitlines() if not line.startswith(("RUN", "ARG PYTHON", "FROM"))]
    write_durably(world / "out" / "Containerfile", ("FROM scratch\n" + "\n".join(steps) + "\n").encode())
    store = ["--root", str(world / "store"), "--runroot", str(world / "run"), "--storage-driver", "vfs"]
    done = subprocess.run(
        ["buildah", *store, "bud", "--isolation", "chroot", "-t", "made", str(world / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(["buildah", *store, "inspect", "made"], capture_output=True, text=True, check=True)
    config = json.loads(shown.stdout)["OCIv1"]["config"]
    assert config["User"] == "10001" and config["Entrypoint"][:3] == ["llama", "stack", "run"]
