"""The `llama` command: talks to a person; every subcommand is a module that is loaded when it is asked for."""
