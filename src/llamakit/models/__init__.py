"""Forward passes: modules and how they are built; knows no file, no cache and no quantization."""
