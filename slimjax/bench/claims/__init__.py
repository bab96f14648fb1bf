"""The papers' claims, decided on networks that two CPU cores can train."""
