"""Rows, blobs and jobs that survive a kill: SQLite or PostgreSQL behind one small protocol."""
