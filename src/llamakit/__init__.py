"""llamakit: run, serve, make and guard Llama models on hardware you own."""

__version__ = "0.1.0"
