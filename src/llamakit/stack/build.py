"""Distribution -> a stack: the providers it names, behind one door per API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llamakit.api.containers import Containers
from llamakit.api.hosted_tools import HostedKind, HostedTools, ServerParts, ToolProvider
from llamakit.api.inference import Inference
from llamakit.core.errors import InvalidRequest
from llamakit.core.messages import Message
from llamakit.providers.specs import Api
from llamakit.safety.shields import Violation
from llamakit.stack.agents import Agents
from llamakit.stack.background import Background
from llamakit.stack.batches import Batches
from llamakit.stack.chats import StoredChats
from llamakit.stack.chunk_stores import Chunks, chosen
from llamakit.stack.container_rows import ContainerRows
from llamakit.stack.containers import containers_of
from llamakit.stack.conversations import Conversations
from llamakit.stack.datasets import Datasets
from llamakit.stack.distribution import LOCAL_INFERENCE, Distribution
from llamakit.stack.embedders import Embedders
from llamakit.stack.fetching import Fetcher
from llamakit.stack.files import Files
from llamakit.stack.guarded import GuardedRouter
from llamakit.stack.housekeeping import EXPIRY_S, Housekeeping
from llamakit.stack.input_files import InputFiles
from llamakit.stack.keys import KeyBook
from llamakit.stack.library import Library
from llamakit.stack.moderations import Moderations
from llamakit.stack.prompts import Prompts
from llamakit.stack.providers import Providers, build_providers
from llamakit.stack.rag_tool import RagTool
from llamakit.stack.registered_models import RegisteredModels
from llamakit.stack.responses import Responses
from llamakit.stack.router import InferenceRouter, Route
from llamakit.stack.schema import STEPS
from llamakit.stack.scoring import Scoring
from llamakit.stack.shields import FixedShield, ShieldBook, fixed_shields, guards_of, with_default_safety
from llamakit.stack.storage import TEMPORARY, Storage
from llamakit.stack.telemetry import Traces
from llamakit.stack.tool_groups import ToolGroups
from llamakit.stack.tool_providers import by_kind, fixed_groups, with_default_tools
from llamakit.stack.uploads import Uploads
from llamakit.stack.usage import UsageBook
from llamakit.stack.vector_dbs import VectorDbs
from llamakit.stack.vector_stores import VectorStores


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """What a server serves."""

    inference: Inference
    default_models: tuple[str, ...] = ()
    """Models of the distribution, the default first."""
    library: Library | None = None
    """The models on this machine, where that is what is served."""
    storage: Storage = field(default_factory=lambda: Storage(TEMPORARY, STEPS))
    """The database; a private one that goes with the server, unless another is given."""
    hosted_tools: Mapping[HostedKind, HostedTools] = field(default_factory=dict)
    """Tools that run here on behalf of a response, by kind, beside those of the providers."""
    distribution: Distribution = field(default_factory=Distribution)
    """What it was built from: a part reads its own section of it."""
    providers: Providers = field(default_factory=Providers)
    """Every provider by API and id: a part takes those of its own API."""
    fixed_shields: Mapping[str, FixedShield] = field(default_factory=dict)
    """Shields of the distribution, which are everybody's."""
    background: Background = field(init=False)
    """Work that goes on without its client."""
    responses: Responses = field(init=False)
    conversations: Conversations = field(init=False)
    prompts: Prompts = field(init=False)
    chats: StoredChats = field(init=False)
    """Chat completions that were asked to be kept."""
    batches: Batches = field(init=False)
    shields: ShieldBook = field(init=False)
    moderations: Moderations = field(init=False)
    files: Files = field(init=False)
    uploads: Uploads = field(init=False)
    embedders: Embedders = field(init=False)
    """Models that make vectors, by name."""
    vector_stores: VectorStores = field(init=False)
    housekeeping: Housekeeping = field(init=False)
    """What expires goes; content that nothing names goes."""
    vector_dbs: VectorDbs = field(init=False)
    """Vector stores by names of Llama Stack's clients' own choice."""
    rag_tool: RagTool = field(init=False)
    registered_models: RegisteredModels | None = field(init=False)
    """Names given to models while the server runs; None where a provider stands alone, without a router."""
    keys: KeyBook = field(init=False)
    usage: UsageBook = field(init=False)
    """What each key used lately."""
    traces: Traces = field(init=False)
    tool_groups: ToolGroups = field(init=False)
    """Sets of tools by name."""
    containers: Containers = field(init=False)
    """Working folders of the code interpreter."""
    agents: Agents = field(init=False)
    datasets: Datasets = field(init=False)
    scoring: Scoring = field(init=False)
    fetcher: Fetcher = field(init=False)
    """Fetches files at addresses that requests name."""

    def __post_init__(self) -> None:
        tools = self._tools()
        hosted: dict[HostedKind, HostedTools] = {**by_kind(tools.values()), **self.hosted_tools}
        background, files = Background(self.storage), Files(self.storage)
        embedders = Embedders(self.inference, self.distribution.vector_stores.embedding_model)
        vectors = chosen(self.providers.of(Api.vector_io), self.distribution.vector_stores.provider_id)
        chunks = Chunks(self.storage, embedders, vectors)
        stores, uploads = VectorStores(self.storage, files, embedders, chunks), Uploads(self.storage, files)
        dbs = VectorDbs(self.storage, stores, self.distribution.vector_stores.provider_id)
        datasets = Datasets(self.storage, files)
        object.__setattr__(self, "fetcher", Fetcher(self.distribution.fetch))
        groups = ToolGroups(self.storage, tools, fixed_groups(self.distribution))
        shields = ShieldBook(self.storage, self.providers.of(Api.safety), self.fixed_shields)
        moderations = Moderations(shields)
        housekeeping, containers = Housekeeping(self.storage), ContainerRows(self.storage)
        housekeeping.every(EXPIRY_S, "expired files", files.expire)
        housekeeping.every(EXPIRY_S, "expired uploads", uploads.expire)
        housekeeping.every(EXPIRY_S, "expired vector stores", stores.expire)
        housekeeping.every(EXPIRY_S, "expired containers", containers.expire)
        made = {
            "background": background,
            "responses": Responses(
                self.inference,
                self.storage,
                background,
                hosted,
                self.model_or_default,
                InputFiles(files, self.fetcher),
                moderations.create,
            ),
            "conversations": Conversations(self.storage),
            "prompts": Prompts(self.storage),
            "chats": StoredChats(self.storage),
            "batches": Batches(self.storage, background, files),
            "shields": shields,
            "moderations": moderations,
            "files": files,
            "embedders": embedders,
            "uploads": uploads,
            "vector_stores": stores,
            "vector_dbs": dbs,
            "rag_tool": RagTool(dbs),
            "housekeeping": housekeeping,
            "registered_models": RegisteredModels(self.storage, self.inference)
            if isinstance(self.inference, InferenceRouter)
            else None,
            "keys": KeyBook(self.storage),
            "usage": UsageBook(self.storage),
            "traces": Traces(self.storage, max_spans=self.distribution.telemetry.keep_spans),
            "containers": containers_of(tools.values()),
            "tool_groups": groups,
            "datasets": datasets,
            "scoring": Scoring(self.storage, datasets),
            "agents": Agents(self.storage, self.inference, groups, self._judge),
        }
        for name, part in made.items():
            object.__setattr__(self, name, part)
        for tool in tools.values():
            tool.bind(ServerParts(files=self.files, vector_stores=self.vector_stores, containers=containers))

    async def model_or_default(self, name: str | None) -> str:
        """`name`, or the model meant when none is named; raises `InvalidRequest` where that is not one."""
        if name is not None:
            return name
        if self.default_models:
            return (await self.inference.model(self.default_models[0])).name
        names = [model.name for model in await self.inference.models()]
        if len(names) != 1:
            raise InvalidRequest(f"model is required, one of: {', '.join(names) or 'none is there'}", param="model")
        return names[0]

    async def start(self) -> None:
        """Open the database and go on with what a process before this one left; a second call does nothing.

        Raises what keeps one of its tools from working here.
        """
        for tool in self._tools().values():
            await tool.start()
        if self.registered_models is not None:
            await self.registered_models.refresh()
        await self.background.start()
        await self.vector_stores.start()
        await self.housekeeping.start()

    async def _judge(self, owner: str, shield: str, messages: Sequence[Message]) -> Violation | None:
        return await self.shields.run(owner, shield, messages)

    def _tools(self) -> Mapping[str, ToolProvider]:
        return self.providers.of(Api.tools)

    async def aclose(self) -> None:
        """End all work, in the order in which it rests on one another."""
        try:
            await self.housekeeping.aclose()
            await self.vector_stores.aclose()
            await self.embedders.aclose()
            await self.background.aclose()
            await self.fetcher.aclose()
        finally:
            try:
                await self.providers.aclose()
            finally:
                try:
                    await self.inference.aclose()
                finally:
                    try:
                        await self.traces.aclose()
                        await self.usage.aclose()
                        await self.keys.aclose()
                    finally:
                        await self.storage.aclose()


