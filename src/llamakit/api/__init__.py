"""Wire types and one async Protocol per API; knows no provider and no socket."""
