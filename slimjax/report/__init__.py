"""Tables for terminals, pictures and pages for people."""
