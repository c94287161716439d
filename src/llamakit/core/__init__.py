"""Messages, sampling, errors and settings: the words every floor shares; knows nobody."""
