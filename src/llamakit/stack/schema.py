"""The tables of a server in the order they came to be; the list only grows."""

from __future__ import annotations

from llamakit.agents.session import create_sessions
from llamakit.rag.index import create_library
from llamakit.stack.agents import create_agents
from llamakit.stack.batch_rows import create_batches
from llamakit.stack.chats import create_chats
from llamakit.stack.container_rows import create_containers
from llamakit.stack.conversations import create_conversations
from llamakit.stack.datasets import create_datasets
from llamakit.stack.files import create_files
from llamakit.stack.items import create_items
from llamakit.stack.keys import create_keys
from llamakit.stack.prompts import create_prompts
from llamakit.stack.registered_models import create_registered_models
from llamakit.stack.response_rows import create_responses
from llamakit.stack.scoring import create_scoring_functions
from llamakit.stack.shields import create_shields
from llamakit.stack.telemetry import create_spans
from llamakit.stack.tool_groups import create_tool_groups
from llamakit.stack.uploads import create_uploads
from llamakit.stack.usage import create_usage
from llamakit.stack.vector_dbs import create_vector_dbs
from llamakit.stack.vector_tables import create_vector_stores
from llamakit.storage.jobs import add_permissions, create_jobs
from llamakit.storage.migrations import Migration

STEPS: tuple[Migration, ...] = (
    create_jobs,
    create_items,
    create_conversations,
    create_prompts,
    create_chats,
    create_responses,
    create_files,
    create_tool_groups,
    create_keys,
    create_usage,
    create_library,
    create_vector_stores,
    create_batches,
    create_uploads,
    create_registered_models,
    create_shields,
    create_agents,
    create_sessions,
    create_spans,
    create_vector_dbs,
    create_datasets,
    create_scoring_functions,
    add_permissions,
    create_containers,
)
