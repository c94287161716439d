"""Our histogram tells what Prometheus' own would."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from llamakit.server.histogram import TallyHistogram

BOUNDS = (0.001, 0.5, 1, 80)
VALUES = (0.0, 0.0005, 0.001, 0.0011, 0.5, 0.75, 1.0, 79.0, 80.0, 81.0, 1e6)


def test_it_tells_what_prometheus_own_tells():
    own, ours = CollectorRegistry(), CollectorRegistry()
    theirs = Histogram("vllm:wait_seconds", "Waiting.", ("model_name",), buckets=BOUNDS, registry=own)
    made = TallyHistogram("vllm:wait_seconds", "Waiting.", "model_name", BOUNDS)
    ours.register(made)
    for name in ("a", 'b "quoted"'):
        for value in VALUES:
            theirs.labels(model_name=name).observe(value)
            made.of(name).observe(value)
    wanted = [line for line in generate_latest(own).decode().splitlines() if "_created" not in line]
    assert generate_latest(ours).decode().splitlines() == wanted
