"""Readers of foreign documents. Each runs in a killable child; each is a plain function over bytes."""
