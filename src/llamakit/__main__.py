"""`python -m llamakit` is the `llama` command; useful where another package owns that script name."""

from llamakit.cli.main import main

if __name__ == "__main__":
    main()
