"""A distribution as something to install: what it needs of the package, a Containerfile, a compose file.

The files are complete and speak for one server; what differs between machines stays in variables, secrets above
all. Knows no container engine and runs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from llamakit import __version__
from llamakit.core.errors import ConfigError
from llamakit.providers.specs import Api
from llamakit.stack.distribution_file import Source
from llamakit.stack.distribution_file import read as read_distribution
from llamakit.stack.resolve import resolve_spec
from llamakit.stack.substitution import Variable, every_variable, variables

PACKAGE = "llamakit"
PORT = 8321
HOME = "/home/llama"
BASE = "docker.io/library/python:3.12-slim"
_VENV = "/opt/llama"
_SECRET = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PAT)(?:_|$)|^POSTGRES_URL$|^LLAMA_STORAGE$")
_LOOPBACK = re.compile(r"(?<=://)(?:127\.0\.0\.1|localhost)(?=[:/]|$)")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,52}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """What the files of a distribution are made from."""

    name: str
    source: Source
    image: str
    package: str
    """What pip installs: a version, a URL, or the file name of a wheel that lies beside the Containerfile."""
    extras: tuple[str, ...]
    variables: tuple[Variable, ...]
    """What it reads of the environment, less what the files set themselves."""
    memory_mib: int | None
    is_offline: bool
    has_database: bool
    """Whether it wants a PostgreSQL server, by the variable POSTGRES_URL."""
    base: str = BASE
    """Image that ours is made from."""

    @property
    def requirement(self) -> str:
        """The line that pip installs, within the image."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        if self.package.endswith(".whl") and "://" not in self.package:
            return f"/tmp/{PurePath(self.package).name}{extras}"
        if "://" in self.package or "/" in self.package:
            return f"{PACKAGE}{extras} @ {self.package}"
        return self.package.replace(PACKAGE, f"{PACKAGE}{extras}", 1)

    @property
    def secrets(self) -> tuple[Variable, ...]:
        """The variables that nobody but the server may read."""
        return tuple(variable for variable in self.variables if is_secret(variable.name))

    @property
    def plain(self) -> tuple[Variable, ...]:
        """The others."""
        return tuple(variable for variable in self.variables if not is_secret(variable.name))


def is_secret(variable: str) -> bool:
    """Whether a variable of that name holds a key or a password."""
    return _SECRET.search(variable) is not None


def bundle(source: Source, *, image: str | None = None, package: str | None = None, base: str | None = None) -> Bundle:
    """What to make the files from; raises `ConfigError` where the distribution cannot be one."""
    if _NAME.fullmatch(source.name) is None:
        raise ConfigError(f"to be built, a name has lower-case letters, digits and '-' only, got {source.name!r}")
    values = source.values()
    read = every_variable(values)
    # What the values will be does not matter for what is installed.
    distribution = read_distribution(source, example_environment(values))
    extras = {
        spec.extra
        for api, rows in distribution.providers.items()
        for spec in (resolve_spec(Api(api), row.provider_type) for row in rows)
        if spec.extra is not None
    }
    has_database = any(variable.name == "POSTGRES_URL" for variable in read)
    if has_database or distribution.storage.database.startswith("postgres"):
        extras.add("postgres")
    ours = {"LLAMA_HOST", "LLAMA_PORT"}
    wanted = [variable for variable in read if variable.name not in ours]
    if not any(variable.name == "LLAMA_API_KEY" for variable in wanted):
        raise ConfigError(
            f"distribution {source.name} reads no key from LLAMA_API_KEY; in a container others reach it, so write "
            "auth: {api_keys: ['${env.LLAMA_API_KEY}']}"
        )
    return Bundle(
        name=source.name,
        source=source,
        image=image or f"{PACKAGE}-{source.name}:{__version__}",
        package=package or f"{PACKAGE}=={__version__}",
        extras=tuple(sorted(extras)),
        variables=tuple(wanted),
        memory_mib=distribution.server.memory_mib,
        is_offline=distribution.server.offline,
        has_database=has_database,
        base=base or BASE,
    )


def example_environment(values: Mapping[str, Any]) -> dict[str, str]:
    """An environment in which whatever a distribution asks for is there, and every entry with it."""
    made = {variable.name: _example(variable.name) for variable in every_variable(values) if variable.need != "default"}
    return made | {v.name: _example(v.name) for v in variables(values, made) if v.need == "required"}


