"""The services that speak OpenAI's wire, a row each: address, key, and what they take of it.

Data only. A name in `takes` is a field of `SamplingParams`, a kind of constraint, or a feature named in
`FEATURES`; what is not there is refused before anything is sent. Addresses are those the vendors publish, and a
setting or a variable replaces every one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FEATURES = frozenset({"tools", "images", "completions", "suffix", "embeddings", "continue", "salt", "priority"})

_OPENAI = frozenset(
    {
        "presence_penalty", "frequency_penalty", "seed", "logprobs", "n", "json_object", "json_schema",
        "tools", "images", "embeddings",
    }
)  # fmt: skip
_WIDE = _OPENAI | {"logit_bias", "completions"}
_SAMPLERS = frozenset({"top_k", "min_p", "repetition_penalty"})
_ENGINE = _WIDE | _SAMPLERS | {
    "min_tokens", "ignore_eos", "stop_ids", "include_stop", "prompt_logprobs", "best_of", "regex", "choice",
    "grammar", "continue", "salt", "priority", "add_special_tokens",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Vendor:
    """One service."""

    name: str
    """Behind `remote::` in the table of providers."""
    title: str
    base_url: str = ""
    """Where its paths begin; a `{place}` in it is a setting or a variable. Empty where only the operator knows."""
    base_url_env: str | None = None
    key_env: str | None = None
    needs_key: bool = True
    key_header: Literal["authorization", "api-key"] = "authorization"
    aws_service: str | None = None
    """Name that AWS's signatures have for it: without a key, requests are signed with the variables of AWS."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Place in `base_url` to the variable that fills it where no setting does."""
    takes: frozenset[str] = _OPENAI
    renames: Mapping[str, str] = field(default_factory=dict)
    """Field of `SamplingParams` to its name on this wire, where that is not the usual one."""
    max_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    lists_models: bool = True
    streams_usage: bool = True
    """Whether `stream_options.include_usage` may be sent."""
    tokens: Literal["llamakit", "vllm"] | None = None
    """Whose routes give token ids."""
    manages: bool = False
    """Whether models are loaded and let go over llamakit's own routes."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Name of the catalog to the vendor's own."""


