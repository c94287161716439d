"""`/v1/toolgroups`, `/v1/tools` and `/v1/tool-runtime`: sets of tools registered, listed and called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llamakit.agents.tools import Tool
from llamakit.api.llama_stack_inspect import shown as masked
from llamakit.api.llama_stack_lists import data_body
from llamakit.api.llama_stack_tool_groups import (
    LlamaStackInvocation,
    LlamaStackListedTool,
    LlamaStackListedTools,
    LlamaStackToolDefs,
    LlamaStackToolGroup,
    LlamaStackToolGroupRequest,
    LlamaStackToolGroups,
    LlamaStackToolResult,
    group_body,
    idle_keys,
    mcp_headers,
    read_provider_data,
    result_body,
    tool_body,
)
from llamakit.api.llama_stack_tools import from_spec
from llamakit.api.wire import found
from llamakit.core.errors import InvalidRequest, NotFound
from llamakit.server.exchange import exchange_of, owner_of
from llamakit.server.routing import Operation, Query, json_response
from llamakit.server.service import Service
from llamakit.stack.tool_groups import ToolGroup

TAG = "llama stack tools"


def operations(service: Service) -> list[Operation]:
    """The operations of this API."""
    groups = service.stack.tool_groups

    async def list_groups(http: Request) -> Response:
        return json_response(data_body([shown(group) for group in await groups.list(owner_of(http))]))

    async def get_group(http: Request) -> Response:
        return json_response(shown(await groups.get(owner_of(http), http.path_params["toolgroup_id"])))

    async def register_group(http: Request) -> Response:
        wire = await service.read(http, LlamaStackToolGroupRequest)
        endpoint = None if wire.mcp_endpoint is None else wire.mcp_endpoint.uri
        made = await groups.register(owner_of(http), wire.toolgroup_id, wire.provider_id, endpoint, wire.args)
        return json_response(shown(made))

    async def unregister_group(http: Request) -> Response:
        await groups.unregister(owner_of(http), http.path_params["toolgroup_id"])
        return Response(status_code=204)

    async def list_tools(http: Request) -> Response:
        tools = await tools_of(http, await group_of(http, "toolgroup_id"))
        providers = {group.id: group.provider_id for group in await groups.list(owner_of(http))}
        return json_response(
            data_body([tool_body(tool.spec, tool.group, providers.get(tool.group, "")) for tool in tools])
        )

    async def get_tool(http: Request) -> Response:
        owner, name = owner_of(http), http.path_params["tool_name"]
        for tool in await tools_of(http, None):
            if name in (tool.spec.name, f"{tool.group}/{tool.spec.name}"):
                group = await groups.get(owner, tool.group)
                return json_response(tool_body(tool.spec, group.id, group.provider_id))
        raise NotFound(f"no tool {name[:128]!r}; list the tools first")

    async def list_definitions(http: Request) -> Response:
        tools = await tools_of(http, await group_of(http, "tool_group_id"))
        return json_response(data_body([from_spec(tool.spec, group=tool.group) for tool in tools]))

    async def invoke(http: Request) -> Response:
        wire = await service.read(http, LlamaStackInvocation)
        owner, name = owner_of(http), wire.tool_name
        group = await group_with(owner, name)
        args = keys_of(http, group)
        if wire.authorization is not None:
            args = {**args, "authorization": wire.authorization}
        work = groups.invoke(owner, name, wire.kwargs, group=None if group is None else group.id, args=args or None)
        outcome = await service.wanted(http, work)
        return json_response(result_body(outcome.text, is_error=outcome.is_error, data=outcome.data))

    async def tools_of(http: Request, group: ToolGroup | None) -> list[Tool]:
        args = keys_of(http, group) or None
        work = groups.tools(owner_of(http), None if group is None else group.id, args=args)
        return await service.wanted(http, work)

    async def group_of(http: Request, param: str) -> ToolGroup | None:
        """The group that a query names, by its id or by the URL of its MCP server."""
        id, endpoint = http.query_params.get(param), http.query_params.get("mcp_endpoint[uri]")
        if id:
            return await groups.get(owner_of(http), id)
        if not endpoint:
            return None
        for group in await groups.list(owner_of(http)):
            if group.mcp_endpoint == endpoint:
                return group
        raise InvalidRequest(
            f"mcp_endpoint {found(endpoint)} is of no tool group; register one with POST /v1/toolgroups first",
            param="mcp_endpoint",
        )

    async def group_with(owner: str, name: str) -> ToolGroup | None:
        """The group that a tool's name begins with, if it does; of several the longest."""
        named = [group for group in await groups.list(owner) if name.startswith(f"{group.id}/")]
        return max(named, key=lambda group: len(group.id), default=None)

    def keys_of(http: Request, group: ToolGroup | None) -> Mapping[str, Any]:
        """What the caller brings along for the server of a group; what has no effect is named."""
        data = read_provider_data(http.headers)
        exchange_of(http).ignored += idle_keys(data)
        return mcp_headers(data, None if group is None else group.mcp_endpoint)

    one = "/v1/toolgroups/{toolgroup_id:path}"
    return [
        Operation(
            name="listToolGroups",
            method="GET",
            path="/v1/toolgroups",
            about="Sets of tools: built in, configured, and the caller's own.",
            endpoint=list_groups,
            tag=TAG,
            answer=LlamaStackToolGroups,
        ),
        Operation(
            name="registerToolGroup",
            method="POST",
            path="/v1/toolgroups",
            about="Add a set of tools.",
            endpoint=register_group,
            tag=TAG,
            body=LlamaStackToolGroupRequest,
            answer=LlamaStackToolGroup,
        ),
        Operation(
            name="getToolGroup",
            method="GET",
            path=one,
            about="One of them.",
            endpoint=get_group,
            tag=TAG,
            answer=LlamaStackToolGroup,
        ),
        Operation(
            name="unregisterToolGroup",
            method="DELETE",
            path=one,
            about="Remove a set of tools that was registered.",
            endpoint=unregister_group,
            tag=TAG,
            is_empty=True,
        ),
        Operation(
            name="listTools",
            method="GET",
            path="/v1/tools",
            about="The tools of a group, or of all that can be reached.",
            endpoint=list_tools,
            tag=TAG,
            answer=LlamaStackListedTools,
            query=(Query(name="toolgroup_id", about="Of which group; of all when left out."),),
        ),
        Operation(
            name="getTool",
            method="GET",
            path="/v1/tools/{tool_name:path}",
            about="One of them.",
            endpoint=get_tool,
            tag=TAG,
            answer=LlamaStackListedTool,
        ),
        Operation(
            name="listToolDefinitions",
            method="GET",
            path="/v1/tool-runtime/list-tools",
            about="The definitions of tools, as an agent takes them.",
            endpoint=list_definitions,
            tag=TAG,
            answer=LlamaStackToolDefs,
            query=(
                Query(name="tool_group_id", about="Of which group; of all when left out."),
                Query(name="mcp_endpoint[uri]", about="Or of the group of the MCP server at this URL."),
            ),
        ),
        Operation(
            name="invokeTool",
            method="POST",
            path="/v1/tool-runtime/invoke",
            about="Call a tool by its name, or by group/name.",
            endpoint=invoke,
            tag=TAG,
            body=LlamaStackInvocation,
            answer=LlamaStackToolResult,
        ),
    ]


def shown(group: ToolGroup) -> dict[str, Any]:
    """The wire form of a group, without the secrets that its configuration may hold."""
    return group_body(group.id, group.provider_id, group.mcp_endpoint, masked(group.args))
