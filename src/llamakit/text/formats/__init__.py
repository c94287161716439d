"""Messages to prompt ids and answers back to messages, one file per family of models."""
