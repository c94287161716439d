"""MCP servers for the tests, good and bad, as programs: `python mcp_servers.py KIND [PORT]`."""

import os
import sys
import time

import anyio


def build():
    from mcp.server import MCPServer

    server = MCPServer("tests")

    @server.tool(description="Add two numbers")
    def add(a: int, b: int) -> str:
        return str(a + b)

    @server.tool()
    def fail() -> str:
        raise ValueError("the tool broke")

    @server.tool()
    def slow() -> str:
        time.sleep(30)
        return "late"

    @server.tool()
    def flood() -> str:
        return "x" * 1_000_000

    @server.tool()
    def environment() -> str:
        return " ".join(sorted(os.environ))

    @server.tool()
    def leave() -> str:
        os._exit(3)

    return server


def main() -> None:
    kind = sys.argv[1]
    if kind == "silent":
        time.sleep(60)
    elif kind == "noise":
        print("this is no protocol\n" * 100, flush=True)
        time.sleep(60)
    elif kind == "dies":
        sys.exit(1)
    elif kind == "stdio":
        anyio.run(build().run_stdio_async)
    else:
        import uvicorn

        server = build()
        app = server.streamable_http_app() if kind == "http" else server.sse_app()
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")


if __name__ == "__main__":
    main()
