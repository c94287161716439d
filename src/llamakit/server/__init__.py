"""HTTP in: routes, streams, who may come in, and the one place where an error becomes a status."""
