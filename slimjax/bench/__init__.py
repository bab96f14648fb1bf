"""`slimjax bench`: measurements that back what the docs say. Never part of a test's assertion."""
