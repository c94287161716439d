"""bench, doctor, env, config and convert."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny import tiny_checkpoint

from llamakit.cli import doctor, env
from llamakit.kernels import machine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny", context_length=2048))


@pytest.fixture(autouse=True)
def _small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the machine in little time."""
    monkeypatch.setattr(machine, "DEFAULT_BUFFER_BYTES", 4 << 20)
    monkeypatch.setattr(machine.measure_limits, "__kwdefaults__", {
        "device": "cpu", "buffer_bytes": 4 << 20, "side": 64, "repeats": 2,
    })  # fmt: skip


def test_bench_measures_and_compares(llama, tiny: str) -> None:
    result = llama("bench", tiny, "--prompt", "32", "--generate", "8", "--runs", "2", "--threads", "1", "--json")
    assert result.exit_code == 0, result.output
    measured = json.loads(result.stdout)
    assert measured["parameters"] == 94_528 and measured["prompt_tokens"] == 32 and measured["generated_tokens"] == 8
    assert measured["dtype"] == "float32" and measured["threads"] == 1
    for name in ("load_s", "ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s", "machine_read_bytes_per_s",
                 "machine_flops_per_s", "decode_share_of_bandwidth", "prefill_share_of_compute"):  # fmt: skip
        assert measured[name] > 0, name
    assert measured["decode_tokens_per_s_min"] <= measured["decode_tokens_per_s"] <= measured["decode_tokens_per_s_max"]


def test_bench_for_people(llama, tiny: str) -> None:
    result = llama("bench", tiny, "-p", "16", "-n", "4", "-r", "1", "--threads", "1")
    assert "of the bandwidth limit" in result.stdout and "of the compute limit" in result.stdout
    too_much = llama("bench", tiny, "-p", "4000", "--threads", "1")
    assert too_much.exit_code == 2 and "holds 2048; ask for fewer" in too_much.stderr


