"""Known sha256 of released files, by model and by the file's name in its repository.

A download is checked against the hub's own metadata in any case; these are a second, independent witness
for the files most people fetch. Source: digests published by several independent projects that agree.
"""

from __future__ import annotations

LLAMA_2_TOKENIZER = "9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347"
LLAMA_3_TOKENIZER = "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55"

# fmt: off
SHA256: dict[str, dict[str, str]] = {
    "llama1:7b-base": {
        "consolidated.00.pth":                "700df0d3013b703a806d2ae7f1bfb8e59814e3d06ae78be0c66368a50059f33d",
        "params.json":                        "7e89e242ddc0dd6f060b43ca219ce8b3e8f08959a72cb3c0855df8bb04d46265",
    },
    "llama1:13b-base": {
        "consolidated.00.pth":                "745bf4e29a4dd6f411e72976d92b452da1b49168a4f41c951cfcc8051823cf08",
        "consolidated.01.pth":                "d5ccbcc465c71c0de439a5aeffebe8344c68a519bce70bc7f9f92654ee567085",
        "params.json":                        "4ab77bec4d4405ccb66a97b282574c89a94417e3c32e5f68f37e2876fc21322f",
    },
    "llama1:30b-base": {
        "consolidated.00.pth":                "e23294a58552d8cdec5b7e8abb87993b97ea6eced4178ff2697c02472539d067",
        "consolidated.01.pth":                "4e077b7136c7ae2302e954860cf64930458d3076fcde9443f4d0e939e95903ff",
        "consolidated.02.pth":                "24a87f01028cbd3a12de551dcedb712346c0b5cbdeff1454e0ddf2df9b675378",
        "consolidated.03.pth":                "1adfcef71420886119544949767f6a56cb6339b4d5fcde755d80fe68b49de93b",
        "params.json":                        "2c07118ea98d69dbe7810d88520e30288fa994751b337f8fca02b171955f44cb",
    },
    "llama1:65b-base": {
        "consolidated.00.pth":                "135c563f6b3938114458183afb01adc9a63bef3d8ff7cccc3977e5d3664ecafe",
        "consolidated.01.pth":                "9a600b37b19d38c7e43809485f70d17d1dc12206c07efa83bc72bb498a568bde",
        "consolidated.02.pth":                "e7babf7c5606f165a3756f527cb0fedc4f83e67ef1290391e52fb1cce5f26770",
        "consolidated.03.pth":                "73176ffb426b40482f2aa67ae1217ef79fbbd1fff5482bae5060cdc5a24ab70e",
        "consolidated.04.pth":                "882e6431d0b08a8bc66261a0d3607da21cbaeafa96a24e7e59777632dbdac225",
        "consolidated.05.pth":                "a287c0dfe49081626567c7fe87f74cce5831f58e459b427b5e05567641f47b78",
        "consolidated.06.pth":                "72b4eba67a1a3b18cb67a85b70f8f1640caae9b40033ea943fb166bd80a7b36b",
        "consolidated.07.pth":                "d27f5b0677d7ff129ceacd73fd461c4d06910ad7787cf217b249948c3f3bc638",
        "params.json":                        "999ed1659b469ccc2a941714c0a9656fa571d17c9f7c8c7589817ca90edef51b",
    },
    "llama3.1:8b-instruct": {
        "model-00001-of-00004.safetensors":   "2b1879f356aed350030bb40eb45ad362c89d9891096f79a3ab323d3ba5607668",
        "model-00002-of-00004.safetensors":   "09d433f650646834a83c580877bd60c6d1f88f7755305c12576b5c7058f9af15",
        "model-00003-of-00004.safetensors":   "fc1cdddd6bfa91128d6e94ee73d0ce62bfcdb7af29e978ddcab30c66ae9ea7fa",
        "model-00004-of-00004.safetensors":   "92ecfe1a2414458b4821ac8c13cf8cb70aed66b5eea8dc5ad9eeb4ff309d6d7b",
        "original/consolidated.00.pth":       "ab33d910f405204e5d388bc3521503584800461dc96808e287821dd451c1edac",
        "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf":
                                              "7b064f5842bf9532c91456deda288a1b672397a54fa729aa665952863033557c",
    },
    "llama3.2:1b-base": {
        "model.safetensors":                  "68a2e4be76fa709455a60272fba8e512c02d81c46e6c671cc9449e374fd6809a",
    },
    "llama3.2:1b-instruct": {
        "model.safetensors":                  "1ff795ff6a07e6a68085d206fb84417da2f083f68391c2843cd2b8ac6df8538f",
        "Llama-3.2-1B-Instruct-Q4_K_M.gguf":  "6f85a640a97cf2bf5b8e764087b1e83da0fdb51d7c9fab7d0fece9385611df83",
    },
    "llama3.2:3b-instruct": {
        "Llama-3.2-3B-Instruct-Q4_K_M.gguf":  "6c1a2b41161032677be168d354123594c0e6e67d2b9227c84f296ad037c728ff",
    },
}
# fmt: on


def known_sha256(model: str, family: str, file: str) -> str | None:
    """The known digest of `file` (path in the repository) of catalog model `model`, if there is one."""
    if file.rsplit("/", 1)[-1] == "tokenizer.model":
        if family in ("llama1", "llama2"):
            return LLAMA_2_TOKENIZER
        if family in ("llama3", "llama3.1", "llama3.2", "llama3.3"):
            return LLAMA_3_TOKENIZER
    return SHA256.get(model, {}).get(file)
