"""Names given to models while the server runs: routed, kept, refused, and taken away."""

from __future__ import annotations

import pytest

from llamakit.core.errors import Conflict, InvalidRequest, NotFound, UnknownModel
from llamakit.providers.inline.inference.echo import EchoConfig, EchoInference
from llamakit.stack.registered_models import RegisteredModels
from llamakit.stack.router import InferenceRouter, Route
from llamakit.stack.schema import STEPS
from llamakit.stack.storage import Storage


def router_of(*providers: str) -> InferenceRouter:
    made = {id: EchoInference(EchoConfig(models=("small", "large"))) for id in providers}
    return InferenceRouter(made, {"fixed": Route(provider_id=providers[0], name="small")})


@pytest.fixture
async def storage(tmp_path):
    made = Storage(f"sqlite:{tmp_path}/models.db", STEPS)
    yield made
    await made.aclose()


async def test_a_name_is_routed_kept_and_taken_away(storage):
    router = router_of("one", "two")
    models = RegisteredModels(storage, router)
    made = await models.register("mine", "two", "large", "embedding", {"embedding_dimension": 32})
    assert (made.name, made.provider_id, made.provider_name, made.kind) == ("mine", "two", "large", "embedding")
    assert made.details["embedding_dimension"] == 32
    assert await models.register("mine", "two", "large", "embedding", {"embedding_dimension": 32}) == made
    again = router_of("one", "two")
    await RegisteredModels(storage, again).refresh()
    assert again.route_of("mine") == router.route_of("mine")
    await models.unregister("mine")
    with pytest.raises(UnknownModel):
        router.route_of("mine")
    with pytest.raises(NotFound):
        await models.unregister("mine")


async def test_another_server_on_the_database_learns_of_changes(storage):
    here, there = RegisteredModels(storage, router_of("one")), RegisteredModels(storage, other := router_of("one"))
    await here.register("mine", None, "large", None, {})
    await there.refresh()
    assert other.routes["mine"].name == "large"
    await here.unregister("mine")
    await there.refresh()
    assert "mine" not in other.routes


async def test_a_name_whose_provider_is_gone_waits_for_it(storage):
    await RegisteredModels(storage, router_of("one", "two")).register("mine", "two", "large", None, {})
    router = router_of("one")
    models = RegisteredModels(storage, router)
    await models.refresh()
    assert "mine" not in router.routes
    await models.unregister("mine")


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("mine", "three", "large"), InvalidRequest),
        (("mine", None, "large"), InvalidRequest),
        (("mine", "one", "nobody"), UnknownModel),
        (("mine", "one", None), UnknownModel),
        (("fixed", "one", "large"), Conflict),
        (("taken", "one", "small"), Conflict),
    ],
)
async def test_what_cannot_be_registered(storage, arguments, kind):
    models = RegisteredModels(storage, router_of("one", "two"))
    await models.register("taken", "one", "large", None, {})
    with pytest.raises(kind):
        await models.register(*arguments, None, {})


async def test_what_is_part_of_the_server_stays(storage):
    models = RegisteredModels(storage, router_of("one"))
    assert (await models.register("fixed", None, "small", None, {})).name == "fixed"
    with pytest.raises(InvalidRequest, match="part of this server"):
        await models.unregister("fixed")
    with pytest.raises(InvalidRequest, match="metadata"):
        await models.register("mine", None, "small", None, {"x": "y" * 70_000})
