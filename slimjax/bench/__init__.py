"""`slimjax bench`: measurements that back what README says. Never part of a test's assertion."""
