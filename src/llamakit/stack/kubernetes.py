"""A distribution as Kubernetes manifests: who it runs as, what it may, where it keeps things, when it is ready.

One file for `kubectl apply`. Secrets are referred to and never written into it. Where PostgreSQL keeps everything,
there are several servers that are renewed one by one; where a volume does, there is one.
"""

from __future__ import annotations

from typing import Any

from llamakit.stack.packaging import HOME, PORT, Bundle, dump, elsewhere
from llamakit.stack.substitution import Variable

_FAREWELL_S = 5
_ONE = {"replicas": 1, "strategy": {"type": "Recreate"}}
"""A volume is one server's at a time."""
_SEVERAL = {"replicas": 2, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}
"""They share nothing but the database, and an older version may serve beside a newer one until it is gone."""


def kubernetes(made: Bundle) -> str:
    """The manifests: what keeps data or keeps servers up, a deployment, a service, a policy of what may come in."""
    secret = f"{made.name}-secrets"
    names = " ".join(f"--from-literal={variable.name}=..." for variable in made.secrets)
    head = (
        f"# {made.source.name}: push {made.image} to a registry your cluster reads, then:\n"
        f"#   kubectl create secret generic {secret} {names}\n"
        "#   kubectl apply -f kubernetes.yaml\n"
    )
    first = _disruption_budget(made) if made.has_database else _claim(made)
    return dump(head, [first, _deployment(made, secret), _service(made), _policy(made)])


def _labels(made: Bundle) -> dict[str, str]:
    return {"app.kubernetes.io/name": "llamakit", "app.kubernetes.io/instance": made.name}


def _meta(made: Bundle, name: str) -> dict[str, Any]:
    return {"name": name, "labels": _labels(made)}


def _claim(made: Bundle) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _meta(made, f"{made.name}-data"),
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}},
    }


def _disruption_budget(made: Bundle) -> dict[str, Any]:
    """Whoever empties a node takes one server after the other."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _meta(made, made.name),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _labels(made)}},
    }


def _deployment(made: Bundle, secret: str) -> dict[str, Any]:
    environment: list[dict[str, Any]] = [
        {"name": variable.name, "value": "SET-ME" if variable.need == "required" else _default(variable)}
        for variable in made.plain
    ]
    environment += [
        {
            "name": variable.name,
            "valueFrom": {
                "secretKeyRef": {
                    "name": secret,
                    "key": variable.name,
                    # Without a key of its own the server would refuse an address that others reach.
                    "optional": variable.need != "required" and variable.name != "LLAMA_API_KEY",
                }
            },
        }
        for variable in made.secrets
    ]
    container: dict[str, Any] = {
        "name": made.name,
        "image": made.image,
        "env": environment,
        "ports": [{"name": "http", "containerPort": PORT}],
        "startupProbe": {**_probe(), "periodSeconds": 2, "failureThreshold": 150},
        "readinessProbe": {**_probe(), "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 20},
        # Whoever still sends requests here learns in these seconds that it is going.
        "lifecycle": {"preStop": {"exec": {"command": ["python", "-c", f"import time; time.sleep({_FAREWELL_S})"]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "data", "mountPath": f"{HOME}/data"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    if made.memory_mib is not None:
        memory = f"{made.memory_mib}Mi"
        container["resources"] = {"requests": {"memory": memory}, "limits": {"memory": memory}}
    claim = {"persistentVolumeClaim": {"claimName": f"{made.name}-data"}}
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 50,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "data", **({"emptyDir": {}} if made.has_database else claim)},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    if made.has_database:
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _labels(made)},
            }
        ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(made, made.name),
        "spec": {
            **(_SEVERAL if made.has_database else _ONE),
            "selector": {"matchLabels": _labels(made)},
            "template": {"metadata": {"labels": _labels(made)}, "spec": pod},
        },
    }


def _default(variable: Variable) -> str:
    """Its default; what is on this machine by default is a service of the same namespace, named as the variable is."""
    return elsewhere(variable.default, variable.name.partition("_")[0].lower())


def _probe() -> dict[str, Any]:
    return {"httpGet": {"path": "/health", "port": "http"}}


def _service(made: Bundle) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(made, made.name),
        "spec": {"selector": _labels(made), "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }


def _policy(made: Bundle) -> dict[str, Any]:
    """Only pods of the same namespace come in; an offline distribution reaches nobody."""
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": _labels(made)},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": PORT}]}],
    }
    if made.is_offline:
        spec |= {"policyTypes": ["Ingress", "Egress"], "egress": []}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _meta(made, made.name),
        "spec": spec,
    }