def build_stack(distribution: Distribution) -> Stack:
    """Build everything that a distribution describes; raises `ConfigError`. Loads no model, opens no connection."""

    def inference(providers: Providers) -> InferenceRouter:
        return InferenceRouter(providers.of(Api.inference), _routes(distribution))

    distribution = with_default_safety(with_default_tools(distribution))
    providers, doors = build_providers(distribution, {Api.inference: inference})
    is_local = any(entry.provider_type == LOCAL_INFERENCE for entry in distribution.of(Api.inference))
    shields = fixed_shields(distribution, providers.of(Api.safety))
    before, behind = (guards_of(distribution, shields, side) for side in ("input", "output"))
    router = doors[Api.inference]
    return Stack(
        inference=GuardedRouter(router, before, behind) if before or behind else router,
        default_models=tuple(model.model_id for model in distribution.models if model.model_type == "llm"),
        library=Library() if is_local else None,
        storage=Storage(distribution.storage.database, STEPS),
        distribution=distribution,
        providers=providers,
        fixed_shields=shields,
    )


def _routes(distribution: Distribution) -> dict[str, Route]:
    """The models of a distribution as routes."""
    return {
        model.model_id: Route(
            provider_id=distribution.provider_of(model),
            name=model.provider_model_id or model.model_id,
            kind=model.model_type if model.model_type == "embedding" else None,
            metadata=model.metadata,
        )
        for model in distribution.models
    }