def test_doctor_finds_what_is_missing(llama) -> None:
    result = llama("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(result.stdout)}
    assert result.exit_code == 1, "the model of the package is not in this world"
    assert (
        findings["model of the package"]["state"] == "bad" and "reinstall" in findings["model of the package"]["detail"]
    )
    for what in ("python", "torch", "processor", "memory", "settings", "data", "hub cache", "disk"):
        assert findings[what]["state"] in ("ok", "note"), findings[what]
    assert "hub" not in findings, "the network is asked only when asked for"


def test_doctor_is_content_with_a_whole_installation(llama, world: Path) -> None:
    tiny_checkpoint(world / "embedded" / "cria")
    (world / "embedded" / "cria" / "card.json").write_text('{"name": "cria"}')
    result = llama("doctor")
    assert result.exit_code == 0, result.output
    assert "cria, 94,528 parameters, readable" in result.stdout


def test_doctor_tells_slips_broken_settings_and_a_second_owner_of_the_script(
    llama, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_PROT", "1")
    monkeypatch.setattr(
        doctor, "version_of", lambda package: "0.2.12" if package == "llama-stack" else env.version_of(package)
    )
    text = llama("doctor").stdout
    assert "LLAMA_PROT looks like LLAMA_PORT" in text and "python -m llamakit" in text
    (world / "home").mkdir()
    (world / "home" / "config.toml").write_text("prot = 1")
    assert "unknown setting 'prot'" in llama("doctor").stdout


def test_doctor_asks_the_network_when_told(llama, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fakehub import FakeHub

    with FakeHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        findings = {f["what"]: f for f in json.loads(llama("doctor", "--network", "--json").stdout)}
        assert findings["hub"]["state"] == "ok" and hub.url in findings["hub"]["detail"]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    findings = {f["what"]: f for f in json.loads(llama("doctor", "--network", "--json").stdout)}
    assert findings["hub"]["state"] == "note" and "cannot be reached" in findings["hub"]["detail"]


def test_env_shows_no_secret(llama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    monkeypatch.setenv("LLAMA_API_KEY", "sk-secret-secret")
    result = llama("env")
    assert "abcdef" not in result.stdout and "sk-" not in result.stdout and "HF_TOKEN" in result.stdout
    facts = json.loads(llama("env", "--json").stdout)
    assert facts["HF_TOKEN"] == "***" and "torch" in facts and "python" in facts


def test_config_show_names_the_source_of_each_value(llama, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (world / "home").mkdir()
    file = world / "home" / "config.toml"
    file.write_text('port = 8000\nkeep_alive = "10m"\n')
    monkeypatch.setenv("LLAMA_MODEL", "llama3.2:1b")
    monkeypatch.setenv("LLAMA_API_KEY", "sk-secret-secret")
    monkeypatch.setenv("LLAMA_PROT", "1")
    shown = json.loads(llama("config", "show", "--json").stdout)
    assert shown["port"] == {"value": 8000, "source": str(file), "variable": "LLAMA_PORT"}
    assert shown["model"]["source"] == "LLAMA_MODEL" and shown["host"]["source"] == "default"
    assert shown["api_key"]["value"] == "***" and shown["keep_alive"]["value"] == 600
    people = llama("config", "show")
    assert "10m" in people.stdout and "sk-secret" not in people.stdout
    assert "LLAMA_PROT is set and is no setting; did you mean LLAMA_PORT?" in people.stderr
    assert llama("config", "path").stdout.strip() == str(file)


def test_a_broken_settings_file_is_misuse(llama, world: Path) -> None:
    (world / "home").mkdir()
    (world / "home" / "config.toml").write_text("prot = 1")
    result = llama("list")
    assert result.exit_code == 2 and "nearest: 'port'" in result.stderr


def test_convert_there_and_back(llama, tiny: str, world: Path) -> None:
    result = llama("convert", tiny, "x.gguf", "--quant", "Q8_0", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["size_bytes"] == (world / "x.gguf").stat().st_size
    assert "llama run ./x.gguf" in result.stderr
    assert "Q8_0" in llama("show", "x.gguf").stdout
    assert llama("convert", "x.gguf", "back", "--dtype", "bfloat16").exit_code == 0
    assert json.loads(llama("show", "./back", "--json").stdout)["quantization"] == "BF16"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["y.gguf", "--quant", "q3_k_s"], "no quantization 'q3_k_s'; there are f32"),
        (["out", "--dtype", "int3"], "no dtype 'int3'"),
        (["out", "--quant", "q8_0"], "name the target *.gguf"),
        (["y.gguf", "--dtype", "float16"], "chosen by quantization"),
    ],
)
def test_convert_refuses(llama, tiny: str, world: Path, arguments: list[str], told: str) -> None:
    result = llama("convert", tiny, *arguments)
    assert result.exit_code == 2 and told in result.stderr
    assert not (world / "y.gguf").exists() and not (world / "out").exists()


def test_prompt_formats_by_example(llama, tiny: str, world: Path) -> None:
    result = llama("model", "prompt-format", "--model-id", "llama3.2:1b", "--tokenizer", tiny)
    assert result.exit_code == 0, result.output
    assert "<|start_header_id|>user<|end_header_id|>\n\nWhat is the capital of Norway?<|eot_id|>" in result.stdout
    assert '[get_weather(city="Oslo")]' in result.stdout
    data = json.loads(
        llama("model", "prompt-format", "--model-id", "llama-guard3:8b", "--tokenizer", tiny, "--json").stdout
    )
    assert data["format"] == "guard3" and "BEGIN UNSAFE CONTENT CATEGORIES" in data["examples"][0]["text"]
    missing = llama("model", "prompt-format", "--model-id", "llama2")
    assert missing.exit_code == 1 and "--tokenizer" in missing.stderr
    tiny_checkpoint(world / "embedded" / "cria")
    (world / "embedded" / "cria" / "card.json").write_text('{"prompt_format": "llama3.2"}')
    assert llama("model", "prompt-format", "--model-id", "llama3.1").stdout.startswith("Prompt format llama3.1")
    assert llama("model", "prompt-format", "--model-id", "cria").stdout.startswith("Prompt format llama3.2")
    assert llama("model", "prompt-format", "--model-id", "llama3.2-vision").exit_code == 2


def test_show_of_the_model_of_the_package_is_its_card(llama, world: Path) -> None:
    tiny_checkpoint(world / "embedded" / "cria")
    card = {"about": "A small model.", "prompt_format": "llama3.2", "scores": {"how": "exact", "held": {"tools": 0.91}}}
    (world / "embedded" / "cria" / "card.json").write_text(json.dumps(card))
    result = llama("show", "cria")
    assert result.exit_code == 0, result.output
    for fact in ("A small model.", "tools: 0.91", "94,528", "embedded"):
        assert fact in result.stdout
    assert json.loads(llama("show", "cria", "--json").stdout)["card"] == card
