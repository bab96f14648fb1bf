"""From a config to a run: what is built, trained and measured."""
