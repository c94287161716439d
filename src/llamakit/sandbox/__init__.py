"""Untrusted work behind kernel limits: Python code in a sandbox, document readers in a child process."""
