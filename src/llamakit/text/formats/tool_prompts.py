"""How the models of Llama 3.1 and later are told which tools there are.

The fixed sentences are wire literals: the prompts Meta publishes for these models (the prompt-format
notes of Llama 3.1 and 3.2) and the chat templates on the hub, oddities included, because that is the
wording the models know. Descriptions and schemas are plain text to whoever encodes the result.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from llamakit.core.messages import ToolSpec
from llamakit.text.calls.reading import parameter_schemas

_JSON_HEAD: Final = (
    "Answer the user's question by making use of the following functions if needed.\n"
    "If none of the function can be used, please say so.\n"
    "Here is a list of functions in JSON format:\n"
)
_JSON_TAIL: Final = "\n\nReturn function calls in JSON format."

_TAGGED_HEAD: Final = "You have access to the following functions:\n\n"
_TAGGED_TAIL: Final = (
    "Think very carefully before calling functions.\n"
    "If you choose to call a function ONLY reply in the following format with no prefix or suffix:\n\n"
    '<function=example_function_name>{"example_name": "example_value"}</function>\n\n'
    "Reminder:\n"
    "- If looking for real time information use relevant functions before falling back to brave_search\n"
    "- Function calls MUST follow the specified format, start with <function= and end with </function>\n"
    "- Required parameters MUST be specified\n"
    "- Only call one function at a time\n"
    "- Put the entire function call reply on one line"
)

_LIST_HEAD: Final = (
    "You are an expert in composing functions. You are given a question and a set of possible functions.\n"
    "Based on the question, you will need to make one or more function/tool calls to achieve the purpose.\n"
    "If none of the function can be used, point it out. If the given question lacks the parameters required by the "
    "function,\nalso point it out. You should only return the function call in tools call sections.\n\n"
    "If you decide to invoke any of the function(s), you MUST put it in the format of "
    "[func_name1(params_name1=params_value1, params_name2=params_value2...), func_name2(params)]\n"
    "You SHOULD NOT include any other text in the response.\n\n"
    "Here is a list of functions in JSON format that you can invoke.\n\n"
)
_LIST_USER_HEAD: Final = "Here is a list of functions in JSON format that you can invoke:\n"
_LIST_USER_TAIL: Final = (
    "\n\nShould you decide to return the function call(s),Put it in the format of "
    "[func1(params_name=params_value, params_name2=params_value2...), func2(params)]\n\n"
    "NO other text MUST be included."
)

_HF_FORM: Final = (
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.'
    "Do not use variables.\n\n"
)
_HF_USER: Final = (
    "Given the following functions, please respond with a JSON for a function call "
    "with its proper arguments that best answers the given prompt.\n\n"
)
_HF_SYSTEM: Final = (
    "You have access to the following functions. To call a function, please respond with JSON for a function call."
)

_PARAM_TYPES: Final = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
}


def json_instructions(tools: Sequence[ToolSpec]) -> str:
    """Llama 3.1: calls as one JSON object."""
    return _JSON_HEAD + "\n".join(_pretty(_function_object(tool)) for tool in tools) + _JSON_TAIL


def tagged_instructions(tools: Sequence[ToolSpec]) -> str:
    """Llama 3.1: calls as `<function=name>{...}</function>`."""
    lines = (
        f"Use the function '{tool.name}' to '{tool.description}':\n{_compact(_tagged_object(tool))}\n\n"
        for tool in tools
    )
    return _TAGGED_HEAD + "".join(lines) + _TAGGED_TAIL


def list_instructions(tools: Sequence[ToolSpec]) -> str:
    """Llama 3.2 and 3.3, in the system message: calls as a Python list."""
    return _LIST_HEAD + _list_schema(tools)


def list_question(tools: Sequence[ToolSpec], question: str) -> str:
    """Llama 3.2, in the user message: the question and the tools in one text."""
    return f"Questions: {question}\n" + _LIST_USER_HEAD + _list_schema(tools) + _LIST_USER_TAIL


def hf_instructions(tools: Sequence[ToolSpec], *, in_system: bool) -> str:
    """The hub's templates, ready to be followed by the message's own text."""
    dumped = "".join(_pretty(_function_object(tool)) + "\n\n" for tool in tools)
    return (_HF_SYSTEM if in_system else _HF_USER) + _HF_FORM + dumped


def _function_object(tool: ToolSpec) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"type": "function", "function": {"name": tool.name, **described, "parameters": _schema(tool)}}


def _schema(tool: ToolSpec) -> dict[str, Any]:
    return {"type": "object", "properties": {}, **tool.parameters}


def _tagged_object(tool: ToolSpec) -> dict[str, Any]:
    required = _schema(tool).get("required", ())
    parameters = {
        name: {
            "description": schema.get("description", ""),
            "param_type": _PARAM_TYPES.get(str(schema.get("type")), str(schema.get("type", "any"))),
            "required": name in required,
        }
        for name, schema in parameter_schemas(tool).items()
    }
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


def _list_schema(tools: Sequence[ToolSpec]) -> str:
    return _pretty([_list_object(tool) for tool in tools])


def _list_object(tool: ToolSpec) -> dict[str, Any]:
    """The 3.2 schema: parameters of type "dict", the required names before the properties."""
    schema = _schema(tool)
    ordered = {"type": "dict", "required": list(schema.get("required", ())), "properties": schema["properties"]}
    rest = {key: value for key, value in schema.items() if key not in ordered}
    return {"name": tool.name, "description": tool.description, "parameters": {**ordered, **rest}}


def _pretty(value: object) -> str:
    return json.dumps(value, indent=4, ensure_ascii=False)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