def containerfile(made: Bundle) -> str:
    """How the image is built: nothing in it but Python and the package, run by a user who is not root.

    What the build needs and the image must not hold comes as a mount: the wheel, and pip's settings with what they tell
    of a private index.
    """
    mounts = ["--mount=type=secret,id=pip,target=/etc/pip.conf"]
    if made.package.endswith(".whl") and "://" not in made.package:
        wheel = PurePath(made.package).name
        mounts.append(f"--mount=type=bind,source={wheel},target=/tmp/{wheel}")
    steps = " \\\n    ".join([*mounts, f'{_VENV}/bin/pip install --no-cache-dir "{made.requirement}"'])
    torch = (
        "# Where pip finds torch for computing on processors; build with it empty for CUDA.\n"
        "ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu\n"
        if "torch" in made.extras
        else ""
    )
    return f"""\
# {made.name}: a llamakit server. Build it with: buildah build --format docker -t {made.image} .
# Where pip needs settings of its own (an index, a certificate), add: --secret id=pip,src=pip.conf
# The base is anything with Python 3.11 or newer, venv and useradd; --build-arg PYTHON=... names another.
ARG PYTHON={made.base}
FROM ${{PYTHON}}
RUN useradd --uid 10001 --create-home --home-dir {HOME} llama && mkdir -p {HOME}/data && chown llama {HOME}/data
# An environment of its own, because distributions of Linux keep pip out of theirs.
RUN python3 -m venv {_VENV}
{torch}RUN {steps}
COPY distribution.yaml {HOME}/{made.name}.yaml
USER 10001
WORKDIR {HOME}
ENV PATH={_VENV}/bin:$PATH LLAMA_HOME={HOME}/data LLAMA_HOST=0.0.0.0 LLAMA_PORT={PORT} HF_HOME={HOME}/data/hub
VOLUME {HOME}/data
EXPOSE {PORT}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", "{_PROBE}"]
ENTRYPOINT ["llama", "stack", "run", "{HOME}/{made.name}.yaml"]
"""


_PROBE = f"from urllib import request; request.urlopen('http://127.0.0.1:{PORT}/health', timeout=4)"


def compose(made: Bundle) -> str:
    """The server, and the database it wants, for compose; what must be set is asked for by name."""
    server: dict[str, Any] = {
        "image": made.image,
        "build": {"context": ".", "dockerfile": "Containerfile"},
        "environment": {variable.name: _compose_value(made, variable) for variable in made.variables},
        "ports": [f"127.0.0.1:{PORT}:{PORT}"],
        "volumes": ["data:" + HOME + "/data"],
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "extra_hosts": ["host.docker.internal:host-gateway"],
        "restart": "unless-stopped",
        "stop_grace_period": "40s",
    }
    if made.memory_mib is not None:
        server["mem_limit"] = f"{made.memory_mib}m"
    services: dict[str, Any] = {made.name: server}
    volumes: dict[str, Any] = {"data": None}
    if made.has_database:
        server["depends_on"] = {"postgres": {"condition": "service_healthy"}}
        services["postgres"] = {
            "image": "docker.io/pgvector/pgvector:pg17",
            "environment": {
                "POSTGRES_USER": "llama",
                "POSTGRES_DB": "llama",
                "POSTGRES_PASSWORD": _asked("POSTGRES_PASSWORD"),
            },
            "volumes": ["database:/var/lib/postgresql/data"],
            "healthcheck": {
                "test": ["CMD", "pg_isready", "-U", "llama"],
                "interval": "5s",
                "timeout": "5s",
                "retries": 12,
            },
            "restart": "unless-stopped",
        }
        volumes["database"] = None
    head = f"# {made.name}: start it with docker compose up, or podman compose up.\n"
    return dump(head, [{"name": made.name, "services": services, "volumes": volumes}])


def dump(head: str, documents: Sequence[Mapping[str, Any]]) -> str:
    """YAML documents in the order they are written, under a comment."""
    texts = [yaml.safe_dump(dict(document), sort_keys=False, width=120) for document in documents]
    return head + "---\n".join(texts)


def elsewhere(default: str, host: str) -> str:
    """A default as it is meant where this machine's own address is another: in a container, in a pod."""
    return _LOOPBACK.sub(host, default)


def _compose_value(made: Bundle, variable: Variable) -> str:
    if variable.name == "POSTGRES_URL":
        return f"postgresql://llama:{_asked('POSTGRES_PASSWORD')}@postgres/llama"
    if variable.need == "required" or variable.name == "LLAMA_API_KEY":
        return _asked(variable.name)
    return f"${{{variable.name}:-{elsewhere(variable.default, 'host.docker.internal')}}}"


def _asked(name: str) -> str:
    return f"${{{name}:?set {name}, in the environment or in a file .env}}"


def _example(variable: str) -> str:
    if variable.endswith("_URL"):
        return "postgresql://host/db" if variable == "POSTGRES_URL" else "http://host"
    return "a-value-to-come"
