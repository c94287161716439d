"""Token ids in, token events out: owns the KV cache and decides what runs next; knows no text, no files, no asyncio."""