VENDORS: tuple[Vendor, ...] = (
    Vendor(
        name="openai-compat",
        title="the OpenAI-compatible service",
        base_url_env="OPENAI_COMPAT_URL",
        key_env="OPENAI_COMPAT_API_KEY",
        needs_key=False,
        takes=_WIDE,
    ),
    Vendor(
        name="llamakit",
        title="the llamakit server",
        base_url="http://127.0.0.1:8321/v1",
        base_url_env="LLAMAKIT_URL",
        key_env="LLAMAKIT_API_KEY",
        needs_key=False,
        takes=_ENGINE | {"typical_p", "suffix"},
        tokens="llamakit",
        manages=True,
    ),
    Vendor(
        name="ollama",
        title="Ollama",
        base_url="http://127.0.0.1:11434/v1",
        base_url_env="OLLAMA_URL",
        key_env="OLLAMA_API_KEY",
        needs_key=False,
        takes=(_OPENAI | {"completions", "suffix"}) - {"n"},
        names={
            "llama3.1:8b-instruct": "llama3.1:8b",
            "llama3.1:70b-instruct": "llama3.1:70b",
            "llama3.2:1b-instruct": "llama3.2:1b",
            "llama3.2:3b-instruct": "llama3.2:3b",
            "llama3.3:70b-instruct": "llama3.3:70b",
            "llama-guard3:8b": "llama-guard3:8b",
            "llama-guard3:1b": "llama-guard3:1b",
        },
    ),
    Vendor(
        name="vllm",
        title="vLLM",
        base_url="http://127.0.0.1:8000/v1",
        base_url_env="VLLM_URL",
        key_env="VLLM_API_TOKEN",
        needs_key=False,
        takes=_ENGINE,
        tokens="vllm",
    ),
    Vendor(
        name="tgi",
        title="Text Generation Inference",
        base_url="http://127.0.0.1:8080/v1",
        base_url_env="TGI_URL",
        key_env="HF_TOKEN",
        needs_key=False,
        takes=_OPENAI - {"n", "embeddings"} | {"completions"},
    ),
    Vendor(
        name="llama-cpp-server",
        title="llama.cpp's server",
        base_url="http://127.0.0.1:8080/v1",
        base_url_env="LLAMA_CPP_SERVER_URL",
        key_env="LLAMA_CPP_SERVER_API_KEY",
        needs_key=False,
        takes=_WIDE - {"n"} | _SAMPLERS | {"typical_p", "ignore_eos"},
        renames={"repetition_penalty": "repeat_penalty"},
    ),
    Vendor(
        name="lm-studio",
        title="LM Studio",
        base_url="http://127.0.0.1:1234/v1",
        base_url_env="LM_STUDIO_URL",
        key_env="LM_STUDIO_API_KEY",
        needs_key=False,
        takes=_WIDE - {"n", "logprobs"} | {"top_k", "repetition_penalty"},
        renames={"repetition_penalty": "repeat_penalty"},
    ),
    Vendor(
        name="ray",
        title="Ray Serve, or Anyscale",
        base_url="http://127.0.0.1:8000/v1",
        base_url_env="RAY_SERVE_URL",
        key_env="ANYSCALE_API_KEY",
        needs_key=False,
        takes=_WIDE | _SAMPLERS,
    ),
    Vendor(
        name="together",
        title="Together",
        base_url="https://api.together.xyz/v1",
        key_env="TOGETHER_API_KEY",
        takes=_WIDE | _SAMPLERS,
        names={
            "llama3.1:8b-instruct": "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
            "llama3.1:405b-instruct": "meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo",
            "llama3.2:3b-instruct": "meta-llama/Llama-3.2-3B-Instruct-Turbo",
            "llama3.3:70b-instruct": "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        },
    ),
    Vendor(
        name="fireworks",
        title="Fireworks",
        base_url="https://api.fireworks.ai/inference/v1",
        key_env="FIREWORKS_API_KEY",
        takes=_WIDE | _SAMPLERS,
        names={
            "llama3.1:8b-instruct": "accounts/fireworks/models/llama-v3p1-8b-instruct",
            "llama3.1:70b-instruct": "accounts/fireworks/models/llama-v3p1-70b-instruct",
            "llama3.1:405b-instruct": "accounts/fireworks/models/llama-v3p1-405b-instruct",
            "llama3.2:3b-instruct": "accounts/fireworks/models/llama-v3p2-3b-instruct",
            "llama3.3:70b-instruct": "accounts/fireworks/models/llama-v3p3-70b-instruct",
        },
    ),
    Vendor(
        name="groq",
        title="Groq",
        base_url="https://api.groq.com/openai/v1",
        key_env="GROQ_API_KEY",
        takes=_OPENAI - {"n", "logprobs", "embeddings"},
        max_tokens="max_completion_tokens",
        names={
            "llama3.1:8b-instruct": "llama-3.1-8b-instant",
            "llama3.3:70b-instruct": "llama-3.3-70b-versatile",
        },
    ),
    Vendor(
        name="databricks",
        title="Databricks",
        base_url="https://{workspace}/serving-endpoints",
        base_url_env="DATABRICKS_URL",
        places={"workspace": "DATABRICKS_HOST"},
        key_env="DATABRICKS_TOKEN",
        takes=_OPENAI - {"seed", "images"} | {"completions"},
        lists_models=False,
        names={
            "llama3.1:8b-instruct": "databricks-meta-llama-3-1-8b-instruct",
            "llama3.1:405b-instruct": "databricks-meta-llama-3-1-405b-instruct",
            "llama3.3:70b-instruct": "databricks-meta-llama-3-3-70b-instruct",
        },
    ),
    Vendor(
        name="azure",
        title="Azure",
        base_url="https://{resource}.openai.azure.com/openai/v1",
        base_url_env="AZURE_API_BASE",
        places={"resource": "AZURE_RESOURCE_NAME"},
        key_env="AZURE_API_KEY",
        key_header="api-key",
        takes=_WIDE,
        max_tokens="max_completion_tokens",
        lists_models=False,
    ),
    Vendor(
        name="nvidia",
        title="NVIDIA NIM",
        base_url="https://integrate.api.nvidia.com/v1",
        base_url_env="NVIDIA_BASE_URL",
        key_env="NVIDIA_API_KEY",
        takes=_WIDE - {"logit_bias"},
        names={
            "llama3.1:8b-instruct": "meta/llama-3.1-8b-instruct",
            "llama3.1:70b-instruct": "meta/llama-3.1-70b-instruct",
            "llama3.1:405b-instruct": "meta/llama-3.1-405b-instruct",
            "llama3.2:1b-instruct": "meta/llama-3.2-1b-instruct",
            "llama3.2:3b-instruct": "meta/llama-3.2-3b-instruct",
            "llama3.3:70b-instruct": "meta/llama-3.3-70b-instruct",
        },
    ),
    Vendor(
        name="openai",
        title="OpenAI",
        base_url="https://api.openai.com/v1",
        base_url_env="OPENAI_BASE_URL",
        key_env="OPENAI_API_KEY",
        takes=_WIDE,
        max_tokens="max_completion_tokens",
    ),
    Vendor(
        name="vertexai",
        title="Vertex AI",
        base_url="https://{location}-aiplatform.googleapis.com/v1/projects/{project}/locations/{location}/endpoints/openapi",
        places={"project": "VERTEX_AI_PROJECT", "location": "VERTEX_AI_LOCATION"},
        key_env="VERTEX_AI_ACCESS_TOKEN",
        takes=_OPENAI - {"embeddings"},
        lists_models=False,
        names={
            "llama3.1:8b-instruct": "meta/llama-3.1-8b-instruct-maas",
            "llama3.1:405b-instruct": "meta/llama-3.1-405b-instruct-maas",
            "llama3.3:70b-instruct": "meta/llama-3.3-70b-instruct-maas",
        },
    ),
    Vendor(
        name="watsonx",
        title="watsonx",
        base_url="https://{region}.ml.cloud.ibm.com/ml/gateway/v1",
        base_url_env="WATSONX_BASE_URL",
        places={"region": "WATSONX_REGION"},
        key_env="WATSONX_API_KEY",
        takes=_WIDE - {"logit_bias"},
    ),
    Vendor(
        name="cerebras",
        title="Cerebras",
        base_url="https://api.cerebras.ai/v1",
        key_env="CEREBRAS_API_KEY",
        takes=_OPENAI - {"n", "images", "embeddings"},
        max_tokens="max_completion_tokens",
        names={"llama3.1:8b-instruct": "llama3.1-8b", "llama3.3:70b-instruct": "llama-3.3-70b"},
    ),
    Vendor(
        name="sambanova",
        title="SambaNova",
        base_url="https://api.sambanova.ai/v1",
        key_env="SAMBANOVA_API_KEY",
        takes=_OPENAI - {"n", "logprobs", "seed"} | {"top_k"},
        names={
            "llama3.1:8b-instruct": "Meta-Llama-3.1-8B-Instruct",
            "llama3.3:70b-instruct": "Meta-Llama-3.3-70B-Instruct",
        },
    ),
    Vendor(
        name="replicate",
        title="Replicate",
        base_url="https://openai-proxy.replicate.com/v1",
        base_url_env="REPLICATE_BASE_URL",
        key_env="REPLICATE_API_TOKEN",
        takes=frozenset({"seed"}),
        lists_models=False,
        streams_usage=False,
        names={
            "llama3:8b-instruct": "meta/meta-llama-3-8b-instruct",
            "llama3:70b-instruct": "meta/meta-llama-3-70b-instruct",
            "llama3.1:405b-instruct": "meta/meta-llama-3.1-405b-instruct",
        },
    ),
    Vendor(
        name="snowflake",
        title="Snowflake Cortex",
        base_url="https://{account}.snowflakecomputing.com/api/v2/cortex/v1",
        base_url_env="SNOWFLAKE_BASE_URL",
        places={"account": "SNOWFLAKE_ACCOUNT"},
        key_env="SNOWFLAKE_PAT",
        takes=_OPENAI - {"n", "logprobs", "seed", "embeddings"},
        max_tokens="max_completion_tokens",
        lists_models=False,
        names={"llama3.1:8b-instruct": "llama3.1-8b", "llama3.1:70b-instruct": "llama3.1-70b"},
    ),
    Vendor(
        name="oci",
        title="OCI Generative AI",
        base_url="https://inference.generativeai.{region}.oci.oraclecloud.com/openai/v1",
        base_url_env="OCI_BASE_URL",
        places={"region": "OCI_REGION"},
        key_env="OCI_API_KEY",
        takes=_OPENAI - {"embeddings"},
        lists_models=False,
        names={"llama3.3:70b-instruct": "meta.llama-3.3-70b-instruct"},
    ),
    Vendor(
        name="bedrock",
        title="Amazon Bedrock",
        base_url="https://bedrock-runtime.{region}.amazonaws.com/openai/v1",
        base_url_env="AWS_BEDROCK_BASE_URL",
        places={"region": "AWS_REGION"},
        key_env="AWS_BEARER_TOKEN_BEDROCK",
        aws_service="bedrock",
        takes=_OPENAI - {"n", "logprobs", "embeddings"},
        max_tokens="max_completion_tokens",
        lists_models=False,
    ),
)
"""The rows, in the order they are listed."""


def vendor_of(name: str) -> Vendor:
    """The row of that name; raises `KeyError`."""
    return {vendor.name: vendor for vendor in VENDORS}[name]
