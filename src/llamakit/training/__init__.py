"""Recipes over one shared loop; knows models and examples, and no server."""
