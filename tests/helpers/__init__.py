"""What several test files need. A test file imports from here, never from another test file."""
